#!/bin/sh
# PID 1 of a simulated node with a Debian of its own: boot.sh's, over a shared root file system that apt may change.
#
# Usage: unshare --mount --pid --uts --fork --propagation private sh root_boot.sh FOLDER NAME ROOT SERVED SHARED…
#   SERVED  is /srv on the node; SHARED are there under their own names, as FOLDER is
# Says its pid as the world outside knows it, once the node is up. Commands enter by chroot to FOLDER/root/node.

set -eu
folder=$1 name=$2 root=$3 served=$4
node=$folder/root/node
shift 4
read -r pid _ </proc/self/stat
hostname "$name"

# overlay NAME LOWER TARGET: what the node writes there stays in FOLDER/NAME/up.
overlay() {
    mkdir -p "$folder/$1/up" "$folder/$1/work"
    mount -t overlay overlay -o "lowerdir=$2,upperdir=$folder/$1/up,workdir=$folder/$1/work" "$3"
}

mkdir -p "$node"
overlay root "$root" "$node"
mount -t proc proc "$node/proc"
mount --rbind /dev "$node/dev"
mount --rbind /sys "$node/sys"
for shared in "$folder" "$@"; do
    mkdir -p "$node$shared"
    mount --bind "$shared" "$node$shared"
done
mount --bind "$served" "$node/srv"
overlay etc "$node/etc" "$node/etc"
overlay src "$node/usr/src" "$node/usr/src"
overlay modules "$node/usr/lib/modules" "$node/usr/lib/modules"
overlay varlib "$node/var/lib" "$node/var/lib"
mount --bind "$folder/dkms" "$node/var/lib/dkms"
mount --bind "$folder/boot" "$node/boot"
mount --bind "$folder/sys/module" "$node/sys/module"
mount --bind "$folder/sys/misc" "$node/sys/class/misc"
mount --bind "$folder/kmsg" "$node/dev/kmsg"
mount --bind "$folder/boot_id" "$node/proc/sys/kernel/random/boot_id"
mount --bind "$folder/osrelease" "$node/proc/sys/kernel/osrelease"

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
