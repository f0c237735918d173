#include "bench/locks.h"

#include <pthread.h>
#include <stdatomic.h>

#include "util/types.h"

#define THREADS_MAX 256

/* Each thread counts in a line of its own. */
static struct tally {
	_Atomic uint64_t taken, contended;
} __attribute__((aligned(64))) tallies[THREADS_MAX];
static atomic_uint count_threads;
static _Thread_local struct tally *mine;

int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __real_pthread_rwlock_rdlock(pthread_rwlock_t *lock);
int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *lock);
int __real_pthread_rwlock_wrlock(pthread_rwlock_t *lock);
int __wrap_pthread_rwlock_wrlock(pthread_rwlock_t *lock);

static void add(_Atomic uint64_t *count)
{
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1, memory_order_relaxed);
}

static void count(bool was_free)
{
	if (!mine)
		mine = &tallies[atomic_fetch_add(&count_threads, 1) % THREADS_MAX];
	add(&mine->taken);
	if (!was_free)
		add(&mine->contended);
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
	bool was_free = !pthread_mutex_trylock(mutex);

	count(was_free);
	return was_free ? 0 : __real_pthread_mutex_lock(mutex);
}

int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
	bool was_free = !pthread_rwlock_tryrdlock(lock);

	count(was_free);
	return was_free ? 0 : __real_pthread_rwlock_rdlock(lock);
}

int __wrap_pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
	bool was_free = !pthread_rwlock_trywrlock(lock);

	count(was_free);
	return was_free ? 0 : __real_pthread_rwlock_wrlock(lock);
}

struct locks locks_counted(void)
{
	struct locks sum = {0};

	for (unsigned i = 0; i < THREADS_MAX; i++) {
		sum.taken += tallies[i].taken;
		sum.contended += tallies[i].contended;
	}
	return sum;
}
