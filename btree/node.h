/*
 * One tree node, as bytes in DRAM: search, insert, remove, split, verify. Nothing here knows of
 * buffers or transactions. Every function but node_init() and node_verify() wants a node that
 * node_verify() has accepted.
 */
#ifndef BTREE_NODE_H
#define BTREE_NODE_H

#include "btree/btree.h"

#define NODE_LEVELS_MAX 12u

/* The value of an inner record. */
struct node_child {
	maddr_t address;
	uint64_t aggregate;
};
#define NODE_CHILD_BYTES 16u

/* Make it an empty node; the block header is left alone. */
void node_init(struct format_node *node, unsigned level, unsigned key_words);
/*
 * Is this a whole node of a tree with these ops? The block header's role and tree are the caller's
 * to check. 0, or -EUCLEAN with the first thing that is wrong in *field (a static string).
 */
int node_verify(const struct format_node *node, const struct btree_ops *ops, const char **field);

static inline unsigned node_count(const struct format_node *node)
{
	return le16_get(node->count);
}

void node_key(const struct format_node *node, unsigned index, struct btree_key *out);
void node_set_key(struct format_node *node, unsigned index, const struct btree_key *key);
/* Has it several records, and is the first word of all their keys the same? It is not empty. */
bool node_is_alike(const struct format_node *node);
/* The bytes after the key, in place. */
const void *node_value(const struct format_node *node, unsigned index, size_t *length);
/* Same length as before. */
void node_set_value(struct format_node *node, unsigned index, const void *value, size_t length);

void node_child(const struct format_node *node, unsigned index, struct node_child *out);
void node_set_aggregate(struct format_node *node, unsigned index, uint64_t aggregate);
void node_child_pack(uint8_t to[NODE_CHILD_BYTES], const struct node_child *from);

/* Aggregate of one record (of an inner node: what it says of the child), and of the whole node: their
 * maximum, see btree_node_aggregate() for what its parent says. 0 where ops have none. */
uint64_t node_record_aggregate(const struct format_node *node, const struct btree_ops *ops,
			       unsigned index);
uint64_t node_aggregate(const struct format_node *node, const struct btree_ops *ops);
/* The first record from `index` on whose aggregate is >= least; count if none. */
unsigned node_find_aggregate(const struct format_node *node, const struct btree_ops *ops, unsigned index, uint64_t least);

/* The first record >= key; count if none. *found: it is equal. */
unsigned node_search(const struct format_node *node, const struct btree_key *key, bool *found);
/* The child that key belongs to: the last slot <= key, 0 when key is below all. */
unsigned node_search_child(const struct format_node *node, const struct btree_key *key);

/* Bytes of records and slots; what is left of NODE_SPACE_BYTES can be had, by compaction if need
 * be. */
size_t node_used_bytes(const struct format_node *node);
size_t node_record_bytes(const struct format_node *node, size_t value_bytes);
bool node_fits(const struct format_node *node, size_t value_bytes);
/* Before record `index`; must fit. */
void node_insert(struct format_node *node, unsigned index, const struct btree_key *key,
		 const void *value, size_t length);
void node_remove(struct format_node *node, unsigned index);
/*
 * Of a full node and a record to be inserted before `index`: how many of the count + 1 records stay
 * on the left (1 .. count). Both sides fit then. Appending keeps the left node as it is, so that
 * ascending keys fill nodes; else the bytes are halved.
 */
unsigned node_split_point(const struct format_node *node, unsigned index, size_t value_bytes);
/* Append records [index, count) of `from` to `to`, which must have room for them, and remove them
 * from `from`. */
void node_move_tail(struct format_node *from, unsigned index, struct format_node *to);

#endif
