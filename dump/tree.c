/*
 * A walk that goes on behind what cannot be read. Each block is met once at most, whatever the bytes say, so it ends.
 */
#include "dump/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct walk {
	struct dump *dump;
	const struct dump_walk *request;
	struct btree_ops ops;
	struct iset met;
};

static int walk_broken(struct walk *walk, const struct dump_block *block, int error, const char *what)
{
	return walk->request->broken ? walk->request->broken(walk->request->arg, block, error, what) : 0;
}

/* NULL: it is the node that its parent promised. */
static const char *node_fault(struct walk *walk, const struct dump_block *block, unsigned level)
{
	const struct format_node *node = (const struct format_node *)block->bytes;
	const char *field = NULL;

	if (node->header.role != FORMAT_ROLE_NODE || node->header.tree != walk->ops.tree)
		return "another tree's block";
	if (node->level != level)
		return "another level than its place in the tree has";
	return node_verify(node, &walk->ops, &field) ? field : NULL;
}

static int walk_node(struct walk *walk, maddr_t address, unsigned level);

static int walk_leaf(struct walk *walk, const struct dump_block *block)
{
	const struct format_node *node = (const struct format_node *)block->bytes;
	int error = 0;

	for (unsigned i = 0; i < node_count(node) && !error; i++) {
		struct btree_key key;
		size_t length;
		const void *value = node_value(node, i, &length);

		node_key(node, i, &key);
		if (btree_key_compare(&key, &walk->request->from) >= 0 && btree_key_compare(&key, &walk->request->to) <= 0)
			error = walk->request->visit(walk->request->arg, block->address, &key, value, length);
	}
	return error;
}

/* A child may hold keys from its own on (the first one: from below) up to the next one's. */
static int walk_children(struct walk *walk, const struct dump_block *block)
{
	const struct format_node *node = (const struct format_node *)block->bytes;
	int error = 0;

	for (unsigned i = 0; i < node_count(node) && !error; i++) {
		struct node_child child;
		struct btree_key key;

		if (i + 1 < node_count(node)) {
			node_key(node, i + 1, &key);
			if (btree_key_compare(&key, &walk->request->from) <= 0)
				continue;
		}
		node_key(node, i, &key);
		if (i && btree_key_compare(&key, &walk->request->to) > 0)
			break;
		node_child(node, i, &child);
		error = walk_node(walk, child.address, node->level - 1u);
	}
	return error;
}

static int walk_node(struct walk *walk, maddr_t address, unsigned level)
{
	struct dump_block *block = malloc(sizeof(*block) + LINE_BYTES); /* not on the stack: one for each level */
	struct dump_block *at = (struct dump_block *)round_up_u64((uintptr_t)block, LINE_BYTES);
	const char *fault;
	int error;

	if (!block)
		return -ENOMEM;
	if (address == UINT64_MAX || iset_overlaps(&walk->met, address, address + 1)) {
		memset(at, 0, sizeof(*at));
		at->address = address;
		error = walk_broken(walk, at, -EUCLEAN, "a block that the tree has already");
		goto done;
	}
	error = iset_add(&walk->met, address, address + 1, 0);
	if (error)
		goto done;
	error = dump_read_block(walk->dump, address, at);
	fault = error ? "no whole copy" : node_fault(walk, at, level);
	if (fault)
		error = walk_broken(walk, at, error ? error : -EUCLEAN, fault);
	else
		error = level ? walk_children(walk, at) : walk_leaf(walk, at);
done:
	free(block);
	return error;
}

int dump_walk(struct dump *dump, const struct dump_walk *request)
{
	struct walk walk = {.dump = dump, .request = request, .ops = {.tree = request->tree, .key_words = dump_key_words(request->tree)}};
	struct dump_block root;
	const struct format_root *trees = (const struct format_root *)root.bytes;
	int error = dump_read_block(dump, MADDR_ROOT, &root);

	if (!error && trees->header.role != FORMAT_ROLE_ROOT)
		error = -EUCLEAN;
	iset_init(&walk.met);
	if (error)
		error = walk_broken(&walk, &root, error, "the root block");
	else if (le64_get(trees->trees[request->tree].address))
		error = walk_node(&walk, le64_get(trees->trees[request->tree].address), trees->trees[request->tree].level);
	iset_fini(&walk.met);
	return error;
}

/* --- mendctl dump SRC tree NAME ------------------------------------------------------------------------------------------------ */

struct tree_show {
	const struct dump_request *request;
	unsigned tree;
	uint64_t count;
};

static int show_record(void *arg, maddr_t address, const struct btree_key *key, const void *value, size_t length)
{
	struct tree_show *show = arg;
	int error = element_emit(show->request, dump_render_record(show->tree, 0, key, value, length, show->request->raw));

	show->count++;
	return error ? error : show->request->limit && show->count >= show->request->limit;
}

static int show_broken(void *arg, const struct dump_block *block, int error, const char *what)
{
	struct tree_show *show = arg;
	struct json_object *element = element_make("missing_node");

	if (!element)
		return -ENOMEM;
	json_add_u64(element, "address", block->address);
	json_add_text(element, "wrong", what);
	element_copies(element, block);
	return element_emit(show->request, element);
}

int dump_tree(struct dump *dump, const struct dump_request *request, struct why *why)
{
	int tree = dump_tree_parse(request->name), error;
	struct tree_show show = {.request = request, .tree = (unsigned)tree};
	struct dump_walk walk = {
		.tree = (unsigned)tree,
		.from = request->from,
		.to = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}},
		.visit = show_record,
		.broken = show_broken,
		.arg = &show,
	};

	if (tree < 0)
		return why_set(why, -EINVAL,
			       "there is no tree %s: they are inodes, dirents, parents, extents, xattrs, rmap, free, badblocks, lost, damaged, "
			       "orphans, intents and ledger_copy",
			       request->name);
	error = dump_walk(dump, &walk);
	return error < 0 ? error : 0;
}
