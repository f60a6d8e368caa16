# shellcheck shell=sh disable=SC2034
# What launch.sh, run.sh and probe.sh must agree on about jobs. Sourced, or put in front of their text.
#
# /var/lib/fleetdrv/          root only
#   lock                      held (flock) by the running job and its children; text: who holds it
#   tokens/POOL               highest fencing token seen: lines "TOKEN RUN TIME", only ever appended
#   jobs/ID/                  one job, claimed by rename
#     digest                  of what was asked; the same id with another digest is refused
#     meta plan.sh run.sh …   the bundle
#     log                     all output
#     started                 "BOOT-ID PID START-TIME" of the runner
#     rc                      "CODE FAILED-STEP"; the only truth about the end
#   stage/KEY/ good/DRIVER/   builds that wait, last known good

fleetdrv=/var/lib/fleetdrv

# Exit with a code, the reason as the last line on stderr.
die() {
    code=$1
    shift
    printf '%s\n' "$*" >&2
    exit "$code"
}

# Set start_time of a process; fail when there is none. A pid alone may belong to somebody else by now.
process_start() {
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    # shellcheck disable=SC2086 # fields count from the bracket that ends the name
    set -- ${stat##*) }
    [ "$1" != Z ] || return 1
    start_time=${20}
}

# Tell whether the runner of a job folder is alive.
runner_alive() {
    read -r boot pid start <"$1/started" || return 1
    read -r boot_now </proc/sys/kernel/random/boot_id
    [ "$boot" = "$boot_now" ] && process_start "$pid" && [ "$start" = "$start_time" ]
}

# Set state (missing, claimed, running, interrupted, done), and code and label of a job that is done.
job_state() {
    state=missing code='' label=''
    [ -d "$1" ] || return 0
    if [ ! -e "$1/started" ]; then
        state=claimed
    elif runner_alive "$1"; then
        state=running
    else
        state=interrupted
    fi
    # Looked at last: the runner may have ended since.
    if [ -e "$1/rc" ]; then
        read -r code label <"$1/rc" || :
        state='done'
    fi
}

# Set highest to the highest token that this node has seen for a pool. A torn line (power cut) is no number.
highest_token() {
    highest=0
    [ -e "$fleetdrv/tokens/$1" ] || return 0
    while read -r seen _; do
        case $seen in
        '' | *[!0-9]*) ;;
        *) [ "$seen" -le "$highest" ] || highest=$seen ;;
        esac
    done <"$fleetdrv/tokens/$1"
}
