/* Write a filesystem: plan around what is bad, write, and plan again when a store meets poison that nobody knew of. */
#ifndef MKFS_BUILD_H
#define MKFS_BUILD_H

#include "mkfs/poisoned.h"
#include "mkfs/layout.h"
#include "mkfs/options.h"

struct build {
	const struct mkfs_options *options;
	struct super super; /* as written */
	struct layout layout;
	struct poisoned poisoned;
};

/* Identity and geometry; nothing is written. media may be NULL: a file that is not there yet. */
int build_plan(struct build *build, struct media *media, struct why *why);
/* Everything, superblocks last. */
int build_write(struct build *build, struct media *media, struct why *why);
void build_fini(struct build *build);
/* What is left for files and for metadata to grow into. */
uint64_t build_data_bytes(const struct build *build);
/* Known bad bytes rounded outward to blocks, which no file gets. */
uint64_t build_quarantined_bytes(const struct build *build);

#endif
