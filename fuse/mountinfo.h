/* /proc/PID/mountinfo: what is mounted where. Nothing here asks a daemon, so nothing here can hang on one. */
#ifndef FUSE_MOUNTINFO_H
#define FUSE_MOUNTINFO_H

#include <stdbool.h>
#include <sys/types.h>

struct mountinfo {
	dev_t device;
	char type[64];
};

/* The topmost mount at this absolute path, as this process sees it. 0; -ENOENT; the error of opening mountinfo. */
int mountinfo_find(const char *mountpoint, struct mountinfo *out);
/* Is anything of this device mounted where that process lives (0: this one)? */
bool mountinfo_has_device(pid_t pid, dev_t device);
bool mountinfo_is_ours(const struct mountinfo *mount);

#endif
