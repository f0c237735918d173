/* Who owns a device range, gathered without a lock held between windows: files merged to contiguous file ranges, and the rest. */
#ifndef NOTIFY_OWNERS_H
#define NOTIFY_OWNERS_H

#include "rmap/rmap.h"

/* A contiguous range of one file, whole blocks. */
struct owner_file {
	inum_t ino;
	uint64_t pos, length_bytes;
	devoff_t device_offset; /* of pos */
	uint64_t lost_bytes;	/* of the queried range in it */
};

/* Blocks of one special owner; offset as in rmap. */
struct owner_meta {
	uint64_t owner, offset;
	blkno_t block;
	uint64_t count;
};

struct owners {
	struct owner_file *files; /* by inode, pos */
	size_t count_files, capacity_files;
	struct owner_meta *metas; /* by block; no quarantine */
	size_t count_metas, capacity_metas;
	uint64_t sharers; /* distinct inodes */
	devoff_t start, end;
};

/*
 * Everyone with content in [start, end) (unwritten blocks have none). *out is valid, and to be ended by owners_fini(), in any case; an error
 * (-ENOMEM, -EIO, -EUCLEAN) means that some may be missing; metadata in chunks are found all the same. Takes the metadata lock shared by itself.
 */
int owners_collect(struct journal *journal, const struct rmap *rmap, devoff_t start, devoff_t end, struct owners *out);
void owners_fini(struct owners *owners);

#endif
