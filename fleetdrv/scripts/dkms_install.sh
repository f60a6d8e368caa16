#!/bin/sh
# Make one finished build the only version of a DKMS package, and what modprobe loads. Nothing is compiled.
#
# Done means: for each kernel modprobe would load the very bytes of the tarball, DKMS holds that version for
# installed, and no other version is left that it would install or compile for the next kernel. Whatever a
# killed run left half done is found by that measure and done again; dkms's exit status is not believed.
#
# Usage: dkms_install.sh NAME VERSION TARBALL KERNEL…
# Exit: 0 done, or already so · 64 usage · 66 the tarball has no modules for a kernel · 69 dkms missing
#       70 dkms did not install it · 71 the sources in /usr/src belong to a package · 73 no space
# Needs: job.sh dkms.sh

set -eu
umask 022
LC_ALL=C
export LC_ALL
. ./job.sh
. ./dkms.sh

packaged() {
    dpkg -S "$1" >/dev/null 2>&1
}

same_folder() {
    diff -rq "$1" "$2" >/dev/null 2>&1
}

# Sources appear by a rename, next to where they belong.
place_sources() {
    ! same_folder "$build/dkms_source_tree" "$sources" || return 0
    [ ! -e "$sources" ] || ! packaged "$sources" || die 71 "$sources: belongs to a Debian package"
    rm -rf "$source_tree/.$name-$version.new"
    cp -a "$build/dkms_source_tree" "$source_tree/.$name-$version.new" || die 73 "$sources: cannot be written"
    rm -rf "$sources"
    mv -T "$source_tree/.$name-$version.new" "$sources"
}

# Modules appear in DKMS's tree by a rename: for dkms, a folder "module" means built.
place_modules() {
    for modules in "$build/dkms_main_tree/$1"/*/module; do
        arch=${modules%/module} && arch=${arch##*/}
        built=$dkms_tree/$name/$version/$1/$arch
        ! same_folder "$modules" "$built/module" || continue
        rm -rf "$built" "$dkms_tree/$name/$version/.new"
        mkdir -p "$dkms_tree/$name/$version/.new" "${built%/*}"
        cp -a "$modules" "$dkms_tree/$name/$version/.new/module" || die 73 "$built: cannot be written"
        mv -T "$dkms_tree/$name/$version/.new" "$built"
    done
}

# Files that no version owns are left by a killed install. dkms 3.2 would take them for the kernel's own,
# keep them, and put them back one day.
remove_strays() {
    active_version "$name" "$1"
    [ -z "$active" ] || return 0
    for module in "$build/dkms_main_tree/$1"/*/module/*.ko*; do
        module=${module##*/}
        rm -f "/lib/modules/$1/updates/dkms/${module%%.ko*}".ko*
    done
}

uninstall_active() {
    active_version "$name" "$1"
    [ -z "$active" ] || dkms uninstall -m "$name" -v "$active" -k "$1" ||
        rm -f "$dkms_tree/$name/kernel-$1"-*
    remove_strays "$1"
}

installed() {
    active_version "$name" "$1"
    [ "$active" = "$version" ] && [ -e "$dkms_tree/$name/$version/source/dkms.conf" ] || return 1
    for modules in "$build/dkms_main_tree/$1"/*; do
        same_folder "$modules/module" "$dkms_tree/$name/$version/$1/${modules##*/}/module" || return 1
    done
    build_is_installed "$build" "$1"
}

# Tell whether DKMS would rather keep what is active: the same version though its file was replaced ("already
# installed", exit 0), or a newer one ("not newer than what is already found", exit 0 from 3.0, 6 from 3.2).
in_the_way() {
    [ -n "$active" ] && [ "$(printf '%s\n' "$version" "$active" | sort -V | tail -n1)" = "$active" ]
}

# What `dkms add` does, without the ninety processes that it starts while the node is out of service.
register() {
    [ ! -e "$dkms_tree/$name/$version/source/dkms.conf" ] || return 0
    if grep -q POST_ADD "$sources/dkms.conf"; then
        dkms add -m "$name" -v "$version" || die 70 "$name $version: dkms does not take its sources"
    else
        mkdir -p "$dkms_tree/$name/$version/build"
        ln -sfnT "$sources" "$dkms_tree/$name/$version/source"
    fi
}

install_for() {
    register
    place_modules "$1"
    active_version "$name" "$1"
    if in_the_way; then uninstall_active "$1"; else remove_strays "$1"; fi
    dkms install -m "$name" -v "$version" -k "$1" || echo "dkms install: exit $?"
    installed "$1" && return 0
    uninstall_active "$1"
    dkms install -m "$name" -v "$version" -k "$1" || echo "dkms install: exit $?"
    installed "$1" || die 70 "$name $version: dkms did not install it for kernel $1"
}

# Of a version that no kernel has installed, `dkms remove` only deletes the folder, in 160 processes.
active_anywhere() {
    for link in "$dkms_tree/$name"/kernel-*; do
        case $(readlink "$link") in "$1"/*) return 0 ;; esac
    done
    return 1
}

# A version left in the tree is what `dkms autoinstall` would install, or try to compile, for the next kernel.
# Which ones is written down first: with the tree gone nothing else would tell whose sources those are.
remove_others() {
    record=$fleetdrv/removing.$name
    other_versions "$name" "$version"
    [ -z "$others" ] || printf '%s\n' "$others" >>"$record"
    [ -e "$record" ] || return 0
    others=$(cat "$record")
    for other in $others; do
        [ "$other" != "$version" ] || continue
        ! active_anywhere "$other" || dkms remove -m "$name" -v "$other" --all || :
        rm -rf "${dkms_tree:?}/$name/$other"
        packaged "$source_tree/$name-$other" || rm -rf "$source_tree/$name-$other"
    done
    rm "$record"
}

main() {
    [ $# -ge 4 ] || die 64 'usage: dkms_install.sh NAME VERSION TARBALL KERNEL...'
    name=$1 version=$2 tarball=$3
    shift 3
    plain_words "$name" "$version" "$@"
    command -v dkms >/dev/null || die 69 'dkms is not installed'
    sources=$source_tree/$name-$version
    build=$fleetdrv/stage/.new.install
    (umask 077 && mkdir -p "$fleetdrv/stage")
    trap 'rm -rf "$build"' EXIT
    unpack_build "$tarball" "$build" || die 73 "$tarball: cannot be unpacked"
    for kernel; do
        [ -d "$build/dkms_main_tree/$kernel" ] || die 66 "$tarball: has no modules for kernel $kernel"
    done
    place_sources
    for kernel; do
        if installed "$kernel"; then
            echo "$name $version is installed already for kernel $kernel"
        else
            install_for "$kernel"
        fi
    done
    remove_others
    # A power cut must not leave modules of no bytes behind.
    find "$sources" "$dkms_tree/$name" -exec sync {} +
    for kernel; do
        sync "/lib/modules/$kernel"/updates/dkms/* "/lib/modules/$kernel"/modules.* || :
    done
}

main "$@"
