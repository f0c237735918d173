#!/bin/sh
# A machine check at an exact byte of data that three clones share: all three are named, one block of each fails, all else goes on (ci)
# vm: smp=1 fio timeout=150
. /vm/lib.sh
device=$(make_namespace -a 4K)
mkfs.mendfs -q "$device"
mount_mendfs "$device" /mnt

step "a file, two clones, a bystander"
dd if=/dev/urandom of=/mnt/one bs=64K count=4 2>/dev/null
dd if=/dev/urandom of=/mnt/bystander bs=64K count=4 2>/dev/null
cp /mnt/one /tmp/one
cp /mnt/bystander /tmp/bystander
mkdir /mnt/dir
cp /mnt/one /mnt/dir/two
mendctl clone /mnt/one /mnt/three
echo 3 >/proc/sys/vm/drop_caches
mendctl monitor /mnt >/tmp/events &
wait_for 20 grep -qs running /tmp/events
fio --name=beside --directory=/mnt --size=256k --bs=4k --rw=randwrite --direct=1 --rate_iops=20 --eta=never --time_based --runtime=600 --output=/tmp/fio &
FIO=$!
wait_for 30 test -s /mnt/beside.0.0

step "poison at byte 20543 of it"
offset=$(data_offset /mnt/one 20543)
host watch "$(virtual_address "$offset")" "$(physical_address "$offset")"

step "exactly one block fails, in all of them"
for name in one dir/two three; do
	one_bad_block "/mnt/$name" 5 /tmp/one
done
cmp /mnt/bystander /tmp/bystander
kill -0 $FIO || fail "fio ended"

step "the events name them all"
wait_for 20 is_told 3
cat /tmp/events
[ "$(grep -c '"type":"media_failure"' /tmp/events)" = 1 ]
grep -q '"type":"media_failure".*"source":"\(sigbus\|kernel\)"' /tmp/events # the kernel's list may be faster than the signal
for path in /one /dir/two /three; do
	grep file_damaged /tmp/events | grep '"pos":20480,"len":4096' | grep '"sharers":3' | grep -q "\"paths\":\[\"$path\"\]" || fail "$path is not named"
done

step "one machine check was consumed, and no other"
[ "$(host hits)" = 1 ] || fail "$(host hits) machine checks"
[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 1 ]
host unwatch

step "the kernel lists it, at the same place"
cat /sys/bus/nd/devices/region0/badblocks
[ "$(wc -l </sys/bus/nd/devices/region0/badblocks)" = 1 ]
sector=$(mendctl badblocks --json /mnt | sed -n 's/.*"sector": *\([0-9]*\).*/\1/p')
[ "$sector" = $((offset / 512)) ]

step "it is known after a remount, without another touch"
kill $FIO
wait $FIO || true
umount_mendfs /mnt
mount_mendfs "$device" /mnt
one_bad_block /mnt/three 5 /tmp/one
mendctl damaged --json /mnt | tee /tmp/damaged
[ "$(grep -o '"inumber"' /tmp/damaged | wc -l)" = 3 ]
[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 1 ]
umount_mendfs /mnt
