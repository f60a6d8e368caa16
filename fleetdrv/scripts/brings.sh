# shellcheck shell=sh disable=SC2154
# Whether each kernel will have each module once packages are installed. Sourced by apt_stage.sh, after
# module.sh and dkms.sh; uses its new and pinned.

# brings FILE KERNEL: whether the packages, or their builds, have a file of that name for that kernel.
brings() {
    while read -r path; do
        path=${path%%.ko*}
        case $path in */"$2"/*) ;; *) continue ;; esac
        as_kernel "${path##*/}"
        [ "$plain" != "$1" ] || return 0
    done <"$new/modules"
    return 1
}

# is_called_otherwise MODULE KERNEL: whether a build for it is loaded by that name, whatever its file's name.
is_called_otherwise() {
    while read -r name path; do
        case $name$path in "$1"/*/"$2"/*) return 0 ;; esac
    done <"$new/named"
    return 1
}

# is_replaced KERNEL: whether file is of a version that these packages replace, and the kernel has none itself.
is_replaced() {
    [ -z "$(find "/lib/modules/$1/kernel" -name "${file##*/}" 2>/dev/null)" ] || return 1
    while read -r name _; do
        for ko in "$dkms_tree/$name/kernel-$1"-*/module/"${file##*/}"; do
            [ ! -e "$ko" ] || return 0
        done
    done <"$new/out/places"
    for owner in $(dpkg-query -S "$file" "/usr$file" 2>/dev/null | sed 's/:.*//'); do
        case " $pinned" in *" $owner="*) return 0 ;; esac
    done
    return 1
}

# Write down which builds are loaded under another name than their file's: the plan goes by that.
name_builds() {
    (cd "$new/tree" && find . -path '*/module/*' -name '*.ko*') >>"$new/modules"
    # shellcheck disable=SC2046 # DKMS wants plain names, and so do we
    loaded_names $(find "$new/tree" -path '*/module/*' -name '*.ko*') >"$new/named"
    while read -r name path; do
        path=${path##*/}
        path=${path%%.ko*}
        as_kernel "$path"
        case $name:$path in "$plain:"* | *[!A-Za-z0-9_:-]*) ;; *) echo "$name $path" ;; esac
    done <"$new/named" | sort -u >"$new/out/names"
}

# need_modules MODULE[:FILE],… KERNEL…: packages without any module for a kernel would install, and do nothing.
need_modules() {
    name_builds
    words=$(printf '%s' "$1" | tr , ' ')
    shift
    for kernel; do
        for word in $words; do
            module=${word%%:*}
            as_kernel "${word#*:}"
            wanted=$plain
            ! brings "$wanted" "$kernel" || continue
            [ "$word" != "$module" ] || ! is_called_otherwise "$module" "$kernel" || continue
            module_file "$wanted" "$kernel" && [ -n "$file" ] && ! is_replaced "$kernel" && continue
            die 67 "$wanted: neither these packages nor kernel $kernel have a module of that name"
        done
    done
}
