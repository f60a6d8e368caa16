#!/bin/sh
# Ask, before anything is changed, whether apt could install now; change nothing.
#
# What stage has found to be so may have changed since: another apt at work, dpkg interrupted, a hold, a disk
# that filled up. Asked before the cordon, and again first in the outage: a drain takes its time.
#
# Usage: apt_ready.sh DRIVER KEY NAME=VERSION…
#   KEY            what apt_stage.sh has staged; where nothing is, only a hold or a repository is settled
#   READY_SECONDS  in the environment: how long to wait for another apt or dpkg, 10 if not set. That does for
#                  one that only looks; for one at work who asked may ask again, as long as the node serves.
# Exit: 0 it could · 64 usage · 83 it could not, as told · 86 another apt or dpkg is at work
# Needs: job.sh packages.sh apt.sh

set -eu
LC_ALL=C
export LC_ALL
command -v job_state >/dev/null || . ./job.sh
command -v package_state >/dev/null || . ./packages.sh
command -v check_system >/dev/null || . ./apt.sh

# What the staged packages will take, half as much again for dpkg's copies, must be free where they go.
need_space() {
    [ -d "$staged" ] || return 0
    needed=65536
    for deb in "$staged"/debs/*.deb; do
        kib=$(dpkg-deb -f "$deb" Installed-Size)
        needed=$((needed + ${kib:-1024} * 3 / 2))
    done
    for path in /usr /var/lib/dpkg /lib/modules; do
        free=$(df -Pk "$path" | { read -r _ && read -r _ _ _ kib _ && echo "$kib"; })
        [ "$free" -ge "$needed" ] || refuse "$path: $free KiB free, $needed KiB are needed to install"
    done
}

refuse() {
    die 83 "$*; nothing was changed"
}

main() {
    usage='usage: apt_ready.sh DRIVER KEY NAME=VERSION...'
    [ $# -ge 3 ] || die 64 "$usage"
    driver=$1 staged=$fleetdrv/stage/$2
    case $1/$2 in */*/* | [.-]* | */[.-]* | *[!A-Za-z0-9._+~/-]*) die 64 "$usage" ;; esac
    shift 2
    waited=0
    while holder=$(lock_holder || :) && [ -n "$holder" ]; do
        [ "$waited" -lt "${READY_SECONDS:-10}" ] ||
            die 86 "dpkg's lock is held by $holder, after $waited s; nothing was changed"
        [ "$waited" -gt 0 ] || echo "waiting for $holder"
        waited=$((waited + 1)) && sleep 1
    done
    # Its own subshell: what it refuses with has other codes.
    said=$( (check_system "$@") 2>&1) || refuse "$said"
    need_space
    echo "$driver: apt can install"
}

main "$@" </dev/null
