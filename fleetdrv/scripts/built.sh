#!/bin/sh
# Send what is staged under a key: finished modules, in DKMS's own tarballs. Only reads.
#
# Usage: sh -c "$(cat job.sh dkms.sh built.sh)" built.sh KEY LIMIT
#   LIMIT  bytes that all tarballs together may have
# Output: for each tarball a line "build NAME SIZE SHA256", and SIZE bytes; at last a line "end"
# Exit: 0 sent · 64 usage · 72 nothing is staged under that key · 83 it is larger than that
# Needs: job.sh dkms.sh

set -eu
LC_ALL=C PATH=${PATH:-/usr/bin}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
command -v job_state >/dev/null || . "$(dirname "$0")/job.sh"
command -v plain_words >/dev/null || . "$(dirname "$0")/dkms.sh"

main() {
    [ $# -eq 2 ] || die 64 'usage: built.sh KEY LIMIT'
    plain_words "$@"
    left=$2
    cd "$fleetdrv/stage/$1" || die 72 "$1: nothing is staged"
    for tarball in *.dkms.tar.gz; do
        [ -e "$tarball" ] || continue
        size=$(wc -c <"$tarball")
        left=$((left - size))
        [ "$left" -ge 0 ] || die 83 "$1: more than $2 bytes"
    done
    for tarball in *.dkms.tar.gz; do
        [ -e "$tarball" ] || continue
        sum=$(sha256sum <"$tarball")
        printf 'build %s %s %s\n' "$tarball" "$(wc -c <"$tarball")" "${sum%% *}"
        cat <"$tarball"
    done
    echo end
}

main "$@" </dev/null
