# shellcheck shell=sh disable=SC2034
# Who keeps a module in use: modules that depend on it, and processes that have a device of it open or mapped.
# Sourced, or put in front of the text of holders.sh and unload.sh.
#
# A device belongs to a module by any of: its driver in /sys/dev/char links to the module; its major number in
# /proc/devices is registered under the module's name (NVIDIA's devices have no driver in /sys); its name
# in /dev begins with the module's name.

# Set devices to MAJOR:MINOR words of a module, hexadecimal, a star for any minor.
devices_of() {
    devices=' '
    for device in /sys/dev/char/* /sys/dev/block/*; do
        # shellcheck disable=SC3013 # dash, bash and busybox know -ef
        [ "$device/device/driver/module" -ef "/sys/module/$1" ] || continue
        numbers=${device##*/}
        devices="$devices$(printf '%x:%x' "${numbers%:*}" "${numbers#*:}") "
    done
    while read -r major name; do
        case $name in
        "$1" | "$1"[-_]* | "$(printf '%s' "$1" | tr _ -)"*) devices="$devices$(printf '%x' "$major"):* " ;;
        esac
    done </proc/devices
}

# Print "PID DEVICE" of each process that has a device of the module open or mapped, each once.
processes_with() {
    devices_of "$1"
    {
        find /proc/[0-9]*/fd -lname '/dev/*' ! -lname /dev/null ! -lname '/dev/pts/*' \
            -printf 'open %p %l\n' -exec stat -L -c 'node %n %t:%T' {} + 2>/dev/null
        grep -sE ' /dev/[^ ]+$' /proc/[0-9]*/maps | sed 's|^/proc/\([0-9]*\)/maps:.* /dev/|mapped \1 /dev/|'
    } | awk -v module="$1" -v devices="$devices" '
        function pid_of(path) { sub("^/proc/", "", path); sub("/.*", "", path); return path }
        function named(path) {
            sub(".*/", "", path)
            gsub("-", "_", path)
            return index(path, module) == 1
        }
        $1 == "open" { path[$2] = $3; if (named($3)) print pid_of($2), $3 }
        $1 == "node" {
            major = $3
            sub(":.*", "", major)
            if (index(devices, " " $3 " ") || index(devices, " " major ":* ")) {
                print pid_of($2), path[$2]
                ours[path[$2]] = 1
            }
        }
        $1 == "mapped" && (named($3) || $3 in ours) { print $2, $3 }' | sort -u
}

# Set pod, container and unit from the text of a /proc/PID/cgroup: version 1 or 2, systemd or cgroupfs driver,
# containerd, cri-o or docker. Empty where the process is of no pod, container or service.
cgroup_words() {
    pod='' container='' unit=''
    apart_before=$IFS
    IFS='/
'
    # shellcheck disable=SC2086 # split at slashes and lines
    set -f -- $1
    set +f
    IFS=$apart_before
    in_pods=no
    for word; do
        case $word in
        *:*) ;; # the hierarchy's own column
        kubepods | *kubepods.slice) in_pods=yes ;;
        *kubepods*-pod*.slice) pod=${word##*-pod} && pod=$(printf '%s' "${pod%.slice}" | tr _ -) ;;
        pod*) [ "$in_pods" = no ] || pod=${word#pod} ;;
        *.service) [ "$in_pods" = yes ] || unit=$word ;;
        burstable | besteffort | guaranteed | *.slice | init.scope) ;;
        *)
            [ -z "$pod" ] || [ -n "$container" ] || container=${word##*-}
            container=${container%.scope}
            ;;
        esac
    done
}

# Set command_name, pod, container and unit of a process.
describe_process() {
    command_name='?' said=''
    { read -r command_name <"/proc/$1/comm" && said=$(cat "/proc/$1/cgroup"); } 2>/dev/null || :
    cgroup_words "$said"
}
