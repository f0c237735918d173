/*
 * Every tree as a tree: walked whole; where a node is lost or nodes contradict each other, inner levels are made anew over the leaves that can be
 * believed. In the end exactly those metadata blocks are in use that something refers to. The steps, each durable before the next:
 *   1  the roots of trees that are not sound say "unknown": whoever goes on from here takes every node in use as alive
 *   2  the chunk table's maps say what stays: leaves, and all nodes of sound trees
 *   3  inner levels, and at their end the root, tree by tree
 * A leaf that is lost is simply not there; its records are put back from others by the next phase.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "btree/node.h"
#include "fsck/build.h"
#include "fsck/taken.h"
#include "fsck/walk.h"
#include "journal/root.h"
#include "journal/salvage.h"
#include "rmap/mapping.h"

#define MAPS_PER_TX 64u

struct trees {
	struct repair *repair;
	struct forest forest;
	uint64_t (*needed)[8];
	uint64_t unsound, leaked, unmarked;
	bool roots_change; /* of sound trees */
};

/* --- what was found ------------------------------------------------------------------------------------------------------------ */

static void tell_slots(struct repair *repair, const struct tree_state *tree)
{
	for (size_t i = 0; i < tree->count_slots; i++) {
		const struct slot *slot = &tree->slots[i];

		if (slot->bad && slot->level < NODE_LEVELS_MAX)
			repair_tell(repair, FSCK_ERROR, "tree %s: %s %#llx is lost: no copy is whole, or it is not what its parent says",
				    format_tree_name(tree->number), slot->level ? "inner node" : "leaf",
				    (unsigned long long)slot->address);
	}
}

static void tell_tree(struct repair *repair, const struct tree_state *tree)
{
	const char *name = format_tree_name(tree->number);

	tell_slots(repair, tree);
	if (tree->root_unknown)
		repair_tell(repair, FSCK_ERROR, "tree %s: the root block does not say where it begins", name);
	else if (tree->count_tops > 1 || (tree->was_empty && tree->count_tops))
		repair_tell(repair, FSCK_ERROR, "tree %s: %zu of its nodes are not reached from its root", name, tree->count_tops);
	if (tree->wrong_aggregate)
		repair_tell(repair, FSCK_ERROR, "tree %s: inner nodes say wrong aggregates", name);
}

static bool root_is_right(struct forest *forest, const struct tree_state *tree)
{
	maddr_t address;
	unsigned level;

	root_tree_get(forest->journal, tree->number, &address, &level);
	if (!tree->count_tops)
		return address == 0;
	return address == tree->tops[0].address && level == tree->tops[0].level;
}

/* --- what stays ---------------------------------------------------------------------------------------------------------------- */

static void need(struct trees *trees, maddr_t address)
{
	trees->needed[maddr_chunk(address)][maddr_index(address) / 64] |= 1ull << maddr_index(address) % 64;
}

static void need_tree(struct trees *trees, struct tree_state *tree)
{
	if (!tree_is_sound(tree)) {
		for (size_t i = 0; i < tree->count_leaves; i++)
			need(trees, tree->leaves[i].address);
		return;
	}
	for (size_t i = 0; i < tree->count_slots; i++)
		if (!tree->slots[i].bad)
			need(trees, tree->slots[i].address);
	for (size_t i = 0; i < tree->count_tops; i++)
		need(trees, tree->tops[i].address);
}

static void compare_maps(struct trees *trees)
{
	for (uint64_t c = 0; c < trees->forest.chunks; c++) {
		if (trees->forest.entries[c].state != FORMAT_CHUNK_LIVE)
			continue;
		trees->needed[c][0] |= 1;
		for (unsigned i = 0; i < 8; i++) {
			uint64_t map = trees->forest.entries[c].map[i], wanted = trees->needed[c][i];

			trees->leaked += (unsigned)__builtin_popcountll(map & ~wanted);
			trees->unmarked += (unsigned)__builtin_popcountll(wanted & ~map);
		}
	}
}

/* One record of the reverse map that names a copy of a chunk which the table has not: of an empty chunk nothing else is left. */
static void chunk_take_record(struct trees *trees, const struct rmap_record *record)
{
	uint64_t chunk = record->offset / CHUNK_SLOTS / 2;
	struct chunk_entry *entry;

	if (record->owner != OWNER(OWNER_CHUNK) || chunk >= round_up_u64(trees->forest.chunks, CHUNK_ENTRIES_PER_BLOCK) || record->offset % CHUNK_SLOTS)
		return;
	entry = &trees->forest.entries[chunk];
	if (entry->state != FORMAT_CHUNK_FREE || !record->count || record->count & (record->count - 1) || record->count > CHUNK_SLOTS ||
	    record->count < chunk_blocks(CHUNK_SHIFT_MIN))
		return;
	entry->copy[record->offset / CHUNK_SLOTS % 2] = record->start * BLOCK_BYTES;
	entry->shift = (uint8_t)(__builtin_ctzll(record->count) + BLOCK_SHIFT);
}

static void chunks_take_leaf(struct trees *trees, const struct leaf *leaf)
{
	const struct format_node *node;
	struct rmap_record record;
	struct btree_key key;
	const void *value;
	size_t length;
	struct buf *buf;

	if (salvage_get(trees->forest.journal, leaf->address, &buf))
		return;
	node = (const struct format_node *)buf->data;
	for (unsigned i = 0; i < node_count(node); i++) {
		node_key(node, i, &key);
		value = node_value(node, i, &length);
		if (!rmap_unpack(&record, &key, value, length))
			chunk_take_record(trees, &record);
	}
	buf_put(buf);
}

/* All its copies, at places that nothing else has. */
static bool chunk_is_possible(const struct trees *trees, const struct iset *taken, const struct chunk_entry *entry)
{
	uint64_t distance = entry->copy[0] < entry->copy[1] ? entry->copy[1] - entry->copy[0] : entry->copy[0] - entry->copy[1];
	uint64_t bytes = 1ull << entry->shift, size = trees->repair->super.size_bytes;

	if (!entry->copy[0] || (trees->repair->super.copies > 1 && !entry->copy[1]))
		return false;
	if (distance < bytes || entry->copy[0] > size - bytes || entry->copy[1] > size - bytes)
		return false;
	return !taken_meets(taken, entry);
}

/* With all its copies a chunk counts again, empty as it is. */
static void chunk_revive(struct trees *trees, uint64_t chunk, struct chunk_entry *entry)
{
	entry->state = FORMAT_CHUNK_LIVE;
	entry->generation++;
	trees->needed[chunk][0] |= 1;
	entry->copy_state[0] = FORMAT_COPY_WHOLE;
	entry->copy_state[1] = entry->copy[1] ? FORMAT_COPY_WHOLE : FORMAT_COPY_ABSENT;
	repair_tell(trees->repair, FSCK_ERROR, "metadata chunk %llu is missing in the chunk table; the reverse map knows it",
		    (unsigned long long)chunk);
	trees->unmarked++;
	trees->forest.chunks = max_u64(trees->forest.chunks, chunk + 1);
}

static int chunks_revive(struct trees *trees, struct iset *taken)
{
	uint64_t end = round_up_u64(trees->forest.chunks, CHUNK_ENTRIES_PER_BLOCK);
	struct chunk_entry *entries = trees->forest.entries;
	int error = 0;

	for (uint64_t c = 0; c < end && !error; c++)
		if (entries[c].state != FORMAT_CHUNK_FREE)
			error = taken_add(taken, c, &entries[c]);
	for (uint64_t c = 0; c < end && !error; c++) {
		if (entries[c].state != FORMAT_CHUNK_FREE || !entries[c].shift)
			continue;
		if (chunk_is_possible(trees, taken, &entries[c])) {
			error = taken_add(taken, c, &entries[c]);
			chunk_revive(trees, c, &entries[c]);
		} else {
			entries[c] = (struct chunk_entry){.generation = entries[c].generation};
		}
	}
	return error;
}

static int chunks_from_rmap(struct trees *trees)
{
	const struct tree_state *rmap = &trees->forest.trees[FORMAT_TREE_RMAP];
	struct iset taken;
	int error = taken_begin(&taken, &trees->repair->super);

	for (size_t i = 0; i < rmap->count_leaves; i++)
		chunks_take_leaf(trees, &rmap->leaves[i]);
	if (!error)
		error = chunks_revive(trees, &taken);
	iset_fini(&taken);
	return error;
}

static bool trees_are_wrong(const struct trees *trees)
{
	return trees->unsound || trees->roots_change || trees->leaked || trees->unmarked;
}

static int trees_judge(struct trees *trees)
{
	struct repair *repair = trees->repair;
	int error = 0;

	for (unsigned i = 1; i < ARRAY_SIZE(trees->forest.trees); i++) {
		struct tree_state *tree = &trees->forest.trees[i];

		tell_tree(repair, tree);
		tree_settle_leaves(tree);
		need_tree(trees, tree);
		if (!tree_is_sound(tree))
			trees->unsound++;
		else if (!root_is_right(&trees->forest, tree))
			trees->roots_change = true;
	}
	compare_maps(trees);
	if (trees->repair->table_was_lost || trees_are_wrong(trees)) /* an earlier run may have ended before it came to this */
		error = chunks_from_rmap(trees);
	if (trees->leaked && !trees->unsound)
		repair_tell(repair, FSCK_ERROR, "%llu metadata blocks are marked as in use, and nothing refers to them",
			    (unsigned long long)trees->leaked);
	if (trees->unmarked)
		repair_tell(repair, FSCK_ERROR, "%llu metadata blocks are in use, and marked as free",
			    (unsigned long long)trees->unmarked);
	return error;
}

/* --- step 1 -------------------------------------------------------------------------------------------------------------------- */

static int root_write(struct trees *trees, struct tx *tx, const struct tree_state *tree)
{
	if (!tree_is_sound(tree))
		return root_tree_set(tx, tree->number, MADDR_TABLE, 0);
	if (!tree->count_tops)
		return root_tree_set(tx, tree->number, 0, 0);
	return root_tree_set(tx, tree->number, tree->tops[0].address, tree->tops[0].level);
}

static int roots_write(struct trees *trees)
{
	struct tx *tx;
	int error = tx_begin(trees->forest.journal, TX_RESERVE, &tx);

	if (error)
		return error;
	for (unsigned i = 1; i < ARRAY_SIZE(trees->forest.trees) && !error; i++)
		error = root_write(trees, tx, &trees->forest.trees[i]);
	if (!error)
		error = root_set(tx, ROOT_CHUNKS, trees->forest.chunks);
	return tx_end(tx, error, NULL);
}

/* --- step 2 -------------------------------------------------------------------------------------------------------------------- */

/* Does a leaf of the reverse map name this copy of the chunk? *copy: as which one. */
static bool rmap_names_copy(struct trees *trees, const struct leaf *leaf, uint64_t chunk, blkno_t start, unsigned *copy, uint64_t *blocks)
{
	struct rmap_record record;
	struct buf *buf;
	bool found = false;

	if (salvage_get(trees->forest.journal, leaf->address, &buf))
		return false;
	for (*copy = 0; *copy < 2 && !found; *copy += !found) {
		const struct format_node *node = (const struct format_node *)buf->data;
		struct btree_key key = {{start, OWNER(OWNER_CHUNK), (chunk * 2 + *copy) * CHUNK_SLOTS}};
		unsigned index = node_search(node, &key, &found);
		const void *value;
		size_t length;

		if (!found)
			continue;
		value = node_value(node, index, &length);
		found = !rmap_unpack(&record, &key, value, length);
		*blocks = record.count;
	}
	buf_put(buf);
	return found;
}

static bool rmap_names(struct trees *trees, uint64_t chunk, devoff_t place, unsigned *copy, uint64_t *blocks)
{
	const struct tree_state *tree = &trees->forest.trees[FORMAT_TREE_RMAP];
	struct btree_key last = {{place / BLOCK_BYTES, OWNER(OWNER_CHUNK), UINT64_MAX}};
	size_t low = 0, high = tree->count_leaves;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (btree_key_compare(&tree->leaves[middle].first, &last) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	/* Records of one block may lie on both sides of a leaf's end. */
	for (unsigned i = 1; i <= 2 && i <= low; i++)
		if (rmap_names_copy(trees, &tree->leaves[low - i], chunk, place / BLOCK_BYTES, copy, blocks))
			return true;
	return false;
}

/* To so many blocks, if that is a size of a chunk and leaves room for what is in use. A larger one might reach into what lies behind it. */
static void chunk_shrink(struct chunk_entry *entry, uint64_t blocks)
{
	if (!blocks || blocks & (blocks - 1) || blocks < chunk_blocks(CHUNK_SHIFT_MIN) || blocks >= chunk_blocks(entry->shift))
		return;
	for (uint64_t i = blocks; i < CHUNK_SLOTS; i++)
		if (entry->map[i / 64] >> i % 64 & 1)
			return;
	entry->shift = (uint8_t)(__builtin_ctzll(blocks) + BLOCK_SHIFT);
}

/*
 * A chunk with nothing in it that nobody else knows of may be one that was given back long ago, whose space a file has by now: it is none. What
 * the reverse map says of one that is corrects what its own blocks could not tell.
 */
static void chunk_settle(struct trees *trees, uint64_t chunk, struct chunk_entry *entry)
{
	uint64_t blocks = 0, bits = 0;
	unsigned copy;

	for (unsigned i = 0; i < 8; i++)
		bits |= trees->needed[chunk][i] & (i ? UINT64_MAX : ~1ull);
	memcpy(entry->map, trees->needed[chunk], sizeof(entry->map));
	if (rmap_names(trees, chunk, entry->copy[0], &copy, &blocks)) {
		if (copy == 1 && entry->copy[1]) {
			devoff_t first = entry->copy[0];

			entry->copy[0] = entry->copy[1];
			entry->copy[1] = first;
		}
		chunk_shrink(entry, blocks);
		return;
	}
	if (bits)
		return;
	*entry = (struct chunk_entry){.generation = entry->generation};
	repair_tell(trees->repair, FSCK_NOTE, "metadata chunk %llu: empty and not in the reverse map: given up", (unsigned long long)chunk);
}

static int map_write(struct trees *trees, struct tx *tx, uint64_t chunk, bool *changed)
{
	struct chunk_entry entry = trees->forest.entries[chunk], stored;

	if (entry.state != FORMAT_CHUNK_LIVE)
		return 0;
	chunk_settle(trees, chunk, &entry);
	*changed = salvage_entry(trees->forest.journal, chunk, &stored) || entry.state != stored.state ||
		   entry.shift != stored.shift || memcmp(entry.copy, stored.copy, sizeof(entry.copy)) ||
		   memcmp(entry.map, stored.map, sizeof(entry.map));
	return *changed ? salvage_put_entry(tx, chunk, &entry) : 0;
}

static int maps_write_some(struct trees *trees, uint64_t *chunk)
{
	unsigned written = 0;
	struct tx *tx;
	int error = tx_begin(trees->forest.journal, TX_RESERVE, &tx);

	if (error)
		return error;
	while (!error && *chunk < trees->forest.chunks && written < MAPS_PER_TX) {
		bool changed = false;

		error = map_write(trees, tx, (*chunk)++, &changed);
		written += changed;
	}
	if (!error)
		error = salvage_count_chunks(tx);
	return tx_end(tx, error, NULL);
}

static int maps_write(struct trees *trees)
{
	uint64_t chunk = 0;
	int error;

	do
		error = maps_write_some(trees, &chunk);
	while (!error && chunk < trees->forest.chunks);
	return error;
}

/* --- step 3 -------------------------------------------------------------------------------------------------------------------- */

static int trees_build(struct trees *trees)
{
	int error = 0;

	for (unsigned i = 1; i < ARRAY_SIZE(trees->forest.trees) && !error; i++) {
		const struct tree_state *tree = &trees->forest.trees[i];

		if (tree_is_sound(tree))
			continue;
		error = build_tree(&trees->forest, tree);
		if (!error)
			repair_tell(trees->repair, FSCK_FIXED, "tree %s: made anew over %zu leaves", format_tree_name(tree->number),
				    tree->count_leaves);
	}
	return error;
}

/* --- chunk headers ------------------------------------------------------------------------------------------------------------- */

static int header_mend(struct repair *repair, uint64_t chunk, bool *changed)
{
	struct tx *tx;
	int error = tx_begin(repair->journal, TX_RESERVE, &tx);

	if (error)
		return error;
	error = salvage_mend_header(tx, chunk, changed);
	return tx_end(tx, error, NULL);
}

static int headers_mend(struct repair *repair)
{
	uint64_t chunks = root_get(repair->journal, ROOT_CHUNKS);
	struct chunk_entry entry;
	int error = 0;

	for (uint64_t c = 0; c < chunks && !error; c++) {
		bool changed = false;

		if (salvage_entry(repair->journal, c, &entry) || entry.state != FORMAT_CHUNK_LIVE)
			continue;
		error = header_mend(repair, c, &changed);
		if (!error && changed) {
			repair_tell(repair, FSCK_ERROR, "metadata chunk %llu: its header is not what the chunk table says",
				    (unsigned long long)c);
			repair_tell(repair, FSCK_FIXED, "metadata chunk %llu: header written anew", (unsigned long long)c);
		}
	}
	return error;
}

/* --- the phase ----------------------------------------------------------------------------------------------------------------- */

static int trees_write(struct trees *trees)
{
	int error = roots_write(trees);

	if (!error)
		error = maps_write(trees);
	if (!error)
		error = trees_build(trees);
	if (error)
		return error;
	if (trees->roots_change)
		repair_tell(trees->repair, FSCK_FIXED, "the root block says where the trees begin");
	if (trees->leaked || trees->unmarked)
		repair_tell(trees->repair, FSCK_FIXED, "the chunk table says which metadata blocks are in use");
	return 0;
}

static int trees_run(struct trees *trees, struct why *why)
{
	struct repair *repair = trees->repair;
	int error = forest_walk(&trees->forest);

	if (!error)
		error = trees_judge(trees);
	if (error)
		return error;
	if (trees_are_wrong(trees)) {
		repair->is_suspect = true;
		if (!repair_ask(repair, trees->unsound ? "Make inner nodes of the trees anew over their leaves"
						       : "Correct which metadata blocks are in use"))
			return 0;
		error = trees_write(trees);
	}
	if (!error && !journal_is_readonly(repair->journal))
		error = headers_mend(repair);
	return error;
}

int repair_trees(struct repair *repair, struct why *why)
{
	struct trees trees = {.repair = repair};
	int error = forest_init(&trees.forest, repair);

	if (!error)
		trees.needed = calloc(trees.forest.capacity, sizeof(*trees.needed));
	if (!error && !trees.needed)
		error = -ENOMEM;
	if (!error)
		error = trees_run(&trees, why);
	forest_fini(&trees.forest);
	free(trees.needed);
	if (!error || why->text[0])
		return error;
	return why_set(why, error, "%s: the trees cannot be repaired: %s", media_path(repair->media), strerror(-error));
}
