#!/bin/sh
# Ask for package lists while the node serves: into /var/lib/fleetdrv/apt, the system's own stay as they are.
#
# Usage: apt_refresh.sh DRIVER [SOURCES KEYRING FINGERPRINT]
#   SOURCES      the driver's repository, as apt's .sources file without Signed-By
#   KEYRING      its one public key, armoured or not, with FINGERPRINT, 40 hexadecimal digits
# Exit: 0 done · 64 usage · 65 the key is not the one with that fingerprint · 69 a tool is missing
#       73 no space · 80 lists cannot be had: expired, not signed by that key, or not to be reached
# Needs: job.sh packages.sh lists.sh apt.sh

set -eu
umask 022
LC_ALL=C
export LC_ALL
. ./job.sh
. ./packages.sh
. ./lists.sh
. ./apt.sh

# Write a key without its armour. gpg is not on every node, apt's gpgv tells no fingerprints.
without_armour() {
    if grep -q '^-----BEGIN PGP PUBLIC KEY BLOCK-----' "$1"; then
        # Headers end with an empty line, the sum begins with "=".
        sed -e '1,/^[[:space:]]*$/d' -e '/^=/,$d' -e '/^-----/,$d' "$1" | base64 -di
    else
        cat "$1"
    fi
}

# Print offset and length of each primary key (packet 6) of a keyring, RFC 4880 4.2; fail on what is not one.
primary_keys() {
    od -An -v -tu1 "$1" | awk '
        { for (i = 1; i <= NF; i++) byte[n++] = $i }
        function number(at, count) {
            value = 0
            while (count-- > 0) value = value * 256 + byte[at++]
            return value
        }
        END {
            for (at = 0; at < n; at = body + size) {
                head = byte[at]
                if (head >= 192) {
                    tag = head - 192; first = byte[at + 1]
                    if (first < 192) { body = at + 2; size = first }
                    else if (first < 224) { body = at + 3; size = (first - 192) * 256 + byte[at + 2] + 192 }
                    else if (first == 255) { body = at + 6; size = number(at + 2, 4) }
                    else exit 1
                } else if (head >= 128) {
                    tag = int((head - 128) / 4); width = 2 ^ (head % 4)
                    if (width == 8) exit 1
                    body = at + 1 + width; size = number(at + 1, width)
                } else exit 1
                if (body + size > n) exit 1
                if (tag == 6) print body, size, byte[body]
            }
        }'
}

# A version 4 fingerprint: SHA-1 over 0x99, two bytes of length and the key packet, RFC 4880 12.2.
fingerprint_of() {
    found=$(primary_keys "$1") || return 1
    # shellcheck disable=SC2086
    set -- "$1" $found
    [ $# -eq 4 ] && [ "$4" -eq 4 ] || return 1
    {
        # shellcheck disable=SC2059
        printf "$(printf '\\231\\%03o\\%03o' $(($3 / 256)) $(($3 % 256)))"
        tail -c +$(($2 + 1)) "$1" | head -c "$3"
    } | sha1sum | cut -c1-40 | tr a-f A-F
}

place_repository() {
    new=$own_apt/keyrings/.new
    trap 'rm -f "$new"' EXIT
    without_armour "$2" >"$new" || die 65 "$2: cannot be read"
    actual=$(fingerprint_of "$new") || die 65 "$2: is not one public key"
    [ "$actual" = "$3" ] || die 65 "$2: its fingerprint is $actual, not $3"
    key=$own_apt/keyrings/fleetdrv-$3.gpg
    mv "$new" "$key"
    ! grep -qi '^signed-by' "$1" || die 64 "$1: says Signed-By itself"
    { grep . "$1" && echo "Signed-By: $key"; } >"$own_apt/sources.list.d/fleetdrv-$driver.sources"
}

main() {
    usage='usage: apt_refresh.sh DRIVER [SOURCES KEYRING FINGERPRINT]'
    case $# in 1 | 4) ;; *) die 64 "$usage" ;; esac
    driver=$1
    case $driver in '' | [.-]* | *[!A-Za-z0-9._-]*) die 64 "$usage" ;; esac
    need_apt
    gather_sources
    rm -f "$own_apt/refreshed.$driver"
    if [ $# -eq 4 ]; then
        wanted=$(printf '%s' "$4" | tr -d ' ' | tr a-f A-F)
        case $wanted in *[!0-9A-F]*) die 64 "$4: no fingerprint" ;; esac
        [ -r "$2" ] && [ -r "$3" ] || die 64 "$2, $3: cannot be read"
        place_repository "$2" "$3" "$wanted"
    else
        rm -f "$own_apt/sources.list.d/fleetdrv-$driver.sources"
    fi
    gather_sources
    code=0
    quiet_apt update >"$own_apt/said" 2>&1 || code=$?
    cat "$own_apt/said"
    why=$(grep -m1 '^E: ' "$own_apt/said" || grep -m1 '^Err:' "$own_apt/said" || :)
    case $why in *'is not valid yet'*)
        why="$why; the clock of this node says $(date -u '+%F %T') UTC"
        why="$why: set it (systemctl restart systemd-timesyncd)"
        ;;
    esac
    case $(cat "$own_apt/said") in *'No space left'*) die 73 "$own_apt: $why" ;; esac
    [ "$code" -eq 0 ] && [ -z "$why" ] || die 80 "apt-get update: ${why:-exit $code}"
    rm "$own_apt/said"
    sum=-
    # With its key: another one has to be asked for lists before an outage may settle it.
    [ $# -lt 4 ] || sum=$(sed "s|^Signed-By: $own_apt/|Signed-By: /etc/apt/|" \
        "$own_apt/sources.list.d/fleetdrv-$driver.sources" | sha256sum)
    echo "${sum%% *}" >"$own_apt/refreshed.$driver"
    echo "$driver: package lists are new"
}

main "$@"
