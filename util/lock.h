/*
 * Counted locks. How often locks of each class were taken, and how often the taker had to wait, over all threads of the process: what
 * shows whether operations that have nothing to do with each other wait for each other.
 */
#ifndef UTIL_LOCK_H
#define UTIL_LOCK_H

#include <pthread.h>

#include "util/types.h"

enum lock_class {
	LOCK_GATE_SHARED,
	LOCK_GATE_WRITE,     /* kept from other writers */
	LOCK_GATE_EXCLUSIVE, /* kept from everybody */
	LOCK_LOG,
	LOCK_BLOCKS, /* of metadata, by transactions side by side: who finds one taken, or changed since it looked, starts anew */
	LOCK_CACHE,
	LOCK_TABLE,
	LOCK_OBJECT, /* of one object's fields */
	LOCK_DATA,   /* of one object's data */
	LOCK_SPACE,
	LOCK_CLASSES,
};

const char *lock_class_name(enum lock_class class);

struct lock_counts {
	uint64_t taken[LOCK_CLASSES], contended[LOCK_CLASSES];
};
/* So far; differences of two calls count what lies between. */
void lock_counts(struct lock_counts *out);

/* For locks of another make. */
void lock_count_taken(enum lock_class class, bool contended);

/* pthread_mutex_lock() and its kin, counted; released as usual. */
void lock_mutex(pthread_mutex_t *mutex, enum lock_class class);
void lock_read(pthread_rwlock_t *lock, enum lock_class class);
void lock_write(pthread_rwlock_t *lock, enum lock_class class);
/* False: somebody has it. */
bool lock_try_write(pthread_rwlock_t *lock, enum lock_class class);

#endif
