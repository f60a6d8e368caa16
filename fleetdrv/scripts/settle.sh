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
    former=$(sed -n 's|^Signed-By: ||p' "$target" 2>/dev/null || :)
    key=''
    if [ -e "$source" ]; then
        key=$(sed -n "s|^Signed-By: $own_apt/keyrings/||p" "$source")
        mkdir -p /etc/apt/keyrings
        cmp -s "$own_apt/keyrings/$key" "/etc/apt/keyrings/$key" || {
            cp "$own_apt/keyrings/$key" "/etc/apt/keyrings/$key.new"
            mv "/etc/apt/keyrings/$key.new" "/etc/apt/keyrings/$key"
        }
        wanted=$(sed "s|^Signed-By: $own_apt/|Signed-By: /etc/apt/|" "$source")
        [ "$(cat "$target" 2>/dev/null)" = "$wanted" ] ||
            { printf '%s\n' "$wanted" >"$target.new" && mv "$target.new" "$target"; }
    else
        rm -f "$target"
    fi
    # Another driver may have the same key.
    case $former in
    "/etc/apt/keyrings/$key") ;;
    /etc/apt/keyrings/fleetdrv-*)
        grep -qsx "Signed-By: $former" /etc/apt/sources.list.d/fleetdrv-*.sources || rm -f "$former"
        ;;
    esac
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
