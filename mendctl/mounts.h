/* The mounted mendfs filesystems, from /proc/self/mountinfo: nothing here asks a daemon, so nothing
 * here can hang on one. */
#ifndef MENDCTL_MOUNTS_H
#define MENDCTL_MOUNTS_H

#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "util/types.h"
#include "util/why.h"

struct mount_entry {
	uint64_t id; /* statx's stx_mnt_id */
	dev_t dev;   /* st_dev of the files in it */
	uid_t uid;   /* who mounted it: the kernel says so */
	char *mountpoint;
	char *source; /* as given to mount */
	struct mount_entry *next;
};

/* In the order they were mounted; *out NULL: none. */
int mounts_read(struct mount_entry **out, struct why *why);
/* The same from any text of that form. 0, -ENOMEM. */
int mounts_parse(FILE *file, struct mount_entry **out);
void mounts_free(struct mount_entry *entries);
const struct mount_entry *mounts_by_id(const struct mount_entry *entries, uint64_t id);
/*
 * The mount of this device or image: sources with a full path that lead to the same inode or device
 * number. Anybody may claim any source in a mount of his own: only what root, we, or the owner of
 * the device or image have mounted counts.
 */
const struct mount_entry *mounts_by_source(const struct mount_entry *entries,
					   const struct stat *st);
/* The last mounted one whose mount point is `path` or a parent of it; for paths that cannot be
 * looked at. */
const struct mount_entry *mounts_by_path(const struct mount_entry *entries, const char *path);

#endif
