#include <errno.h>
#include <stdlib.h>

#include "notify/internal.h"

#define UNINJECT_WAIT_MS 30000u

static int inject_check(struct notify *notify, devoff_t offset, uint64_t length)
{
	const uint64_t size = media_size(notify->media);

	if (length == 0)
		return -EINVAL;
	return offset >= size || length > size - offset ? -ERANGE : 0;
}

int notify_inject(struct notify *notify, devoff_t offset, uint64_t length, bool latent)
{
	int rc = inject_check(notify, offset, length);

	if (rc == 0)
		rc = media_poison_arm(notify->media, offset, length, latent);
	if (rc || latent)
		return rc;
	return notify_report(notify, offset, length, FAILURE_INJECTED);
}

/* Sectors in which something is still armed stay bad. */
static int uninject_keep_armed(struct notify *notify, struct iset *good)
{
	struct media_poison *list = NULL;
	size_t count = 0;
	int rc = media_poison_list(notify->media, &list, &count);

	for (size_t i = 0; i < count && rc == 0; i++)
		if (!list[i].latent)
			rc = iset_remove(
			    good, round_down_u64(list[i].offset, SECTOR_BYTES),
			    round_up_u64(list[i].offset + list[i].length, SECTOR_BYTES));
	free(list);
	return rc;
}

/* On a device (a disk has errors, too) only what was injected is ours to call good; a plain file has no other poison. */
static int uninject_keep_real(struct notify *notify, struct iset *good, devoff_t start,
			      devoff_t end)
{
	struct span span;
	int rc = 0;

	if (!media_is_device(notify->media) && !media_is_block(notify->media))
		return 0;
	journal_read_begin(notify->journal);
	for (; start < end && rc == 0; start = span.end) {
		rc = span_first(&notify->ledger.badblocks, start, end, &span);
		if (rc == 0 && span.source != FAILURE_INJECTED)
			rc = iset_remove(good, span.start, span.end);
	}
	journal_read_end(notify->journal);
	return rc == -ENOENT ? 0 : rc;
}

/*
 * The rest is the thread's, in order with everything else that was reported. Crashes: the poison
 * was lifted first, so until the CLEARED entry is in the log the range is merely called bad
 * although it is good (uninject again); from the entry on, mount ends what is left to do. Good
 * memory may be refused, armed memory is never called good.
 */
static int uninject_enter(struct notify *notify, const struct iset *good)
{
	int rc = 0;

	pthread_mutex_lock(&notify->lock);
	for (size_t i = 0; i < good->count && rc == 0; i++)
		rc = notify_enter(notify, good->ranges[i].start, good->ranges[i].end,
				  BADBLOCK_CLEARED, FAILURE_INJECTED);
	pthread_mutex_unlock(&notify->lock);
	return rc ? rc : notify_wait(notify, UNINJECT_WAIT_MS);
}

static int uninject_ledger(struct notify *notify, devoff_t start, devoff_t end)
{
	struct iset good;
	int rc;

	iset_init(&good);
	rc = iset_add(&good, start, end, 0);
	if (rc == 0)
		rc = uninject_keep_armed(notify, &good);
	if (rc == 0)
		rc = uninject_keep_real(notify, &good, start, end);
	if (rc == 0)
		rc = uninject_enter(notify, &good);
	iset_fini(&good);
	return rc;
}

int notify_uninject(struct notify *notify, devoff_t offset, uint64_t length,
		    uint64_t *removed_bytes)
{
	struct event event = {.type = EVENT_UNINJECTED,
			      .device_offset = offset,
			      .len = length,
			      .source = FAILURE_INJECTED};
	uint64_t removed;
	int rc = inject_check(notify, offset, length);

	if (rc == 0)
		rc = media_poison_disarm(notify->media, offset, length, &removed);
	if (rc)
		return rc;
	rc = uninject_ledger(notify, round_down_u64(offset, SECTOR_BYTES),
			     round_up_u64(offset + length, SECTOR_BYTES));
	if (rc)
		return rc;
	event_publish(notify->setup.events, &event);
	*removed_bytes = removed;
	return 0;
}
