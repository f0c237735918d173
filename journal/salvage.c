#include "journal/salvage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "journal/internal.h"
#include "journal/salvage_internal.h"
#include "util/log.h"

/* --- blocks whatever the table says ------------------------------------------------------------------------------------------- */

int salvage_get(struct journal *journal, maddr_t address, struct buf **out)
{
	struct cache_buf *cb = cache_find(journal, address);
	devoff_t offset[2];
	int error;

	if (cb) {
		error = cb->error;
		if (error)
			cache_put(cb);
		else
			*out = cache_view(cb);
		return error;
	}
	error = chunk_locate(journal, address, offset);
	if (error)
		return error;
	cb = cache_alloc(journal, address);
	if (!cb)
		return -ENOMEM;
	error = load_block(journal, cb);
	if (error) {
		free(cb);
		return error;
	}
	*out = cache_view(cache_insert(cb));
	return 0;
}

uint64_t salvage_sequence(struct buf *buf)
{
	return cache_of(buf)->sequence;
}

static int entry_get(struct journal *journal, uint64_t chunk, struct buf **table, struct format_chunk_entry **out)
{
	int error;

	if (chunk >= root_get(journal, ROOT_CHUNKS))
		return -ENOENT;
	error = buf_get(journal, MADDR_TABLE + chunk / CHUNK_ENTRIES_PER_BLOCK, FORMAT_ROLE_CHUNK_TABLE, FORMAT_TREE_NONE, table);
	if (!error)
		*out = &((struct format_chunk_table_block *)(*table)->data)->entries[chunk % CHUNK_ENTRIES_PER_BLOCK];
	return error;
}

int salvage_entry(struct journal *journal, uint64_t chunk, struct chunk_entry *out)
{
	struct format_chunk_entry *entry;
	const char *field;
	struct buf *table;
	int error = entry_get(journal, chunk, &table, &entry);

	if (error)
		return error;
	error = format_chunk_entry_unpack(out, entry, &field);
	buf_put(table);
	return error;
}

uint64_t salvage_entry_sequence(struct journal *journal, uint64_t chunk)
{
	struct format_chunk_entry *entry;
	struct buf *table;
	uint64_t sequence;

	if (entry_get(journal, chunk, &table, &entry))
		return 0;
	sequence = salvage_sequence(table);
	buf_put(table);
	return sequence;
}

int salvage_put_entry(struct tx *tx, uint64_t chunk, struct chunk_entry *entry)
{
	struct journal *journal = tx_journal(tx);
	struct format_chunk_entry *to;
	struct buf *table;
	unsigned used = 0;
	int error = entry_get(journal, chunk, &table, &to);

	if (error)
		return error;
	for (unsigned i = 0; i < 8; i++)
		used += (unsigned)__builtin_popcountll(entry->map[i]);
	entry->free_blocks = entry->state == FORMAT_CHUNK_FREE ? 0 : chunk_blocks(entry->shift) - used;
	error = tx_join(tx, table);
	buf_put(table);
	if (!error)
		error = entry_get(journal, chunk, &table, &to);
	if (error)
		return error;
	format_chunk_entry_pack(to, entry); /* in the transaction's copy */
	buf_put(table);
	journal->free_hint = journal->entry_hint = 0;
	return error;
}

/* Both copies gone is no loss: there is nothing in it that the table does not have. */
static int header_get(struct journal *journal, uint64_t chunk, const struct chunk_entry *entry, struct buf **out)
{
	maddr_t address = maddr_of_chunk(chunk, 0);
	struct cache_buf *cb;
	int error = salvage_get(journal, address, out);

	if (!error || error == -ENOMEM)
		return error;
	cb = cache_find(journal, address);
	if (cb)
		cache_discard(cb);
	cb = cache_alloc(journal, address);
	if (!cb)
		return -ENOMEM;
	cb->sequence = log_next_sequence(&journal->log) - 1;
	*out = cache_view(cache_insert(cb));
	return 0;
}

static bool header_says(const void *block, const void *expected)
{
	const struct format_block_header *header = block;
	size_t skip = sizeof(*header);

	return header->role == FORMAT_ROLE_CHUNK_HEADER &&
	       !memcmp((const uint8_t *)block + skip, (const uint8_t *)expected + skip, BLOCK_BYTES - skip);
}

int salvage_mend_header(struct tx *tx, uint64_t chunk, bool *changed)
{
	struct journal *journal = tx_journal(tx);
	uint8_t expected[BLOCK_BYTES] __attribute__((aligned(64)));
	struct chunk_entry entry;
	struct buf *buf;
	int error = salvage_entry(journal, chunk, &entry);

	if (!error)
		error = header_get(journal, chunk, &entry, &buf);
	if (error)
		return error;
	chunk_fill_header(expected, &journal->super, chunk, &entry);
	*changed = !header_says(buf->data, expected);
	if (*changed) {
		error = tx_join_fresh(tx, cache_of(buf));
		if (!error)
			memcpy(buf->data, expected, BLOCK_BYTES);
	}
	buf_put(buf);
	return error;
}

int salvage_count_chunks(struct tx *tx)
{
	struct journal *journal = tx_journal(tx);
	uint64_t chunks = root_get(journal, ROOT_CHUNKS), blocks = 0, free_blocks = 0, freeing = 0;
	struct chunk_entry entry;
	int error = 0;

	for (uint64_t c = 0; c < chunks && !error; c++) {
		error = salvage_entry(journal, c, &entry);
		if (error || entry.state == FORMAT_CHUNK_FREE)
			continue;
		if (entry.state == FORMAT_CHUNK_FREEING) {
			freeing++;
			continue;
		}
		blocks += chunk_blocks(entry.shift);
		free_blocks += entry.free_blocks;
	}
	if (!error)
		error = root_set(tx, ROOT_META_BLOCKS, blocks);
	if (!error)
		error = root_set(tx, ROOT_META_FREE, free_blocks);
	return error ? error : root_set(tx, ROOT_CHUNKS_FREEING, freeing);
}

/* --- root block and chunk table in recovery ------------------------------------------------------------------------------------ */

struct fixed_set {
	struct salvage_fixed fixed;
	struct cache_buf **cbs;
	uint8_t *before;
};

static unsigned fixed_role(maddr_t address)
{
	return address == MADDR_ROOT ? FORMAT_ROLE_ROOT : FORMAT_ROLE_CHUNK_TABLE;
}

static int fixed_get(struct journal *journal, struct fixed_set *set, maddr_t address)
{
	struct cache_buf *cb;
	int error = recover_get(journal, address, &cb);

	if (error)
		return error;
	set->cbs[address] = cb;
	set->fixed.blocks[address] = cb->block;
	set->fixed.lost[address] =
		cb->error || ((struct format_block_header *)cb->block)->role != fixed_role(address);
	if (set->fixed.lost[address]) {
		memset(cb->block, 0, BLOCK_BYTES);
		format_block_header_init((struct format_block_header *)cb->block, journal->super.meta_uuid, address,
					 fixed_role(address), FORMAT_TREE_NONE);
		cb->error = 0;
		cb->sequence = 0;
	}
	memcpy(set->before + address * BLOCK_BYTES, cb->block, BLOCK_BYTES);
	set->fixed.count = address + 1;
	return 0;
}

static uint64_t fixed_used(const struct fixed_set *set)
{
	const struct format_root *root = set->fixed.blocks[MADDR_ROOT];
	uint64_t chunks = le64_get(root->counters[ROOT_CHUNKS]);

	return MADDR_TABLE + (chunks + CHUNK_ENTRIES_PER_BLOCK - 1) / CHUNK_ENTRIES_PER_BLOCK;
}

/* What was mended is as new as anything in the log: no older copy may win over it, no record be applied to it again. */
static void fixed_put(struct journal *journal, struct fixed_set *set)
{
	uint64_t used = set->fixed.count ? fixed_used(set) : 0;

	for (size_t i = 0; i < set->fixed.count; i++) {
		struct cache_buf *cb = set->cbs[i];

		if (i < used && (set->fixed.lost[i] || memcmp(cb->block, set->before + i * BLOCK_BYTES, BLOCK_BYTES))) {
			cb->sequence = log_next_sequence(&journal->log) - 1;
			cache_set_dirty(cb);
		}
		cache_put(cb);
	}
}

int salvage_mend_fixed(struct journal *journal, struct why *why)
{
	size_t count = journal->super.areas[AREA_FIXED].length_bytes / BLOCK_BYTES;
	struct fixed_set set = {
		.cbs = calloc(count, sizeof(*set.cbs)),
		.before = calloc(count, BLOCK_BYTES),
		.fixed = {.blocks = calloc(count, sizeof(void *)), .lost = calloc(count, sizeof(bool))},
	};
	int error = set.cbs && set.before && set.fixed.blocks && set.fixed.lost ? 0 : -ENOMEM;

	for (maddr_t address = 0; address < count && !error; address++)
		error = fixed_get(journal, &set, address);
	if (!error) {
		journal->salvage->root_lost = set.fixed.lost[MADDR_ROOT];
		error = journal->salvage->mend(journal->salvage->arg, journal, &set.fixed, why);
	}
	fixed_put(journal, &set);
	free(set.cbs);
	free(set.before);
	free(set.fixed.blocks);
	free(set.fixed.lost);
	return error;
}

/* --- a tail without a head ----------------------------------------------------------------------------------------------------- */

struct found_record {
	uint64_t sequence, offset, durable_up_to;
	uint32_t epoch, boot;
};
struct found {
	struct found_record *records;
	size_t count, capacity;
	uint32_t epoch; /* the highest; only its records are kept */
};

static int found_add(struct found *found, const struct found_record *record)
{
	size_t capacity = found->capacity ? 2 * found->capacity : 1024;
	struct found_record *records;

	if (record->epoch < found->epoch)
		return 0;
	if (record->epoch > found->epoch)
		found->count = 0;
	found->epoch = record->epoch;
	if (found->count == found->capacity) {
		records = realloc(found->records, capacity * sizeof(*records));
		if (!records)
			return -ENOMEM;
		found->records = records;
		found->capacity = capacity;
	}
	found->records[found->count++] = *record;
	return 0;
}

/* A whole record of any epoch at this place: its length, else 0. */
static uint32_t found_read(struct log_ring *ring, unsigned copy, uint64_t offset, uint8_t *bytes)
{
	const struct format_record_header *header = (const struct format_record_header *)bytes;
	devoff_t place = ring->ring[copy] + offset;
	uint32_t length;

	if (media_read(ring->media, place, bytes, LINE_BYTES, NULL))
		return 0;
	ring->epoch = le32_get(header->epoch); /* any will do; the ring's own is set when all is known */
	if (!record_header_is_ours(header, ring, offset))
		return 0;
	length = le32_get(header->length);
	if (length > LINE_BYTES && media_read(ring->media, place + LINE_BYTES, bytes + LINE_BYTES, length - LINE_BYTES, NULL))
		return 0;
	return record_is_whole(bytes, length) ? length : 0;
}

static int found_scan(struct log_ring *ring, struct found *found)
{
	uint8_t *bytes = aligned_alloc(LINE_BYTES, LOG_RECORD_MAX_BYTES);
	const struct format_record_header *header = (const struct format_record_header *)bytes;
	int error = bytes ? 0 : -ENOMEM;

	for (unsigned k = 0; k < ring->copies && !error; k++)
		for (uint64_t offset = 0, step; offset < ring->ring_bytes && !error; offset += step) {
			uint32_t length = found_read(ring, k, offset, bytes);

			step = length ? length : LINE_BYTES;
			if (length)
				error = found_add(found, &(struct found_record){.sequence = le64_get(header->sequence),
										.offset = offset,
										.durable_up_to = le64_get(header->durable_up_to),
										.epoch = le32_get(header->epoch),
										.boot = le32_get(header->boot)});
		}
	free(bytes);
	return error;
}

static int compare_found(const void *a, const void *b)
{
	const struct found_record *x = a, *y = b;

	return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

/* As in recovery, one of persistent memory needs none before it that nothing says was durable. */
static bool found_follows(const struct found_record *before, const struct found_record *record, uint64_t durable_up_to)
{
	return record->sequence - before->sequence <= 1 || (!record->boot && before->sequence >= durable_up_to);
}

/* The longest run of records without a gap that ends at the newest one: its first. */
static const struct found_record *found_chain(struct found *found)
{
	uint64_t durable_up_to = 0;
	size_t i = found->count;

	if (!i)
		return NULL;
	qsort(found->records, found->count, sizeof(*found->records), compare_found);
	for (size_t k = 0; k < found->count; k++)
		durable_up_to = max_u64(durable_up_to, found->records[k].durable_up_to);
	for (i--; i > 0; i--)
		if (!found_follows(&found->records[i - 1], &found->records[i], durable_up_to))
			break;
	return &found->records[i];
}

static uint64_t root_sequence_at_home(struct journal *journal)
{
	const struct area *area = &journal->super.areas[AREA_FIXED];
	uint8_t block[BLOCK_BYTES] __attribute__((aligned(64)));
	uint64_t sequence = 0;
	const char *field;

	for (unsigned k = 0; k < format_area_copies(&journal->super, AREA_FIXED); k++)
		if (!media_read(journal->media, area->copy[k], block, BLOCK_BYTES, NULL) &&
		    !format_block_verify(block, journal->super.meta_uuid, MADDR_ROOT, &field))
			sequence = max_u64(sequence, le64_get(((struct format_block_header *)block)->sequence));
	return sequence;
}

/* Is a head that verifies older than what the ring has? Records that it does not lead to are of a later epoch, or at home already. */
static bool head_is_stale(struct journal *journal, const struct found *found, const struct found_record *chain, uint32_t epoch)
{
	const struct log_ring *ring = &journal->log;

	if (!chain || found->epoch < epoch)
		return false;
	if (found->epoch > epoch)
		return true;
	return chain->sequence > ring->tail_sequence && root_sequence_at_home(journal) >= chain->sequence;
}

/* More than any block at home can have: what the ring does not tell may have been newer than what it does. */
#define SEQUENCE_LEAP (1ull << 32)

static void tail_take(struct log_ring *ring, const struct found *found, const struct found_record *chain)
{
	ring->epoch = chain ? found->epoch : 1;
	ring->tail_sequence = chain ? chain->sequence : SEQUENCE_LEAP;
	ring->tail_offset = chain ? chain->offset : 0;
}

static unsigned heads_bad(struct log_ring *ring)
{
	struct format_journal_head head;
	unsigned bad = 0;

	/* One update behind is what a death between the two stores leaves, and the next opening mends. */
	for (unsigned k = 0; k < ring->copies; k++)
		if (media_read(ring->media, ring->head[k], &head, sizeof(head), NULL) || record_head_verify(&head, ring) ||
		    le64_get(head.update) + 1 < ring->update)
			bad |= 1u << k;
	return bad;
}

int salvage_find_tail(struct journal *journal, int error)
{
	struct journal_salvage *salvage = journal->salvage;
	struct log_ring *ring = &journal->log;
	uint32_t epoch = ring->epoch;
	const struct found_record *chain;
	struct found found = {0};
	int failed = found_scan(ring, &found);

	ring->epoch = epoch;
	salvage->heads_bad = heads_bad(ring);
	if (!failed) {
		chain = found_chain(&found);
		salvage->heads_lost = error || head_is_stale(journal, &found, chain, epoch);
		if (salvage->heads_lost)
			tail_take(ring, &found, chain);
	}
	free(found.records);
	return failed;
}

static int dropped_add(struct journal_salvage *salvage, const struct format_record_header *header)
{
	const struct format_record_item *item = (const struct format_record_item *)(header + 1);
	size_t items = le16_get(header->items), count = salvage->count_dropped_blocks;
	maddr_t *blocks = reallocarray(salvage->dropped_blocks, count + items + 1, sizeof(*blocks));

	if (!blocks)
		return -ENOMEM;
	salvage->dropped_blocks = blocks;
	for (size_t i = 0; i < items; i++)
		blocks[salvage->count_dropped_blocks++] = le64_get(item[i].address);
	return 0;
}

/* Only for what is told: without memory less is told. */
static void dropped_list(struct journal *journal, uint64_t from)
{
	struct log_ring *ring = &journal->log;
	uint8_t *bytes = aligned_alloc(LINE_BYTES, LOG_RECORD_MAX_BYTES);
	const struct format_record_header *header = (const struct format_record_header *)bytes;
	uint32_t epoch = ring->epoch, length;
	int error = bytes ? 0 : -ENOMEM;

	for (uint64_t offset = 0; offset < ring->ring_bytes && !error; offset += length ? length : LINE_BYTES) {
		length = found_read(ring, 0, offset, bytes);
		if (length && le32_get(header->epoch) == epoch && le64_get(header->sequence) >= from &&
		    le16_get(header->type) == FORMAT_RECORD_TX)
			error = dropped_add(journal->salvage, header);
	}
	ring->epoch = epoch;
	free(bytes);
}

void salvage_judge(struct journal *journal, const struct scan *scan)
{
	journal->salvage->hole = journal->recovery.hole;
	if (journal->recovery.hole) {
		journal->salvage->dropped = scan->later_tx;
		dropped_list(journal, scan->end_sequence);
	}
	if (journal->salvage->heads_lost)
		log_set_next(&journal->log, log_next_sequence(&journal->log) + SEQUENCE_LEAP, log_next(&journal->log).offset);
}
