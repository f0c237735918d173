#!/bin/sh
# Poison that was there before: mkfs hears of it from the kernel and puts nothing there; a mount hears of it, or meets it in its first reads; a reboot forgets nothing (ci)
# vm: smp=1 timeout=300
. /vm/lib.sh
MIB=1048576
echo 0 >/proc/sys/kernel/randomize_va_space # a mount finds the device where the mount before found it

listed() { [ "$(wc -l </sys/bus/nd/devices/region0/badblocks)" = "$1" ]; }

# owned KIND OFFSET...: what these blocks belong to.
owned() {
	kind=$1
	shift
	for place; do
		mendctl owners --json /mnt --offset "$place" --length 4096 | grep -q "\"kind\":\"$kind\"" || fail "$place: $(mendctl owners --json /mnt --offset "$place" --length 4096)"
	done
}

sigbus_count() { mendctl list --json /mnt | number_after sigbus_count; }

if [ "$VM_BOOT" = 2 ]; then
	step "after a reboot the kernel knows nothing, the filesystem everything"
	listed 0
	mount_mendfs /dev/dax0.0 /mnt
	only_bad /mnt $(cat /mnt/places)
	owned quarantine 65536 $((100 * MIB))
	one_bad_block /mnt/file 3 /mnt/copy
	[ "$(sigbus_count)" = 4 ]
	umount_mendfs /mnt
	exit
fi
device=$(make_namespace)

step "four bad sectors are known before mkfs: of two superblocks, where the poison log would be, in the middle"
for place in 0 65536 $((2 * MIB + 512)) $((100 * MIB)); do
	host optional "$(physical_address $place)"
done
wait_for 60 listed 4
mkfs.mendfs "$device" >/tmp/mkfs 2>&1
cat /tmp/mkfs
grep -q "known poison .*2048 bytes in 4" /tmp/mkfs
mount_mendfs "$device" /mnt
only_bad /mnt 0 65536 $((2 * MIB + 512)) $((100 * MIB))
owned superblock 0 $((2 * MIB))
owned quarantine 65536 $((100 * MIB))
[ "$(mendctl list --json /mnt | number_after quarantined_bytes)" = 8192 ]
consumed 0
dd if=/dev/urandom of=/tmp/copy bs=16K count=2 2>/dev/null
cat /tmp/copy >/mnt/copy
cat /tmp/copy >/mnt/file
data=$(data_offset /mnt/file 12300)
names=$(metadata_offset /mnt dirents)
umount_mendfs /mnt
check_clean "$device" 2>/dev/null

step "memory fails that nobody has mounted, and the kernel hears of it: a block of names, a block of a file"
host optional "$(physical_address "$names")"
host optional "$(physical_address "$data")"
wait_for 60 listed 6
mount_mendfs "$device" /mnt
only_bad /mnt $(echo 0 65536 $((2 * MIB + 512)) $((100 * MIB)) "$names" "$data" | tr ' ' '\n' | sort -n)
[ "$(ls /mnt)" = "$(printf 'copy\nfile')" ]
one_bad_block /mnt/file 3 /mnt/copy
mendctl damaged --json /mnt | grep -q '"paths":\["/file"\],"ranges":\[{"pos":12288,"len":4096}\]'
consumed 0

step "memory fails that nobody has mounted, and nobody hears of it: a superblock, the journal's head, the root, an inode"
base=$(virtual_address 0)
journal=$(mendctl owners --json /mnt --all --kind journal | number_after device_offset)
root=$(metadata_offset /mnt root)
inodes=$(metadata_offset /mnt inodes)
umount_mendfs /mnt
for place in $((4 * MIB)) "$journal" "$root" "$inodes"; do
	host watch $((base + place + 8)) "$(physical_address $((place + 8)))"
done
mount_mendfs "$device" /mnt
[ "$(virtual_address 0)" = "$base" ]
places=$(echo 0 65536 $((2 * MIB + 512)) $((100 * MIB)) "$names" "$data" $((4 * MIB)) "$journal" "$root" "$inodes" | tr ' ' '\n' | sort -n)
grep "media failure" /tmp/daemon.log
mendctl damaged /mnt
one_bad_block /mnt/file 3 /mnt/copy
only_bad /mnt $places
consumed 4
umount_mendfs /mnt

step "the next mount touches nothing of it"
mount_mendfs "$device" /mnt
one_bad_block /mnt/file 3 /mnt/copy
consumed 4
echo "$places" >/mnt/places
host unwatch
power_cycle
