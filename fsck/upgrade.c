/* Older formats become this one. */
#include "fsck/internal.h"

int repair_upgrade(struct repair *repair, struct why *why)
{
	return 0;
}
