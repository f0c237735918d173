/*
 * What others know of the medium: the kernel's list of bad blocks, the scrub of the bus that the memory is on, and the health of its DIMMs. Everything that
 * needs libndctl has a twin without it. A file on direct-access persistent memory is asked for through libpmem2 (media/fsdax.h). Touches no medium.
 */
#ifndef NOTIFY_SOURCE_H
#define NOTIFY_SOURCE_H

#include "media/media.h"

enum source_state {
	SOURCE_NONE,	/* nobody keeps a list for such a medium: a file or block device elsewhere */
	SOURCE_KNOWN,	/* what is not listed is not known to be bad */
	SOURCE_UNKNOWN, /* there should be a list, but it cannot be had: empty does not mean clean */
};

struct source_badblock {
	devoff_t offset;
	uint64_t length;
};

struct source_list {
	enum source_state state;
	struct source_badblock *blocks; /* of SOURCE_KNOWN; clipped to the medium */
	size_t count;
	struct why why; /* of SOURCE_UNKNOWN: the reason, and what helps */
};

/* Present bad blocks. 0 whatever the state is; -ENOMEM or another error of asking. source_list_fini() after 0. */
int source_badblocks(struct media *media, struct source_list *out);
void source_list_fini(struct source_list *list);
/* "known", "unknown"; NULL of SOURCE_NONE. */
const char *source_state_name(enum source_state state);
int source_list_add(struct source_list *list, devoff_t offset, uint64_t length);
/*
 * A descriptor that poll() reports with POLLPRI when the list that source_badblocks() reads has changed, once it was read to its end with pread(). The
 * caller closes it. -ENOTSUP: this medium has no such list.
 */
int source_watch(struct media *media);

/* --- twins, for source.c: of a device-dax device --- */

int source_device_badblocks(const char *path, struct source_list *out);
int source_device_watch(const char *path);

#endif
