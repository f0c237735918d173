#include "alloc/busy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void busy_init(struct busy *busy)
{
	*busy = (struct busy){0};
	iset_init(&busy->ranges);
}

void busy_fini(struct busy *busy)
{
	iset_fini(&busy->ranges);
	free(busy->batches);
}

/* Room for the batch that is open, so that its commit cannot fail. */
static int batches_reserve(struct busy *busy)
{
	size_t capacity = busy->capacity > 0 ? busy->capacity * 2 : 16;
	struct busy_batch *batches;

	if (busy->count < busy->capacity)
		return 0;
	batches = reallocarray(busy->batches, capacity, sizeof(*batches));
	if (!batches)
		return -ENOMEM;
	busy->batches = batches;
	busy->capacity = capacity;
	return 0;
}

/* Is anything of the range in a batch that was closed? */
static bool range_is_busy(const struct busy *busy, uint64_t start, uint64_t end)
{
	const struct iset_range *range = iset_find(&busy->ranges, start, end);

	while (range && range->tag == busy->tag && range->end < end) {
		start = range->end;
		range = iset_find(&busy->ranges, start, end);
	}
	return range && range->tag != busy->tag;
}

int busy_add(struct busy *busy, uint64_t start, uint64_t end)
{
	bool shadows = range_is_busy(busy, start, end);
	int error = batches_reserve(busy);

	if (error == 0)
		error = iset_add(&busy->ranges, start, end, busy->tag);
	if (error < 0)
		return error;
	busy->open = true;
	busy->shadowing = busy->shadowing || shadows;
	return 0;
}

static void batch_close(struct busy *busy)
{
	busy->open = busy->shadowing = false;
	busy->tag++;
}

void busy_commit(struct busy *busy, uint64_t sequence)
{
	if (!busy->open)
		return;
	busy->batches[busy->count++] = (struct busy_batch){sequence, busy->tag};
	batch_close(busy);
}

/* Keep the ranges whose tag is newer than `tag` only, or other than it. They stay sorted and
 * merged. */
static void ranges_drop(struct iset *ranges, uint32_t tag, bool older_too)
{
	size_t kept = 0;

	for (size_t i = 0; i < ranges->count; i++) {
		/* Tags wrap: their distance tells which is newer. */
		int32_t age = (int32_t)(ranges->ranges[i].tag - tag);

		if (older_too ? age > 0 : age != 0)
			ranges->ranges[kept++] = ranges->ranges[i];
	}
	ranges->count = kept;
}

void busy_abort(struct busy *busy)
{
	if (!busy->open)
		return;
	if (busy->shadowing && busy->count > 0) {
		/* Which part was busy before is not known any more: all of it ends with the newest
		 * batch. */
		busy_commit(busy, busy->batches[busy->count - 1].sequence);
		return;
	}
	ranges_drop(&busy->ranges, busy->tag, false);
	batch_close(busy);
}

void busy_expire(struct busy *busy, bool (*is_durable)(void *arg, uint64_t sequence), void *arg)
{
	size_t ended = 0;

	while (ended < busy->count && is_durable(arg, busy->batches[ended].sequence))
		ended++;
	if (ended == 0)
		return;
	ranges_drop(&busy->ranges, busy->batches[ended - 1].tag, true);
	busy->count -= ended;
	memmove(busy->batches, busy->batches + ended, busy->count * sizeof(*busy->batches));
}
