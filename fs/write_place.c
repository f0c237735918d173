#include "fs/write.h"

#include <errno.h>
#include <string.h>

#define WRITE_ALIGN_BYTES (256u << 10)
#define HUGE_BLOCKS (HUGE_BYTES >> BLOCK_SHIFT)

/* --- storing the data ----------------------------------------------------------------------- */

static void plan_bytes(const struct write_plan *p, uint64_t from, uint64_t to, uint8_t *out)
{
	if (p->buffer)
		memcpy(out, p->buffer + (from - p->pos), to - from);
	else
		memset(out, 0, to - from);
}

/* A whole block: what was there, zeros past the end of file, the new bytes over it. */
static int compose_block(const struct write_plan *p, const struct run *run, uint64_t file_block,
			 uint8_t *bounce)
{
	uint64_t start = file_block << BLOCK_SHIFT, stop = start + BLOCK_BYTES;
	uint64_t old = run->mapped && !run->unwritten && p->size > start
			   ? min_u64(p->size - start, BLOCK_BYTES)
			   : 0;
	blkno_t old_block = run->old_block + (file_block - run->file_block);
	int error = 0;

	memset(bounce, 0, BLOCK_BYTES);
	if (old && !plan_covers_block(p, file_block))
		error = media_read(p->fs->media, block_device_offset(old_block), bounce, old, NULL);
	if (!error)
		plan_bytes(p, max_u64(p->pos, start), min_u64(p->end, stop),
			   bounce + (max_u64(p->pos, start) - start));
	return error;
}

static int store_bytes(const struct write_plan *p, devoff_t offset, uint64_t pos, uint64_t length,
		       devoff_t *bad)
{
	if (!p->buffer)
		return media_zero(p->fs->media, offset, length, bad);
	return media_write(p->fs->media, offset, p->buffer + (pos - p->pos), length, bad);
}

static bool plan_cuts_block(const struct write_plan *p, uint64_t file_block)
{
	uint64_t start = file_block << BLOCK_SHIFT;

	return p->pos > start || p->end < start + BLOCK_BYTES;
}

/* *bad stays 0 when it was the reading of old content that failed. */
static int store_composed(const struct write_plan *p, const struct run *run, uint64_t file_block,
			  devoff_t *bad)
{
	uint8_t bounce[BLOCK_BYTES];
	blkno_t block = run->block + (file_block - run->file_block);
	int error = compose_block(p, run, file_block, bounce);

	if (error)
		return error;
	return media_write(p->fs->media, block_device_offset(block), bounce, BLOCK_BYTES, bad);
}

static int store_whole_blocks(const struct write_plan *p, const struct run *run, devoff_t *bad)
{
	uint64_t first = run->file_block, end = first + run->count_blocks;
	bool cut_last;
	int error = 0;

	if (plan_cuts_block(p, first)) {
		error = store_composed(p, run, first, bad);
		first++;
	}
	cut_last = first < end && plan_cuts_block(p, end - 1);
	if (!error && first < end - cut_last)
		error =
		    store_bytes(p, block_device_offset(run->block + (first - run->file_block)),
				first << BLOCK_SHIFT, (end - cut_last - first) << BLOCK_SHIFT, bad);
	if (!error && cut_last)
		error = store_composed(p, run, end - 1, bad);
	return error;
}

static int store_run(const struct write_plan *p, const struct run *run, devoff_t *bad)
{
	uint64_t start = run->file_block << BLOCK_SHIFT;
	uint64_t from = max_u64(p->pos, start);
	uint64_t to = min_u64(p->end, start + (run->count_blocks << BLOCK_SHIFT));

	*bad = 0;
	if (run->kind != RUN_IN_PLACE)
		return store_whole_blocks(p, run, bad);
	return store_bytes(p, block_device_offset(run->block) + (from - start), from, to - from,
			   bad);
}

/* --- fresh blocks --------------------------------------------------------------------------- */

static void plan_release_rejects(struct write_plan *p)
{
	while (p->count_rejects) {
		p->count_rejects--;
		alloc_unreserve(p->fs->alloc, p->rejects[p->count_rejects].start,
				p->rejects[p->count_rejects].count);
	}
}

static int plan_reject(struct write_plan *p, blkno_t start, uint64_t count)
{
	if (!count)
		return 0;
	if (p->count_rejects == WRITE_REJECTS) {
		alloc_unreserve(p->fs->alloc, start, count);
		return -EIO;
	}
	p->rejects[p->count_rejects++] = (struct block_range){start, count};
	return 0;
}

static blkno_t run_behind(const struct run *run)
{
	return run->block + run->count_blocks;
}

static blkno_t run_goal(const struct write_plan *p)
{
	return p->placed ? run_behind(&p->runs[p->placed - 1]) : p->goal;
}

/*
 * Set blocks aside for the start of the run; free blocks that are known to be bad (not yet
 * quarantined) are passed over.
 */
static int run_reserve(struct write_plan *p, struct run *run, blkno_t *start, uint64_t *count)
{
	struct alloc_request request = {
	    .goal = run_goal(p), .want_blocks = run->count_blocks, .least_blocks = 1, .align_blocks = 1};
	uint64_t good, got;
	int error = 0;

	if (!request.goal && run->file_block % HUGE_BLOCKS == 0 &&
	    p->end - p->pos >= WRITE_ALIGN_BYTES)
		request.align_blocks = HUGE_BLOCKS;
	while (!error) {
		error = alloc_reserve(p->fs->alloc, &request, start, &got);
		if (error)
			break;
		good = extent_good_blocks(p->fs, *start, got);
		if (good < got)
			error = plan_reject(p, *start + good, got - good);
		if (error && good)
			alloc_unreserve(p->fs->alloc, *start, good);
		if (!error && good) {
			*count = good;
			return 0;
		}
	}
	return error;
}

/*
 * Split the run where the fresh blocks end: the rest becomes the next run, or is left to the next
 * plan.
 */
static void plan_split(struct write_plan *p, unsigned index, uint64_t count)
{
	struct run *run = &p->runs[index];
	struct run rest = *run;

	rest.file_block += count;
	rest.count_blocks -= count;
	rest.old_block += count;
	rest.block = rest.old_block;
	run->count_blocks = count;
	if (!rest.count_blocks || index + 1 == WRITE_RUNS)
		return;
	if (p->count == WRITE_RUNS)
		p->count--;
	memmove(&p->runs[index + 2], &p->runs[index + 1], (p->count - index - 1) * sizeof(rest));
	p->runs[index + 1] = rest;
	p->count++;
}

/* -EAGAIN: the fresh blocks were bad, try others. */
static int place_new(struct write_plan *p, unsigned index)
{
	struct run *run = &p->runs[index];
	uint64_t count = 0, good;
	blkno_t start = 0;
	devoff_t bad;
	int error = run_reserve(p, run, &start, &count);

	if (error)
		return error;
	plan_split(p, index, count);
	run->block = start;
	error = store_run(p, run, &bad);
	if (!error)
		return 0;
	run->block = run->old_block;
	good = error == -EIO && bad ? (bad >> BLOCK_SHIFT) - start : count;
	if (good)
		alloc_unreserve(p->fs->alloc, start, good);
	if (good < count)
		return plan_reject(p, start + good, count - good) ? -EIO : -EAGAIN;
	return error;
}

/* -EAGAIN: it cannot be cleared, or was bad again. */
static int place_heal(struct write_plan *p, struct run *run)
{
	devoff_t offset = block_device_offset(run->block), bad;
	uint64_t length = run->count_blocks << BLOCK_SHIFT;
	int error = media_clear(p->fs->media, offset, length);

	if (!error) {
		error = store_run(p, run, &bad);
		if (!error)
			return 0;
		media_bad_add(p->fs->media, offset, length);
	}
	if (error != -ENOTSUP && error != -EIO)
		return error;
	p->no_heal = true;
	return -EAGAIN;
}

static int place_run(struct write_plan *p, unsigned index)
{
	struct run *run = &p->runs[index];
	devoff_t bad;
	int error;

	if (run->kind == RUN_NEW)
		return place_new(p, index);
	if (run->kind == RUN_HEAL)
		return place_heal(p, run);
	error = store_run(p, run, &bad);
	return error == -EIO && bad ? -EAGAIN
				    : error; /* a fault met by the store: known now, plan anew */
}

int plan_place(struct write_plan *p)
{
	int error = 0;

	while (p->placed < p->count && !error) {
		error = place_run(p, p->placed);
		if (!error)
			p->placed++;
	}
	plan_release_rejects(p);
	/* Everything stored for this plan is durable now: the transaction that follows may name it.
	 */
	media_drain(p->fs->media);
	return p->placed ? 0 : error;
}
