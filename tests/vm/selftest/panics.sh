#!/bin/sh
# The guest's kernel dies.
. /vm/lib.sh
step die
echo c >/proc/sysrq-trigger
sleep 100
