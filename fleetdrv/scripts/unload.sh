#!/bin/sh
# Unload kernel modules, in the given order, and name who keeps one in use.
#
# rmmod, not modprobe -r, which would take idle modules along that nobody named; never with force.
#
# Usage: unload.sh MODULE[:LOAD_AS[:FILE]]…        (names as the kernel writes them; and as in load.sh)
# Exit: 0 none of them is loaded · 64 usage · 75 in use (worth another try)
#       76 stuck half-way in or out of the kernel (only a reboot helps); with either, what this job has unloaded
#       is loaded again, and the services that it stopped are started
# Needs: job.sh users.sh services.sh

set -eu
LC_ALL=C
export LC_ALL
. ./job.sh
. ./users.sh

# Set who to the users of a module, in words.
users() {
    who=''
    for holder in "/sys/module/$1/holders"/*; do
        [ ! -e "$holder" ] || who="$who module ${holder##*/},"
    done
    found=$(processes_with "$1")
    while read -r pid device; do
        [ -n "$pid" ] || continue
        describe_process "$pid"
        place=${pod:+ of pod $pod${container:+ container $container}}${unit:+ of $unit}
        who="$who process $pid ($command_name)$place has $device open,"
    done <<FOUND
$found
FOUND
    who=${who# }
    who=${who%,}
}

# Nothing else was changed yet, so what this job took out goes back in from the same files, and the services
# that it stopped run again: the node is as it was. Best effort: the reason to give up is the one that is told.
put_back() {
    [ ! -e unloaded ] || sort -rn unloaded | while read -r _ gone; do
        if modprobe -- "$gone"; then echo "$gone is loaded again"; else echo "$gone cannot be loaded again"; fi
    done
    rm -f unloaded
    [ ! -e stopped ] || /bin/sh ./services.sh resume 100 || :
}

give_up() {
    put_back
    die "$@"
}

# Written down in the job's folder, numbered: a job may unload in several steps.
left() {
    echo "$name is unloaded"
    printf '%s %s\n' "$(($(cat unloaded 2>/dev/null | wc -l) + 1))" "$1" >>unloaded
}

# unload NAME LOAD_AS
unload() {
    for try in 1 2 3 4 5; do
        [ -e "/sys/module/$1/initstate" ] || return 0
        read -r state <"/sys/module/$1/initstate"
        [ "$state" = live ] || give_up 76 "$1 is stuck: its state is '$state', only a reboot helps"
        if said=$(rmmod -- "$1" 2>&1); then
            [ -e "/sys/module/$1/initstate" ] || { left "$2" && return 0; }
            said='rmmod says it is gone, and it is there'
        fi
        # Whoever was just told to end may need a moment to close its files; a module that holds it does not.
        users "$1"
        case $who in module*) break ;; esac
        [ "$try" -eq 5 ] || sleep 0.5
    done
    printf '%s\n' "$said" >&2
    read -r count <"/sys/module/$1/refcnt" || count='?'
    give_up 75 "$1 is in use (count $count): ${who:-by nobody that can be named; rmmod: $said}"
}

main() {
    [ $# -ge 1 ] || die 64 'usage: unload.sh MODULE...'
    for word; do
        case $word in '' | [-:]* | *[!A-Za-z0-9_:-]*) die 64 "$word: not a module name" ;; esac
    done
    for word; do
        name=${word%%:*} load_as=${word#*:}
        if [ -e "/sys/module/$name/initstate" ]; then
            unload "$name" "${load_as%%:*}"
        else
            echo "$name is not loaded"
        fi
    done
}

main "$@"
