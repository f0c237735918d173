#!/bin/sh
# A storm of 50 machine checks in five files that are read at once, 2 MiB alignment, fio beside it: each is named once, none is forgotten, and costs 4 KiB of its 2 MiB (ci)
# vm: smp=1 fio timeout=300
. /vm/lib.sh
STORM=50
echo 0 >/proc/sys/kernel/randomize_va_space # the watched addresses are the same in each process of mendfs
device=$(make_namespace -a 2M)
mkfs.mendfs -q "$device"
mount_mendfs "$device" /mnt
dd if=/dev/urandom of=/tmp/copy bs=64K count=8 2>/dev/null
for i in 1 2 3 4 5 bystander; do /bin/cp /tmp/copy "/mnt/$i"; done
cp /mnt/1 /mnt/clone
dd if=/dev/zero of=/mnt/data bs=64K count=4 2>/dev/null
for i in 1 2 3 4 5; do
	for k in 1 2 3 4 5 6 7 8 9 10; do
		echo $((k * 10 + i)) >>/tmp/blocks.$i
		echo $(((k * 10 + i) * 4096 + k * 400 + i))
	done >/tmp/positions
	data_offsets /mnt/$i </tmp/positions >>/tmp/places
done
cp /tmp/blocks.1 /tmp/blocks.clone
: >/tmp/blocks.bystander

# read_one NAME: block by block, over what cannot be read.
read_one() { dd if=/mnt/$1 of=/tmp/got.$1 bs=4k conv=noerror,sync iflag=direct 2>/dev/null || true; }

# read_all: every file, all at once; the clone later, for two that touch the same byte in the same moment both take a machine check.
read_all() {
	echo 3 >/proc/sys/vm/drop_caches
	readers=
	for i in 1 2 3 4 5 bystander; do
		read_one $i &
		readers="$readers $!"
	done
	wait $readers
	read_one clone
}

# expect_lost NAME: what reading gives, zeros for what cannot be read.
expect_lost() {
	/bin/cp /tmp/copy /tmp/expected.$1
	while read -r block; do
		dd if=/dev/zero of=/tmp/expected.$1 bs=4k seek=$block count=1 conv=notrunc 2>/dev/null
	done </tmp/blocks.$1
}

# only_blocks_are_lost: of each file exactly its bad blocks could not be read.
only_blocks_are_lost() {
	for i in 1 2 3 4 5 clone bystander; do
		cmp /tmp/got.$i /tmp/expected.$i || fail "not just its bad blocks are lost: $i"
	done
}

anonymous_kib() { sed -n 's/RssAnon:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$DAEMON/status"; }

for i in 1 2 3 4 5 clone bystander; do expect_lost $i; done
monitor_events /mnt
fio --name=beside --filename=/mnt/data --size=256k --bs=4k --rw=randrw --direct=1 --rate_iops=10,10 --eta=never --time_based --runtime=600 --output=/tmp/fio &
FIO=$!
read_all
before=$(anonymous_kib)

step "50 bytes go bad, nobody knows of it, all files are read at once"
virtual=$(virtual_address 0) physical=$(physical_address 0)
while read -r place; do host watch $((virtual + place)) $((physical + place)); done </tmp/places
[ "$(host hits)" = 0 ]
read_all

step "all are named, once"
all_told() { has_events media_failure $STORM && is_told $((STORM + 10)); }
wait_for 100 all_told
grep media_failure /tmp/events | sed 's/.*"device_offset":\([0-9]*\),"len":512,.*/\1/' | sort -n >/tmp/named
while read -r place; do echo $((place / 512 * 512)); done </tmp/places | sort -n >/tmp/expected
cmp /tmp/named /tmp/expected || fail "$(cat /tmp/events)"
for i in 1 2 3 4 5 clone; do
	grep file_damaged /tmp/events | grep "\"paths\":\[\"/$i\"\]" | sed 's/.*"pos":\([0-9]*\),"len":4096,.*/\1/' | sort -n >/tmp/named
	while read -r block; do echo $((block * 4096)); done </tmp/blocks.$i >/tmp/expected
	cmp /tmp/named /tmp/expected || fail "of $i: $(cat /tmp/named)"
done
has_events lost 0

step "exactly the bad blocks are lost, and none is touched again"
read_all
only_blocks_are_lost
[ "$(host hits)" = $STORM ]
# Of two machine checks of one moment in one page of the mapping the kernel signals one: the other thread finds it unmapped and would, on a real
# processor, run into the same line again. Here it has its data already, and the kernel's list alone tells of the place.
signals=$(dmesg | sed -n 's/.*Memory failure: \(0x[0-9a-f]*\): Sending SIGBUS.*/\1/p' | sort -u | wc -l)
echo "$signals signals"
[ "$signals" -gt 0 ]
[ "$(mendctl list --json /mnt | number_after sigbus_count)" = "$signals" ]

step "the daemon lives, and is hardly larger"
kill -0 $FIO || fail "fio ended: $(cat /tmp/fio)"
echo "memory of the daemon: $before KiB before, $(anonymous_kib) KiB after"
[ "$before" -gt 0 ] && [ $(($(anonymous_kib) - before)) -lt 16384 ]

step "it is all known after a remount, without another touch"
kill $FIO
wait $FIO || true
umount_mendfs /mnt
check_clean "$device" 2>/dev/null
mount_mendfs "$device" /mnt
read_all
only_blocks_are_lost
only_bad /mnt $(sort -n /tmp/places)
[ "$(host hits)" = $STORM ]
[ "$(mendctl list --json /mnt | number_after sigbus_count)" = "$signals" ]
[ "$(mendctl damaged --json /mnt | grep -c inumber)" = 6 ]
umount_mendfs /mnt
