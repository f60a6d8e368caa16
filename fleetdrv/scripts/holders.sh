#!/bin/sh
# Tell who keeps kernel modules in use, and change nothing: one record a line, fields separated by tabs.
#
# Usage: holders.sh MODULE…        (names as the kernel writes them)
# Records: fleetdrv-holders 1 · dependent MODULE OTHER
#   process MODULE PID COMMAND DEVICE POD CONTAINER UNIT · end
#   POD is the UID, CONTAINER the runtime's id, UNIT a systemd service; each empty where there is none
# Exit: 0 the last line is "end" · 64 usage
# Needs: job.sh users.sh

set -eu
LC_ALL=C
export LC_ALL
command -v job_state >/dev/null || . "$(dirname "$0")/job.sh"
command -v processes_with >/dev/null || . "$(dirname "$0")/users.sh"

look_at() {
    [ -e "/sys/module/$1/initstate" ] || return 0
    for holder in "/sys/module/$1/holders"/*; do
        [ ! -e "$holder" ] || printf 'dependent\t%s\t%s\n' "$1" "${holder##*/}"
    done
    found=$(processes_with "$1")
    while read -r pid device; do
        [ -n "$pid" ] || continue
        describe_process "$pid"
        printf 'process\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' \
            "$1" "$pid" "$command_name" "$device" "$pod" "$container" "$unit"
    done <<FOUND
$found
FOUND
}

main() {
    [ $# -ge 1 ] || die 64 'usage: holders.sh MODULE...'
    for name; do
        case $name in '' | *[!A-Za-z0-9_]*) die 64 "$name: not a module name" ;; esac
    done
    printf 'fleetdrv-holders\t1\n'
    for name; do
        look_at "$name"
    done
    echo end
}

main "$@" </dev/null
