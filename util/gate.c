#include "util/gate.h"

#include "util/lock.h"

/* A change of a few blocks takes some microseconds: looking that long is cheaper than to sleep. */
#define SPINS 200

int gate_init(struct gate *gate)
{
	int error = pthread_mutex_init(&gate->mutex, NULL);

	if (error)
		return -error;
	pthread_cond_init(&gate->opened, NULL);
	pthread_cond_init(&gate->emptied, NULL);
	pthread_cond_init(&gate->vacated, NULL);
	pthread_cond_init(&gate->passed, NULL);
	for (unsigned i = 0; i < SLOT_COUNT; i++)
		atomic_init(&gate->places[i].inside, 0);
	atomic_init(&gate->closed, false);
	atomic_init(&gate->reserved, false);
	gate->phase = 0;
	gate->waiting = gate->turn = 0;
	return 0;
}

void gate_fini(struct gate *gate)
{
	pthread_cond_destroy(&gate->passed);
	pthread_cond_destroy(&gate->vacated);
	pthread_cond_destroy(&gate->emptied);
	pthread_cond_destroy(&gate->opened);
	pthread_mutex_destroy(&gate->mutex);
}

static inline void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

static void spin_while(const atomic_bool *flag)
{
	for (unsigned i = 0; i < SPINS && atomic_load_explicit(flag, memory_order_relaxed); i++)
		cpu_pause();
}

/* --- readers ------------------------------------------------------------------------------------------------------ */

static void gate_tell_writer(struct gate *gate)
{
	pthread_mutex_lock(&gate->mutex);
	pthread_cond_signal(&gate->emptied);
	pthread_mutex_unlock(&gate->mutex);
}

/* Under the mutex no writer can close the gate: who counts itself in there, before it or in its turn, is seen. */
static void gate_wait_turn(struct gate *gate, atomic_uint *inside)
{
	uint64_t phase;

	pthread_mutex_lock(&gate->mutex);
	phase = gate->phase;
	if (atomic_load(&gate->closed)) {
		gate->waiting++;
		while (gate->phase == phase)
			pthread_cond_wait(&gate->opened, &gate->mutex);
		gate->waiting--;
		if (--gate->turn == 0)
			pthread_cond_signal(&gate->passed);
	}
	atomic_fetch_add(inside, 1);
	pthread_mutex_unlock(&gate->mutex);
}

/* Counting in and looking at `closed`, closing and looking at the counts: one of the two sees the other, as all are sequentially consistent. */
void gate_enter(struct gate *gate)
{
	atomic_uint *inside = &gate->places[slot_mine()].inside;
	bool contended;

	atomic_fetch_add(inside, 1);
	contended = atomic_load(&gate->closed);
	if (contended) {
		atomic_fetch_sub(inside, 1);
		gate_tell_writer(gate);
		spin_while(&gate->closed);
		gate_wait_turn(gate, inside);
	}
	lock_count_taken(LOCK_GATE_SHARED, contended);
}

void gate_leave(struct gate *gate)
{
	atomic_fetch_sub(&gate->places[slot_mine()].inside, 1);
	if (atomic_load(&gate->closed))
		gate_tell_writer(gate);
}

/* --- writers ------------------------------------------------------------------------------------------------------ */

static bool gate_is_empty(const struct gate *gate)
{
	unsigned end = atomic_load(&slot_end);

	for (unsigned i = 0; i < end; i++)
		if (atomic_load(&gate->places[i].inside))
			return false;
	return true;
}

static bool gate_wait_empty(struct gate *gate)
{
	if (gate_is_empty(gate))
		return false;
	for (unsigned i = 0; i < SPINS; i++) {
		cpu_pause();
		if (gate_is_empty(gate))
			return true;
	}
	pthread_mutex_lock(&gate->mutex);
	while (!gate_is_empty(gate))
		pthread_cond_wait(&gate->emptied, &gate->mutex);
	pthread_mutex_unlock(&gate->mutex);
	return true;
}

void gate_reserve(struct gate *gate)
{
	bool contended = atomic_load_explicit(&gate->reserved, memory_order_relaxed);

	if (contended)
		spin_while(&gate->reserved);
	pthread_mutex_lock(&gate->mutex);
	while (atomic_load_explicit(&gate->reserved, memory_order_relaxed)) {
		contended = true;
		pthread_cond_wait(&gate->vacated, &gate->mutex);
	}
	atomic_store_explicit(&gate->reserved, true, memory_order_relaxed);
	pthread_mutex_unlock(&gate->mutex);
	lock_count_taken(LOCK_GATE_WRITE, contended);
}

void gate_close(struct gate *gate)
{
	bool contended;

	pthread_mutex_lock(&gate->mutex);
	while (gate->turn)
		pthread_cond_wait(&gate->passed, &gate->mutex);
	atomic_store(&gate->closed, true);
	pthread_mutex_unlock(&gate->mutex);
	contended = gate_wait_empty(gate);
	lock_count_taken(LOCK_GATE_EXCLUSIVE, contended);
}

void gate_open(struct gate *gate)
{
	pthread_mutex_lock(&gate->mutex);
	if (atomic_load_explicit(&gate->closed, memory_order_relaxed)) {
		atomic_store(&gate->closed, false);
		gate->phase++;
		gate->turn = gate->waiting;
		if (gate->waiting)
			pthread_cond_broadcast(&gate->opened);
	}
	atomic_store_explicit(&gate->reserved, false, memory_order_relaxed);
	pthread_cond_signal(&gate->vacated);
	pthread_mutex_unlock(&gate->mutex);
}
