/*
 * The ledger as fs/ uses it, within its own transactions. What is said to the poison log stays said when a transaction is given up and begun anew: so whoever
 * changes the ledger runs alone.
 */
#include <errno.h>
#include <stdlib.h>

#include "notify/internal.h"

#define WALK_BATCH 64

struct unknow_hook {
	struct notify *notify;
	devoff_t start, end;
};

static void unknow_at_commit(void *arg, bool committed, uint64_t sequence)
{
	struct unknow_hook *hook = arg;

	(void)sequence;
	if (committed) {
		pthread_mutex_lock(&hook->notify->lock);
		notify_unknow(hook->notify, hook->start, hook->end);
		pthread_mutex_unlock(&hook->notify->lock);
	}
	free(hook);
}

int ledger_unknow_at_commit(struct notify *notify, struct tx *tx, devoff_t start, devoff_t end)
{
	struct unknow_hook *hook = malloc(sizeof(*hook));
	int rc;

	if (!hook)
		return -ENOMEM;
	*hook = (struct unknow_hook){notify, start, end};
	rc = tx_add_hook(tx, unknow_at_commit, hook);
	if (rc)
		free(hook);
	return rc;
}

/*
 * The CLEARED entry goes to the log before the transaction can commit, so a crash in between does
 * not bring the poison back; it is true even if the transaction aborts, because the content was
 * written and drained before. It is queued too: an older report of the range that has not reached
 * the trees yet is overridden by it.
 */
static int ledger_say_cleared(struct notify *notify, devoff_t start, devoff_t end)
{
	int rc;

	pthread_mutex_lock(&notify->lock);
	rc = notify_enter(notify, start, end, BADBLOCK_CLEARED, FAILURE_CONTROL);
	pthread_mutex_unlock(&notify->lock);
	return rc;
}

int ledger_cleared(struct notify *notify, struct tx *tx, devoff_t offset, uint64_t length)
{
	const devoff_t end = offset + length;
	devoff_t next;
	int rc;

	if (length == 0 || offset % SECTOR_BYTES || length % SECTOR_BYTES)
		return -EINVAL;
	if (tx_is_beside(tx))
		return -EAGAIN;
	rc = ledger_say_cleared(notify, offset, end);
	/* What finds no room in this transaction is taken out by the thread, which has the range
	 * queued. */
	if (rc == 0)
		rc = ledger_forget(&notify->ledger, tx, offset, end, LEDGER_STEPS_MAX, &next);
	return rc ? rc : ledger_unknow_at_commit(notify, tx, offset, end);
}

/* Content that is lost on memory that is good: once freed it is like any other space. */
static int ledger_end_lost(struct notify *notify, struct tx *tx, devoff_t start, devoff_t end)
{
	struct ledger *ledger = &notify->ledger;
	struct span lost;
	devoff_t gap, gap_end;
	int rc = 0;

	for (; start < end && rc == 0; start = lost.end) {
		rc = span_first(&ledger->lost, start, end, &lost);
		if (rc)
			break;
		lost.start = max_u64(lost.start, start);
		lost.end = min_u64(lost.end, end);
		for (gap_end = lost.start; rc == 0;) {
			rc = span_gap(&ledger->badblocks, gap_end, lost.end, &gap, &gap_end);
			if (rc == 0)
				rc = ledger_say_cleared(notify, gap, gap_end);
			if (rc == 0)
				rc = ledger_unknow_at_commit(notify, tx, gap, gap_end);
		}
		rc = rc == -ENOENT ? 0 : rc;
	}
	return rc == -ENOENT ? 0 : rc;
}

int ledger_free_blocks(struct notify *notify, struct tx *tx, blkno_t start, uint64_t count)
{
	int rc;

	/* While nothing at all is known to be bad the ledger is empty. */
	if (!media_bad_any(notify->media))
		return alloc_give(notify->setup.alloc, tx, start, count);
	if (tx_is_beside(tx))
		return -EAGAIN;
	rc = ledger_end_lost(notify, tx, start << BLOCK_SHIFT, (start + count) << BLOCK_SHIFT);
	return rc ? rc : ledger_give(&notify->ledger, tx, start, count);
}

/* --- reading --- */

struct walk_batch {
	const struct span_tree *tree;
	struct span spans[WALK_BATCH];
	size_t count;
};

/* The next records from `from` on, under the lock; the caller visits them without it. */
static int walk_fill(struct notify *notify, struct walk_batch *batch, devoff_t from)
{
	int rc = 0;

	batch->count = 0;
	journal_read_begin(notify->journal);
	while (batch->count < WALK_BATCH && rc == 0) {
		rc = span_first(batch->tree, from, UINT64_MAX, &batch->spans[batch->count]);
		if (rc == 0)
			from = batch->spans[batch->count++].end;
	}
	journal_read_end(notify->journal);
	return rc == -ENOENT ? 0 : rc;
}

static bool overlay_take(struct notify *notify, devoff_t from, devoff_t below,
			 struct badblock_record *out)
{
	const struct badblock_record *record;
	bool found;

	pthread_mutex_lock(&notify->lock);
	record = overlay_next(&notify->overlay, from);
	found = record && record->offset < below;
	if (found)
		*out = *record;
	pthread_mutex_unlock(&notify->lock);
	return found;
}

typedef int badblock_visit_fn(void *arg, const struct badblock_record *record);

/* What is known in DRAM only, between two records of the tree. */
static int walk_overlay(struct notify *notify, devoff_t from, devoff_t below,
			badblock_visit_fn *visit, void *arg)
{
	struct badblock_record record;
	int rc = 0;

	while (rc == 0 && overlay_take(notify, from, below, &record)) {
		rc = visit(arg, &record);
		from = record.offset + record.length_bytes;
	}
	return rc;
}

static int walk_visit_span(const struct span *span, badblock_visit_fn *visit, void *arg)
{
	const struct badblock_record record = {
	    .offset = span->start,
	    .length_bytes = span->end - span->start,
	    .since_ns = span->since_ns,
	    .cause_id = span->cause_id,
	    .count = span->count,
	    .state = span->state,
	    .source = span->source,
	};

	return visit(arg, &record);
}

int ledger_walk_badblocks(struct notify *notify, badblock_visit_fn *visit, void *arg)
{
	struct walk_batch batch = {.tree = &notify->ledger.badblocks};
	devoff_t at = 0;
	int rc;

	do {
		rc = walk_fill(notify, &batch, at);
		for (size_t i = 0; i < batch.count && rc == 0; i++) {
			rc = walk_overlay(notify, at, batch.spans[i].start, visit, arg);
			if (rc == 0)
				rc = walk_visit_span(&batch.spans[i], visit, arg);
			at = batch.spans[i].end;
		}
	} while (rc == 0 && batch.count == WALK_BATCH);
	return rc ? rc : walk_overlay(notify, at, UINT64_MAX, visit, arg);
}

int ledger_walk_lost(struct notify *notify,
		     int (*visit)(void *arg, const struct lost_record *record), void *arg)
{
	struct walk_batch batch = {.tree = &notify->ledger.lost};
	devoff_t at = 0;
	int rc;

	do {
		rc = walk_fill(notify, &batch, at);
		for (size_t i = 0; i < batch.count && rc == 0; i++) {
			const struct span *span = &batch.spans[i];
			const struct lost_record record = {
			    .offset = span->start,
			    .length_bytes = span->end - span->start,
			    .cause_id = span->cause_id,
			    .source = span->source,
			};

			rc = visit(arg, &record);
			at = span->end;
		}
	} while (rc == 0 && batch.count == WALK_BATCH);
	return rc;
}

uint64_t ledger_sigbus_count(struct notify *notify)
{
	return atomic_load(&notify->sigbus_count);
}

const struct btree *ledger_badblocks_tree(const struct notify *notify)
{
	return &notify->ledger.badblocks.tree;
}

const struct btree *ledger_lost_tree(const struct notify *notify)
{
	return &notify->ledger.lost.tree;
}
