/*
 * Mount options that are the VFS's business, or mount(8)'s, in the words of mount(8). The later of two that contradict each other wins.
 */
#ifndef FUSE_VFS_OPTIONS_H
#define FUSE_VFS_OPTIONS_H

#include "fs/fs.h"
#include "fuse/fuse_api.h"
#include "util/why.h"

struct vfs_options {
	unsigned long flags; /* MS_ of mount(2), MS_STRICTATIME and MS_NOATIME among them */
	bool remount;
};

/* Take it if it is one: true. What is harmless and means nothing here (nofail, x-..., iversion ...) is taken and forgotten. */
bool vfs_option_take(struct vfs_options *options, const char *option);
/* The kernel leaves access times to the server of a FUSE mount. */
enum fs_atime vfs_options_atime(const struct vfs_options *options);
/* What libfuse is to pass to the kernel. 0, -ENOMEM. */
int vfs_options_emit(const struct vfs_options *options, struct fuse_args *args);
/* After the mount: what libfuse cannot pass. 0, or the errno of mount_setattr(2). */
int vfs_options_finish(const struct vfs_options *options, const char *mountpoint);
/* mount -o remount: change the flags of the mendfs mount at this absolute path. The kernel keeps them; no daemon is told. 0, or the error with `why`. */
int vfs_options_remount(const struct vfs_options *options, const char *mountpoint, struct why *why);

#endif
