#!/bin/sh
# The system tests of files and of shared blocks with all their repetitions, on device-dax with 2 MiB and with 4 KiB alignment
# vm: nvdimm=3298 memory=1536 python timeout=2400
. /vm/lib.sh
make_namespace -s 1600M -a 2M
make_namespace -s 1600M -a 4K
for device in /dev/dax0.0 /dev/dax0.1; do
	for noun in files reflink; do
		system_test $noun $device 100
	done
done
