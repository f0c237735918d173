#!/bin/sh
# mkfs, mount, files, shared blocks and a remount after a reboot, on device-dax with 2 MiB and with 4 KiB alignment (ci)
# vm: nvdimm=514 timeout=180
. /vm/lib.sh

fill() { # DIRECTORY
	mkdir -p "$1/a/b"
	dd if=/dev/urandom of="$1/a/data" bs=1M count=8 2>/dev/null
	cp "$1/a/data" "$1/a/b/copy"
	ln "$1/a/data" "$1/linked"
	echo x >"$1/a/b/gone"
	rm "$1/a/b/gone"
	sync -f "$1/a/data" 2>/dev/null || sync
	sha256sum "$1/a/data" | cut -d' ' -f1 >"$1/sum"
}

verify() { # DIRECTORY
	for name in a/data a/b/copy linked; do
		[ "$(sha256sum "$1/$name" | cut -d' ' -f1)" = "$(cat "$1/sum")" ] || fail "$1/$name differs"
	done
	[ ! -e "$1/a/b/gone" ] || fail "an unlinked file is there"
	mendctl map --json "$1/a/b/copy" >/tmp/map
	grep -q "\"shared\": *true" /tmp/map || fail "cp shared no blocks"
}

if [ "$VM_BOOT" = 1 ]; then
	[ "$(make_namespace -s 128M -a 2M)" = /dev/dax0.0 ]
	[ "$(make_namespace -s 128M -a 4K)" = /dev/dax0.1 ]
	for number in 0 1; do
		device=/dev/dax0.$number
		step "mkfs and mount on $device, alignment $(cat /sys/bus/dax/devices/dax0.$number/align)"
		mkfs.mendfs "$device"
		mount_mendfs "$device" /mnt
		fill /mnt
		verify /mnt
		[ "$(stat -f -c %T /mnt)" ] && df /mnt
		step "$device is clean after umount"
		umount_mendfs /mnt
		check_clean "$device"
	done
	step "$device is cut off while it is mounted"
	mount_mendfs /dev/dax0.1 /mnt
	echo durable >/mnt/last
	power_cycle
fi
for number in 0 1; do
	device=/dev/dax0.$number
	step "$device has everything after the reboot"
	mount_mendfs "$device" /mnt
	verify /mnt
	[ $number = 0 ] || [ "$(cat /mnt/last)" = durable ] || fail "an acknowledged write is not there"
	umount_mendfs /mnt
	check_clean "$device"
done
