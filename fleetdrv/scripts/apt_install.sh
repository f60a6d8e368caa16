#!/bin/sh
# Install a driver's staged packages: from files, without network and without a compiler, and prove it.
#
# What postinst would compile it finds built, in its own tarball folder; the tarballs go again at the end, also
# those that a killed run left. /var/lib/fleetdrv/apt/installing stands while it runs: packages that are half
# done then are ours, and the same program again finishes them.
#
# Usage: apt_install.sh DRIVER KEY yes|no keep|replace NAME=VERSION… -- KERNEL…
#   KEY            what apt_stage.sh has staged
#   yes|no         hold the packages; a hold that somebody else has set stays either way
#   keep|replace   configuration files that were changed by hand; those kept are told
#   LOCK_SECONDS   in the environment: how long to wait for another apt or dpkg, 600 if not set
# Exit: 0 done, or already so · 64 usage · 66 a build has no modules for a kernel · 69 a tool is missing
#       70 apt or dkms said yes and it is not so · 72 nothing is staged · 73 no space
#       75 another process holds dpkg's lock · 79 apt would remove or change what is not named, or cannot
#       81 dpkg was interrupted before us, or under another driver whose packages can be neither finished nor
#       taken away · 82 a package is held by somebody else
#       83 it failed, and all is as it was: what was new is removed again, and this job had changed nothing else
# Needs: job.sh packages.sh lists.sh apt.sh settle.sh begun.sh dkms.sh dkms_install.sh

# Options, pins and kernels are plain words.
# shellcheck disable=SC2086
set -eu
umask 022
LC_ALL=C
export LC_ALL
. ./job.sh
. ./packages.sh
. ./lists.sh
. ./apt.sh
. ./settle.sh
. ./begun.sh
. ./dkms.sh

tarballs() {
    while read -r name version folder; do
        [ -n "$folder" ] || continue
        tarball=$staged/$name-$version.dkms.tar.gz
        case $1 in
        place)
            # Noted first: whoever kills this leaves nothing that the next run does not know of.
            printf '%s\n' "$folder/$name-$version.dkms.tar.gz" >>"$own_apt/installing"
            mkdir -p "$folder"
            cp "$tarball" "$folder/.fleetdrv.new" || die 73 "$folder: cannot be written"
            mv "$folder/.fleetdrv.new" "$folder/$name-$version.dkms.tar.gz"
            ;;
        install) /bin/sh ./dkms_install.sh "$name" "$version" "$tarball" $kernels </dev/null ;;
        esac
    done <"$staged/places"
}

# Tell whether every named package is installed at its version.
all_installed() {
    for pin in $pinned; do
        package_state "${pin%%=*}"
        [ "$status" = installed ] && [ "$installed" = "${pin#*=}" ] || return 1
    done
}

install_packages() {
    set --
    for deb in "$staged"/debs/*.deb; do
        # shellcheck disable=SC2016
        pin=$(dpkg-deb -W --showformat='${Package}=${Version}' "$deb")
        package_state "${pin%%=*}"
        if [ "$status" = installed ]; then
            [ "$installed" != "${pin#*=}" ] || continue
            # What the packages need may have become newer since; what the playbook names is exact.
            case " $pinned " in
            *" $pin "*) ;;
            *) ! dpkg --compare-versions "$installed" gt "${pin#*=}" || continue ;;
            esac
        fi
        set -- "$@" "$deb"
    done
    [ $# -gt 0 ] || { echo 'the packages are installed already' && return 0; }
    # apt 2.6 takes no local file with --no-download: "Pathname to install is not absolute".
    lists=no_lists
    simulate "$pinned" --allow-downgrades install "$@"
    note_new "$@"
    tarballs place
    locked quiet_apt -y --allow-downgrades --allow-change-held-packages $apt_conf \
        -o DPkg::Lock::Timeout="$lock_seconds" install "$@" || {
        code=$?
        # dpkg's reason stands on the line after its error.
        why=$(printf '%s\n' "$said" | sed -n -e '/^dpkg: error/{N;s/:\n */: /p;q}' -e '/^E: /{p;q}')
        die 70 "apt-get install: exit $code: ${why:-no reason given}"
    }
}

prove() {
    for pin in $pinned; do
        package_state "${pin%%=*}"
        [ "$status" = installed ] && [ "$installed" = "${pin#*=}" ] ||
            die 70 "${pin%%=*} is $status at ${installed:-no version}, not installed at ${pin#*=}"
    done
    [ -z "$(dpkg --audit)" ] || die 70 "dpkg --audit: $(dpkg --audit | grep -m1 '^ ')"
}

work() {
    if [ -d "$staged" ]; then
        install_packages
        tarballs install
        tell_kept
    fi
    settle_repository
    settle_holds "$hold"
    prove
}

main() {
    usage='usage: apt_install.sh DRIVER KEY yes|no keep|replace NAME=VERSION... -- KERNEL...'
    [ $# -ge 7 ] || die 64 "$usage"
    driver=$1 key=$2 hold=$3
    case $3/$4 in
    yes/keep | no/keep) conf_options='--force-confdef --force-confold' ;;
    yes/replace | no/replace) conf_options='--force-confnew' ;;
    *) die 64 "$usage" ;;
    esac
    apt_conf=''
    for option in $conf_options; do apt_conf="$apt_conf -o Dpkg::Options::=$option"; done
    shift 4
    plain_words "$driver" "$key"
    take_pins "$@" || die 64 "$usage"
    need_apt
    gather_sources
    check_system $pinned
    staged=$fleetdrv/stage/$key
    [ -d "$staged" ] || all_installed || die 72 "$key: nothing is staged"
    trap remove_tarballs EXIT
    if [ -d "$staged" ]; then begin; fi
    # Not in a condition, which would switch -e off.
    set +e
    (
        set -e
        work
    ) 2>"$own_apt/why"
    ended=$?
    set -e
    cat "$own_apt/why" >&2
    if [ "$ended" -ne 0 ]; then
        why=$(tail -n1 "$own_apt/why")
        if begun && undo; then die 83 "$driver: ${why:-exit $ended}; all is as it was"; fi
        die "$ended" "$driver: ${why:-exit $ended}"
    fi
    remove_tarballs
    sync
    rm -f "$own_apt/installing"
    echo "$driver: $pinned for $kernels is installed"
}

main "$@"
