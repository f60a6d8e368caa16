#!/bin/sh
# Claim a job, start it in a unit of its own, and follow its log; or only follow one that is there.
#
# The job does not depend on this program: when the link breaks, this dies and the job runs on.
#
# Usage: sh -c "$(cat job.sh launch.sh)" launch.sh launch ID DIGEST CLASS OFFSET <bundle.tar
#        sh -c "$(cat job.sh launch.sh)" launch.sh attach ID CLASS OFFSET
#        sh -c "$(cat job.sh launch.sh)" launch.sh watch ID OFFSET      starts and writes nothing, ever
#   ID      letters, digits, dot, underscore, minus
#   CLASS   background (first to give way to pods) or outage (last to be killed)
#   OFFSET  bytes of the log that the caller has already
#   bundle  run.sh, job.sh, plan.sh, programs, payload/, and as the last member meta, which proves it whole
# Output, byte-exact frames:
#   log OFFSET LENGTH   followed by LENGTH bytes of the log
#   beat OFFSET STATE   after about 5 s of silence; claimed or running
#   exit CODE STEP      the end, after the whole log; STEP is empty when CODE is 0
#   interrupted         the runner is gone and left no exit status
#   missing             attach, watch: no such job here
# Exit: 0 the output said how it ended · 64 usage · 65 the id is taken by another digest
#       71 cannot be started · 73 no space · 74 the bundle did not arrive whole
# Needs: job.sh

set -eu
umask 077
LC_ALL=C PATH=${PATH:-/usr/bin}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
command -v job_state >/dev/null || . "$(dirname "$0")/job.sh"

# A slow disk or link must not look like a dead one: a beat every 5 s while the bundle is unpacked.
beat_meanwhile() {
    while sleep 5 >/dev/null 2>&1; do
        printf 'beat %s claimed\n' "$offset"
    done &
    beater=$!
    trap 'kill "$beater" 2>/dev/null || :' EXIT
    claim
    trap - EXIT
    kill "$beater" 2>/dev/null || :
    wait "$beater" 2>/dev/null || :
}

# Unpack the bundle and claim the job by a rename; whoever finds the folder finds it whole.
claim() {
    new=$fleetdrv/jobs/.new.$id.$$
    mkdir -p "$new" || die 73 "$new: cannot be made"
    if ! tar -x -o -C "$new" -f - || [ ! -s "$new/meta" ]; then
        rm -rf "$new"
        die 74 "$id: the bundle did not arrive whole"
    fi
    : >"$new/log"
    printf '%s\n' "$digest" >"$new/digest"
    # A power cut must not leave a claimed job of empty files.
    find "$new" -exec sync {} + || die 73 "$new: cannot be written"
    mv -T "$new" "$job" 2>/dev/null && return 0
    rm -rf "$new"
    [ -d "$job" ] || die 73 "$job: cannot be claimed"
}

# A job that was claimed for another plan and never started never will: it ends here, and the next number is
# free for the new plan. Being "started" is decided by a link, so a runner that is about to begin finds it made.
same_digest() {
    read -r have <"$job/digest"
    [ "$have" != "$digest" ] || return 0
    job_state "$job"
    if [ "$state" = claimed ]; then
        printf 'superseded 0 0\n' >"$job/.started.$$"
        if ln "$job/.started.$$" "$job/started" 2>/dev/null; then
            printf '65 superseded\n' >"$job/.rc" && mv "$job/.rc" "$job/rc"
        fi
        rm -f "$job/.started.$$"
        job_state "$job"
    fi
    [ "$state/$label" != done/superseded ] || { echo "exit $code $label" && exit 0; }
    die 65 "$id: taken by another job, digest $have, not $digest"
}

# Start the runner where neither the end of this session nor its cgroup can reach it. Twice does no harm.
start_job() {
    [ "$verb" != watch ] || return 0
    oom=-500 nice=0
    set -- -p TimeoutStopSec=900
    if [ "$class" = background ]; then
        oom=500 nice=10
        set -- -p TimeoutStopSec=10 -p CPUWeight=20 -p IOWeight=20 -p Nice=10 -p MemoryHigh=50%
    fi
    if [ ! -d /run/systemd/system ]; then
        (
            echo "$oom" 2>/dev/null >/proc/self/oom_score_adj || :
            exec nice -n "$nice" setsid /bin/sh "$job/run.sh" "$id"
        ) </dev/null >/dev/null 2>&1 &
        return 0
    fi
    systemd-run --no-block --collect --quiet "--unit=fleetdrv-$id" "--description=fleetdrv job $id" \
        -p KillMode=mixed -p OOMPolicy=continue -p "OOMScoreAdjust=$oom" "$@" \
        /bin/sh "$job/run.sh" "$id" </dev/null >&2 && return 0
    # Refused because somebody else started it a moment ago?
    [ "$(systemctl show -p LoadState --value "fleetdrv-$id.service")" = loaded ] || [ -e "$job/started" ] ||
        die 71 "fleetdrv-$id: systemd-run cannot start it"
}

# Send what the log holds beyond offset.
send_log() {
    size=$(wc -c <"$job/log")
    [ "$size" -gt "$offset" ] || return 0
    printf 'log %s %s\n' "$offset" "$((size - offset))"
    tail -c "+$((offset + 1))" "$job/log" | head -c "$((size - offset))"
    offset=$size quiet=0
}

# The end is looked for at each turn and costs no process; the log at every fourth.
follow() {
    turn=0 quiet=0 pause=0.1
    while :; do
        job_state "$job"
        case $state in
        missing) echo missing && return ;;
        interrupted) send_log && echo interrupted && return ;;
        done) send_log && echo "exit $code${label:+ $label}" && return ;;
        esac
        [ $((turn % 4)) -ne 0 ] || send_log
        if [ "$quiet" -ge 20 ]; then
            printf 'beat %s %s\n' "$offset" "$state"
            quiet=0
            [ "$state" != claimed ] || start_job
        fi
        [ "$turn" -lt 10 ] || pause=0.25
        sleep "$pause"
        turn=$((turn + 1)) quiet=$((quiet + 1))
    done
}

main() {
    verb=${1-} id=${2-}
    case "$verb $#" in
    'launch 5') digest=$3 class=$4 offset=$5 ;;
    'attach 4') class=$3 offset=$4 ;;
    'watch 3') class=background offset=$3 ;;
    *) die 64 'usage: launch ID DIGEST CLASS OFFSET <bundle.tar | attach ID CLASS OFFSET | watch ID OFFSET' ;;
    esac
    case "$id/$class/$offset" in
    [.-]* | *[!A-Za-z0-9._-]*/*/* | /* | */*/*[!0-9]* | */*/)
        die 64 "$id, $class, $offset: not an id, class and offset"
        ;;
    */background/* | */outage/*) ;;
    *) die 64 "$class: neither background nor outage" ;;
    esac
    job=$fleetdrv/jobs/$id
    if [ "$verb" = launch ]; then
        if [ -d "$job" ]; then cat >/dev/null; else beat_meanwhile; fi
        same_digest
    fi
    exec </dev/null
    job_state "$job"
    [ "$state" != claimed ] || start_job
    follow
}

main "$@"
