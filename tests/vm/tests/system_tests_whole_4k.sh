#!/bin/sh
# The system tests of files and of shared blocks with all their repetitions, on device-dax with 4 KiB alignment
# vm: smp=1 nvdimm=1650 memory=1536 python timeout=3600
. /vm/lib.sh
device=$(make_namespace -s 1600M -a 4K)
system_test files "$device" 100
system_test reflink "$device" 100
