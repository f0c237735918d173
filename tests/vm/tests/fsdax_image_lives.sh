#!/bin/sh
# An image file on ext4 and on XFS with -o dax: the kernel's bad blocks reach it through the file's extents, machine checks as on a device (ci)
# vm: acpi hostfs nvdimm=514 smp=1 timeout=300
. /vm/lib.sh
MAPPED=/host/image
no_bad_sectors() { [ "$(wc -l </sys/block/pmem0/badblocks)" = 0 ]; }
echo yes >/tmp/labels
ndctl create-namespace -m fsdax -f -e namespace0.0 >/dev/null
for kind in ext4 xfs; do
	step "$kind: an image on it is mapped directly, and the kernel's list is known"
	host_filesystem $kind
	mkfs.mendfs -q -s 64M /host/image
	mount_mendfs /host/image /mnt
	mendctl list --json /mnt | tee /tmp/list
	grep -q '"kernel_badblocks":"known"' /tmp/list
	make_file_to_fail
	offset=$(data_offset /mnt/file 20480)

	step "$kind: memory below that fails untouched is told of at the image's own byte"
	host optional "$(host_address /host/image "$offset")"
	wait_for 20 is_told 1
	grep media_failure /tmp/events | grep "\"device_offset\":$offset,\"len\":4096" | grep -q '"source":"kernel"'
	one_bad_block /mnt/file 5 /tmp/copy
	[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 0 ]

	step "$kind: a write over it clears it"
	rewrite_block 5
	same_blocks /mnt/file /tmp/copy 0
	no_bad_sectors
	[ "$(mendctl badblocks --json /mnt | grep -c device_offset)" = 0 ]

	step "$kind: a machine check is one SIGBUS and one bad block, and heals"
	offset=$(data_offset /mnt/file 40960)
	dd if=/mnt/file of=/dev/null bs=4k skip=10 count=1 iflag=direct 2>/dev/null
	host watch "$(virtual_address "$offset")" "$(host_address /host/image "$offset")"
	! dd if=/mnt/file of=/dev/null bs=4k skip=10 count=1 iflag=direct 2>/tmp/dd || fail "the bad block can be read"
	host unwatch
	[ "$(host hits)" -ge 1 ]
	# The line that was met, and the kernel's word on its whole block, are one failure.
	wait_for 20 grep -q '"file_damaged".*"pos":40960,"len":4096' /tmp/events
	one_failure() { [ "$(grep media_failure /tmp/events | grep -c "\"device_offset\":$offset,\"len\":4096")" = 1 ]; }
	wait_for 20 one_failure
	! grep file_damaged /tmp/events | grep -v '"pos":20480\|"pos":40960' || fail "more than these blocks failed"
	one_bad_block /mnt/file 10 /tmp/copy
	[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 1 ]
	[ "$(grep -c media_failure /tmp/events)" = 2 ] && is_told 2 || fail "told more than once: $(cat /tmp/events)"
	rewrite_block 10
	same_blocks /mnt/file /tmp/copy 0
	wait_for 20 no_bad_sectors

	step "$kind: what the kernel knew before the mount is known, not met"
	umount_mendfs /mnt
	offset=$(($(mendctl map --json /host/image /file | number_after device_offset) + 81920))
	echo "$(($(host_block /host/image "$offset") * 8 + 3)) 1" >/sys/block/pmem0/badblocks
	mount_mendfs /host/image /mnt
	one_bad_block /mnt/file 20 /tmp/copy
	[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 1 ]
	rewrite_block 20
	same_blocks /mnt/file /tmp/copy 0
	no_bad_sectors
	umount_mendfs /mnt
	check_clean /host/image 2>/dev/null
	umount /host
done
cat /tmp/daemon.log
