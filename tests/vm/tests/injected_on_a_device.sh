#!/bin/sh
# inject-error on a device: exactly what was injected is known to be bad, latent poison stays so until it is touched, nothing is probed, all of it can be healed (ci)
# vm: nvdimm=514 timeout=300
. /vm/lib.sh
make_namespace -s 128M -a 2M
make_namespace -s 128M -a 4K

for number in 0 1; do
	device=/dev/dax0.$number
	step "$device, alignment $(cat /sys/bus/dax/devices/dax0.$number/align)"
	mkfs.mendfs -q "$device"
	mount_mendfs "$device" /mnt
	dd if=/dev/urandom of=/tmp/copy bs=64K count=16 2>/dev/null
	/bin/cp /tmp/copy /mnt/file
	start=$(data_offset /mnt/file 0)
	monitor_events /mnt
	reads() { mendctl stats --json /mnt | number_after reads; }

	step "$device: 1000 bytes are injected"
	mendctl inject-error /mnt --file /mnt/file --offset 409700 --length 1000 --json | grep "\"device_offset\":$((start + 409700)),\"len\":1000"
	wait_for 60 is_told 1
	sleep 1 # for whatever else might be told
	cat /tmp/events
	[ "$(bad_ranges /mnt)" = "$((start + 409600)) 1536" ]
	has_events media_failure 1
	grep file_damaged /tmp/events | grep -q '"pos":409600,"len":4096'
	one_bad_block /mnt/file 100 /tmp/copy
	[ "$(wc -l </sys/bus/nd/devices/region0/badblocks)" = 0 ]
	[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 0 ]

	step "$device: a byte more, latent"
	before=$(reads)
	mendctl inject-error /mnt --file /mnt/file --offset 819300 --length 1 --latent >/dev/null
	sleep 1
	[ "$(bad_ranges /mnt)" = "$((start + 409600)) 1536" ]
	has_events media_failure 1
	echo "reads of the medium: $before before, $(reads) after"
	[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 0 ]
	! dd if=/mnt/file of=/dev/null bs=4k skip=200 count=1 iflag=direct 2>/dev/null || fail "an armed byte can be read"
	wait_for 60 is_told 2
	[ "$(bad_ranges /mnt)" = "$((start + 409600)) 1536
$((start + 819200)) 512" ]
	[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 1 ]

	step "$device: one is written anew, one is taken back"
	dd if=/tmp/copy of=/mnt/file bs=4k skip=100 seek=100 count=1 conv=notrunc,fsync 2>/tmp/dd || fail "$(cat /tmp/dd)"
	mendctl uninject-error /mnt --all >/dev/null
	same_blocks /mnt/file /tmp/copy 0
	[ "$(mendctl list --json /mnt | number_after quarantined_bytes)" = 0 ]
	[ -z "$(bad_ranges /mnt)" ]
	[ "$(mendctl damaged --json /mnt | grep -c inumber)" = 0 ]
	umount_mendfs /mnt
	wait
	check_clean "$device" 2>/dev/null
done
