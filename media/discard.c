/* Giving back to the host: space under a sparse image, and what the process has mapped of it. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "media/media_types.h"

#define DISCARD_UNIT_MAX (UINT64_C(1) << 30)

bool media_host_is_full(const struct media *media)
{
	return atomic_load_explicit(&media->host_is_full, memory_order_relaxed);
}

int discard_mapped(struct media *media, devoff_t offset, uint64_t length)
{
	if (!fallocate(media->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length))
		return 0;
	return errno == EOPNOTSUPP ? -ENOTSUP : -errno;
}

/* BLKDISCARD drops what it is given, whatever the page cache holds, and reads as anything then: block devices have none. */
static bool discard_is_known(const struct media *media)
{
	return media->backend->discard && !media->is_device && !media->is_block;
}

int media_discard(struct media *media, devoff_t offset, uint64_t length)
{
	int error;

	if (media->readonly)
		return -EROFS;
	if (!discard_is_known(media))
		return -ENOTSUP;
	if (offset >= media->size || length > media->size - offset)
		return -ERANGE;
	if (!stop_enter(&media->stop))
		return -EIO;
	error = media->backend->discard(media, offset, length);
	stop_leave(&media->stop);
	return error;
}

uint64_t media_discard_unit(const struct media *media)
{
	uint64_t unit = BLOCK_BYTES;
	struct stat st;

	if (!discard_is_known(media))
		return 0;
	if (fstat(media->fd, &st) < 0)
		return BLOCK_BYTES;
	while (unit < (uint64_t)st.st_blksize && unit < DISCARD_UNIT_MAX)
		unit *= 2;
	return unit;
}

/* The mapping is shared: its pages stay what they are, only this process has to fetch them anew. */
void media_let_go(struct media *media)
{
	if (media->backend == &media_backend_mapped || media->backend == &media_backend_block)
		madvise(media->map.base, media->size, MADV_DONTNEED);
}
