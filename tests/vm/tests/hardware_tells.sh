#!/bin/sh
# A scrub of the bus finds latent errors, DIMMs tell of their health, and a user who may not see addresses learns that bad blocks are unknown (ci)
# vm: acpi timeout=240
. /vm/lib.sh
mentioned_twice() { [ "$(grep -c "$1" /tmp/daemon.log)" = 2 ]; }
device=$(whole_namespace -a 4K)
file_to_fail "$device"
offset=$(data_offset /mnt/file 20480)
# The kernel's own first scrub may still be under way.
scrub_is_idle() { mendctl list --json /mnt >/tmp/list && grep -q '"hardware_scrub":"idle"' /tmp/list; }
wait_for 60 scrub_is_idle
grep -q '"kernel_badblocks":"known"' /tmp/list
mendctl badblocks --json /mnt | grep -q '"kernel_list":{"state":"known"}'

step "what went bad untouched is unknown until a scrub reads it"
sector=$((offset / 512))
ndctl inject-error --block=$sector --count=2 --no-notify namespace0.0 >/dev/null
[ "$(wc -l </sys/bus/nd/devices/region0/badblocks)" = 0 ]
refused "give --hardware" 2 mendctl scrub /mnt
mendctl scrub --hardware --json --no-wait /mnt | tee /tmp/scrub
grep -q '"kind":"hardware","bus":"ndbus0","state":"running","started":true' /tmp/scrub
mendctl scrub --hardware --json /mnt | tee /tmp/scrub
grep -q '"state":"finished","started":false' /tmp/scrub
[ "$(number_after listed_bytes </tmp/scrub)" = 1024 ]
[ "$(number_after found_bytes </tmp/scrub)" = 1024 ]
grep '"type":"media_failure"' /tmp/events | grep "\"device_offset\":$offset,\"len\":1024" | grep -q '"source":"kernel"'
is_told 1
one_bad_block /mnt/file 5 /tmp/copy
[ "$(mendctl list --json /mnt | number_after sigbus_count)" = 0 ]

step "it heals, and the next scrub finds nothing more"
dd if=/tmp/copy of=/mnt/file bs=4k skip=5 seek=5 count=1 conv=notrunc,fsync 2>/tmp/dd || fail "$(cat /tmp/dd)"
mendctl scrub --hardware /mnt
mendctl scrub --hardware --json /mnt | tee /tmp/scrub
grep -q '"started":true' /tmp/scrub
[ "$(number_after listed_bytes </tmp/scrub)" = 0 ]
same_blocks /mnt/file /tmp/copy 0

step "a DIMM that gets too hot, and well again, is told of once each"
ndctl inject-smart --media-temperature=50 nmem0 >/dev/null
wait_for 20 grep -q dimm_health /tmp/events
grep dimm_health /tmp/events | tee /tmp/health
grep -q '"dimm":"nmem0","health":"non-critical","alarms":\["media_temperature"\],"spares_percent":75,"spares_threshold_percent":5' /tmp/health
grep -q '"temperature_celsius":50.0,"temperature_threshold_celsius":40.0' /tmp/health
ndctl inject-smart --media-temperature=51 nmem0 >/dev/null
ndctl inject-smart --media-temperature-uninject nmem0 >/dev/null
wait_for 20 grep -q '"health":"ok","alarms":\[\]' /tmp/events
[ "$(grep -c dimm_health /tmp/events)" = 2 ]
grep "DIMM nmem0 is non-critical, is too hot" /tmp/daemon.log

step "spares that run out, and a DIMM that was ailing before the mount"
ndctl inject-smart --spares=3 nmem0 >/dev/null
wait_for 20 grep -q '"alarms":\["spares"\]' /tmp/events
umount_mendfs /mnt
wait_for 20 grep -q '"type":"unmount"' /tmp/events
mount_mendfs "$device" /mnt
wait_for 20 mentioned_twice "has few spares left"
umount_mendfs /mnt

step "who may use the device but sees no addresses is told that bad blocks are unknown, why, and what helps"
mkdir -p /tmp/home/mnt
chown -R nobody /tmp/home
chown nobody "$device"
chmod 666 /dev/fuse
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
as_nobody mendctl list --json "$device" | tee /tmp/list
grep -q '"kernel_badblocks":"unknown","kernel_badblocks_reason":"the addresses in ' /tmp/list
as_nobody mendctl badblocks "$device" | tee /tmp/bad
grep -q "kernel_list: state unknown, reason the addresses in .*CAP_DAC_READ_SEARCH.*udev rule" /tmp/bad
as_nobody mendfs "$device" /tmp/home/mnt -f >/tmp/nobody.log 2>&1 &
DAEMON=$!
wait_for 30 mounted_or_dead /tmp/home/mnt
cat /tmp/nobody.log
grep -q "badblocks: unknown: the addresses in " /tmp/nobody.log
as_nobody mendctl list --json /tmp/home/mnt | grep -q '"kernel_badblocks":"unknown"'
refused "only root may start a scrub" as_nobody mendctl scrub --hardware /tmp/home/mnt
as_nobody fusermount3 -u /tmp/home/mnt
wait "$DAEMON"

step "a rule that makes the addresses readable is enough"
chmod a+r /sys/bus/dax/devices/dax0.0/resource /sys/bus/nd/devices/region0/resource
as_nobody mendctl list --json "$device" | grep -q '"kernel_badblocks":"known"'
check_clean "$device" 2>/dev/null
