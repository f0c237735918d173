/*
 * Metadata space: chunk pairs taken from free space before what is left could not carry the next transactions, given back when empty.
 * Each in transactions of its own, so that splitting a tree never recurses into allocation.
 */
#ifndef FS_METASPACE_H
#define FS_METASPACE_H

#include "fs/inode.h"

/* Give an empty chunk back, and those that an earlier mount had begun to. Takes locks; the caller holds none. */
void metaspace_shrink(struct fs *fs);
#endif
