#!/bin/sh
# What cannot be used is refused with a line that says what to do: a busy device, a region in system-ram mode (ci)
# vm: nvdimm=514 memory=1536 timeout=180
. /vm/lib.sh
[ "$(make_namespace -s 256M -a 2M)" = /dev/dax0.0 ]

step "mkfs"
begin=$(cut -d' ' -f1 /proc/uptime)
mkfs.mendfs /dev/dax0.0
echo "mkfs took $(echo "$(cut -d' ' -f1 /proc/uptime) - $begin" | bc) s of this guest's time"

step "a busy device"
mount_mendfs /dev/dax0.0 /mnt
mkdir -p /mnt2
refused "is mounted on /mnt by process $DAEMON; unmount it first" mkfs.mendfs -f /dev/dax0.0
refused "is mounted on /mnt by process $DAEMON; unmount it first" mendfs /dev/dax0.0 /mnt2
umount_mendfs /mnt

step "a region in system-ram mode"
daxctl reconfigure-device --mode=system-ram --no-online dax0.0
for tool in mkfs.mendfs "fsck.mendfs -n" "mendctl damaged"; do
	status=1
	[ "$tool" != "fsck.mendfs -n" ] || status=8
	refused "daxctl reconfigure-device --mode=devdax dax0.0" $status $tool /dev/dax0.0
done
refused "daxctl reconfigure-device --mode=devdax dax0.0" mendfs /dev/dax0.0 /mnt
daxctl reconfigure-device --mode=devdax dax0.0
step "and taken back"
mount_mendfs /dev/dax0.0 /mnt
umount_mendfs /mnt
