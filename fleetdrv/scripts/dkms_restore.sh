#!/bin/sh
# Bring back the last known good of a driver: its build for DKMS and its configuration. Loading is load.sh's.
#
# Usage: dkms_restore.sh DRIVER [KEY|- [DIGEST]]
#   KEY     staged build that failed and can go
#   DIGEST  of the kept state that is meant; without it, the one that was verified last
# Exit: 0 done, or already so · 64 usage · 72 nothing is kept for the driver · else that of dkms_install.sh
#       or configure.sh
# Needs: job.sh dkms.sh dkms_install.sh configure.sh

set -eu
LC_ALL=C
export LC_ALL
. ./job.sh
. ./dkms.sh

main() {
    case $# in [1-3]) ;; *) die 64 'usage: dkms_restore.sh DRIVER [KEY|- [DIGEST]]' ;; esac
    driver=$1 key=${2--} digest=${3-}
    plain_words "$driver" "x$key" "x$digest"
    kept_state "$driver" "$digest" && [ -e "$good/build" ] ||
        die 72 "$driver: no last known good${digest:+ with digest $digest} on this node"
    read -r name version kernels <"$good/build"
    set --
    # A kernel that was removed since needs no driver.
    for kernel in $kernels; do
        [ ! -d "/lib/modules/$kernel" ] || set -- "$@" "$kernel"
    done
    [ $# -gt 0 ] || die 72 "$driver: last known good is for $kernels, none of which is installed"
    /bin/sh ./dkms_install.sh "$name" "$version" "$good/dkms.tar.gz" "$@"
    set --
    for folder in modprobe.d modules-load.d; do
        [ ! -e "$good/$folder.conf" ] || set -- "$@" "$good/$folder.conf" "/etc/$folder/fleetdrv-$driver.conf"
    done
    /bin/sh ./configure.sh "$driver" "$@"
    [ "$key" = - ] || rm -rf "$fleetdrv/stage/$key"
}

main "$@"
