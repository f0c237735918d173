/*
 * Root block and chunk table. What of the table is lost is found again from the blocks of the chunks: a header says its chunk's number and
 * both places; any other block says its own address, which gives the number and one place. Which blocks of a chunk found so are in use
 * nobody knows yet: all count as used until the trees have been walked.
 */
#include "fsck/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/root_format.h"
#include "fsck/found.h"
#include "fsck/taken.h"

struct table {
	struct table_state *state;
	struct salvage_fixed *fixed;
	struct super *super;
	struct format_root *root;
	uint64_t chunks;  /* entries that are, or may be, in use */
	uint64_t capacity;
	bool needs_scan;
	struct iset taken; /* what no other chunk can have */
};

static struct format_chunk_entry *entry_of(const struct table *table, uint64_t chunk)
{
	struct format_chunk_table_block *block = table->fixed->blocks[MADDR_TABLE + chunk / CHUNK_ENTRIES_PER_BLOCK];

	return &block->entries[chunk % CHUNK_ENTRIES_PER_BLOCK];
}

static bool block_is_lost(const struct table *table, uint64_t index)
{
	return table->fixed->lost[MADDR_TABLE + index];
}

/* Inside the device, both copies; what unpacks need not be. */
static bool entry_is_inside(const struct table *table, const struct chunk_entry *entry)
{
	for (unsigned k = 0; k < 2; k++)
		if (entry->copy[k] > table->super->size_bytes - (1ull << entry->shift))
			return false;
	return entry->copy[0] != 0;
}

static bool entry_read(const struct table *table, uint64_t chunk, struct chunk_entry *out)
{
	const char *field;

	return !format_chunk_entry_unpack(out, entry_of(table, chunk), &field) &&
	       (out->state == FORMAT_CHUNK_FREE || entry_is_inside(table, out));
}

static bool block_is_used(const struct table *table, uint64_t index)
{
	struct chunk_entry entry;

	if (block_is_lost(table, index))
		return false;
	for (uint64_t c = index * CHUNK_ENTRIES_PER_BLOCK; c < (index + 1) * CHUNK_ENTRIES_PER_BLOCK; c++)
		if (!entry_read(table, c, &entry) || entry.state != FORMAT_CHUNK_FREE || entry.generation)
			return true;
	return false;
}

static void entry_forget(struct table *table, uint64_t chunk)
{
	memset(entry_of(table, chunk), 0, sizeof(struct format_chunk_entry));
	table->state->entries_lost++;
}

/* Two entries with one place: neither is believed, their blocks tell. */
static int entry_claim(struct table *table, uint64_t chunk, const struct chunk_entry *entry)
{
	const struct iset_range *meets = taken_meets(&table->taken, entry);
	struct chunk_entry other;
	int error = 0;

	if (!meets)
		return taken_add(&table->taken, chunk, entry);
	entry_forget(table, chunk);
	for (; meets && meets->tag != TAKEN_FIXED && !error; meets = taken_meets(&table->taken, entry)) {
		uint64_t rival = meets->tag;

		if (!entry_read(table, rival, &other) || other.state == FORMAT_CHUNK_FREE)
			break;
		error = taken_remove(&table->taken, &other);
		entry_forget(table, rival);
	}
	return error;
}

/* --- how far the table goes, and what of it is lost ----------------------------------------------------------------------------- */

/* A root block that counts fewer chunks than the table has is out of date. Chunks are numbered upward, and numbers are never given up. */
static void table_measure(struct table *table)
{
	uint64_t blocks = table->fixed->count - MADDR_TABLE, index;
	uint64_t said = le64_get(table->root->counters[ROOT_CHUNKS]);
	struct chunk_entry entry;

	table->capacity = blocks * CHUNK_ENTRIES_PER_BLOCK;
	table->chunks = min_u64(said, table->capacity);
	for (index = blocks; index > 0 && !block_is_used(table, index - 1); index--)
		;
	for (uint64_t c = index * CHUNK_ENTRIES_PER_BLOCK; c > table->chunks; c--)
		if (!entry_read(table, c - 1, &entry) || entry.state != FORMAT_CHUNK_FREE || entry.generation) {
			table->chunks = c;
			break;
		}
	if (!table->state->root_lost && table->chunks != said)
		table->state->root_stale = true;
	/* With the root gone nobody says how many there were; a block that was never full had none after it. */
	if (table->state->root_lost && (!table->chunks || table->chunks % CHUNK_ENTRIES_PER_BLOCK == 0))
		table->needs_scan = true;
}

static int table_find_lost(struct table *table)
{
	uint64_t blocks = (table->chunks + CHUNK_ENTRIES_PER_BLOCK - 1) / CHUNK_ENTRIES_PER_BLOCK;
	struct chunk_entry entry;
	int error = taken_begin(&table->taken, table->super);

	for (uint64_t index = 0; index < blocks; index++)
		table->state->blocks_lost += block_is_lost(table, index);
	for (uint64_t c = 0; c < table->chunks && !error; c++) {
		if (block_is_lost(table, c / CHUNK_ENTRIES_PER_BLOCK))
			continue;
		if (!entry_read(table, c, &entry))
			entry_forget(table, c);
		else if (entry.state != FORMAT_CHUNK_FREE)
			error = entry_claim(table, c, &entry);
	}
	if (table->state->blocks_lost || table->state->entries_lost)
		table->needs_scan = true;
	return error;
}

/* Both are written by the same transactions: where they differ one of them is out of date. */
static void table_compare_root(struct table *table)
{
	uint64_t blocks = 0;
	struct chunk_entry entry;

	if (table->needs_scan || table->state->root_lost)
		return;
	for (uint64_t c = 0; c < table->chunks; c++)
		if (entry_read(table, c, &entry) && entry.state == FORMAT_CHUNK_LIVE)
			blocks += chunk_blocks(entry.shift);
	if (blocks != le64_get(table->root->counters[ROOT_META_BLOCKS]))
		table->needs_scan = true;
}

/* --- from the blocks ------------------------------------------------------------------------------------------------------------ */

/* Nobody knows what is in use: all of it may be. */
static void entry_fill_map(struct chunk_entry *entry)
{
	memset(entry->map, 0, sizeof(entry->map));
	for (unsigned i = 0; i < chunk_blocks(entry->shift); i++)
		entry->map[i / 64] |= 1ull << i % 64;
	entry->free_blocks = 0;
}

/* A block of the table that lacks a chunk is out of date, and so is what it says of the others. */
static void block_doubt(const struct table *table, uint64_t index)
{
	struct chunk_entry entry;

	if (block_is_lost(table, index))
		return;
	for (uint64_t c = index * CHUNK_ENTRIES_PER_BLOCK; c < (index + 1) * CHUNK_ENTRIES_PER_BLOCK; c++)
		if (entry_read(table, c, &entry) && entry.state == FORMAT_CHUNK_LIVE) {
			entry_fill_map(&entry);
			format_chunk_entry_pack(entry_of(table, c), &entry);
		}
}

/* What would not be believed when it is read again must not be written. */
static bool entry_is_valid(const struct chunk_entry *entry)
{
	struct format_chunk_entry raw;
	struct chunk_entry ignored;
	const char *field;

	format_chunk_entry_pack(&raw, entry);
	return !format_chunk_entry_unpack(&ignored, &raw, &field);
}

static bool entry_is_known(const struct table *table, const struct found_chunk *found)
{
	struct chunk_entry entry;

	if (found->chunk >= table->chunks || block_is_lost(table, found->chunk / CHUNK_ENTRIES_PER_BLOCK))
		return false;
	/* Without a header there is no generation, and an entry that is whole is the better witness. */
	return entry_read(table, found->chunk, &entry) && (entry.generation || entry.state != FORMAT_CHUNK_FREE) &&
	       (!found->has_header || entry.generation >= found->generation);
}

/* As large as `shift` says, or as what else is there leaves room for; at least as its own blocks need. 0: it does not fit. */
static uint8_t place_fit(const struct table *table, const struct found_place *place, unsigned shift)
{
	for (; shift >= CHUNK_SHIFT_MIN && chunk_blocks(shift) > place->last; shift--) {
		const struct chunk_entry entry = {.copy = {place->start}, .shift = (uint8_t)shift};

		if (place->start && entry_is_inside(table, &entry) && !taken_meets(&table->taken, &entry))
			return (uint8_t)shift;
	}
	return 0;
}

/* Where its blocks and the reverse map say that its copies are, the likelier first, if nothing that is surer is there. */
static void entry_choose(const struct table *table, const struct found_chunks *all, const struct found_chunk *found, struct chunk_entry *entry)
{
	unsigned count = 0;

	entry->shift = table->super->chunk_shift;
	for (size_t i = 0; i < found->count_places && count < table->super->copies; i++) {
		const struct found_place *place = &all->places[found->first_place + i];
		unsigned wanted = place->named ? (unsigned)min_u64(entry->shift, found->named[place->named - 1].shift) : entry->shift;
		uint64_t distance = count && place->start < entry->copy[0] ? entry->copy[0] - place->start : place->start - entry->copy[0];
		uint8_t shift = place_fit(table, place, wanted);

		if (!shift || (count && (shift < entry->shift || distance < 1ull << shift)))
			continue;
		entry->shift = shift;
		entry->copy[count++] = place->start;
	}
}

static bool entry_is_possible(const struct table *table, struct chunk_entry *entry)
{
	entry->state = FORMAT_CHUNK_LIVE;
	entry->copy_state[0] = FORMAT_COPY_WHOLE;
	entry->copy_state[1] = entry->copy[1] ? FORMAT_COPY_WHOLE : FORMAT_COPY_ABSENT;
	entry_fill_map(entry);
	return entry_is_inside(table, entry) && entry_is_valid(entry) && !taken_meets(&table->taken, entry);
}

/* What the header says; where there is none, or what is surer is there already, what the other witnesses say. */
static bool entry_find(const struct table *table, const struct found_chunks *all, const struct found_chunk *found, struct chunk_entry *out)
{
	*out = (struct chunk_entry){.copy = {found->copy[0], found->copy[1]}, .shift = found->shift, .generation = found->generation};
	if (found->has_header && entry_is_possible(table, out))
		return true;
	*out = (struct chunk_entry){.generation = found->generation + 1};
	entry_choose(table, all, found, out);
	return entry_is_possible(table, out);
}

static int table_take(struct table *table, const struct found_chunks *all, const struct found_chunk *found)
{
	struct chunk_entry entry, before = {.state = FORMAT_CHUNK_FREE};
	int error = 0;

	if (found->chunk >= table->capacity || (!found->has_header && !found->votes) || entry_is_known(table, found))
		return 0;
	if (found->chunk < table->chunks && entry_read(table, found->chunk, &before) && before.state != FORMAT_CHUNK_FREE)
		error = taken_remove(&table->taken, &before);
	if (error)
		return error;
	if (!entry_find(table, all, found, &entry))
		return before.state != FORMAT_CHUNK_FREE ? taken_add(&table->taken, found->chunk, &before) : 0;
	format_chunk_entry_pack(entry_of(table, found->chunk), &entry);
	block_doubt(table, found->chunk / CHUNK_ENTRIES_PER_BLOCK);
	table->chunks = max_u64(table->chunks, found->chunk + 1);
	table->state->found++;
	return taken_add(&table->taken, found->chunk, &entry);
}

static int table_scan(struct table *table)
{
	struct found_chunks found;
	int error = found_scan(table->state->repair, &found);

	if (error)
		return error;
	for (size_t i = 0; i < found.count && !error; i++)
		error = table_take(table, &found, &found.chunks[i]);
	found_fini(&found);
	return error;
}

/* --- the root block ------------------------------------------------------------------------------------------------------------- */

/*
 * No tree is known, which is not the same as empty: until the trees have been looked for, every root leads nowhere and the filesystem is one
 * that lost metadata.
 */
static void root_forget_trees(struct format_root *root)
{
	for (unsigned tree = 1; tree < FORMAT_TREE_COUNT; tree++)
		root->trees[tree] = (struct format_tree_root){.address = le64_make(MADDR_TABLE)};
	root->counters[ROOT_FLAGS] = le64_make(ROOT_FLAG_METADATA_LOST);
}

static void root_make(struct format_root *root)
{
	root_forget_trees(root);
	root->counters[ROOT_NEXT_INTENT] = le64_make(1);
	root->counters[ROOT_NEXT_CAUSE] = le64_make(1);
	root->counters[ROOT_NEXT_INO] = le64_make(FS_ROOT_INO + 1);
}

static void table_tell(const struct table *table)
{
	const struct table_state *state = table->state;

	if (state->quiet)
		return;
	if (state->root_lost)
		repair_tell(state->repair, FSCK_ERROR, "the root block: no copy is whole");
	if (state->root_stale)
		repair_tell(state->repair, FSCK_ERROR, "the root block is older than the chunk table");
	if (state->blocks_lost)
		repair_tell(state->repair, FSCK_ERROR, "chunk table: no copy of %llu blocks is whole",
			    (unsigned long long)state->blocks_lost);
	if (state->entries_lost)
		repair_tell(state->repair, FSCK_ERROR, "chunk table: %llu entries are damaged", (unsigned long long)state->entries_lost);
	if (state->found)
		repair_tell(state->repair, FSCK_ERROR, "chunk table: %llu chunks are missing in it; their own blocks tell of them",
			    (unsigned long long)state->found);
}

int table_mend(void *arg, struct journal *journal, struct salvage_fixed *fixed, struct why *why)
{
	struct table_state *state = arg;
	struct table table = {
		.state = state, .fixed = fixed, .super = &state->repair->super, .root = fixed->blocks[MADDR_ROOT],
	};
	int error = 0;

	state->root_lost = fixed->lost[MADDR_ROOT];
	if (state->root_lost)
		root_make(table.root);
	table_measure(&table);
	error = table_find_lost(&table);
	if (!error)
		table_compare_root(&table);
	if (!error && table.needs_scan)
		error = table_scan(&table);
	iset_fini(&table.taken);
	if (error)
		return why_set(why, error, "the chunk table cannot be made anew: %s", strerror(-error));
	if (state->root_stale)
		root_forget_trees(table.root);
	table.root->counters[ROOT_CHUNKS] = le64_make(table.chunks);
	table_tell(&table);
	return 0;
}

int repair_table(struct repair *repair, struct why *why)
{
	return 0;
}
