/*
 * A reader/writer lock whose readers share no cache line: each counts itself in at its own thread's place, a writer closes the gate and waits
 * until all of them are out. For many short readers and few writers. Neither side starves: a writer that wants in stops new readers, and those
 * that have waited for one writer go before the next. Not recursive.
 */
#ifndef UTIL_GATE_H
#define UTIL_GATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "util/slot.h"

struct gate_place {
	_Alignas(64) atomic_uint inside;
};

struct gate {
	struct gate_place places[SLOT_COUNT];
	_Alignas(64) atomic_bool closed; /* a writer is inside, or waits for the last readers to leave */
	pthread_mutex_t mutex;		 /* the rest */
	pthread_cond_t opened, emptied, vacated;
	uint64_t phase;	  /* how often it was opened */
	unsigned waiting; /* readers before the closed gate */
	unsigned turn;	  /* of these, who must go in before the next writer */
};

int gate_init(struct gate *gate); /* 0, -ENOMEM, -EAGAIN */
void gate_fini(struct gate *gate);
void gate_enter(struct gate *gate);
void gate_leave(struct gate *gate); /* by the thread that entered */
void gate_close(struct gate *gate);
void gate_open(struct gate *gate);

#endif
