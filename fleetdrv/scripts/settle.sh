# shellcheck shell=sh disable=SC2034,SC2154
# What stands after an installation: holds, the repository, kept configuration. Sourced by apt_install.sh, after
# apt.sh; uses its pinned and driver.

# Holds: ours are listed, so that nobody else's is ever lifted.
settle_holds() {
    for pin in $pinned; do
        package=${pin%%=*}
        package_state "$package"
        case $1$held in
        yesno)
            grep -qsx "$package" "$own_apt/held" || echo "$package" >>"$own_apt/held"
            locked apt-mark hold "$package" || die 70 "$package: apt-mark did not hold it"
            ;;
        noyes)
            grep -qsx "$package" "$own_apt/held" || continue
            locked apt-mark unhold "$package" || die 70 "$package: apt-mark did not unhold it"
            sed -i "/^$(printf '%s' "$package" | sed 's/[.+]/\\&/g')\$/d" "$own_apt/held"
            ;;
        esac
    done
}

# The repository that stage used stays, for the operator's own apt; one that the playbook no longer has goes.
settle_repository() {
    source=$own_apt/sources.list.d/fleetdrv-$driver.sources
    target=/etc/apt/sources.list.d/fleetdrv-$driver.sources
    key_file=/etc/apt/keyrings/fleetdrv-$driver.gpg
    if [ -e "$source" ]; then
        mkdir -p "${key_file%/*}"
        wanted=$(sed "s|^Signed-By: .*|Signed-By: $key_file|" "$source")
        cmp -s "$own_apt/keyrings/fleetdrv-$driver.gpg" "$key_file" ||
            { cp "$own_apt/keyrings/fleetdrv-$driver.gpg" "$key_file.new" && mv "$key_file.new" "$key_file"; }
        [ "$(cat "$target" 2>/dev/null)" = "$wanted" ] ||
            { printf '%s\n' "$wanted" >"$target.new" && mv "$target.new" "$target"; }
    else
        rm -f "$target" "$key_file"
    fi
}

tell_kept() {
    for pin in $pinned; do
        # shellcheck disable=SC2016
        dpkg-query -W -f '${Conffiles}\n' "${pin%%=*}" | while read -r path _; do
            [ -z "$path" ] || [ ! -e "$path.dpkg-dist" ] ||
                echo "kept $path; the package's own is $path.dpkg-dist"
        done
    done
}
