#include "notify/ledger.h"

#include <errno.h>

#include "format/poison_format.h"
#include "util/iset.h"
#include "util/log.h"

/* Blocks looked at under one query: bounds the memory that a crowded range takes. */
#define WINDOW_BLOCKS 1024u
/* Blocks that become good in one step: at worst every other sector is a record. */
#define FORGET_BLOCKS 16u

/* Who has the blocks of a window. */
struct space {
	struct iset owned;   /* any owner; tag 1: quarantined */
	struct iset content; /* written blocks of files */
};

void ledger_init(struct ledger *ledger, struct journal *journal, const struct rmap *rmap,
		 struct alloc *alloc)
{
	ledger->media = journal_media(journal);
	ledger->rmap = rmap;
	ledger->alloc = alloc;
	span_tree_init(&ledger->badblocks, journal, &badblocks_ops, ROOT_BADBLOCK_BYTES);
	span_tree_init(&ledger->lost, journal, &lost_ops, ROOT_LOST_BYTES);
}

static void space_init(struct space *space)
{
	iset_init(&space->owned);
	iset_init(&space->content);
}

static void space_fini(struct space *space)
{
	iset_fini(&space->owned);
	iset_fini(&space->content);
}

static int space_visit(void *arg, const struct rmap_record *record)
{
	const uint64_t end = record->start + record->count;
	struct space *space = arg;
	int rc =
	    iset_add(&space->owned, record->start, end, record->owner == OWNER(OWNER_QUARANTINE));

	if (rc == 0 && owner_is_inode(record->owner) && !(record->flags & EXTENT_UNWRITTEN))
		rc = iset_add(&space->content, record->start, end, 0);
	return rc;
}

/* A run of blocks that are alike: free, or owned. */
struct space_run {
	blkno_t start, end;
	bool is_free, is_quarantined;
};

static struct space_run space_run_at(const struct space *space, blkno_t total, blkno_t start, blkno_t end)
{
	const struct iset_range *range = iset_find(&space->owned, start, end);

	if (start >= total) /* behind the filesystem's end: a resize will meet it */
		return (struct space_run){.start = start, .end = end};
	end = min_u64(end, total);
	if (!range)
		return (struct space_run){start, end, .is_free = true};
	if (range->start > start)
		return (struct space_run){start, range->start, .is_free = true};
	return (struct space_run){start, min_u64(end, range->end),
				  .is_quarantined = range->tag == 1};
}

static int ledger_quarantine(const struct ledger *ledger, struct tx *tx, blkno_t start,
			     uint64_t count)
{
	const struct rmap_record record = {
	    .start = start, .count = count, .owner = OWNER(OWNER_QUARANTINE)};
	int rc = rmap_insert(ledger->rmap, tx, &record);

	return rc ? rc : root_add(tx, ROOT_QUARANTINED_BLOCKS, (int64_t)count);
}

/* Content that a span of lost covers already stays under its older cause. */
static int ledger_lose(const struct ledger *ledger, struct tx *tx, const struct span *failure,
		       devoff_t start, devoff_t end)
{
	struct span span = {.cause_id = failure->cause_id, .source = failure->source};
	int rc;

	for (; start < end; start = span.end) {
		rc = span_gap(&ledger->lost, start, end, &span.start, &span.end);
		if (rc)
			return rc == -ENOENT ? 0 : rc;
		rc = span_insert(&ledger->lost, tx, &span);
		if (rc)
			return rc;
	}
	return 0;
}

/* One step: a free run, an owned run without content, or one contiguous piece of content. *end: how
 * far it went, in bytes. */
static int ledger_record_step(const struct ledger *ledger, struct tx *tx,
			      const struct span *failure, const struct space *space,
			      struct space_run *run)
{
	const struct iset_range *content =
	    run->is_free ? NULL : iset_find(&space->content, run->start, run->end);
	struct span piece = *failure;
	int rc = 0;

	if (content)
		run->end =
		    content->start > run->start ? content->start : min_u64(run->end, content->end);
	piece.start = max_u64(failure->start, run->start << BLOCK_SHIFT);
	piece.end = min_u64(failure->end, run->end << BLOCK_SHIFT);
	if (run->is_free) {
		rc = alloc_take_exact(ledger->alloc, tx, run->start, run->end - run->start);
		if (rc == 0)
			rc = ledger_quarantine(ledger, tx, run->start, run->end - run->start);
	} else if (content && content->start <= run->start) {
		rc = ledger_lose(ledger, tx, failure, piece.start, piece.end);
	}
	if (rc)
		return rc;
	if (run->is_free || run->is_quarantined)
		piece.state = BADBLOCK_QUARANTINED;
	return span_insert(&ledger->badblocks, tx, &piece);
}

/* May another step be begun? The first of a transaction always may. */
static bool ledger_may_go_on(const struct tx *tx, unsigned done, unsigned steps)
{
	return done == 0 || (done < steps && tx_room(tx) >= LEDGER_ROOM);
}

static int ledger_record_window(const struct ledger *ledger, struct tx *tx,
				const struct span *failure, blkno_t *at, blkno_t end,
				unsigned steps, unsigned *done)
{
	struct space space;
	int rc;

	space_init(&space);
	rc = rmap_query(ledger->rmap, *at, end - *at, space_visit, &space);
	while (rc == 0 && *at < end && ledger_may_go_on(tx, *done, steps)) {
		struct space_run run = space_run_at(&space, alloc_total_blocks(ledger->alloc), *at, end);

		rc = ledger_record_step(ledger, tx, failure, &space, &run);
		*at = run.end;
		++*done;
	}
	space_fini(&space);
	return rc;
}

int ledger_record(const struct ledger *ledger, struct tx *tx, const struct span *failure,
		  unsigned steps, devoff_t *next)
{
	const blkno_t end = (failure->end + BLOCK_BYTES - 1) >> BLOCK_SHIFT;
	blkno_t at = failure->start >> BLOCK_SHIFT;
	unsigned done = 0;
	int rc = 0;

	while (rc == 0 && at < end && ledger_may_go_on(tx, done, steps))
		rc = ledger_record_window(ledger, tx, failure, &at,
					  min_u64(end, at + WINDOW_BLOCKS), steps, &done);
	*next = at >= end ? failure->end : at << BLOCK_SHIFT;
	return rc;
}

/* --- giving back --- */

/* The first quarantined piece of a range. */
struct quarantine_find {
	struct rmap_record record;
	bool found;
};

static int quarantine_visit(void *arg, const struct rmap_record *record)
{
	struct quarantine_find *find = arg;

	if (record->owner != OWNER(OWNER_QUARANTINE))
		return 0;
	find->record = *record;
	find->found = true;
	return 1;
}

/* [start, end) of one quarantine record, nothing bad in it: free again. */
static int ledger_release_run(const struct ledger *ledger, struct tx *tx,
			      const struct rmap_record *from, blkno_t start, blkno_t end)
{
	struct rmap_record record = *from;
	int rc;

	record.start = start;
	record.count = end - start;
	rc = rmap_remove(ledger->rmap, tx, &record);
	if (rc)
		return rc;
	rc = alloc_give(ledger->alloc, tx, start, end - start);
	return rc ? rc : root_add(tx, ROOT_QUARANTINED_BLOCKS, -(int64_t)(end - start));
}

/* The first run of blocks within the record without anything bad, from *start on. -ENOENT. */
static int ledger_clean_run(const struct ledger *ledger, const struct rmap_record *record,
			    blkno_t *start, blkno_t *end)
{
	const blkno_t record_end = record->start + record->count;
	struct span span;
	int rc;

	while (*start < record_end) {
		rc = span_first(&ledger->badblocks, *start << BLOCK_SHIFT,
				record_end << BLOCK_SHIFT, &span);
		if (rc && rc != -ENOENT)
			return rc;
		*end = rc ? record_end : max_u64(*start, span.start >> BLOCK_SHIFT);
		if (*end > *start)
			return 0;
		*start = (span.end + BLOCK_BYTES - 1) >> BLOCK_SHIFT;
	}
	return -ENOENT;
}

static int ledger_release_record(const struct ledger *ledger, struct tx *tx,
				 const struct rmap_record *record)
{
	blkno_t start = record->start, end;
	int rc = 0;

	for (; rc == 0; start = end) {
		rc = ledger_clean_run(ledger, record, &start, &end);
		if (rc)
			return rc == -ENOENT ? 0 : rc;
		rc = ledger_release_run(ledger, tx, record, start, end);
	}
	return rc;
}

/* Quarantined blocks of [start, end) that have nothing bad any more become free. */
static int ledger_release(const struct ledger *ledger, struct tx *tx, blkno_t start, blkno_t end)
{
	int rc = 0;

	while (rc == 0 && start < end) {
		struct quarantine_find find = {.found = false};

		rc = rmap_query(ledger->rmap, start, end - start, quarantine_visit, &find);
		if (rc < 0 || !find.found)
			return rc;
		rc = ledger_release_record(ledger, tx, &find.record);
		start = find.record.start + find.record.count;
	}
	return rc;
}

static int ledger_forget_step(const struct ledger *ledger, struct tx *tx, devoff_t start,
			      devoff_t end)
{
	int rc = span_remove(&ledger->lost, tx, start, end);

	if (rc == 0)
		rc = span_remove(&ledger->badblocks, tx, start, end);
	if (rc)
		return rc;
	return ledger_release(ledger, tx, start >> BLOCK_SHIFT,
			      (end + BLOCK_BYTES - 1) >> BLOCK_SHIFT);
}

int ledger_forget(const struct ledger *ledger, struct tx *tx, devoff_t start, devoff_t end,
		  unsigned steps, devoff_t *next)
{
	const uint64_t step_bytes = FORGET_BLOCKS << BLOCK_SHIFT;
	unsigned done = 0;
	int rc = 0;

	while (rc == 0 && start < end && ledger_may_go_on(tx, done, steps)) {
		const devoff_t stop = min_u64(end, round_down_u64(start, step_bytes) + step_bytes);

		rc = ledger_forget_step(ledger, tx, start, stop);
		start = stop;
		done++;
	}
	*next = start;
	return rc;
}

/* A freed piece with something bad in it, whole blocks. */
static int ledger_give_bad(const struct ledger *ledger, struct tx *tx, blkno_t start, blkno_t end)
{
	int rc = ledger_quarantine(ledger, tx, start, end - start);

	if (rc)
		return rc;
	return span_set_state(&ledger->badblocks, tx, start << BLOCK_SHIFT, end << BLOCK_SHIFT,
			      BADBLOCK_QUARANTINED);
}

/* The next bad piece of [start, end), grown to whole blocks; both are `end` when there is none. */
static int ledger_next_bad(const struct ledger *ledger, blkno_t start, blkno_t end, blkno_t *bad,
			   blkno_t *bad_end)
{
	struct span span;
	int rc = span_first(&ledger->badblocks, start << BLOCK_SHIFT, end << BLOCK_SHIFT, &span);

	*bad = *bad_end = end;
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	*bad = max_u64(start, span.start >> BLOCK_SHIFT);
	*bad_end = min_u64(end, (span.end + BLOCK_BYTES - 1) >> BLOCK_SHIFT);
	return 0;
}

int ledger_give(const struct ledger *ledger, struct tx *tx, blkno_t start, uint64_t count)
{
	const blkno_t end = start + count;
	blkno_t bad, bad_end;
	int rc = span_remove(&ledger->lost, tx, start << BLOCK_SHIFT, end << BLOCK_SHIFT);

	for (; rc == 0 && start < end; start = bad_end) {
		rc = ledger_next_bad(ledger, start, end, &bad, &bad_end);
		if (rc == 0 && bad > start)
			rc = alloc_give(ledger->alloc, tx, start, bad - start);
		if (rc == 0 && bad < bad_end)
			rc = ledger_give_bad(ledger, tx, bad, bad_end);
	}
	return rc;
}

int ledger_format(struct journal *journal, struct tx *tx, const struct badblock_record *record)
{
	const struct span span = {
	    .start = record->offset,
	    .end = record->offset + record->length_bytes,
	    .cause_id = record->cause_id,
	    .since_ns = record->since_ns,
	    .count = record->count,
	    .state = record->state,
	    .source = record->source,
	};
	struct span_tree badblocks;

	span_tree_init(&badblocks, journal, &badblocks_ops, ROOT_BADBLOCK_BYTES);
	return span_insert(&badblocks, tx, &span);
}
