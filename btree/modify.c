#include "btree/modify.h"

#include <errno.h>
#include <string.h>

#include "journal/root.h"

#define INNER_CUT_MIN 8 /* children of an inner node that is cut within a unit */

/* What a split hands to the level above: the new right node and the lowest key in it. */
struct carry {
	struct btree_key key;
	uint8_t child[NODE_CHILD_BYTES];
};

/* --- aggregates --- */

/* Make the parent of step d say `aggregate`. *changed: it said something else. */
static int aggregate_store(struct tx *tx, struct btree_path *path, unsigned d, uint64_t aggregate,
			   bool *changed)
{
	struct btree_step *parent = &path->step[d - 1];
	struct node_child child;
	int error;

	node_child(step_node(parent), parent->index, &child);
	*changed = child.aggregate != aggregate;
	if (!*changed)
		return 0;
	error = tx_join(tx, parent->buf);
	if (error < 0)
		return error;
	node_set_aggregate(step_node(parent), parent->index, aggregate);
	return 0;
}

int aggregate_settle(struct tx *tx, struct btree_path *path, unsigned d)
{
	bool changed = true;
	int error = 0;

	for (; error == 0 && changed && d > 0; d--)
		error = aggregate_store(tx, path, d,
					btree_node_aggregate(path->tree, step_node(&path->step[d])),
					&changed);
	return error;
}

/* A record of this aggregate came under step d, and nothing went: cheaper than to look at all. */
static int aggregate_raise(struct tx *tx, struct btree_path *path, unsigned d, uint64_t aggregate)
{
	bool changed = true;
	int error = 0;

	for (; error == 0 && changed && d > 0; d--) {
		struct node_child child;

		node_child(step_node(&path->step[d - 1]), path->step[d - 1].index, &child);
		aggregate = btree_node_rounded(path->tree, step_node(&path->step[d]), max_u64(child.aggregate, aggregate));
		error = aggregate_store(tx, path, d, aggregate, &changed);
	}
	return error;
}

int btree_settle_leaf(const struct btree *tree, struct tx *tx, struct btree_key *from, bool *ended)
{
	struct btree_path path;
	bool found;
	int error = path_seek(&path, tree, from, &found);

	*ended = true;
	if (error < 0)
		return error == -ENOENT ? 0 : error;
	error = aggregate_settle(tx, &path, path.depth - 1);
	*ended = !path_last(&path)->bounded;
	if (!*ended)
		*from = path_last(&path)->upper;
	path_end(&path);
	return error;
}

/* --- insert --- */

/* A root above the old one and its new sibling. */
static int root_grow(struct tx *tx, struct btree_path *path, const struct carry *carry)
{
	const struct btree_key lowest = {{0}};
	struct btree_step *old = &path->step[0];
	unsigned level = step_node(old)->level + 1u;
	struct node_child child = {old->buf->address,
				   btree_node_aggregate(path->tree, step_node(old))};
	uint8_t packed[NODE_CHILD_BYTES];
	struct buf *buf;
	int error;

	if (level >= NODE_LEVELS_MAX)
		return -EFBIG;
	error = btree_node_create(path->tree, tx, level, &buf);
	if (error < 0)
		return error;
	node_child_pack(packed, &child);
	node_insert((struct format_node *)buf->data, 0, &lowest, packed, sizeof(packed));
	node_insert((struct format_node *)buf->data, 1, &carry->key, carry->child,
		    sizeof(carry->child));
	error = root_tree_set(tx, path->tree->ops->tree, buf->address, level);
	buf_put(buf);
	return error;
}

/* To the level above, about a node that has just come after another. */
static void carry_fill(struct carry *carry, const struct btree *tree, const struct buf *buf)
{
	const struct format_node *node = (const struct format_node *)buf->data;
	struct node_child child = {buf->address, btree_node_aggregate(tree, node)};

	node_child_pack(carry->child, &child);
	node_key(node, 0, &carry->key);
}

/* Split the node of this step around the record that does not fit, and put it into its half. */
static int step_split(struct tx *tx, const struct btree *tree, struct btree_step *step,
		      const struct btree_key *key, const void *value, size_t length,
		      struct carry *carry)
{
	struct format_node *left = step_node(step), *right;
	unsigned index = step->index, point = node_split_point(left, index, length);
	struct buf *buf;
	int error = btree_node_create(tree, tx, left->level, &buf);

	if (error < 0)
		return error;
	right = (struct format_node *)buf->data;
	if (index < point) {
		node_move_tail(left, point - 1, right);
		node_insert(left, index, key, value, length);
	} else {
		node_move_tail(left, point, right);
		node_insert(right, index - point, key, value, length);
	}
	carry_fill(carry, tree, buf);
	buf_put(buf);
	return 0;
}

/* Insert where step d points; there is room. */
static int step_insert(struct tx *tx, struct btree_path *path, unsigned d,
		       const struct btree_key *key, const void *value, size_t length)
{
	struct format_node *node = step_node(&path->step[d]);
	unsigned index = path->step[d].index;

	node_insert(node, index, key, value, length);
	/* A split below may have moved the maximum; in a leaf the record can only raise it, unless it is the second and what it makes of the leaf is not rounded. */
	if (node->level > 0 || (path->tree->ops->round && node_count(node) == 2))
		return aggregate_settle(tx, path, d);
	return aggregate_raise(tx, path, d, node_record_aggregate(node, path->tree->ops, index));
}

/* Insert where the path's last step points, splitting upward as far as needed. */
static int path_insert(struct tx *tx, struct btree_path *path, const struct btree_key *key,
		       const void *value, size_t length)
{
	struct carry carry;
	bool changed;

	for (unsigned d = path->depth - 1;; d--) {
		struct btree_step *step = &path->step[d];
		struct carry above;
		int error = tx_join(tx, step->buf);

		if (error < 0)
			return error;
		if (node_fits(step_node(step), length))
			return step_insert(tx, path, d, key, value, length);
		error = step_split(tx, path->tree, step, key, value, length, &above);
		if (error < 0)
			return error;
		carry = above;
		if (d == 0)
			return root_grow(tx, path, &carry);
		error = aggregate_store(tx, path, d,
					btree_node_aggregate(path->tree, step_node(step)), &changed);
		if (error < 0)
			return error;
		path->step[d - 1].index++;
		key = &carry.key;
		value = carry.child;
		length = sizeof(carry.child);
	}
}

/* --- nodes where threads meet --- */

bool unit_is_same(const struct btree *tree, const struct format_node *node, unsigned index,
			 const struct btree_key *key)
{
	uint64_t unit = max_u64(tree->ops->unit, 1);
	struct btree_key other;

	node_key(node, index, &other);
	return other.word[0] / unit == key->word[0] / unit;
}

/*
 * Where to cut the node of this step, so that others have the other half: where what belongs to
 * `key` ends or begins, or else next to it. 0: it cannot be cut, or is so high that a cut would make
 * the tree higher rather than do any good.
 */
static unsigned crowd_point(const struct btree *tree, const struct btree_step *step,
			    const struct btree_key *key)
{
	const struct format_node *node = step_node(step);
	unsigned first = step->index, last = step->index + node->level, count = node_count(node);

	if (node->level > 1 || count < 2)
		return 0;
	while (first > 0 && unit_is_same(tree, node, first - 1, key))
		first--;
	while (last < count && unit_is_same(tree, node, last, key))
		last++;
	if (last < count)
		return last > 0 ? last : count / 2;
	if (first > 0)
		return first < count ? first : 0;
	if (node->level > 0 && count < INNER_CUT_MIN)
		return 0;
	return step->index < count ? max_u64(step->index, 1) : count / 2;
}

static int step_cut(struct tx *tx, struct btree_path *path, unsigned d, unsigned point)
{
	struct btree_step *step = &path->step[d];
	struct carry carry;
	struct buf *buf;
	bool changed;
	int error = tx_join(tx, step->buf);

	if (error == 0)
		error = btree_node_create(path->tree, tx, step_node(step)->level, &buf);
	if (error < 0)
		return error;
	node_move_tail(step_node(step), point, (struct format_node *)buf->data);
	carry_fill(&carry, path->tree, buf);
	buf_put(buf);
	if (d == 0)
		return root_grow(tx, path, &carry);
	error = aggregate_store(tx, path, d, btree_node_aggregate(path->tree, step_node(step)),
				&changed);
	while (path->depth > d)
		path_up(path);
	path_last(path)->index++;
	return error < 0 ? error
			 : path_insert(tx, path, &carry.key, carry.child, sizeof(carry.child));
}

int path_seek_change(struct tx *tx, struct btree_path *path, const struct btree *tree,
			    const struct btree_key *key, bool *found)
{
	int error = path_seek(path, tree, key, found);
	unsigned d = 0, point;

	if (error < 0 || !tx_crowded(tx))
		return error;
	while (d < path->depth && path->step[d].buf->address != tx_crowded(tx))
		d++;
	point = d < path->depth ? crowd_point(tree, &path->step[d], key) : 0;
	if (!point)
		return 0;
	tx_set_crowded(tx, 0);
	error = step_cut(tx, path, d, point);
	path_end(path);
	return error < 0 ? error : path_seek(path, tree, key, found);
}

/* --- btree_insert --- */

static int root_plant(const struct btree *tree, struct tx *tx, const struct btree_key *key,
		      const void *value, size_t length)
{
	struct buf *buf;
	int error = btree_node_create(tree, tx, 0, &buf);

	if (error < 0)
		return error;
	node_insert((struct format_node *)buf->data, 0, key, value, length);
	error = root_tree_set(tx, tree->ops->tree, buf->address, 0);
	buf_put(buf);
	return error;
}

/* A key below all others on its way down lowers the first bound of each node it passes. */
static int path_lower_bounds(struct tx *tx, struct btree_path *path, const struct btree_key *key)
{
	for (unsigned d = 0; d + 1 < path->depth; d++) {
		struct btree_step *step = &path->step[d];
		struct btree_key bound;
		int error;

		node_key(step_node(step), step->index, &bound);
		if (btree_key_compare(key, &bound) >= 0)
			continue;
		error = tx_join(tx, step->buf);
		if (error < 0)
			return error;
		node_set_key(step_node(step), step->index, key);
	}
	return 0;
}

int btree_insert(const struct btree *tree, struct tx *tx, const struct btree_key *key,
		 const void *value, size_t length)
{
	struct btree_path path;
	bool found;
	int error;

	if (length > NODE_VALUE_MAX)
		return -EINVAL;
	error = path_seek_change(tx, &path, tree, key, &found);
	if (error == -ENOENT)
		return root_plant(tree, tx, key, value, length);
	if (error < 0)
		return error;
	error = found ? -EEXIST : path_lower_bounds(tx, &path, key);
	if (error == 0)
		error = path_insert(tx, &path, key, value, length);
	path_end(&path);
	return error;
}

/* --- update --- */

/* Is what is said of the leaf more than a record that said `before` made of it? Then another one is the highest. */
static bool aggregate_is_of_another(struct btree_path *path, uint64_t before)
{
	const struct btree_step *leaf = path_last(path);
	struct node_child child;

	if (path->depth == 1)
		return true;
	node_child(step_node(leaf - 1), (leaf - 1)->index, &child);
	return btree_node_rounded(path->tree, step_node(leaf), before) < child.aggregate;
}

/* The record under the last step has changed in place; it said `before`. */
static int aggregate_replace(struct tx *tx, struct btree_path *path, uint64_t before)
{
	const struct btree_step *step = path_last(path);
	uint64_t after = node_record_aggregate(step_node(step), path->tree->ops, step->index);

	if (after >= before)
		return aggregate_raise(tx, path, path->depth - 1, after);
	return aggregate_is_of_another(path, before) ? 0 : aggregate_settle(tx, path, path->depth - 1);
}

static int path_update(struct tx *tx, struct btree_path *path, const struct btree_key *key,
		       const void *value, size_t length)
{
	struct btree_step *step = path_last(path);
	uint64_t before = node_record_aggregate(step_node(step), path->tree->ops, step->index);
	struct format_node *node;
	size_t old_length;
	int error = tx_join(tx, step->buf);

	if (error < 0)
		return error;
	node = step_node(step);
	(void)node_value(node, step->index, &old_length);
	if (old_length == length) {
		node_set_value(node, step->index, value, length);
		return aggregate_replace(tx, path, before);
	}
	node_remove(node, step->index);
	error = aggregate_settle(tx, path, path->depth - 1);
	return error < 0 ? error : path_insert(tx, path, key, value, length);
}

int btree_update(const struct btree *tree, struct tx *tx, const struct btree_key *key,
		 const void *value, size_t length)
{
	struct btree_path path;
	bool found;
	int error;

	if (length > NODE_VALUE_MAX)
		return -EINVAL;
	error = path_seek_change(tx, &path, tree, key, &found);
	if (error < 0)
		return error;
	error = found ? path_update(tx, &path, key, value, length) : -ENOENT;
	path_end(&path);
	return error;
}

/* --- rekey --- */

/* Would a look for this key come to the leaf that the path ends at? */
static bool path_leads(struct btree_path *path, const struct btree_key *key)
{
	const struct btree_step *leaf = path_last(path);

	if (leaf->bounded && btree_key_compare(key, &leaf->upper) >= 0)
		return false;
	for (unsigned d = path->depth - 1; d-- > 0;) {
		struct btree_key bound;

		node_key(step_node(&path->step[d]), path->step[d].index, &bound);
		if (btree_key_compare(key, &bound) >= 0)
			return true;
		if (path->step[d].index > 0)
			return false;
	}
	return true;
}

/* To before record `to` of the leaf. Which one it is then. */
static unsigned node_rekey(struct format_node *node, unsigned index, unsigned to, const struct btree_key *key, const void *value, size_t length)
{
	if (to == index || to == index + 1) { /* between the same neighbours */
		node_set_key(node, index, key);
		if (length > 0)
			node_set_value(node, index, value, length);
		return index;
	}
	to -= to > index;
	node_remove(node, index);
	node_insert(node, to, key, value, length);
	return to;
}

static int path_rekey(struct tx *tx, struct btree_path *path, const struct btree_key *key, const void *value, size_t length)
{
	struct btree_step *step = path_last(path);
	uint64_t before = node_record_aggregate(step_node(step), path->tree->ops, step->index);
	bool taken, was_alike = node_is_alike(step_node(step));
	unsigned to = node_search(step_node(step), key, &taken);
	int error;

	if (taken && to != step->index)
		return -EEXIST;
	error = tx_join(tx, step->buf);
	if (error == 0)
		error = path_lower_bounds(tx, path, key);
	if (error < 0)
		return error;
	step->index = node_rekey(step_node(step), step->index, to, key, value, length);
	return node_is_alike(step_node(step)) == was_alike ? aggregate_replace(tx, path, before) : aggregate_settle(tx, path, path->depth - 1);
}

int btree_rekey(const struct btree *tree, struct tx *tx, const struct btree_key *from, const struct btree_key *to, const void *value, size_t length)
{
	struct btree_path path;
	size_t old_length;
	bool found, stays = false;
	int error = path_seek_change(tx, &path, tree, from, &found);

	if (error < 0)
		return error;
	if (found) {
		(void)node_value(step_node(path_last(&path)), path_last(&path)->index, &old_length);
		stays = old_length == length && path_leads(&path, to);
	}
	error = stays ? path_rekey(tx, &path, to, value, length) : found ? 0 : -ENOENT;
	path_end(&path);
	if (error < 0 || stays)
		return error;
	error = btree_remove(tree, tx, from);
	return error < 0 ? error : btree_insert(tree, tx, to, value, length);
}
