#include "tests/destroy/target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "btree/node.h"
#include "fs/inode.h"
#include "journal/chunk.h"
#include "journal/root.h"
#include "notify/ledger_copy.h"

static struct target *add(struct targets *targets, const char *name)
{
	if (targets->count == targets->capacity) {
		targets->capacity = targets->capacity ? 2 * targets->capacity : 256;
		targets->list = realloc(targets->list, targets->capacity * sizeof(*targets->list));
		if (!targets->list)
			abort();
	}
	targets->list[targets->count] = (struct target){.name = name};
	return &targets->list[targets->count++];
}

/* --- fixed areas --------------------------------------------------------------------------------------------------------------- */

static void add_area(struct targets *targets, const char *name, const struct area *area, uint64_t count_blocks)
{
	for (uint64_t i = 0; i < count_blocks; i++) {
		struct target *target = add(targets, name);

		target->count_copies = 2;
		target->copy[0] = area->copy[0] + i * BLOCK_BYTES;
		target->copy[1] = area->copy[1] + i * BLOCK_BYTES;
	}
}

static void add_fixed(struct fs *fs, struct targets *targets)
{
	const struct super *super = fs_super(fs);
	struct target *target = add(targets, "super");

	target->is_super = true;
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
		if (super->slots >> slot & 1 && super_slot_offset(slot) < super->size_bytes)
			target->copy[target->count_copies++] = super_slot_offset(slot);
	add_area(targets, "journal_head", &super->areas[AREA_JOURNAL], 1);
	add_area(targets, "poison_log", &super->areas[AREA_POISON_LOG], POISON_LOG_BYTES / BLOCK_BYTES);
}

static struct target *add_block(struct fs *fs, struct targets *targets, const char *name, maddr_t address)
{
	struct target *target = add(targets, name);

	target->address = address;
	if (chunk_map(fs->journal, address, target->copy))
		abort();
	target->count_copies = target->copy[1] ? 2 : 1;
	return target;
}

static void add_structure(struct fs *fs, struct targets *targets)
{
	uint64_t chunks = root_get(fs->journal, ROOT_CHUNKS);
	struct chunk_entry entry;

	add_block(fs, targets, "root", MADDR_ROOT);
	for (uint64_t i = 0; i * CHUNK_ENTRIES_PER_BLOCK < chunks; i++)
		add_block(fs, targets, "table", MADDR_TABLE + i);
	for (uint64_t chunk = 0; chunk < chunks; chunk++)
		if (!chunk_entry(fs->journal, chunk, &entry))
			add_block(fs, targets, "chunk_header", maddr_of_chunk(chunk, 0));
}

/* --- trees --------------------------------------------------------------------------------------------------------------------- */

struct find {
	struct fs *fs;
	struct targets *targets;
	unsigned tree;
};

/* Where the range of this record ends; 0 where it has none. */
static uint64_t record_end(unsigned tree, const struct btree_key *key, const void *value, size_t length)
{
	struct extent extent;
	uint64_t count;
	uint8_t flags;

	if (tree == FORMAT_TREE_EXTENTS && !format_extent_unpack(&extent, value, length))
		return key->word[1] + extent.count_blocks;
	if (tree == FORMAT_TREE_RMAP && !format_rmap_unpack(&count, &flags, value, length))
		return key->word[2] + count;
	return 0;
}

static void take_records(struct target *target, const struct format_node *node)
{
	target->count_keys = node_count(node);
	target->keys = calloc(target->count_keys + 1, sizeof(*target->keys));
	target->ends = calloc(target->count_keys + 1, sizeof(*target->ends));
	if (!target->keys || !target->ends)
		abort();
	for (unsigned i = 0; i < target->count_keys; i++) {
		size_t length;
		const void *value = node_value(node, i, &length);

		node_key(node, i, &target->keys[i]);
		target->ends[i] = record_end(target->tree, &target->keys[i], value, length);
	}
}

static int take_node(void *arg, maddr_t address, unsigned level, int error)
{
	struct find *find = arg;
	struct target *target;
	struct buf *buf;

	if (error || buf_get_any(find->fs->journal, address, &buf))
		return -EIO;
	target = add_block(find->fs, find->targets, format_tree_name(find->tree), address);
	target->tree = find->tree;
	target->level = level;
	if (!level)
		take_records(target, (const struct format_node *)buf->data);
	buf_put(buf);
	return 0;
}

static int add_tree(struct fs *fs, struct targets *targets, const struct btree *tree)
{
	struct find find = {.fs = fs, .targets = targets, .tree = tree->ops->tree};

	return btree_walk_nodes(tree, take_node, &find);
}

static int add_trees(struct fs *fs, struct targets *targets)
{
	static const struct btree_ops badblocks = {.tree = FORMAT_TREE_BADBLOCKS, .key_words = 1};
	static const struct btree_ops lost = {.tree = FORMAT_TREE_LOST, .key_words = 1};
	const struct btree_ops *ledger[] = {&badblocks, &lost, &ledger_copy_ops};
	const struct btree *trees[] = {&fs->inodes,  &fs->dirents, &fs->parents, &fs->extents, &fs->xattrs,
				       &fs->damaged, &fs->orphans, &fs->intents, &fs->rmap.tree, alloc_tree(fs->alloc)};
	int error = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(trees) && !error; i++)
		error = add_tree(fs, targets, trees[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(ledger) && !error; i++) {
		struct btree tree;

		btree_init(&tree, fs->journal, ledger[i]);
		error = add_tree(fs, targets, &tree);
	}
	return error;
}

int targets_find(struct fs *fs, struct targets *out)
{
	int error;

	memset(out, 0, sizeof(*out));
	journal_read_begin(fs->journal);
	add_fixed(fs, out);
	add_structure(fs, out);
	error = add_trees(fs, out);
	journal_read_end(fs->journal);
	return error;
}

void targets_fini(struct targets *targets)
{
	for (size_t i = 0; i < targets->count; i++) {
		free(targets->list[i].keys);
		free(targets->list[i].ends);
	}
	free(targets->list);
}
