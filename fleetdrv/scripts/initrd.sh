# shellcheck shell=sh disable=SC2034,SC2154
# What an initramfs carries. Sourced, or put in front of a program's text, after job.sh.
#
# A module or its options that changed since the initramfs was written may be old in there. Ages are compared,
# not build ids: to unpack one takes seconds, the shell's -nt no process. Which modules it carries is listed
# only where it may be old, once for each initramfs: jobs write the list down, with its size and time.

initrd_lists=$fleetdrv/initramfs

# Set initrd to the initramfs of a kernel; fail when it has none.
initrd_of() {
    initrd=/boot/initrd.img-$1
    [ -e "$initrd" ]
}

# Tell whether any of some paths is newer than initrd.
newer_than_initrd() {
    for path; do
        # shellcheck disable=SC3013 # dash, bash and busybox know -nt
        [ ! -e "$path" ] || [ ! "$path" -nt "$initrd" ] || return 0
    done
    return 1
}

# Print the modules that the initramfs of a kernel carries, as the kernel writes names.
initrd_modules() {
    initrd_of "$1" || return 0
    if read -r mark 2>/dev/null <"$initrd_lists/$1" && [ "$mark" = "$(stat -L -c '%s %Y' "$initrd")" ]; then
        tail -n +2 "$initrd_lists/$1"
    elif command -v lsinitramfs >/dev/null; then
        listed=$(lsinitramfs "$initrd") && printf '%s\n' "$listed" | module_names
    elif command -v lsinitrd >/dev/null; then
        listed=$(lsinitrd "$initrd") && printf '%s\n' "$listed" | module_names
    else
        echo -
    fi
}

module_names() {
    sed -n 's|.*/\([^/ ]*\)\.ko\(\.[a-z]*\)\{0,1\}$|\1|p' | tr - _ | sort -u
}

# Write down what the initramfs of a kernel carries. Best effort: it saves time.
remember_initrd() {
    initrd_of "$1" && mkdir -p "$initrd_lists" || return 0
    { stat -L -c '%s %Y' "$initrd" && initrd_modules "$1"; } >"$initrd_lists/.new.$1" || return 0
    mv "$initrd_lists/.new.$1" "$initrd_lists/$1"
}

# room_for_initrd KERNEL MODULE…: die 73 where the outage would have to write the initramfs anew, as it carries
# one of these, and /boot has no room for a second one beside it. Asked while the node serves.
room_for_initrd() {
    initrd_of "$1" || return 0
    kernel=$1
    shift
    remember_initrd "$kernel"
    listed=$(initrd_modules "$kernel") || return 0
    its_size=$(stat -L -c %s "$initrd")
    needed=$((its_size * 11 / 10240 + 1024))
    free=$(df -Pk "${initrd%/*}" | { read -r _ && read -r _ _ _ kib _ && echo "$kib"; })
    [ "$free" -lt "$needed" ] || return 0
    for its_module; do
        its_module=$(printf '%s' "$its_module" | tr - _)
        [ "$listed" = - ] || printf '%s\n' "$listed" | grep -qx "$its_module" || continue
        die 73 "${initrd%/*}: $free KiB free; $needed KiB are needed, as $initrd carries $its_module and has" \
            "to be written anew beside the old one. Old kernels go by: apt-get autoremove --purge"
    done
    return 0
}

# look_in_initrd MODULE KERNEL, for probe.sh: a record where the initramfs carries the module, maybe an old one.
# Uses file, what modprobe would load, and driver and packages, whose options and files the module has.
look_in_initrd() {
    initrd_of "$2" || return 0
    case $carried in *"<$2>"*) ;; *) row initrd "$2" && carried="$carried <$2>" ;; esac
    case $file in /*) ;; *) file='' ;; esac
    set -- "$1" "$2" "$file" "/etc/modprobe.d/fleetdrv-$driver.conf"
    for package in $packages; do
        set -- "$@" "/var/lib/dpkg/info/$package.list" "/var/lib/dpkg/info/$package:"*.list
    done
    name=$1 kernel=$2
    shift 2
    newer_than_initrd "$@" || return 0
    case $carried in
    *"<$kernel listed>"*) ;;
    *)
        modules=$(initrd_modules "$kernel") || row error "initramfs $kernel: $initrd cannot be listed"
        carried="$carried <$kernel listed>"
        for module in $modules; do carried="$carried <$kernel $module>"; done
        case $modules in -) row initramfs "$kernel" - ;; esac
        ;;
    esac
    # Files say nvidia-uvm where the kernel says nvidia_uvm, and the list is as the kernel writes them.
    base=${1##*/} && base=${base%%.ko*}
    case $base in *-*) base=$(printf '%s' "$base" | tr - _) ;; esac
    case $carried in
    *"<$kernel $name>"* | *"<$kernel ${base:-$name}>"*) row initramfs "$kernel" "$name" ;;
    esac
}
