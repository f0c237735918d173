/*
 * The nodes of all trees as they are on the medium, and which of them can be believed. A node's sequence is a logical time: a parent is changed by
 * the very transaction that adds or removes a child, so a parent that is newer than a node which it does not name knows that the node is dead,
 * and one that is older is out of date itself.
 */
#ifndef FSCK_WALK_H
#define FSCK_WALK_H

#include "btree/btree.h"
#include "fsck/internal.h"

struct leaf {
	maddr_t address;
	struct btree_key first, last;
	uint64_t sequence, aggregate;
	bool in_place; /* reached from the tree's root, within the bounds that its parents give */
};

/* A child as its parent tells of it. */
struct slot {
	unsigned level; /* of the child */
	struct btree_key lower, upper;
	bool bounded; /* has an upper */
	bool bad;     /* what lies there is not the child: lost */
	maddr_t address;
	uint64_t parent_sequence;
};

struct top { /* a node that no other points to */
	maddr_t address;
	unsigned level;
};

struct tree_state {
	unsigned number;
	const struct btree_ops *ops; /* NULL: no such tree in this version */
	struct leaf *leaves;
	size_t count_leaves, capacity_leaves;
	struct slot *slots;
	size_t count_slots, capacity_slots, sorted_slots;
	struct top *tops;
	size_t count_tops, capacity_tops;
	uint64_t nodes, count_bad, dead; /* nodes met; children lost; nodes left behind */
	bool wrong_aggregate;
	bool root_unknown; /* the root block does not say where it begins */
	bool was_empty;	   /* the root block says that it is */
};

struct forest {
	struct repair *repair;
	struct journal *journal;
	struct tree_state trees[16];
	uint64_t chunks, capacity; /* entries in use; those that the table's blocks have room for, in the arrays below too */
	struct chunk_entry *entries; /* as the table has them; state FREE: none */
	uint64_t *entry_sequence;
	uint64_t (*reached)[8];	     /* by chunk: nodes that a walk has met */
	bool map_is_stale;	     /* some table block is older than nodes that it says are free */
	uint64_t in_use;	     /* blocks that the maps name, for the progress shown */
	uint64_t visited;
};

int forest_init(struct forest *forest, struct repair *repair);
void forest_fini(struct forest *forest);
/* Walk all trees, then judge what is in use and was not met. 0, -ENOMEM; what is wrong is in the trees' states. */
int forest_walk(struct forest *forest);
/* Is the tree whole as it stands, but perhaps for the root block's word? */
bool tree_is_sound(const struct tree_state *tree);
bool forest_is_reached(const struct forest *forest, maddr_t address);
/* Leaves sorted, those that overlap a better one dropped: what the tree is made of. */
void tree_settle_leaves(struct tree_state *tree);

#endif
