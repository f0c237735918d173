#!/bin/sh
# A namespace is disabled, then its driver unbound, under a busy mount: one shutdown event, umount works, what was durable is there again (ci)
# vm: timeout=150
. /vm/lib.sh
device=$(make_namespace)
mkfs.mendfs -q "$device"

for how in "ndctl disable-namespace namespace0.0" "unbind"; do
	step "$how under a busy mount"
	mount_mendfs "$device" /mnt
	echo "before $how" >/mnt/kept
	dd if=/dev/urandom of=/mnt/file bs=64K count=4 conv=fsync 2>/dev/null
	sum=$(sha256sum </mnt/file)
	mendctl monitor /mnt >/tmp/events &
	MONITOR=$!
	wait_for 20 grep -qs running /tmp/events
	if [ "$how" = unbind ]; then
		echo dax0.0 >/sys/bus/dax/drivers/device_dax/unbind
	else
		$how
	fi
	step "every access fails, and says so"
	! dd if=/mnt/file of=/dev/null bs=64K iflag=direct 2>/tmp/dd || fail "the data of a device that is gone was read"
	grep -q "Input/output error" /tmp/dd
	! touch /mnt/new 2>/tmp/touch || fail "a file was made on a device that is gone"
	cat /tmp/touch
	wait_for 20 grep -q shutdown /tmp/events
	step "one shutdown event, and umount works"
	umount /mnt
	wait "$MONITOR" || true
	cat /tmp/events /tmp/daemon.log
	[ "$(grep -c '"type":"shutdown"' /tmp/events)" = 1 ]
	grep '"type":"shutdown"' /tmp/events | grep -q device_removed
	! grep -q media_failure /tmp/events || fail "the loss of a device was taken for poison"
	wait "$DAEMON" || echo "the daemon ended with $?"
	step "the device comes back"
	if [ "$how" = unbind ]; then
		echo dax0.0 >/sys/bus/dax/drivers/device_dax/bind
	else
		ndctl enable-namespace namespace0.0
	fi
	wait_for 10 test -c "$device"
	mount_mendfs "$device" /mnt
	[ "$(cat /mnt/kept)" = "before $how" ]
	[ "$(sha256sum </mnt/file)" = "$sum" ]
	[ "$(mendctl badblocks --json /mnt | grep -c device_offset)" = 0 ]
	umount_mendfs /mnt
	check_clean "$device" 2>/dev/null
done
