#!/bin/sh
# Usage: setup.sh   (in the chroot of a practice node's image, after the packages)
#
# Makes the image fit to be the base of many nodes that boot fast without
# hardware virtualisation, where each process started at boot costs 0.1 s:
# no identity in it, no unit that a practice node does not need, and beside
# the node's own initramfs a tiny one, /boot/lab.cpio, for QEMU to start.
# Exit: 0 done, anything else the status of the command that failed.
set -eu

# Identity is each node's own: host keys come with its seed, the machine id
# is made by systemd at the first boot because the file is there and empty.
rm -f /etc/ssh/ssh_host_*
: >/etc/machine-id
: >/etc/hostname

useradd --create-home --shell /bin/bash ops
visudo --check --quiet

systemctl --quiet enable fleetdrv-lab-seed.service fleetdrv-lab-network.service fleetdrv-lab-kubelet.service \
	fleetdrv-lab-roce.socket
systemctl --quiet set-default multi-user.target

# Not all of these exist in every release.
for unit in \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
	fstrim.timer man-db.timer systemd-tmpfiles-clean.timer \
	getty@tty1.service serial-getty@ttyS0.service getty-static.service \
	sshd-keygen.service systemd-pstore.service systemd-update-utmp.service systemd-hwdb-update.service \
	systemd-update-utmp-runlevel.service systemd-sysusers.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount \
	systemd-ask-password-console.path systemd-ask-password-wall.path remote-fs.target \
	modprobe@.service sys-kernel-config.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
	dev-hugepages.mount dev-mqueue.mount systemd-udev-load-credentials.service; do
	systemctl --quiet mask "$unit"
done

mkdir -p /etc/systemd/system-generators
for generator in /usr/lib/systemd/system-generators/*; do
	case $generator in
	*/systemd-fstab-generator) ;;
	*) ln -s /dev/null "/etc/systemd/system-generators/${generator##*/}" ;;
	esac
done

# Packages of the playbooks, as a repository of the node's own: a practice rollout needs no mirror, and asking
# for lists takes 3 s in place of 40. Who wants Debian's mirror: mv /etc/apt/debian/* /etc/apt/sources.list.d/
cd /srv/packages
dpkg-scanpackages --multiversion . >Packages 2>/dev/null
{
	printf 'Origin: fleetdrv-lab\nSuite: lab\nDate: %s\nSHA256:\n' "$(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S UTC')"
	printf ' %s %s Packages\n' "$(sha256sum Packages | cut -d' ' -f1)" "$(stat -c %s Packages)"
} >Release
cd /
mkdir /etc/apt/debian
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
	[ ! -s "$file" ] || mv "$file" /etc/apt/debian/
done
echo 'deb [trusted=yes] file:/srv/packages ./' >/etc/apt/sources.list.d/fleetdrv-lab.list
rm -rf /var/lib/apt/lists
mkdir -p /var/lib/apt/lists/partial
apt-get -qq update

# The tiny initramfs: the drivers of QEMU's disk and network card and of the file
# system, a shell. Compressed modules are opened here, where xz exists.
kernel=$(ls /lib/modules)
work=$(mktemp -d)
mkdir -p "$work/dev" "$work/root" "$work/bin" "$work/modules"
cp /bin/busybox "$work/bin/busybox"
number=10 # two digits: the shell loads them in this order
packed=
for module in virtio_pci virtio_blk virtio_net ext4; do
	for file in $(modprobe --set-version "$kernel" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'); do
		name=${file##*/}
		name=${name%%.ko*}
		case " $packed " in
		*" $name "*) continue ;;
		esac
		case $file in
		*.xz) xz --decompress --stdout "$file" ;;
		*) cat "$file" ;;
		esac >"$work/modules/$number-$name.ko"
		packed="$packed $name"
		number=$((number + 1))
	done
done
cat >"$work/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do
	/bin/busybox insmod "$module"
done
/bin/busybox mount -t ext4 -o noatime /dev/vda /root
/bin/busybox mount -o move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
INIT
chmod 0755 "$work/init"
(cd "$work" && find . | cpio --quiet -o -H newc -R 0:0) >/boot/lab.cpio
rm -rf "$work"

# Else the first boot would rebuild what an update of /usr calls for.
touch /etc/.updated /var/.updated
