# shellcheck shell=sh disable=SC2034,SC2154
# What the node itself hangs on: the modules under the disks of the system, the kubelet and the containers, and
# their file systems. Put in front of probe.sh's text, after look.sh and lifelines.sh.

# need_rdma WHAT: whatever registers RDMA devices may be the one that carries it.
need_rdma() {
    need ib_core "$1"
    for holder in /sys/module/ib_core/holders/*; do
        [ ! -e "$holder" ] || need "${holder##*/}" "$1"
    done
}

# need_block FOLDER WHAT: a disk or partition in /sys, and what device mapper, md or NVMe put it together from.
need_block() {
    cd -P "$1" 2>/dev/null || { row error "lifelines: $1 cannot be read" && return 0; }
    block=$PWD
    [ ! -e "$block/partition" ] || block=${block%/*}
    [ ! -e "$block/dm" ] || { need dm_mod "$2" && need dm_crypt "$2"; }
    [ ! -e "$block/md/level" ] || {
        read -r level <"$block/md/level"
        case $level in raid[456]) level=raid456 ;; esac
        need md_mod "$2" && need "$level" "$2"
    }
    case $block in */session[0-9]*/target*)
        for module in iscsi_tcp ib_iser; do need "$module" "$2"; done
        [ ! -e /sys/module/ib_iser/initstate ] || need_rdma "$2"
        every_interface "which may carry $2"
        ;;
    esac
    need_device "$block" "$2"
    for transport in "${block%/*}/transport" "${block%/*}"/nvme[0-9]*/transport; do
        [ -r "$transport" ] || continue
        read -r kind <"$transport"
        need "nvme_$kind" "$2"
        need_device "${transport%/*}" "$2"
        case $kind in rdma) need_rdma "$2" ;; esac
        case $kind in rdma | tcp) every_interface "which may carry $2" ;; esac
    done
    for slave in "$block"/slaves/*; do
        [ ! -e "$slave" ] || need_block "$slave" "$2"
    done
}

# need_mount PATH DEVICE TYPE OPTIONS
need_mount() {
    need "$3" "the file system of $1"
    case $3 in
    nfs | nfs4 | cifs | smb3 | ceph | lustre | beegfs | gpfs | glusterfs | fuse.glusterfs | fuse.sshfs)
        case $4 in *rdma*) need rpcrdma "the file system of $1" && need_rdma "the file system of $1" ;; esac
        every_interface "which may carry the file system of $1"
        ;;
    btrfs)
        for member in /sys/fs/btrfs/*/devices/*; do
            [ ! -e "$member" ] || need_block "$member" "the disk under $1"
        done
        ;;
    zfs | bcachefs)
        # They do not say on which disks they lie.
        for member in /sys/block/*; do
            [ ! -e "$member/device" ] || need_block "$member" "a disk, maybe the one under $1"
        done
        ;;
    *) case $2 in 0:*) ;; *) need_block "/sys/dev/block/$2" "the disk under $1" ;; esac ;;
    esac
}

look_at_disks() {
    set --
    for path in / /boot /usr /var /var/lib/kubelet /var/lib/containerd /var/lib/docker /var/lib/containers; do
        ! cd -P "$path" 2>/dev/null || set -- "$@" "$path=$PWD"
    done
    # The mount that holds each path; a mount that holds several is told once.
    mounts=$(awk -v paths="$*" '
        BEGIN { count = split(paths, path, " ") }
        {
            for (i = 7; i <= NF && $i != "-"; i++);
            for (n = 1; n <= count; n++) {
                place = substr(path[n], index(path[n], "=") + 1)
                if ($5 == "/" || place == $5 || index(place, $5 "/") == 1)
                    if (length($5) >= length(point[n])) {
                        point[n] = $5
                        mount[n] = $3 " " $(i + 1) " " $(i + 3)
                    }
            }
        }
        END {
            for (n = 1; n <= count; n++)
                if (mount[n] != "" && !(mount[n] in seen)) {
                    seen[mount[n]] = 1
                    print substr(path[n], 1, index(path[n], "=") - 1), mount[n]
                }
        }' /proc/self/mountinfo)
    [ -n "$mounts" ] || row error 'lifelines: /proc/self/mountinfo cannot be read'
    while read -r path device type options; do
        [ -z "$path" ] || need_mount "$path" "$device" "$type" "$options"
    done <<MOUNTS
$mounts
MOUNTS
    cd / || exit
}
