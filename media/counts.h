/* Sharded counters: threads that count do not fight for one cache line. */
#ifndef MEDIA_COUNTS_H
#define MEDIA_COUNTS_H

#include <stdatomic.h>

#include "util/types.h"

enum count_kind {
	COUNT_READS,
	COUNT_READ_BYTES,
	COUNT_WRITES,
	COUNT_WRITE_BYTES,
	COUNT_DRAINS,
	COUNT_SYNCS,
	COUNT_SIGBUS,
	COUNT_KINDS,
};

#define COUNT_SHARDS 8

struct count_shard {
	_Alignas(64) atomic_uint_fast64_t values[COUNT_KINDS];
};

struct counts {
	struct count_shard shards[COUNT_SHARDS];
};

void counts_add(struct counts *counts, enum count_kind kind, uint64_t value);
uint64_t counts_total(const struct counts *counts, enum count_kind kind);

#endif
