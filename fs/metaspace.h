/*
 * Metadata space: chunk pairs taken from free space before what is left could not carry the next transactions, given back when empty.
 * Each in transactions of its own, so that splitting a tree never recurses into allocation.
 */
#ifndef FS_METASPACE_H
#define FS_METASPACE_H

#include "fs/inode.h"

/* Give an empty chunk back, and those that an earlier mount had begun to. Takes locks; the caller holds none. */
void metaspace_shrink(struct fs *fs);
/* Free blocks that statfs may not promise to data: what metadata still needs to describe the rest. */
uint64_t metaspace_reserve_blocks(struct fs *fs);

#endif
