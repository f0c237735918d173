/*
 * What lies where in an image, so that an input can say "the second node of the extents tree" and go on meaning that when the code that makes the
 * image changes. A place is one structure with all of its copies.
 */
#ifndef TESTS_FUZZ_PLACES_H
#define TESTS_FUZZ_PLACES_H

#include "format/block_format.h"

enum place_kind {
	PLACE_SUPER,	      /* one place, a copy per slot */
	PLACE_ROOT,
	PLACE_TABLE,
	PLACE_CHUNK,	      /* chunk headers */
	PLACE_JOURNAL_HEAD,
	PLACE_JOURNAL_RECORD, /* those from the tail on */
	PLACE_POISON_LOG,     /* a place per slot */
	PLACE_RAW,	      /* a place per block of the medium */
	PLACE_TREE,	      /* + enum format_tree_id: its nodes */
	PLACE_KINDS = PLACE_TREE + FORMAT_TREE_COUNT,
};

#define PLACE_COPIES_MAX 8u

struct place {
	enum place_kind kind;
	unsigned copies;
	size_t length;
	devoff_t offset[PLACE_COPIES_MAX];
};

struct places;

/* Look through an image. NULL: no memory, or not an image. */
struct places *places_find(const uint8_t *image, size_t size_bytes);
/* There is always one: the next kind that has places, the index wrapped around. */
struct place places_get(const struct places *places, unsigned kind, uint64_t index);
/* How many of this kind; 0 for PLACE_RAW. */
size_t places_count(const struct places *places, unsigned kind);
/* Put the checksum of the structure that begins here right. */
void place_seal(const struct place *place, uint8_t *bytes);

#endif
