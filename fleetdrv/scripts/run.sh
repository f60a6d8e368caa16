#!/bin/sh
# Run the steps of one job under the node's lock, and leave their exit status in the job folder.
#
# Started by launch.sh in a unit of its own; a second start does nothing. The lock is held by this process and
# whatever it starts, so a killed runner does not free the node while its dkms still works.
#
# Usage: run.sh ID    (in /var/lib/fleetdrv/jobs/ID: meta, plan.sh and the programs that plan.sh names)
#   meta     lines key=value: pool, token, run
#   plan.sh  lines: step 'LABEL' PROGRAM.sh ARGUMENT…
# Exit and rc: that of the first step that failed, else 0 · 64 usage, unusable meta
#              75 another job holds the node · 77 a newer controller was here
# Needs: job.sh

set -eu
umask 077
LC_ALL=C PATH=${PATH:-/usr/bin}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
lock_seconds=30
kept_jobs=20

# Leave the exit status: a reader sees all of it or none. Then make room, archives first; nobody waits for that.
finish() {
    printf '%s\n' "$1${2:+ $2}" >.rc
    sync .rc || :
    mv .rc rc
    rm -rf payload || :
    prune >/dev/null 2>&1 || :
    exit "$1"
}

prune() {
    cd "$fleetdrv/jobs"
    # shellcheck disable=SC2012 # ids are plain words
    ls -1t -- */rc | tail -n "+$((kept_jobs + 1))" | while read -r old; do
        rm -rf "./${old%/rc}"
    done
    find . -maxdepth 1 -name '.new.*' -cmin +60 -exec rm -rf {} +
    find ../stage -maxdepth 1 -name '.new.*' -cmin +60 -exec rm -rf {} +
}

refuse() {
    printf '%s\n' "$3"
    finish "$1" "$2"
}

# Be the only runner of this job: a link is made once.
start_once() {
    read -r boot </proc/sys/kernel/random/boot_id
    process_start "$$"
    printf '%s %s %s\n' "$boot" "$$" "$start_time" >".started.$$"
    ln ".started.$$" started 2>/dev/null || { rm -f ".started.$$" && exit 0; }
    rm -f ".started.$$"
}

read_meta() {
    pool='' token='' run=''
    while IFS='=' read -r key value; do
        case $key in
        pool) pool=$value ;;
        token) token=$value ;;
        run) run=$value ;;
        esac
    done <meta
    case "$pool/$token/$run" in
    [.-]* | *[!A-Za-z0-9._-]*/*/* | /* | */*[!0-9]*/* | *//* | */*/ | */*/*[!A-Za-z0-9._-]*)
        refuse 64 meta "pool=$pool token=$token run=$run: not usable"
        ;;
    esac
}

take_lock() {
    exec 9>>"$fleetdrv/lock"
    if ! flock -w "$lock_seconds" 9; then
        read -r holder <"$fleetdrv/lock" || :
        refuse 75 lock "another job holds the node: ${holder:-unknown}"
    fi
    printf '%s run %s token %s pid %s\n' "$id" "$run" "$token" "$$" >"$fleetdrv/lock"
}

# Refuse to act for a controller that was replaced; from here on refuse older ones.
take_token() {
    highest_token "$pool"
    [ "$token" -ge "$highest" ] ||
        refuse 77 token "token $token is older than $highest: another controller took over"
    [ "$token" -gt "$highest" ] || return 0
    mkdir -p "$fleetdrv/tokens"
    # A torn last line must not swallow this one.
    printf '\n%s %s %s\n' "$token" "$run" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >>"$fleetdrv/tokens/$pool"
    sync "$fleetdrv/tokens/$pool" || refuse 73 token "$fleetdrv/tokens/$pool: cannot be written"
}

# One line of plan.sh; the label outlives a runner that is killed.
# shellcheck disable=SC2317,SC2329 # called by plan.sh
step() {
    printf '%s\n' "$1" >step
    printf '== %s\n' "$1"
    program=$2
    shift 2
    /bin/sh "./$program" "$@" || exit
    printf '%s\n' "$program" >>passed
}

main() {
    [ $# -eq 1 ] || { echo 'usage: run.sh ID' >&2 && exit 64; }
    id=$1
    cd "/var/lib/fleetdrv/jobs/$id"
    . ./job.sh
    # A shutdown waits for the job: systemd tells only this process, and kills after TimeoutStopSec. Caught, not
    # ignored: ignoring is inherited, and dkms 3.0 then waits three seconds for each of its progress dots.
    trap : HUP INT TERM
    exec </dev/null >>log 2>&1
    start_once
    read_meta
    take_lock
    take_token
    # In a subshell: even a plan that cannot be parsed ends in an exit status. Not in a condition, which
    # would switch -e off: a line that is no step must end the plan.
    set +e
    (
        set -e
        # shellcheck source=/dev/null
        . ./plan.sh
    )
    code=$? label=''
    set -e
    [ "$code" -eq 0 ] || read -r label <step || label=plan
    finish "$code" "$label"
}

main "$@"
