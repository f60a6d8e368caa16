#!/bin/sh
# Install the headers of kernels that lack them, so that drivers can be built.
#
# apt may bring what these need and nothing else: no package changes, none goes. Where the package is installed
# and its files are gone, it is installed again.
#
# Usage: headers.sh KERNEL…
#   LOCK_SECONDS  in the environment: how long to wait for another apt or dpkg, 600 if not set
# Exit: 0 each has its build tree, or had · 64 usage · 66 no list offers them: the mirror dropped that kernel
#       69 a tool is missing · 70 apt said yes and it is not so · 73 no space
#       75 another process holds dpkg's lock · 79 apt would remove or change something, or cannot
# Needs: job.sh packages.sh lists.sh apt.sh dkms.sh

set -eu
umask 022
LC_ALL=C
export LC_ALL
. ./job.sh
. ./packages.sh
. ./lists.sh
. ./apt.sh
. ./dkms.sh

has_headers() {
    [ -d "/lib/modules/$1/build/." ]
}

# The node's lists may be older than the kernel: new ones are asked for once.
demand_offered() {
    [ -z "$(own_lists offered "$1")" ] || return 0
    [ -n "${asked-}" ] || quiet_apt update || echo "apt-get update: exit $?"
    asked=yes
    [ -n "$(own_lists offered "$1")" ] ||
        die 66 "$1: no package list offers it; add a mirror that keeps old kernels, or boot a newer kernel"
}

install_headers() {
    package=linux-headers-$1 again=''
    package_state "$package"
    [ "$status" != installed ] || again="--reinstall $package=$installed"
    demand_offered "$package"
    # shellcheck disable=SC2086 # words
    simulate "${again#* }" install ${again:-$package}
    # shellcheck disable=SC2086
    locked quiet_apt -y -o DPkg::Lock::Timeout="$lock_seconds" install ${again:-$package} ||
        die 70 "apt-get install $package: exit $?: $(why_not "$said")"
    has_headers "$1" || die 70 "$package is installed, and there is no /lib/modules/$1/build"
    echo "$package is installed"
}

main() {
    [ $# -ge 1 ] || die 64 'usage: headers.sh KERNEL...'
    plain_words "$@"
    need_apt
    (umask 077 && mkdir -p "$own_apt")
    for kernel; do
        if has_headers "$kernel"; then
            echo "the headers of $kernel are there"
        else
            take_system_lists
            install_headers "$kernel"
        fi
    done
}

main "$@"
