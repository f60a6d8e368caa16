#!/bin/sh
# Look at a node and change nothing: one record a line, fields separated by tabs.
#
# A fact that cannot be read is a record "error WHAT", never an absent fact. /proc/modules and lsmod are not
# asked: /sys/module says more. Processes are few, each costs 10 to 20 ms on an emulated machine.
#
# Usage: (cat job.sh … probe.sh) | sh -s -- [QUESTION]…   (or: sh probe.sh …)
#   pool NAME          highest fencing token seen for the pool
#   module NAME[:FILE] loaded code, holders, parameters, the file for each bootable kernel; of the last driver
#   dkms NAME          dkms status of a DKMS package
#   driver NAME        last known good of a driver, when its lists were asked for, its stopped services
#   package NAME       a Debian package: what is installed, and the versions that apt's lists offer
#   check COUNT WORD…  run a command of COUNT words, at most 60 s
#   options DRIVER     every line that gives any module options, once; modprobe takes the later of two
#   faults             what the kernel's log says of faults, its own and those of the modules asked about
# Records: fleetdrv-probe 1 · machine-id · boot-id · os ID VERSION · arch · compiler · dkms-version · dkms LINE
#   kernel running|newest|default RELEASE · headers KERNEL · param NAME KEY VALUE · holder NAME DEPENDENT
#   loaded NAME STATE REFCOUNT VERSION SRCVERSION BUILD-ID · file NAME KERNEL PATH VERSION SRCVERSION BUILD-ID
#   abi KERNEL SYMBOLS CONFIG · conf PATH SHA256 · staged KEY · token N · pci V:D · initrd KERNEL (it has one)
#   initramfs KERNEL MODULE (is in there, maybe an old one; - where none can tell) · stopped DRIVER UNIT
#   named KEY MODULE FILE (name of its file where that is another: of what is staged; - of what is installed)
#   good|former DRIVER DIGEST BASE64 · job ID STATE CODE STEP · free PATH KIB · secureboot · no-autoinstall
#   dpkg-interrupted (not our own) · check COUNT BASE64 (words, each ended by NUL, output, newline, exit status)
#   package NAME VERSION STATUS yes|no|ours (held) · candidate NAME VERSION SHA256
#   packaged NAME DKMS-NAME DKMS-VERSION · lists SECONDS (since they were asked for)
#   refreshed DRIVER SECONDS REPOSITORY-SHA256 (with its key) or -
#   option PATH FIRST LAST TEXT (lines of a file in effect) · fault STAMP TEXT
#   needed MODULE WHAT (what of the node itself hangs on it) · error WHAT · end
# Exit: 0 the last line is "end" · 64 usage
# Needs: job.sh module.sh initrd.sh look.sh machine.sh packages.sh lifelines.sh disks.sh

set -u
export LC_ALL=C PATH="${PATH:-/usr/bin}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
command -v job_state >/dev/null || . "$(dirname "$0")/job.sh"
command -v module_file >/dev/null || . "$(dirname "$0")/module.sh"
command -v look_at_loaded >/dev/null || . "$(dirname "$0")/look.sh"
command -v look_at_pci >/dev/null || . "$(dirname "$0")/machine.sh"
command -v look_at_package >/dev/null || . "$(dirname "$0")/packages.sh"
command -v initrd_of >/dev/null || . "$(dirname "$0")/initrd.sh"
command -v look_at_session >/dev/null || . "$(dirname "$0")/lifelines.sh"
command -v look_at_disks >/dev/null || . "$(dirname "$0")/disks.sh"

look_at_system() {
    line_of machine-id /etc/machine-id
    line_of boot-id /proc/sys/kernel/random/boot_id
    system='' release=''
    while IFS='=' read -r key value; do
        value=${value#[\"\']} && value=${value%[\"\']}
        case $key in ID) system=$value ;; VERSION_ID) release=$value ;; esac
    done </etc/os-release
    [ -n "$system" ] || row error 'os: /etc/os-release cannot be read'
    row os "$system" "$release"
    row arch "$(dpkg --print-architecture 2>/dev/null || uname -m)"
    answer=no
    for efi in /sys/firmware/efi/efivars/SecureBoot-*; do
        [ ! -e "$efi" ] || case $(od -An -tu1 -j4 -N1 "$efi") in *1) answer=yes ;; esac
    done
    row secureboot "$answer"
    yes_no no-autoinstall [ -e /etc/dkms/no-autoinstall ]
    yes_no dpkg-interrupted dpkg_interrupted_by_others
    for path in /var /boot /lib/modules; do
        [ ! -d "$path" ] || set -- "$@" "$path"
    done
    df -Pk "$@" | {
        read -r _
        while read -r _ _ _ free _; do
            row free "$1" "$free"
            shift
        done
    }
}

# Set running, newest and boot_default. Debian and Ubuntu start the newest, unless grub was told otherwise.
look_at_kernels() {
    line_of 'kernel running' /proc/sys/kernel/osrelease
    running=$line newest=$line boot_default='' installed=''
    set -- /boot/vmlinuz-*
    for folder in /lib/modules/*; do
        kernel=${folder##*/}
        [ ! -d "$folder/build/." ] || row headers "$kernel"
        [ -e "$folder/modules.dep" ] || [ -d "$folder/kernel" ] || continue
        [ ! -e "$1" ] || [ -e "/boot/vmlinuz-$kernel" ] || continue
        installed="$installed $kernel" newest=$kernel
    done
    # shellcheck disable=SC2086
    set -- $installed
    [ $# -lt 2 ] || newest=$(printf '%s\n' "$@" | sort -V | tail -n1)
    grub_entry
    for kernel; do
        case $entry in *"$kernel"*) [ ${#kernel} -le ${#boot_default} ] || boot_default=$kernel ;; esac
    done
    row kernel newest "$newest"
    boot_default=${boot_default:-$newest}
    row kernel default "$boot_default"
}

look_at_records() {
    for path in /etc/modprobe.d/fleetdrv-*.conf /etc/modules-load.d/fleetdrv-*.conf \
        /etc/apt/sources.list.d/fleetdrv-*.sources; do
        [ ! -e "$path" ] || set -- "$@" "$path"
    done
    [ $# -eq 0 ] || sha256sum -- "$@" | while read -r sum path; do row conf "$path" "$sum"; done
    for folder in "$fleetdrv"/stage/*; do
        [ ! -d "$folder" ] || row staged "${folder##*/}"
        [ ! -e "$folder/names" ] || while read -r module file; do
            row named "${folder##*/}" "$module" "$file"
        done <"$folder/names"
    done
    [ -d "$fleetdrv/jobs" ] || return 0
    cd "$fleetdrv/jobs" || row error 'jobs: cannot be read'
    last=''
    # shellcheck disable=SC2012,SC2045 # ids are plain words
    for path in $(ls -1tr -- */digest 2>/dev/null); do
        # A folder that changes while it is read may show a name twice.
        [ "$path" != "$last" ] || continue
        last=$path
        job_state "${path%/digest}"
        row job "${path%/digest}" "$state" "$code" "$label"
    done
    cd / || exit
}

main() {
    usage='usage: probe.sh [pool|module|dkms|driver|package|options NAME | check COUNT WORD...|faults]...'
    faults=no
    row fleetdrv-probe 1
    look_at_system
    look_at_kernels
    look_at_builder
    look_at_records
    look_at_pci
    look_at_session
    look_at_disks
    while [ $# -gt 0 ]; do
        [ "$1" != faults ] || { faults=yes && shift && continue; }
        [ $# -ge 2 ] || die 64 "$usage"
        case $1/$2 in
        check/[1-9] | check/[1-9][0-9]) [ $# -ge $(($2 + 2)) ] || die 64 "$usage" ;;
        check/* | */ | */[.:-]* | */*[!A-Za-z0-9._+:-]*) die 64 "$usage" ;;
        esac
        case $1 in
        pool) highest_token "$2" && row token "$highest" ;;
        module) look_at_loaded "${2%%:*}" && look_at_files "${2%%:*}" "${2#*:}" ;;
        dkms) look_at_dkms "$2" && look_at_abi ;;
        driver) look_at_good "$2" && look_at_refreshed "$2" ;;
        package) look_at_package "$2" && look_at_abi ;;
        options) look_at_options ;;
        check) shift && run_check "$@" && shift $(($1 - 1)) ;;
        *) die 64 "$usage" ;;
        esac
        shift 2
    done
    [ "$faults" = no ] || look_at_faults "$seen"
    echo end
}

main "$@" </dev/null
