#include "journal/internal.h"

#include <errno.h>
#include <string.h>

#include "util/log.h"

static uint64_t table_blocks_in_use(struct journal *journal)
{
	return (root_get(journal, ROOT_CHUNKS) + CHUNK_ENTRIES_PER_BLOCK - 1) / CHUNK_ENTRIES_PER_BLOCK;
}

static uint64_t fixed_blocks(struct journal *journal)
{
	return journal->super.areas[AREA_FIXED].length_bytes / BLOCK_BYTES;
}

static maddr_t table_address(uint64_t chunk)
{
	return MADDR_TABLE + chunk / CHUNK_ENTRIES_PER_BLOCK;
}

static struct format_chunk_entry *table_entry(struct buf *table, uint64_t chunk)
{
	return &((struct format_chunk_table_block *)table->data)->entries[chunk % CHUNK_ENTRIES_PER_BLOCK];
}

static int table_get(struct journal *journal, uint64_t chunk, struct buf **out)
{
	return buf_get(journal, table_address(chunk), FORMAT_ROLE_CHUNK_TABLE, FORMAT_TREE_NONE, out);
}

/* The format alone does not know how long the device is; the superblock that mount read does not once the filesystem has grown. */
static bool entry_is_inside(const struct journal *journal, const struct chunk_entry *entry)
{
	for (unsigned k = 0; k < 2 && entry->state != FORMAT_CHUNK_FREE; k++)
		if (entry->copy_state[k] != FORMAT_COPY_ABSENT &&
		    entry->copy[k] + (1ull << entry->shift) > media_size(journal->media))
			return false;
	return true;
}

/* Any entry below ROOT_CHUNKS, whatever its state. */
static int table_read(struct journal *journal, uint64_t chunk, struct chunk_entry *out)
{
	const char *field = "";
	struct buf *table;
	int error;

	if (chunk >= root_get(journal, ROOT_CHUNKS))
		return -ENOENT;
	error = table_get(journal, chunk, &table);
	if (error)
		return error;
	error = format_chunk_entry_unpack(out, table_entry(table, chunk), &field);
	buf_put(table);
	if (!error && !entry_is_inside(journal, out)) {
		field = "place";
		error = -EUCLEAN;
	}
	if (error)
		log_error("chunk table entry %llu: bad %s", (unsigned long long)chunk, field);
	return error;
}

static int table_write(struct tx *tx, uint64_t chunk, const struct chunk_entry *entry)
{
	struct buf *table;
	int error = table_get(tx_journal(tx), chunk, &table);

	if (error)
		return error;
	error = tx_join(tx, table);
	if (!error)
		format_chunk_entry_pack(table_entry(table, chunk), entry);
	buf_put(table);
	return error;
}

/* --- where and whether --------------------------------------------------------------------------------------------- */

static int locate_fixed(struct journal *journal, maddr_t address, devoff_t offset[2])
{
	const struct area *area = &journal->super.areas[AREA_FIXED];

	if (address >= fixed_blocks(journal))
		return -ENOENT;
	offset[0] = area->copy[0] + address * BLOCK_BYTES;
	offset[1] = area->copy[1] ? area->copy[1] + address * BLOCK_BYTES : 0;
	return 0;
}

int chunk_locate(struct journal *journal, maddr_t address, devoff_t offset[2])
{
	struct chunk_entry entry;
	unsigned index;
	int error;

	if (maddr_is_fixed(address))
		return locate_fixed(journal, address, offset);
	error = table_read(journal, maddr_chunk(address), &entry);
	if (error)
		return error;
	index = maddr_index(address);
	if (entry.state == FORMAT_CHUNK_FREE || index >= chunk_blocks(entry.shift))
		return -ENOENT;
	for (unsigned k = 0; k < 2; k++)
		offset[k] = entry.copy_state[k] == FORMAT_COPY_ABSENT ? 0 : entry.copy[k] + (uint64_t)index * BLOCK_BYTES;
	return 0;
}

int chunk_map(struct journal *journal, maddr_t address, devoff_t offset[2])
{
	devoff_t found[2];
	int error = chunk_locate(journal, address, found);

	if (error)
		return error == -ENOENT ? -EUCLEAN : error;
	offset[0] = found[0];
	offset[1] = found[1];
	return 0;
}

int chunk_entry(struct journal *journal, uint64_t chunk, struct chunk_entry *out)
{
	struct chunk_entry entry;
	int error = table_read(journal, chunk, &entry);

	if (error)
		return error;
	if (entry.state != FORMAT_CHUNK_LIVE)
		return -ENOENT;
	*out = entry;
	return 0;
}

static bool entry_has_block(const struct chunk_entry *entry, unsigned index)
{
	return index < chunk_blocks(entry->shift) && entry->map[index / 64] >> index % 64 & 1;
}

int chunk_check_live(struct journal *journal, maddr_t address)
{
	struct chunk_entry entry;
	int error;

	if (address == MADDR_ROOT)
		return 0;
	if (maddr_is_fixed(address))
		return address - MADDR_TABLE < table_blocks_in_use(journal) ? 0 : -ENOENT;
	error = chunk_entry(journal, maddr_chunk(address), &entry);
	if (error)
		return error;
	return entry_has_block(&entry, maddr_index(address)) ? 0 : -ENOENT;
}

bool chunk_block_is_live(struct journal *journal, maddr_t address)
{
	return !chunk_check_live(journal, address);
}

uint64_t chunk_free_blocks(struct journal *journal)
{
	uint64_t blocks = root_get(journal, ROOT_META_FREE);

	return blocks > METADATA_RESERVE_BLOCKS ? blocks - METADATA_RESERVE_BLOCKS : 0;
}

/* --- single blocks ------------------------------------------------------------------------------------------------- */

static bool block_is_bad(struct journal *journal, const struct chunk_entry *entry, unsigned index)
{
	uint64_t length;
	devoff_t bad;

	if (!media_bad_any(journal->media))
		return false;
	for (unsigned k = 0; k < 2; k++)
		if (entry->copy[k] && media_bad_find(journal->media, entry->copy[k] + (uint64_t)index * BLOCK_BYTES, BLOCK_BYTES,
						     &bad, &length))
			return true;
	return false;
}

/* The lowest free block whose copies are not known to be bad. false: all are, it is the lowest free one. */
static bool entry_pick(struct journal *journal, const struct chunk_entry *entry, unsigned *index)
{
	unsigned blocks = chunk_blocks(entry->shift);

	*index = blocks;
	for (unsigned i = 0; i < blocks; i++) {
		if (entry->map[i / 64] == UINT64_MAX) {
			i |= 63;
			continue;
		}
		if (entry_has_block(entry, i))
			continue;
		if (!block_is_bad(journal, entry, i)) {
			*index = i;
			return true;
		}
		*index = *index < i ? *index : i;
	}
	return false;
}

/* From a chunk on: a block that is good, in steady state where the hint says; one that is known to be bad where no other is left. */
static int chunk_find_free(struct journal *journal, uint64_t from, uint64_t *chunk, struct chunk_entry *entry, unsigned *index)
{
	uint64_t chunks = root_get(journal, ROOT_CHUNKS);
	struct chunk_entry looked_at;
	bool found = false, is_good;
	unsigned at;
	int error;

	for (uint64_t c = from; c < chunks; c++) {
		error = table_read(journal, c, &looked_at);
		if (error)
			return error;
		if (looked_at.state != FORMAT_CHUNK_LIVE || !looked_at.free_blocks)
			continue;
		is_good = entry_pick(journal, &looked_at, &at);
		if (is_good || !found) {
			*chunk = c;
			*entry = looked_at;
			*index = at;
			found = true;
		}
		if (is_good) {
			journal->free_hint = c;
			return 0;
		}
	}
	return found ? 0 : -ENOSPC;
}

/* Below the hint there are bad ones at most. */
static int chunk_find_any(struct journal *journal, uint64_t *chunk, struct chunk_entry *entry, unsigned *index)
{
	int error = chunk_find_free(journal, journal->free_hint, chunk, entry, index);

	if (error == -ENOSPC && journal->free_hint)
		error = chunk_find_free(journal, 0, chunk, entry, index);
	if (error == -ENOSPC) {
		journal->free_hint = 0;
		log_error("the root counts %llu free metadata blocks, the chunk table has none",
			  (unsigned long long)root_get(journal, ROOT_META_FREE));
	}
	return error;
}

int chunk_take_block(struct tx *tx, maddr_t *address)
{
	struct journal *journal = tx_journal(tx);
	struct chunk_entry entry;
	uint64_t chunk;
	unsigned index;
	int error;

	if (root_get(journal, ROOT_META_FREE) <= (tx_kind(tx) == TX_RESERVE ? 0 : METADATA_RESERVE_BLOCKS))
		return -ENOSPC;
	error = chunk_find_any(journal, &chunk, &entry, &index);
	if (error)
		return error;
	entry.map[index / 64] |= 1ull << index % 64;
	entry.free_blocks--;
	error = table_write(tx, chunk, &entry);
	if (error)
		return error;
	error = root_add(tx, ROOT_META_FREE, -1);
	if (error)
		return error;
	*address = maddr_of_chunk(chunk, index);
	return 0;
}

int chunk_give_block(struct tx *tx, maddr_t address)
{
	struct journal *journal = tx_journal(tx);
	struct chunk_entry entry;
	uint64_t chunk;
	unsigned index;
	int error;

	if (maddr_is_fixed(address) || !maddr_index(address))
		return -EUCLEAN;
	chunk = maddr_chunk(address);
	index = maddr_index(address);
	error = chunk_entry(journal, chunk, &entry);
	if (error)
		return error == -ENOENT ? -EUCLEAN : error;
	if (!entry_has_block(&entry, index))
		return -EUCLEAN;
	entry.map[index / 64] &= ~(1ull << index % 64);
	entry.free_blocks++;
	error = table_write(tx, chunk, &entry);
	if (error)
		return error;
	journal->free_hint = min_u64(journal->free_hint, chunk);
	return root_add(tx, ROOT_META_FREE, 1);
}

/* --- whole chunks -------------------------------------------------------------------------------------------------- */

void chunk_fill_header(void *block, const struct super *super, uint64_t chunk, const struct chunk_entry *entry)
{
	struct format_chunk_header *header = block;

	memset(block, 0, BLOCK_BYTES);
	format_block_header_init(&header->header, super->meta_uuid, maddr_of_chunk(chunk, 0), FORMAT_ROLE_CHUNK_HEADER,
				 FORMAT_TREE_NONE);
	header->chunk = le64_make(chunk);
	header->copy[0] = le64_make(entry->copy[0]);
	header->copy[1] = le64_make(entry->copy[1]);
	header->generation = le32_make(entry->generation);
	header->shift = entry->shift;
}

static void cache_forget(struct journal *journal, maddr_t address)
{
	struct cache_buf *cb = cache_find(journal, address);

	if (cb)
		cache_discard(cb);
}

/* The table's next block, zeroed, as part of the transaction. */
static int table_grow(struct tx *tx, uint64_t chunk)
{
	struct journal *journal = tx_journal(tx);
	maddr_t address = table_address(chunk);
	struct cache_buf *cb;
	int error;

	if (address >= fixed_blocks(journal))
		return -ENOSPC;
	cache_forget(journal, address);
	cb = cache_alloc(journal, address);
	if (!cb)
		return -ENOMEM;
	cb = cache_insert(cb);
	error = tx_join_fresh(tx, cb);
	if (error) {
		cache_discard(cb);
		return error;
	}
	format_block_header_init((struct format_block_header *)cb->mine.data, journal->super.meta_uuid, address,
				 FORMAT_ROLE_CHUNK_TABLE, FORMAT_TREE_NONE);
	cache_put(cb);
	return 0;
}

/* The number of the new chunk, its old entry (zeros if it never had one); the table reaches that far afterwards. */
static int chunk_find_number(struct tx *tx, uint64_t *chunk, struct chunk_entry *entry)
{
	struct journal *journal = tx_journal(tx);
	uint64_t chunks = root_get(journal, ROOT_CHUNKS), c;
	int error;

	for (c = journal->entry_hint; c < chunks; c++) {
		error = table_read(journal, c, entry);
		if (error)
			return error;
		if (entry->state == FORMAT_CHUNK_FREE)
			break;
	}
	journal->entry_hint = c;
	*chunk = c;
	if (c < chunks)
		return 0;
	memset(entry, 0, sizeof(*entry));
	if (c % CHUNK_ENTRIES_PER_BLOCK == 0) {
		error = table_grow(tx, c);
		if (error)
			return error;
	}
	return root_set(tx, ROOT_CHUNKS, c + 1);
}

static int chunk_write_header(struct journal *journal, uint64_t chunk, const struct chunk_entry *entry)
{
	bool cleared[2] = {false, false};
	unsigned stored = 0;
	int error, last = 0;

	chunk_fill_header(journal->bounce, &journal->super, chunk, entry);
	format_block_seal(journal->bounce, log_next_sequence(&journal->log) - 1);
	for (unsigned k = 0; k < 2; k++) {
		if (!entry->copy[k])
			continue;
		error = log_write_block(journal->media, entry->copy[k], journal->bounce, &cleared[k]);
		if (error)
			last = error;
		else
			stored++;
	}
	if (last && (last != -EIO || !stored))
		return last;
	error = log_barrier(&journal->log); /* durable: the headers; the entry that is logged next makes them count */
	for (unsigned k = 0; k < 2 && !error; k++)
		if (cleared[k])
			journal_tell_cleared(journal, entry->copy[k]);
	return error;
}

static void entry_make_live(struct chunk_entry *entry, const devoff_t copy[2], unsigned shift)
{
	entry->copy[0] = copy[0];
	entry->copy[1] = copy[1];
	entry->copy_state[0] = FORMAT_COPY_WHOLE;
	entry->copy_state[1] = copy[1] ? FORMAT_COPY_WHOLE : FORMAT_COPY_ABSENT;
	entry->generation++;
	entry->shift = (uint8_t)shift;
	entry->state = FORMAT_CHUNK_LIVE;
	memset(entry->map, 0, sizeof(entry->map));
	entry->map[0] = 1;
	entry->free_blocks = chunk_blocks(shift) - 1;
}

int chunk_add(struct tx *tx, const devoff_t copy[2], unsigned shift, uint64_t *chunk)
{
	struct journal *journal = tx_journal(tx);
	struct chunk_entry entry;
	uint64_t number;
	int error;

	if (shift < CHUNK_SHIFT_MIN || shift > CHUNK_SHIFT_MAX)
		return -EINVAL;
	error = chunk_find_number(tx, &number, &entry);
	if (error)
		return error;
	entry_make_live(&entry, copy, shift);
	cache_forget(journal, maddr_of_chunk(number, 0));
	error = chunk_write_header(journal, number, &entry);
	if (error)
		return error;
	error = table_write(tx, number, &entry);
	if (!error)
		error = root_add(tx, ROOT_META_BLOCKS, chunk_blocks(shift));
	if (!error)
		error = root_add(tx, ROOT_META_FREE, entry.free_blocks);
	if (error)
		return error;
	journal->free_hint = min_u64(journal->free_hint, number);
	*chunk = number;
	return 0;
}

/* What stays free once a chunk has gone must not make the next transaction ask for one. */
static bool chunk_can_go(struct journal *journal, const struct chunk_entry *entry)
{
	unsigned blocks;

	if (entry->state != FORMAT_CHUNK_LIVE) /* a free entry has no size */
		return false;
	blocks = chunk_blocks(entry->shift) - 1;
	return entry->free_blocks == blocks && chunk_free_blocks(journal) >= blocks + 2ull * METADATA_LOW_BLOCKS;
}

int chunk_find_empty(struct journal *journal, uint64_t *chunk)
{
	uint64_t chunks = root_get(journal, ROOT_CHUNKS);
	struct chunk_entry entry;
	int error;

	if (chunk_free_blocks(journal) < 2ull * METADATA_LOW_BLOCKS)
		return -ENOENT;
	for (uint64_t c = chunks; c-- > 0;) { /* allocation goes upward, so the last ones are empty first */
		error = table_read(journal, c, &entry);
		if (error)
			return error;
		if (chunk_can_go(journal, &entry)) {
			*chunk = c;
			return 0;
		}
	}
	return -ENOENT;
}

int chunk_retire(struct tx *tx, uint64_t chunk)
{
	struct journal *journal = tx_journal(tx);
	struct chunk_entry entry;
	int error = chunk_entry(journal, chunk, &entry);

	if (error)
		return error;
	if (entry.free_blocks != chunk_blocks(entry.shift) - 1)
		return -EBUSY;
	entry.state = FORMAT_CHUNK_FREEING;
	error = table_write(tx, chunk, &entry);
	if (!error)
		error = root_add(tx, ROOT_META_BLOCKS, -(int64_t)chunk_blocks(entry.shift));
	if (!error)
		error = root_add(tx, ROOT_META_FREE, -(int64_t)entry.free_blocks);
	if (!error)
		error = root_add(tx, ROOT_CHUNKS_FREEING, 1);
	tx->retires = true;
	return error;
}

int chunk_next_freeing(struct journal *journal, uint64_t *chunk, struct chunk_entry *out)
{
	uint64_t chunks = root_get(journal, ROOT_CHUNKS);
	struct chunk_entry entry;
	int error;

	if (!root_get(journal, ROOT_CHUNKS_FREEING))
		return -ENOENT;
	for (uint64_t c = *chunk; c < chunks; c++) {
		error = table_read(journal, c, &entry);
		if (error)
			return error;
		if (entry.state == FORMAT_CHUNK_FREEING) {
			*chunk = c;
			*out = entry;
			return 0;
		}
	}
	return -ENOENT;
}

int chunk_remove(struct tx *tx, uint64_t chunk)
{
	struct journal *journal = tx_journal(tx);
	struct chunk_entry entry;
	uint32_t generation;
	int error = table_read(journal, chunk, &entry);

	if (error)
		return error;
	if (entry.state != FORMAT_CHUNK_FREEING)
		return -EUCLEAN;
	if (journal->retire_sequence >= journal->log.tail_sequence)
		return -EBUSY; /* a replay could still write metadata there */
	generation = entry.generation;
	memset(&entry, 0, sizeof(entry));
	entry.generation = generation;
	error = table_write(tx, chunk, &entry);
	if (error)
		return error;
	cache_forget(journal, maddr_of_chunk(chunk, 0));
	journal->entry_hint = min_u64(journal->entry_hint, chunk);
	return root_add(tx, ROOT_CHUNKS_FREEING, -1);
}

int chunk_move_copy(struct tx *tx, uint64_t chunk, unsigned copy, devoff_t offset)
{
	struct journal *journal = tx_journal(tx);
	struct chunk_entry entry;
	struct buf *header;
	int error = chunk_entry(journal, chunk, &entry);

	if (error)
		return error;
	entry.copy[copy] = offset;
	entry.copy_state[copy] = FORMAT_COPY_WHOLE;
	error = buf_get(journal, maddr_of_chunk(chunk, 0), FORMAT_ROLE_CHUNK_HEADER, FORMAT_TREE_NONE, &header);
	if (error)
		return error;
	error = tx_join(tx, header);
	if (!error) {
		((struct format_chunk_header *)header->data)->copy[copy] = le64_make(offset);
		error = table_write(tx, chunk, &entry);
	}
	buf_put(header);
	return error;
}
