#include <errno.h>

#include "btree/path.h"
#include "journal/root.h"
#include "util/log.h"

/* Every child of the node that the path ends at must be told of as it is. */
static int check_aggregate(const struct btree_path *path, unsigned d)
{
	const struct btree_step *parent = &path->step[d - 1], *step = &path->step[d];
	uint64_t right = btree_node_aggregate(path->tree, step_node(step));
	struct node_child child;

	node_child(step_node(parent), parent->index, &child);
	if (child.aggregate == right)
		return 0;
	log_error("%s tree: node %#llx has aggregate %llu, its parent %#llx says %llu",
		  format_tree_name(path->tree->ops->tree), (unsigned long long)step->buf->address,
		  (unsigned long long)right, (unsigned long long)parent->buf->address,
		  (unsigned long long)child.aggregate);
	return -EUCLEAN;
}

/* Order, slots and records once more, from the bytes: they may have been changed since they were
 * read. */
static int check_node(const struct btree_path *path, unsigned d)
{
	const struct btree_step *step = &path->step[d];
	const char *field;
	int error = node_verify(step_node(step), path->tree->ops, &field);

	if (error < 0) {
		log_error("%s tree: node %#llx is damaged: %s",
			  format_tree_name(path->tree->ops->tree),
			  (unsigned long long)step->buf->address, field);
		return error;
	}
	return d > 0 ? check_aggregate(path, d) : 0;
}

static int check_down(struct btree_path *path)
{
	int error = path_down(path);

	if (error < 0) {
		log_error("%s tree: node %#llx cannot be read: error %d",
			  format_tree_name(path->tree->ops->tree),
			  (unsigned long long)path_child(path), -error);
		return error;
	}
	return check_node(path, path->depth - 1);
}

int btree_check(const struct btree *tree, uint64_t *records)
{
	struct btree_path path;
	uint64_t count = 0;
	int error = path_begin(&path, tree);

	if (error == 0)
		error = check_node(&path, 0);
	else if (error == -ENOENT)
		error = 0;
	while (error == 0 && path.depth > 0) {
		struct btree_step *step = path_last(&path);

		if (!path_at_leaf(&path) && step->index < node_count(step_node(step))) {
			error = check_down(&path);
			continue;
		}
		if (path_at_leaf(&path))
			count += node_count(step_node(step));
		path_up(&path);
		if (path.depth > 0)
			path_last(&path)->index++;
	}
	path_end(&path);
	if (error == 0)
		*records = count;
	return error;
}

/* Tell of the child that the path points at, and go down if there is anything below it to tell of.
 */
static int nodes_visit_child(struct btree_path *path, btree_node_fn *visit, void *arg)
{
	unsigned level = step_node(path_last(path))->level - 1u;
	maddr_t address = path_child(path);
	int error = path_down(path), result;

	if (error == -ENOMEM)
		return error;
	result = visit(arg, address, level, error);
	if (error < 0)
		path_last(path)->index++;
	return result;
}

int btree_walk_nodes(const struct btree *tree, btree_node_fn *visit, void *arg)
{
	struct btree_path path;
	maddr_t address;
	unsigned level;
	int error, result;

	root_tree_get(tree->journal, tree->ops->tree, &address, &level);
	if (address == 0)
		return 0;
	error = path_begin(&path, tree);
	result = visit(arg, address, level, error);
	if (error < 0)
		return result;
	while (result == 0 && path.depth > 0) {
		struct btree_step *step = path_last(&path);

		if (!path_at_leaf(&path) && step->index < node_count(step_node(step))) {
			result = nodes_visit_child(&path, visit, arg);
			continue;
		}
		path_up(&path);
		if (path.depth > 0)
			path_last(&path)->index++;
	}
	path_end(&path);
	return result;
}

/* --- node by node, in parts ------------------------------------------------------------------------------------------------- */

struct check_walk {
	struct btree_path path;
	btree_check_fn *visit;
	void *arg;
};

/* What is wrong with the node that the path has just reached; NULL: nothing. */
static const char *node_fault(const struct btree_path *path)
{
	const struct btree_step *step = &path->step[path->depth - 1];
	struct node_child child;
	const char *field;

	if (node_verify(step_node(step), path->tree->ops, &field))
		return field;
	if (path->depth < 2)
		return NULL;
	node_child(step_node(step - 1), (step - 1)->index, &child);
	return child.aggregate == btree_node_aggregate(path->tree, step_node(step)) ? NULL : "aggregate";
}

static int walk_tell(struct check_walk *walk)
{
	const struct btree_step *step = path_last(&walk->path);

	return walk->visit(walk->arg, step->buf->address, step_node(step)->level, 0, node_fault(&walk->path));
}

static int walk_down(struct check_walk *walk)
{
	struct btree_step *step = path_last(&walk->path);
	unsigned level = step_node(step)->level - 1u;
	maddr_t address = path_child(&walk->path);
	int error = path_down(&walk->path), result;

	if (!error)
		return walk_tell(walk);
	if (error == -ENOMEM)
		return error;
	result = walk->visit(walk->arg, address, level, error, NULL);
	step->index++;
	return result;
}

/* Up from a node that is done; *from follows. */
static void walk_up(struct check_walk *walk, struct btree_key *from, bool *ended)
{
	const struct btree_step *step = path_last(&walk->path);

	*ended = !step->bounded;
	if (step->bounded)
		*from = step->upper;
	path_up(&walk->path);
	if (walk->path.depth > 0)
		path_last(&walk->path)->index++;
}

/* One answer of several: an error before a wish to stop. */
static int walk_join(int before, int result)
{
	return before < 0 || result == 0 ? before : result;
}

/* To the leaf where *from belongs, or as far as can be read, telling of each node on the way. */
static int walk_seek(struct check_walk *walk, const struct btree_key *from)
{
	int result = walk_tell(walk);

	while (result >= 0 && !path_at_leaf(&walk->path)) {
		struct btree_step *step = path_last(&walk->path);
		unsigned depth = walk->path.depth;

		step->index = node_search_child(step_node(step), from);
		result = walk_join(result, walk_down(walk));
		if (walk->path.depth == depth)
			break;
	}
	return result;
}

static int walk_begin(struct check_walk *walk, const struct btree *tree)
{
	maddr_t address;
	unsigned level;
	int error = path_begin(&walk->path, tree), result;

	if (!error || error == -ENOENT || error == -ENOMEM)
		return error;
	root_tree_get(tree->journal, tree->ops->tree, &address, &level);
	result = walk->visit(walk->arg, address, level, error, NULL);
	return result < 0 ? result : -ENOENT;
}

int btree_check_nodes(const struct btree *tree, struct btree_key *from, bool *ended, btree_check_fn *visit, void *arg)
{
	struct check_walk walk = {.visit = visit, .arg = arg};
	int result = walk_begin(&walk, tree);

	*ended = true;
	if (result)
		return result == -ENOENT ? 0 : result;
	result = walk_seek(&walk, from);
	while (result >= 0 && walk.path.depth > 0) {
		struct btree_step *step = path_last(&walk.path);

		if (!path_at_leaf(&walk.path) && step->index < node_count(step_node(step))) {
			result = walk_join(result, walk_down(&walk));
			continue;
		}
		walk_up(&walk, from, ended);
		if (result > 0 && !*ended)
			break;
	}
	path_end(&walk.path);
	return result < 0 ? result : 0;
}
