/*
 * Whether stores may begin, and who is in the middle of one. Each thread counts itself in and out at its own place; who stops them waits until all
 * are out. A thread may be in several times (a store that meets a fault appends to the poison log).
 */
#ifndef MEDIA_STOP_H
#define MEDIA_STOP_H

#include "util/slot.h"

struct stop_place {
	_Alignas(64) atomic_uint inside;
};

enum stop_state { STOP_NONE, STOP_OTHERS, STOP_ALL };

struct stop {
	struct stop_place places[SLOT_COUNT];
	_Alignas(64) atomic_int state; /* enum stop_state */
};

/* May this thread store now? If so, stop_leave() by the same thread ends it. */
bool stop_enter(struct stop *stop);
void stop_leave(struct stop *stop);
/* STOP_OTHERS: this thread may go on. Never goes back. No store that is not allowed any more is under way on return; not from within one. */
void stop_raise(struct stop *stop, enum stop_state state);
bool stop_is_all(const struct stop *stop);

#endif
