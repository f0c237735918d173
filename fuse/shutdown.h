/* The end of use while it is mounted. */
#ifndef FUSE_SHUTDOWN_H
#define FUSE_SHUTDOWN_H

#include <linux/fs.h>
#include <sys/ioctl.h>

#include "fuse/ioctl.h"

#ifndef FS_IOC_SHUTDOWN
#define FS_IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#endif
/* Its modes, as XFS has them. */
enum { SHUTDOWN_DEFAULT, SHUTDOWN_LOGFLUSH, SHUTDOWN_NOLOGFLUSH };

int shutdown_ioctl(struct ioctl_call *call);
/*
 * fs_stop(), with what the kernel holds before it where all is to be durable, and what the kernel knows dropped after it: attributes at once, pages a moment later. Not on
 * a ring's thread.
 */
int front_shut_down(struct front *front, enum fs_stop_mode mode);

#endif
