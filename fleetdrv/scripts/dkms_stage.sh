#!/bin/sh
# Build a DKMS source archive for some kernels in a scratch tree, while the node serves.
#
# Written is /var/lib/fleetdrv/stage/KEY/NAME-VERSION.dkms.tar.gz, by a rename at the end, and nothing else;
# dkms itself creates its signing key /var/lib/dkms/mok.* when there is none. The scratch tree has a fixed
# path, because a build id depends on the path: building again gives the same module.
#
# Usage: dkms_stage.sh NAME VERSION SHA256 ARCHIVE KEY KERNEL…
#   ARCHIVE  PREFIX.archive; a PREFIX.KERNEL.build beside it holds that kernel's modules, made elsewhere
# Exit: 0 built, or already there · 64 usage · 65 the archive is not the one with that digest, or not DKMS's
#       66 no headers for a kernel · 67 the driver excludes a kernel (BUILD_EXCLUSIVE) · 68 does not compile
#       69 dkms or compiler missing · 73 no space
# Needs: job.sh dkms.sh trial.sh initrd.sh

set -eu
umask 022
LC_ALL=C
export LC_ALL
. ./job.sh
. ./dkms.sh
. ./trial.sh
. ./initrd.sh

# The archive holds dkms.conf at its top or in its one top folder.
unpack_sources() {
    mkdir -p "$new/unpacked" "$new/src" "$new/tree" "$new/tmp" "$new/out" || die 73 "$new: cannot be made"
    tar -xf "$1" -o -C "$new/unpacked" || die 65 "$1: cannot be unpacked"
    for conf in "$new/unpacked/dkms.conf" "$new/unpacked"/*/dkms.conf; do
        [ -e "$conf" ] || continue
        mv "${conf%/dkms.conf}" "$new/src/$name-$version"
        chmod -R u+rwX,go+rX,go-w "$new/src/$name-$version"
        return
    done
    die 65 "$1: holds no dkms.conf"
}

main() {
    [ $# -ge 6 ] || die 64 'usage: dkms_stage.sh NAME VERSION SHA256 ARCHIVE KEY KERNEL...'
    name=$1 version=$2 sha256=$3 archive=$4 key=$5
    shift 5
    plain_words "$name" "$version" "$key" "$@"
    [ ! -d "$fleetdrv/stage/$key" ] || { echo "$key is staged already" && exit 0; }
    check_tools "$@"
    [ -r "$archive" ] || die 65 "$archive: cannot be read"
    sum=$(sha256sum <"$archive")
    [ "${sum%% *}" = "$sha256" ] || die 65 "$archive: its SHA-256 is ${sum%% *}, not $sha256"
    new=$fleetdrv/stage/.new.$key
    rm -rf "$new"
    (umask 077 && mkdir -p "$new")
    trap 'rm -rf "$new"' EXIT
    check_space "$(wc -c <"$archive")"
    unpack_sources "$archive"
    for kernel; do
        take_build "$new" "${archive%.*}" "$name" "$version" "$kernel" ||
            trial_build "$new" "$name" "$version" "$kernel"
    done
    pack_trial "$new" "$name" "$version" "$@"
    for kernel; do
        for ko in "$new/tree/$name/$version/$kernel"/*/module/*.ko*; do
            ko=${ko##*/}
            room_for_initrd "$kernel" "${ko%%.ko*}"
        done
    done
    sync "$new/out/$name-$version.dkms.tar.gz" "$new/out"
    mv -T "$new/out" "$fleetdrv/stage/$key"
    echo "$key is staged: $name $version for $*"
}

main "$@"
