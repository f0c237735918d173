/*
 * A tree of disjoint byte ranges of the device with attributes: badblocks and lost are two of them. Ranges that touch and have the same
 * state, source and cause are one record. The bytes are counted in the root block. Changes in a transaction, reads under the metadata lock.
 */
#ifndef NOTIFY_SPAN_H
#define NOTIFY_SPAN_H

#include "btree/btree.h"
#include "format/record_format.h"
#include "journal/root.h"

struct span {
	devoff_t start, end;
	uint64_t cause_id, since_ns;
	uint32_t count;
	uint8_t state, source;
};

struct span_tree {
	struct btree tree;
	enum root_counter bytes;
};

extern const struct btree_ops badblocks_ops, lost_ops;

void span_tree_init(struct span_tree *tree, struct journal *journal, const struct btree_ops *ops, enum root_counter bytes);
/* The first span that overlaps [start, end), whole. -ENOENT. */
int span_first(const struct span_tree *tree, devoff_t start, devoff_t end, struct span *out);
/* The first part of [start, end) that no span covers. -ENOENT: all of it is covered. */
int span_gap(const struct span_tree *tree, devoff_t start, devoff_t end, devoff_t *gap_start, devoff_t *gap_end);
/* -EEXIST when some of it is there. */
int span_insert(const struct span_tree *tree, struct tx *tx, const struct span *span);
/* Take the range out, splitting spans. The caller keeps ranges small enough for the transaction. */
int span_remove(const struct span_tree *tree, struct tx *tx, devoff_t start, devoff_t end);
/* Give the spans within the range this state. */
int span_set_state(const struct span_tree *tree, struct tx *tx, devoff_t start, devoff_t end,
		   uint8_t state);

#endif
