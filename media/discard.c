/* Giving host space back under a sparse image. */
#include <errno.h>
#include <fcntl.h>

#include "media/media_types.h"

bool media_host_is_full(const struct media *media)
{
	return atomic_load_explicit(&media->host_is_full, memory_order_relaxed);
}

int media_discard(struct media *media, devoff_t offset, uint64_t length)
{
	if (media->readonly)
		return -EROFS;
	if (media->is_device)
		return -ENOTSUP;
	if (offset >= media->size || length > media->size - offset)
		return -ERANGE;
	if (fallocate(media->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length))
		return errno == EOPNOTSUPP ? -ENOTSUP : -errno;
	return 0;
}
