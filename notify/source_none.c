/* Without libndctl nothing can be said about a device. */
#include <errno.h>

#include "notify/source.h"

int source_device_watch(const char *path)
{
	(void)path;
	return -ENOTSUP;
}

int source_device_badblocks(const char *path, struct source_list *out)
{
	out->state = SOURCE_UNKNOWN;
	return why_set(&out->why, 0, "%s: this mendfs was built without libndctl, which lists the bad blocks of devices", path);
}
