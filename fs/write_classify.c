#include "fs/write.h"

#include <errno.h>
#include <string.h>

#include "fs/change.h"

#define WRITE_PLAN_BLOCKS 1024 /* 4 MiB: data stored per transaction at most */

bool plan_covers_block(const struct write_plan *p, uint64_t file_block)
{
	uint64_t start = file_block << BLOCK_SHIFT, stop = start + BLOCK_BYTES;

	return p->pos <= start && (p->end >= stop || (p->end >= p->size && !p->keep_size));
}

/*
 * How many bad blocks follow at the start of the run, of those that are alike in being covered.
 * -EIO when the first is not.
 */
static int classify_bad(struct write_plan *p, struct run *run, bool shared)
{
	devoff_t bad;
	uint64_t length, stop, i, blocks;

	if (!media_bad_find(p->fs->media, block_device_offset(run->block),
			    run->count_blocks << BLOCK_SHIFT, &bad, &length))
		return -EAGAIN; /* taken back meanwhile */
	stop = file_block_up(bad + length);
	blocks = min_u64(stop - run->block, run->count_blocks);
	for (i = 0; i < blocks && !run->unwritten; i++)
		if (!plan_covers_block(p, run->file_block + i))
			break;
	run->count_blocks = run->unwritten ? blocks : i;
	run->kind = shared || p->no_heal ? RUN_NEW : RUN_HEAL;
	return run->count_blocks ? 0 : -EIO;
}

/* Under the metadata lock. `extent` is clipped to begin at the run's first block. */
static int classify_mapped(struct write_plan *p, const struct extent *extent, struct run *run)
{
	bool shared;
	uint64_t good;
	int error;

	run->mapped = true;
	run->unwritten = extent->flags & EXTENT_UNWRITTEN;
	run->block = run->old_block = extent->block;
	error = extent_shared_run(p->fs, p->inode->ino, extent, p->may_share, &shared,
				  &run->count_blocks);
	if (error)
		return error;
	/* The transaction that made it ours alone may not be durable: a crash may bring the other owner back, and what we store must not be in its file. */
	if (!shared && p->may_share)
		shared = alloc_is_held(p->fs->alloc, run->block, run->count_blocks, &run->count_blocks);
	good = extent_good_blocks(p->fs, run->block, run->count_blocks);
	if (!good)
		return classify_bad(p, run, shared);
	run->count_blocks = good;
	run->kind = shared ? RUN_NEW : run->unwritten ? RUN_CONVERT : RUN_IN_PLACE;
	return 0;
}

/* The run that begins at file_block, at most up to `end`. */
static int classify_one(struct write_plan *p, uint64_t file_block, uint64_t end, struct run *run)
{
	struct extent e;
	int error = extent_lookup(p->fs, p->inode->ino, file_block, &e);

	if (error && error != -ENOENT)
		return error;
	memset(run, 0, sizeof(*run));
	run->file_block = file_block;
	if (error || e.file_block > file_block) {
		run->kind = RUN_NEW;
		run->count_blocks = (error ? end : min_u64(end, e.file_block)) - file_block;
		return 0;
	}
	e.count_blocks = min_u64(e.count_blocks, end - file_block);
	return classify_mapped(p, &e, run);
}

/* Where fresh blocks for the first run go best: behind what the file has just before it. */
static int classify_goal(struct write_plan *p)
{
	struct extent e;
	uint64_t first = p->runs[0].file_block;
	int error;

	p->goal = 0;
	if (p->runs[0].kind != RUN_NEW || !first)
		return 0;
	error = extent_lookup(p->fs, p->inode->ino, first - 1, &e);
	if (!error && e.file_block == first - 1)
		p->goal = e.block + 1;
	return error == -ENOENT ? 0 : error;
}

static int classify_all(void *arg)
{
	struct write_plan *p = arg;
	uint64_t block = p->pos >> BLOCK_SHIFT;
	uint64_t end = min_u64(file_block_up(p->end), block + WRITE_PLAN_BLOCKS);
	int error = 0;

	p->count = p->placed = 0;
	while (block < end && p->count < WRITE_RUNS) {
		error = classify_one(p, block, end, &p->runs[p->count]);
		if (error)
			break;
		block += p->runs[p->count++].count_blocks;
	}
	return p->count ? classify_goal(p) : error;
}

int plan_classify(struct write_plan *p)
{
	int error;

	journal_read_begin(p->fs->journal);
	error = classify_all(p);
	journal_read_end(p->fs->journal);
	return error;
}

int plan_classify_beside(struct write_plan *p)
{
	/* Who shares a block is not this inode's alone to change: that is asked where nothing moves. */
	return p->may_share || change_look(p->fs, classify_all, p) ? plan_classify(p) : 0;
}
