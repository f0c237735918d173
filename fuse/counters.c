#include "fuse/counters.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct cell {
	_Atomic uint64_t count;
	_Atomic uint64_t total_ns;
	_Atomic uint64_t histogram[COUNTER_BUCKETS];
};

/* Written by one thread at a time, read by all. Never freed: the next thread goes on where one that ended left off. */
struct shard {
	_Alignas(64) struct cell cells[OP_COUNT];
	struct shard *next;
	_Atomic bool is_taken;
};

static _Atomic(struct shard *) shards;
static _Thread_local struct shard *mine;
static pthread_key_t shard_key;
static pthread_once_t shard_once = PTHREAD_ONCE_INIT;

static const char *const names[OP_COUNT] = {
	[OP_LOOKUP] = "LOOKUP", [OP_FORGET] = "FORGET", [OP_BATCH_FORGET] = "BATCH_FORGET", [OP_GETATTR] = "GETATTR",
	[OP_SETATTR] = "SETATTR", [OP_READLINK] = "READLINK", [OP_MKNOD] = "MKNOD", [OP_MKDIR] = "MKDIR", [OP_UNLINK] = "UNLINK",
	[OP_RMDIR] = "RMDIR", [OP_SYMLINK] = "SYMLINK", [OP_RENAME] = "RENAME", [OP_LINK] = "LINK",
	[OP_OPEN] = "OPEN", [OP_READ] = "READ", [OP_WRITE] = "WRITE", [OP_FLUSH] = "FLUSH",
	[OP_RELEASE] = "RELEASE", [OP_FSYNC] = "FSYNC", [OP_OPENDIR] = "OPENDIR", [OP_READDIR] = "READDIR",
	[OP_READDIRPLUS] = "READDIRPLUS", [OP_RELEASEDIR] = "RELEASEDIR", [OP_FSYNCDIR] = "FSYNCDIR", [OP_SYNCFS] = "SYNCFS", [OP_STATFS] = "STATFS",
	[OP_CREATE] = "CREATE", [OP_FALLOCATE] = "FALLOCATE", [OP_COPY_FILE_RANGE] = "COPY_FILE_RANGE",
	[OP_LSEEK] = "LSEEK", [OP_TMPFILE] = "TMPFILE", [OP_STATX] = "STATX", [OP_SETXATTR] = "SETXATTR",
	[OP_GETXATTR] = "GETXATTR", [OP_LISTXATTR] = "LISTXATTR", [OP_REMOVEXATTR] = "REMOVEXATTR", [OP_IOCTL] = "IOCTL",
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

/* The thread ends. */
static void shard_leave(void *arg)
{
	struct shard *shard = arg;

	mine = NULL;
	atomic_store_explicit(&shard->is_taken, false, memory_order_release);
}

static void shard_key_make(void)
{
	pthread_key_create(&shard_key, shard_leave);
}

static struct shard *shard_find(void)
{
	struct shard *shard = atomic_load(&shards);
	bool taken = false;

	for (; shard; shard = shard->next, taken = false)
		if (atomic_compare_exchange_strong(&shard->is_taken, &taken, true))
			return shard;
	shard = aligned_alloc(_Alignof(struct shard), sizeof(*shard));
	if (!shard)
		return NULL;
	memset(shard, 0, sizeof(*shard));
	shard->is_taken = true;
	shard->next = atomic_load(&shards);
	while (!atomic_compare_exchange_weak(&shards, &shard->next, shard))
		;
	return shard;
}

static struct shard *shard_take(void)
{
	struct shard *shard;

	pthread_once(&shard_once, shard_key_make);
	shard = shard_find();
	if (shard && pthread_setspecific(shard_key, shard)) {
		shard_leave(shard);
		return NULL;
	}
	mine = shard;
	return shard;
}

/* One writer: no locked instruction. */
static void cell_add(_Atomic uint64_t *cell, uint64_t by)
{
	atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + by, memory_order_relaxed);
}

void counter_end(enum counter_op op, uint64_t begin_ns)
{
	uint64_t ns = counter_begin() - begin_ns;
	struct shard *shard = mine ? mine : shard_take();
	struct cell *cell;

	if (!shard)
		return;
	cell = &shard->cells[op];
	cell_add(&cell->count, 1);
	cell_add(&cell->total_ns, ns);
	cell_add(&cell->histogram[bucket_of(ns)], 1);
}

void counter_get(enum counter_op op, struct counter *out)
{
	*out = (struct counter){.count = 0};
	for (struct shard *shard = atomic_load(&shards); shard; shard = shard->next) {
		struct cell *cell = &shard->cells[op];

		out->count += atomic_load_explicit(&cell->count, memory_order_relaxed);
		out->total_ns += atomic_load_explicit(&cell->total_ns, memory_order_relaxed);
		for (unsigned i = 0; i < COUNTER_BUCKETS; i++)
			out->histogram[i] += atomic_load_explicit(&cell->histogram[i], memory_order_relaxed);
	}
}
