#include "btree/walk.h"

#include <errno.h>

#include "btree/path.h"

/* Where a node that was just reached begins to be interesting. */
static void step_start(struct btree_step *step, const struct btree_key *from)
{
	const struct format_node *node = step_node(step);
	bool found;

	step->index =
	    node->level > 0 ? node_search_child(node, from) : node_search(node, from, &found);
}

enum step_verdict { STEP_ENTER, STEP_SKIP, STEP_STOP };

static enum step_verdict step_judge(const struct btree_step *step, const struct btree_ops *ops,
				    const struct walk_filter *filter)
{
	const struct format_node *node = step_node(step);
	struct btree_key key;

	node_key(node, step->index, &key);
	/* In an inner node the key is a lower bound of all below it. */
	if (btree_key_compare(&key, &filter->to) > 0)
		return STEP_STOP;
	if (filter->least > 0 && node_record_aggregate(node, ops, step->index) < filter->least)
		return STEP_SKIP;
	return STEP_ENTER;
}

static int step_visit(const struct btree_step *step, btree_visit_fn *visit, void *arg)
{
	struct btree_key key;
	size_t length;
	const void *value = node_value(step_node(step), step->index, &length);

	node_key(step_node(step), step->index, &key);
	return visit(arg, &key, value, length);
}

/* Deal with what the path points at. 0 to go on, or what the visitor said or an error; *stop: there
 * is no more. */
static int path_advance(struct btree_path *path, const struct walk_filter *filter,
			btree_visit_fn *visit, void *arg, bool *stop)
{
	struct btree_step *step = path_last(path);
	int result;

	switch (step_judge(step, path->tree->ops, filter)) {
	case STEP_STOP:
		*stop = true;
		return 0;
	case STEP_SKIP:
		/* That nothing is there: whoever puts something there changes what this node says. */
		buf_rely(step->buf);
		step->index = node_find_aggregate(step_node(step), path->tree->ops, step->index + 1, filter->least);
		return 0;
	case STEP_ENTER:
		break;
	}
	if (path_at_leaf(path)) {
		result = step_visit(step, visit, arg);
		step->index++;
		return result;
	}
	result = path_down(path);
	if (result == 0)
		step_start(path_last(path), &filter->from);
	return result;
}

int btree_walk_filtered(const struct btree *tree, const struct walk_filter *filter,
			btree_visit_fn *visit, void *arg)
{
	struct btree_path path;
	bool stop = false;
	int result = path_begin(&path, tree);

	if (result < 0)
		return result == -ENOENT ? 0 : result;
	step_start(path_last(&path), &filter->from);
	while (result == 0 && !stop && path.depth > 0) {
		struct btree_step *step = path_last(&path);

		if (step->index < node_count(step_node(step))) {
			result = path_advance(&path, filter, visit, arg, &stop);
			continue;
		}
		path_up(&path);
		if (path.depth > 0)
			path_last(&path)->index++;
	}
	path_end(&path);
	return result;
}

int btree_walk(const struct btree *tree, const struct btree_key *from, const struct btree_key *to,
	       btree_visit_fn *visit, void *arg)
{
	struct walk_filter filter = {.from = *from, .to = *to};

	return btree_walk_filtered(tree, &filter, visit, arg);
}

int btree_walk_overlap(const struct btree *tree, uint64_t start, uint64_t end,
		       btree_visit_fn *visit, void *arg)
{
	struct walk_filter filter = {.to = {{end - 1, UINT64_MAX, UINT64_MAX}}, .least = start + 1};

	if (start >= end)
		return 0;
	return btree_walk_filtered(tree, &filter, visit, arg);
}
