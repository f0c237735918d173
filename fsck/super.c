/* The superblock from its copies. */
#include "fsck/internal.h"

int repair_super(struct repair *repair, struct why *why)
{
	return fs_read_super(repair->media, &repair->super, why);
}
