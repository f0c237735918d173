/*
 * What lies at home, copy by copy, without what memory knows: for the checker. Caller holds the metadata lock, so that no write-back runs
 * meanwhile. Nothing is repaired or reported here.
 */
#ifndef JOURNAL_HOME_H
#define JOURNAL_HOME_H

#include "journal/journal.h"

enum home_state {
	HOME_WHOLE,
	HOME_ABSENT,	 /* there is to be none */
	HOME_KNOWN_BAD,	 /* in the known set: not read */
	HOME_UNREADABLE, /* poison that nobody knew of; known from now on */
	HOME_DAMAGED,	 /* see field */
	HOME_OLDER,	 /* whole, with a lower sequence than the other copy */
	HOME_DIFFERS,	 /* whole, other bytes under the same sequence: of copy 1 */
};
struct home_copy {
	enum home_state state;
	devoff_t offset;
	const char *field;
};
struct home {
	struct home_copy copy[2];
	bool differs_from_memory; /* a whole copy is not what the cache has */
};

/* A block in use. 0; -EBUSY: memory is newer, so that home says nothing; the error of finding out where it lies. */
int journal_home_check(struct journal *journal, maddr_t address, struct home *out);
/* The two heads of the log. */
void journal_heads_check(struct journal *journal, struct home *out);

#endif
