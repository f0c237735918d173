/* What is run under injected failures: every call of fs/fs.h that changes something or takes memory, on the tree that ops_build() makes. */
#ifndef TESTS_EXHAUST_OPS_H
#define TESTS_EXHAUST_OPS_H

#include "fs/fs.h"

/* Inode numbers of what ops_build() made. */
struct ops_tree {
	inum_t file, other, big, shared, empty, dir, target, symlink;
};

struct op {
	const char *name;
	const char *calls; /* functions of fs/fs.h that it is here for, separated by blanks */
	int (*prepare)(struct fs *fs, const struct ops_tree *tree); /* NULL: nothing; not injected */
	int (*run)(struct fs *fs, const struct ops_tree *tree);
	const char *partial; /* the file whose data may be a mix of before and after when it fails, or NULL */
};

extern const struct op ops[];
extern const unsigned ops_count;

/* Fill a new filesystem. */
int ops_build(struct fs *fs, struct ops_tree *tree);

#endif
