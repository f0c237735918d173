/*
 * What only the mount of a block device (type fuseblk) gets, and libfuse does not hand on as it is needed. SYNCFS, which libfuse up to 3.18 does not know, becomes
 * an FSYNCDIR with a handle of its own. DESTROY, for whose answer umount(2) waits, is not answered: the session ends, and the kernel goes on when its last descriptor
 * is closed, which is when everything is written and the device is released.
 */
#ifndef FUSE_BLKDEV_H
#define FUSE_BLKDEV_H

#include <linux/fuse.h>

#include "fuse/fuse_api.h"

#define BLKDEV_SYNCFS_HANDLE UINT64_MAX

/* Of the one session of this process, before it is mounted. 0; -ENOTSUP: this libfuse does not let its requests be looked at. */
int blkdev_watch(struct fuse_session *session);
/* Forget it again. */
void blkdev_unwatch(void);
/* DESTROY has come: the file system is unmounted, and umount(2) waits for the session's descriptors. */
bool blkdev_is_destroyed(void);

/* For the twins blkdev_wrap.c and blkdev_io.c: a request that libfuse is about to dispatch. True: it is not to see it. */
void blkdev_watch_now(struct fuse_session *session);
bool blkdev_take(struct fuse_in_header *header, void *argument);

#endif
