/*
 * Narrowing a coarse report. A notice without a cursor names a whole page of the mapping, up to 2
 * MiB, in which a line or a sector is bad. The kernel's list says which; where it says nothing,
 * each 4 KiB page is read once, and what that meets is reported by media/ like any other fault. The
 * rest is good again. Until it is decided, all of it stays in the known set.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "notify/internal.h"
#include "util/log.h"

#define LIST_TRIES 5u
#define LIST_WAIT_US 50000u

/* What the kernel lists within the range. *may_come: there is a list, which may be a moment late. */
static int narrow_ask(struct notify *notify, devoff_t start, devoff_t end, struct iset *bad, bool *may_come)
{
	struct source_list list;
	int rc = source_badblocks(notify->media, &list);

	if (rc)
		return rc;
	for (size_t i = 0; i < list.count && rc == 0; i++) {
		const devoff_t from = max_u64(start, list.blocks[i].offset),
			       to = min_u64(end, list.blocks[i].offset + list.blocks[i].length);

		if (from < to)
			rc = iset_add(bad, from, to, 0);
	}
	*may_come = list.state != SOURCE_NONE;
	source_list_fini(&list);
	return rc;
}

/*
 * What of the range is in the known set because of a coarse word leaves it. This word of the poison log comes first; a failure reported
 * meanwhile stays.
 */
static void narrow_unknow(struct notify *notify, devoff_t start, devoff_t end)
{
	pthread_mutex_lock(&notify->lock);
	while (start < end) {
		struct iset_range queued;
		devoff_t known;
		uint64_t length;

		if (!media_bad_find(notify->media, start, end - start, &known, &length))
			break;
		start = known;
		if (!queue_find_failed(&notify->queue.ranges, known, known + length, &queued))
			queued.start = queued.end = known + length;
		if (queued.start > start) {
			notify_log(notify, start, queued.start, BADBLOCK_CLEARED, FAILURE_SIGBUS);
			media_bad_remove(notify->media, start, queued.start - start);
		}
		start = queued.end;
	}
	pthread_mutex_unlock(&notify->lock);
}

/* Known and in the log before anything else, where the coarse word did not enter it already. */
static int narrow_fail(struct notify *notify, devoff_t start, devoff_t end)
{
	int rc;

	pthread_mutex_lock(&notify->lock);
	rc = media_bad_add(notify->media, start, end - start);
	notify_log(notify, start, end, BADBLOCK_BAD, FAILURE_KERNEL);
	pthread_mutex_unlock(&notify->lock);
	if (rc)
		log_error("no memory to remember the bad range %llu+%llu", (unsigned long long)start, (unsigned long long)(end - start));
	return notify_fail_range(notify, start, end, queue_tag(BADBLOCK_BAD, FAILURE_KERNEL));
}

/* The kernel's list decides. */
static int narrow_by_list(struct notify *notify, devoff_t start, devoff_t end,
			  const struct iset *bad)
{
	int result = 0;

	while (start < end) {
		const struct iset_range *range = iset_find(bad, start, end);
		const devoff_t from = range ? max_u64(range->start, start) : end;
		const devoff_t to = range ? min_u64(range->end, end) : end;
		int rc = 0;

		if (from > start)
			narrow_unknow(notify, start, from);
		if (from < to)
			rc = narrow_fail(notify, from, to);
		result = rc ? rc : result;
		start = to;
	}
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

/* Does the list have anything in the range that we do not have? */
static bool narrow_has_news(struct notify *notify, devoff_t start, devoff_t end, const struct iset *bad)
{
	devoff_t gap, gap_end;

	for (; start < end && notify_next_new(notify, start, end, &gap, &gap_end) == 0; start = gap_end)
		if (iset_overlaps(bad, gap, gap_end))
			return true;
	return false;
}

/* The signal comes before the kernel's list has the sector; a probe would consume what the list names a moment later. */
static bool narrow_consult(struct notify *notify, devoff_t start, devoff_t end, struct iset *bad)
{
	bool may_come = true;
	int rc = 0;

	for (unsigned i = 0; i < LIST_TRIES && may_come && rc == 0; i++) {
		if (i > 0)
			usleep(LIST_WAIT_US);
		rc = narrow_ask(notify, start, end, bad, &may_come);
		if (rc == 0 && narrow_has_news(notify, start, end, bad))
			return true;
	}
	if (rc)
		log_warning("the kernel's bad blocks cannot be asked for: error %d", -rc);
	return false;
}

/* What the ledger has stays as it is. */
int notify_narrow_range(struct notify *notify, devoff_t start, devoff_t end)
{
	devoff_t gap, gap_end;
	struct iset bad;
	bool is_listed;
	int rc = 0;

	iset_init(&bad);
	is_listed = narrow_consult(notify, start, end, &bad);
	for (; start < end && notify_next_new(notify, start, end, &gap, &gap_end) == 0; start = gap_end) {
		int error = 0;

		if (is_listed)
			error = narrow_by_list(notify, gap, gap_end, &bad);
		else
			narrow_by_probing(notify, gap, gap_end);
		rc = error ? error : rc;
	}
	iset_fini(&bad);
	return rc;
}
