# shellcheck shell=sh disable=SC2034,SC2154
# What probe.sh knows of drivers: modules, DKMS, last known good, checks. Put in front of its text, after
# module.sh and job.sh; it prints records and uses running, newest and boot_default of probe.sh.

tab=$(printf '\t')
newline='
'
apart=$IFS
seen='' carried='' driver='' packages='' made='' made_names='' names_of=''

# Print one record.
row() {
    IFS=$tab
    printf '%s\n' "$*"
    IFS=$apart
}

# yes_no RECORD COMMAND…
yes_no() {
    record=$1
    shift
    if "$@"; then row "$record" yes; else row "$record" no; fi
}

# A record of the first line of a file; an error when it cannot be read, or is empty. Sets line.
line_of() {
    line=''
    { read -r line <"$2"; } 2>/dev/null
    # shellcheck disable=SC2086 # a record may have two words
    if [ -n "$line" ]; then row $1 "$line"; else row error "$1: $2 cannot be read"; fi
}

# A module and, in turn, what holds it.
look_at_loaded() {
    case " $seen " in *" $1 "*) return ;; esac
    seen="$seen $1"
    # Built into the kernel: a folder, but no initstate.
    [ -e "/sys/module/$1/initstate" ] || return 0
    state='' refcount='' version='' srcversion=''
    { read -r state <"/sys/module/$1/initstate" && read -r refcount <"/sys/module/$1/refcnt"; } 2>/dev/null ||
        row error "loaded $1: initstate or refcnt cannot be read"
    [ ! -e "/sys/module/$1/version" ] || read -r version <"/sys/module/$1/version"
    [ ! -e "/sys/module/$1/srcversion" ] || read -r srcversion <"/sys/module/$1/srcversion"
    loaded_build_id "$1" || row error "loaded $1: its build id cannot be read"
    row loaded "$1" "$state" "$refcount" "$version" "$srcversion" "$build_id"
    for parameter in "/sys/module/$1/parameters"/*; do
        # Some may only be written; nobody can tell those.
        ! { IFS= read -r value <"$parameter"; } 2>/dev/null || row param "$1" "${parameter##*/}" "$value"
    done
    for holder in "/sys/module/$1/holders"/*; do
        [ -e "$holder" ] || continue
        row holder "$1" "${holder##*/}"
        set -- "$@" "${holder##*/}"
    done
    while shift && [ $# -gt 0 ]; do
        look_at_loaded "$1"
    done
}

# look_at_files NAME FILE: the file for each bootable kernel.
look_at_files() {
    looked=''
    for kernel in "$running" "$newest" "$boot_default"; do
        case " $looked " in *" $kernel "*) continue ;; esac
        looked="$looked $kernel" its_name=$2
        [ "$1" != "$2" ] || find_file_name "$1" "$kernel"
        if ! module_file "$its_name" "$kernel"; then
            row error "file $1 $kernel: modinfo or the file cannot be read"
        elif [ -n "$file" ]; then
            row file "$1" "$kernel" "$file" "$version" "$srcversion" "$build_id"
        fi
        look_in_initrd "$1" "$kernel"
    done
}

look_at_builder() {
    command -v dkms >/dev/null || return 0
    # dkms --version starts some twenty processes.
    line=$(grep -m1 -aoE 'dkms-[0-9][0-9.]*' "$(command -v dkms)" || dkms --version)
    row dkms-version "${line#dkms-}"
    for compiler in gcc cc clang; do
        command -v "$compiler" >/dev/null || continue
        line=$("$compiler" --version) || row error "$compiler: cannot be run"
        row compiler "${line%%"$newline"*}"
        return
    done
}

# What `dkms status` would print, read from DKMS's tree. dkms itself is not asked: it starts 150 processes for
# one line, and with one version broken 3.0 says so on stderr, exits 0 and stops listing.
look_at_dkms() {
    tree=/var/lib/dkms/$1
    for folder in "$tree"/*; do
        case ${folder##*/} in kernel-* | original_module | '*') continue ;; esac
        state=added
        [ -e "$folder/source/dkms.conf" ] || state=broken
        for built in "$folder"/*/*/module; do
            [ "$state" != broken ] || break
            has_modules "$built" || continue
            place=${built#"$folder/"} && place=${place%/module}
            built_state "$tree/kernel-${place%/*}-${place#*/}" "$built" "${place%/*}"
            [ ! -e "$tree/original_module/$place" ] || state="$state (Original modules exist)"
            row dkms "$1/${folder##*/}, ${place%/*}, ${place#*/}: $state"
        done
        case $state in added | broken) row dkms "$1/${folder##*/}: $state" ;; esac
    done
}

has_modules() {
    for ko in "$1"/*.ko*; do
        [ ! -e "$ko" ] || return 0
    done
    return 1
}

# built_state LINK MODULES KERNEL: the link names the version that DKMS holds for installed. Set state.
built_state() {
    state=built
    # shellcheck disable=SC3013 # dash, bash and busybox know -ef
    [ "$1" -ef "${2%/module}" ] || return 0
    state=installed
    for ko in "$2"/*.ko*; do
        ko_name=${ko##*/}
        ko_path=/lib/modules/$3/updates/dkms/$ko_name
        [ -e "$ko_path" ] || ko_path=$(modinfo -k "$3" -n -- "${ko_name%%.ko*}" 2>/dev/null)
        if [ ! -e "$ko_path" ]; then
            state='installed (Built modules are missing in the kernel modules folder)'
        elif ! cmp -s "$ko" "$ko_path"; then
            state='installed (Differences between built and installed modules)'
        fi
    done
}

# run_check COUNT WORD… and whatever follows. Checks hang when their driver is sick.
run_check() {
    count=$1
    shift
    for word; do
        shift
        [ "$count" -le 0 ] || set -- "$@" "$word"
        count=$((count - 1))
    done
    said=$({
        printf '%s\000' "$@"
        {
            timeout -k 5 60 "$@" 2>&1
            printf '\n%s' "$?"
        } | tail -c 16384
    } | base64 -w0)
    row check $# "$said"
}
