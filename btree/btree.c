#include "btree/btree.h"

#include <errno.h>
#include <string.h>

#include "btree/path.h"
#include "btree/walk.h"

int btree_key_compare(const struct btree_key *a, const struct btree_key *b)
{
	for (unsigned i = 0; i < 3; i++) {
		if (a->word[i] != b->word[i])
			return a->word[i] < b->word[i] ? -1 : 1;
	}
	return 0;
}

static void record_copy(const struct btree_step *step, struct btree_record *out)
{
	size_t length;
	const void *value = node_value(step_node(step), step->index, &length);

	node_key(step_node(step), step->index, &out->key);
	out->length = (uint16_t)length;
	memcpy(out->value, value, length);
}

int btree_lookup(const struct btree *tree, const struct btree_key *key, struct btree_record *out)
{
	struct btree_path path;
	bool found;
	int error = path_seek(&path, tree, key, &found);

	if (error < 0)
		return error;
	if (found)
		record_copy(path_last(&path), out);
	path_end(&path);
	return found ? 0 : -ENOENT;
}

static int record_take_first(void *arg, const struct btree_key *key, const void *value,
			     size_t length)
{
	struct btree_record *out = arg;

	out->key = *key;
	out->length = (uint16_t)length;
	memcpy(out->value, value, length);
	return 1;
}

static const struct btree_key key_last = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}};

int btree_lookup_ge(const struct btree *tree, const struct btree_key *key, struct btree_record *out)
{
	int found = btree_walk(tree, key, &key_last, record_take_first, out);

	if (found < 0)
		return found;
	return found == 1 ? 0 : -ENOENT;
}

/* Put the path on the last record of the leaf before the one it is in. */
static int path_to_previous(struct btree_path *path)
{
	do {
		path_up(path);
		if (path->depth == 0)
			return -ENOENT;
	} while (path_last(path)->index == 0);
	path_last(path)->index--;
	do {
		int error = path_down(path);

		if (error < 0)
			return error;
		path_last(path)->index = node_count(step_node(path_last(path))) - 1;
	} while (!path_at_leaf(path));
	return 0;
}

int btree_lookup_le(const struct btree *tree, const struct btree_key *key, struct btree_record *out)
{
	struct btree_path path;
	bool found;
	int error = path_seek(&path, tree, key, &found);

	if (error < 0)
		return error;
	if (!found && path_last(&path)->index > 0)
		path_last(&path)->index--;
	else if (!found)
		error = path_to_previous(&path);
	if (error == 0)
		record_copy(path_last(&path), out);
	path_end(&path);
	return error;
}

int btree_find_aggregate(const struct btree *tree, const struct btree_key *key, uint64_t least,
			 struct btree_record *out)
{
	struct walk_filter filter = {.from = *key, .to = key_last, .least = least};
	int found = btree_walk_filtered(tree, &filter, record_take_first, out);

	if (found < 0)
		return found;
	return found == 1 ? 0 : -ENOENT;
}

int btree_max_aggregate(const struct btree *tree, uint64_t *out)
{
	struct btree_path path;
	int error = path_begin(&path, tree);

	if (error == -ENOENT) {
		*out = 0;
		return 0;
	}
	if (error < 0)
		return error;
	*out = node_aggregate(step_node(path_last(&path)), tree->ops);
	path_end(&path);
	return 0;
}
