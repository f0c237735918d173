/*
 * Memory in quarantine that somebody else has made good: cleared through the bus, mended by firmware, replaced. That a source says nothing of it proves
 * nothing: a kernel just booted has forgotten what it knew, and whoever believes it touches known poison. A block counts as taken back when
 *   the kernel's list had it during this mount and has it no longer, which only clearing does; or
 *   the bus has scrubbed its memory to the end since it was found, and does not list it: the firmware has read it and found it good.
 * Then we read it, once, ever: the ledger says `retired` before, durably, so that a machine that does not survive the reading does not do it again. Only
 * what read well is called good, in the order of every other healing: the log, the trees, the known set. What files have lost stays lost; only blocks that
 * nobody owns are looked at.
 */
#include <errno.h>
#include <stdlib.h>

#include "notify/internal.h"
#include "notify/scrub.h"
#include "util/log.h"

#define PIECE_BYTES (16u << BLOCK_SHIFT)
#define PIECES_MAX 4096u /* of one reading of the list */

struct mending {
	struct notify *notify;
	struct iset now;   /* on the list */
	struct iset armed; /* in the emulation of poison, whose list the kernel's is not */
	struct iset good;  /* taken back */
	bool is_scrubbed;
};

/* What leaves the list while we look was cleared. */
static int mending_follow(struct mending *mending)
{
	struct notify *notify = mending->notify;
	int rc = 0;

	for (size_t i = 0; i < notify->listed.count && rc == 0; i++)
		rc = iset_add(&notify->unlisted, notify->listed.ranges[i].start, notify->listed.ranges[i].end, 0);
	for (size_t i = 0; i < mending->now.count && rc == 0; i++)
		rc = iset_remove(&notify->unlisted, mending->now.ranges[i].start, mending->now.ranges[i].end);
	iset_fini(&notify->listed);
	return rc ? rc : iset_copy(&notify->listed, &mending->now);
}

static int mending_list(struct mending *mending, const struct source_list *list)
{
	int rc = 0;

	for (size_t i = 0; i < list->count && rc == 0; i++)
		rc = iset_add(&mending->now, round_down_u64(list->blocks[i].offset, SECTOR_BYTES),
			      round_up_u64(list->blocks[i].offset + list->blocks[i].length, SECTOR_BYTES), 0);
	return rc;
}

static int mending_list_armed(struct mending *mending)
{
	struct media_poison *list = NULL;
	size_t count = 0;
	int rc = media_poison_list(mending->notify->media, &list, &count);

	for (size_t i = 0; i < count && rc == 0; i++)
		rc = iset_add(&mending->armed, round_down_u64(list[i].offset, SECTOR_BYTES), round_up_u64(list[i].offset + list[i].length, SECTOR_BYTES), 0);
	free(list);
	return rc;
}

/* [start, end) without what is in `set`. */
static int iset_remove_all(struct iset *from, const struct iset *set, devoff_t start, devoff_t end)
{
	const struct iset_range *range;
	int rc = 0;

	while (rc == 0 && start < end && (range = iset_find(set, start, end))) {
		rc = iset_remove(from, max_u64(start, range->start), min_u64(end, range->end));
		start = range->end;
	}
	return rc;
}

/* What the list has given up, or all of it where a scrub vouches for the list. */
static int mending_add_unlisted(struct mending *mending, devoff_t start, devoff_t end)
{
	const struct iset_range *range;
	int rc = 0;

	if (mending->is_scrubbed)
		return iset_add(&mending->good, start, end, 0);
	while (rc == 0 && start < end && (range = iset_find(&mending->notify->unlisted, start, end))) {
		rc = iset_add(&mending->good, max_u64(start, range->start), min_u64(end, range->end), 0);
		start = range->end;
	}
	return rc;
}

static int mending_visit(void *arg, const struct badblock_record *record)
{
	const devoff_t start = record->offset, end = start + record->length_bytes;
	const bool may_be_ours = record->source == FAILURE_INJECTED || record->source == FAILURE_SIGBUS;
	struct mending *mending = arg;
	int rc;

	if (record->state != BADBLOCK_QUARANTINED)
		return 0;
	if (mending->good.count >= PIECES_MAX)
		return 1;
	rc = mending_add_unlisted(mending, start, end);
	if (rc == 0)
		rc = iset_remove_all(&mending->good, &mending->now, start, end);
	if (rc == 0 && may_be_ours)
		rc = iset_remove_all(&mending->good, &mending->armed, start, end);
	return rc;
}

/* --- one piece ------------------------------------------------------------------------------------------------------------ */

static int owner_visit(void *arg, const struct rmap_record *record)
{
	uint64_t *count = arg;

	*count += record->count;
	return record->owner != OWNER(OWNER_QUARANTINE);
}

static bool piece_is_quarantined(struct notify *notify, devoff_t start, devoff_t end)
{
	const blkno_t first = start >> BLOCK_SHIFT, last = (end - 1) >> BLOCK_SHIFT;
	struct span span;
	uint64_t count = 0;
	bool is_quarantined;

	journal_read_begin(notify->journal);
	is_quarantined = rmap_query(notify->setup.rmap, first, last - first + 1, owner_visit, &count) == 0 && count == last - first + 1 &&
			 span_first(&notify->ledger.lost, start, end, &span) == -ENOENT;
	journal_read_end(notify->journal);
	return is_quarantined;
}

/* Durable on return: from now on nobody tries it again. */
static int piece_retire(struct notify *notify, devoff_t start, devoff_t end)
{
	uint64_t sequence;
	struct tx *tx;
	int rc = notify->setup.ops->tx_begin(notify->setup.holder, &tx);

	if (rc)
		return rc;
	rc = tx_end(tx, span_set_state(&notify->ledger.badblocks, tx, start, end, BADBLOCK_RETIRED), &sequence);
	if (rc == 0 && !tx_is_durable(notify->journal, sequence))
		rc = journal_sync(notify->journal);
	return rc;
}

/* Nobody else reads what nobody owns. What is met is reported by media/ like any other fault; all of it is known again then. */
static bool piece_reads_well(struct notify *notify, devoff_t start, devoff_t end)
{
	uint8_t block[BLOCK_BYTES];
	int rc = 0;

	pthread_mutex_lock(&notify->lock);
	notify_unknow(notify, start, end);
	pthread_mutex_unlock(&notify->lock);
	for (devoff_t at = start; at < end && rc == 0; at += BLOCK_BYTES)
		rc = media_read(notify->media, at, block, min_u64(BLOCK_BYTES, end - at), NULL);
	if (rc && media_bad_add(notify->media, start, end - start))
		log_error("no memory to remember the bad range %llu+%llu", (unsigned long long)start, (unsigned long long)(end - start));
	return rc == 0;
}

static void piece_give_back(struct notify *notify, devoff_t start, devoff_t end)
{
	pthread_mutex_lock(&notify->lock);
	notify_log(notify, start, end, BADBLOCK_CLEARED, FAILURE_KERNEL);
	pthread_mutex_unlock(&notify->lock);
	if (notify_clear_range(notify, start, end))
		notify->tail_is_held = true;
}

/* How many bytes are good again. */
static uint64_t piece_try(struct notify *notify, devoff_t start, devoff_t end)
{
	if (!piece_is_quarantined(notify, start, end) || piece_retire(notify, start, end))
		return 0;
	if (piece_reads_well(notify, start, end)) {
		piece_give_back(notify, start, end);
		return end - start;
	}
	log_warning("%s: %llu+%llu was taken off the kernel's list, and is bad all the same: it stays in quarantine", media_path(notify->media),
		    (unsigned long long)start, (unsigned long long)(end - start));
	return 0;
}

/* --- all ------------------------------------------------------------------------------------------------------------------ */

static void mending_try_all(struct mending *mending)
{
	struct notify *notify = mending->notify;
	uint64_t bytes = 0;

	for (size_t i = 0; i < mending->good.count; i++) {
		const devoff_t end = mending->good.ranges[i].end;
		devoff_t start = mending->good.ranges[i].start, stop;

		for (; start < end && !notify->is_shut_down; start = stop) {
			stop = min_u64(end, round_down_u64(start, PIECE_BYTES) + PIECE_BYTES);
			bytes += piece_try(notify, start, stop);
		}
	}
	if (bytes)
		log_info("%s: %llu bytes that were in quarantine have been taken off the kernel's list and read well: they are used again",
			 media_path(notify->media), (unsigned long long)bytes);
}

static bool bus_is_scrubbed(const struct notify *notify)
{
	struct scrub_state scrub;
	struct why none;

	return scrub_ask(notify->media, &scrub, &none) == 0 && !scrub.is_running && scrub.count_finished > 0;
}

void notify_take_back(struct notify *notify, const struct source_list *list)
{
	struct mending mending = {.notify = notify};
	int rc;

	iset_init(&mending.now);
	iset_init(&mending.armed);
	iset_init(&mending.good);
	rc = mending_list(&mending, list);
	if (rc == 0)
		rc = mending_follow(&mending);
	if (rc == 0 && !notify->is_shut_down && !journal_is_readonly(notify->journal)) {
		mending.is_scrubbed = bus_is_scrubbed(notify);
		rc = mending_list_armed(&mending);
		if (rc == 0)
			rc = ledger_walk_badblocks(notify, mending_visit, &mending);
		if (rc >= 0)
			mending_try_all(&mending);
	}
	if (rc < 0)
		log_warning("what the kernel calls good again cannot be looked at: error %d", -rc);
	iset_fini(&mending.now);
	iset_fini(&mending.armed);
	iset_fini(&mending.good);
}
