#!/bin/sh
# Load kernel modules and prove that what runs is what the files hold. modprobe's exit status proves nothing.
#
# Usage: load.sh MODULE[:LOAD_AS[:FILE]]…
#   MODULE   name as the kernel writes it
#   LOAD_AS  what modprobe is told, where it differs (nvidia:nvidia-current)
#   FILE     name of its file, without .ko, where that differs from LOAD_AS
# Exit: 0 each is live and the very build of its file, or was already · 64 usage
#       78 it is not: modprobe's words and the kernel's are on stderr
# Needs: job.sh module.sh

set -eu
LC_ALL=C
export LC_ALL
. ./job.sh
. ./module.sh

# compare NAME FILE: set why to what is wrong with a module, empty when the loaded code is the file's.
compare() {
    why=''
    module_file "$2" "$release" || { why="the file cannot be read: $said" && return; }
    [ -n "$file" ] || { why="no file for kernel $release" && return; }
    file_version=$version file_source=$srcversion file_build=$build_id
    state='not loaded'
    [ ! -e "/sys/module/$1/initstate" ] || read -r state <"/sys/module/$1/initstate"
    [ "$state" = live ] || { why="$1 is $state" && return; }
    loaded_build_id "$1" || { why='the build id of the loaded code cannot be read' && return; }
    version='' srcversion=''
    [ ! -e "/sys/module/$1/version" ] || read -r version <"/sys/module/$1/version"
    [ ! -e "/sys/module/$1/srcversion" ] || read -r srcversion <"/sys/module/$1/srcversion"
    decided 'build id' "$build_id" "$file_build" || decided srcversion "$srcversion" "$file_source" ||
        decided version "$version" "$file_version" ||
        why="nothing tells whether the loaded code is that of $file"
}

# decided MARK LOADED FILE: a mark that both carry decides.
decided() {
    [ -n "$2" ] && [ -n "$3" ] || return 1
    [ "$2" = "$3" ] || why="loaded is $1 $2, the file is $3"
}

load() {
    name=${1%%:*} load_as=${1#*:} its_file=${1##*:}
    load_as=${load_as%%:*}
    compare "$name" "$its_file"
    [ -n "$why" ] || { echo "$name is loaded already, from $file" && return 0; }
    marker="fleetdrv: loading $name, $$"
    { echo "$marker" >>/dev/kmsg; } 2>/dev/null || marker=''
    words=$(modprobe -- "$load_as" 2>&1) || words="$words (modprobe exit $?)"
    compare "$name" "$its_file"
    [ -n "$why" ] || { echo "$name is loaded from $file" && return 0; }
    [ -z "$words" ] || printf '%s\n' "$words" >&2
    if [ -n "$marker" ]; then dmesg | sed "1,/$marker/d" | tail -n 40; else dmesg | tail -n 20; fi >&2
    die 78 "$name: $why${words:+; $words}"
}

main() {
    [ $# -ge 1 ] || die 64 'usage: load.sh MODULE[:LOAD_AS[:FILE]]...'
    for name; do
        case $name in '' | [-:]* | *: | *:-* | *[!A-Za-z0-9_:-]*) die 64 "$name: not a module name" ;; esac
    done
    release=$(uname -r)
    for name; do
        load "$name"
    done
}

main "$@"
