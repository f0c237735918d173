/* A sparse copy of the metadata alone, for a bug report: what was file data reads as zeros. */
#ifndef DUMP_IMAGE_H
#define DUMP_IMAGE_H

#include "dump/dump.h"
#include "util/iset.h"

struct image_options {
	/* File names, symlink targets and attributes become meaningless ones of the same length; what held the old ones is zeroed, the journal is emptied. */
	bool scramble_names;
	bool replace; /* a file that is there */
};
struct image_report {
	uint64_t size_bytes, copied_bytes;
	uint64_t names, targets, attributes; /* scrambled */
	struct iset skipped;	 /* device bytes of metadata that could not be read: zeros in the image */
};

/*
 * Write it to `path`, which appears only when it is complete. 0; -EEXIST; -EUCLEAN, -EROFS: names cannot be scrambled, since the filesystem cannot be changed as it is;
 * what open(), write() ... answer. report->skipped is the caller's to end (iset_fini), whatever the answer.
 */
int image_write(struct dump *dump, const char *path, const struct image_options *options, struct image_report *report, struct why *why);

#endif
