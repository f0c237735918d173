#include "journal/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/log.h"

#define BLOCK_LINES (BLOCK_BYTES / LINE_BYTES)
/* The root block and table blocks are joined on behalf of the caller. */
#define TX_OWN_BLOCKS 3u
#define TX_BYTES_MIN (16u << 10)

static unsigned tx_blocks_in(uint64_t record_bytes)
{
	uint64_t blocks = (record_bytes - 2 * LINE_BYTES) / (sizeof(struct format_record_item) + BLOCK_BYTES);

	return (unsigned)min_u64(blocks, TX_BLOCKS_MAX);
}

static void tx_free_buffers(struct tx *tx)
{
	free(tx->blocks);
	free(tx->images);
	free(tx->record);
	free(tx->views);
	tx->blocks = NULL;
	tx->images = tx->record = NULL;
	tx->views = NULL;
}

int tx_make_buffers(struct tx *tx)
{
	unsigned limit = tx_blocks_in(tx->journal->log.record_limit);

	if (tx->blocks)
		return 0;
	tx->blocks = calloc(limit, sizeof(*tx->blocks));
	tx->images = aligned_alloc(LINE_BYTES, (size_t)max_u64(limit, TX_VIEWS_MAX) * BLOCK_BYTES);
	tx->record = aligned_alloc(LINE_BYTES, LOG_RECORD_MAX_BYTES);
	tx->views = calloc(TX_VIEWS_MAX, sizeof(*tx->views));
	if (tx->blocks && tx->images && tx->record && tx->views)
		return 0;
	tx_free_buffers(tx);
	return -ENOMEM;
}

int tx_init(struct journal *journal)
{
	journal->tx_bytes = journal->log.record_limit;
	journal->tx_limit = tx_blocks_in(journal->tx_bytes);
	for (unsigned i = 0; i < SLOT_COUNT; i++)
		journal->txs[i].journal = journal;
	return tx_make_buffers(&journal->txs[SLOT_SHARED]);
}

void tx_fini(struct journal *journal)
{
	for (unsigned i = 0; i < SLOT_COUNT; i++) {
		tx_free_buffers(&journal->txs[i]);
		free(journal->txs[i].hooks);
	}
}

struct journal *tx_journal(struct tx *tx)
{
	return tx->journal;
}

bool tx_is_beside(const struct tx *tx)
{
	return tx->beside;
}

maddr_t tx_met(struct journal *journal)
{
	return journal->txs[slot_mine()].met;
}

void tx_set_crowded(struct tx *tx, maddr_t block)
{
	tx->crowded = block;
}

maddr_t tx_crowded(const struct tx *tx)
{
	return tx->crowded;
}

enum tx_kind tx_kind(const struct tx *tx)
{
	return tx->kind;
}

unsigned tx_room(const struct tx *tx)
{
	unsigned used = (tx->beside ? tx->view_count : tx->count) + TX_OWN_BLOCKS;

	return tx->limit > used ? tx->limit - used : 0;
}

/* --- begin -------------------------------------------------------------------------------------------------------- */

static bool tx_has_room(struct journal *journal)
{
	return !journal->log.stuck && !journal->log.missing && log_has_room(&journal->log, journal->tx_bytes + journal->log.slack_bytes);
}

/* A ring with many bad places has no room for the longest record, not even when it is empty; shorter ones still serve. */
static void tx_fit_record(struct journal *journal)
{
	journal->tx_bytes = journal->log.record_limit;
	while (log_is_empty(&journal->log) && !journal->log.stuck && !journal->log.missing && !tx_has_room(journal) && journal->tx_bytes > TX_BYTES_MIN)
		journal->tx_bytes = round_down_u64(journal->tx_bytes / 2, LINE_BYTES);
	journal->tx_limit = tx_blocks_in(journal->tx_bytes);
}

static int tx_make_space(struct journal *journal)
{
	int error;

	if (tx_has_room(journal) && journal->dirty_blocks + journal->tx_limit <= journal->dirty_limit)
		return 0;
	journal_exclude(journal); /* for all of this transaction */
	error = checkpoint_run(journal, journal->log.epoch);
	if (journal->sync_error)
		return -EIO;
	tx_fit_record(journal);
	/* What could not be written home stays in the cache; while the ring has room nothing is lost by going on. */
	if (tx_has_room(journal))
		return 0;
	if (error == -ENOSPC) /* of the host: may pass */
		return error;
	log_error("the journal is full and cannot be emptied: no more changes");
	journal_shutdown(journal);
	return -EIO;
}

static int tx_may_begin(struct journal *journal)
{
	if (journal_is_readonly(journal))
		return -EROFS;
	return journal->sync_error ? -EIO : 0;
}

static struct tx *tx_of_thread(struct journal *journal)
{
	struct tx *tx = &journal->txs[slot_mine()];

	return tx_make_buffers(tx) ? &journal->txs[SLOT_SHARED] : tx;
}

static void tx_reset(struct tx *tx, enum tx_kind kind, bool beside)
{
	tx->kind = kind;
	tx->beside = beside;
	tx->count = 0;
	tx->hook_count = 0;
	tx->retires = false;
	tx->crowded = 0;
}

int tx_begin(struct journal *journal, enum tx_kind kind, struct tx **out)
{
	struct tx *tx;
	int error = tx_may_begin(journal);

	if (error)
		return error;
	journal_reserve(journal);
	error = tx_may_begin(journal);
	if (!error)
		error = tx_make_space(journal);
	if (error) {
		journal_unlock(journal);
		return error;
	}
	tx = tx_of_thread(journal);
	tx_reset(tx, kind, false);
	tx->limit = journal->tx_limit;
	tx->old_free_hint = journal->free_hint;
	tx->old_entry_hint = journal->entry_hint;
	journal->log.record = tx->record;
	*out = tx;
	return 0;
}

/* What needs a full image of a block, or has little room, runs alone. */
static bool tx_may_run_beside(struct journal *journal)
{
	return !tx_may_begin(journal) && journal->super.version >= FORMAT_VERSION_BESIDE && journal->super.copies == 2 && !media_bad_any(journal->media) &&
	       journal->dirty_blocks + TX_VIEWS_MAX <= journal->dirty_limit;
}

int tx_begin_beside(struct journal *journal, enum tx_kind kind, struct tx **out)
{
	unsigned slot = slot_mine();
	struct tx *tx = &journal->txs[slot];

	if (slot == SLOT_SHARED || !tx_may_run_beside(journal) || tx_make_buffers(tx))
		return -EAGAIN;
	tx_reset(tx, kind, true);
	tx->limit = TX_VIEWS_MAX;
	tx->view_count = 0;
	tx->take_count = 0;
	tx->met = 0;
	tx->table = NULL;
	tx->deltas_mask = 0;
	journal_beside_enter(tx);
	*out = tx;
	return 0;
}

/* --- join --------------------------------------------------------------------------------------------------------- */

struct tx_block *tx_block_of(struct cache_buf *cb)
{
	return cb->slot < 0 ? NULL : &atomic_load_explicit(&cb->owner, memory_order_relaxed)->blocks[cb->slot];
}

int tx_add_block(struct tx *tx, struct cache_buf *cb, struct tx_block **out)
{
	struct tx_block *block;

	if (tx->count == tx->limit)
		return -EFBIG;
	block = &tx->blocks[tx->count];
	*block = (struct tx_block){ .cb = cb, .bytes = tx->images + (size_t)tx->count * BLOCK_BYTES };
	atomic_store(&cb->owner, tx);
	cb->slot = (int)tx->count++;
	cb->refs++;
	*out = block;
	return 0;
}

int tx_join(struct tx *tx, struct buf *buf)
{
	struct cache_buf *cb = cache_of(buf);
	struct tx_block *block;
	int error;

	if (tx->beside)
		return beside_join(tx, buf);
	assert(buf == &cb->mine);
	if (cb->slot >= 0)
		return 0;
	error = tx_add_block(tx, cb, &block);
	if (error)
		return error;
	memcpy(block->bytes, cb->block, BLOCK_BYTES);
	buf->data = block->bytes;
	return 0;
}

int tx_join_fresh(struct tx *tx, struct cache_buf *cb)
{
	struct tx_block *block = tx_block_of(cb);
	int error = 0;

	if (!block) {
		error = tx_add_block(tx, cb, &block);
		if (error)
			return error;
		block->fresh = true;
		block->bytes = cb->block;
	}
	block->init = true;
	block->destroyed = false;
	return 0;
}

int tx_add_hook(struct tx *tx, tx_hook_fn *fn, void *arg)
{
	unsigned capacity = tx->hook_capacity ? 2 * tx->hook_capacity : 16;
	struct tx_hook *hooks;

	if (tx->hook_count == tx->hook_capacity) {
		hooks = realloc(tx->hooks, capacity * sizeof(*hooks));
		if (!hooks)
			return -ENOMEM;
		tx->hooks = hooks;
		tx->hook_capacity = capacity;
	}
	tx->hooks[tx->hook_count++] = (struct tx_hook){ fn, arg };
	return 0;
}

/* --- the record ---------------------------------------------------------------------------------------------------- */

/* Two words at once, which every machine has: the comparison is what a commit computes most. */
typedef uint64_t word_pair __attribute__((vector_size(16), may_alias));
#define LINE_PAIRS (LINE_BYTES / sizeof(word_pair))

static bool line_differs(const word_pair *line, const word_pair *base)
{
	word_pair difference = (line[0] ^ base[0]) | (line[1] ^ base[1]) | (line[2] ^ base[2]) | (line[3] ^ base[3]);

	static_assert(LINE_PAIRS == 4, "all of the line");
	return difference[0] | difference[1];
}

/* Both are aligned to a line. */
static uint64_t block_diff_lines(const uint8_t *block, const uint8_t *base)
{
	static const word_pair zeros[LINE_PAIRS];
	uint64_t lines = 0;

	for (unsigned i = 0; i < BLOCK_LINES; i++) {
		const word_pair *old = base ? (const word_pair *)base + i * LINE_PAIRS : zeros;

		lines |= (uint64_t)line_differs((const word_pair *)block + i * LINE_PAIRS, old) << i;
	}
	return lines;
}

static uint8_t *record_add_lines(uint8_t *to, const uint8_t *block, uint64_t lines)
{
	for (; lines; lines &= lines - 1, to += LINE_BYTES)
		memcpy(to, block + (size_t)__builtin_ctzll(lines) * LINE_BYTES, LINE_BYTES);
	return to;
}

size_t tx_stage_items(uint8_t *record, struct tx_item *items, unsigned count, unsigned *used)
{
	struct format_record_item *item = (struct format_record_item *)(record + sizeof(struct format_record_header));
	uint8_t *to;

	*used = 0;
	for (unsigned i = 0; i < count; i++) {
		if (!items[i].lines)
			items[i].lines = block_diff_lines(items[i].bytes, items[i].base);
		if (!items[i].lines)
			continue;
		++*used;
		*item++ = (struct format_record_item){ .address = le64_make(items[i].address),
						       .lines = le64_make(items[i].lines),
						       .flags = le32_make(items[i].adds ? FORMAT_ITEM_ADD : items[i].base ? 0 : FORMAT_ITEM_INIT) };
	}
	if (!*used)
		return 0;
	to = record + record_lines_offset(*used);
	memset(item, 0, (size_t)(to - (uint8_t *)item));
	for (unsigned i = 0; i < count; i++)
		to = record_add_lines(to, items[i].bytes, items[i].lines);
	return (size_t)(to - record);
}

int tx_log_items(struct log_ring *ring, struct tx_item *items, unsigned count, uint64_t *sequence)
{
	unsigned used;
	size_t length = tx_stage_items(ring->record, items, count, &used);

	*sequence = 0;
	return length ? log_append(ring, FORMAT_RECORD_TX, length, used, sequence) : 0;
}

/*
 * With one whole copy at home, a write-back that is torn leaves none: the log must then hold all of the block, from its first change after
 * each write-back.
 */
static bool block_has_one_copy(struct journal *journal, struct cache_buf *cb)
{
	devoff_t offset[2], bad;
	uint64_t length;

	if (journal->super.copies == 1 || cb->half)
		return true;
	if (!media_bad_any(journal->media) || chunk_locate(journal, cb->buf.address, offset))
		return false;
	for (unsigned k = 0; k < 2; k++)
		if (!offset[k] || media_bad_find(journal->media, offset[k], BLOCK_BYTES, &bad, &length))
			return true;
	return false;
}

const uint8_t *tx_block_base(struct journal *journal, const struct tx_block *block)
{
	if (block->init || (!block->cb->dirty && block_has_one_copy(journal, block->cb)))
		return NULL;
	return block->cb->block;
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

void tx_run_hooks(struct tx *tx, bool committed, uint64_t sequence)
{
	for (unsigned i = 0; i < tx->hook_count; i++)
		tx->hooks[i].fn(tx->hooks[i].arg, committed, sequence);
}

static void tx_finish(struct tx *tx, bool committed, uint64_t sequence)
{
	tx_run_hooks(tx, committed, sequence);
	journal_unlock(tx->journal);
}

static void tx_restore_block(struct tx_block *block)
{
	struct cache_buf *cb = block->cb;

	cb->slot = -1;
	cb->owner = NULL;
	if (block->fresh) {
		cache_discard(cb);
		return;
	}
	cb->mine.data = cb->block;
	cb->mine.verified = 0; /* buf_get() takes over what is known of the old bytes */
	cache_put(cb);
}

void tx_abort(struct tx *tx)
{
	struct journal *journal = tx->journal;

	if (tx->beside) {
		beside_abort(tx);
		return;
	}
	for (unsigned i = tx->count; i-- > 0;)
		tx_restore_block(&tx->blocks[i]);
	journal->free_hint = min_u64(journal->free_hint, tx->old_free_hint);
	journal->entry_hint = min_u64(journal->entry_hint, tx->old_entry_hint);
	tx_finish(tx, false, 0);
}

/* What a block has become: which lines differ from what everybody sees. */
struct tx_change {
	bool changed;
	uint64_t lines;
};

static void block_show(struct cache_buf *cb, const uint8_t *image, uint64_t lines)
{
	for (; lines; lines &= lines - 1) {
		size_t at = (size_t)__builtin_ctzll(lines) * LINE_BYTES;

		memcpy(cb->block + at, image + at, LINE_BYTES);
	}
}

static void tx_settle_block(struct tx_block *block, const struct tx_change *change, uint64_t sequence)
{
	struct cache_buf *cb = block->cb;

	cb->slot = -1;
	cb->owner = NULL;
	if (block->destroyed) {
		cache_discard(cb); /* what was dirty in it must not reach home any more */
		return;
	}
	if (change->changed) {
		if (!block->fresh)
			block_show(cb, block->bytes, change->lines);
		cb->buf.verified = cb->mine.verified;
		cb->sequence = sequence;
		cache_set_dirty(cb);
	}
	cb->mine.data = cb->block;
	cache_put(cb);
}

/* An unchanged block needs no record, a full image does though; only what differs from before decides. */
static bool block_is_changed(const struct tx_block *block)
{
	return !block->destroyed && (block->init || memcmp(block->bytes, block->cb->block, BLOCK_BYTES));
}

static int tx_log(struct tx *tx, struct tx_change *changes, uint64_t *sequence)
{
	struct tx_item items[TX_BLOCKS_MAX];
	unsigned index[TX_BLOCKS_MAX], count = 0;
	int error;

	for (unsigned i = 0; i < tx->count; i++) {
		const struct tx_block *block = &tx->blocks[i];
		const uint8_t *base = tx_block_base(tx->journal, block);

		/* Against its old bytes, the search for lines that differ tells it too. */
		changes[i] = (struct tx_change){ .changed = base ? !block->destroyed : block_is_changed(block), .lines = UINT64_MAX };
		if (!changes[i].changed)
			continue;
		index[count] = i;
		items[count++] = (struct tx_item){ .address = block->cb->buf.address, .bytes = block->bytes, .base = base };
	}
	*sequence = 0;
	error = count ? tx_log_items(&tx->journal->log, items, count, sequence) : 0;
	for (unsigned k = 0; k < count; k++)
		if (items[k].base)
			changes[index[k]] = (struct tx_change){ .changed = items[k].lines, .lines = items[k].lines };
	return error;
}

static int tx_commit_fails(struct tx *tx, int error)
{
	struct journal *journal = tx->journal;

	if (error == -ENOTRECOVERABLE) {
		log_error("a record that failed may be found in the journal: no more changes");
		journal_shutdown(journal);
		error = -EIO;
	}
	tx_abort(tx);
	return error;
}

int tx_commit(struct tx *tx, uint64_t *sequence)
{
	struct journal *journal = tx->journal;
	struct tx_change changes[TX_BLOCKS_MAX];
	uint64_t number = 0;
	int error = journal->is_shut_down ? -EROFS : 0;

	if (tx->beside)
		return beside_commit(tx, sequence);
	if (!error)
		error = tx_log(tx, changes, &number);
	if (error)
		return tx_commit_fails(tx, error);
	if (number)
		journal_exclude(journal); /* until all of it is shown */
	if (number && tx->retires)
		journal->retire_sequence = number;
	for (unsigned i = 0; i < tx->count; i++)
		tx_settle_block(&tx->blocks[i], &changes[i], number);
	if (number)
		journal->log.transactions++;
	else
		number = journal->log.last_tx;
	if (sequence)
		*sequence = number;
	tx_finish(tx, true, number);
	return 0;
}

int tx_end(struct tx *tx, int error, uint64_t *sequence)
{
	if (!error)
		return tx_commit(tx, sequence);
	tx_abort(tx);
	return error;
}

bool tx_is_durable(struct journal *journal, uint64_t sequence)
{
	return !journal->log.paged || sequence <= journal->log.durable; /* on other media, whoever has a number has it of a commit */
}
