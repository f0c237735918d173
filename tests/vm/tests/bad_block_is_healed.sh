#!/bin/sh
# With Clear Error: a write that covers a bad block clears it where it is, under the mapping; badblocks shrink, the ledger follows; metadata too (ci)
# vm: acpi timeout=240
. /vm/lib.sh
bad_sectors() { wc -l </sys/bus/nd/devices/region0/badblocks; }
no_bad_sectors() { [ "$(bad_sectors)" = 0 ]; }
device=$(whole_namespace -a 4K)
file_to_fail "$device"
offset=$(data_offset /mnt/file 20480)
host optional "$(physical_address "$offset")"
wait_for 20 is_told 1
one_bad_block /mnt/file 5 /tmp/copy
[ "$(bad_sectors)" = 1 ]

step "a write that covers a part of it is refused, and clears nothing"
dd if=/dev/urandom of=/tmp/new bs=4k count=1 2>/dev/null
! dd if=/tmp/new of=/mnt/file bs=512 count=1 seek=40 conv=notrunc,fsync 2>/tmp/dd || fail "half a bad block was written"
grep -q "Input/output error" /tmp/dd
[ "$(bad_sectors)" = 1 ]

step "one that covers all of it clears it, and stays where it is"
dd if=/tmp/new of=/tmp/copy bs=4k seek=5 conv=notrunc 2>/dev/null
dd if=/tmp/new of=/mnt/file bs=4k seek=5 conv=notrunc,fsync 2>/tmp/dd || fail "$(cat /tmp/dd)"
same_blocks /mnt/file /tmp/copy 0
[ "$(data_offset /mnt/file 20480)" = "$offset" ]
no_bad_sectors
grep '"type":"repaired"' /tmp/events | grep -q '"pos":20480,"len":4096'

step "the ledger follows, nothing is in quarantine, nothing was consumed"
[ "$(mendctl badblocks --json /mnt | grep -c device_offset)" = 0 ]
[ "$(mendctl damaged --json /mnt | grep -c inumber)" = 0 ]
mendctl list --json /mnt | tee /tmp/list
[ "$(number_after quarantined_bytes </tmp/list)" = 0 ]
[ "$(number_after sigbus_count </tmp/list)" = 0 ]

step "a metadata block is cleared and rewritten where it is"
offset=$(metadata_offset /mnt inodes)
host optional "$(physical_address "$offset")"
wait_for 20 grep -q metadata_repaired /tmp/events
grep metadata_repaired /tmp/events | grep "\"device_offset\":$offset" | grep -q '"action":"rewritten"'
wait_for 20 no_bad_sectors
[ "$(mendctl badblocks --json /mnt | grep -c device_offset)" = 0 ]

step "the healed block may fail again, and is heard of again"
offset=$(data_offset /mnt/file 20480)
host optional "$(physical_address "$offset")"
wait_for 20 is_told 2
one_bad_block /mnt/file 5 /tmp/copy

step "it heals after a remount too, and stays so"
umount_mendfs /mnt
mount_mendfs "$device" /mnt
one_bad_block /mnt/file 5 /tmp/copy
dd if=/tmp/new of=/mnt/file bs=4k seek=5 conv=notrunc,fsync 2>/tmp/dd || fail "$(cat /tmp/dd)"
same_blocks /mnt/file /tmp/copy 0
no_bad_sectors
umount_mendfs /mnt
check_clean "$device" 2>/dev/null
mount_mendfs "$device" /mnt
same_blocks /mnt/file /tmp/copy 0
[ "$(mendctl badblocks --json /mnt | grep -c device_offset)" = 0 ]

step "a bad block that is given up goes into quarantine"
offset=$(data_offset /mnt/file 20480)
is_bad() { mendctl badblocks --json /mnt | grep -q device_offset; }
is_quarantined() { [ "$(mendctl list --json /mnt | number_after quarantined_bytes)" = "$1" ]; }
host optional "$(physical_address "$offset")"
wait_for 20 is_bad
rm /mnt/file
wait_for 20 is_quarantined 4096
umount_mendfs /mnt

step "it is used again when somebody else has cleared it, and a scrub has not found it"
ndctl clear-errors namespace0.0
no_bad_sectors
mount_mendfs "$device" /mnt
wait_for 30 is_quarantined 0
! is_bad
grep "they are used again" /tmp/daemon.log
[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 0 ]
umount_mendfs /mnt
check_clean "$device" 2>/dev/null
cat /tmp/daemon.log
