/*
 * Chunks of metadata as blocks tell of them, wherever on the device they lie: their headers, leaves of the reverse map, and the addresses of all others.
 * Any of them may lie where it does not belong or be of an earlier life of a chunk's number, so what they say is collected first and weighed afterwards.
 */
#ifndef FSCK_FOUND_H
#define FSCK_FOUND_H

#include "fsck/internal.h"

struct found_chunk {
	uint64_t chunk;
	bool has_header; /* the fields up to `sequence` are what it says */
	bool is_confirmed; /* by a block that lies where the header has it */
	devoff_t copy[2];
	uint32_t generation;
	uint8_t shift;
	uint64_t sequence;
	struct { /* as the youngest leaf of the reverse map has it; sequence 0: none does */
		devoff_t start;
		uint8_t shift;
		uint64_t sequence;
	} named[2];
	size_t first_place, count_places;
	unsigned votes; /* for the likeliest place */
};

struct found_place { /* where a copy of the chunk may begin */
	uint64_t chunk;
	devoff_t start;
	unsigned votes; /* blocks that lie where this copy would have them */
	unsigned last;	/* of these, the highest number within the chunk */
	uint8_t named;	/* by the reverse map, as copy named - 1; 0: it does not */
};

struct found_chunks {
	struct found_chunk *chunks; /* one of each number; first those with a header, confirmed ones before others, the younger first; then those without, more votes first */
	size_t count, capacity;
	struct found_place *places; /* by chunk, the likelier first */
	size_t count_places, capacity_places;
};

/* Looks at every block of the device; holes of an image are passed over. 0, -ENOMEM. */
int found_scan(struct repair *repair, struct found_chunks *out);
void found_fini(struct found_chunks *found);

#endif
