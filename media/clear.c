/* Making poisoned ranges usable again. */
#include <errno.h>
#include <libpmem2.h>
#include <sys/stat.h>
#include <unistd.h>

#include "media/fsdax.h"
#include "media/media_types.h"
#include "util/log.h"

static bool clear_is_listed(struct pmem2_badblock_context *context, devoff_t start, devoff_t end)
{
	struct pmem2_badblock block;

	while (pmem2_badblock_next(context, &block) == 0)
		if (block.offset < end && block.offset + block.length > start)
			return true;
	return false;
}

/* After a clear the list is read anew: some firmware reports success and changes nothing. */
static int clear_verify(struct media *media, devoff_t start, devoff_t end)
{
	struct pmem2_badblock_context *context;
	bool listed;

	if (pmem2_badblock_context_new(&context, media->pmem_source) != 0)
		return -EIO;
	listed = clear_is_listed(context, start, end);
	pmem2_badblock_context_delete(&context);
	return listed ? -EIO : 0;
}

static int clear_error(int error)
{
	if (error == -ENXIO || error == -ENOTTY || error == -EOPNOTSUPP ||
	    error == PMEM2_E_NOSUPP || error == PMEM2_E_SOURCE_TYPE_NOT_SUPPORTED)
		return -ENOTSUP;
	return -EIO;
}

static int clear_by_library(struct media *media, devoff_t offset, uint64_t length)
{
	struct pmem2_badblock block = {.offset = offset, .length = length};
	struct pmem2_badblock_context *context;
	int error = pmem2_badblock_context_new(&context, media->pmem_source);

	if (error)
		return clear_error(error);
	error = pmem2_badblock_clear(context, &block);
	pmem2_badblock_context_delete(&context);
	if (error && clear_error(error) == -ENOTSUP && !atomic_exchange(&media->told_no_clear, true))
		log_warning("%s: its bus cannot clear poison (%s): what is written over a bad block goes to another, and the bad one into quarantine",
			    media->path, pmem2_errormsg());
	return error ? clear_error(error) : 0;
}

static int clear_device(struct media *media, devoff_t offset, uint64_t length)
{
	int error = clear_by_library(media, offset, length);

	return error ? error : clear_verify(media, offset, offset + length);
}

/* Injected poison of a device never was in the medium: when all known of the range is injected,
 * forgetting it is enough. */
static bool clear_is_injected(struct media *media, devoff_t offset, uint64_t length)
{
	devoff_t end = offset + length, at = offset, start, stop, first;

	while (known_find(&media->known, at, end, &start, &stop)) {
		if (!poison_find(&media->poison, start, stop, &first))
			return false;
		at = stop;
	}
	return poison_find(&media->poison, offset, end, &first);
}

/* Zeros past the mapping. The kernel clears what it lists as bad when whole pages of it are written. */
static int below_overwrite(struct media *media, devoff_t offset, uint64_t length)
{
	static const unsigned char zeros[BLOCK_BYTES];

	atomic_store(&media->dirty.outside_mapping, true);
	for (devoff_t end = offset + length; offset < end; offset += BLOCK_BYTES)
		if (pwrite(media->fd, zeros, BLOCK_BYTES, (off_t)offset) != BLOCK_BYTES)
			return -EIO;
	return 0;
}

/*
 * Poison in persistent memory under a file. First where it lies; where the bus cannot, libpmem2 has the host's filesystem give the file other blocks. Only what
 * the kernel lists is written so: what it does not is out of its own mapping after a machine check, and it would fault there.
 */
static int clear_below(struct media *media, devoff_t offset, uint64_t length)
{
	int error;

	if (clear_verify(media, offset, offset + length) == 0)
		return 0;
	if (offset % BLOCK_BYTES || length % BLOCK_BYTES)
		return -ENOTSUP;
	error = below_overwrite(media, offset, length);
	if (!error)
		error = clear_verify(media, offset, offset + length);
	if (!error)
		return 0;
	error = clear_by_library(media, offset, length);
	if (!error)
		error = below_overwrite(media, offset, length);
	return error ? error : clear_verify(media, offset, offset + length);
}

/* The host's file takes an overwrite wherever it still reaches. */
static int clear_file(struct media *media, devoff_t offset, uint64_t length)
{
	char host[FSDAX_NAME_BYTES];
	struct stat st;

	if (fstat(media->fd, &st) < 0 || (uint64_t)st.st_size < offset + length)
		return -EIO;
	return fsdax_host(media, host) ? clear_below(media, offset, length) : 0;
}

int clear_mapped(struct media *media, devoff_t offset, uint64_t length)
{
	uint64_t removed;
	int error;

	if (!media->is_device)
		error = clear_file(media, offset, length);
	else if (clear_is_injected(media, offset, length))
		error = 0;
	else
		error = clear_device(media, offset, length);
	return error < 0 ? error : media_poison_disarm(media, offset, length, &removed);
}

int clear_block(struct media *media, devoff_t offset, uint64_t length)
{
	int error = clear_is_injected(media, offset, length) ? 0 : block_overwrite(media, offset, length);
	uint64_t removed;

	return error < 0 ? error : media_poison_disarm(media, offset, length, &removed);
}

int media_clear(struct media *media, devoff_t offset, uint64_t length)
{
	int error;

	if (media->readonly)
		return -EROFS;
	if (length == 0 || offset % SECTOR_BYTES || length % SECTOR_BYTES)
		return -EINVAL;
	if (offset >= media->size || length > media->size - offset)
		return -ERANGE;
	if (!stop_enter(&media->stop))
		return -EIO;
	error = media->backend->clear(media, offset, length);
	stop_leave(&media->stop);
	if (error < 0)
		return error;
	return known_remove(&media->known, offset, offset + length);
}
