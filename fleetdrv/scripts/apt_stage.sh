#!/bin/sh
# Get a driver's packages ready while the node serves: simulate, download, build its modules in a scratch tree.
#
# Written is /var/lib/fleetdrv/stage/KEY/, by a rename at the end; nothing is unpacked into the system.
#   debs/*.deb                     the packages and what they need beside what is installed
#   NAME-VERSION.dkms.tar.gz       built modules of each dkms.conf in them
#   places                         "NAME VERSION FOLDER": where the package's postinst looks for that tarball
#   names                          "MODULE FILE" of each build that is loaded by another name than its file's
#
# Usage: apt_stage.sh [--allow-downgrade] DRIVER KEY keep|replace MODULE,… NAME=VERSION=SHA256… -- KERNEL…
#   MODULE  or MODULE:FILE; each kernel has to have it then: built here, in a package, or the kernel's own
#   FILE    name of its file, without .ko; where it is not said, the file of a build may be called otherwise
# Exit: 0 done, or already there · 64 usage · 65 a package is not the one with that digest · 66 no headers
#       67 the driver excludes a kernel (BUILD_EXCLUSIVE), or brings it no such module · 68 does not compile
#       69 a tool is missing
#       73 no space · 79 apt would remove or change what is not named, or cannot · 80 cannot download
#       81 dpkg was interrupted before us · 82 a package is held by somebody else
# Needs: job.sh module.sh packages.sh lists.sh apt.sh dkms.sh trial.sh brings.sh initrd.sh

set -eu
umask 022
LC_ALL=C
export LC_ALL
. ./job.sh
. ./module.sh
. ./packages.sh
. ./lists.sh
. ./apt.sh
. ./dkms.sh
. ./trial.sh
. ./brings.sh
. ./initrd.sh

# As root without apt's own user: the folder is ours alone.
download() {
    code=0
    mkdir -p "$new/out/debs"
    said=$(cd "$new/out/debs" && quiet_apt download "$@" 2>&1) || code=$?
    printf '%s\n' "$said"
    case $said in *'No space left'* | *'enough free space'*) die 73 "$fleetdrv: no space for packages" ;; esac
    [ "$code" -eq 0 ] || die 80 "apt-get download: $(why_not "$said")"
}

check_digests() {
    for pin; do
        found=''
        for deb in "$new/out/debs"/*.deb; do
            # shellcheck disable=SC2016 # dpkg-deb's own variables
            [ "$(dpkg-deb -W --showformat='${Package}=${Version}' "$deb")" = "${pin%=*}" ] || continue
            found=$(sha256sum <"$deb") && found=${found%% *}
        done
        [ "$found" = "${pin##*=}" ] || die 65 "${pin%=*}: its SHA-256 is ${found:-not known}, not ${pin##*=}"
    done
}

# Where the package's postinst wants the tarball: the third word it gives to common.postinst, which it may
# call through a variable.
tarball_folder() {
    dpkg-deb -I "$1" postinst 2>/dev/null | awk -v package="$2" '
        /^[ \t]*[A-Z_]+=[^ ]*[ \t]*$/ { split($1, part, "="); value[part[1]] = expand(part[2]) }
        $1 ~ /common\.postinst$/ || $1 == "$DKMS_POSTINST" { if (NF >= 4) folder = expand($4) }
        function expand(word, name) {
            gsub(/"/, "", word)
            while (match(word, /\$\{?[A-Z_]+\}?/)) {
                name = substr(word, RSTART, RLENGTH)
                gsub(/[${}]/, "", name)
                word = substr(word, 1, RSTART - 1) value[name] substr(word, RSTART + RLENGTH)
            }
            return word
        }
        END { print folder ~ /^\/[A-Za-z0-9.\/_+-]+$/ ? folder : "/usr/share/" package }'
}

# build_all KERNEL…
build_all() {
    mkdir -p "$new/src" "$new/tree" "$new/tmp"
    : >"$new/out/places"
    for deb in "$new/out/debs"/*.deb; do
        dpkg-deb -x "$deb" "$new/unpacked" || die 73 "$deb: cannot be unpacked"
        for conf in "$new/unpacked/usr/src"/*/dkms.conf; do
            [ -e "$conf" ] || continue
            name=$(conf_value PACKAGE_NAME "$conf")
            version=$(conf_value PACKAGE_VERSION "$conf")
            case $conf in
            "$new/unpacked/usr/src/$name-$version/dkms.conf") ;;
            *) die 68 "${deb##*/}: dkms.conf does not say plainly which DKMS package it is" ;;
            esac
            check_tools "$@"
            mv "${conf%/dkms.conf}" "$new/src/"
            for kernel; do
                take_build "$new" "payload/$driver" "$name" "$version" "$kernel" ||
                    trial_build "$new" "$name" "$version" "$kernel"
            done
            pack_trial "$new" "$name" "$version" "$@"
            echo "$name $version $(tarball_folder "$deb" "$(dpkg-deb -f "$deb" Package)")" >>"$new/out/places"
        done
        (cd "$new/unpacked" && find . -path '*/lib/modules/*' -name '*.ko*') >>"$new/modules"
        rm -rf "$new/unpacked"
    done
}

main() {
    usage='usage: apt_stage.sh [--allow-downgrade] DRIVER KEY keep|replace MODULE[:FILE],...'
    usage="$usage NAME=VERSION=SHA256... -- KERNEL..."
    downgrade=''
    [ "${1-}" != --allow-downgrade ] || { downgrade=--allow-downgrades && shift; }
    [ $# -ge 7 ] || die 64 "$usage"
    driver=$1 key=$2 modules=$4
    case $3 in keep | replace) ;; *) die 64 "$usage" ;; esac
    case $4 in '' | *[!A-Za-z0-9_,:-]*) die 64 "$usage" ;; esac
    shift 4
    plain_words "$driver" "$key"
    take_pins "$@" || die 64 "$usage"
    # shellcheck disable=SC2086
    set -- $kernels
    [ ! -d "$fleetdrv/stage/$key" ] || { echo "$key is staged already" && exit 0; }
    need_apt
    # shellcheck disable=SC2086
    check_system $pinned
    take_system_lists
    new=$fleetdrv/stage/.new.$key
    rm -rf "$new"
    (umask 077 && mkdir -p "$new") || die 73 "$new: cannot be made"
    trap 'rm -rf "$new"' EXIT
    # shellcheck disable=SC2086
    simulate "$pinned" $downgrade install $pinned
    [ -z "$would" ] || printf 'apt would install %s\n' "$(printf '%s\n' "$would" | paste -sd' ')"
    check_space 0
    # What is installed already is kept too, for a rollback to come.
    # shellcheck disable=SC2046,SC2086
    download $(printf '%s\n' $would $pinned | sort -u)
    # shellcheck disable=SC2086
    check_digests $digests
    build_all "$@"
    need_modules "$modules" "$@"
    # shellcheck disable=SC2046 # plain words
    for kernel; do room_for_initrd "$kernel" $(printf '%s' "$modules" | tr , ' '); done
    find "$new/out" -exec sync {} +
    mv -T "$new/out" "$fleetdrv/stage/$key"
    echo "$key is staged: $pinned for $*"
}

main "$@"
