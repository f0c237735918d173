#include "fuse/counters.h"

#include <stdatomic.h>
#include <time.h>

static struct {
	_Alignas(64) _Atomic uint64_t count;
	_Atomic uint64_t total_ns;
	_Atomic uint64_t histogram[COUNTER_BUCKETS];
} counters[OP_COUNT];

static const char *const names[OP_COUNT] = {
	[OP_LOOKUP] = "LOOKUP", [OP_FORGET] = "FORGET", [OP_GETATTR] = "GETATTR", [OP_SETATTR] = "SETATTR",
	[OP_READLINK] = "READLINK", [OP_MKNOD] = "MKNOD", [OP_MKDIR] = "MKDIR", [OP_UNLINK] = "UNLINK",
	[OP_RMDIR] = "RMDIR", [OP_SYMLINK] = "SYMLINK", [OP_RENAME] = "RENAME", [OP_LINK] = "LINK",
	[OP_OPEN] = "OPEN", [OP_READ] = "READ", [OP_WRITE] = "WRITE", [OP_FLUSH] = "FLUSH",
	[OP_RELEASE] = "RELEASE", [OP_FSYNC] = "FSYNC", [OP_OPENDIR] = "OPENDIR", [OP_READDIR] = "READDIR",
	[OP_READDIRPLUS] = "READDIRPLUS", [OP_FSYNCDIR] = "FSYNCDIR", [OP_STATFS] = "STATFS",
	[OP_CREATE] = "CREATE", [OP_FALLOCATE] = "FALLOCATE", [OP_COPY_FILE_RANGE] = "COPY_FILE_RANGE",
	[OP_LSEEK] = "LSEEK", [OP_TMPFILE] = "TMPFILE", [OP_STATX] = "STATX",
};

const char *counter_name(enum counter_op op)
{
	return names[op];
}

uint64_t counter_begin(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static unsigned bucket_of(uint64_t ns)
{
	unsigned bucket = ns ? 63u - (unsigned)__builtin_clzll(ns) : 0;

	return bucket < COUNTER_BUCKETS ? bucket : COUNTER_BUCKETS - 1;
}

void counter_end(enum counter_op op, uint64_t begin_ns)
{
	uint64_t ns = counter_begin() - begin_ns;

	atomic_fetch_add_explicit(&counters[op].count, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&counters[op].total_ns, ns, memory_order_relaxed);
	atomic_fetch_add_explicit(&counters[op].histogram[bucket_of(ns)], 1, memory_order_relaxed);
}

void counter_get(enum counter_op op, struct counter *out)
{
	out->count = atomic_load_explicit(&counters[op].count, memory_order_relaxed);
	out->total_ns = atomic_load_explicit(&counters[op].total_ns, memory_order_relaxed);
	for (unsigned i = 0; i < COUNTER_BUCKETS; i++)
		out->histogram[i] = atomic_load_explicit(&counters[op].histogram[i], memory_order_relaxed);
}
