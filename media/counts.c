#include "media/counts.h"

void counts_add(struct counts *counts, enum count_kind kind, uint64_t value)
{
	unsigned slot = slot_mine();

	slot_count(&counts->shards[slot].values[kind], slot, value);
}

uint64_t counts_total(const struct counts *counts, enum count_kind kind)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < SLOT_COUNT; i++)
		total +=
		    atomic_load_explicit(&counts->shards[i].values[kind], memory_order_relaxed);
	return total;
}
