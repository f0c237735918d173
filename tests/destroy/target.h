/* Everything that can be destroyed: each metadata block with all its copies, and the records that live in it. */
#ifndef TESTS_DESTROY_TARGET_H
#define TESTS_DESTROY_TARGET_H

#include "btree/btree.h"
#include "tests/destroy/image.h"

#define TARGET_COPIES_MAX SUPER_SLOTS

struct target {
	const char *name; /* of the tree, or super, journal_head, poison_log, root, table, chunk_header */
	unsigned tree;	  /* FORMAT_TREE_NONE: no node */
	unsigned level;
	bool is_super;
	maddr_t address;
	unsigned count_copies;
	devoff_t copy[TARGET_COPIES_MAX];
	/* Of a leaf: what it holds. */
	struct btree_key *keys;
	uint64_t *ends; /* of extents and rmap: the file block or device block behind the record */
	size_t count_keys;
};

struct targets {
	struct target *list;
	size_t count, capacity;
};

/* In the same order whenever the image is made. */
int targets_find(struct fs *fs, struct targets *out);
void targets_fini(struct targets *targets);

#endif
