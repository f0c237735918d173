#include "btree/path.h"

#include <errno.h>

#include "journal/root.h"
#include "util/log.h"

/* What buf->verified says of a node. A bad one is remembered, so that it is reported once. */
enum node_state { NODE_UNREAD = 0, NODE_WHOLE = 1, NODE_BAD = 2 };

static enum node_state node_examine(const struct btree *tree, struct buf *buf)
{
	const char *field;
	enum node_state state = NODE_WHOLE;

	if (node_verify((const struct format_node *)buf->data, tree->ops, &field) < 0) {
		log_error("%s tree: node %#llx is damaged: %s", format_tree_name(tree->ops->tree),
			  (unsigned long long)buf->address, field);
		state = NODE_BAD;
	}
	/* Two readers may do this at once; both find the same. */
	__atomic_store_n(&buf->verified, (uint32_t)state, __ATOMIC_RELAXED);
	return state;
}

int btree_node_get(const struct btree *tree, maddr_t address, unsigned level, struct buf **out)
{
	enum node_state state;
	struct buf *buf;
	int error = buf_get(tree->journal, address, FORMAT_ROLE_NODE, tree->ops->tree, &buf);

	if (error < 0)
		return error;
	state = (enum node_state)__atomic_load_n(&buf->verified, __ATOMIC_RELAXED);
	if (state == NODE_UNREAD)
		state = node_examine(tree, buf);
	if (state == NODE_WHOLE && ((struct format_node *)buf->data)->level != level) {
		log_error("%s tree: node %#llx has level %u, not %u",
			  format_tree_name(tree->ops->tree), (unsigned long long)address,
			  ((struct format_node *)buf->data)->level, level);
		state = NODE_BAD;
	}
	if (state != NODE_WHOLE) {
		buf_put(buf);
		return -EUCLEAN;
	}
	*out = buf;
	return 0;
}

int btree_node_create(const struct btree *tree, struct tx *tx, unsigned level, struct buf **out)
{
	int error = buf_create(tx, FORMAT_ROLE_NODE, tree->ops->tree, out);

	if (error < 0)
		return error;
	node_init((struct format_node *)(*out)->data, level, tree->ops->key_words);
	(*out)->verified = NODE_WHOLE;
	return 0;
}

int path_begin(struct btree_path *path, const struct btree *tree)
{
	struct btree_step *step = &path->step[0];
	maddr_t address;
	unsigned level;
	int error;

	path->tree = tree;
	path->depth = 0;
	root_tree_get(tree->journal, tree->ops->tree, &address, &level);
	if (address == 0)
		return -ENOENT;
	if (level >= NODE_LEVELS_MAX)
		return -EUCLEAN;
	error = btree_node_get(tree, address, level, &step->buf);
	if (error < 0)
		return error;
	step->index = 0;
	step->bounded = false;
	path->depth = 1;
	return 0;
}

/* Do the child's keys lie where its parent says? Only then is every node reached by one way. */
static int step_check_bounds(const struct btree_step *parent, const struct btree_step *child)
{
	const struct format_node *node = step_node(child);
	struct btree_key lower, first, last;

	node_key(step_node(parent), parent->index, &lower);
	node_key(node, 0, &first);
	node_key(node, node_count(node) - 1, &last);
	if (btree_key_compare(&first, &lower) >= 0 &&
	    (!child->bounded || btree_key_compare(&last, &child->upper) < 0))
		return 0;
	log_error("node %#llx: keys out of the bounds that its parent %#llx gives",
		  (unsigned long long)child->buf->address,
		  (unsigned long long)parent->buf->address);
	return -EUCLEAN;
}

maddr_t path_child(const struct btree_path *path)
{
	const struct btree_step *parent = &path->step[path->depth - 1];
	struct node_child child;

	node_child(step_node(parent), parent->index, &child);
	return child.address;
}

int path_down(struct btree_path *path)
{
	struct btree_step *parent = path_last(path), *step = parent + 1;
	const struct format_node *node = step_node(parent);
	int error = btree_node_get(path->tree, path_child(path), node->level - 1u, &step->buf);

	if (error < 0)
		return error;
	step->index = 0;
	step->bounded = parent->index + 1 < node_count(node) || parent->bounded;
	if (parent->index + 1 < node_count(node))
		node_key(node, parent->index + 1, &step->upper);
	else if (parent->bounded)
		step->upper = parent->upper;
	error = step_check_bounds(parent, step);
	if (error < 0) {
		buf_put(step->buf);
		return error;
	}
	path->depth++;
	return 0;
}

void path_up(struct btree_path *path)
{
	buf_put(path_last(path)->buf);
	path->depth--;
}

void path_end(struct btree_path *path)
{
	while (path->depth > 0)
		path_up(path);
}

int path_seek(struct btree_path *path, const struct btree *tree, const struct btree_key *key,
	      bool *found)
{
	struct btree_step *step;
	int error = path_begin(path, tree);

	if (error < 0)
		return error;
	while (!path_at_leaf(path)) {
		step = path_last(path);
		step->index = node_search_child(step_node(step), key);
		error = path_down(path);
		if (error < 0) {
			path_end(path);
			return error;
		}
	}
	step = path_last(path);
	step->index = node_search(step_node(step), key, found);
	return 0;
}
