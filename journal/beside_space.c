/*
 * Blocks for transactions beside others. A free block is claimed in memory; the record adds the bit of its chunk's map, which everybody sees when that is durable. Of a block that is
 * given back it takes the bit away, and nobody takes the block before that shows. Bits of one map
 * that several change at once add up, in whatever order and whoever of them is lost in a crash, so that nobody owns the table.
 */
#include "journal/internal.h"

#include <errno.h>
#include <string.h>

static struct format_chunk_entry *entry_of(uint8_t *table, uint64_t chunk)
{
	return &((struct format_chunk_table_block *)table)->entries[chunk % CHUNK_ENTRIES_PER_BLOCK];
}

static maddr_t table_of(uint64_t chunk)
{
	return MADDR_TABLE + chunk / CHUNK_ENTRIES_PER_BLOCK;
}

static uint64_t map_load(const struct format_chunk_entry *entry, unsigned word)
{
	return le64_get((struct le64){ __atomic_load_n(&entry->map[word].raw, __ATOMIC_SEQ_CST) });
}

/* --- taking --------------------------------------------------------------------------------------------------------------- */

static void claim_drop(struct journal *journal, const struct tx_take *take)
{
	atomic_fetch_and(&journal->claims[take->chunk % CLAIM_CHUNKS][take->index / 64], ~(1ull << take->index % 64));
}

/* A claim ends after its bit shows in the map: whoever claims it next looks at the map again. */
static bool claim_one(struct journal *journal, const struct format_chunk_entry *entry, const struct tx_take *take)
{
	_Atomic uint64_t *claims = &journal->claims[take->chunk % CLAIM_CHUNKS][take->index / 64];
	uint64_t bit = 1ull << take->index % 64;

	if (atomic_fetch_or(claims, bit) & bit)
		return false;
	if (!(map_load(entry, take->index / 64) & bit))
		return true;
	claim_drop(journal, take);
	return false;
}

static bool claim_in_word(struct journal *journal, const struct format_chunk_entry *entry, struct tx_take *take, unsigned word)
{
	uint64_t taken = map_load(entry, word) | atomic_load(&journal->claims[take->chunk % CLAIM_CHUNKS][word]);

	for (uint64_t left = ~taken; left; left &= left - 1) {
		take->index = word * 64 + (unsigned)__builtin_ctzll(left);
		if (take->index >= chunk_blocks(entry->shift))
			return false;
		if (claim_one(journal, entry, take))
			return true;
	}
	return false;
}

/* Each slot begins at another word. */
static bool claim_in_chunk(struct tx *tx, struct tx_take *take)
{
	const struct format_chunk_entry *entry = entry_of(tx->table->block, take->chunk);
	unsigned words, first = (unsigned)(tx - tx->journal->txs);

	if (entry->state != FORMAT_CHUNK_LIVE)
		return false;
	words = (chunk_blocks(entry->shift) + 63) / 64;
	for (unsigned i = 0; i < words; i++)
		if (claim_in_word(tx->journal, entry, take, (first + i) % words))
			return true;
	return false;
}

/* The reference keeps it in the cache, unless it is on its way out already. */
static int table_hold(struct tx *tx, uint64_t chunk)
{
	struct cache_buf *cb = tx->table;

	if (cb)
		return cb->buf.address == table_of(chunk) ? 0 : -EAGAIN;
	cb = cache_find(tx->journal, table_of(chunk));
	if (!cb || cb->error)
		return -EAGAIN;
	atomic_fetch_add(&cb->refs, 1);
	tx->table = cb;
	return atomic_load(&cb->hashed) && tx_block_base(tx->journal, &(struct tx_block){ .cb = cb }) ? 0 : -EAGAIN;
}

int beside_take_block(struct tx *tx, maddr_t *address)
{
	struct journal *journal = tx->journal;
	uint64_t chunks = root_get(journal, ROOT_CHUNKS);
	struct tx_take take = { .chunk = max_u64(tx->take_chunk, journal->free_hint) };
	int error = 0;

	if (chunk_free_blocks(journal) < METADATA_LOW_BLOCKS || tx->take_count == TX_TAKES_MAX)
		return -EAGAIN;
	for (; take.chunk < chunks && !error; take.chunk++) {
		error = table_hold(tx, take.chunk);
		if (error || !claim_in_chunk(tx, &take))
			continue;
		tx->takes[tx->take_count++] = take;
		tx->take_chunk = take.chunk;
		*address = maddr_of_chunk(take.chunk, take.index);
		return root_add(tx, ROOT_META_FREE, -1);
	}
	tx->take_chunk = 0;
	return -EAGAIN;
}

/* Whoever has joined the block is the only one who may. */
int beside_give_block(struct tx *tx, maddr_t address)
{
	struct tx_take take = { .chunk = maddr_chunk(address), .index = maddr_index(address), .gives = true };
	const struct format_chunk_entry *entry;

	if (maddr_is_fixed(address) || !take.index || tx->take_count == TX_TAKES_MAX || table_hold(tx, take.chunk))
		return -EAGAIN;
	entry = entry_of(tx->table->block, take.chunk);
	if (entry->state != FORMAT_CHUNK_LIVE || take.index >= chunk_blocks(entry->shift) || !(map_load(entry, take.index / 64) >> take.index % 64 & 1))
		return -EAGAIN;
	tx->takes[tx->take_count++] = take;
	return root_add(tx, ROOT_META_FREE, 1);
}

void beside_drop_takes(struct tx *tx)
{
	for (unsigned i = 0; i < tx->take_count; i++)
		if (!tx->takes[i].gives)
			claim_drop(tx->journal, &tx->takes[i]);
	tx->take_count = 0;
	if (tx->table)
		cache_put(tx->table);
	tx->table = NULL;
}

/* --- the record, and what everybody sees --------------------------------------------------------------------------------- */

static size_t entry_offset(uint64_t chunk)
{
	return offsetof(struct format_chunk_table_block, entries) + chunk % CHUNK_ENTRIES_PER_BLOCK * sizeof(struct format_chunk_entry);
}

/* A bit that is not set and a count that is not 0, or the other way around: neither touches what stands beside it in its word. */
void beside_take_sums(const struct tx_take *take, struct tx_sum sums[2])
{
	static_assert(offsetof(struct format_chunk_entry, free_blocks) % sizeof(struct le64) == 0, "low half of a word");
	size_t entry = entry_offset(take->chunk);
	uint64_t bit = 1ull << take->index % 64;

	sums[0] = (struct tx_sum){ entry + offsetof(struct format_chunk_entry, free_blocks), take->gives ? 1 : UINT64_MAX };
	sums[1] = (struct tx_sum){ entry + offsetof(struct format_chunk_entry, map) + take->index / 64 * sizeof(struct le64),
				   take->gives ? 0 - bit : bit };
}

uint64_t beside_table_lines(const struct tx *tx)
{
	uint64_t lines = 0;

	for (unsigned i = 0; i < tx->take_count; i++) {
		struct tx_sum sums[2];

		beside_take_sums(&tx->takes[i], sums);
		lines |= 1ull << sums[0].offset / LINE_BYTES | 1ull << sums[1].offset / LINE_BYTES;
	}
	return lines;
}

static void take_show(uint8_t *table, const struct tx_take *take)
{
	struct format_chunk_entry *entry = entry_of(table, take->chunk);
	uint32_t old = __atomic_load_n(&entry->free_blocks.raw, __ATOMIC_RELAXED), new;

	__atomic_fetch_xor(&entry->map[take->index / 64].raw, le64_make(1ull << take->index % 64).raw, __ATOMIC_SEQ_CST);
	do
		new = le32_make(le32_get((struct le32){ old }) + (take->gives ? 1 : UINT32_MAX)).raw;
	while (!__atomic_compare_exchange_n(&entry->free_blocks.raw, &old, new, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

static void free_hint_lower(struct journal *journal, uint64_t chunk)
{
	uint64_t hint = journal->free_hint;

	while (chunk < hint && !atomic_compare_exchange_weak(&journal->free_hint, &hint, chunk))
		;
}

void beside_table_show(struct tx *tx, uint64_t sequence)
{
	for (unsigned i = 0; i < tx->take_count; i++) {
		take_show(tx->table->block, &tx->takes[i]);
		if (tx->takes[i].gives)
			free_hint_lower(tx->journal, tx->takes[i].chunk);
	}
	cache_raise_sequence(tx->table, sequence);
	cache_set_dirty(tx->table);
}
