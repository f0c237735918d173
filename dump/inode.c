/* Everything that the trees have under one inode number. */
#include "dump/internal.h"

#include <errno.h>
#include <string.h>

struct inode_show {
	struct dump *dump;
	const struct dump_request *request;
	unsigned tree;
	uint64_t count;
};

/* The name behind a record of parents: one level of nesting, so that "inode N" says what its names are. */
struct name_find {
	struct dirent_record record;
	bool found;
};

static int name_take(void *arg, maddr_t address, const struct btree_key *key, const void *value, size_t length)
{
	struct name_find *find = arg;

	find->found = !format_dirent_unpack(&find->record, value, length);
	return 1;
}

static void add_name(struct inode_show *show, struct json_object *element, const struct btree_key *parent)
{
	struct name_find find = {.found = false};
	struct btree_key key = {{parent->word[1], parent->word[2]}};
	struct dump_walk walk = {.tree = FORMAT_TREE_DIRENTS, .from = key, .to = key, .visit = name_take, .arg = &find};

	dump_walk(show->dump, &walk);
	json_object_object_del(element, "name");
	if (find.found && find.record.ino == parent->word[0])
		element_bytes(element, "name", find.record.name, find.record.name_length);
	else
		json_add_text(element, "wrong", "the directory has no such entry");
}

static int show_record(void *arg, maddr_t address, const struct btree_key *key, const void *value, size_t length)
{
	struct inode_show *show = arg;
	struct json_object *element = dump_render_record(show->tree, 0, key, value, length, show->request->raw);

	show->count++;
	if (element && show->tree == FORMAT_TREE_PARENTS)
		add_name(show, element, key);
	return element_emit(show->request, element);
}

static int show_broken(void *arg, const struct dump_block *block, int error, const char *what)
{
	struct inode_show *show = arg;
	struct json_object *element = element_make("missing_node");

	if (!element)
		return -ENOMEM;
	json_add_text(element, "tree", format_tree_name(show->tree));
	json_add_u64(element, "address", block->address);
	json_add_text(element, "wrong", what);
	return element_emit(show->request, element);
}

int dump_inode(struct dump *dump, const struct dump_request *request, struct why *why)
{
	static const unsigned trees[] = {FORMAT_TREE_INODES,  FORMAT_TREE_PARENTS, FORMAT_TREE_EXTENTS, FORMAT_TREE_XATTRS,
					 FORMAT_TREE_DAMAGED, FORMAT_TREE_ORPHANS, FORMAT_TREE_DIRENTS};
	struct inode_show show = {.dump = dump, .request = request};
	int error = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(trees) && !error; i++) {
		struct dump_walk walk = {
			.tree = trees[i],
			.from = {{request->number}},
			.to = {{request->number, UINT64_MAX, UINT64_MAX}},
			.visit = show_record,
			.broken = show_broken,
			.arg = &show,
		};

		show.tree = trees[i];
		error = dump_walk(dump, &walk);
	}
	if (!error && !show.count)
		return why_set(why, -ENOENT, "no tree knows of inode %llu", (unsigned long long)request->number);
	return error;
}
