#!/bin/sh
# Stop a driver's systemd units for an outage, and start again what was stopped: by name, never others.
#
# What was active is written down before it is stopped, in /var/lib/fleetdrv/services/DRIVER/UNIT, and forgotten
# once it is active again: a job that is killed in between leaves a debt that the next look sees. A unit that
# was not active stays so. Nothing is forced here; where its own TimeoutStopSec does, that counts as a failure.
#
# Usage: services.sh stop|start SECONDS DRIVER UNIT…
#        services.sh resume SECONDS
#   stop    in the given order, each within SECONDS
#   start   in the given order, those that are written down; what is written of others is forgotten
#   resume  start, last first, what this job has stopped
# Exit: 0 as asked, or already so · 64 usage · 69 there is no systemctl · 73 cannot be written
#       83 a unit does not stop, or would take others along: what this job had stopped is started again
#       84 a unit does not start, or is not active a second later
# Needs: job.sh

set -eu
umask 077
LC_ALL=C
export LC_ALL
. ./job.sh

# Set state and result of a unit.
unit_state() {
    state='' result='' type=''
    while IFS='=' read -r key value; do
        case $key in ActiveState) state=$value ;; Result) result=$value ;; Type) type=$value ;; esac
    done <<SAID
$(systemctl show -p ActiveState -p Result -p Type -- "$1")
SAID
    [ -n "$state" ] || die 69 "$1: systemctl cannot tell its state"
}

# Units that cannot be without this one stop with it. A target is only a name for what else runs.
refuse_if_others_would_stop() {
    unit=$1
    shift
    for other in $(systemctl show -p RequiredBy -p BoundBy -p ConsistsOf --value -- "$unit"); do
        case " $* $other" in *" $other "* | *.target) continue ;; esac
        ! systemctl is-active --quiet -- "$other" ||
            give_up 83 "$unit: $other would stop with it; list $other after $unit in the playbook," \
                'or stop it first'
    done
}

give_up() {
    resume
    die "$@"
}

stop() {
    unit_state "$1"
    case $state in
    active | reloading | refreshing | activating) ;;
    *) echo "$1 is $state: left as it is" && return 0 ;;
    esac
    if ! { mkdir -p "$home" && : >"$home/$1" && sync "$home/$1" "$home"; }; then
        give_up 73 "$home/$1: cannot be written"
    fi
    printf '%s %s\n' "$driver" "$1" >>stopped
    code=0
    timeout "$seconds" systemctl stop -- "$1" || code=$?
    unit_state "$1"
    case $state/$result in
    */timeout) give_up 83 "$1 did not stop within its own TimeoutStopSec, and systemd ended it" ;;
    inactive/* | failed/*) echo "$1 is stopped" ;;
    *) give_up 83 "$1 did not stop within $seconds s: it is $state (systemctl stop: exit $code)" ;;
    esac
}

# Start what is written down, and set failed to those that do not stay.
start() {
    failed=''
    for unit; do
        [ ! -e "$home/$unit" ] || timeout "$seconds" systemctl start -- "$unit" || :
    done
    # Some fail only once they have looked for their device.
    for unit; do
        [ ! -e "$home/$unit" ] || { sleep 1 && break; }
    done
    for unit; do
        [ -e "$home/$unit" ] || continue
        unit_state "$unit"
        case $state/$type/$result in
        active/* | reloading/* | refreshing/* | inactive/oneshot/success)
            rm -f "$home/$unit"
            echo "$unit is started"
            ;;
        *)
            systemctl status --no-pager -n 10 -- "$unit" >&2 || :
            failed="$failed $unit ($state, $result)"
            ;;
        esac
    done
}

resume() {
    [ -e stopped ] || return 0
    tac stopped >stopped.reversed
    rm -f stopped
    while read -r driver unit; do
        home=$fleetdrv/services/$driver
        start "$unit"
        [ -z "$failed" ] || echo "$unit cannot be started again:$failed" >&2
    done <stopped.reversed
}

forget_others() {
    for path in "$home"/*; do
        case " $* " in *" ${path##*/} "*) ;; *) rm -f "$path" ;; esac
    done
    rmdir "$home" 2>/dev/null || :
}

main() {
    [ $# -ge 4 ] || [ "$*" = "resume ${2-}" ] || die 64 'usage: services.sh stop|start SECONDS DRIVER UNIT...'
    verb=$1 seconds=$2 driver=${3-}
    for word; do
        case $word in '' | [.-]* | *[!A-Za-z0-9:._@-]*) die 64 "$word: not a plain word" ;; esac
    done
    command -v systemctl >/dev/null || die 69 'there is no systemctl on this node'
    home=$fleetdrv/services/$driver
    [ "$verb" = resume ] || shift 3
    case $verb in
    stop)
        for unit; do refuse_if_others_would_stop "$unit" "$@"; done
        for unit; do stop "$unit"; done
        ;;
    start)
        start "$@"
        [ -z "$failed" ] ||
            die 84 "of $driver do not run:$failed; on the node: journalctl -n 50 -u${failed%% (*}"
        forget_others "$@"
        ;;
    resume) resume ;;
    *) die 64 "$verb: stop, start or resume" ;;
    esac
}

main "$@"
