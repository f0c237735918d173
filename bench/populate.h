/*
 * Fill a fresh filesystem with files of that many extents each, 1,000 files to a directory. Through the trees, in large transactions, because a write for
 * each extent would take hours; no data is stored, so that the image stays as small as its metadata. The result is valid in every respect. Files
 * lie on the device in another order than their numbers, each with its blocks backwards, so that nothing merges and extents and reverse map are
 * sorted differently.
 */
#ifndef BENCH_POPULATE_H
#define BENCH_POPULATE_H

#include "fs/fs.h"

/* The image needs 12 KiB for each extent. 0 or negative errno, told on stderr. Only once, before the inodes are used: what is in memory does not learn of it. */
int populate_files(struct fs *fs, uint64_t files, uint64_t extents);
/* Where the extents lie: one block each, count of them from here on. */
blkno_t populate_base(const struct fs *fs);

#endif
