/* The small medium of the journal target and what an input does to it. */
#ifndef TESTS_FUZZ_JOURNAL_MEDIUM_H
#define TESTS_FUZZ_JOURNAL_MEDIUM_H

#include "format/super_format.h"
#include "tests/fuzz/journal.h"
#include "tests/fuzz/medium.h"

#define JOURNAL_BLOCKS 8u /* tree nodes that every medium has */

struct journal_medium {
	struct medium *medium;
	struct super super;
	devoff_t chunk[2];
	maddr_t blocks[JOURNAL_BLOCKS];
	/* What the records of an input follow, from the head. */
	uint64_t sequence, offset;
	uint32_t epoch;
	/* While an input is built: */
	uint64_t last_offset, last_length;
};

/* Ends the program when it cannot be made. */
void journal_medium_make(struct journal_medium *m, unsigned copies);
void journal_medium_spoil(struct journal_medium *m, const struct program *program);
/* The index-th address that is worth a look: the nodes, fixed blocks, their neighbours, nonsense. */
maddr_t journal_medium_address(const struct journal_medium *m, unsigned index);

#endif
