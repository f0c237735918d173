/* From the queue into the ledger, and out of it. */
#include <errno.h>
#include <stdlib.h>

#include "notify/internal.h"
#include "util/log.h"

/* cause_id 0 is never one. */
static int cause_take(struct notify *notify, struct tx *tx, uint64_t *id)
{
	const uint64_t next = max_u64(1, root_get(notify->journal, ROOT_NEXT_CAUSE));
	int rc = root_set(tx, ROOT_NEXT_CAUSE, next + 1);

	if (rc == 0)
		*id = next;
	return rc;
}

/* One transaction: the cause's number, if it has none yet, and as many records as there is room
 * for. */
static int fail_try_piece(struct notify *notify, struct span *failure, unsigned steps,
			  devoff_t *next)
{
	const struct notify_setup *setup = &notify->setup;
	const uint64_t cause_id = failure->cause_id;
	struct tx *tx;
	int rc = setup->ops->tx_begin(setup->holder, &tx);

	if (rc)
		return rc;
	if (cause_id == 0)
		rc = cause_take(notify, tx, &failure->cause_id);
	if (rc == 0)
		rc = ledger_record(&notify->ledger, tx, failure, steps, next);
	rc = tx_end(tx, rc, NULL);
	if (rc)
		failure->cause_id = cause_id;
	return rc;
}

/* Steps that come to more than one transaction holds are done one by one. */
static int fail_record_piece(struct notify *notify, struct span *failure, devoff_t *next)
{
	int rc = fail_try_piece(notify, failure, LEDGER_STEPS_MAX, next);

	return rc == -EFBIG ? fail_try_piece(notify, failure, 1, next) : rc;
}

/* Kept for this mount only: the known set has it, the poison log keeps it for the next one. */
static void fail_overlay(struct notify *notify, struct span *failure)
{
	struct badblock_record record = {
	    .offset = failure->start,
	    .length_bytes = failure->end - failure->start,
	    .since_ns = failure->since_ns,
	    .count = 1,
	    .state = failure->state,
	    .source = failure->source,
	};

	if (failure->cause_id == 0) {
		journal_read_begin(notify->journal);
		failure->cause_id =
		    max_u64(1, root_get(notify->journal, ROOT_NEXT_CAUSE)) + notify->dram_cause++;
		journal_read_end(notify->journal);
	}
	record.cause_id = failure->cause_id;
	pthread_mutex_lock(&notify->lock);
	if (overlay_add(&notify->overlay, &record))
		log_error("no memory to list the bad range %llu+%llu",
			  (unsigned long long)record.offset,
			  (unsigned long long)record.length_bytes);
	pthread_mutex_unlock(&notify->lock);
}

/* A range that the ledger does not have. *cause is complete on return, whether the trees could take
 * it or not. */
static int fail_record(struct notify *notify, devoff_t start, devoff_t end, uint32_t tag,
		       struct cause *cause)
{
	struct span failure = {
	    .start = start,
	    .end = end,
	    .since_ns = notify_now_ns(),
	    .count = 1,
	    .state = (uint8_t)queue_tag_state(tag),
	    .source = (uint8_t)queue_tag_source(tag),
	};
	int rc = 0;

	while (failure.start < end && rc == 0) {
		devoff_t next = failure.start;

		rc = fail_record_piece(notify, &failure, &next);
		if (rc == 0)
			failure.start = next;
	}
	if (rc) {
		if (rc != -EROFS)
			log_error("the ledger cannot take the bad range %llu+%llu: error %d",
				  (unsigned long long)failure.start,
				  (unsigned long long)(end - failure.start), -rc);
		fail_overlay(notify, &failure);
	}
	*cause = (struct cause){
	    .id = failure.cause_id, .start = start, .end = end, .source = failure.source};
	return rc;
}

/* The first part that neither the trees nor the overlay have. Trees that cannot be read have
 * nothing. */
int notify_next_new(struct notify *notify, devoff_t start, devoff_t end, devoff_t *gap,
			 devoff_t *gap_end)
{
	int rc;

	while (start < end) {
		const struct badblock_record *record;

		journal_read_begin(notify->journal);
		rc = span_gap(&notify->ledger.badblocks, start, end, gap, gap_end);
		journal_read_end(notify->journal);
		if (rc == -ENOENT)
			return rc;
		if (rc) {
			*gap = start;
			*gap_end = end;
		}
		pthread_mutex_lock(&notify->lock);
		record = overlay_next(&notify->overlay, *gap);
		if (record && record->offset <= *gap)
			start = record->offset + record->length_bytes;
		else
			start = *gap;
		if (record && record->offset > *gap)
			*gap_end = min_u64(*gap_end, record->offset);
		pthread_mutex_unlock(&notify->lock);
		if (start == *gap)
			return 0;
	}
	return -ENOENT;
}

/* A storm must not fill the log: events and the ledger have all of it. */
static void fail_log(struct notify *notify, const struct cause *cause)
{
	if (notify->logged++ < LOGGED_PER_ROUND)
		log_warning("media failure: %llu+%llu (%s), cause %llu",
			    (unsigned long long)cause->start,
			    (unsigned long long)(cause->end - cause->start),
			    failure_source_name(cause->source), (unsigned long long)cause->id);
}

int notify_fail_range(struct notify *notify, devoff_t start, devoff_t end, uint32_t tag)
{
	devoff_t gap, gap_end;
	int result = 0;

	/* That the list gave it up before says nothing any more. */
	if (iset_remove(&notify->unlisted, start, end) == -ENOMEM)
		iset_fini(&notify->unlisted);
	while (start < end && notify_next_new(notify, start, end, &gap, &gap_end) == 0) {
		struct cause cause;
		int rc = fail_record(notify, gap, gap_end, tag, &cause);

		if (rc)
			result = rc;
		fail_log(notify, &cause);
		notify_tell(notify, &cause);
		start = gap_end;
	}
	return result;
}

/* --- good again --- */

static int clear_try_piece(struct notify *notify, devoff_t start, devoff_t end, unsigned steps,
			   devoff_t *next)
{
	const struct notify_setup *setup = &notify->setup;
	struct tx *tx;
	int rc = setup->ops->tx_begin(setup->holder, &tx);

	if (rc)
		return rc;
	rc = ledger_forget(&notify->ledger, tx, start, end, steps, next);
	if (rc == 0)
		rc = ledger_unknow_at_commit(notify, tx, start, *next);
	return tx_end(tx, rc, NULL);
}

static int clear_piece(struct notify *notify, devoff_t start, devoff_t end, devoff_t *next)
{
	int rc = clear_try_piece(notify, start, end, LEDGER_STEPS_MAX, next);

	return rc == -EFBIG ? clear_try_piece(notify, start, end, 1, next) : rc;
}

static int clear_visit(void *arg, const struct rmap_record *record)
{
	return record->owner == OWNER(OWNER_QUARANTINE);
}

/* Most ranges were taken out of the trees by the transaction that healed them. */
static bool clear_is_done(struct notify *notify, devoff_t start, devoff_t end)
{
	const blkno_t first = start >> BLOCK_SHIFT, last = (end - 1) >> BLOCK_SHIFT;
	struct span span;
	bool is_done;

	journal_read_begin(notify->journal);
	is_done = span_first(&notify->ledger.badblocks, start, end, &span) == -ENOENT &&
		  span_first(&notify->ledger.lost, start, end, &span) == -ENOENT &&
		  rmap_query(notify->setup.rmap, first, last - first + 1, clear_visit, NULL) == 0;
	journal_read_end(notify->journal);
	return is_done;
}

int notify_clear_range(struct notify *notify, devoff_t start, devoff_t end)
{
	const bool is_done = clear_is_done(notify, start, end);
	devoff_t at = start;
	int rc = 0;

	pthread_mutex_lock(&notify->lock);
	if (overlay_remove(&notify->overlay, start, end))
		log_error("no memory to take %llu+%llu off the list", (unsigned long long)start,
			  (unsigned long long)(end - start));
	pthread_mutex_unlock(&notify->lock);
	while (rc == 0 && at < end && !is_done) {
		devoff_t next = at;

		rc = clear_piece(notify, at, end, &next);
		if (rc == 0)
			at = next;
	}
	if (rc && rc != -EROFS)
		log_error("the ledger cannot clear %llu+%llu: error %d", (unsigned long long)start,
			  (unsigned long long)(end - start), -rc);
	/* Good memory may be used even when the ledger cannot be told; the log says CLEARED until
	 * it can. */
	pthread_mutex_lock(&notify->lock);
	notify_unknow(notify, start, end);
	pthread_mutex_unlock(&notify->lock);
	return rc;
}
