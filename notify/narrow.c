/*
 * Narrowing a coarse report. A notice without a cursor names a whole page of the mapping, up to 2
 * MiB, in which a line or a sector is bad. The kernel's list says which; where it says nothing,
 * each 4 KiB page is read once, and what that meets is reported by media/ like any other fault. The
 * rest is good again. Until it is decided, all of it stays in the known set.
 */
#include <errno.h>
#include <stdlib.h>

#include "notify/internal.h"
#include "util/log.h"

/* What the kernel lists within the range. */
static int narrow_ask(struct notify *notify, devoff_t start, devoff_t end, struct iset *bad)
{
	struct source_badblock *list = NULL;
	size_t count = 0;
	int known = 0, rc;

	if (!media_is_device(notify->media))
		return 0;
	rc = source_badblocks(media_real_path(notify->media), &list, &count, &known);
	for (size_t i = 0; i < count && rc == 0; i++) {
		const devoff_t from = max_u64(start, list[i].offset),
			       to = min_u64(end, list[i].offset + list[i].length);

		if (from < to)
			rc = iset_add(bad, from, to, 0);
	}
	free(list);
	return rc;
}

/* This word of the poison log comes before the range leaves the known set; a failure reported
 * meanwhile stays. */
static void narrow_unknow(struct notify *notify, devoff_t start, devoff_t end)
{
	struct iset_range queued;

	pthread_mutex_lock(&notify->lock);
	while (start < end) {
		if (!queue_find_failed(&notify->queue.ranges, start, end, &queued))
			queued.start = queued.end = end;
		if (queued.start > start) {
			notify_log(notify, start, queued.start, BADBLOCK_CLEARED, FAILURE_SIGBUS);
			media_bad_remove(notify->media, start, queued.start - start);
		}
		start = queued.end;
	}
	pthread_mutex_unlock(&notify->lock);
}

/* The kernel's list decides. */
static int narrow_by_list(struct notify *notify, devoff_t start, devoff_t end,
			  const struct iset *bad)
{
	int result = 0;

	for (size_t i = 0; i < bad->count; i++) {
		const struct iset_range *range = &bad->ranges[i];
		int rc = notify_fail_range(notify, range->start, range->end,
					   queue_tag(BADBLOCK_BAD, FAILURE_KERNEL));

		if (rc)
			result = rc;
		if (range->start > start)
			narrow_unknow(notify, start, range->start);
		start = range->end;
	}
	if (start < end)
		narrow_unknow(notify, start, end);
	return result;
}

static void narrow_by_probing(struct notify *notify, devoff_t start, devoff_t end)
{
	uint8_t page[BLOCK_BYTES];

	while (start < end) {
		const devoff_t stop =
		    min_u64(end, round_down_u64(start, BLOCK_BYTES) + BLOCK_BYTES);
		devoff_t bad = start;

		narrow_unknow(notify, start, stop);
		/* Behind the first bad sector there may be others: each is met once. */
		while (bad < stop && media_read(notify->media, bad, page, stop - bad, &bad) == -EIO)
			bad = round_down_u64(bad, SECTOR_BYTES) + SECTOR_BYTES;
		start = stop;
	}
}

int notify_narrow_range(struct notify *notify, devoff_t start, devoff_t end)
{
	struct iset bad;
	int rc;

	iset_init(&bad);
	rc = narrow_ask(notify, start, end, &bad);
	if (rc)
		log_warning("the kernel's bad blocks cannot be asked for: error %d", -rc);
	if (bad.count > 0) {
		rc = narrow_by_list(notify, start, end, &bad);
	} else {
		narrow_by_probing(notify, start, end);
		rc = 0;
	}
	iset_fini(&bad);
	return rc;
}
