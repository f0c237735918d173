/*
 * Per-opcode counts, total time and log2 latency histograms of the requests that the daemon answered. Each thread counts in memory of its own,
 * so that counting never moves a cache line between CPUs. INTERRUPT is not among them: libfuse answers it by itself.
 */
#ifndef FUSE_COUNTERS_H
#define FUSE_COUNTERS_H

#include <stdint.h>

enum counter_op {
	OP_LOOKUP, OP_FORGET, OP_BATCH_FORGET, OP_GETATTR, OP_SETATTR, OP_READLINK, OP_MKNOD, OP_MKDIR, OP_UNLINK, OP_RMDIR, OP_SYMLINK,
	OP_RENAME, OP_LINK, OP_OPEN, OP_READ, OP_WRITE, OP_FLUSH, OP_RELEASE, OP_FSYNC, OP_OPENDIR, OP_READDIR,
	OP_READDIRPLUS, OP_RELEASEDIR, OP_FSYNCDIR, OP_SYNCFS, OP_STATFS, OP_CREATE, OP_FALLOCATE, OP_COPY_FILE_RANGE, OP_LSEEK, OP_TMPFILE,
	OP_STATX, OP_SETXATTR, OP_GETXATTR, OP_LISTXATTR, OP_REMOVEXATTR, OP_IOCTL, OP_COUNT,
};

#define COUNTER_BUCKETS 40 /* bucket i: [2^i, 2^(i+1)) ns */

struct counter {
	uint64_t count;
	uint64_t total_ns;
	uint64_t histogram[COUNTER_BUCKETS];
};

uint64_t counter_begin(void);
/* Counts one request that ends now. Without memory for this thread's counters it is not counted. */
void counter_end(enum counter_op op, uint64_t begin_ns);
const char *counter_name(enum counter_op op);
/* The sum over all threads, those that ended included. */
void counter_get(enum counter_op op, struct counter *out);

#endif
