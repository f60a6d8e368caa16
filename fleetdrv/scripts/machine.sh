# shellcheck shell=sh disable=SC2154
# What probe.sh knows of the machine itself: its devices, what it boots, what modprobe is told, and the faults
# that its kernel met. Put in front of probe.sh's text, after look.sh, whose row and tab it uses.

look_at_pci() {
    for device in /sys/bus/pci/devices/*; do
        [ ! -e "$device/vendor" ] || {
            read -r vendor <"$device/vendor"
            read -r device <"$device/device"
            row pci "${vendor#0x}:${device#0x}"
        }
    done
}

# Set entry to what grub was told to start. It names a kernel where it is neither a number nor empty.
grub_entry() {
    entry='' saved='' next=''
    for path in /etc/default/grub /etc/default/grub.d/*.cfg /boot/grub/grubenv; do
        [ ! -r "$path" ] || while IFS='=' read -r key value; do
            case $key in
            GRUB_DEFAULT) entry=$value ;;
            saved_entry) saved=$value ;;
            next_entry) next=$value ;;
            esac
        done <"$path"
    done
    case $entry in *saved*) entry=$saved ;; esac
    entry=${next:-$entry}
}

# Print the lines that give modules options, by modprobe.d(5): a file hides those of its name in later folders.
# modprobe reads the files by name, and the kernel's command line last.
look_at_options() {
    [ -z "${options_told-}" ] || return 0
    options_told=yes names=''
    set --
    for path in /etc/modprobe.d/*.conf /run/modprobe.d/*.conf /usr/local/lib/modprobe.d/*.conf \
        /usr/lib/modprobe.d/*.conf /lib/modprobe.d/*.conf; do
        case $names in *"/${path##*/}/"*) continue ;; esac
        names="$names/${path##*/}/"
        [ ! -f "$path" ] || set -- "$@" "$path"
    done
    awk '
        FNR == 1 || !going { text = ""; first = FNR }
        { going = sub(/\\$/, ""); text = text $0 }
        !going && (FILENAME == "/proc/cmdline" || text ~ /^[ \t]*options[ \t]/) {
            printf "option\t%s\t%d\t%d\t%s\n", FILENAME, first, FNR, text
        }' "$@" /proc/cmdline || row error 'options: modprobe.d cannot be read'
}

# look_at_faults MODULES: the newest lines of the kernel's log that tell of a fault: its own (oops, BUG, hung
# task, NVIDIA's Xid), a warning out of one of these modules, and what they themselves log as an error. Lines of
# other drivers, and what user space writes there, say nothing of a driver that was changed.
look_at_faults() {
    names=$(printf '%s' "$1" | sed 's/^ *//; s/_/[-_]/g; s/ /|/g')
    names=${names:-none}
    faults='Oops[: ]|BUG: |kernel BUG at|[Gg]eneral protection fault|Unable to handle kernel|Kernel panic'
    faults="$faults|blocked for more than [0-9]+ seconds|detected stalls|NVRM: Xid"
    stamp='\[ *([0-9.]+)\](\[[^]]*\])?'
    said=$(dmesg -r) || row error 'faults: dmesg cannot be read'
    faults="^<[0-7]>$stamp .*($faults|WARNING: .*\\[($names)\\])|^<[0-3]>$stamp ($names)[ :]"
    printf '%s\n' "$said" | grep -E "$faults" | tail -n 20 | sed -E "s/^<[0-7]>$stamp /fault$tab\\1$tab/"
}
