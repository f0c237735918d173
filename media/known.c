#include "media/known.h"

int known_init(struct known *known)
{
	iset_init(&known->set);
	iset_init(&known->consumed);
	atomic_init(&known->count, 0);
	return -pthread_rwlock_init(&known->lock, NULL);
}

void known_fini(struct known *known)
{
	iset_fini(&known->set);
	iset_fini(&known->consumed);
	pthread_rwlock_destroy(&known->lock);
}

/* The lock is held. */
static int known_enter(struct known *known, uint64_t start, uint64_t end, bool *is_new)
{
	int error = 0;

	*is_new = !iset_covers(&known->set, start, end);
	if (*is_new)
		error = iset_add(&known->set, start, end, 0);
	atomic_store_explicit(&known->count, known->set.count, memory_order_release);
	return error;
}

int known_add(struct known *known, uint64_t start, uint64_t end, bool *is_new)
{
	int error;

	pthread_rwlock_wrlock(&known->lock);
	error = known_enter(known, start, end, is_new);
	pthread_rwlock_unlock(&known->lock);
	return error;
}

int known_consume(struct known *known, uint64_t start, uint64_t end, bool *is_new, bool *is_first)
{
	int error, unremembered;

	pthread_rwlock_wrlock(&known->lock);
	*is_first = !iset_overlaps(&known->consumed, start, end);
	unremembered = iset_add(&known->consumed, start, end, 0);
	error = known_enter(known, start, end, is_new);
	pthread_rwlock_unlock(&known->lock);
	return error ? error : unremembered;
}

int known_remove(struct known *known, uint64_t start, uint64_t end)
{
	int error;

	pthread_rwlock_wrlock(&known->lock);
	error = iset_remove(&known->set, start, end);
	if (!error)
		error = iset_remove(&known->consumed, start, end);
	atomic_store_explicit(&known->count, known->set.count, memory_order_release);
	pthread_rwlock_unlock(&known->lock);
	return error;
}

bool known_find(struct known *known, uint64_t start, uint64_t end, uint64_t *bad_start,
		uint64_t *bad_end)
{
	const struct iset_range *range;

	if (!known_any(known))
		return false;
	pthread_rwlock_rdlock(&known->lock);
	range = iset_find(&known->set, start, end);
	if (range) {
		*bad_start = max_u64(range->start, start);
		*bad_end = min_u64(range->end, end);
	}
	pthread_rwlock_unlock(&known->lock);
	return range != NULL;
}
