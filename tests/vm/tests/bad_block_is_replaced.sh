#!/bin/sh
# Where the medium cannot clear poison, a write that covers a bad block goes to a new one, and the old one to quarantine (ci)
# vm: timeout=150
. /vm/lib.sh
device=$(make_namespace -a 4K)
file_to_fail "$device"
offset=$(data_offset /mnt/file 20480)
host optional "$(physical_address "$offset")"
wait_for 20 is_told 1
one_bad_block /mnt/file 5 /tmp/copy

step "a write over it is stored elsewhere"
dd if=/dev/urandom of=/tmp/new bs=4k count=1 2>/dev/null
dd if=/tmp/new of=/tmp/copy bs=4k seek=5 conv=notrunc 2>/dev/null
dd if=/tmp/new of=/mnt/file bs=4k seek=5 conv=notrunc,fsync 2>/tmp/dd || fail "$(cat /tmp/dd)"
same_blocks /mnt/file /tmp/copy 0
mendctl map /mnt/file
cat /tmp/daemon.log

step "the bad block is in quarantine, and counted"
mendctl badblocks --json /mnt | tee /tmp/bad
grep -q '"state":"quarantined"' /tmp/bad
mendctl list --json /mnt
[ "$(mendctl list --json /mnt | number_after quarantined_bytes)" = 4096 ]
[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 0 ]
mendctl owners --json /mnt --offset "$offset" --length 4096 | grep -q quarantine
grep -q "cannot clear poison" /tmp/daemon.log

step "it stays there, also when everything else is full and after a remount"
dd if=/dev/zero of=/mnt/fill bs=1M 2>/dev/null || true
umount_mendfs /mnt
mount_mendfs "$device" /mnt
rm /mnt/fill
same_blocks /mnt/file /tmp/copy 0
mendctl owners --json /mnt --offset "$offset" --length 4096 | grep -q quarantine
[ "$(mendctl damaged --json /mnt | grep -c inumber)" = 0 ]
umount_mendfs /mnt
check_clean "$device" 2>/dev/null
