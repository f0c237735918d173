#include "fs/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "journal/chunk.h"
#include "journal/root.h"
#include "notify/ledger_copy.h"

void check_finding(struct check *check, const char *format, ...)
{
	char line[512];
	va_list list;

	va_start(list, format);
	vsnprintf(line, sizeof(line), format, list);
	va_end(list);
	check->totals.findings++;
	if (check->tell)
		check->tell(check->arg, line);
}

void check_unreadable(struct check *check, const char *what, int error)
{
	check_finding(check, "%s: cannot be read: %s", what, strerror(-error));
}

int check_load_inode(struct check *check, inum_t ino, struct inode_record *out)
{
	struct btree_key key = {{ino}};
	struct btree_record found;
	int error = btree_lookup(&check->fs->inodes, &key, &found);

	return error ? error : format_inode_unpack(out, found.value, found.length);
}

void check_compare_counter(struct check *check, const char *name, uint64_t stored, uint64_t counted)
{
	if (stored != counted)
		check_finding(check, "counter of %s: stored %llu, counted %llu", name, (unsigned long long)stored,
			      (unsigned long long)counted);
}

/* --- the trees themselves ----------------------------------------------------------------------------------------------------- */

struct check_nodes {
	struct check *check;
	const char *name;
};

static int check_node(void *arg, maddr_t address, unsigned level, int error)
{
	struct check_nodes *nodes = arg;
	struct check *check = nodes->check;

	check->nodes++;
	if (error)
		check_finding(check, "tree %s: block %llu cannot be read: %s", nodes->name,
			      (unsigned long long)address, strerror(-error));
	if (!chunk_block_is_live(check->fs->journal, address))
		check_finding(check, "tree %s: block %llu is in use but marked free", nodes->name,
			      (unsigned long long)address);
	return 0;
}

static void check_tree_nodes(struct check *check, const struct btree *tree)
{
	struct check_nodes nodes = {.check = check, .name = format_tree_name(tree->ops->tree)};
	int error = btree_walk_nodes(tree, check_node, &nodes);

	if (error)
		check_unreadable(check, nodes.name, error);
}

static void check_tree(struct check *check, const struct btree *tree, uint64_t *records)
{
	int error = btree_check(tree, records);

	if (error)
		check_finding(check, "tree %s: its structure is damaged: %s", format_tree_name(tree->ops->tree),
			      strerror(-error));
	check_tree_nodes(check, tree);
}

/* The ledger's trees belong to notify/: only their blocks are counted here. */
static void check_ledger_nodes(struct check *check)
{
	static const struct btree_ops badblocks_nodes = {.tree = FORMAT_TREE_BADBLOCKS, .key_words = 1};
	static const struct btree_ops lost_nodes = {.tree = FORMAT_TREE_LOST, .key_words = 1};
	struct btree tree;

	btree_init(&tree, check->fs->journal, &badblocks_nodes);
	check_tree_nodes(check, &tree);
	btree_init(&tree, check->fs->journal, &lost_nodes);
	check_tree_nodes(check, &tree);
	btree_init(&tree, check->fs->journal, &ledger_copy_ops);
	check_tree_nodes(check, &tree);
}

static void check_trees(struct check *check)
{
	struct fs *fs = check->fs;
	uint64_t intents = 0, ignored = 0;

	check_tree(check, &fs->inodes, &check->totals.inodes);
	check_tree(check, &fs->dirents, &check->count_dirents);
	check_tree(check, &fs->parents, &check->count_parents);
	check_tree(check, &fs->extents, &check->totals.extents);
	check_tree(check, &fs->xattrs, &ignored);
	check_tree(check, &fs->damaged, &ignored);
	check_tree(check, &fs->orphans, &check->count_orphans);
	check_tree(check, &fs->intents, &intents);
	check_tree(check, &fs->rmap.tree, &check->totals.rmap_records);
	check_tree(check, alloc_tree(fs->alloc), &ignored);
	check_ledger_nodes(check);
	check_compare_counter(check, "intents", root_get(fs->journal, ROOT_INTENTS), intents);
	check_compare_counter(check, "orphans", root_get(fs->journal, ROOT_ORPHANS), check->count_orphans);
	check_compare_counter(check, "inodes", root_get(fs->journal, ROOT_INODES), check->totals.inodes);
}

int fs_check(struct fs *fs, fs_check_fn *tell, void *arg, struct fs_check_totals *out)
{
	struct check check = {.fs = fs, .tell = tell, .arg = arg};

	journal_read_begin(fs->journal);
	check_trees(&check);
	check_names(&check);
	check_space(&check);
	journal_read_end(fs->journal);
	*out = check.totals;
	return 0;
}
