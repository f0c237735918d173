/* The one walk over records that lookups, ranges, overlaps and searches by aggregate are made of.
 */
#ifndef BTREE_WALK_H
#define BTREE_WALK_H

#include "btree/btree.h"

struct walk_filter {
	struct btree_key from, to; /* from <= key <= to */
	uint64_t least;            /* aggregate >= least; 0 for all */
};

/* As btree_walk(), with branches pruned that cannot hold a record that passes. */
int btree_walk_filtered(const struct btree *tree, const struct walk_filter *filter,
			btree_visit_fn *visit, void *arg);

#endif
