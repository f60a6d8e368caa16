#!/bin/sh
# Write the initramfs of a kernel anew if it carries one of some modules and is older than this job, or than
# the module's file or options: the next boot would load old code, or a module that is not to be loaded.
#
# Usage: initramfs.sh KERNEL MODULE…
#   MODULE   name of a module's file, without .ko; or one that is not to be loaded: its blacklist is in there
# Exit: 0 as wanted, or already so, or there is no initramfs · 64 usage · 69 nothing here can write one
#       73 no space · 85 it was not written
# Needs: job.sh module.sh initrd.sh

set -eu
LC_ALL=C
export LC_ALL
. ./job.sh
. ./module.sh
. ./initrd.sh

# Set carried to those of some modules that are in the initramfs; an alias may lead to a file of another name.
find_carried() {
    carried='' listed=$(initrd_modules "$kernel") || die 85 "$initrd: cannot be listed"
    [ "$listed" != - ] || { carried=" unknown modules" && return 0; }
    for name; do
        module_file "$name" "$kernel" || file=''
        file=${file##*/}
        file=$(printf '%s' "${file%%.ko*}" | tr - _) name=$(printf '%s' "$name" | tr - _)
        ! printf '%s\n' "$listed" | grep -qx -e "$name" -e "${file:-$name}" || carried="$carried $name"
    done
}

may_be_old() {
    paths=./started
    for name; do
        module_file "$name" "$kernel" || continue
        paths="$paths $file"
    done
    # shellcheck disable=SC2086
    newer_than_initrd $paths /etc/modprobe.d/fleetdrv-*.conf
}

write_anew() {
    code=0
    if command -v update-initramfs >/dev/null; then
        update-initramfs -u -k "$kernel" >said 2>&1 || code=$?
    elif command -v dracut >/dev/null; then
        dracut --force "$initrd" "$kernel" >said 2>&1 || code=$?
    else
        die 69 "$initrd: there is neither update-initramfs nor dracut"
    fi
    cat said
    ! grep -q 'No space left on device' said || die 73 "$initrd: no space left for a new one"
    # It may be switched off: /etc/initramfs-tools/update-initramfs.conf. Times may be equal: a tick is 4 ms.
    # shellcheck disable=SC3013
    [ "$code" -eq 0 ] && [ ! ./began -nt "$initrd" ] || die 85 "$initrd was not written anew (exit $code)"
}

main() {
    [ $# -ge 2 ] || die 64 'usage: initramfs.sh KERNEL MODULE...'
    for word; do
        case $word in '' | [.-]* | *[!A-Za-z0-9._+~-]*) die 64 "$word: not a plain word" ;; esac
    done
    kernel=$1
    shift
    initrd_of "$kernel" || { echo "$kernel has no initramfs" && exit 0; }
    may_be_old "$@" || { echo "$initrd is newer than what it carries" && exit 0; }
    find_carried "$@"
    if [ -n "$carried" ]; then
        : >began
        write_anew
        echo "$initrd is written anew: it carries$carried"
    else
        echo "$initrd carries none of $*"
    fi
    remember_initrd "$kernel"
}

main "$@"
