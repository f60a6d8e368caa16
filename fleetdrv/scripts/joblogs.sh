#!/bin/sh
# List the jobs that this node keeps, or print the log of one. Reads only: no lock, no token, nothing started.
#
# Usage: sh -s -- list <"job.sh joblogs.sh"      sh -s -- log ID <"job.sh joblogs.sh"
# Output of list, oldest first: ID<tab>STATE<tab>CODE<tab>STEP
#   STATE as job.sh says; CODE only of a job that is done, STEP only where it failed
# Exit: 0 · 64 usage · 66 no such job
# Needs: job.sh

set -eu
LC_ALL=C PATH=${PATH:-/usr/bin}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
command -v job_state >/dev/null || . "$(dirname "$0")/job.sh"

list_jobs() {
    # By when it was claimed: the digest is written once.
    # shellcheck disable=SC2012 # ids are plain words
    ls -1tr -- "$fleetdrv/jobs"/*/digest 2>/dev/null | while read -r digest; do
        job=${digest%/digest}
        job_state "$job"
        printf '%s\t%s\t%s\t%s\n' "${job##*/}" "$state" "$code" "$label"
    done
}

main() {
    case "${1-} $#" in
    'list 1') list_jobs ;;
    'log 2')
        case $2 in
        [.-]* | *[!A-Za-z0-9._-]* | '') die 64 "$2: not an id" ;;
        esac
        [ -e "$fleetdrv/jobs/$2/log" ] || die 66 "$2: no such job here"
        cat "$fleetdrv/jobs/$2/log"
        ;;
    *) die 64 'usage: list | log ID' ;;
    esac
}

main "$@"
