/* Giving back to the host: space under a sparse image, and what the process has mapped of it. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "media/media_types.h"

bool media_host_is_full(const struct media *media)
{
	return atomic_load_explicit(&media->host_is_full, memory_order_relaxed);
}

int media_discard(struct media *media, devoff_t offset, uint64_t length)
{
	int error;

	if (media->readonly)
		return -EROFS;
	/* BLKDISCARD drops what it is given, whatever the page cache holds, and reads as anything then. */
	if (media->is_device || media->is_block)
		return -ENOTSUP;
	if (offset >= media->size || length > media->size - offset)
		return -ERANGE;
	if (!stop_enter(&media->stop))
		return -EIO;
	error = fallocate(media->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length) ? -errno : 0;
	stop_leave(&media->stop);
	return error == -EOPNOTSUPP ? -ENOTSUP : error;
}

/* The mapping is shared: its pages stay what they are, only this process has to fetch them anew. */
void media_let_go(struct media *media)
{
	if (media->backend == &media_backend_mapped || media->backend == &media_backend_block)
		madvise(media->map.base, media->size, MADV_DONTNEED);
}
