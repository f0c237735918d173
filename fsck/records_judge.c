/*
 * Is a mapping that only one of extents and rmap has true? Asked run by run of its blocks:
 *   - on an area of metadata: no;
 *   - free space lists them: only if the claim's leaf is younger than that of free space;
 *   - another file has them, confirmed by both trees, and the two may not share: no;
 *   - another claim names them, and the two may not share: the younger one's;
 *   - nobody else names them and they are not free: yes, the other tree lost it;
 *   - else (they may be shared, or free space cannot say): as the inode's count of blocks has it, then as the younger of the two trees has it.
 */
#include "fsck/records.h"

#include <errno.h>
#include <stdlib.h>

struct judge {
	struct records *records;
	struct map_plan *plan;
	inum_t ino; /* whose record is in `inode` */
	bool has_inode;
	struct inode_record inode;
	struct leaf_view inode_view;
	struct iset taken, exclusive; /* blocks of contested claims that have been granted; those of files that may not share */
};

struct ruling { /* about [0, count) of a part of a claim */
	uint64_t count;
	bool is_special, is_free, is_used, has_owner;
	uint64_t free_sequence;
};

/* --- witnesses ---------------------------------------------------------------------------------------------------------------------------- */

static int judge_load_inode(struct judge *judge, inum_t ino)
{
	const struct btree_key key = {{ino}};
	int error;

	if (judge->ino == ino)
		return 0;
	judge->ino = ino;
	error = records_load_inode(judge->records, ino, &judge->inode);
	if (error && error != -ENOENT)
		return error;
	judge->has_inode = !error;
	return records_view(judge->records, &judge->records->fs->inodes, &key, &judge->inode_view);
}

/* An inode that is lost may have shared. */
static int judge_may_share(struct judge *judge, inum_t ino, bool *out)
{
	int error = judge_load_inode(judge, ino);

	*out = !judge->has_inode || (judge->inode.flags & INODE_MAY_SHARE);
	return error;
}

/* Areas are disjoint and ordered. */
static void rule_special(struct judge *judge, const struct mapping *part, struct ruling *ruling)
{
	const struct mappings *specials = &judge->plan->specials;
	size_t low = 0, high = specials->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (specials->list[middle].block + specials->list[middle].count <= part->block)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == specials->count)
		return;
	ruling->is_special = specials->list[low].block <= part->block;
	if (ruling->is_special)
		ruling->count = min_u64(ruling->count, specials->list[low].block + specials->list[low].count - part->block);
	else
		ruling->count = min_u64(ruling->count, specials->list[low].block - part->block);
}

/* Free space: lists the block, or says that it is in use, or cannot say. */
static int rule_free(struct judge *judge, const struct mapping *part, struct ruling *ruling)
{
	const struct btree *tree = alloc_tree(judge->records->fs->alloc);
	const struct btree_key key = {{part->block}};
	struct btree_record found;
	struct leaf_view view;
	uint64_t count;
	int error = records_view(judge->records, tree, &key, &view);

	ruling->is_used = judge->records->is_free_whole || view.is_known;
	if (!error)
		error = records_lookup_le(judge->records, tree, &key, &found);
	if (!error && !format_free_unpack(&count, found.value, found.length) && found.key.word[0] + count > part->block) {
		ruling->is_free = true;
		ruling->count = min_u64(ruling->count, found.key.word[0] + count - part->block);
		error = records_view(judge->records, tree, &found.key, &view);
		ruling->free_sequence = view.sequence;
		return error;
	}
	if (!error || error == -ENOENT)
		error = records_lookup_ge(judge->records, tree, &key, &found);
	if (!error)
		ruling->count = min_u64(ruling->count, found.key.word[0] - part->block);
	return error == -ENOENT ? 0 : error;
}

struct owner_search {
	struct judge *judge;
	const struct mapping *part;
	struct rmap_record found;
};

/* Another owner than the claim itself. */
static int owner_visit(void *arg, const struct rmap_record *record)
{
	struct owner_search *search = arg;
	const struct mapping *part = search->part;

	if (!owner_is_inode(record->owner) ||
	    (record->owner == part->owner && record->start - record->offset == part->block - part->file_block))
		return 0;
	search->found = *record;
	return 1;
}

/* Does the other owner's map say the same of the first block? */
static int owner_is_confirmed(struct judge *judge, const struct rmap_record *record, bool *out)
{
	const struct btree_key key = {{record->owner, record->offset}};
	struct btree_record found;
	struct extent extent;
	int error = records_lookup_le(judge->records, &judge->records->fs->extents, &key, &found);

	*out = false;
	if (error || found.key.word[0] != record->owner)
		return error == -ENOENT ? 0 : error;
	error = format_extent_unpack(&extent, found.value, found.length);
	if (!error)
		*out = found.key.word[1] + extent.count_blocks > record->offset && extent.block - found.key.word[1] == record->start - record->offset;
	return error;
}

static int rule_owner(struct judge *judge, const struct mapping *part, struct ruling *ruling, uint64_t *owner)
{
	struct mapping rest = mapping_part(part, 0, ruling->count);
	struct owner_search search = {.judge = judge, .part = &rest};
	bool is_confirmed;
	int found, error;

	while (rest.count) {
		records_read_begin(judge->records);
		found = rmap_query(&judge->records->fs->rmap, rest.block, rest.count, owner_visit, &search);
		records_read_end(judge->records);
		if (found <= 0)
			return found;
		error = owner_is_confirmed(judge, &search.found, &is_confirmed);
		if (error)
			return error;
		if (is_confirmed)
			break;
		rest = mapping_part(&rest, search.found.start + search.found.count - rest.block,
				    rest.block + rest.count - (search.found.start + search.found.count));
	}
	if (!rest.count)
		return 0;
	if (search.found.start > part->block) {
		ruling->count = search.found.start - part->block;
		return 0;
	}
	ruling->has_owner = true;
	ruling->count = min_u64(ruling->count, search.found.start + search.found.count - part->block);
	*owner = search.found.owner;
	return 0;
}

static int sum_compare(const void *a, const void *b)
{
	const struct file_sum *x = a, *y = b;

	return (x->ino > y->ino) - (x->ino < y->ino);
}

/* What the inode's count of blocks says of the claims of this kind: 1 they are true, -1 they are not, 0 nothing. */
static int inode_says(struct judge *judge, const struct claim *claim)
{
	const struct file_sum key = {.ino = claim->map.owner};
	const struct file_sum *sum = bsearch(&key, judge->plan->sums, judge->plan->count_sums, sizeof(key), sum_compare);
	uint64_t mine, theirs, count = judge->inode.count_blocks;

	if (!sum)
		return 0;
	mine = claim->is_from_rmap ? sum->rmap : sum->own;
	theirs = claim->is_from_rmap ? sum->own : sum->rmap;
	if (!judge->has_inode)
		return judge->inode_view.is_known && judge->inode_view.sequence > claim->sequence ? -1 : 0;
	if (sum->both + mine + theirs == count || (sum->both + mine == count && mine != theirs))
		return 1;
	if ((sum->both == count || (sum->both + theirs == count && mine != theirs)) && judge->inode_view.sequence > claim->sequence)
		return -1;
	return 0;
}

/* The other tree has records on both sides of the place, and is younger. */
static int other_tree_denies(struct judge *judge, const struct claim *claim, const struct mapping *part, bool *out)
{
	const struct btree_key of_rmap = {{part->block, part->owner, part->file_block}}, of_extents = {{part->owner, part->file_block}};
	struct leaf_view view;
	int error;

	if (claim->is_from_rmap)
		error = records_view(judge->records, &judge->records->fs->extents, &of_extents, &view);
	else
		error = records_view(judge->records, &judge->records->fs->rmap.tree, &of_rmap, &view);
	*out = !error && view.is_known && view.sequence > claim->sequence;
	return error;
}

/* --- ruling ------------------------------------------------------------------------------------------------------------------------------- */

static int rule_part(struct judge *judge, const struct claim *claim, const struct mapping *part, struct ruling *ruling, bool *keep)
{
	uint64_t owner = 0;
	bool mine, theirs = false, denied;
	int error, says;

	*ruling = (struct ruling){.count = part->count};
	*keep = false;
	rule_special(judge, part, ruling);
	if (ruling->is_special)
		return 0;
	error = rule_free(judge, part, ruling);
	if (error)
		return error;
	if (ruling->is_free) {
		*keep = claim->sequence >= ruling->free_sequence;
		return 0;
	}
	error = rule_owner(judge, part, ruling, &owner);
	if (!error && ruling->has_owner)
		error = judge_may_share(judge, owner, &theirs);
	if (!error)
		error = judge_may_share(judge, part->owner, &mine);
	if (error)
		return error;
	*keep = !ruling->has_owner || (mine && theirs);
	if (!*keep || (ruling->is_used && !ruling->has_owner))
		return 0;
	says = inode_says(judge, claim);
	if (says) {
		*keep = says > 0;
		return 0;
	}
	error = other_tree_denies(judge, claim, part, &denied);
	*keep = !denied;
	return error;
}

/* The claim shrinks to what is kept of it; pieces beyond the first become claims of their own. */
static int judge_claim(struct judge *judge, size_t index)
{
	const struct claim whole = judge->plan->claims.list[index];
	bool is_first = true, keep;
	uint64_t at = 0;
	int error = 0;

	judge->plan->claims.list[index].is_dropped = true;
	while (at < whole.map.count && !error) {
		struct claim piece = whole;
		struct ruling ruling;

		piece.map = mapping_part(&whole.map, at, whole.map.count - at);
		error = rule_part(judge, &whole, &piece.map, &ruling, &keep);
		at += ruling.count;
		if (error || !keep)
			continue;
		piece.map.count = ruling.count;
		if (is_first)
			judge->plan->claims.list[index] = piece;
		else
			error = claims_add(&judge->plan->claims, &piece);
		is_first = false;
	}
	return error;
}

/* --- claims against each other ----------------------------------------------------------------------------------------------------------- */

static int claim_block_compare(const void *a, const void *b)
{
	return mapping_block_compare(&((const struct claim *)a)->map, &((const struct claim *)b)->map);
}

/* Of claims in order of block, those that overlap any other. */
static void claims_mark_contested(struct claims *claims)
{
	struct claim *longest = NULL;

	for (size_t i = 0; i < claims->count; i++) {
		struct claim *claim = &claims->list[i];
		uint64_t end = longest ? longest->map.block + longest->map.count : 0;

		if (longest && claim->map.block < end)
			claim->is_contested = longest->is_contested = true;
		if (!longest || claim->map.block + claim->map.count > end)
			longest = claim;
	}
}

/* Contested claims first, of these the younger first. */
static int claim_contest_compare(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;

	if (x->is_contested != y->is_contested)
		return y->is_contested - x->is_contested;
	if (x->sequence != y->sequence)
		return x->sequence < y->sequence ? 1 : -1;
	return claim_block_compare(a, b);
}

static int grant(struct judge *judge, const struct mapping *map, bool may_share)
{
	int error = iset_add(&judge->taken, map->block, map->block + map->count, 0);

	if (!error && !may_share)
		error = iset_add(&judge->exclusive, map->block, map->block + map->count, 0);
	return error;
}

/* What of the claim is not granted to a younger one. */
static int judge_contested(struct judge *judge, size_t index)
{
	const struct claim whole = judge->plan->claims.list[index];
	uint64_t at = whole.map.block, end = at + whole.map.count;
	struct mappings kept = {0};
	bool may_share;
	int error = judge_may_share(judge, whole.map.owner, &may_share);

	while (at < end && !error) {
		const struct iset_range *range = iset_find(may_share ? &judge->exclusive : &judge->taken, at, end);
		uint64_t stop = range ? max_u64(at, range->start) : end, next = range ? range->end : end;
		struct mapping part = mapping_part(&whole.map, at - whole.map.block, stop - at);

		if (at < stop)
			error = mappings_add(&kept, &part);
		at = next;
	}
	judge->plan->claims.list[index].is_dropped = true;
	for (size_t i = 0; i < kept.count && !error; i++) {
		struct claim piece = whole;

		piece.map = kept.list[i];
		if (i == 0)
			judge->plan->claims.list[index] = piece;
		else
			error = claims_add(&judge->plan->claims, &piece);
		if (!error)
			error = grant(judge, &piece.map, may_share);
	}
	free(kept.list);
	return error;
}

static int judge_all(struct judge *judge)
{
	struct claims *claims = &judge->plan->claims;
	size_t count = claims->count;
	int error = 0;

	/* What one is not true need not be contested. */
	for (size_t i = 0; i < count && !error; i++)
		error = judge_claim(judge, i);
	if (error)
		return error;
	for (size_t i = count = 0; i < claims->count; i++)
		if (!claims->list[i].is_dropped)
			claims->list[count++] = claims->list[i];
	claims->count = count;
	qsort(claims->list, count, sizeof(*claims->list), claim_block_compare);
	claims_mark_contested(claims);
	qsort(claims->list, count, sizeof(*claims->list), claim_contest_compare);
	for (size_t i = 0; i < count && !error && claims->list[i].is_contested; i++)
		error = judge_contested(judge, i);
	return error;
}

int claims_judge(struct records *records, struct map_plan *plan)
{
	struct judge judge = {.records = records, .plan = plan};
	int error;

	iset_init(&judge.taken);
	iset_init(&judge.exclusive);
	error = judge_all(&judge);
	iset_fini(&judge.taken);
	iset_fini(&judge.exclusive);
	return error;
}
