/* Root block and chunk table as recovery makes them, mended before anything that they place is read. */
#ifndef FSCK_TABLE_H
#define FSCK_TABLE_H

#include "fsck/internal.h"
#include "journal/salvage.h"

struct table_state {
	struct repair *repair;
	bool quiet;		/* the second time: everything was told */
	bool root_lost, root_stale;
	uint64_t blocks_lost;	/* of the chunk table */
	uint64_t entries_lost;	/* single ones */
	uint64_t found;		/* chunks that only their own blocks tell of */
};

/* A journal_salvage.mend; arg is a struct table_state. */
int table_mend(void *arg, struct journal *journal, struct salvage_fixed *fixed, struct why *why);

#endif
