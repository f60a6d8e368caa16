#!/bin/sh
# Keep what was just verified as the last known good of a driver: build, sources and configuration.
#
# Two states are kept: this one, and the last one of another wanted state, to which `fleetdrv rollback` leads.
#
# Usage: keep.sh DRIVER DIGEST WANTED NAME VERSION KEY KERNEL…
#   DIGEST  of the wanted state that was verified; WANTED is a file with that state as JSON
#   NAME VERSION  the DKMS package, installed for each KERNEL
#   KEY     staged build that is now in use and can go, or -
# Exit: 0 kept, or already · 64 usage · 70 DKMS has no such build · 73 no space
# Needs: job.sh dkms.sh

set -eu
umask 077
LC_ALL=C
export LC_ALL
. ./job.sh
. ./dkms.sh

# Kept already: the same wanted state, configuration, and the very modules that modprobe loads now.
is_kept() {
    [ -e "$home/current/build" ] && read -r kept <"$home/current/digest" && [ "$kept" = "$digest" ] || return 1
    [ "$(cat "$home/current/build")" = "$package" ] && cmp -s "$wanted" "$home/current/wanted.json" || return 1
    for path in modprobe.d modules-load.d; do
        [ -e "/etc/$path/fleetdrv-$driver.conf" ] || [ -e "$home/current/$path.conf" ] || continue
        cmp -s "/etc/$path/fleetdrv-$driver.conf" "$home/current/$path.conf" || return 1
    done
    unpack_build "$home/current/dkms.tar.gz" "$home/.unpacked"
    code=0
    for kernel; do
        build_is_installed "$home/.unpacked" "$kernel" || code=1
    done
    rm -rf "$home/.unpacked"
    return "$code"
}

write_new() {
    new=$(mktemp -d "$home/v.XXXXXX") || die 73 "$home: cannot be written"
    printf '%s\n' "$digest" >"$new/digest"
    printf '%s\n' "$package" >"$new/build"
    cp "$wanted" "$new/wanted.json"
    for path in modprobe.d modules-load.d; do
        [ ! -e "/etc/$path/fleetdrv-$driver.conf" ] || cp "/etc/$path/fleetdrv-$driver.conf" "$new/$path.conf"
    done
    pack_build "$new/pack" "$new/dkms.tar.gz" \
        "$dkms_tree/$name/$version" "$source_tree/$name-$version" "$@" ||
        die 70 "$name $version: DKMS has no build of it for each of $*"
    beside_new "$home" "$new" "$digest"
    find "$new" -exec sync {} +
}

main() {
    [ $# -ge 7 ] || die 64 'usage: keep.sh DRIVER DIGEST WANTED NAME VERSION KEY KERNEL...'
    driver=$1 digest=$2 wanted=$3 name=$4 version=$5 key=$6
    shift 6
    plain_words "$driver" "$digest" "$name" "$version" "x$key" "$@"
    [ -r "$wanted" ] || die 64 "$wanted: cannot be read"
    home=$fleetdrv/good/$driver
    package="$name $version $*"
    mkdir -p "$home"
    if is_kept "$@"; then
        echo "$driver: kept already"
    else
        write_new "$@"
        make_current "$home" "$new"
        echo "$driver: $name $version for $* is kept as last known good"
    fi
    drop_others "$home"
    [ "$key" = - ] || rm -rf "$fleetdrv/stage/$key"
}

main "$@"
