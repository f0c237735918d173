/* What a path is: a regular file, a device-dax or block device, or something that cannot be used,
 * with the reason. */
#ifndef MEDIA_DEVICE_H
#define MEDIA_DEVICE_H

#include <sys/stat.h>

#include "util/types.h"
#include "util/why.h"

enum device_kind { DEVICE_FILE, DEVICE_DAX, DEVICE_BLOCK };

/* 0 for what can be used; *kind tells what it is. `sysfs` is "/sys" but in tests. */
int device_check(const char *sysfs, const char *path, const struct stat *st, struct why *why,
		 enum device_kind *kind);
/* A line for a path that does not exist, which may be a dax device in system-ram mode. Returns the
 * error. */
int device_explain_missing(const char *sysfs, const char *path, int error, struct why *why);
/* In bytes, from sysfs: stat() of a device-dax device says 0. */
int device_size(const char *sysfs, const struct stat *st, struct why *why, uint64_t *size);
/* A mapped device that faults with BUS_ADRERR: is it no longer there? */
bool device_is_gone(int fd, uint64_t alignment);

#endif
