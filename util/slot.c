#include "util/slot.h"

#include <pthread.h>

_Thread_local unsigned slot_of_thread;
atomic_uint slot_end;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t key;
static bool key_is_made;
static bool is_taken[SLOT_SHARED];

/* Runs as the thread ends; what it counted stays. */
static void slot_give(void *arg)
{
	unsigned slot = (unsigned)(uintptr_t)arg - 1;

	pthread_mutex_lock(&mutex);
	is_taken[slot] = false;
	pthread_mutex_unlock(&mutex);
	slot_of_thread = 0; /* destructors that run after this one take another */
}

static void slot_make_key(void)
{
	key_is_made = !pthread_key_create(&key, slot_give);
}

static void slot_raise_end(unsigned slot)
{
	unsigned end = atomic_load(&slot_end);

	while (end <= slot && !atomic_compare_exchange_weak(&slot_end, &end, slot + 1))
		;
}

static unsigned slot_find(void)
{
	unsigned slot = 0;

	pthread_mutex_lock(&mutex);
	while (slot < SLOT_SHARED && is_taken[slot])
		slot++;
	if (slot < SLOT_SHARED)
		is_taken[slot] = true;
	pthread_mutex_unlock(&mutex);
	return slot;
}

unsigned slot_take(void)
{
	unsigned slot;

	pthread_once(&once, slot_make_key);
	slot = key_is_made ? slot_find() : SLOT_SHARED;
	if (slot < SLOT_SHARED && pthread_setspecific(key, (void *)(uintptr_t)(slot + 1))) {
		slot_give((void *)(uintptr_t)(slot + 1)); /* it would never come back */
		slot = SLOT_SHARED;
	}
	slot_raise_end(slot);
	slot_of_thread = slot + 1;
	return slot;
}
