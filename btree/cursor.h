/*
 * Records one after the other, pulled: for those who go through several trees at once. A cursor holds the nodes down to its record, so it lives
 * within one hold of the metadata lock; whoever lets go of the lock closes it and seeks again.
 */
#ifndef BTREE_CURSOR_H
#define BTREE_CURSOR_H

#include "btree/path.h"

struct btree_cursor {
	struct btree_path path;
	uint64_t count_nodes; /* gone into since the cursor was zeroed: what it cost */
};

/*
 * To the first record >= key. 0; -ENOENT: none; another error: a node that cannot be had, see btree_cursor_skip(). The cursor was zeroed or
 * closed.
 */
int btree_cursor_seek(struct btree_cursor *cursor, const struct btree *tree, const struct btree_key *key);
int btree_cursor_next(struct btree_cursor *cursor);
/* After an error: past the node that cannot be had. Answers as btree_cursor_next(). */
int btree_cursor_skip(struct btree_cursor *cursor);
/* The record it is at, in place, valid until it moves. */
const void *btree_cursor_record(const struct btree_cursor *cursor, struct btree_key *key, size_t *length);
void btree_cursor_close(struct btree_cursor *cursor);

#endif
