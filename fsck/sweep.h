/* All trees that name inodes, read side by side in order of the number: what is told of each inode. */
#ifndef FSCK_SWEEP_H
#define FSCK_SWEEP_H

#include "fsck/records.h"

enum sweep_tree { SWEEP_INODES, SWEEP_PARENTS, SWEEP_DIRENTS, SWEEP_EXTENTS, SWEEP_XATTRS, SWEEP_DAMAGED, SWEEP_ORPHANS, SWEEP_TREES };

struct facts {
	inum_t ino;
	bool has_inode, is_orphan, has_damage;
	struct inode_record inode;
	uint64_t names;			     /* of it */
	uint64_t entries, subdirs, markers;  /* in it */
	uint64_t extents, blocks;
	uint64_t written_end, end;	     /* file blocks, of what is written and of all */
	uint64_t xattrs, target_parts, target_bytes;
	bool is_target_whole;		     /* no part of a symlink's target is missing between others */
	struct dirent_record name;	     /* one of its names */
	inum_t dir;			     /* where that is */
	uint64_t cookie;
};

struct sweep {
	struct cursor cursors[SWEEP_TREES];
	struct facts facts;
};

int sweep_begin(struct sweep *sweep, struct records *records);
void sweep_end(struct sweep *sweep);
/* 1: the facts of the next inode that anything tells of; 0: no more. */
int sweep_next(struct sweep *sweep);

#endif
