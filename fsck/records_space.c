/* Whose every block is: areas of metadata, free space, quarantine. */
#include "fsck/records.h"

#include <errno.h>
#include <stdlib.h>

#include "journal/chunk.h"
#include "journal/root.h"
#include "notify/span.h"

/* --- areas that superblock and chunk table tell of ------------------------------------------------------------------------------------ */

static int special_add(struct mappings *list, enum special_owner_kind kind, devoff_t at, uint64_t length_bytes, uint64_t offset)
{
	const struct mapping map = {
		.owner = OWNER(kind), .file_block = offset, .block = at / BLOCK_BYTES, .count = length_bytes / BLOCK_BYTES,
	};

	return at || kind == OWNER_SUPERBLOCK ? mappings_add(list, &map) : 0;
}

static int specials_of_super(const struct super *super, struct mappings *list)
{
	static const struct { enum super_area area; enum special_owner_kind kind; } areas[] = {
		{AREA_JOURNAL, OWNER_JOURNAL}, {AREA_POISON_LOG, OWNER_POISON_LOG}, {AREA_FIXED, OWNER_FIXED},
	};
	int error = 0;

	for (unsigned slot = 0; slot < SUPER_SLOTS && !error; slot++)
		if (super_slot_offset(slot) < super->size_bytes)
			error = special_add(list, OWNER_SUPERBLOCK, super_slot_offset(slot), BLOCK_BYTES, slot);
	for (unsigned i = 0; i < ARRAY_SIZE(areas) && !error; i++)
		for (unsigned copy = 0; copy < format_area_copies(super, areas[i].area) && !error; copy++)
			error = special_add(list, areas[i].kind, super->areas[areas[i].area].copy[copy],
					    super->areas[areas[i].area].length_bytes, (uint64_t)copy << 32);
	return error;
}

static int specials_of_chunk(uint64_t chunk, const struct chunk_entry *entry, struct mappings *list)
{
	int error = 0;

	for (unsigned copy = 0; copy < 2 && !error; copy++)
		error = special_add(list, OWNER_CHUNK, entry->copy[copy], 1ull << entry->shift, (chunk * 2 + copy) * CHUNK_SLOTS);
	return error;
}

/* Chunks in use, and those whose space goes back once the journal's tail has passed. */
static int specials_of_chunks(struct journal *journal, struct mappings *list)
{
	uint64_t count = root_get(journal, ROOT_CHUNKS);
	struct chunk_entry entry;
	int error = 0;

	for (uint64_t chunk = 0; chunk < count && !error; chunk++) {
		error = chunk_entry(journal, chunk, &entry);
		error = error == -ENOENT ? 0 : error ? error : specials_of_chunk(chunk, &entry, list);
	}
	for (uint64_t chunk = 0; !error && !(error = chunk_next_freeing(journal, &chunk, &entry)); chunk++)
		error = specials_of_chunk(chunk, &entry, list);
	return error == -ENOENT ? 0 : error;
}

static int special_correct(struct records *records, struct mappings *list, const struct mapping *map, const char *what)
{
	records_tell(records, RECORD_OWNER, "device blocks %llu to %llu: %s owner of metadata area %llu in the reverse map",
		     (unsigned long long)map->block, (unsigned long long)(map->block + map->count), what,
		     (unsigned long long)(map->owner & ~OWNER_SPECIAL));
	return mappings_add(list, map);
}

/* Both ordered by block. */
static int specials_compare(struct records *records, struct map_plan *plan, const struct mappings *expected)
{
	const struct mappings *found = &plan->specials;
	size_t i = 0, j = 0;
	int error = 0;

	while ((i < expected->count || j < found->count) && !error) {
		int order = i == expected->count ? 1 : j == found->count ? -1
			    : mapping_block_compare(&expected->list[i], &found->list[j]);

		if (order == 0 && expected->list[i].count != found->list[j].count)
			error = special_correct(records, &plan->rmap_out, &found->list[j], "wrong");
		if (!error && (order < 0 || (order == 0 && expected->list[i].count != found->list[j].count)))
			error = special_correct(records, &plan->rmap_in, &expected->list[i], "missing");
		else if (!error && order > 0)
			error = special_correct(records, &plan->rmap_out, &found->list[j], "superfluous");
		i += order <= 0;
		j += order >= 0;
	}
	return error;
}

int space_plan_specials(struct records *records, struct map_plan *plan)
{
	struct mappings expected = {0};
	int error = specials_of_super(&records->fs->super, &expected);

	records_read_begin(records);
	if (!error)
		error = specials_of_chunks(records->fs->journal, &expected);
	records_read_end(records);
	if (!error && expected.count) {
		qsort(expected.list, expected.count, sizeof(*expected.list), mapping_block_compare);
		error = specials_compare(records, plan, &expected);
	}
	/* From here on what is there counts, not what was found. */
	free(plan->specials.list);
	plan->specials = expected;
	return error;
}

/* --- free space ------------------------------------------------------------------------------------------------------------------------ */

int space_judge_free(struct records *records)
{
	struct cursor cursor;
	struct cursor_record record;
	uint64_t total = 0, count;
	int got = cursor_begin(&cursor, records, alloc_tree(records->fs->alloc));

	if (got)
		return got;
	while ((got = cursor_peek(&cursor, &record)) > 0) {
		if (!format_free_unpack(&count, record.value, record.length))
			total += count;
		cursor_advance(&cursor);
	}
	cursor_end(&cursor);
	records->is_free_whole = total && total == records->repair->said[ROOT_FREE_BLOCKS];
	return got;
}

struct settle {
	struct records *records;
	struct cursor rmap, free;
	const struct mappings *also;
	size_t next_also;
	uint64_t total, changed;
};

/* The next owned range in order of block. 1, 0 at the end, negative errno. */
static int settle_next_owned(struct settle *settle, blkno_t *start, blkno_t *end)
{
	const struct mapping *also = settle->also && settle->next_also < settle->also->count ?
				     &settle->also->list[settle->next_also] : NULL;
	struct cursor_record record;
	uint64_t count;
	uint8_t flags;
	int got = cursor_peek(&settle->rmap, &record);

	if (got < 0 || (!got && !also))
		return got;
	if (got && (!also || record.key.word[0] <= also->block)) {
		if (format_rmap_unpack(&count, &flags, record.value, record.length))
			return -EUCLEAN;
		*start = record.key.word[0];
		*end = *start + count;
		cursor_advance(&settle->rmap);
		return 1;
	}
	*start = also->block;
	*end = also->block + also->count;
	settle->next_also++;
	return 1;
}

static int settle_change(struct settle *settle, blkno_t start, uint64_t count)
{
	const struct btree *tree = alloc_tree(settle->records->fs->alloc);
	const struct btree_key key = {{start}};
	struct format_free value;

	settle->changed++;
	if (!count) {
		records_tell(settle->records, RECORD_FREE, "device block %llu: was called free, but is not the start of free space",
			     (unsigned long long)start);
		return records_remove(settle->records, tree, &key);
	}
	records_tell(settle->records, RECORD_FREE, "device blocks %llu to %llu: are free", (unsigned long long)start,
		     (unsigned long long)(start + count));
	format_free_pack(&value, count);
	return records_put(settle->records, tree, &key, &value, sizeof(value));
}

/* Records of the free tree before `start` are superfluous. */
static int settle_drop_before(struct settle *settle, blkno_t start)
{
	struct cursor_record record;
	int got, error = 0;

	while (!error && (got = cursor_peek(&settle->free, &record)) != 0) {
		if (got < 0)
			return got;
		if (record.key.word[0] >= start)
			return 0;
		cursor_advance(&settle->free);
		error = settle_change(settle, record.key.word[0], 0);
	}
	return error;
}

/* [start, end) is free, no more on either side. */
static int settle_run(struct settle *settle, blkno_t start, blkno_t end)
{
	struct cursor_record record;
	uint64_t count;
	int got, error = settle_drop_before(settle, start);

	if (error || start >= end)
		return error;
	settle->total += end - start;
	got = cursor_peek(&settle->free, &record);
	if (got < 0)
		return got;
	if (got && record.key.word[0] == start) {
		error = format_free_unpack(&count, record.value, record.length);
		cursor_advance(&settle->free);
		if (!error && count == end - start)
			return 0;
	}
	return settle_change(settle, start, end - start);
}

static int settle_all(struct settle *settle)
{
	blkno_t free_from = 0, start, end;
	uint64_t blocks = settle->records->blocks;
	int got, error = 0;

	while (!error && (got = settle_next_owned(settle, &start, &end)) != 0) {
		if (got < 0)
			return got;
		error = settle_run(settle, free_from, min_u64(start, blocks));
		free_from = max_u64(free_from, end);
	}
	if (!error)
		error = settle_run(settle, free_from, blocks);
	return error ? error : settle_drop_before(settle, UINT64_MAX);
}

/* What is given out must not be what an earlier commit that is not durable yet has freed. */
static int settle_sync(struct settle *settle)
{
	int error = records_set_counter(settle->records, ROOT_FREE_BLOCKS, settle->total);

	if (error || !settle->changed)
		return error;
	error = records_commit(settle->records);
	return error ? error : journal_sync(settle->records->fs->journal);
}

int space_settle_free(struct records *records, const struct mappings *also)
{
	struct settle settle = {.records = records, .also = also};
	bool may_grow = records->is_free_true;
	int error = cursor_begin(&settle.rmap, records, &records->fs->rmap.tree);

	if (error)
		return error;
	error = cursor_begin(&settle.free, records, alloc_tree(records->fs->alloc));
	/* Growing would take blocks out of what has been read already. */
	records->is_free_true = false;
	if (!error)
		error = settle_all(&settle);
	if (!error)
		error = settle_sync(&settle);
	records->is_free_true = may_grow;
	cursor_end(&settle.free);
	cursor_end(&settle.rmap);
	return error;
}

/* --- quarantine --------------------------------------------------------------------------------------------------------------------------- */

struct hole { /* the first run of a range that nobody owns */
	blkno_t start, end;
};

static int hole_visit(void *arg, const struct rmap_record *record)
{
	struct hole *hole = arg;

	if (record->start > hole->start) {
		hole->end = record->start;
		return 1;
	}
	hole->start = max_u64(hole->start, record->start + record->count);
	return hole->start >= hole->end;
}

static int quarantine_run(struct records *records, struct span_tree *badblocks, const struct hole *hole)
{
	const struct rmap_record record = {.start = hole->start, .count = hole->end - hole->start, .owner = OWNER(OWNER_QUARANTINE)};
	int error = records_change(records);

	records_tell(records, RECORD_QUARANTINE, "device blocks %llu to %llu: bad and free: quarantined", (unsigned long long)hole->start,
		     (unsigned long long)hole->end);
	if (!error)
		error = rmap_insert(&records->fs->rmap, records->tx, &record);
	if (!error)
		error = span_set_state(badblocks, records->tx, hole->start << BLOCK_SHIFT, hole->end << BLOCK_SHIFT, BADBLOCK_QUARANTINED);
	return error;
}

/* Whatever is bad and has no owner. */
static int quarantine_bad(struct records *records, struct span_tree *badblocks, blkno_t start, blkno_t end)
{
	int error = 0;

	while (start < end && !error) {
		struct hole hole = {start, end};

		records_read_begin(records);
		error = rmap_query(&records->fs->rmap, start, end - start, hole_visit, &hole);
		records_read_end(records);
		if (error < 0 || hole.start >= hole.end)
			return error < 0 ? error : 0;
		error = quarantine_run(records, badblocks, &hole);
		start = hole.end;
	}
	return error;
}

static int quarantine_badblocks(struct records *records, struct span_tree *badblocks)
{
	struct cursor_record record;
	struct badblock_record bad;
	struct cursor cursor;
	int got = cursor_begin(&cursor, records, &records->badblocks), error = got;

	while (!error && (got = cursor_peek(&cursor, &record)) > 0) {
		error = format_badblock_unpack(&bad, record.value, record.length);
		cursor_advance(&cursor);
		if (!error && bad.state != BADBLOCK_CLEARED)
			error = quarantine_bad(records, badblocks, record.key.word[0] >> BLOCK_SHIFT,
					       min_u64(records->blocks,
						       round_up_u64(record.key.word[0] + bad.length_bytes, BLOCK_BYTES) >> BLOCK_SHIFT));
	}
	cursor_end(&cursor);
	return error ? error : got;
}

/* The ledger may have lost what this block is kept back for: it stays known as bad. */
static int quarantine_enter(struct records *records, struct span_tree *badblocks, blkno_t block)
{
	struct span span = {
		.start = block << BLOCK_SHIFT, .end = (block + 1) << BLOCK_SHIFT, .since_ns = time_now_ns(), .count = 1,
		.state = BADBLOCK_QUARANTINED, .source = FAILURE_CONTROL,
	}, found;
	int error;

	records_read_begin(records);
	error = span_first(badblocks, span.start, span.end, &found);
	records_read_end(records);
	if (error != -ENOENT)
		return error;
	error = records_change(records);
	if (error)
		return error;
	records_tell(records, RECORD_QUARANTINE, "device block %llu: quarantined, but in no list of bad blocks: entered", (unsigned long long)block);
	span.cause_id = root_get(records->fs->journal, ROOT_NEXT_CAUSE);
	error = root_add(records->tx, ROOT_NEXT_CAUSE, 1);
	return error ? error : span_insert(badblocks, records->tx, &span);
}

struct user_search { /* somebody else who has some of a quarantined range */
	struct rmap_record found;
};

static int user_visit(void *arg, const struct rmap_record *record)
{
	struct user_search *search = arg;

	search->found = *record;
	return record->owner != OWNER(OWNER_QUARANTINE);
}

/* What is in use is not kept back. *used: how many of the blocks. */
static int quarantine_cut(struct records *records, blkno_t start, uint64_t count, uint64_t *used)
{
	blkno_t end = start + count;
	int error = 0;

	for (*used = 0; start < end && !error;) {
		struct user_search search;
		struct rmap_record part;

		records_read_begin(records);
		error = rmap_query(&records->fs->rmap, start, end - start, user_visit, &search);
		records_read_end(records);
		if (error <= 0)
			return error;
		part = (struct rmap_record){.start = max_u64(start, search.found.start), .owner = OWNER(OWNER_QUARANTINE)};
		part.count = min_u64(end, search.found.start + search.found.count) - part.start;
		records_tell(records, RECORD_QUARANTINE, "device blocks %llu to %llu: in use, not quarantined any more", (unsigned long long)part.start,
			     (unsigned long long)(part.start + part.count));
		error = records_change(records);
		if (!error)
			error = rmap_remove(&records->fs->rmap, records->tx, &part);
		*used += part.count;
		start = part.start + part.count;
	}
	return error;
}

static int quarantine_record(struct records *records, struct span_tree *badblocks, blkno_t start, uint64_t count, uint64_t *total)
{
	uint64_t used;
	int error = quarantine_cut(records, start, count, &used);

	*total += count - used;
	for (uint64_t i = 0; i < count && !error && !used; i++)
		error = quarantine_enter(records, badblocks, start + i);
	return error;
}

static int quarantine_owned(struct records *records, struct span_tree *badblocks, uint64_t *total)
{
	struct cursor_record record;
	struct cursor cursor;
	uint64_t count;
	uint8_t flags;
	int got = cursor_begin(&cursor, records, &records->fs->rmap.tree), error = got;

	while (!error && (got = cursor_peek(&cursor, &record)) > 0) {
		blkno_t start = record.key.word[0];

		cursor_advance(&cursor);
		if (record.key.word[1] != OWNER(OWNER_QUARANTINE))
			continue;
		error = format_rmap_unpack(&count, &flags, record.value, record.length);
		if (!error)
			error = quarantine_record(records, badblocks, start, count, total);
	}
	cursor_end(&cursor);
	return error ? error : got;
}

int space_settle_quarantine(struct records *records)
{
	struct span_tree badblocks;
	uint64_t total = 0;
	int error;

	span_tree_init(&badblocks, records->fs->journal, &badblocks_ops, ROOT_BADBLOCK_BYTES);
	error = quarantine_badblocks(records, &badblocks);
	if (!error)
		error = quarantine_owned(records, &badblocks, &total);
	return error ? error : records_set_counter(records, ROOT_QUARANTINED_BLOCKS, total);
}
