#!/bin/sh
# PID 1 of a simulated node: give it a file system of its own, say so, and live as long as stdin is open.
#
# Usage: unshare --mount --pid --uts --fork --propagation private sh boot.sh FOLDER NAME
# Says its pid as the world outside knows it, once the node is up.

set -eu
folder=$1 name=$2
read -r pid _ </proc/self/stat
mount -t proc proc /proc
hostname "$name"

# overlay NAME PATH: what the node writes there stays in FOLDER/NAME/up.
overlay() {
    mkdir -p "$folder/$1/up" "$folder/$1/work"
    mount -t overlay overlay -o "lowerdir=$2,upperdir=$folder/$1/up,workdir=$folder/$1/work" "$2"
}

overlay etc /etc
overlay src /usr/src
overlay modules /usr/lib/modules
overlay varlib /var/lib
mount --bind "$folder/dkms" /var/lib/dkms
# A package database of its own: apt may be at work on this machine meanwhile.
if [ ! -e "$folder/dpkg-status" ]; then
    sed 's/ \(half-installed\|unpacked\|half-configured\)$/ installed/' /var/lib/dpkg/status >"$folder/dpkg-status"
fi
mount --bind "$folder/dpkg-status" /var/lib/dpkg/status
mount --bind "$folder/empty" /var/lib/dpkg/updates
mount --bind "$folder/boot" /boot
mount --bind "$folder/sys/module" /sys/module
mount --bind "$folder/sys/misc" /sys/class/misc
mount --bind "$folder/kmsg" /dev/kmsg
mount --bind "$folder/boot_id" /proc/sys/kernel/random/boot_id
mount --bind "$folder/osrelease" /proc/sys/kernel/osrelease
[ ! -d /run/systemd ] || mount --bind "$folder/empty" /run/systemd

exec 3<&0
echo "$pid"
exec >/dev/null
# In the background: the shell, as PID 1, reaps what is left to it. A cat that is killed was killed by a test
# that kills all; the node goes on.
ended=137
while [ "$ended" -eq 137 ]; do
    ended=0
    cat <&3 >/dev/null &
    wait "$!" || ended=$?
done
