# shellcheck shell=sh disable=SC2034,SC2154
# What the node itself hangs on: the modules under the interface of the SSH session. Put in front of probe.sh's
# text, after look.sh; disks.sh goes on with the disks.
#
# The links of /sys are followed by cd -P, which starts no process. Which interface carries the session is asked
# of the kernel's routes; where that cannot be told, every interface with an address counts.

told=' ' interfaces=' '

# need MODULE WHAT: a record, once, if the module came from a file.
need() {
    [ -e "/sys/module/$1/initstate" ] || return 0
    case $told in *"<$1 $2>"*) return 0 ;; esac
    told="$told<$1 $2> "
    row needed "$1" "$2"
}

# need_device FOLDER WHAT: the drivers of a device in /sys and of all that it is plugged into.
need_device() {
    cd -P "$1" 2>/dev/null || return 0
    place=$PWD
    while [ "$place" != /sys/devices ] && [ -n "$place" ]; do
        [ ! -e "$place/driver/module" ] || { cd -P "$place/driver/module" && need "${PWD##*/}" "$2"; }
        place=${place%/*}
    done
}

# need_interface NAME WHAT: also what a bond, a bridge or a VLAN lies upon.
need_interface() {
    case $interfaces in *" $1 "*) return 0 ;; esac
    interfaces="$interfaces$1 " kind=''
    [ ! -r "/sys/class/net/$1/uevent" ] || while IFS='=' read -r key value; do
        [ "$key" != DEVTYPE ] || kind=$value
    done <"/sys/class/net/$1/uevent"
    case $kind in
    '') ;;
    bond) need bonding "$2" ;;
    vlan) need 8021q "$2" ;;
    *) need "$kind" "$2" ;;
    esac
    [ ! -e "/sys/class/net/$1/device" ] || grounded=yes
    need_device "/sys/class/net/$1/device" "$2"
    for lower in "/sys/class/net/$1"/lower_*; do
        [ ! -e "$lower" ] || need_interface "${lower##*/lower_}" "$2"
    done
}

# every_interface WHAT: all with an address that is known beyond the node; an IPv4 address comes with a route.
every_interface() {
    for table in /proc/net/route /proc/net/if_inet6; do
        [ ! -r "$table" ] || while read -r first _ _ scope _ last _; do
            case $table$scope in
            */route*) name=$first ;;
            */if_inet600) name=$last ;;
            *) continue ;;
            esac
            case $name in lo | Iface) ;; *) need_interface "$name" "the interface $name, $1" ;; esac
        done <"$table"
    done
}

# Set client and server of the session. sudo takes them out of the environment, but has them in its own.
session() {
    said=${SSH_CONNECTION-} pid=$PPID
    for _ in 1 2 3 4; do
        [ -z "$said" ] && [ "$pid" -gt 1 ] || break
        environ=''
        [ ! -r "/proc/$pid/environ" ] || while IFS= read -r line || [ -n "$line" ]; do
            environ=$environ$line
        done <"/proc/$pid/environ"
        # read drops the NUL after each variable.
        case $environ in *SSH_CONNECTION=*) said=${environ#*SSH_CONNECTION=} ;; esac
        { read -r stat <"/proc/$pid/stat"; } 2>/dev/null || break
        # shellcheck disable=SC2086
        set -- ${stat##*) }
        pid=$2
    done
    # shellcheck disable=SC2086
    set -- $said
    client=${1-} server=${3-}
    case $client$server in *[!0-9A-Za-z:.%]*) client='' ;; esac
}

look_at_session() {
    session
    interface='' grounded=no
    # shellcheck disable=SC2046
    [ -z "$client" ] || set -- $(ip -o route get "$client" from "$server" 2>/dev/null)
    while [ $# -ge 2 ]; do
        [ "$1" != dev ] || interface=$2
        shift
    done
    case $interface in
    '' | lo) ;;
    *) need_interface "$interface" "the SSH session's interface $interface" ;;
    esac
    # No such session, one through a proxy on the node, or a tunnel: what carries it cannot be told.
    [ "$grounded" = yes ] || every_interface 'which may carry the SSH session'
}
