#include "fs/data.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "fs/change.h"
#include "fs/flags.h"

#define COLLECT_BATCH 32
#define FALLOCATE_STEP_BLOCKS 64 /* what one more piece may join: an unmapping step, an insert, the intent */

struct space_run {
	blkno_t start;
	uint64_t count;
};

/* Blocks set aside in DRAM for all of an operation, so that it has its space before it changes anything. Used from the front. */
struct space {
	struct space_run *runs;
	size_t count, capacity;
	size_t at;	   /* the run that is being used */
	uint64_t used;	   /* blocks of it */
};

struct fallocate {
	struct inode *inode;
	struct fs *fs;
	uint64_t pos, end; /* bytes */
	struct space space;
	bool keeps_times;
};

/* --- space ---------------------------------------------------------------------------------- */

static int space_add(struct space *space, blkno_t start, uint64_t count)
{
	size_t capacity = space->capacity ? 2 * space->capacity : 8;
	struct space_run *runs;

	if (space->count == space->capacity) {
		runs = realloc(space->runs, capacity * sizeof(*runs));
		if (!runs)
			return -ENOMEM;
		space->runs = runs;
		space->capacity = capacity;
	}
	space->runs[space->count++] = (struct space_run){start, count};
	return 0;
}

/* The block behind what the file has before the range; 0: nothing there. */
static int space_goal(struct fallocate *f, blkno_t *goal)
{
	uint64_t first = f->pos >> BLOCK_SHIFT, covered;
	struct extent before;
	unsigned count = 0;
	int error = first ? extent_collect_unlocked(f->fs, f->inode->ino, first - 1, first, &before,
						    1, &count, &covered)
			  : 0;

	*goal = !error && count ? before.block + before.count_blocks : 0;
	return error;
}

static int space_reserve(struct fallocate *f, uint64_t *need, blkno_t goal)
{
	struct alloc_request request = {
	    .goal = goal, .want_blocks = *need, .least_blocks = 1, .align_blocks = 1};
	uint64_t got;
	blkno_t start;
	int error;

	if (!goal && *need >= HUGE_BYTES / BLOCK_BYTES)
		request.align_blocks = HUGE_BYTES / BLOCK_BYTES;
	error = alloc_reserve(f->fs->alloc, &request, &start, &got);
	if (error)
		return error;
	error = space_add(&f->space, start, got);
	if (error)
		alloc_unreserve(f->fs->alloc, start, got);
	else
		*need -= got;
	return error;
}

/* Nobody is kept from the last blocks by a wish that cannot be met anyway. */
static bool space_is_hopeless(struct fs *fs, uint64_t need)
{
	uint64_t free_blocks, reserve;

	journal_read_begin(fs->journal);
	free_blocks = alloc_free_blocks(fs->alloc);
	reserve = alloc_reserve_blocks(fs->alloc);
	journal_read_end(fs->journal);
	return need > free_blocks || need + reserve > free_blocks;
}

static int space_fill(struct fallocate *f, uint64_t need)
{
	bool synced = false;
	blkno_t goal;
	int error = space_goal(f, &goal);

	while (!error && need) {
		error = space_is_hopeless(f->fs, need) ? -ENOSPC : space_reserve(f, &need, goal);
		goal = 0;
		if (error == -ENOSPC && !synced && fs_make_space(f->fs)) {
			synced = true;
			error = 0;
		}
	}
	return error;
}

/* What was not used goes back. */
static void space_fini(struct fallocate *f)
{
	struct space *space = &f->space;

	for (; space->at < space->count; space->at++, space->used = 0)
		alloc_unreserve(f->fs->alloc, space->runs[space->at].start + space->used,
				space->runs[space->at].count - space->used);
	free(space->runs);
}

/* At most `want` blocks of the run that is next, as an extent. -ENOSPC: more is needed than was counted. */
static int space_peek(const struct space *space, uint64_t file_block, uint64_t want, struct extent *out)
{
	const struct space_run *run = &space->runs[space->at];

	if (space->at == space->count)
		return -ENOSPC;
	*out = (struct extent){.file_block = file_block,
			       .block = run->start + space->used,
			       .count_blocks = min_u64(want, run->count - space->used),
			       .flags = EXTENT_UNWRITTEN};
	return 0;
}

/* Map it, where there is a hole. */
static int space_map(struct fallocate *f, struct tx *tx, const struct extent *e, struct inode_record *record)
{
	struct space *space = &f->space;
	int error = alloc_take_exact(f->fs->alloc, tx, e->block, e->count_blocks);

	if (error)
		return error == -EEXIST ? -EUCLEAN : error;
	space->used += e->count_blocks;
	if (space->used == space->runs[space->at].count) {
		space->at++;
		space->used = 0;
	}
	record->count_blocks += e->count_blocks;
	return extent_insert(f->fs, tx, f->inode->ino, e);
}

/* --- pieces --------------------------------------------------------------------------------- */

enum piece_kind {
	PIECE_HOLE,
	PIECE_UNWRITTEN,
	PIECE_OWN,	/* written, ours alone, good */
	PIECE_FOREIGN,	/* written, but shared or bad: other blocks are to take its place */
};

/* The alike run of file blocks at file_block, up to end. Under the metadata lock. */
static int piece_at(struct fallocate *f, uint64_t file_block, uint64_t end, struct extent *e, enum piece_kind *kind)
{
	bool shared;
	int error = extent_lookup(f->fs, f->inode->ino, file_block, e);

	if (error && error != -ENOENT)
		return error;
	*kind = PIECE_HOLE;
	if (error || e->file_block > file_block) {
		e->count_blocks = (error ? end : min_u64(end, e->file_block)) - file_block;
		e->file_block = file_block;
		return 0;
	}
	e->count_blocks = min_u64(e->count_blocks, end - file_block);
	*kind = PIECE_UNWRITTEN;
	if (e->flags & EXTENT_UNWRITTEN)
		return 0;
	error = extent_shared_run(f->fs, f->inode->ino, e, file_may_share(f->inode), &shared, &e->count_blocks);
	if (error)
		return error;
	*kind = shared ? PIECE_FOREIGN : PIECE_OWN;
	if (!shared && extent_good_blocks(f->fs, e->block, e->count_blocks) < e->count_blocks)
		*kind = PIECE_FOREIGN;
	return 0;
}

/* How many blocks [file_block, end) lacks; with `own`, also for what is not this file's alone within [own, own_end). */
static int space_count(struct fallocate *f, uint64_t own, uint64_t own_end, uint64_t *need)
{
	uint64_t block = f->pos >> BLOCK_SHIFT, end = file_block_up(f->end);
	unsigned pieces = 0;
	int error = 0;

	*need = 0;
	journal_read_begin(f->fs->journal);
	while (!error && block < end) {
		uint64_t stop = block < own ? own : block < own_end ? own_end : end;
		enum piece_kind kind;
		struct extent e;

		error = piece_at(f, block, stop, &e, &kind);
		if (error)
			break;
		if (kind == PIECE_HOLE || (kind == PIECE_FOREIGN && block >= own && block < own_end))
			*need += e.count_blocks;
		block += e.count_blocks;
		if (++pieces % COLLECT_BATCH)
			continue;
		/* The data lock keeps the map as it is; others need not wait for all of it. */
		journal_read_end(f->fs->journal);
		journal_read_begin(f->fs->journal);
	}
	journal_read_end(f->fs->journal);
	return error;
}

/* --- allocate ------------------------------------------------------------------------------- */

/* Fill holes from *file_block on, as many as one transaction takes. */
static int allocate_apply(struct fallocate *f, struct tx *tx, uint64_t *file_block, uint64_t end,
			  struct inode_record *record)
{
	enum piece_kind kind;
	struct extent e;
	int error = 0;

	for (unsigned steps = 0; *file_block < end && steps < EXTENTS_PER_LINK; *file_block += e.count_blocks) {
		error = piece_at(f, *file_block, end, &e, &kind);
		if (error)
			return error;
		if (kind != PIECE_HOLE)
			continue;
		if (steps++ && tx_room(tx) < FALLOCATE_STEP_BLOCKS)
			break;
		error = space_peek(&f->space, *file_block, e.count_blocks, &e);
		if (!error)
			error = space_map(f, tx, &e, record);
		if (error)
			return error;
	}
	return 0;
}

struct allocate_link {
	struct fallocate *f;
	struct space before;
	uint64_t from, next, end; /* file blocks */
};

/* Beside others all or nothing: there is less room, and one transaction is to do. */
static int allocate_change(struct tx *tx, void *arg)
{
	struct allocate_link *link = arg;
	struct fallocate *f = link->f;
	struct inode_record record;
	int error;

	f->space = link->before;
	link->next = link->from;
	inode_copy_record(f->inode, &record);
	error = allocate_apply(f, tx, &link->next, link->end, &record);
	if (!error && link->next < link->end && tx_is_beside(tx))
		return -EAGAIN;
	if (!f->keeps_times)
		record_touch(&record);
	return error ? error : inode_update(f->inode, tx, &record);
}

static int allocate_link(struct fallocate *f, uint64_t *file_block, uint64_t end)
{
	struct allocate_link link = {.f = f, .before = f->space, .from = *file_block, .end = end};
	int error = change_run(f->fs, TX_NORMAL, allocate_change, &link);

	if (error)
		f->space = link.before;
	else
		*file_block = link.next;
	return error;
}

/* The holes of the range become unwritten blocks: those that were set aside. */
static int allocate_holes(struct fallocate *f)
{
	uint64_t file_block = f->pos >> BLOCK_SHIFT, end = file_block_up(f->end);
	int error = 0;

	while (!error && f->space.at < f->space.count && file_block < end)
		error = allocate_link(f, &file_block, end);
	return error;
}

static int allocate_range(struct fallocate *f)
{
	uint64_t need;
	int error = space_count(f, 0, 0, &need);

	if (!error)
		error = space_fill(f, need);
	if (!error)
		error = allocate_holes(f);
	/* Where nothing was missing too: so do ext4 and XFS. */
	if (!error)
		inode_touch_lazily(f->inode);
	return error;
}

/* --- the extent-size hint ------------------------------------------------------------------- */

/* Whole multiples of the hint in one run each, from such a place on the device where there is one. */
static int hint_reserve(struct fallocate *f, uint64_t *need, uint64_t hint, blkno_t goal)
{
	struct alloc_request request = {
	    .goal = goal, .want_blocks = *need, .least_blocks = min_u64(*need, hint), .align_blocks = hint};
	uint64_t got, kept;
	blkno_t start;
	int error = alloc_reserve(f->fs->alloc, &request, &start, &got);

	if (error)
		return error;
	kept = got < *need ? round_down_u64(got, hint) : got;
	if (kept < got)
		alloc_unreserve(f->fs->alloc, start + kept, got - kept);
	error = space_add(&f->space, start, kept);
	if (error)
		alloc_unreserve(f->fs->alloc, start, kept);
	else
		*need -= kept;
	return error;
}

static int hint_fill(struct fallocate *f, uint64_t hint)
{
	uint64_t need;
	blkno_t goal;
	int error = space_count(f, 0, 0, &need);

	if (!error && need && space_is_hopeless(f->fs, need))
		error = -ENOSPC;
	if (!error && need)
		error = space_goal(f, &goal);
	while (!error && need) {
		error = hint_reserve(f, &need, hint, goal);
		goal = 0;
	}
	return error ? error : allocate_holes(f);
}

/*
 * Unwritten blocks for what is about to be written: nothing in them can be seen before it was, and what is left over waits for later writes. A hint is no promise: where
 * the space or its shape is lacking the write takes what it needs, and no more.
 */
int file_follow_hint(struct inode *inode, uint64_t pos, uint64_t end)
{
	struct fallocate f = {.fs = inode->fs, .inode = inode, .keeps_times = true};
	uint64_t hint;
	int error;

	lock_mutex(&inode->attr_lock, LOCK_OBJECT);
	hint = inode->record.extent_hint;
	pthread_mutex_unlock(&inode->attr_lock);
	if (hint < 2 || pos >= end)
		return 0;
	f.pos = round_down_u64(pos >> BLOCK_SHIFT, hint) << BLOCK_SHIFT;
	f.end = min_u64(round_up_u64(file_block_up(end), hint) << BLOCK_SHIFT, round_down_u64(FS_FILE_MAX, BLOCK_BYTES));
	error = hint_fill(&f, hint);
	space_fini(&f);
	return error == -ENOSPC ? 0 : error;
}

/* --- punch ---------------------------------------------------------------------------------- */

/* The parts of blocks at both ends, where data of this file are next to the range. */
static int punch_edges(struct fallocate *f, uint64_t size)
{
	uint64_t end = min_u64(f->end, size), head_end, tail;
	int error = 0;

	if (f->pos >= end)
		return 0;
	head_end = min_u64(round_up_u64(f->pos, BLOCK_BYTES), end);
	if (head_end > f->pos)
		error = file_zero_edge(f->inode, f->pos, head_end - f->pos);
	tail = round_down_u64(end, BLOCK_BYTES);
	if (!error && f->end < size && tail >= head_end && tail < end)
		error = file_zero_edge(f->inode, tail, end - tail);
	return error;
}

/* The whole blocks of the range: their content goes. */
static void punch_blocks(const struct fallocate *f, uint64_t *first, uint64_t *end)
{
	uint64_t size = file_size(f->inode);

	*first = file_block_up(f->pos);
	*end = f->end >= size ? file_block_up(f->end) : f->end >> BLOCK_SHIFT;
}

static int punch_range(struct fallocate *f)
{
	uint64_t first, end;
	int error = punch_edges(f, file_size(f->inode));

	punch_blocks(f, &first, &end);
	if (!error && first < end)
		error = file_unmap_chain(f->inode, INTENT_PUNCH, first, end, NULL);
	if (!error)
		inode_touch_lazily(f->inode);
	return error;
}

/* --- zero ----------------------------------------------------------------------------------- */

/*
 * A chain like a punch, and with the same intent: after a crash mount takes the rest of the range away, which reads as zeros too. That the blocks are kept was
 * not promised yet.
 */
struct zero_chain {
	struct fallocate *f;
	struct intent_record intent; /* args: inode, next file block, end */
	uint64_t id;
	bool begun;
};

/* Other blocks take the place of the piece, or of what one step can take away of it. */
static int zero_replace(struct fallocate *f, struct tx *tx, struct extent *e, struct inode_record *record)
{
	struct extent fresh;
	uint64_t next, unmapped;
	int error = space_peek(&f->space, e->file_block, e->count_blocks, &fresh);

	if (error)
		return error;
	error = extent_unmap(f->fs, tx, f->inode, fresh.file_block, fresh.file_block + fresh.count_blocks,
			     &next, &unmapped);
	if (error)
		return error;
	if (next == fresh.file_block || unmapped > record->count_blocks)
		return -EUCLEAN;
	record->count_blocks -= unmapped;
	fresh.count_blocks = e->count_blocks = next - fresh.file_block;
	return space_map(f, tx, &fresh, record);
}

static int zero_apply(struct fallocate *f, struct tx *tx, uint64_t *file_block, uint64_t end,
		      struct inode_record *record)
{
	enum piece_kind kind;
	struct extent e;
	int error = 0;

	for (unsigned steps = 0; *file_block < end && steps < EXTENTS_PER_LINK; *file_block += e.count_blocks) {
		if (steps && tx_room(tx) < FALLOCATE_STEP_BLOCKS)
			break;
		error = piece_at(f, *file_block, end, &e, &kind);
		if (!error && kind == PIECE_OWN)
			error = extent_set_unwritten(f->fs, tx, f->inode->ino, *file_block, e.count_blocks);
		else if (!error && kind == PIECE_FOREIGN)
			error = zero_replace(f, tx, &e, record);
		if (error)
			return error;
		steps += kind == PIECE_OWN || kind == PIECE_FOREIGN;
	}
	return 0;
}

static int zero_link_intent(struct zero_chain *chain, struct tx *tx)
{
	struct fs *fs = chain->f->fs;

	if (chain->intent.args[1] >= chain->intent.args[2])
		return chain->begun ? intent_end(fs, tx, chain->id) : 0;
	if (chain->begun)
		return intent_advance(fs, tx, chain->id, &chain->intent);
	return intent_begin(fs, tx, &chain->intent, &chain->id);
}

struct zero_link {
	const struct zero_chain *from;
	struct zero_chain to;
	struct space before;
};

/* Beside others all or nothing, as an intent would be written where all meet. */
static int zero_change(struct tx *tx, void *arg)
{
	struct zero_link *link = arg;
	struct zero_chain *chain = &link->to;
	struct fallocate *f = link->from->f;
	struct inode_record record;
	int error;

	if (link->from->begun && tx_is_beside(tx))
		return -EAGAIN;
	*chain = *link->from;
	f->space = link->before;
	inode_copy_record(f->inode, &record);
	error = zero_apply(f, tx, &chain->intent.args[1], chain->intent.args[2], &record);
	if (!error && chain->intent.args[1] < chain->intent.args[2] && tx_is_beside(tx))
		return -EAGAIN;
	record_touch(&record);
	if (!error)
		error = inode_update(f->inode, tx, &record);
	return error ? error : zero_link_intent(chain, tx);
}

static int zero_link(struct zero_chain *chain)
{
	struct fallocate *f = chain->f;
	struct zero_link link = {.from = chain, .before = f->space};
	int error = change_run(f->fs, TX_NORMAL, zero_change, &link);

	if (error) {
		f->space = link.before;
		return error;
	}
	*chain = link.to;
	chain->begun = true;
	return 0;
}

static int zero_blocks(struct fallocate *f, uint64_t first, uint64_t end)
{
	struct zero_chain chain = {.f = f, .intent = {.op = INTENT_PUNCH, .args = {f->inode->ino, first, end}}};
	int error = 0;

	while (!error && chain.intent.args[1] < end)
		error = zero_link(&chain);
	if (!error || !chain.begun || error == -EROFS)
		return error;
	/* Half of it is gone: so goes the rest. Only the space is not kept, and the caller is told. */
	if (file_unmap_resume(f->inode, chain.id, &chain.intent))
		return -EIO;
	return error;
}

/* The space first, then what can be seen. */
static int zero_range(struct fallocate *f)
{
	uint64_t first, end, need;
	int error;

	punch_blocks(f, &first, &end);
	error = space_count(f, first, end, &need);
	if (!error)
		error = space_fill(f, need);
	if (!error)
		error = allocate_holes(f);
	if (!error)
		error = punch_edges(f, file_size(f->inode));
	if (!error && first < end)
		error = zero_blocks(f, first, end);
	if (!error)
		inode_touch_lazily(f->inode);
	return error;
}

static int fallocate_locked(struct fallocate *f, int mode, bool kills_ids, unsigned *ids)
{
	int error = mode & ~FALLOC_FL_KEEP_SIZE ? flags_verify_replace(f->inode) : flags_verify_write(f->inode, UINT64_MAX);

	if (!error)
		error = inode_kill_privileges(f->inode, kills_ids, ids);
	if (error)
		return error;
	if (mode & FALLOC_FL_PUNCH_HOLE)
		return punch_range(f);
	error = file_follow_hint(f->inode, f->pos, f->end);
	if (!error)
		error = mode & FALLOC_FL_ZERO_RANGE ? zero_range(f) : allocate_range(f);
	space_fini(f);
	if (!error && !(mode & FALLOC_FL_KEEP_SIZE) && f->end > file_size(f->inode))
		error = file_raise_size(f->inode, f->end);
	return error;
}

static bool mode_is_known(int mode)
{
	return mode == 0 || mode == FALLOC_FL_KEEP_SIZE ||
	       mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) ||
	       mode == FALLOC_FL_ZERO_RANGE || mode == (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
}

int fs_fallocate(struct fs *fs, inum_t ino, int mode, uint64_t pos, uint64_t length)
{
	return fs_fallocate_as(fs, ino, false, mode, pos, length, NULL);
}

int fs_fallocate_as(struct fs *fs, inum_t ino, bool kills_ids, int mode, uint64_t pos, uint64_t length, unsigned *ids)
{
	struct fallocate f = {.fs = fs, .pos = pos, .end = pos + length};
	int error;

	if (!mode_is_known(mode))
		return -EOPNOTSUPP;
	error = fs_refuses_changes(fs);
	if (error)
		return error;
	if (!length)
		return -EINVAL;
	if (f.end < pos || f.end > FS_FILE_MAX)
		return -EFBIG;
	error = file_get(fs, ino, &f.inode);
	if (error)
		return error;
	lock_write(&f.inode->data_lock, LOCK_DATA);
	error = fallocate_locked(&f, mode, kills_ids, ids);
	pthread_rwlock_unlock(&f.inode->data_lock);
	error = flags_settle(f.inode, error);
	inode_put(f.inode);
	return error;
}
