#!/bin/sh
# Requests come through io_uring where the kernel has it (--kernel 7.2), poison included; else the mount says what it would take
# vm: smp=2 timeout=150
. /vm/lib.sh
switch=/sys/module/fuse/parameters/enable_uring
device=$(make_namespace -a 4K)
mkfs.mendfs -q "$device"
transport() { mendctl list --json /mnt | grep -o '"transport":"[a-z_]*"'; }

if [ ! -e $switch ]; then
	step "a kernel without it"
	mount_mendfs "$device" /mnt
	[ "$(transport)" = '"transport":"dev_fuse"' ]
	grep "needs Linux 6.14" /tmp/daemon.log
	umount_mendfs /mnt
	exit 0
fi
step "switched off, then on"
echo N >$switch
mount_mendfs "$device" /mnt
[ "$(transport)" = '"transport":"dev_fuse"' ]
umount_mendfs /mnt
echo Y >$switch
mount_mendfs "$device" /mnt
[ "$(transport)" = '"transport":"io_uring"' ]
ls -l "/proc/$DAEMON/fd" | grep -c io_uring

step "files, shared blocks, and one that fails"
dd if=/dev/urandom of=/tmp/copy bs=1M count=4 2>/dev/null
/bin/cp /tmp/copy /mnt/file
/bin/cp /mnt/file /mnt/clone
mendctl monitor /mnt >/tmp/events &
wait_for 20 grep -qs running /tmp/events
host optional "$(physical_address "$(data_offset /mnt/file 409600)")"
wait_for 20 is_told 2
for name in file clone; do
	one_bad_block /mnt/$name 100 /tmp/copy
done
[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 0 ]
mendctl stats /mnt | head -20

step "umount, and over the other way again"
umount_mendfs /mnt
check_clean "$device" 2>/dev/null
mount_mendfs "$device" /mnt no_io_uring
[ "$(transport)" = '"transport":"dev_fuse"' ]
one_bad_block /mnt/clone 100 /tmp/copy
umount_mendfs /mnt
wait
