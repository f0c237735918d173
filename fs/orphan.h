/* Inodes without names: recorded with the unlink of the last one, freed when nobody holds them. */
#ifndef FS_ORPHAN_H
#define FS_ORPHAN_H

#include "fs/inode.h"

/* nlink has become 0: the orphans record and its counter. */
int orphan_add(struct fs *fs, struct tx *tx, inum_t ino);
/* It has a name again (linkat of an O_TMPFILE). */
int orphan_remove(struct fs *fs, struct tx *tx, inum_t ino);
/* Reclaim those whose last reference went. The caller holds no lock. */
void orphan_reclaim_queued(struct fs *fs);
/* Of these, the ones that waited already when this was called the last time: whoever removes names meanwhile has gone on to other leaves. */
void orphan_reclaim_older(struct fs *fs);
/* Reclaim those of earlier mounts: every orphans record whose inode nobody holds. Stops early when *stop becomes true (may be NULL). */
void orphan_reclaim_left(struct fs *fs, const bool *stop);

#endif
