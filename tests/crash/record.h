/*
 * What a mount did to the medium, in order: stores with the bytes before and after, drains, syncs, and the marks of the operations. Thread-safe while it
 * records. The bytes of the medium can be taken back to the start of the recording.
 */
#ifndef TESTS_CRASH_RECORD_H
#define TESTS_CRASH_RECORD_H

#include <pthread.h>

#include "tests/support/lab.h"

enum step_kind { STEP_STORE, STEP_DRAIN, STEP_SYNC, STEP_BEGIN, STEP_END, STEP_DURABLE };

struct step {
	enum step_kind kind;
	uint32_t thread; /* a drain is its own thread's only; numbered from 0 */
	devoff_t offset; /* of a store, or what a sync reaches */
	uint64_t length;
	size_t before, after; /* its bytes, in the record's arena */
	int error;	      /* of the operation that ended */
};

struct record {
	struct lab *lab;
	struct step *steps;
	size_t count, capacity;
	uint8_t *arena;
	size_t arena_used, arena_size;
	pthread_mutex_t lock;
	bool only_undo; /* bytes after, drains and syncs are not kept */
	bool is_full;	/* out of memory: the record is of no use */
	bool (*drops)(void *arg, unsigned depth, unsigned number, bool is_sync); /* as in struct crash_options; NULL: none */
	void *drops_arg;
	unsigned depth, count_barriers;
};

void record_init(struct record *record, struct lab *lab);
void record_fini(struct record *record);
/* Forget what was recorded and listen to the lab from now on. */
void record_start(struct record *record);
void record_stop(struct record *record);
void record_mark(struct record *record, enum step_kind kind, int error);
/* The medium's bytes as they were at record_start(). Not while it records. */
void record_rewind(struct record *record);

static inline const uint8_t *record_after(const struct record *record, size_t step)
{
	return record->arena + record->steps[step].after;
}

#endif
