/*
 * Where everything fixed lies on a new filesystem: superblock copies, poison log, journal, fixed metadata (root block and chunk table),
 * the first chunk pair. Computed in memory, around what is known to be bad; O(bad ranges), never O(size).
 */
#ifndef MKFS_LAYOUT_H
#define MKFS_LAYOUT_H

#include "format/super_format.h"
#include "util/iset.h"
#include "util/why.h"

struct layout_request {
	uint64_t size_bytes;
	unsigned copies;	/* of metadata: 1 or 2 */
	const struct iset *bad; /* device bytes */
};

struct layout {
	uint64_t size_bytes; /* rounded down to whole blocks */
	unsigned copies;
	uint8_t chunk_shift;
	uint32_t slots; /* superblock slots that carry a copy */
	struct area areas[AREA_COUNT];
	devoff_t chunk[2]; /* chunk[1] = 0 with a single copy */
};

/*
 * Primaries lie near the start, replicas from the middle on; the copies of one thing never share a 2 MiB page, nothing overlaps a
 * superblock slot or a bad range. 0; -EINVAL: too small; -ENOSPC: no place is left, `why` names what and the bad range in its way; -ENOMEM.
 */
int layout_plan(const struct layout_request *request, struct layout *out, struct why *why);

/* 0; -EINVAL: no filesystem has this size. layout_plan() asks too. */
int layout_check_size(uint64_t size_bytes, struct why *why);

/* Every range the layout has placed, superblock slots with a copy first. Returns how many; at most LAYOUT_RANGES_MAX. */
#define LAYOUT_RANGES_MAX (SUPER_SLOTS + 2 * AREA_COUNT + 2)
struct layout_range {
	devoff_t offset;
	uint64_t length_bytes;
};
unsigned layout_ranges(const struct layout *layout, struct layout_range ranges[LAYOUT_RANGES_MAX]);

#endif
