/*
 * Transactions beside others. Each copies the blocks that it looks at; a block that it changes it owns from then on until the change is shown. Before its record
 * is placed, every leaf that it relied on must be as it was and be owned by nobody: with all it changes already its own, this is a moment at which everything
 * it has seen is true at once, and of two transactions that have each read what the other changes one finds so. As blocks are owned until they are
 * shown, and shown when they are durable, nothing is ever built on what a crash could take back, and records may lie in the log in the order in which they come, also when one of them is not whole.
 */
#include "journal/internal.h"

#include <errno.h>
#include <string.h>

#include "util/log.h"
#include "util/spin.h"

/* --- bytes that another thread may be changing ------------------------------------------------------------------------ */

/*
 * Whether a copy was of one moment is known afterwards, by the version. The sanitizer for threads wants to see each word loaded and stored
 * atomically, and knows no fences; otherwise whole lines at a time are faster.
 */
#ifdef __SANITIZE_THREAD__
static void bytes_copy(uint8_t *to, const uint8_t *from, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 8)
		__atomic_store_n((uint64_t *)(to + i), __atomic_load_n((const uint64_t *)(from + i), __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
}
static void bytes_fence(void)
{
}
static void bytes_fence_loads(void)
{
}
#else
static void bytes_copy(uint8_t *to, const uint8_t *from, size_t bytes)
{
	memcpy(to, from, bytes);
}
static void bytes_fence(void)
{
	atomic_thread_fence(memory_order_seq_cst);
}
/* Nobody waits for the copy to be stored: of the version that is asked next, only the loads must be earlier. */
static void bytes_fence_loads(void)
{
	atomic_thread_fence(memory_order_acquire);
}
#endif

static bool view_is_current(const struct tx_view *view)
{
	const struct cache_buf *cb = view->buf.cache;

	return view->joined || (atomic_load(&cb->version) == view->version && atomic_load(&cb->hashed));
}

static bool view_copy(struct tx_view *view)
{
	struct cache_buf *cb = view->buf.cache;

	view->version = atomic_load(&cb->version);
	if (view->version & 1)
		return false;
	bytes_copy(view->buf.data, cb->block, BLOCK_BYTES);
	bytes_fence_loads();
	view->buf.verified = __atomic_load_n(&cb->buf.verified, __ATOMIC_RELAXED);
	return view_is_current(view);
}

/* While somebody shows what he has changed, which is a few lines. */
static bool view_copy_soon(struct tx_view *view)
{
	if (view_copy(view))
		return true;
	lock_count_taken(LOCK_BLOCKS, true);
	for (unsigned i = 0; i < SPIN_TRIES && atomic_load(&view->buf.cache->hashed); i++) {
		spin_pause();
		if (view_copy(view))
			return true;
	}
	return false;
}

/* --- blocks ------------------------------------------------------------------------------------------------------------ */

static struct tx_view *view_of(struct buf *buf)
{
	return (struct tx_view *)((uint8_t *)buf - offsetof(struct tx_view, buf));
}

static int view_refuse(struct tx *tx, const struct tx_view *view)
{
	lock_count_taken(LOCK_BLOCKS, true);
	tx->met = view->buf.address;
	return -EDEADLK;
}

static struct tx_view *view_find(struct tx *tx, maddr_t address)
{
	for (unsigned i = 0; i < tx->view_count; i++)
		if (tx->views[i].buf.address == address)
			return &tx->views[i];
	return NULL;
}

static int view_add(struct tx *tx, maddr_t address, struct tx_view **out)
{
	struct cache_buf *cb = cache_find(tx->journal, address);
	struct tx_view *view = &tx->views[tx->view_count];

	if (!cb || cb->error || tx->view_count == TX_VIEWS_MAX)
		return -EAGAIN;
	*view = (struct tx_view){ .buf = { .address = address, .cache = cb, .data = tx->images + (size_t)tx->view_count * BLOCK_BYTES } };
	if (!view_copy_soon(view))
		return -EDEADLK;
	tx->view_count++;
	*out = view;
	return 0;
}

/* What merely showed the way may be looked at anew; what was relied on may not have changed. */
static int view_renew(struct tx *tx, struct tx_view *view)
{
	if (view_is_current(view))
		return 0;
	if (view->relied || view->holds || !atomic_load(&view->buf.cache->hashed) || !view_copy_soon(view))
		return view_refuse(tx, view);
	return 0;
}

int beside_get(struct tx *tx, maddr_t address, struct buf **out)
{
	struct tx_view *view = view_find(tx, address);
	int error = view ? view_renew(tx, view) : view_add(tx, address, &view);

	if (error)
		return error;
	view->holds++;
	*out = &view->buf;
	return 0;
}

/* What was verified of the bytes holds for as long as they are the same. */
void beside_put(struct buf *buf)
{
	struct tx_view *view = view_of(buf);
	struct cache_buf *cb = buf->cache;

	view->holds--;
	if (!view->joined && buf->verified & ~__atomic_load_n(&cb->buf.verified, __ATOMIC_RELAXED) && view_is_current(view))
		__atomic_fetch_or(&cb->buf.verified, buf->verified, __ATOMIC_RELAXED);
}

bool buf_is_tentative(const struct buf *buf)
{
	return journal_beside(buf->cache->journal);
}

bool buf_is_current(const struct buf *buf)
{
	return !buf_is_tentative(buf) || view_is_current(view_of((struct buf *)buf));
}

void buf_rely(struct buf *buf)
{
	if (buf_is_tentative(buf))
		view_of(buf)->relied = true;
}

static void block_disown(struct cache_buf *cb)
{
	atomic_store(&cb->owner, NULL);
	cache_put(cb);
}

/* Once it is owned, nobody else changes it; the reference keeps it in the cache, unless it is on its way out already. */
int beside_join(struct tx *tx, struct buf *buf)
{
	struct tx_view *view = view_of(buf);
	struct cache_buf *cb = buf->cache;
	struct tx *nobody = NULL;

	if (view->joined)
		return 0;
	if (tx->count == tx->limit)
		return -EAGAIN;
	if (!atomic_compare_exchange_strong(&cb->owner, &nobody, tx))
		return view_refuse(tx, view);
	atomic_fetch_add(&cb->refs, 1);
	if (!view_is_current(view)) {
		block_disown(cb);
		return view_refuse(tx, view);
	}
	lock_count_taken(LOCK_BLOCKS, false);
	tx->blocks[tx->count++] = (struct tx_block){ .cb = cb, .view = view, .bytes = buf->data };
	view->joined = true;
	return 0;
}

/* Not to be looked at by anybody, who could only come by an address that is out of date, until it is shown. */
int beside_create(struct tx *tx, enum format_block_role role, unsigned tree, struct buf **out)
{
	struct tx_view *view = &tx->views[tx->view_count];
	struct cache_buf *cb;
	maddr_t address;
	int error = beside_take_block(tx, &address);

	if (error || tx->view_count == TX_VIEWS_MAX || cache_find(tx->journal, address))
		return -EAGAIN;
	cb = cache_alloc(tx->journal, address);
	if (!cb)
		return -EAGAIN;
	cb->version = 1;
	cb->owner = tx;
	cache_insert(cb);
	*view = (struct tx_view){ .buf = { .address = address, .cache = cb, .data = cb->block }, .holds = 1, .joined = true };
	tx->view_count++;
	tx->blocks[tx->count++] = (struct tx_block){ .cb = cb, .view = view, .bytes = cb->block, .fresh = true, .init = true };
	format_block_header_init((struct format_block_header *)cb->block, tx->journal->super.meta_uuid, address, role, tree);
	*out = &view->buf;
	return 0;
}

/* Until that is shown nobody else has it, nor looks at it later: it has an owner for as long as anybody may. One that is new cannot go so. */
int beside_destroy(struct tx *tx, struct buf *buf)
{
	struct tx_view *view = view_of(buf);
	int error = beside_join(tx, buf);
	unsigned i = 0;

	if (error)
		return error;
	while (tx->blocks[i].view != view)
		i++;
	error = tx->blocks[i].fresh ? -EAGAIN : beside_give_block(tx, buf->address);
	if (error)
		return error;
	tx->blocks[i].destroyed = true;
	tx->blocks[i].bytes = buf->cache->block;
	beside_put(buf);
	return 0;
}

/* --- the end ------------------------------------------------------------------------------------------------------------ */

static int beside_validate(struct tx *tx)
{
	for (unsigned i = 0; i < tx->view_count; i++) {
		struct tx_view *view = &tx->views[i];

		if (!view->joined && view->relied && (atomic_load(&view->buf.cache->owner) || !view_is_current(view)))
			return view_refuse(tx, view);
	}
	return 0;
}

static void block_end(const struct tx_block *block, bool committed)
{
	if (committed && block->destroyed)
		return; /* by beside_show() */
	if (block->fresh && !committed)
		cache_discard(block->cb);
	else
		block_disown(block->cb);
}

static void beside_end(struct tx *tx, bool committed, uint64_t sequence)
{
	for (unsigned i = 0; i < tx->count; i++)
		block_end(&tx->blocks[i], committed);
	beside_drop_takes(tx);
	tx_run_hooks(tx, committed, sequence);
	while (tx->deltas_mask) {
		tx->deltas[__builtin_ctzll(tx->deltas_mask)] = 0;
		tx->deltas_mask &= tx->deltas_mask - 1;
	}
	journal_beside_leave(tx);
}

void beside_abort(struct tx *tx)
{
	beside_end(tx, false, 0);
}

/* Lines of the root block that hold the counters which the transaction changes. */
static uint64_t beside_root_lines(const struct tx *tx)
{
	uint64_t lines = 0;

	for (uint64_t mask = tx->deltas_mask; mask; mask &= mask - 1)
		lines |= 1ull << (offsetof(struct format_root, counters) + (size_t)__builtin_ctzll(mask) * sizeof(struct le64)) / LINE_BYTES;
	return lines;
}

struct beside_record {
	struct tx_item items[TX_VIEWS_MAX + 2]; /* last, if at all, the table's and the root block's */
	unsigned count, used;
	size_t length;
	uint64_t table_lines, root_lines;
};

/* Of such a block the record says what is added to it, whatever others add meanwhile. */
static void beside_stage_sums(struct beside_record *record, maddr_t address, uint64_t lines)
{
	static const uint8_t zeros[BLOCK_BYTES] __attribute__((aligned(64)));

	if (lines)
		record->items[record->count++] = (struct tx_item){ .address = address, .bytes = zeros, .base = zeros, .lines = lines, .adds = true };
}

/* Into the lines of a block as they stand in the record. */
static void lines_add(uint8_t *at, uint64_t lines, size_t offset, uint64_t value)
{
	size_t line = offset / LINE_BYTES, before = (size_t)__builtin_popcountll(lines & ((1ull << line) - 1));
	struct le64 *word = (struct le64 *)(at + before * LINE_BYTES + offset % LINE_BYTES);

	*word = le64_make(le64_get(*word) + value);
}

static void beside_fill_sums(struct tx *tx, const struct beside_record *record)
{
	size_t root_bytes = (size_t)__builtin_popcountll(record->root_lines) * LINE_BYTES;
	size_t table_bytes = (size_t)__builtin_popcountll(record->table_lines) * LINE_BYTES;
	uint8_t *root = tx->record + record->length - root_bytes, *table = root - table_bytes;

	for (unsigned i = 0; i < tx->take_count; i++) {
		struct tx_sum sums[2];

		beside_take_sums(&tx->takes[i], sums);
		for (unsigned k = 0; k < 2; k++)
			lines_add(table, record->table_lines, sums[k].offset, sums[k].value);
	}
	for (uint64_t mask = tx->deltas_mask; mask; mask &= mask - 1) {
		unsigned counter = (unsigned)__builtin_ctzll(mask);

		lines_add(root, record->root_lines, offsetof(struct format_root, counters) + counter * sizeof(struct le64),
			  (uint64_t)tx->deltas[counter]);
	}
}

static int beside_stage(struct tx *tx, struct beside_record *record)
{
	record->root_lines = beside_root_lines(tx);
	record->table_lines = beside_table_lines(tx);
	record->count = 0;
	if (record->root_lines && !tx_block_base(tx->journal, &(struct tx_block){ .cb = tx->journal->root }))
		return -EAGAIN;
	for (unsigned i = 0; i < tx->count; i++) {
		const struct tx_block *block = &tx->blocks[i];
		const uint8_t *base = block->destroyed ? block->bytes : tx_block_base(tx->journal, block);

		if (!base && !block->fresh)
			return -EAGAIN;
		record->items[record->count++] = (struct tx_item){ .address = block->cb->buf.address, .bytes = block->bytes, .base = base };
	}
	beside_stage_sums(record, tx->table ? tx->table->buf.address : 0, record->table_lines);
	beside_stage_sums(record, MADDR_ROOT, record->root_lines);
	record->length = tx_stage_items(tx->record, record->items, record->count, &record->used);
	beside_fill_sums(tx, record);
	return 0;
}

/* In the counts of the thread's own slot. */
static void beside_count(struct tx *tx, atomic_uint_fast64_t *cell, uint64_t add)
{
	slot_count(cell, (unsigned)(tx - tx->journal->txs), add);
}

/* What is durable at the next sync only is stored in turn: of that, recovery lets nothing count behind what is missing. */
static int beside_append_in_turn(struct tx *tx, const struct beside_record *record, uint64_t *sequence)
{
	struct log_ring *ring = &tx->journal->log;
	int error = -EAGAIN;

	lock_mutex(&ring->mutex, LOCK_LOG);
	if (!ring->stuck && log_has_room(ring, record->length + ring->slack_bytes)) {
		ring->record = tx->record;
		error = log_append(ring, FORMAT_RECORD_TX, record->length, record->used, sequence);
	}
	pthread_mutex_unlock(&ring->mutex);
	return error;
}

static int beside_append(struct tx *tx, const struct beside_record *record, uint64_t *sequence)
{
	struct journal *journal = tx->journal;
	struct log_claim claim = { 0 };
	int error;

	if (journal->log.paged) {
		error = beside_append_in_turn(tx, record, sequence);
	} else {
		error = log_claim(&journal->log, record->length, &claim);
		if (!error)
			error = log_store_claimed(&journal->log, tx->record, record->length, record->used, &claim);
		*sequence = claim.sequence;
		beside_count(tx, &tx->records, !error);
		beside_count(tx, &tx->record_bytes, error ? 0 : record->length);
	}
	if (error == -ENOTRECOVERABLE) {
		log_error("a record that failed may be found in the journal: no more changes");
		journal_shutdown(journal);
		error = -EIO;
	}
	return error;
}

static void block_show(struct cache_buf *cb, const uint8_t *bytes, uint64_t lines)
{
	for (; lines; lines &= lines - 1) {
		size_t at = (size_t)__builtin_ctzll(lines) * LINE_BYTES;

		bytes_copy(cb->block + at, bytes + at, LINE_BYTES);
	}
}

static void root_show(struct tx *tx)
{
	struct format_root *root = (struct format_root *)tx->journal->root->block;

	for (uint64_t mask = tx->deltas_mask; mask; mask &= mask - 1)
		root_count(root, (unsigned)__builtin_ctzll(mask), tx->deltas[__builtin_ctzll(mask)]);
}

/* All are marked before the first changes: whoever has seen an old parent then knows it when he has come to a new child. */
static void beside_show(struct tx *tx, const struct beside_record *record, uint64_t sequence)
{
	struct journal *journal = tx->journal;

	gate_close(&journal->gate);
	/* Not before: whoever is in there yet would take what it counts then for what it saw. */
	beside_count(tx, &tx->shown, 1);
	for (unsigned i = 0; i < tx->count; i++)
		if (!tx->blocks[i].fresh)
			atomic_fetch_add(&tx->blocks[i].cb->version, 1);
	bytes_fence();
	for (unsigned i = 0; i < tx->count; i++) {
		struct cache_buf *cb = tx->blocks[i].cb;

		if (!record->items[i].lines)
			continue;
		if (!tx->blocks[i].fresh)
			block_show(cb, tx->blocks[i].bytes, record->items[i].lines);
		__atomic_store_n(&cb->buf.verified, tx->blocks[i].view->buf.verified, __ATOMIC_RELAXED);
		cb->sequence = sequence;
		cache_set_dirty(cb);
	}
	for (unsigned i = 0; i < tx->count; i++) {
		if (tx->blocks[i].destroyed)
			cache_discard(tx->blocks[i].cb);
		else
			atomic_fetch_add(&tx->blocks[i].cb->version, 1);
	}
	if (record->table_lines)
		beside_table_show(tx, sequence);
	if (record->root_lines) {
		root_show(tx);
		cache_raise_sequence(journal->root, sequence);
		cache_set_dirty(journal->root);
	}
	gate_open(&journal->gate);
}

int beside_commit(struct tx *tx, uint64_t *sequence)
{
	struct journal *journal = tx->journal;
	struct beside_record record;
	uint64_t number = 0;
	int error = journal_is_readonly(journal) ? -EAGAIN : 0; /* tx_begin() says why */

	if (!error && media_bad_any(journal->media))
		error = -EAGAIN;
	if (!error)
		error = beside_stage(tx, &record);
	if (!error)
		error = beside_validate(tx);
	if (!error && record.length) {
		beside_count(tx, &tx->logged, 1);
		error = beside_append(tx, &record, &number);
	}
	if (error) {
		beside_abort(tx);
		return error;
	}
	if (record.length) {
		beside_show(tx, &record, number);
	} else {
		number = journal->log.last_tx;
	}
	if (sequence)
		*sequence = number;
	beside_end(tx, true, number);
	return 0;
}
