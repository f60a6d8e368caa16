# shellcheck shell=sh disable=SC2154
# The private sources and lists of apt. Sourced by the apt_* programs, after job.sh and packages.sh.

# Make the private sources: the system's, but for a driver's own, of which ours is the newer. What we settled in
# the system for other drivers names the key there, and is copied to name it here.
gather_sources() {
    (umask 077 && mkdir -p "$own_apt")
    chmod 0755 "$own_apt"
    mkdir -p "$own_apt/lists/partial" "$own_apt/cache/archives/partial" "$own_apt/keyrings" \
        "$own_apt/sources.list.d" || die 73 "$own_apt: cannot be written"
    find "$own_apt/sources.list.d" \( -type l -o -name 'settled-*' \) -delete
    for path in /etc/apt/sources.list.d/*; do
        name=${path##*/}
        [ -e "$path" ] && [ ! -e "$own_apt/sources.list.d/$name" ] || continue
        case $name in
        fleetdrv-*.sources)
            sed "s|^Signed-By: /etc/apt/keyrings/|Signed-By: $own_apt/keyrings/|" "$path" \
                >"$own_apt/sources.list.d/settled-$name"
            key=$(sed -n 's|^Signed-By: /etc/apt/keyrings/||p' "$path")
            [ ! -f "/etc/apt/keyrings/$key" ] || cp "/etc/apt/keyrings/$key" "$own_apt/keyrings/"
            ;;
        *) ln -s "$path" "$own_apt/sources.list.d/" ;;
        esac
    done
}

# Lists that the system has got since are as good as our own, and the plan may have been made from them.
take_system_lists() {
    gather_sources
    for path in /var/lib/apt/lists/*_*; do
        copy=$own_apt/lists/${path##*/}
        # shellcheck disable=SC3013 # dash, bash and busybox know -nt
        if [ ! -e "$path" ] || { [ -e "$copy" ] && [ ! "$path" -nt "$copy" ]; }; then continue; fi
        # By a rename: half a copy would be newer than the whole one, and apt could read none of it for ever.
        new=$own_apt/lists/partial/.new
        if ! cp -a "$path" "$new" || ! sync "$new" || ! mv "$new" "$copy"; then
            die 73 "$own_apt: cannot be written"
        fi
    done
}
