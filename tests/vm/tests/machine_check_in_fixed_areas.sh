#!/bin/sh
# A machine check in the poison log, a superblock or the journal is seen by no client; nothing is forgotten, and the place is not touched again (ci)
# vm: smp=1 fio timeout=300
. /vm/lib.sh
echo 0 >/proc/sys/kernel/randomize_va_space # the watched addresses are the same in each process of mendfs
device=$(make_namespace -a 4K)
mkfs.mendfs -q "$device"
mount_mendfs "$device" /mnt
dd if=/dev/urandom of=/tmp/copy bs=16K count=1 2>/dev/null
/bin/cp /tmp/copy /mnt/file
dd if=/dev/zero of=/mnt/data bs=64K count=4 2>/dev/null
umount_mendfs /mnt
mendctl dump "$device" journal --json >/tmp/journal
ring=$(($(number_after device_offset </tmp/journal) + 4096))
tail=$(number_after tail_offset </tmp/journal)
mount_mendfs "$device" /mnt
monitor_events /mnt
fio --name=beside --filename=/mnt/data --size=256k --bs=4k --rw=randrw --direct=1 --rate_iops=10,10 --eta=never --time_based --runtime=600 --output=/tmp/fio &
FIO=$!

# repaired NUMBER PATTERN: that metadata_repaired event is one for it; no other event than its cause came with it.
repaired() {
	wait_for 60 has_events metadata_repaired "$1"
	grep metadata_repaired /tmp/events | sed -n "$1p" | grep "$2" || fail "$(cat /tmp/events)"
	kill -0 $FIO || fail "fio ended: $(cat /tmp/fio)"
}

log=$(mendctl owners --json /mnt --all --kind metadata | grep '"tree":"poison_log"' | number_after device_offset)
step "poison in the poison log, at $log: met by the entry for a block of file data"
watch_device $((log + 8))
data=$(data_offset /mnt/file 4096)
host optional "$(physical_address "$data")"
repaired 1 "\"device_offset\":$log,.*\"action\":\"skipped\",\"tree\":\"poison_log\",\"copy\":\"primary\""
is_told 1
consumed 1
only_bad /mnt "$log" "$data"

step "poison in the first superblock"
watch_device 8
mendctl label /mnt second >/dev/null
repaired 2 "\"device_offset\":0,.*\"action\":\"replica\",\"tree\":\"superblock\""
mendctl label /mnt third >/dev/null
consumed 2
only_bad /mnt 0 "$log" "$data"

step "poison in the journal"
bytes=$(mendctl stats --json /mnt | number_after record_bytes)
place=$(((ring + tail + bytes + 16384) / 64 * 64))
watched=$(virtual_address $((place + 40)))
watch_device $((place + 40))
for i in $(seq 200); do
	echo $i >"/mnt/new$i"
	[ "$(host hits)" = 2 ] || break
done
echo "met by file $i"
repaired 3 "\"device_offset\":$((place / 512 * 512)),.*\"action\":\"skipped\",\"tree\":\"journal\",\"copy\":\"primary\""
consumed 3
cat /tmp/events
[ "$(count_events media_failure)" = 4 ]
[ "$(count_events file_damaged)" = 1 ]

step "the journal goes on behind it, then the daemon is killed"
for i in $(seq 100); do echo $i >"/mnt/new$i"; done
kill -9 $DAEMON
kill $FIO 2>/dev/null || true
wait $FIO || true
wait $DAEMON || true
umount /mnt

step "what was acknowledged is there after recovery, and nothing was touched again"
mount_mendfs "$device" /mnt
grep "recovered [0-9]* transactions" /tmp/daemon.log
for i in $(seq 100); do
	read -r line <"/mnt/new$i"
	[ "$line" = "$i" ] || fail "file $i: $line"
done
mendctl list --json /mnt | grep -q '"label":"third"'
[ "$(virtual_address $((place + 40)))" = "$watched" ] # and would be noticed
consumed 3
only_bad /mnt 0 "$log" "$data" "$place"
one_bad_block /mnt/file 1 /tmp/copy
umount_mendfs /mnt
fscks 0 "superblock 0 of 8: cannot be read: memory that is known to be bad" -f -n
grep -q "poison log, copy 0: 8 entries cannot be read: memory that is known to be bad" /tmp/fsck
fscks 0 "superblock 0 of 8: cannot be written: .*: the other copies serve" -f -y
grep -q "poison log, copy 0: 8 entries cannot be written anew: the other copy serves" /tmp/fsck
[ "$(host hits)" = 3 ]
mount_mendfs "$device" /mnt
consumed 3
umount_mendfs /mnt
