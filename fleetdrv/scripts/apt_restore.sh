#!/bin/sh
# Bring back the last known good of an apt driver: packages, builds and configuration. Loading is load.sh's.
#
# Usage: apt_restore.sh DRIVER [KEY|- [DIGEST]]
#   KEY     staged packages that failed and can go
#   DIGEST  of the kept state that is meant; without it, the one that was verified last
# Exit: 0 done, or already so · 64 usage · 72 nothing is kept for the driver · else that of apt_install.sh
#       or configure.sh
# Needs: job.sh dkms.sh apt_install.sh configure.sh

set -eu
LC_ALL=C
export LC_ALL
. ./job.sh
. ./dkms.sh

main() {
    case $# in [1-3]) ;; *) die 64 'usage: apt_restore.sh DRIVER [KEY|- [DIGEST]]' ;; esac
    driver=$1 key=${2--} digest=${3-}
    plain_words "$driver" "x$key" "x$digest"
    kept_state "$driver" "$digest" && [ -e "$good/packages" ] ||
        die 72 "$driver: no last known good${digest:+ with digest $digest} on this node"
    read -r kept <"$good/kernels"
    kernels=''
    # A kernel that was removed since needs no driver.
    for kernel in $kept; do
        [ ! -d "/lib/modules/$kernel" ] || kernels="$kernels $kernel"
    done
    [ -n "$kernels" ] || die 72 "$driver: last known good is for $kept, none of which is installed"
    mkdir -p "$fleetdrv/stage"
    ln -sfnT "$good" "$fleetdrv/stage/good.$driver"
    read -r hold <"$good/hold"
    read -r pins <"$good/packages"
    # shellcheck disable=SC2086 # plain words
    /bin/sh ./apt_install.sh "$driver" "good.$driver" "$hold" keep $pins -- $kernels
    rm "$fleetdrv/stage/good.$driver"
    set --
    for folder in modprobe.d modules-load.d; do
        [ ! -e "$good/$folder.conf" ] || set -- "$@" "$good/$folder.conf" "/etc/$folder/fleetdrv-$driver.conf"
    done
    /bin/sh ./configure.sh "$driver" "$@"
    [ "$key" = - ] || rm -rf "$fleetdrv/stage/$key"
}

main "$@"
