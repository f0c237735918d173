#include "alloc/busy.h"

void busy_init(struct busy *busy)
{
	*busy = (struct busy){0};
	iset_init(&busy->open);
	iset_init(&busy->collecting.ranges);
	iset_init(&busy->closing.ranges);
}

void busy_fini(struct busy *busy)
{
	iset_fini(&busy->open);
	iset_fini(&busy->collecting.ranges);
	iset_fini(&busy->closing.ranges);
}

/* Keeps the memory, which is needed again at once. */
static void ranges_clear(struct iset *ranges)
{
	ranges->count = 0;
}

int busy_add(struct busy *busy, uint64_t start, uint64_t end)
{
	struct iset *collecting = &busy->collecting.ranges;
	int error = iset_add(&busy->open, start, end, 0);

	/* So that the commit needs no memory. */
	return error < 0 ? error
			 : iset_reserve(collecting, collecting->count + busy->open.count + 2);
}

void busy_commit(struct busy *busy, uint64_t sequence)
{
	for (size_t i = 0; i < busy->open.count; i++) {
		const struct iset_range *range = &busy->open.ranges[i];

		(void)iset_add(&busy->collecting.ranges, range->start, range->end, 0);
		busy->collecting.sequence = sequence;
	}
	ranges_clear(&busy->open);
}

void busy_abort(struct busy *busy)
{
	ranges_clear(&busy->open);
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
	/* Room was made in the collecting one for what is open. */
	if (busy->closing.ranges.count == 0 && busy->open.count == 0)
		generations_swap(busy);
}

const struct iset_range *busy_find(const struct busy *busy, uint64_t start, uint64_t end)
{
	const struct iset_range *committed =
	    range_first(iset_find(&busy->collecting.ranges, start, end),
			iset_find(&busy->closing.ranges, start, end));

	return range_first(iset_find(&busy->open, start, end), committed);
}

bool busy_is_empty(const struct busy *busy)
{
	return busy->open.count + busy->collecting.ranges.count + busy->closing.ranges.count == 0;
}
