#!/bin/sh
# The system tests of files on device-dax with 2 MiB alignment, those of shared blocks with 4 KiB, a twentieth of what they repeat (ci)
# vm: nvdimm=3298 memory=1536 python timeout=300
. /vm/lib.sh
make_namespace -s 1600M -a 2M
make_namespace -s 1600M -a 4K
system_test files /dev/dax0.0 5
system_test reflink /dev/dax0.1 5
