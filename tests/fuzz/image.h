/* What is done with a hostile image once it is mounted; and what an input may ask for beyond that. */
#ifndef TESTS_FUZZ_IMAGE_H
#define TESTS_FUZZ_IMAGE_H

#include "fs/fs.h"
#include "tests/fuzz/bases.h"
#include "tests/fuzz/program.h"

enum image_order {
	IMAGE_PATCH,  /* place, offset (2), bytes to the end of the order */
	IMAGE_RECORD, /* of a node: place, record (1), offset in it (2), bytes */
	IMAGE_COPY,   /* place, place of the source, keep (1): bytes at the start that stay, in units of 8 */
	IMAGE_FILL,   /* place, offset (2), length (2), byte (1) */
	IMAGE_POISON, /* place, offset (2), length (2) */
	IMAGE_USE,    /* once mounted: opcode (1), arguments */
	IMAGE_ORDERS,
};
/* A place in an order: kind (1), index (2), copies (1): a bit for each, none for all, IMAGE_RAW for "leave the checksum broken". */
#define IMAGE_RAW 0x80u

/* The head of an input: base (1), mode (1), seed (8). */
enum image_mode {
	IMAGE_READONLY = 1,
	IMAGE_ABANDON = 2, /* instead of an unmount */
	IMAGE_CHECK = 4,
	IMAGE_FSCK = 8,
	IMAGE_PREEN = 16,
	IMAGE_AGAIN = 32, /* mount a second time */
	IMAGE_QUERY = 64,
};

#define IMAGE_USES 32u

/* Walk, read and ask, within bounds; then the orders of use. */
void image_use(struct fs *fs, const struct base *base, const struct program *program);
/* The medium as the orders say. */
void image_spoil(const struct base *base, const struct program *program);

#endif
