/*
 * Ordered records in metadata blocks: one B+tree engine for all trees. Keys are 1 to 3 words; values vary up to
 * NODE_VALUE_MAX bytes. Lookups run under the metadata lock held shared or exclusive; changes inside a transaction.
 * Errors: -ENOENT, -EEXIST, -EIO (both copies of a node poisoned), -EUCLEAN (not a whole tree), -ENOSPC, -EFBIG, -ENOMEM. After any
 * error in a change the caller must abort the transaction.
 */
#ifndef BTREE_BTREE_H
#define BTREE_BTREE_H

#include "format/node_format.h"
#include "journal/tx.h"

struct btree_key {
	uint64_t word[3]; /* words beyond the tree's key_words are 0 */
};

struct btree_record {
	struct btree_key key;
	uint16_t length;
	uint8_t value[NODE_VALUE_MAX];
};

/* `unit` of trees whose first word is a block: threads take space far apart, but a device may be small. Two nodes side by side have a quarter of one at least, however many units there are. */
#define DEVICE_UNIT_BLOCKS 4096u

struct btree_ops {
	unsigned tree; /* enum format_tree_id */
	unsigned key_words;
	/* Records whose first word divided by this is the same are most often changed by one thread: where it differs, nodes are merged only if they have little. 0: no matter. */
	uint64_t unit;
	/* Aggregate of one record; inner nodes keep the maximum below each child. NULL: none. */
	uint64_t (*aggregate)(const struct btree_key *key, const void *value, size_t length);
	/*
	 * What inner nodes say of a leaf when this is the maximum of its records' aggregates: not less, growing with it, and for its own answer the same again; so that it seldom
	 * changes. is_alike: it has several records, and the first word of all is the same; then no more than otherwise. NULL, and before format version 4: the maximum itself.
	 */
	uint64_t (*round)(uint64_t aggregate, bool is_alike);
	/* 0 or -EUCLEAN: may this record be in the tree? Called for every record of a node when it is first read. May be NULL. */
	int (*verify)(const struct btree_key *key, const void *value, size_t length);
};

struct btree {
	struct journal *journal;
	const struct btree_ops *ops;
};

static inline void btree_init(struct btree *tree, struct journal *journal, const struct btree_ops *ops)
{
	tree->journal = journal;
	tree->ops = ops;
}

int btree_key_compare(const struct btree_key *a, const struct btree_key *b);

int btree_lookup(const struct btree *tree, const struct btree_key *key, struct btree_record *out);
int btree_lookup_ge(const struct btree *tree, const struct btree_key *key, struct btree_record *out); /* first >= key */
int btree_lookup_le(const struct btree *tree, const struct btree_key *key, struct btree_record *out); /* last <= key */

/*
 * Visit records with from <= key <= to in order. The visitor returns 0 to go on, anything else to stop with that value (a positive one
 * passes through). It must not change the tree and sees the record in place (valid during the call).
 */
typedef int btree_visit_fn(void *arg, const struct btree_key *key, const void *value, size_t length);
int btree_walk(const struct btree *tree, const struct btree_key *from, const struct btree_key *to, btree_visit_fn *visit, void *arg);
/* Visit, in key order, the records with key.word[0] < end whose aggregate is > start: O(log n + answers). */
int btree_walk_overlap(const struct btree *tree, uint64_t start, uint64_t end, btree_visit_fn *visit, void *arg);
/* The first record at or after key whose aggregate is >= least; -ENOENT. O(log n). */
int btree_find_aggregate(const struct btree *tree, const struct btree_key *key, uint64_t least, struct btree_record *out);
/* None is higher; what there is may be lower by what ops->round adds. 0 of an empty tree. */
int btree_max_aggregate(const struct btree *tree, uint64_t *out);

int btree_insert(const struct btree *tree, struct tx *tx, const struct btree_key *key, const void *value, size_t length);
int btree_update(const struct btree *tree, struct tx *tx, const struct btree_key *key, const void *value, size_t length);
int btree_remove(const struct btree *tree, struct tx *tx, const struct btree_key *key);
/*
 * The record of `from` gets another key and value: as btree_remove() and btree_insert(), but where it belongs to the same leaf as before (and has as many bytes) that alone is changed, and what
 * inner nodes say of it.
 */
int btree_rekey(const struct btree *tree, struct tx *tx, const struct btree_key *from, const struct btree_key *to, const void *value, size_t length);

/* Visit the address and level of every node, parents first. A node that cannot be read is visited with error set and not descended. */
typedef int btree_node_fn(void *arg, maddr_t address, unsigned level, int error);
int btree_walk_nodes(const struct btree *tree, btree_node_fn *visit, void *arg);
/*
 * The same from the leaf where *from belongs on, with what is wrong in the node itself (`fault`, a static string, or NULL) for those who check in parts.
 * The nodes above that leaf are told of again. When the visitor answers 1 the walk ends behind the leaf it is in, and *from says where to go on unless *ended.
 */
typedef int btree_check_fn(void *arg, maddr_t address, unsigned level, int error, const char *fault);
int btree_check_nodes(const struct btree *tree, struct btree_key *from, bool *ended, btree_check_fn *visit, void *arg);
/*
 * After the format version became one that rounds: inner nodes say what they should of the leaf where *from belongs. *from moves to the next one unless *ended.
 */
int btree_settle_leaf(const struct btree *tree, struct tx *tx, struct btree_key *from, bool *ended);
/* A node as its parent tells of it. Records in it have keys >= from and, if bounded, < end; of the root nothing is said. */
struct btree_child {
	maddr_t address;
	unsigned level;
	struct btree_key from, end;
	bool is_bounded;
};
typedef int btree_child_fn(void *arg, const struct btree_child *child);
/*
 * What inner nodes say of all nodes below them, from where *from belongs on; no leaf is read, and what cannot be read is told of and passed over. After `limit`
 * (not 0) inner nodes the walk ends, and *from says where to go on unless *ended; nodes above that place are told of again. The visitor as in btree_walk().
 */
int btree_walk_children(const struct btree *tree, struct btree_key *from, unsigned limit, bool *ended, btree_child_fn *visit, void *arg);
/* Order, fill, levels, aggregates, headers of the whole tree: 0, or -EUCLEAN/-EIO with the first finding on the log. *records: how many. */
int btree_check(const struct btree *tree, uint64_t *records);

#endif
