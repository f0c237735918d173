/* The parts of fs_check(): each runs under the shared metadata lock and tells what it finds. */
#ifndef FS_CHECK_H
#define FS_CHECK_H

#include "fs/inode.h"

struct check {
	struct fs *fs;
	fs_check_fn *tell;
	void *arg;
	struct fs_check_totals totals;
	uint64_t count_dirents, count_parents, count_orphans; /* records of the trees, from their structure */
	uint64_t met_dirents, met_parents, met_orphans;	      /* those that an inode accounts for */
	uint64_t nodes;					      /* metadata blocks that trees use */
};

/* One finding. */
void check_finding(struct check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A tree could not be read to its end. */
void check_unreadable(struct check *check, const char *what, int error);
/* 0, -ENOENT, or the error of reading. */
int check_load_inode(struct check *check, inum_t ino, struct inode_record *out);
void check_compare_counter(struct check *check, const char *name, uint64_t stored, uint64_t counted);

void check_names(struct check *check); /* inodes, dirents, parents, orphans */
void check_space(struct check *check); /* extents, rmap, free, chunks */

#endif
