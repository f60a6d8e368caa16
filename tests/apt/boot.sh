#!/bin/sh
# PID 1 of an apt node: an overlay over the shared root file system, alive as long as stdin is open.
#
# Usage: unshare --mount --pid --fork --propagation private sh boot.sh ROOT FOLDER KERNEL
# Says its pid as the world outside knows it, once the node is up.

set -eu
root=$1 folder=$2 kernel=$3
read -r pid _ </proc/self/stat
mkdir -p "$folder/up" "$folder/work" "$folder/node"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$folder/up,workdir=$folder/work" "$folder/node"
mount -t proc proc "$folder/node/proc"
mount -t tmpfs tmpfs "$folder/node/dev"
for device in null zero random urandom full; do
    : >"$folder/node/dev/$device"
    mount --bind "/dev/$device" "$folder/node/dev/$device"
done
ln -s /proc/self/fd "$folder/node/dev/fd"
mount -t tmpfs tmpfs "$folder/node/sys"
mkdir -p "$folder/node/sys/module"
mount --bind "$folder/srv" "$folder/node/srv"
echo "$kernel" >"$folder/osrelease"
mount --bind "$folder/osrelease" "$folder/node/proc/sys/kernel/osrelease"

exec 3<&0
echo "$pid"
exec >/dev/null
# A cat that is killed was killed by a test that kills all; the node goes on.
ended=137
while [ "$ended" -eq 137 ]; do
    ended=0
    cat <&3 >/dev/null &
    wait "$!" || ended=$?
done
