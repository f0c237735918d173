/*
 * What was bad before: the ledger's trees, the poison log's entries that they do not have, what
 * sources knew before anything was read, and what was met by reading since.
 */
#include <errno.h>

#include "notify/internal.h"
#include "util/log.h"

#define ADOPT_WAIT_MS 5000u

/* The first part of *start .. end that neither badblocks nor (with `lost`) the other tree has.
 * -ENOENT: none. */
static int ledger_first_missing(struct notify *notify, bool lost, devoff_t start, devoff_t end,
				devoff_t *gap, devoff_t *gap_end)
{
	int rc = 0;

	journal_read_begin(notify->journal);
	while (rc == 0) {
		rc = span_gap(&notify->ledger.badblocks, start, end, gap, gap_end);
		if (rc || !lost)
			break;
		start = *gap_end;
		rc = span_gap(&notify->ledger.lost, *gap, *gap_end, gap, gap_end);
		if (rc != -ENOENT)
			break;
		rc = 0;
	}
	journal_read_end(notify->journal);
	return rc;
}

/* Announce again what is queued as cleared: a source says that it is bad now. The lock is held. */
static void notify_override_cleared(struct notify *notify, devoff_t start, devoff_t end,
				    enum failure_source source)
{
	while (start < end) {
		const struct iset_range *range = iset_find(&notify->queue.ranges, start, end);
		struct iset_range cut;

		if (!range)
			return;
		cut = (struct iset_range){max_u64(range->start, start), min_u64(range->end, end),
					  range->tag};
		start = cut.end;
		if (queue_tag_state(cut.tag) == BADBLOCK_CLEARED)
			notify_enter(notify, cut.start, cut.end, BADBLOCK_BAD, source);
	}
}

/* Enter what of the range is neither queued as failed nor in the overlay. The lock is held. */
static void notify_enter_unqueued(struct notify *notify, devoff_t start, devoff_t end,
				  enum failure_source source)
{
	while (start < end) {
		const struct badblock_record *record = overlay_next(&notify->overlay, start);
		struct iset_range queued;

		if (!queue_find_failed(&notify->queue.ranges, start, end, &queued))
			queued.start = queued.end = end;
		if (record && record->offset < queued.start) {
			queued.start = max_u64(start, record->offset);
			queued.end = record->offset + record->length_bytes;
		}
		if (queued.start > start)
			notify_enter(notify, start, queued.start, BADBLOCK_BAD, source);
		start = queued.end;
	}
}

/* Report what of a known range the ledger does not have. */
static int notify_adopt_missing(struct notify *notify, bool lost, devoff_t start, devoff_t end,
				enum failure_source source)
{
	devoff_t gap, gap_end;
	int rc;

	for (; start < end; start = gap_end) {
		rc = ledger_first_missing(notify, lost, start, end, &gap, &gap_end);
		if (rc)
			return rc == -ENOENT ? 0 : rc;
		pthread_mutex_lock(&notify->lock);
		notify_enter_unqueued(notify, gap, gap_end, source);
		pthread_mutex_unlock(&notify->lock);
	}
	return 0;
}

static int notify_adopt_clipped(struct notify *notify, devoff_t offset, uint64_t length,
				enum failure_source source)
{
	devoff_t start, end;
	int rc = notify_clip(notify, offset, length, &start, &end);

	if (rc == 0)
		rc = media_bad_add(notify->media, start, end - start);
	if (rc)
		return rc;
	pthread_mutex_lock(&notify->lock);
	notify_override_cleared(notify, start, end, source);
	pthread_mutex_unlock(&notify->lock);
	return notify_adopt_missing(notify, false, start, end, source);
}

int notify_adopt(struct notify *notify, devoff_t offset, uint64_t length,
		 enum failure_source source)
{
	notify_wait(notify, ADOPT_WAIT_MS);
	return notify_adopt_clipped(notify, offset, length, source);
}

int notify_adopt_unannounced(struct notify *notify, enum failure_source source)
{
	const uint64_t size = media_size(notify->media);
	devoff_t at = 0, bad;
	uint64_t length;
	int rc = 0;

	while (rc == 0 && at < size &&
	       media_bad_find(notify->media, at, size - at, &bad, &length)) {
		rc = notify_adopt_missing(notify, true, bad, bad + length, source);
		at = bad + length;
	}
	return rc;
}

/* --- mount --- */

static int known_visit(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct le64 bytes;

	__builtin_memcpy(&bytes, value, sizeof(bytes));
	return media_bad_add(arg, key->word[0], le64_get(bytes));
}

static int notify_load_tree(struct notify *notify, const struct span_tree *tree)
{
	const struct btree_key from = {{0}}, to = {{UINT64_MAX}};

	return btree_walk(&tree->tree, &from, &to, known_visit, notify->media);
}

static int notify_load_trees(struct notify *notify, uint64_t *tail, uint64_t *flags)
{
	int rc;

	journal_read_begin(notify->journal);
	*tail = root_get(notify->journal, ROOT_POISON_LOG_TAIL);
	*flags = root_get(notify->journal, ROOT_FLAGS);
	/* Reading it may have met something already. */
	atomic_fetch_add(&notify->sigbus_count, root_get(notify->journal, ROOT_SIGBUS));
	rc = notify_load_tree(notify, &notify->ledger.badblocks);
	if (rc == 0)
		rc = notify_load_tree(notify, &notify->ledger.lost);
	journal_read_end(notify->journal);
	return rc;
}

static int log_visit(void *arg, const struct poison_entry *entry)
{
	struct notify *notify = arg;
	const devoff_t end = entry->offset + entry->length_bytes;
	int rc = queue_push(&notify->queue, entry->offset, end, entry->state, entry->source);

	notify->submitted++;
	return rc;
}

/*
 * Before the thread runs. Entries at or above the tail come first, in their order; then what
 * sources say today, which overrides a CLEARED of yesterday; last what was met by reading on the
 * way here.
 */
int notify_load(struct notify *notify)
{
	const struct notify_setup *setup = &notify->setup;
	uint64_t tail = 0, flags = 0;
	int rc = notify_load_trees(notify, &tail, &flags);

	if (setup->passive) {
		notify->tail_is_held = true;
		poison_log_trim(setup->log, tail);
		return rc == -ENOMEM ? rc : 0;
	}
	if (rc)
		log_error("the ledger of bad blocks cannot be read: read-only");
	if (rc || flags & ROOT_FLAG_METADATA_LOST) {
		notify->tail_is_held = true;
		notify->is_shut_down = true;
		setup->ops->shutdown(setup->holder, "metadata_lost");
	}
	/* One round is due in any case: whoever waits, waits for what notify_repair_known() does
	 * too. */
	notify->submitted++;
	poison_log_trim(setup->log, tail);
	rc = poison_log_walk(setup->log, log_visit, notify);
	atomic_fetch_add(&notify->sigbus_count, setup->count_consumed);
	for (size_t i = 0; i < setup->count_known && rc == 0; i++) {
		const struct notify_known *known = &setup->known[i];

		notify_adopt_clipped(notify, known->offset, known->length, known->source);
	}
	if (rc == 0)
		notify_adopt_unannounced(notify, FAILURE_SIGBUS);
	return rc;
}
