#!/bin/sh
# docs/ADMIN.md: its commands, as printed and in its order, print what it says; its files are put where it says (ci)
# vm: nvdimm=514 memory=1024 guide timeout=180
. /vm/lib.sh
. /vm/guide.sh
mkdir -p /run/udev /var/log
/lib/systemd/systemd-udevd --daemon
udevadm trigger --settle
syslogd -O /var/log/messages
: >/tmp/said
trap 'cat /tmp/said' EXIT
for part in /mendfs/guide/*; do
	step "docs/ADMIN.md ${part##*/}"
	follow "$part"
done
