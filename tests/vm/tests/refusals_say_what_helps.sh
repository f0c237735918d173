#!/bin/sh
# What cannot be used is refused with a line that says what to do: a busy device, a region in system-ram mode, a namespace of another size (ci)
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
# Newer kernels would put it to use at once, which daxctl refuses.
echo offline >/sys/devices/system/memory/auto_online_blocks
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

for map in dev mem; do
	step "a namespace of another size, its map in $map"
	ndctl destroy-namespace -f namespace0.0
	make_namespace -s 256M -M $map
	mkfs.mendfs -q -f /dev/dax0.0
	mount_mendfs /dev/dax0.0 /mnt
	echo "as it was, map in $map" >/mnt/kept
	umount_mendfs /mnt
	for size in 128M 384M; do
		ndctl destroy-namespace -f namespace0.0
		make_namespace -s $size -M $map
		if [ $size = 128M ]; then
			refused "make its namespace as large as it was\|make it as it was" mendfs /dev/dax0.0 /mnt
			refused "make its namespace as large as it was\|make it as it was" 8 fsck.mendfs -y -f /dev/dax0.0
		elif [ $map = dev ]; then
			refused "make it as it was (ndctl create-namespace" mendfs /dev/dax0.0 /mnt
			refused "make it as it was (ndctl create-namespace" 8 fsck.mendfs -y -f /dev/dax0.0
			refused "use -f to overwrite" mkfs.mendfs /dev/dax0.0
		fi
	done
	step "as large as it was it works again"
	ndctl destroy-namespace -f namespace0.0
	make_namespace -s 256M -M $map
	# The kernel keeps its map of pages in front of the data: that of the larger namespace was written over the filesystem's first MiBs, file data
	# in them included.
	status=0
	fsck.mendfs -f -y /dev/dax0.0 >/tmp/fsck 2>&1 || status=$?
	tail -n 3 /tmp/fsck
	[ $status = 0 ] || [ "$map$status" = dev1 ]
	check_clean /dev/dax0.0 2>/dev/null
	mount_mendfs /dev/dax0.0 /mnt
	[ $map = dev ] || echo "as it was, map in $map" | cmp - /mnt/kept
	umount_mendfs /mnt
done
