#include "fs/write.h"

#include <errno.h>

#include "fs/change.h"
#include "fs/flags.h"

#define WRITE_ATTEMPTS \
	64 /* plans made anew without progress: each follows a fault newly met, or a range lost to \
	      quarantine */

static int apply_new(struct write_plan *p, struct tx *tx, const struct run *run,
		     struct inode_record *record)
{
	struct extent e = {
	    .file_block = run->file_block, .block = run->block, .count_blocks = run->count_blocks};
	uint64_t end = run->file_block + run->count_blocks, next = run->file_block, unmapped;
	int error = alloc_take_exact(p->fs->alloc, tx, run->block, run->count_blocks);

	if (error)
		return error == -EEXIST ? -EAGAIN : error;
	while (run->mapped && next < end) {
		uint64_t from = next;

		error = extent_unmap(p->fs, tx, p->inode, from, end, &next, &unmapped);
		if (error)
			return error;
		if (next == from)
			return -EFBIG;
		record->count_blocks -= unmapped;
	}
	record->count_blocks += run->count_blocks;
	return extent_insert(p->fs, tx, p->inode->ino, &e);
}

static int apply_run(struct write_plan *p, struct tx *tx, const struct run *run,
		     struct inode_record *record)
{
	int error = 0;

	if (run->kind == RUN_NEW)
		return apply_new(p, tx, run, record);
	if (run->kind == RUN_HEAL)
		error = ledger_cleared(p->fs->notify, tx, block_device_offset(run->block),
				       run->count_blocks << BLOCK_SHIFT);
	if (!error && run->unwritten)
		error = extent_set_written(p->fs, tx, p->inode->ino, run->file_block,
					   run->count_blocks);
	return error;
}

static uint64_t plan_placed_end(const struct write_plan *p)
{
	const struct run *last = &p->runs[p->placed - 1];

	return min_u64(p->end, (last->file_block + last->count_blocks) << BLOCK_SHIFT);
}

/* Beside others it may be done several times, each time from what is set aside for this plan: that goes back only when all has failed. */
static int plan_change(struct tx *tx, void *arg)
{
	struct write_plan *p = arg;
	struct inode_record record;
	unsigned i;
	int error = 0;

	inode_copy_record(p->inode, &record);
	for (i = 0; i < p->placed && !error; i++)
		error = apply_run(p, tx, &p->runs[i], &record);
	if (!p->keep_size)
		record.size_bytes = max_u64(record.size_bytes, plan_placed_end(p));
	record_touch(&record);
	return error ? error : inode_update(p->inode, tx, &record);
}

/* The blocks go back; what was cleared but not recorded as such is bad as before. */
static void plan_undo(struct write_plan *p)
{
	unsigned i;

	for (i = 0; i < p->placed; i++) {
		const struct run *run = &p->runs[i];

		if (run->kind == RUN_NEW)
			alloc_unreserve(p->fs->alloc, run->block, run->count_blocks);
		if (run->kind == RUN_HEAL)
			media_bad_add(p->fs->media, block_device_offset(run->block),
				      run->count_blocks << BLOCK_SHIFT);
	}
	p->placed = 0;
}

static void plan_publish_repairs(const struct write_plan *p)
{
	unsigned i;

	for (i = 0; i < p->placed; i++) {
		const struct run *run = &p->runs[i];
		struct event event = {
		    .type = EVENT_REPAIRED, .inumber = p->inode->ino, .action = "rewritten"};

		if (run->kind != RUN_HEAL &&
		    !(run->kind == RUN_NEW && run->mapped && !run->unwritten))
			continue;
		if (run->kind == RUN_NEW &&
		    extent_good_blocks(p->fs, run->old_block, run->count_blocks) ==
			run->count_blocks)
			continue;
		event.pos = run->file_block << BLOCK_SHIFT;
		event.len = run->count_blocks << BLOCK_SHIFT;
		event.device_offset = block_device_offset(run->block);
		event_publish(p->fs->events, &event);
	}
}

static int plan_commit(struct write_plan *p)
{
	bool named = p->keep_size || plan_placed_end(p) <= p->size;
	unsigned i;
	int error;

	for (i = 0; i < p->placed; i++)
		named = named && p->runs[i].kind == RUN_IN_PLACE;
	if (named) {
		if (!p->keep_size)
			inode_touch_lazily(p->inode);
		return 0;
	}
	error = change_run(p->fs, TX_NORMAL, plan_change, p);
	if (error)
		plan_undo(p);
	else if (media_bad_any(p->fs->media) || p->runs[0].kind == RUN_HEAL)
		plan_publish_repairs(p);
	return error;
}

/* --- the loop ------------------------------------------------------------------------------- */

/* *moved bytes were written, and named. */
static int plan_run(struct write_plan *p, uint64_t *moved)
{
	int error;

	*moved = 0;
	p->size = file_size(p->inode);
	p->may_share = file_may_share(p->inode);
	error = plan_classify_beside(p);
	if (!error)
		error = plan_place(p);
	if (!error)
		error = plan_commit(p);
	if (!error)
		*moved = plan_placed_end(p) - p->pos;
	return error;
}

/* Is it worth another try? Once for space that only waits for its transaction to be durable. */
static bool plan_may_retry(struct write_plan *p, int error, unsigned *attempts, bool *synced)
{
	if (error == -EAGAIN && ++*attempts < WRITE_ATTEMPTS)
		return true;
	if (error != -ENOSPC || *synced)
		return false;
	*synced = true;
	return fs_make_space(p->fs);
}

static int write_all(struct write_plan *p)
{
	unsigned attempts = 0;
	bool synced = false;
	uint64_t moved;
	int error;

	while (p->pos < p->end) {
		error = plan_run(p, &moved);
		if (error && !plan_may_retry(p, error, &attempts, &synced))
			return error == -EAGAIN ? -EIO : error;
		if (error)
			continue;
		attempts = 0;
		synced = p->no_heal = false;
		p->pos += moved;
		p->buffer = p->buffer ? p->buffer + moved : NULL;
	}
	return 0;
}

int file_zero_edge(struct inode *inode, uint64_t pos, uint64_t length)
{
	struct write_plan p = {
	    .inode = inode, .fs = inode->fs, .pos = pos, .end = pos + length, .keep_size = true};
	struct extent e;
	uint64_t covered;
	unsigned count;
	int error = extent_collect_unlocked(inode->fs, inode->ino, pos >> BLOCK_SHIFT,
					    (pos >> BLOCK_SHIFT) + 1, &e, 1, &count, &covered);

	if (error || !count || (e.flags & EXTENT_UNWRITTEN))
		return error;
	return write_all(&p);
}

int file_zero_tail(struct inode *inode)
{
	uint64_t size = file_size(inode);

	if (size % BLOCK_BYTES == 0)
		return 0;
	return file_zero_edge(inode, size, BLOCK_BYTES - size % BLOCK_BYTES);
}

int file_write_locked(struct inode *inode, uint64_t pos, const void *buffer, size_t size,
		      size_t *done)
{
	struct write_plan p = {
	    .inode = inode, .fs = inode->fs, .pos = pos, .end = pos + size, .buffer = buffer};
	int error = 0;

	if (pos > file_size(inode))
		error = file_zero_tail(inode);
	if (!error)
		error = file_follow_hint(inode, pos, pos + size);
	if (!error)
		error = write_all(&p);
	*done = (size_t)(p.pos - pos);
	return error;
}

static bool plan_is_in_place(const struct write_plan *p)
{
	unsigned i;

	for (i = 0; i < p->count; i++)
		if (p->runs[i].kind != RUN_IN_PLACE)
			return false;
	return true;
}

int file_write_in_place(struct inode *inode, uint64_t pos, const void *buffer, size_t size,
			size_t *done)
{
	struct write_plan p = {
	    .inode = inode, .fs = inode->fs, .pos = pos, .end = pos + size, .buffer = buffer};
	uint64_t moved;
	int error = 0;

	p.size = file_size(inode);
	p.may_share = file_may_share(inode);
	while (p.end <= p.size && p.pos < p.end) {
		error = plan_classify(&p);
		if (error || !plan_is_in_place(&p))
			break;
		error = plan_place(&p);
		if (error)
			break;
		moved = plan_placed_end(&p) - p.pos;
		p.pos += moved;
		p.buffer += moved;
	}
	*done = (size_t)(p.pos - pos);
	if (*done)
		inode_touch_lazily(inode);
	return error == -ENOSPC ? error : 0;
}

static int write_check(struct fs *fs, uint64_t pos, size_t *size)
{
	int error = fs_refuses_changes(fs);

	if (error)
		return error;
	if (pos >= FS_FILE_MAX && *size)
		return -EFBIG;
	*size = (size_t)min_u64(*size, FS_FILE_MAX - pos);
	return 0;
}

/* What should be durable and is not has not been written. */
static int write_settle(struct inode *inode, int error, size_t *done)
{
	int settled = flags_settle(inode, error);

	if (settled && !error)
		*done = 0;
	return settled;
}

int fs_write(struct fs *fs, inum_t ino, uint64_t pos, const void *buffer, size_t size, size_t *done)
{
	return fs_write_as(fs, ino, false, pos, buffer, size, done, NULL);
}

int fs_write_as(struct fs *fs, inum_t ino, bool kills_ids, uint64_t pos, const void *buffer, size_t size, size_t *done, unsigned *ids)
{
	struct inode *inode;
	size_t more = 0;
	int error = write_check(fs, pos, &size);

	*done = 0;
	if (!error)
		error = file_get(fs, ino, &inode);
	if (error)
		return error;
	lock_read(&inode->data_lock, LOCK_DATA);
	error = flags_verify_write(inode, pos);
	if (!error)
		error = inode_kill_privileges(inode, kills_ids, ids);
	if (!error)
		error = file_write_in_place(inode, pos, buffer, size, done);
	pthread_rwlock_unlock(&inode->data_lock);
	if (!error && *done < size) {
		lock_write(&inode->data_lock, LOCK_DATA);
		error = flags_verify_write(inode, pos);
		if (!error)
			error = file_write_locked(inode, pos + *done, (const uint8_t *)buffer + *done,
						  size - *done, &more);
		pthread_rwlock_unlock(&inode->data_lock);
		*done += more;
	}
	error = write_settle(inode, error, done);
	inode_put(inode);
	return error;
}

int fs_append(struct fs *fs, inum_t ino, const void *buffer, size_t size, size_t *done)
{
	struct inode *inode;
	uint64_t pos;
	int error = file_get(fs, ino, &inode);

	*done = 0;
	if (error)
		return error;
	lock_write(&inode->data_lock, LOCK_DATA);
	pos = file_size(inode);
	error = write_check(fs, pos, &size);
	if (!error)
		error = flags_verify_write(inode, pos);
	if (!error)
		error = file_write_locked(inode, pos, buffer, size, done);
	pthread_rwlock_unlock(&inode->data_lock);
	error = write_settle(inode, error, done);
	inode_put(inode);
	return error;
}
