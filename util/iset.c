#include "util/iset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void iset_init(struct iset *set)
{
	*set = (struct iset){0};
}

void iset_fini(struct iset *set)
{
	free(set->ranges);
	iset_init(set);
}

/* Index of the first range whose end is greater than `pos`. */
static size_t iset_lower(const struct iset *set, uint64_t pos)
{
	size_t low = 0, high = set->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (set->ranges[middle].end > pos)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* Index of the first range at or after `from` that begins at or after `pos`. */
static size_t iset_upper(const struct iset *set, size_t from, uint64_t pos)
{
	size_t low = from, high = set->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (set->ranges[middle].start >= pos)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

int iset_reserve(struct iset *set, size_t count)
{
	size_t capacity = set->capacity ? set->capacity : 8;
	struct iset_range *ranges;

	if (count <= set->capacity)
		return 0;
	while (capacity < count)
		capacity *= 2;
	ranges = reallocarray(set->ranges, capacity, sizeof(*ranges));
	if (!ranges)
		return -ENOMEM;
	set->ranges = ranges;
	set->capacity = capacity;
	return 0;
}

/* Replace ranges [from, to) by `count` others; the room is there. */
static void iset_splice(struct iset *set, size_t from, size_t to, const struct iset_range *with,
			size_t count)
{
	if (set->count > to && from + count != to)
		memmove(set->ranges + from + count, set->ranges + to,
			(set->count - to) * sizeof(*with));
	if (count)
		memcpy(set->ranges + from, with, count * sizeof(*with));
	set->count = set->count - (to - from) + count;
}

/*
 * Ranges [from, to) overlap [start, end): leave in pieces[0..1] what sticks out on either side.
 * Returns how many pieces, the left one first; *left tells whether there is one.
 */
static size_t iset_leftovers(const struct iset *set, size_t from, size_t to, uint64_t start,
			     uint64_t end, struct iset_range pieces[2], bool *left)
{
	size_t count = 0;

	*left = false;
	if (from == to)
		return 0;
	if (set->ranges[from].start < start) {
		pieces[count] = set->ranges[from];
		pieces[count++].end = start;
		*left = true;
	}
	if (set->ranges[to - 1].end > end) {
		pieces[count] = set->ranges[to - 1];
		pieces[count++].start = end;
	}
	return count;
}

/* Append `range` to `out`, merged with the last one when they touch and agree. */
static size_t iset_append_merged(struct iset_range *out, size_t count, struct iset_range range)
{
	struct iset_range *last = count ? &out[count - 1] : NULL;

	if (last && last->end == range.start && last->tag == range.tag) {
		last->end = range.end;
		return count;
	}
	out[count] = range;
	return count + 1;
}

int iset_copy(struct iset *to, const struct iset *from)
{
	iset_init(to);
	if (iset_reserve(to, from->count) < 0)
		return -ENOMEM;
	iset_splice(to, 0, 0, from->ranges, from->count);
	return 0;
}

int iset_add(struct iset *set, uint64_t start, uint64_t end, uint32_t tag)
{
	struct iset_range pieces[2], merged[5];
	size_t from, to, used = 0, count;
	bool left;

	if (start >= end)
		return -EINVAL;
	if (iset_reserve(set, set->count + 2) < 0)
		return -ENOMEM;
	from = iset_lower(set, start);
	to = iset_upper(set, from, end);
	count = iset_leftovers(set, from, to, start, end, pieces, &left);
	/* The neighbours join the splice: they may touch what is added. */
	if (from > 0)
		used = iset_append_merged(merged, used, set->ranges[from - 1]);
	if (left)
		used = iset_append_merged(merged, used, pieces[0]);
	used = iset_append_merged(merged, used, (struct iset_range){start, end, tag});
	if (count > (left ? 1u : 0u))
		used = iset_append_merged(merged, used, pieces[count - 1]);
	if (to < set->count)
		used = iset_append_merged(merged, used, set->ranges[to]);
	iset_splice(set, from > 0 ? from - 1 : from, to < set->count ? to + 1 : to, merged, used);
	return 0;
}

int iset_remove(struct iset *set, uint64_t start, uint64_t end)
{
	struct iset_range pieces[2];
	size_t from, to, count;
	bool left;

	if (start >= end)
		return -EINVAL;
	from = iset_lower(set, start);
	to = iset_upper(set, from, end);
	count = iset_leftovers(set, from, to, start, end, pieces, &left);
	if (iset_reserve(set, set->count - (to - from) + count) < 0)
		return -ENOMEM;
	iset_splice(set, from, to, pieces, count);
	return 0;
}

const struct iset_range *iset_find(const struct iset *set, uint64_t start, uint64_t end)
{
	size_t i = iset_lower(set, start);

	if (start >= end || i == set->count || set->ranges[i].start >= end)
		return NULL;
	return &set->ranges[i];
}

bool iset_overlaps(const struct iset *set, uint64_t start, uint64_t end)
{
	return iset_find(set, start, end) != NULL;
}

bool iset_covers(const struct iset *set, uint64_t start, uint64_t end)
{
	size_t i = iset_lower(set, start);

	/* Ranges with different tags may touch without being one. */
	for (; start < end; i++) {
		if (i == set->count || set->ranges[i].start > start)
			return false;
		start = set->ranges[i].end;
	}
	return true;
}

uint64_t iset_bytes(const struct iset *set)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < set->count; i++)
		bytes += set->ranges[i].end - set->ranges[i].start;
	return bytes;
}
