/*
 * What is known to be bad: told by the kernel or by IMAGE.poison before anything is touched, or met while mkfs writes.
 */
#ifndef MKFS_KNOWN_H
#define MKFS_KNOWN_H

#include "media/media.h"

struct known {
	struct iset bad;      /* device bytes, whole sectors; tag: enum known_tag */
	uint8_t source;       /* enum failure_source of what was told */
	uint64_t bytes_told;
	size_t count_told;
	bool is_unknown;      /* a device whose kernel cannot say */
};
enum known_tag { KNOWN_TOLD = 1, KNOWN_MET = 2 };

/* Ask the sources and enter what they say into media's known set. */
int known_load(struct media *media, struct known *out, struct why *why);
void known_fini(struct known *known);
/* After -EIO: take over what media has met since. *more: there was something new. */
int known_refresh(struct media *media, struct known *known, bool *more);
/* All of it, in order, for fs_format(); free() it. */
int known_list(const struct known *known, struct media_poison **out, size_t *count);

#endif
