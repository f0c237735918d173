/* What inner nodes say of the nodes below them, without a look at those. */
#include <errno.h>

#include "btree/path.h"
#include "journal/root.h"

struct children_walk {
	struct btree_path path;
	btree_child_fn *visit;
	void *arg;
};

/* Of the one that the path points at. */
static int children_tell(const struct children_walk *walk)
{
	const struct btree_step *step = &walk->path.step[walk->path.depth - 1];
	const struct format_node *node = step_node(step);
	struct btree_child child = {
	    .address = path_child(&walk->path), .level = node->level - 1u, .is_bounded = step->bounded};

	node_key(node, step->index, &child.from);
	if (step->bounded)
		child.end = step->upper;
	if (step->index + 1 < node_count(node)) {
		child.is_bounded = true;
		node_key(node, step->index + 1, &child.end);
	}
	return walk->visit(walk->arg, &child);
}

/* Tell of it, then go down to it unless it is a leaf; past it, if it cannot be had. */
static int children_next(struct children_walk *walk)
{
	struct btree_step *step = path_last(&walk->path);
	const bool has_leaves = step_node(step)->level == 1;
	int result = children_tell(walk), error;

	if (result)
		return result;
	error = has_leaves ? 0 : path_down(&walk->path);
	if (error == -ENOMEM)
		return error;
	if (has_leaves || error)
		step->index++;
	return 0;
}

/* The root, whose parent is the root block. -ENOENT: nothing is below it. */
static int children_begin(struct children_walk *walk, const struct btree *tree)
{
	struct btree_child root = {.is_bounded = false};
	int result;

	root_tree_get(tree->journal, tree->ops->tree, &root.address, &root.level);
	if (root.address == 0)
		return -ENOENT;
	result = walk->visit(walk->arg, &root);
	if (result == 0 && root.level == 0)
		result = -ENOENT;
	if (result)
		return result;
	result = path_begin(&walk->path, tree);
	return result == 0 || result == -ENOMEM ? result : -ENOENT;
}

/* To the lowest inner node where `from` belongs, or as far down as can be read. */
static int children_seek(struct children_walk *walk, const struct btree_key *from)
{
	for (;;) {
		struct btree_step *step = path_last(&walk->path);
		const unsigned depth = walk->path.depth;
		int result;

		step->index = node_search_child(step_node(step), from);
		if (step_node(step)->level == 1)
			return 0;
		result = children_next(walk);
		if (result || walk->path.depth == depth)
			return result;
	}
}

/* Up from a node that is done; *from follows. */
static void children_up(struct children_walk *walk, struct btree_key *from, bool *ended)
{
	const struct btree_step *step = path_last(&walk->path);

	*ended = !step->bounded;
	if (step->bounded)
		*from = step->upper;
	path_up(&walk->path);
	if (walk->path.depth > 0)
		path_last(&walk->path)->index++;
}

int btree_walk_children(const struct btree *tree, struct btree_key *from, unsigned limit, bool *ended, btree_child_fn *visit, void *arg)
{
	struct children_walk walk = {.visit = visit, .arg = arg};
	int result = children_begin(&walk, tree);

	*ended = true;
	if (result)
		return result == -ENOENT ? 0 : result;
	result = children_seek(&walk, from);
	while (result == 0 && walk.path.depth > 0) {
		const struct btree_step *step = path_last(&walk.path);

		if (step->index < node_count(step_node(step))) {
			result = children_next(&walk);
			continue;
		}
		children_up(&walk, from, ended);
		if (!*ended && --limit == 0)
			break;
	}
	path_end(&walk.path);
	return result;
}
