/*
 * Extents against the reverse map. The two say the same, ordered differently. Where they agree nobody is asked; what only one of them says is a
 * claim, which records_judge.c decides about; and where two claims name one block of a file the younger gets it.
 */
#include "fsck/records.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/data.h"

int mappings_add(struct mappings *mappings, const struct mapping *mapping)
{
	struct mapping *to = records_grow((void **)&mappings->list, &mappings->count, &mappings->capacity, sizeof(*to));

	if (!to)
		return -ENOMEM;
	*to = *mapping;
	return 0;
}

int claims_add(struct claims *claims, const struct claim *claim)
{
	struct claim *to = records_grow((void **)&claims->list, &claims->count, &claims->capacity, sizeof(*to));

	if (!to)
		return -ENOMEM;
	*to = *claim;
	return 0;
}

static int compare_words(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

int mapping_key_compare(const void *a, const void *b)
{
	const struct mapping *x = a, *y = b;
	int order = compare_words(x->owner, y->owner);

	if (!order)
		order = compare_words(x->file_block, y->file_block);
	return order ? order : compare_words(x->block, y->block);
}

int mapping_block_compare(const void *a, const void *b)
{
	const struct mapping *x = a, *y = b;
	int order = compare_words(x->block, y->block);

	return order ? order : mapping_key_compare(a, b);
}

struct mapping mapping_part(const struct mapping *map, uint64_t skip, uint64_t count)
{
	struct mapping part = *map;

	part.file_block += skip;
	part.block += skip;
	part.count = count;
	return part;
}

static uint64_t mapping_end(const struct mapping *map)
{
	return map->file_block + map->count;
}

/* Does it name blocks of the device, and of a file? */
static bool mapping_is_sane(const struct records *records, const struct mapping *map)
{
	return map->owner && map->count && map->block < records->blocks && map->count <= records->blocks - map->block &&
	       map->file_block < FILE_BLOCKS_END && map->count <= FILE_BLOCKS_END - map->file_block;
}

static bool mapping_equals(const struct mapping *a, const struct mapping *b)
{
	return a->file_block == b->file_block && a->block == b->block && a->count == b->count && a->flags == b->flags;
}

/* Areas of metadata are nobody's file, whoever says so. */
static bool mapping_meets_area(const struct map_plan *plan, const struct mapping *map)
{
	const struct mappings *areas = &plan->specials;
	size_t low = 0, high = areas->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (areas->list[middle].block + areas->list[middle].count <= map->block)
			low = middle + 1;
		else
			high = middle;
	}
	return low < areas->count && areas->list[low].block < map->block + map->count;
}

/* --- loading ----------------------------------------------------------------------------------------------------------------------------- */

/* Quarantine is settled with the ledger; here only what free space, if it is younger, says has ended. */
static int plan_quarantine(struct records *records, struct map_plan *plan, const struct mapping *map)
{
	const struct btree *tree = alloc_tree(records->fs->alloc);
	const struct btree_key own = {{map->block, map->owner, 0}}, last = {{map->block + map->count - 1}};
	struct leaf_view mine, theirs;
	struct btree_record found;
	uint64_t count;
	int error = records_lookup_le(records, tree, &last, &found);

	if (error)
		return error == -ENOENT ? 0 : error;
	if (format_free_unpack(&count, found.value, found.length) || found.key.word[0] + count <= map->block)
		return 0;
	error = records_view(records, &records->fs->rmap.tree, &own, &mine);
	if (!error)
		error = records_view(records, tree, &found.key, &theirs);
	if (error || theirs.sequence <= mine.sequence)
		return error;
	return mappings_add(&plan->rmap_out, map);
}

static int load_rmap_record(struct records *records, struct map_plan *plan, const struct cursor_record *record)
{
	struct mapping map = {.block = record->key.word[0], .owner = record->key.word[1], .file_block = record->key.word[2]};

	if (format_rmap_unpack(&map.count, &map.flags, record->value, record->length))
		return -EUCLEAN;
	if (map.owner == OWNER(OWNER_QUARANTINE))
		return plan_quarantine(records, plan, &map);
	if (!owner_is_inode(map.owner))
		return mappings_add(&plan->specials, &map);
	return mappings_add(mapping_is_sane(records, &map) ? &plan->rmap : &plan->rmap_out, &map);
}

static int load_rmap(struct records *records, struct map_plan *plan)
{
	struct cursor_record record;
	struct cursor cursor;
	int got = cursor_begin(&cursor, records, &records->fs->rmap.tree), error = got;

	while (!error && (got = cursor_peek(&cursor, &record)) > 0) {
		error = load_rmap_record(records, plan, &record);
		cursor_advance(&cursor);
	}
	cursor_end(&cursor);
	if (plan->rmap.count)
		qsort(plan->rmap.list, plan->rmap.count, sizeof(*plan->rmap.list), mapping_key_compare);
	return error ? error : got;
}

/* --- one file after the other -------------------------------------------------------------------------------------------------------------- */

struct file_maps { /* what both trees say of one inode */
	struct records *records;
	struct map_plan *plan;
	struct cursor extents;
	inum_t ino;
	struct mappings own;   /* from extents */
	const struct mapping *rmap;
	size_t count_rmap;
	size_t next_rmap;	/* within plan->rmap */
	struct mappings both;  /* what they agree about */
	struct mappings result;
	size_t next_claim;
	bool has_bad;		/* an extent that cannot be */
};

static int file_load_extents(struct file_maps *file)
{
	struct cursor_record record;
	int got, error = 0;

	file->own.count = 0;
	file->has_bad = false;
	while (!error && (got = cursor_peek(&file->extents, &record)) != 0) {
		struct mapping map = {.owner = record.key.word[0], .file_block = record.key.word[1]};
		struct extent extent;

		if (got < 0)
			return got;
		if (map.owner != file->ino)
			return 0;
		cursor_advance(&file->extents);
		if (format_extent_unpack(&extent, record.value, record.length))
			return -EUCLEAN;
		map.block = extent.block;
		map.count = extent.count_blocks;
		map.flags = extent.flags;
		file->has_bad |= !mapping_is_sane(file->records, &map);
		error = mappings_add(mapping_is_sane(file->records, &map) ? &file->own : &file->plan->extents_out, &map);
	}
	return error;
}

/* 1: there is another inode, loaded; 0: no more. */
static int file_next(struct file_maps *file)
{
	const struct mappings *rmap = &file->plan->rmap;
	uint64_t ino;
	int error = cursor_first_word(&file->extents, &ino);

	if (error)
		return error;
	if (file->next_rmap < rmap->count)
		ino = min_u64(ino, rmap->list[file->next_rmap].owner);
	else if (ino == UINT64_MAX)
		return 0;
	file->ino = ino;
	file->rmap = rmap->list + file->next_rmap;
	for (file->count_rmap = 0; file->next_rmap < rmap->count && rmap->list[file->next_rmap].owner == ino; file->next_rmap++)
		file->count_rmap++;
	error = file_load_extents(file);
	return error ? error : 1;
}

static bool file_agrees(const struct file_maps *file)
{
	uint64_t end = 0;

	if (file->own.count != file->count_rmap)
		return false;
	for (size_t i = 0; i < file->count_rmap; i++) {
		if (!mapping_equals(&file->own.list[i], &file->rmap[i]) || file->own.list[i].file_block < end ||
		    mapping_meets_area(file->plan, &file->rmap[i]))
			return false;
		end = mapping_end(&file->own.list[i]);
	}
	return true;
}

/* Add the part of `map` that is not below *end, so that the list stays free of overlaps. */
static int both_add(struct file_maps *file, const struct mapping *map, uint64_t *end)
{
	struct mapping part;

	if (mapping_end(map) <= *end)
		return 0;
	part = *map;
	if (part.file_block < *end)
		part = mapping_part(map, *end - map->file_block, mapping_end(map) - *end);
	*end = mapping_end(&part);
	return mappings_add(&file->both, &part);
}

/* What both say, in order; each list is ordered by file block. */
static int file_find_both(struct file_maps *file)
{
	uint64_t end = 0;
	size_t from = 0;
	int error = 0;

	file->both.count = 0;
	for (size_t i = 0; i < file->own.count && !error; i++) {
		const struct mapping *own = &file->own.list[i];

		while (from < file->count_rmap && mapping_end(&file->rmap[from]) <= own->file_block)
			from++;
		for (size_t j = from; j < file->count_rmap && file->rmap[j].file_block < mapping_end(own) && !error; j++) {
			const struct mapping *other = &file->rmap[j];
			uint64_t start = max_u64(own->file_block, other->file_block), stop = min_u64(mapping_end(own), mapping_end(other));
			struct mapping part;

			if (start >= stop || own->flags != other->flags || own->block - own->file_block != other->block - other->file_block)
				continue;
			part = mapping_part(own, start - own->file_block, stop - start);
			if (!mapping_meets_area(file->plan, &part))
				error = both_add(file, &part, &end);
		}
	}
	return error;
}

/* --- planning ------------------------------------------------------------------------------------------------------------------------------- */

static struct btree_key mapping_key(const struct mapping *map, bool is_rmap)
{
	if (is_rmap)
		return (struct btree_key){{map->block, map->owner, map->file_block}};
	return (struct btree_key){{map->owner, map->file_block}};
}

/* The parts of one record that the other tree does not confirm, each a claim. */
static int record_claims(struct file_maps *file, const struct mapping *record, bool is_from_rmap)
{
	const struct btree *tree = is_from_rmap ? &file->records->fs->rmap.tree : &file->records->fs->extents;
	const struct btree_key key = mapping_key(record, is_from_rmap);
	uint64_t at = record->file_block, end = mapping_end(record);
	struct leaf_view view = {0};
	bool is_viewed = false;
	size_t low = 0, high = file->both.count;
	int error = 0;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (mapping_end(&file->both.list[middle]) <= at)
			low = middle + 1;
		else
			high = middle;
	}
	for (; at < end && !error; low++) {
		const struct mapping *both = low < file->both.count ? &file->both.list[low] : NULL;
		uint64_t stop = both && both->file_block < end ? both->file_block : end;
		struct claim claim = {.is_from_rmap = is_from_rmap};

		if (at < stop && !is_viewed)
			error = records_view(file->records, tree, &key, &view);
		is_viewed |= at < stop;
		claim.sequence = view.sequence;
		if (at < stop && !error) {
			claim.map = mapping_part(record, at - record->file_block, stop - at);
			error = claims_add(&file->plan->claims, &claim);
		}
		at = both && both->file_block < end ? mapping_end(both) : end;
	}
	return error;
}

static int claim_compare(const void *a, const void *b)
{
	return mapping_key_compare(&((const struct claim *)a)->map, &((const struct claim *)b)->map);
}

static int file_sum_up(struct file_maps *file, size_t first_claim)
{
	struct map_plan *plan = file->plan;
	struct file_sum *sum = records_grow((void **)&plan->sums, &plan->count_sums, &plan->capacity_sums, sizeof(*sum));

	if (!sum)
		return -ENOMEM;
	*sum = (struct file_sum){.ino = file->ino};
	for (size_t i = 0; i < file->both.count; i++)
		sum->both += file->both.list[i].count;
	for (size_t i = first_claim; i < plan->claims.count; i++)
		*(plan->claims.list[i].is_from_rmap ? &sum->rmap : &sum->own) += plan->claims.list[i].map.count;
	return 0;
}

static int file_claim(struct file_maps *file)
{
	size_t first_claim = file->plan->claims.count;
	int error = file_find_both(file);

	for (size_t i = 0; i < file->own.count && !error; i++)
		error = record_claims(file, &file->own.list[i], false);
	for (size_t i = 0; i < file->count_rmap && !error; i++)
		error = record_claims(file, &file->rmap[i], true);
	return error ? error : file_sum_up(file, first_claim);
}

typedef int file_fn(struct file_maps *file);

/* Every file whose two maps differ. */
static int files_visit(struct records *records, struct map_plan *plan, file_fn *visit)
{
	struct file_maps file = {.records = records, .plan = plan};
	int got = 1, error = cursor_begin(&file.extents, records, &records->fs->extents);

	while (!error && (got = file_next(&file)) > 0)
		if (!file_agrees(&file) || file.has_bad)
			error = visit(&file);
	cursor_end(&file.extents);
	free(file.own.list);
	free(file.both.list);
	free(file.result.list);
	return error ? error : got;
}

/* --- what each file has in the end ------------------------------------------------------------------------------------------------------------ */

/* Younger claims first; the order of the file else, which lets the set of blocks grow at its end. */
static int claim_rank_compare(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int order = compare_words(y->sequence, x->sequence);

	return order ? order : claim_compare(a, b);
}

static bool claims_overlap(const struct claim *claims, size_t count)
{
	uint64_t end = 0;

	for (size_t i = 0; i < count; i++) {
		if (claims[i].map.file_block < end)
			return true;
		end = max_u64(end, mapping_end(&claims[i].map));
	}
	return false;
}

/* The blocks of the file that nobody has yet. */
static int result_add(struct file_maps *file, struct iset *taken, const struct mapping *map)
{
	uint64_t at = map->file_block, end = mapping_end(map);
	int error = 0;

	while (at < end && !error) {
		const struct iset_range *range = iset_find(taken, at, end);
		uint64_t stop = range ? max_u64(range->start, at) : end;
		uint64_t next = range ? range->end : end;
		struct mapping part = mapping_part(map, at - map->file_block, stop - at);

		if (at < stop) {
			error = mappings_add(&file->result, &part);
			if (!error)
				error = iset_add(taken, at, stop, 0);
		}
		at = next;
	}
	return error;
}

static void result_merge(struct mappings *result)
{
	size_t out = 0;

	if (result->count)
		qsort(result->list, result->count, sizeof(*result->list), mapping_key_compare);
	for (size_t i = 0; i < result->count; i++) {
		struct mapping *last = out ? &result->list[out - 1] : NULL;
		const struct mapping *map = &result->list[i];

		if (last && mapping_end(last) == map->file_block && last->block + last->count == map->block && last->flags == map->flags)
			last->count += map->count;
		else
			result->list[out++] = *map;
	}
	result->count = out;
}

static int file_decide(struct file_maps *file)
{
	struct claims *claims = &file->plan->claims;
	struct claim *first = claims->list + file->next_claim;
	struct iset taken;
	size_t count = 0;
	int error = 0;

	while (file->next_claim + count < claims->count && first[count].map.owner == file->ino)
		count++;
	file->next_claim += count;
	iset_init(&taken);
	file->result.count = 0;
	for (size_t i = 0; i < file->both.count && !error; i++)
		error = result_add(file, &taken, &file->both.list[i]);
	if (claims_overlap(first, count))
		qsort(first, count, sizeof(*first), claim_rank_compare);
	for (size_t i = 0; i < count && !error; i++)
		if (!first[i].is_dropped)
			error = result_add(file, &taken, &first[i].map);
	iset_fini(&taken);
	result_merge(&file->result);
	return error;
}

/* What of `from` is not in `to`; both ordered. */
static int mappings_subtract(const struct mapping *from, size_t count_from, const struct mapping *to, size_t count_to, struct mappings *out)
{
	size_t j = 0;
	int error = 0;

	for (size_t i = 0; i < count_from && !error; i++) {
		while (j < count_to && mapping_key_compare(&to[j], &from[i]) < 0)
			j++;
		if (j == count_to || !mapping_equals(&to[j], &from[i]))
			error = mappings_add(out, &from[i]);
	}
	return error;
}

static void file_tell(struct file_maps *file, uint64_t restored, uint64_t dropped)
{
	if (restored)
		records_tell(file->records, RECORD_MAP_RESTORED, "inode %llu: %llu mappings put back", (unsigned long long)file->ino,
			     (unsigned long long)restored);
	if (dropped)
		records_tell(file->records, RECORD_MAP_DROPPED, "inode %llu: %llu mappings that are out of date removed",
			     (unsigned long long)file->ino, (unsigned long long)dropped);
}

static int file_plan(struct file_maps *file)
{
	struct map_plan *plan = file->plan;
	const struct mappings *own = &file->own, *result = &file->result;
	uint64_t in = plan->extents_in.count + plan->rmap_in.count, out = plan->extents_out.count + plan->rmap_out.count;
	int error = file_find_both(file);

	if (!error)
		error = file_decide(file);
	if (!error)
		error = mappings_subtract(own->list, own->count, result->list, result->count, &plan->extents_out);
	if (!error)
		error = mappings_subtract(result->list, result->count, own->list, own->count, &plan->extents_in);
	if (!error)
		error = mappings_subtract(file->rmap, file->count_rmap, result->list, result->count, &plan->rmap_out);
	if (!error)
		error = mappings_subtract(result->list, result->count, file->rmap, file->count_rmap, &plan->rmap_in);
	file_tell(file, plan->extents_in.count + plan->rmap_in.count - in, plan->extents_out.count + plan->rmap_out.count - out);
	return error;
}

static void mappings_sort(struct mappings *mappings, int (*compare)(const void *a, const void *b))
{
	if (mappings->count)
		qsort(mappings->list, mappings->count, sizeof(*mappings->list), compare);
}

int maps_plan(struct records *records, struct map_plan *plan)
{
	int error = load_rmap(records, plan);

	if (!error)
		error = space_plan_specials(records, plan);
	if (!error)
		error = files_visit(records, plan, file_claim);
	if (!error && plan->claims.count)
		error = claims_judge(records, plan);
	if (plan->claims.count)
		qsort(plan->claims.list, plan->claims.count, sizeof(*plan->claims.list), claim_compare);
	if (!error && (plan->count_sums || plan->extents_out.count)) {
		/* Extents that cannot be are met once more. */
		plan->extents_out.count = 0;
		error = files_visit(records, plan, file_plan);
	}
	mappings_sort(&plan->extents_out, mapping_key_compare);
	mappings_sort(&plan->extents_in, mapping_key_compare);
	mappings_sort(&plan->rmap_out, mapping_block_compare);
	mappings_sort(&plan->rmap_in, mapping_block_compare);
	free(plan->rmap.list);
	free(plan->claims.list);
	free(plan->sums);
	plan->sums = NULL;
	plan->rmap = (struct mappings){0};
	plan->claims = (struct claims){0};
	return error;
}

/* --- applying ------------------------------------------------------------------------------------------------------------------------------------ */

static int apply_removals(struct records *records, const struct btree *tree, const struct mappings *list, bool is_rmap)
{
	int error = 0;

	for (size_t i = 0; i < list->count && !error; i++) {
		const struct btree_key key = mapping_key(&list->list[i], is_rmap);

		error = records_remove(records, tree, &key);
	}
	return error;
}

static int apply_insert(struct records *records, const struct btree *tree, const struct mapping *map, bool is_rmap)
{
	const struct extent extent = {.block = map->block, .count_blocks = map->count, .flags = map->flags};
	const struct btree_key key = mapping_key(map, is_rmap);
	struct format_extent packed_extent;
	struct format_rmap packed_rmap;

	if (is_rmap) {
		format_rmap_pack(&packed_rmap, map->count, map->flags);
		return records_put(records, tree, &key, &packed_rmap, sizeof(packed_rmap));
	}
	format_extent_pack(&packed_extent, &extent);
	return records_put(records, tree, &key, &packed_extent, sizeof(packed_extent));
}

static int apply_tree(struct records *records, const struct btree *tree, const struct mappings *out, const struct mappings *in, bool is_rmap)
{
	int error = apply_removals(records, tree, out, is_rmap);

	for (size_t i = 0; i < in->count && !error; i++) {
		if (i % 65536 == 0)
			repair_progress(records->repair, "mappings", i, in->count);
		error = apply_insert(records, tree, &in->list[i], is_rmap);
	}
	return error;
}

int maps_apply(struct records *records, struct map_plan *plan)
{
	int error = apply_tree(records, &records->fs->rmap.tree, &plan->rmap_out, &plan->rmap_in, true);

	return error ? error : apply_tree(records, &records->fs->extents, &plan->extents_out, &plan->extents_in, false);
}

void map_plan_fini(struct map_plan *plan)
{
	free(plan->rmap.list);
	free(plan->specials.list);
	free(plan->claims.list);
	free(plan->sums);
	free(plan->extents_out.list);
	free(plan->extents_in.list);
	free(plan->rmap_out.list);
	free(plan->rmap_in.list);
}
