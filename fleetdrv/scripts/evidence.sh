#!/bin/sh
# Gather what tells why a driver does not work on this node. Reads only: nothing is written, locked or started.
#
# Each text is cut: the first and the last so many lines of it. The controller takes secrets out; what this
# prints is for root's eyes.
#
# Usage: (cat job.sh … evidence.sh) | sh -s        (or: sh evidence.sh)
# Output: "section NAME", then the text, each line of it with a bar in front; at last "end".
# Exit: 0 the last line is "end" · 64 usage
# Needs: job.sh packages.sh apt.sh

# shellcheck disable=SC2154 # fleetdrv, state, code and label are job.sh's
set -u
export LC_ALL=C PATH="${PATH:-/usr/bin}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
command -v job_state >/dev/null || . "$(dirname "$0")/job.sh"
command -v package_state >/dev/null || . "$(dirname "$0")/packages.sh"
command -v lock_holder >/dev/null || . "$(dirname "$0")/apt.sh"
logs=8 head_lines=400 tail_lines=400

# cut_to HEAD TAIL: the first and the last lines of what is read.
cut_to() {
    awk -v head="$1" -v tail="$2" '
        { line = substr($0, 1, 2000) }
        NR <= head { print line; next }
        { kept[NR % tail] = line }
        END {
            from = NR - tail + 1
            if (from > head + 1) print "[… " from - head - 1 " lines are left out …]"
            for (n = from > head ? from : head + 1; n <= NR; n++) print kept[n % tail]
        }'
}

# section NAME COMMAND…: what a command says, its errors too. Nothing may be waited for.
section() {
    printf 'section %s\n' "$1"
    shift
    case $(command -v "$1" 2>/dev/null) in
    '') echo "$1 is not here" ;;
    /*) timeout 20 "$@" 2>&1 </dev/null ;;
    *) "$@" 2>&1 </dev/null ;;
    esac | cut_to "$head_lines" "$tail_lines" | sed 's/^/|/'
}

# file_section NAME PATH
file_section() {
    [ ! -r "$2" ] || section "$1" cat -- "$2"
}

secure_boot() {
    mokutil --sb-state
    for key in /var/lib/shim-signed/mok/MOK.der /var/lib/dkms/mok.pub; do
        [ ! -e "$key" ] || { echo "$key:" && mokutil --test-key "$key"; }
    done
    cat /sys/kernel/security/lockdown
}

kernel_packages() {
    # shellcheck disable=SC2016 # dpkg's own variables
    dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' 'linux-image*' 'linux-headers*' \
        'linux-generic*' 'linux-cloud*' 'linux-virtual*' 2>/dev/null | grep -v '^un'
}

driver_packages() {
    dpkg -l | grep -iE 'nvidia|cuda|dkms|mlnx|ofed|doca|virtualbox|fabricmanager'
}

# Modules from outside the kernel's own tree: "KERNEL NAME PATH VERSION".
outer_modules() {
    for kernel in /lib/modules/*; do
        find "$kernel/updates" "$kernel/extra" "$kernel/weak-updates" -name '*.ko*' 2>/dev/null | head -n 60 |
            while read -r ko; do
                name=${ko##*/}
                echo "${kernel##*/} ${name%%.ko*} $ko $(modinfo -F version "$ko" 2>/dev/null)"
            done
    done
}

job_list() {
    # shellcheck disable=SC2012 # ids are plain words
    ls -1tr -- "$fleetdrv/jobs"/*/digest 2>/dev/null | while read -r digest; do
        job_state "${digest%/digest}"
        digest=${digest%/digest}
        echo "${digest##*/} $state $code $label"
    done
}

# The newest jobs that did not end well, and the last one whatever its end.
job_logs() {
    { job_list | grep -vE ' done 0 *$' | tail -n "$logs" && job_list | tail -n1; } | awk '!seen[$1]++' |
        while read -r id _; do file_section "job-log/$id" "$fleetdrv/jobs/$id/log"; done
}

make_logs() {
    find /var/lib/dkms "$fleetdrv/stage" -maxdepth 7 -name make.log -mtime -30 2>/dev/null | tail -n "$logs" |
        while read -r path; do file_section "make-log$path" "$path"; done
    for job in "$fleetdrv/jobs"/*/make.log; do
        file_section "make-log$job" "$job"
    done
}

clock() {
    date +%s
    timedatectl show 2>/dev/null | grep -E '^(NTP|NTPSynchronized|Timezone)='
}

disks() {
    df -Pk && echo && df -Pi && echo && grep -E ' ro[, ]' /proc/mounts
}

holds() {
    dpkg --get-selections | awk '$2 == "hold" { print $1 }'
}

main() {
    [ $# -eq 0 ] || die 64 'usage: evidence.sh'
    file_section kernel /proc/version
    section running uname -r
    file_section os /etc/os-release
    section uptime uptime
    section clock clock
    section disks disks
    section memory free -m
    section dpkg-audit dpkg --audit
    section apt-lock lock_holder
    section holds holds
    section kernel-packages kernel_packages
    section driver-packages driver_packages
    file_section apt-term /var/log/apt/term.log
    file_section apt-history /var/log/apt/history.log
    for path in /etc/apt/sources.list /etc/apt/sources.list.d/*; do file_section "sources$path" "$path"; done
    section dkms-status dkms status
    make_logs
    section modules outer_modules
    section loaded lsmod
    section secure-boot secure_boot
    for path in /etc/dkms/no-autoinstall /run/reboot-required /run/reboot-required.pkgs; do
        [ ! -e "$path" ] || section "there$path" ls -l "$path"
    done
    section kernel-log dmesg
    section devices lspci -nnk
    section network ip -brief address
    section kubelet kubelet --version
    section failed-units systemctl --failed --no-legend --plain
    section jobs job_list
    job_logs
    echo end
}

main "$@"
