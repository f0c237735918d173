#include "util/lock.h"

#include "util/slot.h"
#include "util/spin.h"

struct lock_cells {
	_Alignas(64) atomic_uint_fast64_t taken[LOCK_CLASSES], contended[LOCK_CLASSES];
};

static struct lock_cells cells[SLOT_COUNT];

static const char *const names[LOCK_CLASSES] = {
	[LOCK_GATE_SHARED] = "gate_shared",
	[LOCK_GATE_WRITE] = "gate_write",
	[LOCK_GATE_EXCLUSIVE] = "gate_exclusive",
	[LOCK_LOG] = "log",
	[LOCK_BLOCKS] = "blocks",
	[LOCK_CACHE] = "cache",
	[LOCK_TABLE] = "table",
	[LOCK_OBJECT] = "object",
	[LOCK_DATA] = "data",
	[LOCK_SPACE] = "space",
};

const char *lock_class_name(enum lock_class class)
{
	return names[class];
}

void lock_counts(struct lock_counts *out)
{
	*out = (struct lock_counts){ 0 };
	for (unsigned i = 0; i < SLOT_COUNT; i++)
		for (unsigned class = 0; class < LOCK_CLASSES; class++) {
			out->taken[class] += atomic_load_explicit(&cells[i].taken[class], memory_order_relaxed);
			out->contended[class] += atomic_load_explicit(&cells[i].contended[class], memory_order_relaxed);
		}
}

void lock_count_taken(enum lock_class class, bool contended)
{
	unsigned slot = slot_mine();

	slot_count(&cells[slot].taken[class], slot, 1);
	if (contended)
		slot_count(&cells[slot].contended[class], slot, 1);
}

/*
 * What is guarded is short: most often the lock is free again before a sleep would have begun. Looking takes its cache line from the holder, hence not
 * too often.
 */
#define LOCK_OR_SPIN(lock, try_take, take)                                                                                       \
	for (unsigned pauses = 1, spent = 0; try_take(lock); spent += pauses, pauses += pauses < SPIN_PAUSES_MAX ? pauses : 0) {  \
		if (spent >= SPIN_TRIES) {                                                                                       \
			take(lock);                                                                                              \
			break;                                                                                                   \
		}                                                                                                                \
		for (unsigned i = 0; i < pauses; i++)                                                                            \
			spin_pause();                                                                                            \
	}

void lock_mutex(pthread_mutex_t *mutex, enum lock_class class)
{
	bool contended = pthread_mutex_trylock(mutex);

	if (contended)
		LOCK_OR_SPIN(mutex, pthread_mutex_trylock, pthread_mutex_lock)
	lock_count_taken(class, contended);
}

void lock_read(pthread_rwlock_t *lock, enum lock_class class)
{
	bool contended = pthread_rwlock_tryrdlock(lock);

	if (contended)
		LOCK_OR_SPIN(lock, pthread_rwlock_tryrdlock, pthread_rwlock_rdlock)
	lock_count_taken(class, contended);
}

void lock_write(pthread_rwlock_t *lock, enum lock_class class)
{
	bool contended = pthread_rwlock_trywrlock(lock);

	if (contended)
		LOCK_OR_SPIN(lock, pthread_rwlock_trywrlock, pthread_rwlock_wrlock)
	lock_count_taken(class, contended);
}

bool lock_try_write(pthread_rwlock_t *lock, enum lock_class class)
{
	bool contended = pthread_rwlock_trywrlock(lock);

	lock_count_taken(class, contended);
	return !contended;
}
