#include "btree/path.h"

#include <errno.h>

#include "format/super_format.h"
#include "journal/root.h"
#include "util/log.h"

/* What buf->verified says of a node. What is wrong is remembered, so that it is reported once. */
enum node_state {
	NODE_WHOLE = 1,
	NODE_BAD = 2,
	NODE_CHILD_REPORTED = 4, /* one of its children is not what it says */
};

static uint32_t node_examine(const struct btree *tree, struct buf *buf)
{
	const char *field;
	uint32_t state = NODE_WHOLE;

	if (node_verify((const struct format_node *)buf->data, tree->ops, &field) < 0) {
		if (buf_is_tentative(buf))
			return NODE_BAD; /* whoever runs alone tells it */
		log_error("%s tree: node %#llx is damaged: %s", format_tree_name(tree->ops->tree),
			  (unsigned long long)buf->address, field);
		state = NODE_BAD;
	}
	/* Two readers may do this at once; both find the same. */
	__atomic_store_n(&buf->verified, state, __ATOMIC_RELAXED);
	return state;
}

static void child_report(const struct btree *tree, struct buf *parent, maddr_t child,
			 const char *what)
{
	uint32_t before =
	    parent ? __atomic_fetch_or(&parent->verified, NODE_CHILD_REPORTED, __ATOMIC_RELAXED)
		   : 0;

	if (before & NODE_CHILD_REPORTED)
		return;
	log_error("%s tree: node %#llx is not the child that node %#llx says: wrong %s",
		  format_tree_name(tree->ops->tree), (unsigned long long)child,
		  parent ? (unsigned long long)parent->address : 0, what);
}

int btree_node_get(const struct btree *tree, struct buf *parent, maddr_t address, unsigned level,
		   struct buf **out)
{
	uint32_t state;
	struct buf *buf;
	int error = buf_get(tree->journal, address, FORMAT_ROLE_NODE, tree->ops->tree, &buf);

	if (error < 0)
		return error;
	state = __atomic_load_n(&buf->verified, __ATOMIC_RELAXED);
	if (state == 0)
		state = node_examine(tree, buf);
	if (state & NODE_BAD)
		goto err_put;
	if (((struct format_node *)buf->data)->level != level && buf_is_tentative(buf))
		goto err_put;
	if (((struct format_node *)buf->data)->level != level) {
		child_report(tree, parent, address, "level");
		goto err_put;
	}
	*out = buf;
	return 0;

err_put:
	error = buf_is_tentative(buf) ? -EDEADLK : -EUCLEAN;
	buf_put(buf);
	return error;
}

uint64_t btree_node_rounded(const struct btree *tree, const struct format_node *node, uint64_t aggregate)
{
	if (!tree->ops->round || node->level > 0 || node_count(node) == 0 ||
	    journal_super(tree->journal)->version < FORMAT_VERSION_ROUNDED)
		return aggregate;
	return tree->ops->round(aggregate, node_is_alike(node));
}

uint64_t btree_node_aggregate(const struct btree *tree, const struct format_node *node)
{
	return btree_node_rounded(tree, node, node_aggregate(node, tree->ops));
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

/* What a leaf of the path has, or has not, is what the transaction is built on; an inner node only shows the way. */
static void step_rely(struct btree_step *step)
{
	if (step_node(step)->level == 0)
		buf_rely(step->buf);
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
	error = btree_node_get(tree, NULL, address, level, &step->buf);
	if (error < 0)
		return error;
	step->index = 0;
	step->bounded = false;
	path->depth = 1;
	step_rely(step);
	return 0;
}

/* Do the child's keys lie where its parent says? Only then is every node reached by one way. */
static bool child_is_bounded(const struct btree_step *parent, unsigned index,
			     const struct btree_step *child)
{
	const struct format_node *node = step_node(child);
	struct btree_key lower, first, last;

	node_key(step_node(parent), index, &lower);
	node_key(node, 0, &first);
	node_key(node, node_count(node) - 1, &last);
	return btree_key_compare(&first, &lower) >= 0 &&
	       (!child->bounded || btree_key_compare(&last, &child->upper) < 0);
}

static void child_set_upper(const struct btree_step *parent, unsigned index,
			    struct btree_step *child)
{
	const struct format_node *node = step_node(parent);

	child->bounded = index + 1 < node_count(node) || parent->bounded;
	if (index + 1 < node_count(node))
		node_key(node, index + 1, &child->upper);
	else if (parent->bounded)
		child->upper = parent->upper;
}

int path_open_child(const struct btree_path *path, const struct btree_step *parent, unsigned index,
		    struct btree_step *out)
{
	struct node_child child;
	int error;

	node_child(step_node(parent), index, &child);
	error = btree_node_get(path->tree, parent->buf, child.address,
			       step_node(parent)->level - 1u, &out->buf);
	if (error < 0)
		return error;
	/* Was this still its child when the child was as we have it? */
	if (!buf_is_current(parent->buf)) {
		buf_put(out->buf);
		return -EDEADLK;
	}
	out->index = 0;
	child_set_upper(parent, index, out);
	if (child_is_bounded(parent, index, out))
		return 0;
	child_report(path->tree, parent->buf, child.address, "keys");
	buf_put(out->buf);
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
	struct btree_step *parent = path_last(path);
	int error = path_open_child(path, parent, parent->index, parent + 1);

	if (error < 0)
		return error;
	path->depth++;
	step_rely(parent + 1);
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
