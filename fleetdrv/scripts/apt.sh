# shellcheck shell=sh disable=SC2034,SC2154
# apt without questions and without surprises. Sourced by the apt_* programs, after job.sh and packages.sh.
#
#   /var/lib/fleetdrv/apt/
#     lists/ cache/             lists that stage asks for; the system's own stay as they are
#     sources.list.d/           links to the system's own, and fleetdrv-DRIVER.sources
#     keyrings/                 fleetdrv-FINGERPRINT.gpg: their keys; not by driver: apt reads no sources
#                               at all where two name one repository with different paths of keys
#     held                      packages whose hold is ours, one a line
#     installing                driver and key of an installation that has begun, its tarballs, its new packages
#     said why                  what apt or dpkg said last, and the last reason
#     refreshed.DRIVER          digest of the repository with its key, or -; as old as the lists

# Nobody answers, nothing restarts services, and all nodes get the same, phased or not.
DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true APT_LISTCHANGES_FRONTEND=none
NEEDRESTART_MODE=l NEEDRESTART_SUSPEND=1
export DEBIAN_FRONTEND DEBCONF_NONINTERACTIVE_SEEN APT_LISTCHANGES_FRONTEND NEEDRESTART_MODE NEEDRESTART_SUSPEND

# quiet_apt WORD…: apt-get with the private lists, or with what $lists names.
lists=own_lists
quiet_apt() {
    "$lists" apt-get -q -o APT::Sandbox::User=root -o APT::Install-Recommends=false \
        -o APT::Get::Always-Include-Phased-Updates=true -o APT::Get::AutomaticRemove=false \
        -o APT::Update::Error-Mode=any -o Acquire::Retries=2 -o Dpkg::Use-Pty=false "$@" </dev/null
}

need_apt() {
    for tool in apt-get dpkg awk; do
        command -v "$tool" >/dev/null || die 69 "$tool is not installed"
    done
}

# Somebody else's half done packages are for him to mend, and his hold stands.
check_system() {
    ! dpkg_interrupted_by_others ||
        die 81 'dpkg was interrupted before us: run "dpkg --configure -a" and look what happened'
    for pin; do
        package_state "${pin%%=*}"
        [ "$held" = yes ] && [ "$installed" != "${pin#*=}" ] || continue
        grep -qsx "${pin%%=*}" "$own_apt/held" ||
            die 82 "${pin%%=*} is held at ${installed:-nothing} by somebody else: apt-mark unhold ${pin%%=*}"
    done
}

# What apt calls kernels, as a pattern of awk.
a_kernel='^(linux-(image|modules|signed|generic|virtual)|(proxmox|pve)-kernel)'

# simulate PINS WORD…: what `apt-get -s WORD…` would do, each line of it read. PINS are NAME=VERSION.
# Allowed are the pins and what was not there before, but no kernel. Lines "NAME=VERSION" are left in $would.
simulate() {
    pins=" $1 "
    shift
    code=0
    said=$(quiet_apt -s -y --allow-change-held-packages "$@" 2>&1) || code=$?
    [ "$code" -eq 0 ] || { printf '%s\n' "$said" >&2 && die 79 "apt-get: $(why_not "$said")"; }
    refused=$(printf '%s\n' "$said" | awk -v pins="$pins" -v a_kernel="$a_kernel" '
        $1 == "Remv" || $1 == "Purg" { print "would remove " $2 }
        $1 == "Inst" {
            old = $3 ~ /^\[/
            new = old ? $4 : $3
            sub(/^\(/, "", new)
            if (index(pins, " " $2 "=" new " ")) next
            if (index(pins, " " $2 "=")) print "would install " $2 " " new
            else if (old) print "would change " $2 " " $3 " to " new
            else if ($2 ~ a_kernel)
                print "would install kernel " $2 " " new
        }')
    if [ -n "$refused" ]; then
        printf '%s\n' "$refused" >&2
        die 79 "the playbook names none of this: apt $(printf '%s\n' "$refused" | paste -sd, | sed 's/,/, /g')"
    fi
    would=$(printf '%s\n' "$said" | sed -n \
        -e 's/^Inst \([^ ]*\) \[[^]]*\] (\([^ ]*\).*/\1=\2/p' -e 's/^Inst \([^ ]*\) (\([^ ]*\).*/\1=\2/p')
}

# The sentence that says why apt will not: what is unmet, or its error.
why_not() {
    printf '%s\n' "$1" | sed -n -e 's/^ *\([^ ]* : \(Depends\|PreDepends\|Conflicts\|Breaks\): .*\)/\1;/p' \
        -e 's/^E: //p' | paste -sd' '
}

# take_pins NAME=VERSION[=SHA256]… -- KERNEL…: set pinned (NAME=VERSION), digests (whole) and kernels.
take_pins() {
    pinned='' digests='' kernels=''
    while [ "${1---}" != -- ]; do
        case $1 in *[!A-Za-z0-9.+~:=-]* | -* | =* | *= | *=*=*=*) return 1 ;; *=*) ;; *) return 1 ;; esac
        digests="$digests $1" rest=${1#*=}
        pinned="$pinned ${1%%=*}=${rest%%=*}"
        shift
    done
    [ $# -ge 2 ] && [ -n "$pinned" ] || return 1
    shift
    plain_words "$@"
    pinned=${pinned# } kernels=$*
}

# How long to wait for another apt or dpkg.
lock_seconds=${LOCK_SECONDS:-600}

# locked WORD…: run what takes dpkg's lock, once nobody else has it; its output is shown, and left in $said.
locked() {
    waited=0
    while :; do
        while [ -n "$(lock_holder)" ] && [ "$waited" -lt "$lock_seconds" ]; do
            waited=$((waited + 1)) && sleep 1
        done
        code=0
        # Not by a pipe, whose end would be waited for: a daemon that a package starts may keep it open.
        "$@" >"$own_apt/said" 2>&1 </dev/null || code=$?
        said=$(cat "$own_apt/said")
        [ "$code" -eq 0 ] || case $said in
        *'Could not get lock'* | *'locked by another process'* | *'Unable to acquire the dpkg'*)
            [ "$waited" -ge "$lock_seconds" ] || { waited=$((waited + 1)) && sleep 1 && continue; }
            printf '%s\n' "$said"
            die 75 "dpkg's lock is held by $(lock_holder), after $waited s"
            ;;
        *'No space left on device'* | *'enough free space'*)
            printf '%s\n' "$said"
            die 73 "no space to install: $(printf '%s\n' "$said" | grep -m1 -e 'No space left' -e 'free space')"
            ;;
        esac
        printf '%s\n' "$said"
        return "$code"
    done
}

# The process that holds one of dpkg's locks, by /proc/locks, and its command; nothing where there is none.
lock_holder() {
    for lock in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock; do
        [ -e "$lock" ] || continue
        inode=:$(stat -c %i "$lock")
        while read -r _ kind _ _ holder place _; do
            case $kind$place in POSIX*"$inode") ;; *) continue ;; esac
            printf 'process %s (%s)\n' "$holder" "$(tr '\0' ' ' <"/proc/$holder/cmdline" | cut -c1-120)"
            return
        done </proc/locks
    done
}
