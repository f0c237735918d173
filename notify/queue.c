#include "notify/queue.h"

#include <errno.h>

void queue_init(struct queue *queue, size_t limit)
{
	iset_init(&queue->ranges);
	queue->limit = limit;
	queue->overflowed = false;
	queue->overflow_source = 0;
}

void queue_fini(struct queue *queue)
{
	iset_fini(&queue->ranges);
}

/*
 * A range that continues a queued one costs nothing, one over a queued one must replace the older
 * word; a new one needs room. What splitting adds is bounded too.
 */
static bool queue_has_room(const struct queue *queue, uint64_t start, uint64_t end)
{
	if (queue->ranges.count < queue->limit)
		return true;
	if (queue->ranges.count >= 8 * queue->limit)
		return false;
	return iset_overlaps(&queue->ranges, start ? start - 1 : 0,
			     end < UINT64_MAX ? end + 1 : end);
}

static int queue_push_cleared(struct queue *queue, uint64_t start, uint64_t end, uint32_t tag)
{
	if (queue->ranges.count >= 4 * queue->limit)
		return -ENOSPC;
	return iset_add(&queue->ranges, start, end, tag);
}

int queue_push(struct queue *queue, uint64_t start, uint64_t end, enum badblock_state state,
	       enum failure_source source)
{
	const uint32_t tag = queue_tag(state, source);

	if (state == BADBLOCK_CLEARED)
		return queue_push_cleared(queue, start, end, tag);
	if (queue_has_room(queue, start, end) && iset_add(&queue->ranges, start, end, tag) == 0)
		return 0;
	queue->overflowed = true;
	queue->overflow_source = (uint8_t)source;
	return 0;
}

bool queue_is_empty(const struct queue *queue)
{
	return queue->ranges.count == 0 && !queue->overflowed;
}

bool queue_find_failed(const struct iset *ranges, uint64_t start, uint64_t end,
		       struct iset_range *out)
{
	while (start < end) {
		const struct iset_range *range = iset_find(ranges, start, end);

		if (!range)
			return false;
		if (queue_tag_state(range->tag) != BADBLOCK_CLEARED) {
			out->start = max_u64(range->start, start);
			out->end = min_u64(range->end, end);
			out->tag = range->tag;
			return true;
		}
		start = range->end;
	}
	return false;
}

void queue_take(struct queue *queue, struct iset *batch, uint8_t *overflow_source)
{
	*batch = queue->ranges;
	*overflow_source = queue->overflowed ? queue->overflow_source : 0;
	iset_init(&queue->ranges);
	queue->overflowed = false;
}
