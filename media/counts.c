#include "media/counts.h"

static unsigned counts_shard(void)
{
	static atomic_uint next;
	static _Thread_local unsigned mine; /* 0: not given out yet */

	if (!mine)
		mine = 1 + atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) % COUNT_SHARDS;
	return mine - 1;
}

void counts_add(struct counts *counts, enum count_kind kind, uint64_t value)
{
	atomic_fetch_add_explicit(&counts->shards[counts_shard()].values[kind], value,
				  memory_order_relaxed);
}

uint64_t counts_total(const struct counts *counts, enum count_kind kind)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < COUNT_SHARDS; i++)
		total +=
		    atomic_load_explicit(&counts->shards[i].values[kind], memory_order_relaxed);
	return total;
}
