/*
 * Checking and repairing a filesystem that nobody has mounted. The order of the work:
 *   super      the superblock from its copies
 *   journal    replayed; dropped only when it cannot be, saying what that loses
 *   table      chunk table, chunk headers and root block, from each other and from the blocks themselves
 *   trees      inner nodes anew over the leaves that are whole; which blocks are in use; replicas and primaries from each other
 *   records    trees against each other: whatever one says that another has lost is put back
 *   replicas   a chunk of metadata with one copy gets the other; whatever copy is bad is written from the good one
 *   check      fs_check() judges the result
 * Without `write` only what can be seen without changing a byte is told.
 */
#ifndef FSCK_FSCK_H
#define FSCK_FSCK_H

#include "fs/fs.h"
#include "fs/query.h"

enum fsck_grade {
	FSCK_NOTE,   /* not an error: what was done, what was counted */
	FSCK_ERROR,  /* something is wrong */
	FSCK_FIXED,  /* something was wrong and is not any more */
	FSCK_LOSS,   /* could not be derived from anything: what is gone */
};

struct fsck_options {
	bool write; /* repair */
	bool preen; /* with write: only what loses nothing and needs no judgement (journal replay, copies); else stop and say so */
	bool force; /* check in full also where the last mount ended well and nothing is marked */
	/* One line, without a newline. Never NULL. */
	void (*tell)(void *arg, enum fsck_grade grade, const char *line);
	/* Before the first change of a phase: false leaves that phase undone. NULL: yes. */
	bool (*ask)(void *arg, const char *question);
	/* total_units 0: unknown. NULL: nobody looks. */
	void (*progress)(void *arg, const char *phase, uint64_t done_units, uint64_t total_units);
	void *arg;
};

struct fsck_report {
	uint64_t errors;    /* found */
	uint64_t fixed;
	uint64_t left;	    /* found by the last check, after all repairs */
	uint64_t losses;    /* records that could not be derived */
	uint64_t lost_found; /* inodes put into lost+found */
	bool changed;	    /* a byte was written */
	struct fs_check_totals totals;
};

/*
 * The medium is open, claimed by the caller, and stays open. 0 when the work was done, whatever it found; -EUCLEAN: no superblock
 * of mendfs, -EIO, -ENOMEM ...: could not be done, `why` says it. Never crashes or loops, whatever the bytes are.
 */
int fsck_run(struct media *media, const struct fsck_options *options, struct fsck_report *report, struct why *why);

#endif
