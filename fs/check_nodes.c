/* Each tree as a tree, every block in all its copies, and which blocks are in use. */
#include "fs/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "journal/chunk.h"
#include "journal/home.h"
#include "journal/root.h"

/* --- copies at home ------------------------------------------------------------------------------------------------------------ */

const char *check_copy_fault(const struct home_copy *copy)
{
	switch (copy->state) {
	case HOME_WHOLE:
	case HOME_ABSENT:
	case HOME_KNOWN_BAD: /* the ledger has it, its repair is under way */
		break;
	case HOME_UNREADABLE:
		return "cannot be read";
	case HOME_DAMAGED:
		return copy->field;
	case HOME_OLDER:
		return "has an older sequence than the other one";
	case HOME_DIFFERS:
		return "differs from the other one";
	}
	return NULL;
}

void check_home(struct check *check, maddr_t address, const char *what)
{
	struct home home;
	int error = journal_home_check(check->fs->journal, address, &home);

	check_spend(check, CHECK_NODE_UNITS);
	if (error) /* newer in memory; or where it lies is not known, which has been told where it was looked for */
		return;
	for (unsigned k = 0; k < 2; k++)
		if (check_copy_fault(&home.copy[k]))
			check_finding(check, "metadata block %llu (%s): copy %u at device byte %llu: %s", (unsigned long long)address,
				      what, k, (unsigned long long)home.copy[k].offset, check_copy_fault(&home.copy[k]));
	if (home.differs_from_memory)
		check_finding(check, "metadata block %llu (%s): home is not what memory has", (unsigned long long)address, what);
}

/* --- blocks that trees use ------------------------------------------------------------------------------------------------------ */

#define CHUNK_WORDS (CHUNK_SLOTS / 64)

/* The word with the block's bit, made if need be; NULL: no memory. */
static uint64_t *reached_word(struct check *check, maddr_t address)
{
	uint64_t chunk = maddr_chunk(address), chunks = check->reached_chunks;
	uint64_t *grown;

	if (chunk >= chunks) {
		chunks = max_u64(chunk + 1, max_u64(root_get(check->fs->journal, ROOT_CHUNKS), 2 * chunks));
		grown = realloc(check->reached, chunks * CHUNK_WORDS * sizeof(*grown));
		if (!grown) {
			check_fail(check, -ENOMEM);
			return NULL;
		}
		memset(grown + check->reached_chunks * CHUNK_WORDS, 0,
		       (chunks - check->reached_chunks) * CHUNK_WORDS * sizeof(*grown));
		check->reached = grown;
		check->reached_chunks = chunks;
	}
	return &check->reached[chunk * CHUNK_WORDS + maddr_index(address) / 64];
}

static bool block_is_reached(const struct check *check, uint64_t chunk, unsigned index)
{
	return chunk < check->reached_chunks && (check->reached[chunk * CHUNK_WORDS + index / 64] >> index % 64 & 1);
}

struct check_tree {
	struct check *check;
	const struct btree *tree;
	const char *name;
};

/* A block that has been met for the first time. */
static void check_new_node(struct check_tree *of, maddr_t address, const char *fault)
{
	struct check *check = of->check;

	check->totals.metadata_blocks++;
	check->done++;
	if (fault)
		check_finding(check, "tree %s: block %llu: wrong %s", of->name, (unsigned long long)address, fault);
	if (!chunk_block_is_live(check->fs->journal, address))
		check_finding(check, "tree %s: block %llu is in use but marked free", of->name, (unsigned long long)address);
	check_home(check, address, of->name);
}

static int check_node(void *arg, maddr_t address, unsigned level, int error, const char *fault)
{
	struct check_tree *of = arg;
	struct check *check = of->check;
	uint64_t *word, bit = 1ull << maddr_index(address) % 64;

	(void)level;
	check_spend(check, CHECK_NODE_UNITS);
	if (error) {
		check->unreadable |= 1ull << of->tree->ops->tree;
		check_finding(check, "tree %s: block %llu cannot be read: %s", of->name, (unsigned long long)address,
			      strerror(-error));
	}
	if (maddr_is_fixed(address) || maddr_chunk(address) >= root_get(check->fs->journal, ROOT_CHUNKS))
		return check_is_due(check);
	word = reached_word(check, address);
	if (!word)
		return -ENOMEM;
	if (!(*word & bit))
		check_new_node(of, address, fault);
	*word |= bit;
	return check_is_due(check) || check_is_over(check);
}

static void check_tree(struct check *check, const struct btree *tree)
{
	struct check_tree of = {.check = check, .tree = tree, .name = format_tree_name(tree->ops->tree)};
	struct btree_key from = {{0}};
	bool ended = false;

	while (!ended && !check_is_over(check)) {
		int error = btree_check_nodes(tree, &from, &ended, check_node, &of);

		if (error)
			check_fail(check, error);
		else if (check_is_due(check))
			check_pause(check);
	}
}

void check_nodes(struct check *check)
{
	const struct btree *trees[FS_TREES_MAX];
	struct btree copy;
	unsigned count = fs_all_trees(check->fs, &copy, trees);

	check_begin_phase(check, "metadata",
			  root_get(check->fs->journal, ROOT_META_BLOCKS) - root_get(check->fs->journal, ROOT_META_FREE));
	for (unsigned i = 0; i < count && !check_is_over(check); i++)
		check_tree(check, trees[i]);
}

/* --- blocks in use that no tree uses --------------------------------------------------------------------------------------------- */

static const struct btree *tree_of_node(const struct btree **trees, unsigned count, unsigned id)
{
	for (unsigned i = 0; i < count; i++)
		if (trees[i]->ops->tree == id)
			return trees[i];
	return NULL;
}

/* Go down by the node's own first key: that way leads to it if any does. What cannot be read on that way has been told and proves nothing. */
static bool node_is_in_tree(const struct btree *tree, const struct buf *buf)
{
	const struct format_node *node = (const struct format_node *)buf->data;
	struct btree_path path;
	struct btree_key key;
	const char *field;
	bool found;
	int error;

	if (node_verify(node, tree->ops, &field))
		return false;
	error = path_begin(&path, tree);
	if (error)
		return error != -ENOENT;
	node_key(node, 0, &key);
	found = path_last(&path)->buf->address == buf->address;
	while (!found && !path_at_leaf(&path)) {
		path_last(&path)->index = node_search_child(step_node(path_last(&path)), &key);
		found = path_down(&path) != 0 || path_last(&path)->buf->address == buf->address;
	}
	path_end(&path);
	return found;
}

static bool block_is_used(struct check *check, maddr_t address)
{
	const struct btree *trees[FS_TREES_MAX], *tree;
	const struct format_block_header *header;
	struct btree copy;
	struct buf *buf;
	unsigned count = fs_all_trees(check->fs, &copy, trees);
	bool is_used;

	if (buf_get_any(check->fs->journal, address, &buf))
		return check->unreadable != 0; /* perhaps below a node that cannot be read */
	header = (const struct format_block_header *)buf->data;
	tree = header->role == FORMAT_ROLE_NODE ? tree_of_node(trees, count, header->tree) : NULL;
	is_used = tree && node_is_in_tree(tree, buf);
	buf_put(buf);
	return is_used;
}

/* It was not met on the way through the trees: is it new, or does nobody have it? */
static void check_unreached(struct check *check, maddr_t address)
{
	check_spend(check, 4 * CHECK_NODE_UNITS);
	if (!block_is_used(check, address))
		check_finding(check, "metadata block %llu: marked as in use, but no tree has it", (unsigned long long)address);
}

static void check_chunk_leaks(struct check *check, uint64_t chunk)
{
	struct chunk_entry entry;
	unsigned index = 1; /* block 0 is the chunk's header */

	while (!check_is_over(check) && !chunk_entry(check->fs->journal, chunk, &entry)) {
		for (; index < chunk_blocks(entry.shift) && !check_is_due(check); index++)
			if ((entry.map[index / 64] >> index % 64 & 1) && !block_is_reached(check, chunk, index))
				check_unreached(check, maddr_of_chunk(chunk, index));
		if (index >= chunk_blocks(entry.shift))
			return;
		check_pause(check);
	}
}

void check_leaks(struct check *check)
{
	for (uint64_t chunk = 0; chunk < root_get(check->fs->journal, ROOT_CHUNKS) && !check_is_over(check); chunk++) {
		check_spend(check, 4);
		check_chunk_leaks(check, chunk);
		if (check_is_due(check))
			check_pause(check);
	}
}
