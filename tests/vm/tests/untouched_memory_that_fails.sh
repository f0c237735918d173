#!/bin/sh
# Memory that fails untouched is reported once, with no client access: by the kernel's list and by its early signal, 2 MiB and 4 KiB alignment (ci)
# vm: nvdimm=514 timeout=150
. /vm/lib.sh
make_namespace -s 128M -a 2M
make_namespace -s 128M -a 4K

for number in 0 1; do
	device=/dev/dax0.$number
	step "$device, alignment $(cat /sys/bus/dax/devices/dax0.$number/align)"
	mkfs.mendfs -q "$device"
	mount_mendfs "$device" /mnt
	dd if=/dev/urandom of=/tmp/copy bs=1M count=4 2>/dev/null
	/bin/cp /tmp/copy /mnt/file
	/bin/cp /mnt/file /mnt/clone
	monitor_events /mnt
	offset=$(data_offset /mnt/file 409600)
	host optional "$(physical_address "$offset" $number)"
	wait_for 20 is_told 2
	cat /tmp/events /sys/bus/nd/devices/region0/badblocks

	step "$device: one range of one sector, both files, nothing consumed"
	[ "$(grep -c media_failure /tmp/events)" = 1 ]
	grep media_failure /tmp/events | grep "\"device_offset\":$offset,\"len\":512" | grep -q '"source":"kernel"'
	[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 0 ]

	step "$device: one block fails, all others of its 2 MiB stay in use"
	for name in file clone; do
		one_bad_block /mnt/$name 100 /tmp/copy
	done
	[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 0 ]
	[ "$(mendctl badblocks --json /mnt | grep -c device_offset)" = 1 ]

	step "$device: what no process has mapped yet is told by the kernel's list alone"
	host optional "$(physical_address $((100 << 20)) $number)"
	wait_for 20 grep -q "\"device_offset\":$((100 << 20)),\"len\":512.*\"source\":\"kernel\"" /tmp/events
	[ "$(grep -c media_failure /tmp/events)" = 2 ]

	step "$device: and after a remount"
	umount_mendfs /mnt
	check_clean "$device" 2>/dev/null
	mount_mendfs "$device" /mnt
	one_bad_block /mnt/clone 100 /tmp/copy
	[ "$(mendctl damaged --json /mnt | grep -o '"inumber"' | wc -l)" = 2 ]
	umount_mendfs /mnt
	wait
done
