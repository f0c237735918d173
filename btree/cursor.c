#include "btree/cursor.h"

#include <errno.h>

/* From where the path is to a leaf with a record left. */
static int cursor_settle(struct btree_cursor *cursor)
{
	struct btree_path *path = &cursor->path;
	int error;

	while (path->depth > 0) {
		struct btree_step *step = path_last(path);

		if (step->index >= node_count(step_node(step))) {
			path_up(path);
			if (path->depth > 0)
				path_last(path)->index++;
			continue;
		}
		if (path_at_leaf(path))
			return 0;
		error = path_down(path);
		if (error)
			return error;
		cursor->count_nodes++;
	}
	return -ENOENT;
}

int btree_cursor_seek(struct btree_cursor *cursor, const struct btree *tree, const struct btree_key *key)
{
	struct btree_path *path = &cursor->path;
	struct btree_step *step;
	bool found;
	int error = path_begin(path, tree);

	if (error)
		return error;
	cursor->count_nodes++;
	while (!path_at_leaf(path)) {
		step = path_last(path);
		step->index = node_search_child(step_node(step), key);
		error = path_down(path);
		if (error)
			return error;
		cursor->count_nodes++;
	}
	step = path_last(path);
	step->index = node_search(step_node(step), key, &found);
	return cursor_settle(cursor);
}

int btree_cursor_next(struct btree_cursor *cursor)
{
	if (cursor->path.depth == 0)
		return -ENOENT;
	path_last(&cursor->path)->index++;
	return cursor_settle(cursor);
}

int btree_cursor_skip(struct btree_cursor *cursor)
{
	return btree_cursor_next(cursor);
}

const void *btree_cursor_record(const struct btree_cursor *cursor, struct btree_key *key, size_t *length)
{
	const struct btree_step *step = &cursor->path.step[cursor->path.depth - 1];

	node_key(step_node(step), step->index, key);
	return node_value(step_node(step), step->index, length);
}

void btree_cursor_close(struct btree_cursor *cursor)
{
	path_end(&cursor->path);
}
