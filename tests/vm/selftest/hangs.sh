#!/bin/sh
# It never ends.
# vm: timeout=15
. /vm/lib.sh
step asleep
sleep 10000
