/*
 * A small number for each running thread, so that what threads count or hold can lie in cache lines of their own. Given out on first use,
 * used again after the thread has ended. Numbers below SLOT_SHARED belong to one thread at a time; all threads beyond share that one.
 */
#ifndef UTIL_SLOT_H
#define UTIL_SLOT_H

#include <stdatomic.h>

#include "util/types.h"

#define SLOT_COUNT 64u
#define SLOT_SHARED (SLOT_COUNT - 1)

unsigned slot_take(void);

/* No slot from here on was ever given out; what a thread counts in its slot comes after its slot counts here. */
extern atomic_uint slot_end;

extern _Thread_local unsigned slot_of_thread; /* number + 1; 0: not given out yet */

static inline unsigned slot_mine(void)
{
	return slot_of_thread ? slot_of_thread - 1 : slot_take();
}

/* Count in a cell of slot `slot`, which is the caller's own: exact, and no locked instruction unless the slot is shared. */
static inline void slot_count(atomic_uint_fast64_t *cell, unsigned slot, uint64_t add)
{
	if (slot == SLOT_SHARED)
		atomic_fetch_add_explicit(cell, add, memory_order_relaxed);
	else
		atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + add, memory_order_relaxed);
}

#endif
