# shellcheck shell=sh disable=SC2034,SC2154
# Debian packages as the node's own dpkg and apt see them. Sourced, or put in front of a program's text, after
# job.sh; what prints records needs look.sh too. Nothing here changes anything but apt's own source cache,
# which apt renews when its lists changed.

# Package lists of our own: the system's lists and sources stay as they are.
own_apt=$fleetdrv/apt

dpkg_interrupted() {
    set -- /var/lib/dpkg/updates/[0-9]* '^Status: .* (half-installed|unpacked|half-configured)$'
    [ -e "$1" ] || grep -qE "$2" /var/lib/dpkg/status || return 1
    # What a dpkg at work has half done is not interrupted: /proc/locks shows its lock, by inode.
    ! grep -qE ":($(stat -c %i /var/lib/dpkg/lock* | paste -sd'|')) " /proc/locks
} 2>/dev/null

# Tell whether an installation of a driver was begun here and not ended: half done packages are ours then.
begun() {
    [ -e "$own_apt/installing" ]
}

# Those of somebody else are his to mend; our own, the same installation finishes.
dpkg_interrupted_by_others() {
    ! begun && dpkg_interrupted
}

# Set installed, status and held of a package of the node's own architecture.
package_state() {
    installed='' status=not-installed held=no
    said=$(dpkg-query -W -f '${Architecture} ${db:Status-Status} ${db:Status-Want} ${Version}\n' -- "$1" \
        2>/dev/null) || return 0
    native=$(dpkg --print-architecture)
    while read -r its_architecture its_status its_want its_version; do
        case $its_architecture in
        "$native" | all) installed=$its_version status=$its_status ;;
        esac
        [ "$its_want" != hold ] || held=yes
    done <<SAID
$said
SAID
}

# Print "VERSION SHA256" of each version that lists offer for the node's architecture. What is only installed
# has no SHA256. With apt's arguments after the name: where other lists are.
offered() {
    name=$1
    shift
    code=0
    said=$(apt-cache -o Dir::Cache::pkgcache= "$@" show -- "$name" 2>&1) || code=$?
    case $code$said in
    0*) ;;
    *'No packages found'*) return 0 ;;
    # The last line alone says that something is wrong, those before it what: no space, say.
    *) printf '%s\n' "$said" | sed -n 's/^E: //p' | paste -sd' ' && return 1 ;;
    esac
    printf '%s\n' "$said" | awk -v name="$name" -v native="$(dpkg --print-architecture)" '
        function flush() {
            if (p == name && s != "" && (a == native || a == "all")) print v, s
            p = v = a = s = ""
        }
        $1 == "Package:" { flush(); p = $2 }
        $1 == "Version:" { v = $2 }
        $1 == "Architecture:" { a = $2 }
        $1 == "SHA256:" { s = $2 }
        END { flush() }'
}

# Without a package cache: apt would believe it while size and second of dpkg's status file are the same, and
# an upgrade from 1.0 to 1.1 keeps the size.
own_lists() {
    "$@" -o Dir::State::Lists="$own_apt/lists" -o Dir::Etc::SourceParts="$own_apt/sources.list.d" \
        -o Dir::Cache="$own_apt/cache" -o Dir::Cache::pkgcache=
}

look_at_package() {
    if ! { command -v dpkg-query && command -v apt-cache; } >/dev/null; then
        row error "package $1: there is no dpkg or no apt"
        return
    fi
    packages="${packages-} $1"
    package_state "$1"
    [ "$held" = no ] || ! grep -qsx "$1" "$own_apt/held" || held=ours
    row package "$1" "$installed" "$status" "$held"
    if found=$(offered "$1") && { [ ! -d "$own_apt/lists" ] || own=$(own_lists offered "$1"); }; then
        printf '%s\n' "$found" "${own-}" | sort -u | while read -r its_version sha256; do
            [ -z "$its_version" ] || row candidate "$1" "$its_version" "$sha256"
        done
    else
        row error "package $1: apt-cache: ${own:-$found}"
    fi
    case $status in installed | triggers-*) look_at_packaged "$1" ;; esac
    look_at_abi
    [ -n "${lists_seen-}" ] || look_at_lists
}

# The DKMS packages inside an installed package, by dkms.conf, and their builds. dkms wants plain names: the
# folder says them too.
look_at_packaged() {
    for conf in $(dpkg-query -L "$1" | grep '/dkms\.conf$'); do
        dkms_name=$(conf_value PACKAGE_NAME "$conf")
        dkms_version=$(conf_value PACKAGE_VERSION "$conf")
        case $conf in
        "/usr/src/$dkms_name-$dkms_version/dkms.conf")
            row packaged "$1" "$dkms_name" "$dkms_version"
            made="${made-} $dkms_name/$dkms_version"
            look_at_dkms "$dkms_name"
            ;;
        *) row error "package $1: $conf does not say plainly which DKMS package it is" ;;
        esac
    done
}

# find_file_name NAME KERNEL: set its_name to what a module's file is called: of what DKMS made of the driver's
# packages, the one called like the module, or the one which says that this is its name.
find_file_name() {
    its_name=$1 made_files=''
    for place in $made; do
        for ko in "/var/lib/dkms/$place/$2"/*/module/*.ko*; do
            [ -e "$ko" ] || continue
            made_files="$made_files $ko"
            as_kernel "${ko##*/}"
            [ "${plain%%.ko*}" != "$1" ] || return 0
        done
    done
    [ -n "$made_files" ] || return 0
    # shellcheck disable=SC2086
    [ "$names_of" = "$made_files" ] || { names_of=$made_files && made_names=$(loaded_names $made_files); }
    while read -r loaded ko; do
        [ "$loaded" = "$1" ] || continue
        its_name=${ko##*/} && its_name=${its_name%%.ko*}
        row named - "$1" "$its_name"
        return
    done <<NAMES
$made_names
NAMES
}

# When stage last got lists for a driver, and for which repository: apt_refresh.sh leaves a file.
look_at_refreshed() {
    [ -e "$own_apt/refreshed.$1" ] || return 0
    read -r line <"$own_apt/refreshed.$1"
    age=$(($(date +%s) - $(stat -c %Y "$own_apt/refreshed.$1")))
    # Of the future, where the clock was set back: nobody knows how old.
    [ "$age" -lt 0 ] || row refreshed "$1" "$age" "$line"
}

conf_value() {
    sed -n "s/^ *$1=[\"']\\{0,1\\}\\([A-Za-z0-9._+~-]*\\)[\"']\\{0,1\\} *\$/\\1/p" "$2" | tail -n1
}

# When apt last asked for lists: what it found unchanged leaves no other trace than in its scratch folder.
look_at_lists() {
    lists_seen=yes latest=0
    for folder in /var/lib/apt/lists "$own_apt/lists"; do
        set -- "$folder"/*_*
        [ -e "$1" ] && [ -e "$folder/partial" ] || continue
        asked=$(stat -c %Y "$folder/partial")
        [ "$asked" -le "$latest" ] || latest=$asked
    done
    age=$(($(date +%s) - latest))
    [ "$latest" -eq 0 ] || [ "$age" -lt 0 ] || row lists "$age"
}
