/*
 * Recovery: replay into dirty buffers, never home, so that a read-only open sees the recovered state without writing. Records to
 * fixed addresses first (root block, chunk table); they say where the others live and which are in use at the end.
 */
#include "journal/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "journal/salvage_internal.h"
#include "util/log.h"

int recover_get(struct journal *journal, maddr_t address, struct cache_buf **out)
{
	struct cache_buf *cb = cache_find(journal, address);

	if (cb) {
		*out = cb;
		return 0;
	}
	cb = cache_alloc(journal, address);
	if (!cb)
		return -ENOMEM;
	cb->error = load_block(journal, cb);
	*out = cache_insert(cb);
	return 0;
}

/* --- applying ------------------------------------------------------------------------------------------------------- */

struct recover_item {
	maddr_t address;
	uint64_t lines, sequence;
	bool init, adds;
	const uint8_t *data;
};

static void line_add(uint8_t *line, const uint8_t *from)
{
	struct le64 *to = (struct le64 *)line;
	const struct le64 *sum = (const struct le64 *)from;

	for (size_t i = 0; i < LINE_BYTES / sizeof(*to); i++)
		to[i] = le64_make(le64_get(to[i]) + le64_get(sum[i]));
}

static void apply_lines(struct cache_buf *cb, const struct recover_item *item)
{
	const uint8_t *from = item->data;

	for (uint64_t lines = item->lines; lines; lines &= lines - 1, from += LINE_BYTES) {
		uint8_t *line = cb->block + (size_t)__builtin_ctzll(lines) * LINE_BYTES;

		if (item->adds)
			line_add(line, from);
		else
			memcpy(line, from, LINE_BYTES);
	}
}

static int apply_item(struct journal *journal, const struct recover_item *item)
{
	struct cache_buf *cb;
	int error = 0;

	if (item->init) { /* what is at home does not matter: it may be anything, even a file's bytes */
		cb = cache_find(journal, item->address);
		if (!cb) {
			cb = cache_alloc(journal, item->address);
			if (!cb)
				return -ENOMEM;
			cb = cache_insert(cb);
		}
		memset(cb->block, 0, BLOCK_BYTES);
		cb->error = 0;
	} else {
		error = recover_get(journal, item->address, &cb);
		if (error)
			return error;
	}
	if (!cb->error && (item->init || item->sequence > cb->sequence)) {
		apply_lines(cb, item);
		cb->sequence = item->sequence;
		cache_set_dirty(cb);
	}
	cache_put(cb);
	return 0;
}

/* Is the item one of this pass, and is its block still in use? A block that was freed later is not brought back. */
static int item_is_wanted(struct journal *journal, maddr_t address, bool fixed_pass, bool *wanted)
{
	devoff_t place[2];
	int error;

	*wanted = maddr_is_fixed(address) == fixed_pass;
	if (!*wanted)
		return 0;
	if (fixed_pass) {
		*wanted = address < journal->super.areas[AREA_FIXED].length_bytes / BLOCK_BYTES;
		return 0;
	}
	/* A map that may be wrong decides nothing: a block that was freed is brought back, and nobody looks at it. */
	error = journal->salvage ? chunk_locate(journal, address, place) : chunk_check_live(journal, address);
	if (error == -ENOMEM)
		return error;
	*wanted = error != -ENOENT;
	return 0;
}

static int apply_record(struct journal *journal, const struct scan_record *record, bool fixed_pass)
{
	const struct format_record_header *header = (const struct format_record_header *)record->bytes;
	const struct format_record_item *from = (const struct format_record_item *)(header + 1);
	unsigned items = le16_get(header->items);
	struct recover_item item = { .sequence = record->sequence };
	bool wanted;
	int error;

	if (le16_get(header->type) != FORMAT_RECORD_TX)
		return 0;
	item.data = record->bytes + record_lines_offset(items);
	for (; items; items--, from++) {
		item.address = le64_get(from->address);
		item.lines = le64_get(from->lines);
		item.init = le32_get(from->flags) & FORMAT_ITEM_INIT;
		item.adds = le32_get(from->flags) & FORMAT_ITEM_ADD;
		error = item_is_wanted(journal, item.address, fixed_pass, &wanted);
		if (!error && wanted)
			error = apply_item(journal, &item);
		if (error)
			return error;
		item.data += (size_t)__builtin_popcountll(item.lines) * LINE_BYTES;
	}
	return 0;
}

/*
 * Records are believed no more than blocks at home: what they come to must be a block of its address, or the next mount would find what this one has
 * sealed, and refuse it.
 */
static void refuse_damaged(struct journal *journal, bool fixed_pass)
{
	struct cache_buf *cb, *next;
	const char *field;

	for (cb = TAILQ_FIRST(&journal->dirty); cb; cb = next) {
		next = TAILQ_NEXT(cb, dirty_link);
		if (maddr_is_fixed(cb->buf.address) != fixed_pass || cb->error)
			continue;
		format_block_seal(cb->block, cb->sequence);
		cb->error = format_block_verify(cb->block, journal->super.meta_uuid, cb->buf.address, &field);
		if (!cb->error)
			continue;
		log_error("metadata block %#llx: the journal makes it invalid: %s", (unsigned long long)cb->buf.address, field);
		cache_set_clean(cb);
	}
}

static int apply_pass(struct journal *journal, const struct scan *scan, bool fixed_pass)
{
	int error = 0;

	for (size_t i = 0; i < scan->count && !error; i++)
		error = apply_record(journal, &scan->records[i], fixed_pass);
	if (!error)
		refuse_damaged(journal, fixed_pass);
	return error;
}

/* Blocks that were to be changed but have no base stay in the cache with their error, so that no older content passes for theirs. */
static void count_lost(struct journal *journal)
{
	struct cache_buf *cb;

	for (unsigned i = 0; i < CACHE_SHARDS; i++)
		TAILQ_FOREACH(cb, &journal->shards[i].clock, clock_link)
			if (cb->error) {
				journal->recovery.lost++;
				log_error("metadata block %#llx: changes in the journal, but no whole block comes of them",
					  (unsigned long long)cb->buf.address);
			}
}

static int hold_root(struct journal *journal, struct why *why)
{
	struct cache_buf *cb;
	int error = recover_get(journal, MADDR_ROOT, &cb);

	if (!error)
		error = cb->error;
	if (error)
		return why_set(why, error, "the root block is %s in both copies",
			       error == -EIO ? "poisoned" : "damaged");
	if (((struct format_block_header *)cb->block)->role != FORMAT_ROLE_ROOT)
		return why_set(why, -EUCLEAN, "the root block is another kind of block");
	journal->root = cb;
	return 0;
}

/* --- which records count -------------------------------------------------------------------------------------------- */

static bool record_is_tx(const struct scan_record *record)
{
	return le16_get(((const struct format_record_header *)record->bytes)->type) == FORMAT_RECORD_TX;
}

static bool record_was_durable(const struct scan_record *record, uint64_t durable_up_to)
{
	return record->sequence <= durable_up_to || !le32_get(((const struct format_record_header *)record->bytes)->boot);
}

/* Page cache of another boot is gone: what was not said to be durable may be there in part, in any order. */
static void discard_undurable(struct journal *journal, struct scan *scan)
{
	size_t kept = 0;

	while (kept < scan->count && record_was_durable(&scan->records[kept], scan->durable_up_to))
		kept++;
	journal->recovery.discarded = scan->later_tx;
	for (size_t i = kept; i < scan->count; i++) {
		journal->recovery.discarded += record_is_tx(&scan->records[i]);
		free(scan->records[i].bytes);
	}
	scan->count = kept;
}

static void judge_end(struct journal *journal, struct scan *scan)
{
	struct log_ring *ring = &journal->log;
	bool other_boot = scan->boot && scan->boot != ring->boot;

	if (scan->end_sequence <= scan->durable_up_to || (scan->later_count && !other_boot)) {
		journal->recovery.hole = true;
		log_error("the journal has a hole: record %llu is missing, %s", (unsigned long long)scan->end_sequence,
			  scan->later_count ? "later ones are whole" : "which was durable");
		return;
	}
	if (other_boot)
		discard_undurable(journal, scan);
}

/* Sequences never restart, not even over records that do not count. */
static void continue_log(struct journal *journal, const struct scan *scan)
{
	struct log_ring *ring = &journal->log;
	uint64_t last_tx = 0;

	for (size_t i = 0; i < scan->count; i++)
		if (record_is_tx(&scan->records[i])) {
			last_tx = scan->records[i].sequence;
			journal->recovery.records++;
		}
	log_set_next(ring, max_u64(scan->end_sequence, scan->later_sequence + 1), scan->end_offset);
	ring->last_tx = last_tx;
	ring->synced = scan->durable_up_to;
	ring->durable = scan->durable_up_to;
	ring->missing = scan->missing;
}

/* A record that only one copy has is stored in the other, before anything relies on the log being there twice. */
static int equalise_copies(struct journal *journal, const struct scan *scan)
{
	struct log_ring *ring = &journal->log;
	unsigned all = ring->copies == 2 ? 3 : 1, missing;
	int error;

	for (size_t i = 0; i < scan->count; i++) {
		missing = all & ~scan->records[i].copies;
		for (unsigned k = 0; k < 2; k++) {
			if (!(missing & 1u << k))
				continue;
			error = media_write(ring->media, ring->ring[k] + scan->records[i].offset, scan->records[i].bytes,
					    scan->records[i].length_bytes, NULL);
			if (error && error != -EIO)
				return error;
		}
	}
	return log_barrier(ring); /* durable: both copies of every record that was replayed */
}

int recover_run(struct journal *journal, struct why *why)
{
	struct scan scan;
	int error = scan_run(&journal->log, journal->is_new, &scan);

	if (!error) {
		judge_end(journal, &scan);
		continue_log(journal, &scan);
		if (journal->salvage)
			salvage_judge(journal, &scan);
		/* From here on no block at home may be ahead of the log: it would be refused by the next mount. */
		journal->log_is_known = !journal->salvage && !journal->recovery.hole;
		error = apply_pass(journal, &scan, true);
	}
	if (error) {
		why_set(why, error, "the journal cannot be read");
		goto out;
	}
	if (journal->salvage)
		error = salvage_mend_fixed(journal, why);
	if (!error)
		error = hold_root(journal, why);
	if (error)
		goto out;
	error = apply_pass(journal, &scan, false);
	if (!error)
		count_lost(journal);
	if (!error && !journal->readonly && !journal->recovery.hole && (!journal->recovery.lost || journal->salvage))
		error = equalise_copies(journal, &scan);
	if (error)
		why_set(why, error, "the journal cannot be replayed");
out:
	scan_fini(&scan);
	return error;
}
