#!/bin/sh
# A command in the middle fails; what follows would succeed.
. /vm/lib.sh
step before
step the false one
false
step after
