/* Is this target ours to overwrite? */
#ifndef MKFS_TARGET_H
#define MKFS_TARGET_H

#include "media/media.h"
#include "mkfs/options.h"

enum target_kind {
	TARGET_NEW,	 /* a file to be created */
	TARGET_EMPTY,	 /* a regular file without a block in it */
	TARGET_EXISTING, /* a file or device that may hold something */
};

/* 0; or negative errno: neither there nor to be created. */
int target_classify(const struct mkfs_options *options, enum target_kind *out, struct why *why);
/*
 * Refuses (-EEXIST) an existing target that is mounted or holds a filesystem, a partition table or an earlier mendfs. What is known to be bad is not
 * read.
 */
int target_check(struct media *media, struct why *why);

#endif
