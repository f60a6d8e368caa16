#!/bin/sh
# Build and install a DKMS package for each kernel that lacks a build, on the node and from its own sources.
#
# For a repair without a playbook: nobody else has a build to send. It compiles while the node is out.
#
# Usage: dkms_rebuild.sh NAME VERSION KERNEL…
# Exit: 0 DKMS holds it for installed under each kernel, or did · 64 usage · 66 no headers for a kernel
#       67 it excludes a kernel (BUILD_EXCLUSIVE) · 68 it does not compile · 69 dkms or a tool is missing
#       70 dkms says yes and it is not so · 72 its sources are not there · 73 no space
# Needs: job.sh module.sh dkms.sh trial.sh

set -eu
umask 022
LC_ALL=C
export LC_ALL
. ./job.sh
. ./module.sh
. ./dkms.sh
. ./trial.sh

is_installed() {
    active_version "$name" "$1"
    [ "$active" = "$version" ] || return 1
    for ko in "$dkms_tree/$name/$version/$1"/*/module/*.ko*; do
        [ -e "$ko" ] || return 1
        ko_name=${ko##*/}
        ko_path=$(modinfo -k "$1" -n -- "${ko_name%%.ko*}" 2>/dev/null) || return 1
        cmp -s "$ko_path" "$ko" || return 1
    done
}

rebuild() {
    check_tools "$1"
    check_space 0
    code=0
    dkms install --force -j 2 -m "$name" -v "$version" -k "$1" >said 2>&1 || code=$?
    cat said
    is_installed "$1" && return 0
    log=$dkms_tree/$name/$version/build/make.log
    [ ! -e "$log" ] || tail -n 30 "$log" >&2
    if grep -qs 'No space left on device' said "$log"; then die 73 "kernel $1: no space left to build"; fi
    if grep -q BUILD_EXCLUSIVE said; then die 67 "$name $version excludes kernel $1 (BUILD_EXCLUSIVE)"; fi
    [ "$code" -ne 0 ] || die 70 "$name $version: dkms did not install it for kernel $1"
    die 68 "$name $version does not compile for kernel $1 (dkms exit $code)"
}

main() {
    [ $# -ge 3 ] || die 64 'usage: dkms_rebuild.sh NAME VERSION KERNEL...'
    name=$1 version=$2
    shift 2
    plain_words "$name" "$version" "$@"
    [ -e "$source_tree/$name-$version/dkms.conf" ] || die 72 "$source_tree/$name-$version: no sources"
    for kernel; do
        if is_installed "$kernel"; then
            echo "$name $version is installed for kernel $kernel"
        else
            rebuild "$kernel"
            echo "$name $version is built and installed for kernel $kernel"
        fi
    done
    find "$dkms_tree/$name" -exec sync {} +
}

main "$@"
