# shellcheck shell=sh disable=SC2034,SC2154
# Builds in the layout of DKMS's own tarballs. Sourced by the dkms_* programs and keep.sh, after job.sh.
#
# dkms mktarball and ldtarball are not called: in 3.0.10 both take only the first of several kernels, exit 0
# (a readonly variable in a loop), and ldtarball refuses a version that is there. The layout is theirs, so
# `dkms ldtarball` reads ours:
#   dkms_source_tree/…                        the sources with dkms.conf
#   dkms_main_tree/KERNEL/ARCH/module/*.ko*   finished modules, signed and compressed as they get installed

dkms_tree=/var/lib/dkms
source_tree=/usr/src

# pack_build SCRATCH OUT TREE SOURCES KERNEL…   TREE is NAME/VERSION in some DKMS tree.
pack_build() {
    scratch=$1 out=$2 tree=$3 sources=$4
    shift 4
    [ -e "$sources/dkms.conf" ] || return 1
    rm -rf "$scratch"
    mkdir -p "$scratch/dkms_main_tree" && cp -a "$sources" "$scratch/dkms_source_tree" || return 1
    for kernel; do
        for folder in "$tree/$kernel"/*/module; do
            [ -d "$folder" ] || return 1
            folder=${folder%/module}
            mkdir -p "$scratch/dkms_main_tree/$kernel/${folder##*/}" &&
                cp -a "$folder/module" "$scratch/dkms_main_tree/$kernel/${folder##*/}/" || return 1
        done
    done
    tar -czf "$out" -C "$scratch" dkms_main_tree dkms_source_tree && rm -rf "$scratch"
}

# unpack_build TARBALL SCRATCH
unpack_build() {
    rm -rf "$2"
    mkdir -p "$2"
    tar -xzf "$1" -o -C "$2"
}

# Tell whether modprobe would load, under a kernel, exactly the modules of an unpacked build.
build_is_installed() {
    for ko in "$1/dkms_main_tree/$2"/*/module/*.ko*; do
        [ -e "$ko" ] || return 1
        ko_name=${ko##*/}
        ko_path=$(modinfo -k "$2" -n -- "${ko_name%%.ko*}" 2>/dev/null) || return 1
        [ "${ko_path##*/}" = "$ko_name" ] && cmp -s "$ko_path" "$ko" || return 1
    done
}

# Set active to the version of a DKMS package that DKMS holds for installed under a kernel.
active_version() {
    active=''
    for link in "$dkms_tree/$1/kernel-$2"-*; do
        [ ! -L "$link" ] || { active=$(readlink "$link") && active=${active%%/*}; }
    done
}

# Set others to the versions of a DKMS package in its tree, but one. Versions hold no spaces.
other_versions() {
    others=''
    for folder in "$dkms_tree/$1"/*; do
        case ${folder##*/} in
        "$2" | kernel-* | original_module | '*') ;;
        *) others="$others ${folder##*/}" ;;
        esac
    done
}

# good/DRIVER/current is a link to the state that was verified last, and current/previous, inside it, to the one
# of another wanted state before that: one rename changes both, so a killed run leaves those of before or after.

# beside_new HOME NEW DIGEST: link, in a new state's folder, the one that is to stay beside it.
beside_new() {
    rm -f "$2/previous"
    beside=$(readlink "$1/current") || return 0
    [ "$(cat "$1/current/digest")" != "$3" ] || beside=$(readlink "$1/current/previous") || return 0
    ln -s "../${beside#../}" "$2/previous"
}

# make_current HOME NEW: and give back the room of every state but that one and the one beside it.
make_current() {
    ln -sfn "${2##*/}" "$1/.current"
    mv -T "$1/.current" "$1/current"
    sync "$1"
}

drop_others() {
    now=$(readlink "$1/current" || :) beside=$(readlink "$1/current/previous" || :)
    for path in "$1"/v.*; do
        case ${path##*/} in "$now" | "${beside#../}") ;; *) rm -rf "$path" ;; esac
    done
}

# Set good to the folder of a driver's kept state: the current one, or that with a digest. Fails without one.
kept_state() {
    for good in "$fleetdrv/good/$1/current" "$fleetdrv/good/$1/current/previous"; do
        [ -e "$good/digest" ] || continue
        read -r has <"$good/digest"
        [ "$has" != "${2:-$has}" ] || return 0
    done
    return 1
}

plain_words() {
    for word; do
        case $word in '' | [.-]* | *[!A-Za-z0-9._+~-]*) die 64 "$word: not a plain word" ;; esac
    done
}
