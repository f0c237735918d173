#!/bin/sh
# An image file on ext4 and on XFS with -o dax, on a bus that cannot clear: a write over a bad block has the host's filesystem give the image another (ci)
# vm: hostfs nvdimm=514 smp=1 timeout=300
. /vm/lib.sh
MAPPED=/host/image
# heals N COUNT: block N of /mnt/file is bad, and a write makes it whole; the kernel lists COUNT bad sectors as before.
heals() {
	offset=$(data_offset /mnt/file $(($1 * 4096)))
	before=$(host_block /host/image "$offset")
	rewrite_block "$1"
	same_blocks /mnt/file /tmp/copy 0
	[ "$(mendctl damaged --json /mnt | grep -c inumber)" = 0 ] || fail "damaged still"
	[ "$(wc -l </sys/block/pmem0/badblocks)" = "$2" ] || fail "the kernel lists $(cat /sys/block/pmem0/badblocks)"
}

# has_moved N: it lies in the image where it lay, and the image elsewhere on the host; nothing is known to be bad.
has_moved() { [ "$(data_offset /mnt/file $(($1 * 4096)))" = "$offset" ] && [ "$(host_block /host/image "$offset")" != "$before" ] && knows_of_bad 0; }

# is_elsewhere N: the host gave the image a block that is bad, too, so it lies elsewhere in the image, and the bad one is in quarantine.
is_elsewhere() { [ "$(data_offset /mnt/file $(($1 * 4096)))" != "$offset" ] && mendctl owners --json /mnt --offset "$offset" --length 4096 | grep -q quarantine && knows_of_bad 4096; }

knows_of_bad() {
	[ "$(mendctl list --json /mnt | number_after quarantined_bytes)" = "$1" ] && [ "$(mendctl list --json /mnt | number_after badblock_bytes)" = "$1" ]
}
# A boot each: only so the kernel forgets which memory was bad.
if [ "$VM_BOOT" = 1 ]; then kind=ext4; else kind=xfs; fi
clean_labels
ndctl create-namespace -m fsdax >/dev/null

step "$kind: a block of the image fails untouched, and is written"
host_filesystem $kind
mkfs.mendfs -q -s 64M /host/image
mount_mendfs /host/image /mnt
make_file_to_fail
host optional "$(host_address /host/image "$(data_offset /mnt/file 20480)")"
wait_for 20 is_told 1
one_bad_block /mnt/file 5 /tmp/copy
heals 5 1
has_moved 5 || fail "$(mendctl badblocks /mnt)"

step "$kind: the same after a machine check"
offset=$(data_offset /mnt/file 40960)
dd if=/mnt/file of=/dev/null bs=4k skip=10 count=1 iflag=direct 2>/dev/null
host watch "$(virtual_address "$offset")" "$(host_address /host/image "$offset")"
! dd if=/mnt/file of=/dev/null bs=4k skip=10 count=1 iflag=direct 2>/tmp/dd || fail "the bad block can be read"
host unwatch
wait_for 20 grep -q '"file_damaged".*"pos":40960,"len":4096' /tmp/events
one_bad_block /mnt/file 10 /tmp/copy
heals 10 2
# XFS gives the block that it got back a moment ago.
has_moved 10 || { [ $kind = xfs ] && is_elsewhere 10; } || fail "$(mendctl badblocks /mnt)"
[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 1 ]

step "$kind: it is so after a remount"
umount_mendfs /mnt
check_clean /host/image 2>/dev/null
mount_mendfs /host/image /mnt
same_blocks /mnt/file /tmp/copy 0
has_moved 10 || { [ $kind = xfs ] && is_elsewhere 10; } || fail "$(mendctl badblocks /mnt)"
umount_mendfs /mnt
cat /tmp/daemon.log
[ $kind = xfs ] || power_cycle
