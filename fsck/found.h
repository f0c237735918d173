/* Chunks of metadata as their own blocks tell of them, wherever on the device they lie. */
#ifndef FSCK_FOUND_H
#define FSCK_FOUND_H

#include "fsck/internal.h"

struct found_chunk {
	uint64_t chunk;
	devoff_t copy[2];
	uint32_t generation;
	uint8_t shift;
	bool has_header;
	uint64_t sequence; /* of the header */
	/* Without a header: where its blocks say that it begins, and how many do. A block that lies where it does not belong is outvoted. */
	struct {
		devoff_t start;
		unsigned votes;
	} starts[4];
};

struct found_chunks { /* one of each number, ascending */
	struct found_chunk *chunks;
	size_t count, capacity;
};

/* Looks at every block of the device; holes of an image are passed over. 0, -ENOMEM. */
int found_scan(struct repair *repair, struct found_chunks *out);
void found_fini(struct found_chunks *found);

#endif
