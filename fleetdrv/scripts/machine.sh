# shellcheck shell=sh disable=SC2154
# What probe.sh knows of the machine itself: its devices, and the faults that its kernel met. Put in front of
# probe.sh's text, after look.sh, whose row and tab it uses.

look_at_pci() {
    for device in /sys/bus/pci/devices/*; do
        [ ! -e "$device/vendor" ] || {
            read -r vendor <"$device/vendor"
            read -r device <"$device/device"
            row pci "${vendor#0x}:${device#0x}"
        }
    done
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
