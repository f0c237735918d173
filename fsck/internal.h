/* What the phases of a run share. Nobody outside this folder includes it. */
#ifndef FSCK_INTERNAL_H
#define FSCK_INTERNAL_H

#include "fs/inode.h"
#include "fsck/fsck.h"

struct repair {
	struct media *media;
	const struct fsck_options *options;
	struct fsck_report *report;
	struct super super;
	struct fs *fs; /* from the phase `trees` on: mounted with fs_options.repair */
};

/* Tell and count. */
void repair_tell(struct repair *repair, enum fsck_grade grade, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool repair_ask(struct repair *repair, const char *question);
void repair_progress(struct repair *repair, const char *phase, uint64_t done_units, uint64_t total_units);

/* --- phases; each 0 or a negative errno that ends the run, with `why` ------------------------------------------------------------ */

int repair_super(struct repair *repair, struct why *why);
int repair_journal(struct repair *repair, struct why *why);
int repair_table(struct repair *repair, struct why *why);
/* repair->fs is mounted now. */
int repair_trees(struct repair *repair, struct why *why);
/*
 * Trees are sound as trees, some of their records may be missing or wrong. Afterwards fs_check() finds nothing, and nothing is gone that any
 * other record could tell.
 */
int repair_records(struct repair *repair, struct why *why);

#endif
