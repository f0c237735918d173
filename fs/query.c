#include "fs/data.h"

#include <errno.h>
#include <stdlib.h>

#include "journal/root.h"
#include "notify/scrub.h"

#define MAP_BATCH 64

/* --- map of a file -------------------------------------------------------------------------- */

struct map_query {
	struct fs *fs;
	inum_t ino;
	bool may_share;
	uint64_t pos, end; /* bytes */
	struct fs_map_extent batch[MAP_BATCH];
	unsigned count;
	uint64_t next; /* file block */
};

static void map_add(struct map_query *q, const struct extent *e, bool shared)
{
	uint64_t start = e->file_block << BLOCK_SHIFT,
		 end = start + (e->count_blocks << BLOCK_SHIFT);
	uint64_t from = max_u64(start, q->pos), to = min_u64(end, q->end);

	if (from < to)
		q->batch[q->count++] = (struct fs_map_extent){
		    .pos = from,
		    .length_bytes = to - from,
		    .device_offset = block_device_offset(e->block) + (from - start),
		    .shared = shared,
		    .written = !(e->flags & EXTENT_UNWRITTEN),
		};
	q->next = e->file_block + e->count_blocks;
}

/* Under the metadata lock. */
static int map_fill(struct map_query *q, uint64_t end)
{
	struct extent e;
	bool shared;
	int error = 0;

	q->count = 0;
	while (!error && q->count < MAP_BATCH && q->next < end) {
		error = extent_lookup(q->fs, q->ino, q->next, &e);
		if (error == -ENOENT || (!error && e.file_block >= end)) {
			q->next = end;
			return 0;
		}
		if (!error)
			error = extent_shared_run(q->fs, q->ino, &e, q->may_share, &shared,
						  &e.count_blocks);
		if (!error)
			map_add(q, &e, shared);
	}
	return error;
}

static int map_run(struct map_query *q, fs_map_fn *visit, void *arg)
{
	uint64_t end = min_u64(file_block_up(q->end), FILE_BLOCKS_END);
	unsigned i;
	int error = 0;

	q->next = q->pos >> BLOCK_SHIFT;
	while (!error && q->next < end) {
		journal_read_begin(q->fs->journal);
		error = map_fill(q, end);
		journal_read_end(q->fs->journal);
		for (i = 0; i < q->count && !error; i++)
			error = visit(arg, &q->batch[i]);
	}
	return error;
}

int fs_map(struct fs *fs, inum_t ino, uint64_t pos, uint64_t length, fs_map_fn *visit, void *arg)
{
	struct map_query q = {.fs = fs, .ino = ino, .pos = pos};
	struct inode *inode;
	int error = file_get(fs, ino, &inode);

	if (error)
		return error;
	q.end = pos + min_u64(length, UINT64_MAX - pos);
	q.may_share = file_may_share(inode);
	error = map_run(&q, visit, arg);
	inode_put(inode);
	return error;
}

/* --- the ledger ----------------------------------------------------------------------------- */

struct badblock_list {
	struct badblock_record *records;
	size_t count, capacity;
};

static int badblock_add(void *arg, const struct badblock_record *record)
{
	struct badblock_list *list = arg;
	size_t capacity = list->capacity ? list->capacity * 2 : 64;
	struct badblock_record *records;

	if (list->count == list->capacity) {
		records = realloc(list->records, capacity * sizeof(*records));
		if (!records)
			return -ENOMEM;
		list->records = records;
		list->capacity = capacity;
	}
	list->records[list->count++] = *record;
	return 0;
}

int fs_badblocks(struct fs *fs, fs_badblock_fn *visit, void *arg)
{
	struct badblock_list list = {0};
	size_t i;
	int error = ledger_walk_badblocks(fs->notify, badblock_add, &list);

	for (i = 0; i < list.count && !error; i++)
		error = visit(arg, &list.records[i]);
	free(list.records);
	return error;
}

static int summary_count_file(void *arg, const struct fs_damage *damage)
{
	struct {
		inum_t last;
		uint64_t files;
	} *count = arg;

	if (damage->ino != count->last)
		count->files++;
	count->last = damage->ino;
	return 0;
}

/* Sets what there is to say beside it, too. */
static const char *summary_state(struct fs *fs, struct fs_summary *s)
{
	bool shutdown, lost;

	pthread_mutex_lock(&fs->state_lock);
	shutdown = fs->shutdown;
	lost = fs->metadata_lost;
	s->state_reason = fs->shutdown_reason;
	pthread_mutex_unlock(&fs->state_lock);
	if (lost)
		s->count_losses = loss_list(fs, s->losses, FS_LOSSES_MAX, &s->lost_blocks);
	if (shutdown)
		return "shutdown";
	/*
	 * A tool that only looks opens everything read-only: that says nothing about the
	 * filesystem.
	 */
	if (lost || (fs_is_readonly(fs) && !fs->options.tools))
		return "readonly";
	return s->badblock_bytes || s->damaged_files ? "degraded" : "ok";
}

/* What the hardware and the kernel know, asked now: a region may have lost its driver. */
static int summary_outside(struct fs *fs, struct fs_summary *s)
{
	struct scrub_state scrub;
	struct source_list list;
	struct why none;
	int error = source_badblocks(fs->media, &list);

	if (error)
		return error;
	s->kernel_badblocks = source_state_name(list.state);
	s->kernel_badblocks_why = list.why;
	if (list.state != SOURCE_NONE && scrub_ask(fs->media, &scrub, &none) == 0)
		s->hardware_scrub = scrub.is_running ? "running" : "idle";
	source_list_fini(&list);
	return 0;
}

int fs_summary(struct fs *fs, struct fs_summary *out)
{
	struct {
		inum_t last;
		uint64_t files;
	} count = {0};
	struct fs_summary s = {.size_bytes = fs_super(fs)->size_bytes};
	int error = fs_damaged(fs, summary_count_file, &count);

	/* Where metadata is lost, those that can be told are counted. */
	if (!error || error == -EIO || error == -EUCLEAN)
		error = summary_outside(fs, &s);
	if (error)
		return error;
	journal_read_begin(fs->journal);
	s.free_bytes = root_get(fs->journal, ROOT_FREE_BLOCKS) << BLOCK_SHIFT;
	s.badblock_bytes = root_get(fs->journal, ROOT_BADBLOCK_BYTES);
	s.quarantined_bytes = root_get(fs->journal, ROOT_QUARANTINED_BLOCKS) << BLOCK_SHIFT;
	journal_read_end(fs->journal);
	s.damaged_files = count.files;
	s.sigbus_count = ledger_sigbus_count(fs->notify);
	s.state = summary_state(fs, &s);
	*out = s;
	return 0;
}

/* --- injection ------------------------------------------------------------------------------ */

int fs_inject(struct fs *fs, devoff_t offset, uint64_t length, bool latent)
{
	return notify_inject(fs->notify, offset, length, latent);
}

int fs_uninject(struct fs *fs, devoff_t offset, uint64_t length, uint64_t *removed_bytes)
{
	return notify_uninject(fs->notify, offset, length, removed_bytes);
}

int fs_notify_wait(struct fs *fs, unsigned timeout_ms)
{
	return notify_wait(fs->notify, timeout_ms);
}

void fs_journal_counts(struct fs *fs, struct journal_counts *out)
{
	journal_counts(fs->journal, out);
}

int fs_refresh_badblocks(struct fs *fs, unsigned timeout_ms)
{
	notify_refresh(fs->notify);
	return notify_wait(fs->notify, timeout_ms);
}
