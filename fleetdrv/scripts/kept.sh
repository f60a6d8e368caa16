#!/bin/sh
# Tell what a node keeps of drivers as verified last, and for which pools it was driven. Changes nothing.
#
# Usage: sh -c "$(cat job.sh … kept.sh)" kept.sh
# Records, fields separated by tabs: pool NAME · good DRIVER DIGEST BASE64 · error WHAT · end
# Exit: 0 the last line is "end" · 64 usage
# Needs: job.sh module.sh look.sh

set -eu
LC_ALL=C
export LC_ALL
command -v job_state >/dev/null || . "$(dirname "$0")/job.sh"
command -v look_at_good >/dev/null || . "$(dirname "$0")/module.sh"
command -v row >/dev/null || . "$(dirname "$0")/look.sh"

main() {
    [ $# -eq 0 ] || die 64 'usage: kept.sh'
    for path in "$fleetdrv/tokens"/*; do
        [ ! -e "$path" ] || row pool "${path##*/}"
    done
    for path in "$fleetdrv/good"/*/current; do
        [ -e "$path" ] || continue
        path=${path%/current}
        look_at_good "${path##*/}"
    done
    echo end
}

main "$@" </dev/null
