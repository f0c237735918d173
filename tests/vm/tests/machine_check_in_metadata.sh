#!/bin/sh
# A machine check in a metadata block is seen by no client; in its other copy too, some files give EIO until fsck.mendfs puts the block back (ci)
# vm: smp=1 fio timeout=300
. /vm/lib.sh
echo 0 >/proc/sys/kernel/randomize_va_space # the watched address is the same in each process of mendfs
device=$(make_namespace)
mkfs.mendfs -q "$device"
mount_mendfs "$device" /mnt

dd if=/dev/urandom of=/tmp/copy bs=16K count=1 2>/dev/null
step "300 files, whose extents need several blocks"
for i in $(seq 300); do
	[ $((i % 100)) != 1 ] || mkdir "/mnt/$(((i - 1) / 100))"
	echo "this is in file $i" >"/mnt/$(((i - 1) / 100))/$i"
done
dd if=/dev/zero of=/mnt/data bs=64K count=4 2>/dev/null
inumber=$(stat -c %i /mnt/data)
umount_mendfs /mnt

# A leaf of extents, but not the one of fio's file.
for primary in $(mendctl owners --json "$device" --all --kind metadata | sed -n 's/.*"device_offset":\([0-9]*\),.*"copy":"primary",.*"tree":"extents","live":true.*/\1/p'); do
	mendctl dump "$device" device-offset "$primary" --json >/tmp/dump
	grep -q '"level":0' /tmp/dump || continue
	grep -q "\"inumber\":$inumber," /tmp/dump || break
done
replica=$(peer_of "$device" "$primary")
mount_mendfs "$device" /mnt

# readable: how many files can be read, and are as they were; nothing of them is cached.
readable() {
	good=0
	mendctl drop-caches /mnt >/dev/null
	echo 3 >/proc/sys/vm/drop_caches
	for i in $(seq 300); do
		if read -r line <"/mnt/$(((i - 1) / 100))/$i"; then
			[ "$line" = "this is in file $i" ] || fail "file $i: $line"
			good=$((good + 1))
		else
			cat "/mnt/$(((i - 1) / 100))/$i" 2>/tmp/error || true # read says nothing
		fi
	done
	echo $good
}

monitor_events /mnt
fio --name=beside --filename=/mnt/data --size=256k --bs=4k --rw=randrw --direct=1 --rate_iops=10,10 --eta=never --time_based --runtime=600 --output=/tmp/fio &
FIO=$!
step "poison in the primary copy of a block of extents, at $primary; the other is at $replica"
watch_device $((primary + 8))
[ "$(readable)" = 300 ]
wait_for 60 has_events metadata_repaired 1
cat /tmp/events
consumed 1
grep metadata_repaired /tmp/events | grep "\"device_offset\":$primary," | grep '"tree":"extents"' | grep '"copy":"primary"' | grep -q '"action":"replica"'
[ "$(count_events media_failure)" = 1 ]
[ "$(count_events file_damaged)" = 0 ]
only_bad /mnt "$primary"
kill -0 $FIO || fail "fio ended: $(cat /tmp/fio)"

step "new files are made as before"
for i in 1 2 3; do
	/bin/cp /tmp/copy "/mnt/new$i"
	mendctl drop-caches /mnt >/dev/null
	cmp /tmp/copy "/mnt/new$i"
done
rm /mnt/new*
consumed 1

step "and after a remount it is not touched again"
kill $FIO
wait $FIO || true
umount_mendfs /mnt
fsck.mendfs -p "$device"
fscks 0 "its primary at $primary cannot be read: memory that is known to be bad, the other copy serves" -f -n
mount_mendfs "$device" /mnt
[ "$(readable)" = 300 ]
only_bad /mnt "$primary"
consumed 1

step "poison in the other copy too: no file is changed any more, those whose extents it had give EIO, all else can be read"
monitor_events /mnt
fio --name=beside --filename=/mnt/data --size=256k --bs=4k --rw=randread --direct=1 --rate_iops=20 --eta=never --time_based --runtime=600 --output=/tmp/fio &
FIO=$!
watch_device $((replica + 8))
left=$(readable)
wait_for 60 has_events shutdown 1
cat /tmp/events
[ "$left" -gt 0 ] && [ "$left" -lt 300 ]
grep -q "Input/output error" /tmp/error
grep metadata_lost /tmp/events | grep -q "\"device_offset\":$replica,"
[ "$(count_events metadata_lost)" = 1 ]
grep '"type":"shutdown"' /tmp/events | grep -q metadata_lost
! touch /mnt/new 2>/tmp/error || fail "a file was made"
grep -q "Read-only file system" /tmp/error
[ "$(readable)" = "$left" ]
consumed 2
kill -0 $FIO || fail "fio ended: $(cat /tmp/fio)"
kill $FIO
wait $FIO || true
umount_mendfs /mnt

step "so it is after a remount: $left of 300 files, none is changed"
mount_mendfs "$device" /mnt
[ "$(readable)" = "$left" ]
! touch /mnt/new 2>/dev/null || fail "a file was made"
only_bad /mnt "$primary" "$replica"
umount_mendfs /mnt

step "fsck.mendfs puts all of them back"
fscks 4 "tree extents: leaf 0x[0-9a-f]* is lost" -f -n
fscks 1 "records lost: 0" -f -y
check_clean "$device" 2>/dev/null
mount_mendfs "$device" /mnt
[ "$(readable)" = 300 ]
/bin/cp /tmp/copy /mnt/new
mendctl drop-caches /mnt >/dev/null
cmp /tmp/copy /mnt/new
only_bad /mnt "$primary" "$replica"
consumed 2
umount_mendfs /mnt
