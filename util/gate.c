#include "util/gate.h"

#include "util/lock.h"
#include "util/spin.h"

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
	atomic_init(&gate->closed, 0);
	atomic_init(&gate->reserved, false);
	atomic_init(&gate->asked, false);
	gate->sleepers = 0;
	gate->phase = 0;
	atomic_init(&gate->waiting, 0);
	atomic_init(&gate->turn, 0);
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

static void spin_while(const atomic_uint *closed)
{
	for (unsigned i = 0; i < SPIN_TRIES && atomic_load_explicit(closed, memory_order_relaxed); i++)
		spin_pause();
}

/* --- readers ------------------------------------------------------------------------------------------------------ */

static void gate_tell_writer(struct gate *gate)
{
	pthread_mutex_lock(&gate->mutex);
	pthread_cond_broadcast(&gate->emptied);
	pthread_mutex_unlock(&gate->mutex);
}

static void gate_wait_phase(struct gate *gate)
{
	uint64_t phase = gate->phase;

	while (gate->phase == phase)
		pthread_cond_wait(&gate->opened, &gate->mutex);
}

/* Who waits until he is let in counts himself in before his turn ends, and need not look at `closed`: nobody closes it before. */
static void gate_wait_turn(struct gate *gate, atomic_uint *inside)
{
	bool is_inside = false;

	pthread_mutex_lock(&gate->mutex);
	while (!is_inside) {
		atomic_fetch_add(&gate->waiting, 1);
		is_inside = atomic_load(&gate->closed);
		if (is_inside) {
			gate_wait_phase(gate);
			atomic_fetch_add(inside, 1);
			if (atomic_fetch_sub(&gate->turn, 1) == 1)
				pthread_cond_broadcast(&gate->passed);
		}
		atomic_fetch_sub(&gate->waiting, 1);
		if (is_inside)
			break;
		atomic_fetch_add(inside, 1);
		is_inside = !atomic_load(&gate->closed);
		if (!is_inside) {
			atomic_fetch_sub(inside, 1);
			pthread_cond_broadcast(&gate->emptied);
		}
	}
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
	for (unsigned i = 0; i < SPIN_TRIES; i++) {
		spin_pause();
		if (gate_is_empty(gate))
			return true;
	}
	pthread_mutex_lock(&gate->mutex);
	while (!gate_is_empty(gate))
		pthread_cond_wait(&gate->emptied, &gate->mutex);
	pthread_mutex_unlock(&gate->mutex);
	return true;
}

static bool gate_try_reserve(struct gate *gate)
{
	bool expected = false;

	return !atomic_load_explicit(&gate->reserved, memory_order_relaxed) &&
	       atomic_compare_exchange_strong(&gate->reserved, &expected, true);
}

static bool gate_spin_reserve(struct gate *gate)
{
	for (unsigned i = 0; i < SPIN_TRIES; i++) {
		if (gate_try_reserve(gate))
			return true;
		spin_pause();
	}
	return false;
}

/*
 * Whoever opens the gate wakes one sleeper, and only if one has asked since the last was woken: else a waiter that is slow to come would cost every writer a
 * wake-up. Asking and then looking at `reserved`, taking that back and then looking who asked: one of the two sees the other.
 */
static void gate_sleep_reserve(struct gate *gate)
{
	bool mine = false;

	pthread_mutex_lock(&gate->mutex);
	gate->sleepers++;
	while (!mine) {
		atomic_store(&gate->asked, true);
		mine = gate_try_reserve(gate);
		if (mine)
			break;
		pthread_cond_wait(&gate->vacated, &gate->mutex);
		pthread_mutex_unlock(&gate->mutex);
		mine = gate_spin_reserve(gate);
		pthread_mutex_lock(&gate->mutex);
	}
	gate->sleepers--;
	atomic_store(&gate->asked, gate->sleepers > 0);
	pthread_mutex_unlock(&gate->mutex);
}

void gate_reserve(struct gate *gate)
{
	bool contended = !gate_try_reserve(gate);

	if (contended && !gate_spin_reserve(gate))
		gate_sleep_reserve(gate);
	lock_count_taken(LOCK_GATE_WRITE, contended);
}

/*
 * Giving turns and then looking at `closed`, closing and then looking at turns: one of the two sees the other. Turns that were given before and are not used up
 * stay given.
 */
static void gate_let_in(struct gate *gate)
{
	unsigned before;

	pthread_mutex_lock(&gate->mutex);
	before = gate->turn;
	atomic_store(&gate->turn, gate->waiting);
	if (atomic_load(&gate->closed)) { /* again: who has closed it lets them in */
		atomic_store(&gate->turn, before);
		pthread_cond_broadcast(&gate->passed);
	} else {
		gate->phase++;
		pthread_cond_broadcast(&gate->opened);
	}
	pthread_mutex_unlock(&gate->mutex);
}

static void gate_wait_passed(struct gate *gate)
{
	pthread_mutex_lock(&gate->mutex);
	while (gate->turn)
		pthread_cond_wait(&gate->passed, &gate->mutex);
	pthread_mutex_unlock(&gate->mutex);
}

void gate_close(struct gate *gate)
{
	bool contended = false;

	atomic_fetch_add(&gate->closed, 1);
	while (atomic_load(&gate->turn)) {
		contended = true;
		gate_open(gate);
		gate_wait_passed(gate);
		atomic_fetch_add(&gate->closed, 1);
	}
	contended |= gate_wait_empty(gate);
	lock_count_taken(LOCK_GATE_EXCLUSIVE, contended);
}

void gate_open(struct gate *gate)
{
	if (atomic_fetch_sub(&gate->closed, 1) == 1 && atomic_load(&gate->waiting))
		gate_let_in(gate);
}

void gate_vacate(struct gate *gate)
{
	atomic_store(&gate->reserved, false);
	if (!atomic_load(&gate->asked) || !atomic_exchange(&gate->asked, false))
		return;
	pthread_mutex_lock(&gate->mutex);
	pthread_cond_signal(&gate->vacated);
	pthread_mutex_unlock(&gate->mutex);
}
