# Functions for tests in the guest. A test is run by `sh -eu`: any command that fails, fails it.
HOST_PORT=/dev/ttyS1

# host WORD...: ask the host driver (tests/vm/machine.py: ACTIONS) and print its answer; fails when that is an error.
host() {
	(
		exec 9<>"$HOST_PORT"
		flock 9
		echo "$*" >&9
		read -r verdict answer <&9
		[ -z "$answer" ] || echo "$answer"
		[ "$verdict" = ok ]
	)
}

# The end: the status goes to the host twice, by word and as QEMU's own exit status. Both must agree.
vm_exit() {
	host done "$1" || true
	printf "\\x$(printf %02x "$1")" | dd of=/dev/port bs=1 seek=244 count=1 2>/dev/null
	poweroff -f
}

# step SENTENCE: what is being shown; the last one is named when the test fails.
step() {
	echo "== $*"
	host step "$*"
}

fail() {
	echo "FAILED: $*"
	exit 1
}

# Power is cut and comes back: the test runs again from its top, with VM_BOOT one higher. What is in the NVDIMM stays.
power_cycle() {
	host restart
	sleep 60
	fail "the host did not restart the guest"
}

# refused PATTERN [STATUS] COMMAND...: it must fail, with exit status 1 or the one given, and say something that matches.
refused() {
	pattern=$1 expected=1 status=0
	shift
	case $1 in
	[0-9]*)
		expected=$1
		shift
		;;
	esac
	"$@" >/tmp/refused 2>&1 || status=$?
	cat /tmp/refused
	[ "$status" = "$expected" ] || fail "exit status $status, not $expected: $*"
	grep -q -e "$pattern" /tmp/refused || fail "nothing that matches '$pattern' was said by: $*"
}

# wait_for SECONDS COMMAND...: until it succeeds; longer where the run was told that the machine is slow.
wait_for() {
	tries=$(($1 * 5 * ${VM_SLOW:-1}))
	shift
	until "$@"; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || fail "in vain: $*"
		sleep 0.2
	done
}

# The NVDIMM as new: no labels, no namespaces.
clean_labels() {
	ndctl disable-region all
	ndctl init-labels -f all
	ndctl enable-region all
} >/tmp/labels 2>&1

# make_namespace [ndctl options]: a device-dax namespace in fresh labels, or in what is left of those of before; prints /dev/daxX.Y.
make_namespace() {
	[ -e /tmp/labels ] || clean_labels
	echo "/dev/$(ndctl create-namespace -m devdax "$@" | sed -n 's/.*"chardev":"\(dax[0-9.]*\)".*/\1/p' | head -1)"
}

# whole_namespace [ndctl options]: the same of all there is, where the DIMMs have no labels (`# vm: acpi`).
whole_namespace() {
	echo yes >/tmp/labels
	make_namespace -f -e namespace0.0 "$@"
}

# is_told COUNT: so many files are named in /tmp/events.
is_told() { [ "$(grep -c file_damaged /tmp/events)" = "$1" ]; }

is_mounted() { grep -q " $1 fuse" /proc/mounts; }

# mount_mendfs DEVICE DIRECTORY [options]: in the background; the daemon's pid is in $DAEMON, its log in /tmp/daemon.log.
mount_mendfs() {
	mkdir -p "$2"
	mendfs "$1" "$2" -f ${3:+-o "$3"} >>/tmp/daemon.log 2>&1 &
	DAEMON=$!
	wait_for 30 mounted_or_dead "$2"
	is_mounted "$2" || {
		cat /tmp/daemon.log
		fail "mendfs $1 did not mount"
	}
}

mounted_or_dead() { is_mounted "$1" || ! kill -0 "$DAEMON" 2>/dev/null; }

# umount_mendfs DIRECTORY: until the daemon has ended well.
umount_mendfs() {
	umount "$1"
	wait "$DAEMON" || {
		cat /tmp/daemon.log
		fail "mendfs ended with $?"
	}
}

# check_clean DEVICE: fsck finds nothing.
check_clean() { fsck.mendfs -f -n "$1" >/tmp/fsck || { cat /tmp/fsck; fail "fsck.mendfs -f -n $1"; }; }

# fscks STATUS PATTERN OPTION...: of fsck.mendfs with these options on $device.
fscks() {
	expected=$1 pattern=$2 status=0
	shift 2
	fsck.mendfs "$@" "$device" >/tmp/fsck 2>&1 || status=$?
	[ $status = "$expected" ] && grep -q "$pattern" /tmp/fsck || fail "fsck.mendfs $*: status $status, not $expected, or nothing that matches '$pattern': $(cat /tmp/fsck)"
}

# system_test NOUN DEVICE SHARE: tests/system/test_NOUN.py with its filesystems on that device, SHARE percent of its repetitions. Needs `python`.
system_test() {
	step "system test $1 on $2, alignment $(cat "/sys/bus/dax/devices/${2#/dev/}/align"), $3 % of the repetitions"
	begin=$(cut -d. -f1 /proc/uptime)
	transport=dev_fuse
	[ ! -e /sys/module/fuse/parameters/enable_uring ] || transport=io_uring
	BIN_DIR=/mendfs/bin PYTHONUNBUFFERED=1 MENDFS_TRANSPORT=$transport MENDFS_TIMEOUT=$((300 * ${VM_SLOW:-1})) MENDFS_DEVICE=$2 MENDFS_SHARE=$3 \
		python3 -B "/mendfs/tests/system/test_$1.py" -v 2>&1 || fail "test_$1.py on $2"
	echo "== $(($(cut -d. -f1 /proc/uptime) - begin)) s of this guest's time"
}

# --- places ---

# number_after KEY: the first integer of that key in the JSON on stdin.
number_after() { grep -o "\"$1\": *[0-9]*" | head -1 | grep -o '[0-9]*$'; }

# data_offsets FILE: the device byte of each position on stdin.
data_offsets() {
	mendctl map --json "$1" | sed -n 's/.*"pos":\([0-9]*\),"len":\([0-9]*\),"device_offset":\([0-9]*\),.*/\1 \2 \3/p' >/tmp/extents
	awk 'NR == FNR { pos[NR] = $1; len[NR] = $2; at[NR] = $3; n = NR; next }
		{ for (i = 1; i <= n; i++) if (pos[i] <= $1 && $1 < pos[i] + len[i]) break
		  if (i > n) exit 1
		  printf "%.0f\n", at[i] + $1 - pos[i] }' /tmp/extents - || fail "$1 has not all of these bytes"
}

# data_offset FILE POSITION: the device byte.
data_offset() { echo "$2" | data_offsets "$1"; }

# physical_address OFFSET [N], virtual_address OFFSET (in the daemon): of a byte of /dev/dax0.N, or dax0.0.
physical_address() { printf '0x%x\n' $(($(cat "/sys/bus/dax/devices/dax0.${2:-0}/resource") + $1)); }

virtual_address() {
	while read -r range _ at _ _ name; do
		start=$((0x${range%-*})) end=$((0x${range#*-})) at=$((0x$at))
		if [ "$name" = "${MAPPED:-/dev/dax0.0}" ] && [ "$1" -ge "$at" ] && [ "$1" -lt $((at + end - start)) ]; then
			printf '0x%x\n' $((start + $1 - at))
			return
		fi
	done <"/proc/$DAEMON/maps"
	fail "the daemon has device byte $1 nowhere"
}

# same_blocks FILE COPY SKIP [COUNT]: these blocks of FILE can be read past the page cache, and are as in COPY.
same_blocks() {
	dd if="$1" of=/tmp/blocks bs=4k skip="$3" ${4:+count=$4} iflag=direct 2>/tmp/dd || fail "$1 from block $3 on: $(cat /tmp/dd)"
	dd if="$2" of=/tmp/expected bs=4k skip="$3" ${4:+count=$4} 2>/dev/null
	cmp /tmp/blocks /tmp/expected || fail "$1 differs"
}

# one_bad_block FILE BLOCK COPY: that block, not the first or last, gives EIO, and every other one is as in COPY.
one_bad_block() {
	same_blocks "$1" "$3" 0 "$2"
	same_blocks "$1" "$3" $(($2 + 1))
	! dd if="$1" of=/tmp/blocks bs=4k skip="$2" count=1 iflag=direct 2>/tmp/dd || fail "block $2 of $1 can be read"
	grep -q "Input/output error" /tmp/dd || fail "block $2 of $1: $(cat /tmp/dd)"
}

# host_filesystem KIND: ext4 or xfs on /dev/pmem0, mounted on /host with -o dax=always. Needs `hostfs`.
host_filesystem() {
	mkdir -p /host
	modprobe "$1"
	if [ "$1" = ext4 ]; then mkfs.ext4 -q -b 4096 /dev/pmem0; else mkfs.xfs -q -f /dev/pmem0; fi
	mount -t "$1" -o dax=always /dev/pmem0 /host
}

# host_block FILE OFFSET: the block of /dev/pmem0 that holds that byte of a file on /host.
host_block() {
	filefrag -b4096 -v "$1" | sed -n 's/^ *[0-9]*: *\([0-9]*\)\.\. *\([0-9]*\): *\([0-9]*\)\.\..*/\1 \2 \3/p' | while read -r first last at; do
		if [ $(($2 / 4096)) -ge "$first" ] && [ $(($2 / 4096)) -le "$last" ]; then
			echo $((at + $2 / 4096 - first))
		fi
	done
}

# host_address FILE OFFSET: its physical address.
host_address() { printf '0x%x\n' $(($(cat /sys/bus/nd/devices/pfn0.*/resource | grep -m1 0x) + $(host_block "$1" "$2") * 4096 + $2 % 4096)); }

# --- poison ---

# rewrite_block N: block N of /mnt/file and of /tmp/copy gets new content.
rewrite_block() {
	dd if=/dev/urandom of=/tmp/new bs=4k count=1 2>/dev/null
	dd if=/tmp/new of=/tmp/copy bs=4k seek="$1" conv=notrunc 2>/dev/null
	dd if=/tmp/new of=/mnt/file bs=4k seek="$1" conv=notrunc,fsync 2>/tmp/dd || fail "block $1: $(cat /tmp/dd)"
}

# watch_device OFFSET: from now on each touch of this byte of /dev/dax0.0, through where the daemon has it, is a machine check.
watch_device() { host watch "$(virtual_address "$1")" "$(physical_address "$1")"; }

# monitor_events DIRECTORY: its events from now on, in /tmp/events.
monitor_events() {
	mendctl monitor "$1" >/tmp/events &
	wait_for 20 grep -qs running /tmp/events
}

# file_to_fail DEVICE: mkfs, mounted on /mnt; /mnt/file is 256 KiB, as /tmp/copy is, and events come to /tmp/events.
file_to_fail() {
	mkfs.mendfs -q "$1"
	mount_mendfs "$1" /mnt
	make_file_to_fail
}

# The same, mounted already.
make_file_to_fail() {
	dd if=/dev/urandom of=/tmp/copy bs=64K count=4 2>/dev/null
	/bin/cp /tmp/copy /mnt/file
	monitor_events /mnt
}

# count_events TYPE: so many of that type are in /tmp/events.
count_events() { grep -c "\"type\":\"$1\"" /tmp/events || true; }

# has_events TYPE COUNT.
has_events() { [ "$(count_events "$1")" = "$2" ]; }

# consumed COUNT [DIRECTORY]: so many machine checks have struck, and the daemon knows of as many.
consumed() {
	[ "$(host hits)" = "$1" ] || fail "$(host hits) machine checks, not $1"
	[ "$(mendctl list --json "${2:-/mnt}" | number_after sigbus_count)" = "$1" ] || fail "$(mendctl list --json "${2:-/mnt}"), not $1 machine checks"
}

# bad_ranges TARGET: a line "offset length" for each range that is known to be bad, with $2 also its state.
bad_ranges() {
	mendctl badblocks --json "$1" | sed -n 's/.*"device_offset":\([0-9]*\),"len":\([0-9]*\),.*"state":"\([a-z]*\)".*/\1 \2'"${2:+ \\3}"'/p'
}

# only_bad TARGET OFFSET...: the sectors of these bytes, in any order, are known to be bad, and nothing else is.
only_bad() {
	bad_of=$1
	shift
	for place; do echo "$((place / 512 * 512)) 512"; done | sort -n >/tmp/bad.expected
	bad_ranges "$bad_of" >/tmp/bad.known
	cmp /tmp/bad.expected /tmp/bad.known || fail "known to be bad: $(cat /tmp/bad.known); expected: $(cat /tmp/bad.expected)"
}

# metadata_offset TARGET TREE [NUMBER]: where the primary copy of that live block of the tree lies (the first, or the last for $).
metadata_offset() {
	mendctl owners --json "$1" --all --kind metadata | grep '"copy":"primary".*"tree":"'"$2"'","live":true' | sed -n "${3:-1}p" | number_after device_offset
}

# peer_of TARGET OFFSET: where the other copy lies.
peer_of() { mendctl owners --json "$1" --offset "$2" --length 4096 | number_after peer_offset; }
