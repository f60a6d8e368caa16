#!/bin/sh
# Finish what an interrupted dpkg left half done, then what apt calls broken, if that removes nothing.
#
# Nobody is asked: configuration files that were changed by hand stay. `apt-get -f install` is simulated first,
# and done only where it removes no package and brings no kernel.
#
# Usage: dpkg_mend.sh
#   LOCK_SECONDS  in the environment: how long to wait for another apt or dpkg, 600 if not set
# Exit: 0 nothing is half done any more, or was · 64 usage · 69 a tool is missing · 70 something still is
#       73 no space · 75 another process holds dpkg's lock
#       79 apt would remove a package, bring a kernel, or knows no way
# Needs: job.sh packages.sh apt.sh

set -eu
umask 022
LC_ALL=C
export LC_ALL
. ./job.sh
. ./packages.sh
. ./apt.sh

conf='--force-confdef --force-confold'

sound() {
    ! dpkg_interrupted && [ -z "$(dpkg --audit)" ]
}

# The system's own lists: what is half done is nobody's we know.
system_lists() {
    "$@"
}

# What apt would do about it has to be harmless, line by line.
look_at_fix() {
    code=0
    plan=$(quiet_apt -s -y -f install 2>&1) || code=$?
    [ "$code" -eq 0 ] || die 79 "apt-get -f install: $(why_not "$plan")"
    refused=$(printf '%s\n' "$plan" | awk -v a_kernel="$a_kernel" '
        $1 == "Remv" || $1 == "Purg" { print "would remove " $2 }
        $1 == "Inst" && $3 !~ /^\[/ && $2 ~ a_kernel { print "would install kernel " $2 }')
    [ -z "$refused" ] || die 79 "apt-get -f install $(printf '%s\n' "$refused" | paste -sd, | sed 's/,/, /g')"
}

# What stopped dpkg stands after its own error, or is apt's.
why_half_done() {
    printf '%s\n' "$said" | sed -n -e '/^dpkg: error/{N;s/:\n */: /p;q}' -e '/^E: /{p;q}'
}

main() {
    [ $# -eq 0 ] || die 64 'usage: dpkg_mend.sh'
    need_apt
    (umask 077 && mkdir -p "$own_apt")
    if sound; then echo 'no package is half done' && exit 0; fi
    dpkg --audit
    # shellcheck disable=SC2086 # two options
    locked dpkg $conf --configure -a || echo "dpkg --configure -a: exit $?"
    sound && { echo 'all packages are configured' && exit 0; }
    first=$(why_half_done)
    lists=system_lists
    look_at_fix
    apt_conf=''
    for option in $conf; do apt_conf="$apt_conf -o Dpkg::Options::=$option"; done
    # shellcheck disable=SC2086
    locked quiet_apt -y -f $apt_conf -o DPkg::Lock::Timeout="$lock_seconds" install || echo "apt-get: exit $?"
    sound || die 70 "still half done: $(dpkg --audit | grep -m1 '^ ' || :)${first:+; $first}"
    echo 'all packages are configured'
}

main "$@"
