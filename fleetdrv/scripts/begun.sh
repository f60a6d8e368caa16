# shellcheck shell=sh disable=SC2034,SC2086,SC2154
# An installation that has begun: noted, finished after a kill, taken away again after a failure. Sourced by
# apt_install.sh, after apt.sh; uses its driver, key, staged and conf_options.
#
# /var/lib/fleetdrv/apt/installing stands from before the first change to the end: "DRIVER KEY", the tarballs
# that are out, and "new|again|changed PACKAGE [VERSION]" for each package as it was.

# no_lists WORD…: apt knows what is installed and the files it is given, and could download nothing. Of the same
# package in a file and in signed lists it takes the one that is signed, from the network.
no_lists() {
    mkdir -p "$own_apt/none/partial"
    "$@" -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$own_apt/none" -o Dir::Cache="$own_apt/cache" -o Dir::Cache::pkgcache=
}

# What an earlier run of ours brought, if it was killed, is still new.
begin() {
    noted=''
    if begun; then
        mend
        read -r whose <"$own_apt/installing" || :
        [ "$whose" != "$driver $key" ] || noted=$(grep -E '^(new|again|changed) ' "$own_apt/installing" || :)
        remove_tarballs
    fi
    printf '%s\n' "$driver $key" "$noted" >"$own_apt/installing"
    sync "$own_apt/installing"
}

# Our own packages, half done by a run that was killed: unpack them again, finish all that waits.
mend() {
    while [ -n "$(lock_holder)" ] && [ "$lock_seconds" -gt 0 ]; do
        lock_seconds=$((lock_seconds - 1)) && sleep 1
    done
    dpkg_interrupted || return 0
    echo 'finishing what a killed run of ours began'
    locked dpkg $conf_options -i "$staged"/debs/*.deb || :
    locked dpkg $conf_options --configure --pending || :
}

# The marker says which tarballs are out; of this run and of those killed before.
remove_tarballs() {
    [ -e "$own_apt/installing" ] || return 0
    while read -r path; do
        case $path in
        /*.dkms.tar.gz) rm -f "$path" "${path%/*}/.fleetdrv.new" && rmdir "${path%/*}" 2>/dev/null || : ;;
        esac
    done <"$own_apt/installing"
}

# note_new DEB…: which of these packages are not there at all yet, so that a failure can take them away again.
note_new() {
    for deb; do
        name=$(dpkg-deb -f "$deb" Package)
        package_state "$name"
        case $status in
        not-installed) echo "new $name" >>"$own_apt/installing" ;;
        config-files) echo "again $name" >>"$own_apt/installing" ;;
        *) echo "changed $name $installed" >>"$own_apt/installing" ;;
        esac
    done
    sync "$own_apt/installing"
}

# Take away what a failed installation brought; fail where that does not make all as it was.
undo() {
    [ ! -e unloaded ] && [ ! -e stopped ] || return 1
    # Another driver's steps of this job: run.sh lists what has passed; these only look, or leave a file above.
    ! grep -qsvx -e 'apt_ready\.sh' -e 'unload\.sh' -e 'services\.sh' passed || return 1
    remove_tarballs
    purge='' remove=''
    while read -r kind name was; do
        [ -n "$kind" ] || continue
        package_state "$name"
        case $kind/$status in
        new/not-installed | again/not-installed | again/config-files) ;;
        new/*) purge="$purge $name" ;;
        again/*) remove="$remove $name" ;;
        changed/installed) [ "$installed" = "$was" ] || return 1 ;;
        *) return 1 ;;
        esac
    done <<NOTED
$(grep -E '^(new|again|changed) ' "$own_apt/installing")
NOTED
    # Each in one call: dpkg takes nothing away that another still needs.
    [ -z "$remove" ] || locked dpkg --remove --force-remove-reinstreq $remove || return 1
    [ -z "$purge" ] || locked dpkg --purge --force-remove-reinstreq $purge || return 1
    ! dpkg_interrupted || return 1
    rm -f "$own_apt/installing"
}
