#!/bin/sh
# Put a driver's own configuration files in place, and remove the ones it no longer has.
#
# A driver owns two files: /etc/modprobe.d/fleetdrv-DRIVER.conf and /etc/modules-load.d/fleetdrv-DRIVER.conf.
#
# Usage: configure.sh DRIVER [SOURCE TARGET]…
# Exit: 0 as wanted, or already so · 64 usage · 73 cannot be written
# Needs: job.sh

set -eu
umask 022
LC_ALL=C
export LC_ALL
. ./job.sh

place() {
    ! cmp -s "$1" "$2" || { echo "$2 is as wanted" && return 0; }
    # modprobe reads only what ends in .conf.
    new=${2%/*}/.${2##*/}.new
    mkdir -p "${2%/*}"
    if ! cp "$1" "$new" || ! chmod 0644 "$new" || ! sync "$new" || ! mv "$new" "$2"; then
        die 73 "$2: cannot be written"
    fi
    echo "$2 is written"
}

main() {
    driver=${1-}
    case $driver in
    '' | [.-]* | *[!A-Za-z0-9._-]*) die 64 'usage: configure.sh DRIVER [SOURCE TARGET]...' ;;
    esac
    shift
    modprobe_file=/etc/modprobe.d/fleetdrv-$driver.conf
    load_file=/etc/modules-load.d/fleetdrv-$driver.conf
    listed=' '
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || die 64 "$1: has no target"
        [ -r "$1" ] || die 64 "$1: cannot be read"
        case $2 in
        "$modprobe_file" | "$load_file") place "$1" "$2" ;;
        *) die 64 "$2: not a file of driver $driver" ;;
        esac
        listed="$listed$2 "
        shift 2
    done
    for path in "$modprobe_file" "$load_file"; do
        case $listed in *" $path "*) continue ;; esac
        [ ! -e "$path" ] || { rm "$path" && echo "$path is removed"; }
    done
}

main "$@"
