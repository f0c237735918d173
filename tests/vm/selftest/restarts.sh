#!/bin/sh
# What was written to the device before the power was cut is there in the second boot; what was in memory is not.
. /vm/lib.sh
step "boot $VM_BOOT"
if [ "$VM_BOOT" = 1 ]; then
	device=$(make_namespace)
	[ -c "$device" ] || fail "no device: $device"
	touch /tmp/before
	mkfs.mendfs -q -L kept "$device"
	power_cycle
fi
[ ! -e /tmp/before ] || fail "the guest was not restarted"
mendctl list >/tmp/list || true
mount_mendfs /dev/dax0.0 /mnt
mendctl list | grep kept
umount_mendfs /mnt
