/* What the two ways of mendctl dedupe share: a pair of ranges, and the report. */
#ifndef MENDCTL_DEDUPE_H
#define MENDCTL_DEDUPE_H

#include "mendctl/options.h"
#include "mendctl/output.h"

struct dedupe_pair {
	const char *source, *path; /* names, for the report */
	int source_fd, fd;
	uint64_t source_pos, pos, length;
	uint64_t done, gained; /* out: bytes that are the same, and newly shared (dry: that would be) */
	bool differs;	       /* out: what is behind `done` is not the same */
};

struct dedupe {
	const struct options *options;
	struct output *output;
	uint64_t files, bytes, ranges, gained, skipped;
};

/* Share, or with --dry-run compare. 0 whatever is found, or negative errno: the rest cannot be shared. */
int dedupe_pair_run(struct dedupe *dedupe, struct dedupe_pair *pair);
/* One element of the answer. */
int dedupe_report(struct dedupe *dedupe, const struct dedupe_pair *pair, struct why *why);
/* A file that cannot be read or changed is told of, and left out. */
void dedupe_skip(struct dedupe *dedupe, const char *path, int error);
/* Open for reading, to be a target as well if it may be; -errno. */
int dedupe_open(const char *path);

int dedupe_files(struct dedupe *dedupe, struct why *why); /* dedupe_pair.c */
int dedupe_trees(struct dedupe *dedupe, struct why *why); /* dedupe_tree.c */

#endif
