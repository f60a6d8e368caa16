# shellcheck shell=sh disable=SC2034,SC2154
# What tells one build of a kernel module from another. Sourced, or put in front of a program's text.
# Results are left in variables: a process costs 10 to 20 ms on an emulated machine.

# Set build_id from the words of a hex dump that starts at, or holds, a GNU build id note:
# name size 4, value size 20, type 3, "GNU\0", the 20 bytes.
find_build_id() {
    note='04 00 00 00 14 00 00 00 03 00 00 00 47 4e 55 00 '
    dump="$* "
    build_id=''
    case $dump in *"$note"*) ;; *) return 1 ;; esac
    dump=${dump#*"$note"}
    # shellcheck disable=SC2086
    set -- $dump
    [ $# -ge 20 ] || return 1
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        build_id=$build_id$1
        shift
    done
}

# Set build_id of the loaded module; empty where the kernel keeps no note of it.
loaded_build_id() {
    build_id=''
    [ -e "/sys/module/$1/notes/.note.gnu.build-id" ] || return 0
    # shellcheck disable=SC2046
    find_build_id $(od -An -v -tx1 "/sys/module/$1/notes/.note.gnu.build-id")
}

# Write a module file to stdout as the kernel would see it.
unpacked() {
    case $1 in
    *.ko.xz) xz -dc -- "$1" ;;
    *.ko.gz) gzip -dc -- "$1" ;;
    *.ko.zst) zstd -dcq -- "$1" ;;
    *) cat -- "$1" ;;
    esac
}

# Set build_id of a module file; empty where it was linked without one. The note is nearly always the first
# section; nvidia.ko is 60 MB, so the rest is searched only where it is not.
file_build_id() {
    case $1 in
    *.ko) dump=$(od -An -v -tx1 -N256 -- "$1") || return 1 ;;
    *) dump=$(unpacked "$1" | od -An -v -tx1 -N256) || return 1 ;;
    esac
    # shellcheck disable=SC2086
    find_build_id $dump && return 0
    pattern='\x04\x00\x00\x00\x14\x00\x00\x00\x03\x00\x00\x00GNU\x00'
    place=$(unpacked "$1" | grep -m1 -abo -P "$pattern" | head -n1) || return 0
    [ -n "$place" ] || return 0
    # shellcheck disable=SC2046
    find_build_id $(unpacked "$1" | od -An -v -tx1 -j "${place%%:*}" -N36)
}

# Set file and its version, srcversion and build_id: what modprobe would load under a kernel. All are empty
# when there is none, a damaged file has no marks; fails when that cannot be told.
module_file() {
    file='' version='' srcversion='' build_id=''
    said=$(modinfo -k "$2" -- "$1" 2>&1) || {
        case $said in *"Module $1 not found"*) return 0 ;; esac
        file=$(modinfo -k "$2" -n -- "$1" 2>/dev/null) || return 1
        # modules.dep may name a file that somebody has deleted: modprobe finds none then.
        [ -e "$file" ] || file=''
        [ -z "$file" ] || [ -f "$file" ]
        return
    }
    while IFS=: read -r field value; do
        value=${value#"${value%%[! ]*}"}
        case $field in
        filename) file=${file:-$value} ;;
        version) version=${version:-$value} ;;
        srcversion) srcversion=${srcversion:-$value} ;;
        esac
    done <<SAID
$said
SAID
    case $file in
    /*) file_build_id "$file" ;;
    '(builtin)') ;;
    *) return 1 ;;
    esac
}

# Set plain to a name as the kernel writes it: files may say nvidia-uvm.
as_kernel() {
    plain=$1
    while :; do
        case $plain in *-*) plain=${plain%%-*}_${plain#*-} ;; *) return ;; esac
    done
}

# loaded_names FILE…: print "NAME FILE" of module files. What one is called once it is loaded is written in it
# (since Linux 4.13), whatever DKMS or a package calls the file.
loaded_names() {
    [ $# -gt 0 ] || return 0
    modinfo -- "$@" 2>/dev/null | while read -r field value; do
        case $field in filename:) its_file=$value ;; name:) printf '%s %s\n' "$value" "$its_file" ;; esac
    done
}

# Print what modules for each bootable kernel are built against: digests of its Module.symvers and .config.
# Both are read once a look, by one process. A kernel that lacks one of them has no record.
look_at_abi() {
    [ -z "${abi_told-}" ] || return 0
    abi_told=yes
    set --
    for kernel in "$running" "$newest" "$boot_default"; do
        build=/lib/modules/$kernel/build
        case " $* " in *" $build/"*) continue ;; esac
        [ ! -r "$build/Module.symvers" ] || [ ! -r "$build/.config" ] ||
            set -- "$@" "$build/Module.symvers" "$build/.config"
    done
    [ $# -eq 0 ] || sha256sum -- "$@" | while read -r symbols path && read -r config _; do
        path=${path#/lib/modules/}
        row abi "${path%%/*}" "$symbols" "$config"
    done
}

# Print what is kept of a driver: the state that was verified last, and the former one.
look_at_good() {
    driver=$1 packages='' made=''
    for path in "$fleetdrv/services/$1"/*; do
        [ ! -e "$path" ] || row stopped "$1" "${path##*/}"
    done
    home=$fleetdrv/good/$1/current record=good
    while [ -e "$home" ]; do
        if read -r line <"$home/digest" && said=$(base64 -w0 "$home/wanted.json"); then
            row "$record" "$1" "$line" "$said"
        else
            row error "$record $1: cannot be read"
        fi
        [ "$record" = good ] || break
        home=$home/previous record=former
    done
}
