/* What the user named: a mounted filesystem (by its mount point, a path inside, or its device or
 * image), or one that is not mounted. */
#ifndef MENDCTL_TARGET_H
#define MENDCTL_TARGET_H

#include "mendctl/client.h"
#include "mendctl/mounts.h"

struct target {
	struct client *client; /* mounted: connected and greeted, one request; NULL: not mounted */
	char *mountpoint;      /* mounted; may be NULL where the daemon only was found */
	char *source;          /* the device or image */
	dev_t dev;             /* of the files in the mount; 0: unknown */
};

/* 0; -ENOENT, -ENOTCONN (a dead mount), -EPERM, -EBUSY, -EINVAL, ... with *why. Waits up to 30 s
 * for a daemon that is unmounting. */
int target_find(const char *name, struct why *why, struct target *out);
/* A mount found in the table. */
int target_connect(const struct mount_entry *mount, struct why *why, struct target *out);
void target_fini(struct target *target);
/* For what reads the device itself: 0 when nobody has it mounted, else -EBUSY that says what to do. */
int target_refuse_mounted(const char *name, struct why *why);
/* Is it a path inside a mounted mendfs (and not its device)? Then its mount, in *out (mounts_free()
 * of *entries ends it). */
int target_mount_of(const char *path, struct mount_entry **entries, const struct mount_entry **out,
		    struct why *why);

#endif
