/* Counters of which each thread has its own: who counts does not fight for a cache line. */
#ifndef MEDIA_COUNTS_H
#define MEDIA_COUNTS_H

#include "util/slot.h"

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

struct count_shard {
	_Alignas(64) atomic_uint_fast64_t values[COUNT_KINDS];
};

struct counts {
	struct count_shard shards[SLOT_COUNT];
};

void counts_add(struct counts *counts, enum count_kind kind, uint64_t value);
uint64_t counts_total(const struct counts *counts, enum count_kind kind);

#endif
