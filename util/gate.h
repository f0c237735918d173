/*
 * A reader/writer lock whose readers share no cache line: each counts itself in at its own thread's place, a writer closes the gate and waits
 * until all of them are out. Whoever is to be the
 * only writer reserves the gate, which keeps others who would away, and closes it for the moment in which what it has prepared is shown. Writers that agree by
 * other means on who changes what close it without a reservation, several at once. Neither side starves: a writer that closes it stops new readers, and those
 * who have waited once go in before it is closed again. Not recursive.
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
	_Alignas(64) atomic_uint closed;   /* by how many: no reader may be inside, or they wait for the last ones to leave */
	_Alignas(64) atomic_bool reserved; /* there is a writer */
	atomic_bool asked;		   /* a writer sleeps, and nobody has woken one since */
	pthread_mutex_t mutex;		   /* the rest */
	pthread_cond_t opened, emptied, vacated, passed;
	uint64_t phase;	     /* how often readers who waited were let in */
	atomic_uint waiting; /* readers before the closed gate */
	atomic_uint turn;    /* of these, who must go in before it is closed again */
	unsigned sleepers; /* writers that wait for it to be vacated */
};

int gate_init(struct gate *gate); /* 0, -ENOMEM, -EAGAIN */
void gate_fini(struct gate *gate);
void gate_enter(struct gate *gate);
void gate_leave(struct gate *gate); /* by the thread that entered */
void gate_reserve(struct gate *gate);
void gate_vacate(struct gate *gate);
void gate_close(struct gate *gate);
void gate_open(struct gate *gate); /* by the one who has closed it; readers enter when all have */

#endif
