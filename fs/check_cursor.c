#include "fs/check.h"

#include <errno.h>

void check_cursor_init(struct check_cursor *cursor, struct check *check, const struct btree *tree)
{
	*cursor = (struct check_cursor){.check = check, .tree = tree};
}

/* What moving there has cost, and what is there. */
static bool cursor_take(struct check_cursor *cursor, int error)
{
	uint64_t before = cursor->at.count_nodes;

	while (error && error != -ENOENT) {
		check_unreadable(cursor->check, cursor->tree, error);
		error = check_is_over(cursor->check) ? -ENOENT : btree_cursor_skip(&cursor->at);
	}
	check_spend(cursor->check, 1 + (cursor->at.count_nodes - before) * CHECK_NODE_UNITS);
	cursor->has_record = !error;
	cursor->has_ended = !cursor->has_record;
	if (cursor->has_record)
		cursor->value = btree_cursor_record(&cursor->at, &cursor->key, &cursor->length);
	return cursor->has_record;
}

bool check_cursor_get(struct check_cursor *cursor)
{
	uint64_t before;
	int error;

	if (cursor->has_record || cursor->has_ended || cursor->is_past)
		return cursor->has_record;
	before = cursor->at.count_nodes;
	if (cursor->is_open)
		error = btree_cursor_next(&cursor->at);
	else
		error = btree_cursor_seek(&cursor->at, cursor->tree, &cursor->next);
	cursor->is_open = true;
	check_spend(cursor->check, (cursor->at.count_nodes - before) * CHECK_NODE_UNITS);
	return cursor_take(cursor, error);
}

/* The key that follows; false behind the last one. */
static bool key_follow(struct btree_key *key, unsigned words)
{
	while (words-- > 0)
		if (++key->word[words])
			return true;
	return false;
}

void check_cursor_advance(struct check_cursor *cursor)
{
	cursor->next = cursor->key;
	cursor->has_record = false;
	cursor->is_past = !key_follow(&cursor->next, cursor->tree->ops->key_words);
}

void check_cursor_release(struct check_cursor *cursor)
{
	if (cursor->is_open)
		btree_cursor_close(&cursor->at);
	/* What was looked at and not taken does not count: something may come to lie before it. */
	cursor->is_open = cursor->has_record = cursor->has_ended = false;
}

void check_cursor_set(struct check_cursor *cursor, const struct btree_key *key)
{
	check_cursor_release(cursor);
	cursor->is_past = false;
	cursor->next = *key;
}

void check_each(struct check *check, const struct btree *tree, check_visit_fn *visit, void *arg)
{
	struct check_cursor cursor;

	check_cursor_init(&cursor, check, tree);
	while (!check_is_over(check) && check_cursor_get(&cursor)) {
		visit(check, &cursor, arg);
		check_cursor_advance(&cursor);
		check->done++;
		if (!check_is_due(check))
			continue;
		check_cursor_release(&cursor);
		check_pause(check);
	}
	check_cursor_release(&cursor);
}
