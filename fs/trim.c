/*
 * A sparse image on a host filesystem that is full: what was freed in the image still takes space on the host, while blocks never used
 * have none. So free runs are given back to the host before a write is refused. Never done otherwise: it would undo a preallocation.
 */
#include "fs/inode.h"

#include <errno.h>

#define TRIM_BATCH 256

struct trim {
	struct fs *fs;
	struct {
		blkno_t start;
		uint64_t count;
	} runs[TRIM_BATCH];
	unsigned count;
};

static int trim_collect(void *arg, blkno_t start, uint64_t count)
{
	struct trim *trim = arg;

	trim->runs[trim->count].start = start;
	trim->runs[trim->count].count = count;
	return ++trim->count == TRIM_BATCH;
}

/* Set aside meanwhile, so that nobody fills a block that is about to be punched; busy blocks are not given. */
static void trim_run(struct fs *fs, blkno_t start, uint64_t count)
{
	struct alloc_request request = {
		.goal = start, .want_blocks = count, .least_blocks = 1, .align_blocks = 1, .use_reserve = true};
	blkno_t got;
	uint64_t length;

	if (alloc_reserve(fs->alloc, &request, &got, &length))
		return;
	if (got >= start && got + length <= start + count)
		media_discard(fs->media, got << BLOCK_SHIFT, length << BLOCK_SHIFT);
	alloc_unreserve(fs->alloc, got, length);
}

static int trim_batch(struct trim *trim, blkno_t from, blkno_t end)
{
	int rc;

	trim->count = 0;
	journal_read_begin(trim->fs->journal);
	rc = alloc_walk(trim->fs->alloc, from, end - from, trim_collect, trim);
	journal_read_end(trim->fs->journal);
	for (unsigned i = 0; rc >= 0 && i < trim->count; i++)
		trim_run(trim->fs, trim->runs[i].start, trim->runs[i].count);
	return rc;
}

bool fs_trim_host(struct fs *fs)
{
	struct trim trim = {.fs = fs};
	blkno_t from = 0, end = media_size(fs->media) >> BLOCK_SHIFT;
	uint64_t free_blocks;
	int rc = 1;

	if (!media_host_is_full(fs->media))
		return false;
	journal_read_begin(fs->journal);
	free_blocks = alloc_free_blocks(fs->alloc);
	journal_read_end(fs->journal);
	/* Nothing was freed since the last time: there is nothing to find. */
	if (atomic_exchange(&fs->trimmed_free_blocks, free_blocks) == free_blocks)
		return false;
	while (rc > 0 && from < end) {
		rc = trim_batch(&trim, from, end);
		if (trim.count)
			from = trim.runs[trim.count - 1].start + trim.runs[trim.count - 1].count;
	}
	return true;
}
