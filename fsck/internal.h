/* What the phases of a run share. Nobody outside this folder includes it. */
#ifndef FSCK_INTERNAL_H
#define FSCK_INTERNAL_H

#include "format/root_format.h"
#include "fs/inode.h"
#include "fsck/fsck.h"
#include "util/iset.h"

struct repair {
	struct media *media;
	const struct fsck_options *options;
	struct fsck_report *report;
	struct super super;
	struct journal *journal; /* in the phases `table` and `trees`: open, nothing mounted over it */
	struct fs *fs;		 /* from the phase `upgrade` on: mounted with fs_options.repair */
	uint64_t bad_copies, count_unmended; /* metadata blocks with one copy that is bad; of these, those that stay so */
	bool copies_are_told;
	bool table_was_lost; /* some of the chunk table was made anew from what chunks say themselves */
	bool is_suspect;	 /* counters and numbers of the root block may be behind */
	bool root_was_lost;	 /* or out of date: its counters say nothing */
	bool has_said;
	uint64_t said[ROOT_COUNTERS]; /* by the counters, before they were corrected; 0 where they say nothing. What the trees have lost shows in them */
	struct iset recorded;	 /* bad memory that a mount has met and could not mend, as the poison log and the ledger have it */
	struct iset cleared;	 /* memory that was bad and has been written anew, outside of any journal */
	bool was_left;		 /* something was found and not repaired: not asked for, or declined */
};

/* Tell and count. */
void repair_tell(struct repair *repair, enum fsck_grade grade, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* May the phase go on to change what it has found? Says no without `write`, with `preen`, and where the user does. */
bool repair_ask(struct repair *repair, const char *question);
/* As repair_ask() for what loses nothing and needs no judgement: `preen` says yes. */
bool repair_ask_safe(struct repair *repair, const char *question);
void repair_progress(struct repair *repair, const char *phase, uint64_t done_units, uint64_t total_units);

/*
 * Where nothing is written: is some of this range recorded to be bad? Whoever mounts knows of it, does not touch it and uses the other copy: nothing is wrong with the filesystem,
 * and nobody can correct it where memory cannot be cleared. Told as a note. With `write` everything is tried, and told as an error first.
 */
bool repair_is_recorded(const struct repair *repair, devoff_t offset, uint64_t length);

/* Durable: what was stored before, where the next store relies on it. */
int repair_barrier(struct repair *repair);
/* Store outside of any transaction; poison under it is cleared first. */
int repair_write(struct repair *repair, devoff_t offset, const void *bytes, size_t length);

/* --- phases; each 0 or a negative errno that ends the run, with `why` ------------------------------------------------------------ */

/* With `preen` and without `force`, after the phases `super` and `poison log`: is there no sign of anything? */
bool repair_is_clean(struct repair *repair);
/* The superblock that counts; whether it lies where it was made. */
int repair_find(struct repair *repair, struct why *why);
/* Its copies. */
int repair_super(struct repair *repair, struct why *why);
/* What earlier mounts ran into enters the known set before anything else is read. */
int repair_know(struct repair *repair, struct why *why);
int repair_poison_log(struct repair *repair, struct why *why);
/* What the phases before have cleared is good from now on: the log, which says that it is bad, says so too. */
int repair_say_cleared(struct repair *repair, struct why *why);
/* repair->journal is open afterwards. */
int repair_journal(struct repair *repair, struct why *why);
int repair_table(struct repair *repair, struct why *why);
int repair_trees(struct repair *repair, struct why *why);
/* repair->fs is mounted now, repair->journal closed. Older formats become this one. */
int repair_upgrade(struct repair *repair, struct why *why);
/*
 * Trees are sound as trees, some of their records may be missing or wrong. Afterwards fs_check() finds nothing, and nothing is gone that any
 * other record could tell.
 */
int repair_records(struct repair *repair, struct why *why);
/* repair->said. The metadata lock is held. */
void repair_note_counters(struct repair *repair);
/* Every counter of the root block anew from the trees. */
int repair_counters(struct repair *repair, struct why *why);
/* A replica for each chunk that has none; its blocks are still to be copied. Free space is what it says. */
int repair_replicas(struct repair *repair, struct why *why);
/* Both copies of every block in use, read and compared; bad ones written anew. */
int repair_copies(struct repair *repair, struct why *why);
/* What repair_copies() will do, told while repair->journal has not written anything yet. */
int repair_tell_copies(struct repair *repair);

#endif
