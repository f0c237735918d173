/*
 * A metadata block of which no copy can be read: what it was and whom that concerns, as far as the nodes above it and other trees tell.
 */
#ifndef NOTIFY_LOSS_H
#define NOTIFY_LOSS_H

#include "util/types.h"

#define LOSS_FILES_MAX 16u /* told of by name */

struct meta_loss {
	maddr_t address;
	devoff_t device_offset; /* of the primary */
	const char *tree;	/* static; "unknown": no node that can be read names it */
	const char *advice;	/* static: what helps, and what it will not bring back */
	bool is_node;
	unsigned level; /* of a node; 0: a leaf */
	bool has_inodes; /* its records belong to these inode numbers and no other: */
	inum_t first_ino, last_ino;
	devoff_t covers_offset; /* its records are about this part of the device: */
	uint64_t covers_bytes;	/* 0: they are not about any */
	bool has_files;		/* other trees were asked who has something in it: */
	uint64_t count_files;	/* at most so many */
	bool has_more_files;	/* the count ended early */
};

struct loss_file {
	inum_t ino;
	char **paths; /* count_paths strings, the first ones; NULL: none can be found */
	size_t count_paths;
};

/* With some of the files, for an event. On the heap. */
struct loss_report {
	struct meta_loss loss;
	struct loss_file files[LOSS_FILES_MAX];
	size_t count_files;
};

struct loss_report *loss_report_copy(const struct loss_report *report); /* or NULL */
void loss_report_free(struct loss_report *report);		       /* or of NULL */

#endif
