#include "media/stop.h"

#include <time.h>

#define WAIT_NS 20000

static _Thread_local const struct stop *exempt; /* this thread has stopped the others */

static bool stop_allows(const struct stop *stop)
{
	int state = atomic_load(&stop->state);

	return state == STOP_NONE || (state == STOP_OTHERS && exempt == stop);
}

bool stop_enter(struct stop *stop)
{
	/* Before the state is asked, in one order for all: either we see that it was raised, or who raised it sees us. */
	atomic_fetch_add(&stop->places[slot_mine()].inside, 1);
	if (stop_allows(stop))
		return true;
	stop_leave(stop);
	return false;
}

void stop_leave(struct stop *stop)
{
	unsigned slot = slot_mine();
	atomic_uint *inside = &stop->places[slot].inside;

	if (slot == SLOT_SHARED)
		atomic_fetch_sub_explicit(inside, 1, memory_order_release);
	else
		atomic_store_explicit(inside, atomic_load_explicit(inside, memory_order_relaxed) - 1, memory_order_release);
}

static bool stop_is_busy(const struct stop *stop)
{
	for (unsigned i = 0; i < SLOT_COUNT; i++)
		if (atomic_load(&stop->places[i].inside))
			return true;
	return false;
}

void stop_raise(struct stop *stop, enum stop_state state)
{
	static const struct timespec pause = {.tv_nsec = WAIT_NS};
	int before = atomic_load(&stop->state);

	while (before < (int)state && !atomic_compare_exchange_weak(&stop->state, &before, (int)state))
		;
	if (state == STOP_OTHERS)
		exempt = stop;
	/* A store is a copy of at most a few MiB, or a fault on its way to be told. */
	while (stop_is_busy(stop))
		nanosleep(&pause, NULL);
}

bool stop_is_all(const struct stop *stop)
{
	return atomic_load_explicit(&stop->state, memory_order_relaxed) == STOP_ALL;
}
