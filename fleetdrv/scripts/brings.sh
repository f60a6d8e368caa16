# shellcheck shell=sh disable=SC2154
# Whether each kernel will have each module once packages are installed. Sourced by apt_stage.sh, after
# module.sh and dkms.sh; uses its new and pinned.

# brings MODULE KERNEL: whether the packages, or their builds, have that module for that kernel.
brings() {
    while read -r path; do
        path=${path%%.ko*}
        case $path in */"$2"/*) ;; *) continue ;; esac
        [ "$(printf '%s' "${path##*/}" | tr - _)" != "$1" ] || return 0
    done <"$new/modules"
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

# need_modules MODULE,… KERNEL…: packages without any module for a kernel would install, and do nothing.
need_modules() {
    (cd "$new/tree" && find . -path '*/module/*' -name '*.ko*') >>"$new/modules"
    names=$1
    shift
    for kernel; do
        for module in $(printf '%s' "$names" | tr ,- ' _'); do
            ! brings "$module" "$kernel" || continue
            module_file "$module" "$kernel" && [ -n "$file" ] && ! is_replaced "$kernel" && continue
            die 67 "$module: neither these packages nor kernel $kernel have a module of that name"
        done
    done
}
