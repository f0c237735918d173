/* Without libndctl nothing can be said about a device; a plain file has no bad blocks of its own.
 */
#include <errno.h>
#include <sys/stat.h>

#include "notify/notify.h"

int source_watch(const char *path)
{
	(void)path;
	return -ENOTSUP;
}

int source_badblocks(const char *path, struct source_badblock **out, size_t *count, int *known)
{
	struct stat st;

	if (stat(path, &st))
		return -errno;
	*out = NULL;
	*count = 0;
	*known = S_ISREG(st.st_mode) ? 1 : 0;
	return 0;
}
