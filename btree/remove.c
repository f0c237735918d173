#include "btree/modify.h"

#include <errno.h>

#include "journal/root.h"

/* Siblings are merged when they leave this much free, and looked at only by a node that is below
 * half of it; where what they have is most often changed by different threads, when they leave more. */
#define MERGE_BYTES (NODE_SPACE_BYTES * 3 / 4)
#define MERGE_UNITS_BYTES (NODE_SPACE_BYTES / 4)

static int step_destroy(struct tx *tx, struct btree_path *path)
{
	struct buf *buf = path_last(path)->buf;

	path->depth--;
	return buf_destroy(tx, buf);
}

/* May these two go into one? Not again at once what was cut because threads met there. */
static bool nodes_fit(const struct btree *tree, const struct format_node *a, const struct format_node *b)
{
	size_t bytes = node_used_bytes(a) + node_used_bytes(b);
	struct btree_key key;

	node_key(a, 0, &key);
	return bytes <= (!tree->ops->unit || unit_is_same(tree, b, 0, &key) ? MERGE_BYTES : MERGE_UNITS_BYTES);
}

/* The node at this slot of the parent, if it and the last step's node go into one; else NULL. */
static struct buf *sibling_find(struct btree_path *path, unsigned index)
{
	const struct btree_step *step = path_last(path);
	struct btree_step sibling;

	/* One that cannot be read is no reason to fail: deleting next to what is lost must work. */
	if (path_open_child(path, step - 1, index, &sibling) < 0)
		return NULL;
	if (nodes_fit(path->tree, step_node(step), step_node(&sibling)))
		return sibling.buf;
	buf_put(sibling.buf);
	return NULL;
}

/* Move all of `right` into `left`, whose slot in the parent then speaks for both; leave the
 * parent's index on the slot to remove. */
static int siblings_merge(struct tx *tx, struct btree_path *path, unsigned left_index,
			  struct buf *left, struct buf *right)
{
	struct btree_step *parent = path_last(path) - 1;
	struct format_node *node;
	int error = tx_join(tx, left);

	if (error == 0)
		error = tx_join(tx, right);
	if (error == 0)
		error = tx_join(tx, parent->buf);
	if (error < 0)
		return error;
	node = (struct format_node *)left->data;
	node_move_tail((struct format_node *)right->data, 0, node);
	node_set_aggregate(step_node(parent), left_index, btree_node_aggregate(path->tree, node));
	parent->index = left_index + 1;
	return 0;
}

/* Merge the last step's node with a sibling if that is worth while: 1, and the path ends at the
 * parent, at the slot to remove. */
static int path_merge(struct tx *tx, struct btree_path *path)
{
	struct btree_step *step = path_last(path), *parent = step - 1;
	unsigned index = parent->index;
	struct buf *own = step->buf, *other = NULL;
	bool other_is_left = false;
	int error;

	if (node_used_bytes(step_node(step)) > MERGE_BYTES / 2)
		return 0;
	if (index > 0) {
		other = sibling_find(path, index - 1);
		other_is_left = other != NULL;
	}
	if (!other && index + 1 < node_count(step_node(parent)))
		other = sibling_find(path, index + 1);
	if (!other)
		return 0;
	error = other_is_left ? siblings_merge(tx, path, index - 1, other, own)
			      : siblings_merge(tx, path, index, own, other);
	path->depth--;
	buf_put(other_is_left ? other : own);
	if (error < 0) {
		buf_put(other_is_left ? own : other);
		return error;
	}
	error = buf_destroy(tx, other_is_left ? own : other);
	return error < 0 ? error : 1;
}

/* While the root has one child only, that child is the root. */
static int root_collapse(struct tx *tx, struct btree_path *path)
{
	const struct btree *tree = path->tree;
	struct buf *root = path->step[0].buf;

	while (((struct format_node *)root->data)->level > 0 &&
	       node_count((struct format_node *)root->data) == 1) {
		unsigned level = ((struct format_node *)root->data)->level - 1u;
		struct node_child child;
		struct buf *next;
		int error;

		node_child((struct format_node *)root->data, 0, &child);
		/* One that cannot be read keeps its old root above it. */
		if (btree_node_get(tree, root, child.address, level, &next) < 0)
			return 0;
		error = root_tree_set(tx, tree->ops->tree, child.address, level);
		path->step[0].buf = next;
		if (error < 0) {
			buf_put(root);
			return error;
		}
		error = buf_destroy(tx, root);
		if (error < 0)
			return error;
		root = next;
	}
	return 0;
}

/* Remove what the last step points at, and the nodes that this leaves empty. */
static int path_remove(struct tx *tx, struct btree_path *path)
{
	for (;;) {
		struct btree_step *step = path_last(path);
		struct format_node *node;
		int error = tx_join(tx, step->buf);

		if (error < 0)
			return error;
		node = step_node(step);
		node_remove(node, step->index);
		if (node_count(node) == 0 && path->depth == 1) {
			error = root_tree_set(tx, path->tree->ops->tree, 0, 0);
			return error < 0 ? error : step_destroy(tx, path);
		}
		if (node_count(node) > 0) {
			error = path->depth > 1 ? path_merge(tx, path) : 0;
			if (error <= 0)
				return error < 0 ? error
						 : aggregate_settle(tx, path, path->depth - 1);
			continue;
		}
		error = step_destroy(tx, path);
		if (error < 0)
			return error;
	}
}

int btree_remove(const struct btree *tree, struct tx *tx, const struct btree_key *key)
{
	struct btree_path path;
	bool found;
	int error = path_seek_change(tx, &path, tree, key, &found);

	if (error < 0)
		return error;
	error = found ? path_remove(tx, &path) : -ENOENT;
	if (error == 0 && path.depth > 0)
		error = root_collapse(tx, &path);
	path_end(&path);
	return error;
}
