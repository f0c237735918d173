#include "alloc/busy.h"

void busy_init(struct busy *busy)
{
	*busy = (struct busy){0};
	iset_init(&busy->collecting.ranges);
	iset_init(&busy->closing.ranges);
}

void busy_fini(struct busy *busy)
{
	iset_fini(&busy->collecting.ranges);
	iset_fini(&busy->closing.ranges);
}

/* Keeps the memory, which is needed again at once. */
static void ranges_clear(struct iset *ranges)
{
	ranges->count = 0;
}

int busy_reserve(struct busy *busy, size_t count)
{
	struct iset *collecting = &busy->collecting.ranges, *closing = &busy->closing.ranges;
	int error = iset_reserve(collecting, collecting->count + count + 2);

	/* It may be the one that collects by then. */
	return error < 0 ? error : iset_reserve(closing, closing->count + count + 2);
}

void busy_commit(struct busy *busy, const struct iset *ranges, uint64_t sequence)
{
	struct busy_generation *to = &busy->collecting;

	for (size_t i = 0; i < ranges->count; i++)
		(void)iset_add(&to->ranges, ranges->ranges[i].start, ranges->ranges[i].end, 0);
	if (ranges->count > 0 && sequence > to->sequence)
		to->sequence = sequence;
}

static void generations_swap(struct busy *busy)
{
	struct busy_generation next = busy->closing;

	busy->closing = busy->collecting;
	busy->collecting = next;
}

void busy_expire(struct busy *busy, bool (*is_durable)(void *arg, uint64_t sequence), void *arg)
{
	if (busy->closing.ranges.count > 0 && is_durable(arg, busy->closing.sequence))
		ranges_clear(&busy->closing.ranges);
	if (busy->collecting.ranges.count > 0 && is_durable(arg, busy->collecting.sequence))
		ranges_clear(&busy->collecting.ranges);
	if (busy->closing.ranges.count == 0)
		generations_swap(busy);
}

const struct iset_range *busy_find(const struct busy *busy, uint64_t start, uint64_t end)
{
	return range_first(iset_find(&busy->collecting.ranges, start, end),
			   iset_find(&busy->closing.ranges, start, end));
}

bool busy_is_empty(const struct busy *busy)
{
	return busy->collecting.ranges.count + busy->closing.ranges.count == 0;
}
