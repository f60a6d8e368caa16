#!/bin/bash
# Usage: fleetdrv-lab-roce          exchange messages with another practice node over RoCE
#        fleetdrv-lab-roce serve    be the other end; systemd starts it for each caller, who is on stdin and stdout
#
# What a site's own check of its fabric is: the device is there, and ibv_rc_pingpong gets messages to a neighbour
# and back. The first node of a fleet finds no neighbour with RoCE, and talks to itself then; it says with whom.
# Exit: 0 messages came back · 1 they did not; the last line says why
set -u

caller_port=18514
device=rxe0
messages=100

# Set gid to the index of the address that is the IPv4 address of the wire. Made by udev, so it may take a moment.
find_device() {
	for _ in {1..40}; do
		for entry in "/sys/class/infiniband/$device/ports/1/gids"/*; do
			gid=${entry##*/}
			! grep -qs '^\(0000:\)\{5\}ffff:0a4e:' "$entry" || return 0
		done
		[ "$1" = patient ] || return 1
		sleep 0.5
	done
	return 1
}

pingpong() {
	ibv_rc_pingpong -d "$device" -g "$gid" -n "$messages" -p "$port" "$@"
}

serve() {
	read -r -t 10 port || exit 1
	find_device at-once || { echo "no $device here" && exit 1; }
	echo ready
	pingpong >/dev/null 2>&1
}

# Talk to an address; set said to what came of it.
talk_to() {
	said='it does not answer'
	{ exec 3<>"/dev/tcp/$1/$caller_port"; } 2>/dev/null || return 1
	echo "$port" >&3
	answer=''
	read -r -t 15 answer <&3
	[ "$answer" = ready ] || { said=${answer:-it does not answer} && return 1; }
	for _ in {1..20}; do
		said=$(pingpong "$1" 2>&1) && return 0
		case $said in *"Couldn't connect"*) sleep 0.5 ;; *) return 1 ;; esac
	done
	return 1
}

main() {
	[ "${1-}" != serve ] || { serve && exit 0 || exit 1; }
	# shellcheck source=/dev/null
	. /etc/fleetdrv-lab.env
	own=${FABRIC%/*}
	number=${own##*.}
	port=$((caller_port + number))
	find_device patient || { echo "no RDMA device $device with the address $own" && exit 1; }
	for peer in $((number + 1)) $((number - 1)) "$number"; do
		address=${own%.*}.$peer
		if talk_to "$address"; then
			echo "$messages messages to ${address/#$own/itself} and back: $(tail -n1 <<<"$said")"
			exit 0
		fi
		echo "$address: $(tail -n1 <<<"$said")"
	done
	exit 1
}

main "$@"
