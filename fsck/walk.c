#include "fsck/walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/alloc.h"
#include "btree/path.h"
#include "fsck/vector.h"
#include "journal/root.h"
#include "journal/salvage.h"
#include "notify/ledger_copy.h"
#include "notify/span.h"
#include "rmap/mapping.h"

/* --- the forest ---------------------------------------------------------------------------------------------------------------- */

static int forest_take_ops(struct forest *forest)
{
	const struct btree_ops *const known[] = {
		&inodes_ops,	&dirents_ops, &parents_ops, &extents_ops, &xattrs_ops,	&rmap_ops,	  &badblocks_ops,
		&lost_ops,	&damaged_ops, &orphans_ops, &intents_ops, &ledger_copy_ops,
	};
	struct alloc *alloc;
	int error = alloc_create(forest->journal, &alloc);

	if (error)
		return error;
	forest->trees[FORMAT_TREE_FREE].ops = alloc_tree(alloc)->ops;
	alloc_destroy(alloc);
	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		forest->trees[known[i]->tree].ops = known[i];
	for (unsigned i = 0; i < ARRAY_SIZE(forest->trees); i++)
		forest->trees[i].number = i;
	return 0;
}

static unsigned map_count(const uint64_t map[8])
{
	unsigned count = 0;

	for (unsigned i = 0; i < 8; i++)
		count += (unsigned)__builtin_popcountll(map[i]);
	return count;
}

static void forest_take_table(struct forest *forest)
{
	for (uint64_t c = 0; c < forest->chunks; c++) {
		struct chunk_entry *entry = &forest->entries[c];

		if (salvage_entry(forest->journal, c, entry))
			memset(entry, 0, sizeof(*entry));
		forest->entry_sequence[c] = salvage_entry_sequence(forest->journal, c);
		if (entry->state == FORMAT_CHUNK_LIVE)
			forest->in_use += map_count(entry->map) - 1;
	}
}

int forest_init(struct forest *forest, struct repair *repair)
{
	int error;

	memset(forest, 0, sizeof(*forest));
	forest->repair = repair;
	forest->journal = repair->journal;
	forest->chunks = root_get(forest->journal, ROOT_CHUNKS);
	forest->capacity = round_up_u64(forest->chunks + 1, CHUNK_ENTRIES_PER_BLOCK);
	forest->entries = calloc(forest->capacity, sizeof(*forest->entries));
	forest->entry_sequence = calloc(forest->capacity, sizeof(*forest->entry_sequence));
	forest->reached = calloc(forest->capacity, sizeof(*forest->reached));
	if (!forest->entries || !forest->entry_sequence || !forest->reached)
		return -ENOMEM;
	error = forest_take_ops(forest);
	if (!error)
		forest_take_table(forest);
	return error;
}

void forest_fini(struct forest *forest)
{
	for (unsigned i = 0; i < ARRAY_SIZE(forest->trees); i++) {
		free(forest->trees[i].leaves);
		free(forest->trees[i].slots);
		free(forest->trees[i].tops);
	}
	free(forest->entries);
	free(forest->entry_sequence);
	free(forest->reached);
}

static bool map_has(const uint64_t map[8], unsigned index)
{
	return map[index / 64] >> index % 64 & 1;
}

bool forest_is_reached(const struct forest *forest, maddr_t address)
{
	return map_has(forest->reached[maddr_chunk(address)], maddr_index(address));
}

/* Could a node lie there? */
static bool forest_has_place(const struct forest *forest, maddr_t address)
{
	const struct chunk_entry *entry;

	if (maddr_is_fixed(address) || maddr_chunk(address) >= forest->chunks || !maddr_index(address))
		return false;
	entry = &forest->entries[maddr_chunk(address)];
	return entry->state == FORMAT_CHUNK_LIVE && maddr_index(address) < chunk_blocks(entry->shift);
}

static void forest_reach(struct forest *forest, maddr_t address)
{
	forest->reached[maddr_chunk(address)][maddr_index(address) / 64] |= 1ull << maddr_index(address) % 64;
	if (forest->visited++ % 1024 == 0)
		repair_progress(forest->repair, "trees", forest->visited, forest->in_use);
}

/* --- walking ------------------------------------------------------------------------------------------------------------------- */

static struct slot *slot_add(struct tree_state *tree, const struct slot *slot)
{
	if (!vector_reserve((void **)&tree->slots, tree->count_slots, &tree->capacity_slots, sizeof(*slot)))
		return NULL;
	tree->slots[tree->count_slots] = *slot;
	return &tree->slots[tree->count_slots++];
}

static uint64_t aggregate_of(const struct forest *forest, const struct tree_state *tree, const struct format_node *node)
{
	struct btree btree;

	btree_init(&btree, forest->journal, tree->ops);
	return btree_node_aggregate(&btree, node);
}

static int leaf_add(const struct forest *forest, struct tree_state *tree, const struct format_node *node, const struct buf *buf, uint64_t sequence, bool in_place)
{
	struct leaf *leaf;

	if (!vector_reserve((void **)&tree->leaves, tree->count_leaves, &tree->capacity_leaves, sizeof(*leaf)))
		return -ENOMEM;
	leaf = &tree->leaves[tree->count_leaves++];
	leaf->address = buf->address;
	leaf->sequence = sequence;
	leaf->in_place = in_place;
	leaf->aggregate = aggregate_of(forest, tree, node);
	node_key(node, 0, &leaf->first);
	node_key(node, node_count(node) - 1, &leaf->last);
	return 0;
}

/* A whole node of this tree, at any level. */
static bool node_is_ours(const struct tree_state *tree, const struct format_node *node)
{
	const char *field;

	return node->header.role == FORMAT_ROLE_NODE && node->header.tree == tree->number && !node_verify(node, tree->ops, &field);
}

static bool node_is_within(const struct format_node *node, const struct slot *slot)
{
	struct btree_key first, last;

	node_key(node, 0, &first);
	node_key(node, node_count(node) - 1, &last);
	return (node->level || btree_key_compare(&first, &slot->lower) >= 0) &&
	       (!slot->bounded || btree_key_compare(&last, &slot->upper) < 0);
}

/*
 * A child that its parent names and the table calls free: the table block, or the parent, was changed when the one or the other became so;
 * who is older is wrong.
 */
static bool child_is_live(struct forest *forest, const struct slot *slot)
{
	uint64_t chunk = maddr_chunk(slot->address);

	if (map_has(forest->entries[chunk].map, maddr_index(slot->address)))
		return true;
	if (forest->entry_sequence[chunk] >= slot->parent_sequence)
		return false;
	forest->map_is_stale = true;
	return true;
}

static int node_walk(struct forest *forest, struct tree_state *tree, struct buf *buf, const struct slot *slot, bool in_place);

static void child_slot(const struct format_node *node, unsigned index, const struct slot *parent, uint64_t sequence, struct slot *out)
{
	struct node_child child;

	*out = (struct slot){.level = node->level - 1u, .parent_sequence = sequence};
	node_child(node, index, &child);
	node_key(node, index, &out->lower);
	out->address = child.address;
	out->bounded = index + 1 < node_count(node) || parent->bounded;
	if (index + 1 < node_count(node))
		node_key(node, index + 1, &out->upper);
	else
		out->upper = parent->upper;
}

enum child_state { CHILD_WHOLE, CHILD_LOST, CHILD_MET, CHILD_ESCAPED /* its parent is out of date */ };

static enum child_state child_judge(struct forest *forest, struct tree_state *tree, const struct slot *slot, struct buf *buf)
{
	const struct format_node *node = (const struct format_node *)buf->data;

	if (!node_is_ours(tree, node) || !child_is_live(forest, slot))
		return CHILD_LOST;
	if (forest_is_reached(forest, slot->address))
		return CHILD_MET;
	if (node->level == slot->level && node_is_within(node, slot))
		return CHILD_WHOLE;
	return salvage_sequence(buf) > slot->parent_sequence ? CHILD_ESCAPED : CHILD_LOST;
}

static int child_lost(struct tree_state *tree, struct slot *slot)
{
	slot->bad = true;
	tree->count_bad++;
	return slot_add(tree, slot) ? 0 : -ENOMEM;
}

static int top_add(struct tree_state *tree, maddr_t address, unsigned level)
{
	if (!vector_reserve((void **)&tree->tops, tree->count_tops, &tree->capacity_tops, sizeof(*tree->tops)))
		return -ENOMEM;
	tree->tops[tree->count_tops++] = (struct top){address, level};
	return 0;
}

/* An alive node that no believable parent names: what it says of its own children counts. */
static int top_walk(struct forest *forest, struct tree_state *tree, struct buf *buf)
{
	const struct format_node *node = (const struct format_node *)buf->data;
	struct slot slot = {.level = node->level, .address = buf->address};
	int error = top_add(tree, buf->address, node->level);

	return error ? error : node_walk(forest, tree, buf, &slot, false);
}

static int child_walk(struct forest *forest, struct tree_state *tree, struct slot *slot, bool in_place)
{
	struct buf *buf;
	int error;

	if (!forest_has_place(forest, slot->address))
		return child_lost(tree, slot);
	error = salvage_get(forest->journal, slot->address, &buf);
	if (error)
		return error == -ENOMEM ? error : child_lost(tree, slot);
	switch (child_judge(forest, tree, slot, buf)) {
	case CHILD_WHOLE:
		error = slot_add(tree, slot) ? node_walk(forest, tree, buf, slot, in_place) : -ENOMEM;
		break;
	case CHILD_ESCAPED:
		error = child_lost(tree, slot);
		if (!error)
			error = top_walk(forest, tree, buf);
		break;
	case CHILD_MET:
		tree->wrong_aggregate |= in_place; /* named twice: made anew */
		break;
	case CHILD_LOST:
		error = child_lost(tree, slot);
		break;
	}
	buf_put(buf);
	return error;
}

static void child_check_aggregate(struct forest *forest, struct tree_state *tree, const struct format_node *node, unsigned index)
{
	struct node_child child;
	struct buf *buf;

	node_child(node, index, &child);
	if (!tree->ops->aggregate || !forest_has_place(forest, child.address) || salvage_get(forest->journal, child.address, &buf))
		return;
	if (node_is_ours(tree, (struct format_node *)buf->data) &&
	    aggregate_of(forest, tree, (struct format_node *)buf->data) != child.aggregate)
		tree->wrong_aggregate = true;
	buf_put(buf);
}

static int node_walk(struct forest *forest, struct tree_state *tree, struct buf *buf, const struct slot *slot, bool in_place)
{
	const struct format_node *node = (const struct format_node *)buf->data;
	uint64_t sequence = salvage_sequence(buf);
	int error = 0;

	forest_reach(forest, buf->address);
	tree->nodes++;
	if (node->level == 0)
		return leaf_add(forest, tree, node, buf, sequence, in_place);
	for (unsigned i = 0; i < node_count(node) && !error; i++) {
		struct slot child;

		child_slot(node, i, slot, sequence, &child);
		error = child_walk(forest, tree, &child, in_place);
		if (!error)
			child_check_aggregate(forest, tree, node, i);
	}
	return error;
}

static int tree_walk(struct forest *forest, struct tree_state *tree, uint64_t root_sequence)
{
	struct slot slot = {.parent_sequence = root_sequence};
	int error;

	root_tree_get(forest->journal, tree->number, &slot.address, &slot.level);
	if (!slot.address) {
		tree->was_empty = true;
		return 0;
	}
	if (!forest_has_place(forest, slot.address) || slot.level >= NODE_LEVELS_MAX) {
		tree->root_unknown = true;
		slot.level = NODE_LEVELS_MAX;
		return child_lost(tree, &slot);
	}
	error = top_add(tree, slot.address, slot.level);
	if (!error)
		error = child_walk(forest, tree, &slot, true);
	if (tree->count_slots && tree->slots[tree->count_slots - 1].bad && tree->slots[tree->count_slots - 1].address == slot.address &&
	    tree->slots[tree->count_slots - 1].level == slot.level)
		tree->count_tops--;
	return error;
}

/* --- what is in use and was not met -------------------------------------------------------------------------------------------- */

struct candidate {
	unsigned tree, level;
	struct btree_key first;
	uint64_t sequence;
	maddr_t address;
};
struct candidates {
	struct candidate *list;
	size_t count, capacity;
};

/* If it is a node of this sequence or a later one. */
static int candidate_take(struct forest *forest, struct candidates *all, maddr_t address, uint64_t least_sequence)
{
	const struct format_node *node;
	struct tree_state *tree;
	struct buf *buf;
	int error = salvage_get(forest->journal, address, &buf);

	if (error)
		return error == -ENOMEM ? error : 0;
	node = (const struct format_node *)buf->data;
	tree = node->header.tree < ARRAY_SIZE(forest->trees) ? &forest->trees[node->header.tree] : NULL;
	if (tree && tree->ops && salvage_sequence(buf) >= least_sequence && node_is_ours(tree, node)) {
		if (!vector_reserve((void **)&all->list, all->count, &all->capacity, sizeof(*all->list))) {
			error = -ENOMEM;
		} else {
			struct candidate *candidate = &all->list[all->count++];

			*candidate = (struct candidate){tree->number, node->level, {{0}}, salvage_sequence(buf), address};
			node_key(node, 0, &candidate->first);
		}
	}
	buf_put(buf);
	return error;
}

static bool forest_has_bad(const struct forest *forest)
{
	for (unsigned i = 0; i < ARRAY_SIZE(forest->trees); i++)
		if (forest->trees[i].count_bad)
			return true;
	return false;
}

/*
 * Freeing a block changes the table after the block's last change: a node that the table calls free and that is younger than the table's word shows that
 * the table is out of date, and is in use for all that is known.
 */
static int candidates_collect(struct forest *forest, struct candidates *all)
{
	bool is_missing = forest_has_bad(forest), any = forest->map_is_stale && is_missing;
	int error = 0;

	for (uint64_t c = 0; c < forest->chunks && !error; c++) {
		const struct chunk_entry *entry = &forest->entries[c];

		if (entry->state != FORMAT_CHUNK_LIVE)
			continue;
		for (unsigned i = 1; i < chunk_blocks(entry->shift) && !error; i++)
			if ((is_missing || map_has(entry->map, i)) && !map_has(forest->reached[c], i))
				error = candidate_take(forest, all, maddr_of_chunk(c, i),
						       any || map_has(entry->map, i) ? 0 : forest->entry_sequence[c] + 1);
	}
	return error;
}

/* Highest level first: what an alive parent names needs no judgement. Then the newest. */
static int compare_candidates(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->tree != y->tree)
		return x->tree < y->tree ? -1 : 1;
	if (x->level != y->level)
		return x->level > y->level ? -1 : 1;
	return x->sequence > y->sequence ? -1 : x->sequence < y->sequence;
}

static bool slot_covers(const struct slot *slot, const struct btree_key *key)
{
	return btree_key_compare(&slot->lower, key) <= 0 && (!slot->bounded || btree_key_compare(key, &slot->upper) < 0);
}

/* The newest parent that tells of this place at the node's own level; bad ones above it, whose children nobody names. */
static void slots_ask(const struct tree_state *tree, const struct candidate *node, const struct slot **beside, bool *lost_above)
{
	*beside = NULL;
	*lost_above = false;
	for (size_t i = 0; i < tree->count_slots; i++) {
		const struct slot *slot = &tree->slots[i];

		if (!slot_covers(slot, &node->first) || slot->level < node->level)
			continue;
		if (slot->level > node->level)
			*lost_above |= slot->bad;
		else if (!*beside || slot->parent_sequence > (*beside)->parent_sequence)
			*beside = slot;
	}
}

static bool candidate_is_alive(const struct forest *forest, const struct candidate *node, uint64_t root_sequence)
{
	const struct tree_state *tree = &forest->trees[node->tree];
	const struct slot *beside;
	bool lost_above;

	slots_ask(tree, node, &beside, &lost_above);
	if (beside)
		return node->sequence > beside->parent_sequence;
	return lost_above || node->sequence > root_sequence;
}

static int candidate_judge(struct forest *forest, const struct candidate *node, uint64_t root_sequence)
{
	struct tree_state *tree = &forest->trees[node->tree];
	struct buf *buf;
	int error;

	if (forest_is_reached(forest, node->address))
		return 0;
	if (!candidate_is_alive(forest, node, root_sequence)) {
		tree->dead++;
		return 0;
	}
	error = salvage_get(forest->journal, node->address, &buf);
	if (error)
		return error == -ENOMEM ? error : 0;
	error = top_walk(forest, tree, buf);
	buf_put(buf);
	return error;
}

static uint64_t forest_root_sequence(struct forest *forest)
{
	struct buf *root;
	uint64_t sequence;

	if (salvage_get(forest->journal, MADDR_ROOT, &root))
		return 0;
	sequence = salvage_sequence(root);
	buf_put(root);
	return sequence;
}

int forest_walk(struct forest *forest)
{
	uint64_t root_sequence = forest_root_sequence(forest);
	struct candidates all = {0};
	int error = 0;

	for (unsigned i = 1; i < ARRAY_SIZE(forest->trees) && !error; i++)
		if (forest->trees[i].ops)
			error = tree_walk(forest, &forest->trees[i], root_sequence);
	if (!error)
		error = candidates_collect(forest, &all);
	if (!error && all.count)
		qsort(all.list, all.count, sizeof(*all.list), compare_candidates);
	for (size_t i = 0; i < all.count && !error; i++)
		error = candidate_judge(forest, &all.list[i], root_sequence);
	free(all.list);
	return error;
}

/* --- what a tree is made of ---------------------------------------------------------------------------------------------------- */

bool tree_is_sound(const struct tree_state *tree)
{
	uint64_t bad = tree->count_bad - tree->root_unknown;

	if (!tree->ops)
		return true;
	return !bad && !tree->wrong_aggregate && tree->count_tops <= 1;
}

static int compare_leaves(const void *a, const void *b)
{
	const struct leaf *x = a, *y = b;
	int order = btree_key_compare(&x->first, &y->first);

	if (order)
		return order;
	if (x->in_place != y->in_place)
		return x->in_place ? -1 : 1;
	return x->sequence > y->sequence ? -1 : x->sequence < y->sequence;
}

static bool leaf_is_better(const struct leaf *a, const struct leaf *b)
{
	return a->in_place != b->in_place ? a->in_place : a->sequence > b->sequence;
}

void tree_settle_leaves(struct tree_state *tree)
{
	size_t kept = 0;

	if (tree->count_leaves)
		qsort(tree->leaves, tree->count_leaves, sizeof(*tree->leaves), compare_leaves);
	for (size_t i = 0; i < tree->count_leaves; i++) {
		const struct leaf leaf = tree->leaves[i];
		bool wins = true;

		while (kept && wins && btree_key_compare(&tree->leaves[kept - 1].last, &leaf.first) >= 0) {
			wins = leaf_is_better(&leaf, &tree->leaves[kept - 1]);
			kept -= wins;
		}
		if (wins)
			tree->leaves[kept++] = leaf;
	}
	tree->count_leaves = kept;
}
