#!/bin/sh
# Keep the packages that were just verified as the last known good of a driver, with their builds.
#
# Two states are kept: this one, and the last one of another wanted state, to which `fleetdrv rollback` leads.
#
# Usage: apt_keep.sh DRIVER DIGEST WANTED KEY NAME=VERSION… -- KERNEL…
#   DIGEST  of the wanted state that was verified; WANTED is a file with that state as JSON
#   KEY     what apt_stage.sh has staged and is now in use, and can go; - where nothing was staged
# Exit: 0 kept, or already, or the packages are nowhere to be had: then nothing is known to be good, said so
#       64 usage · 70 a package is not installed at that version · 73 no space
# Needs: job.sh packages.sh apt.sh dkms.sh

set -eu
umask 077
LC_ALL=C
export LC_ALL
. ./job.sh
. ./packages.sh
. ./apt.sh
. ./dkms.sh

is_kept() {
    [ -e "$home/current/packages" ] && [ "$(cat "$home/current/digest")" = "$digest" ] || return 1
    [ "$(cat "$home/current/packages")" = "$pinned" ] && [ "$(cat "$home/current/kernels")" = "$built" ] &&
        cmp -s "$wanted" "$home/current/wanted.json" || return 1
    for path in modprobe.d modules-load.d; do
        [ -e "/etc/$path/fleetdrv-$driver.conf" ] || [ -e "$home/current/$path.conf" ] || continue
        cmp -s "/etc/$path/fleetdrv-$driver.conf" "$home/current/$path.conf" || return 1
    done
}

# serves STATE: whether it has builds for a kernel that can boot. For one that came since, DKMS built by itself.
serves() {
    read -r its_kernels <"$1/kernels"
    for kernel in $its_kernels; do
        case " $kernels " in *" $kernel "*) return 0 ;; esac
    done
    return 1
}

# Links instead of copies: stage and good lie on one file system.
write_new() {
    new=$(mktemp -d "$home/v.XXXXXX") || die 73 "$home: cannot be written"
    cp -al "$source/." "$new/" || die 73 "$new: cannot be written"
    # Where they were kept before, these are links: writing into them would write into the former good.
    rm -f "$new/digest" "$new/packages" "$new/kernels" "$new/hold" "$new/wanted.json" "$new"/*.conf
    printf '%s\n' "$digest" >"$new/digest"
    printf '%s\n' "$pinned" >"$new/packages"
    printf '%s\n' "$built" >"$new/kernels"
    echo no >"$new/hold"
    for pin in $pinned; do
        package_state "${pin%%=*}"
        [ "$held" = no ] || echo yes >"$new/hold"
    done
    cp "$wanted" "$new/wanted.json"
    for path in modprobe.d modules-load.d; do
        [ ! -e "/etc/$path/fleetdrv-$driver.conf" ] || cp "/etc/$path/fleetdrv-$driver.conf" "$new/$path.conf"
    done
    beside_new "$home" "$new" "$digest"
    find "$new" -exec sync {} +
}

main() {
    [ $# -ge 7 ] || die 64 'usage: apt_keep.sh DRIVER DIGEST WANTED KEY NAME=VERSION... -- KERNEL...'
    driver=$1 digest=$2 wanted=$3 key=$4
    shift 4
    plain_words "$driver" "$digest" "x$key"
    take_pins "$@" || die 64 "$*: not NAME=VERSION... -- KERNEL..."
    [ -r "$wanted" ] || die 64 "$wanted: cannot be read"
    for pin in $pinned; do
        package_state "${pin%%=*}"
        [ "$status$installed" = "installed${pin#*=}" ] || die 70 "$pin: is $status at ${installed:-no version}"
    done
    home=$fleetdrv/good/$driver
    mkdir -p "$home"
    source=$fleetdrv/stage/$key
    built=$kernels
    # Nothing new was staged: what is kept of these packages serves again, for the kernels that it has builds for.
    for state in "$home/current" "$home/current/previous"; do
        if [ ! -d "$source" ] && [ "$(cat "$state/packages" 2>/dev/null)" = "$pinned" ] && serves "$state"; then
            source=$(readlink -f "$state")
            read -r built <"$state/kernels"
        fi
    done
    if is_kept; then
        echo "$driver: kept already"
    elif [ -d "$source" ]; then
        write_new
        make_current "$home" "$new"
        echo "$driver: $pinned for $built is kept as last known good"
    else
        rm -f "$home/current"
        echo "$driver: the packages of $pinned are not here: nothing is kept, there is no rollback to it"
    fi
    drop_others "$home"
    [ "$key" = - ] || rm -rf "$fleetdrv/stage/$key"
}

main "$@"
