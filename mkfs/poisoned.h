/*
 * What is known to be bad: told by the kernel or by IMAGE.poison before anything is touched, or met while mkfs writes.
 */
#ifndef MKFS_POISONED_H
#define MKFS_POISONED_H

#include "media/media.h"
#include "util/why.h"

struct poisoned {
	struct iset bad;      /* device bytes, whole sectors; tag: enum poisoned_tag */
	uint8_t source;       /* enum failure_source of what was told */
	uint64_t bytes_told;
	size_t count_told;
	bool is_unknown;      /* the kernel's list cannot be had */
	struct why why;	      /* of is_unknown */
};
enum poisoned_tag { POISONED_TOLD = 1, POISONED_MET = 2 };

/* Ask the sources and enter what they say into media's known set. */
int poisoned_load(struct media *media, struct poisoned *out, struct why *why);
void poisoned_fini(struct poisoned *poisoned);
/* After -EIO: take over what media has met since. *more: there was something new. */
int poisoned_refresh(struct media *media, struct poisoned *poisoned, bool *more);
/* All of it, in order, for fs_format(); free() it. */
int poisoned_list(const struct poisoned *poisoned, struct media_poison **out, size_t *count);

#endif
