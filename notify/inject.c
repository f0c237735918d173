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

/* Sectors in which something is armed. */
static int uninject_list_armed(struct notify *notify, struct iset *armed)
{
	struct media_poison *list = NULL;
	size_t count = 0;
	int rc = media_poison_list(notify->media, &list, &count);

	for (size_t i = 0; i < count && rc == 0; i++)
		rc = iset_add(armed, round_down_u64(list[i].offset, SECTOR_BYTES),
			      round_up_u64(list[i].offset + list[i].length, SECTOR_BYTES), 0);
	free(list);
	return rc;
}

/* What was injected latent and then touched has `sigbus` for a source: it is told from the real thing by what was armed. */
static int uninject_keep_span(struct iset *good, const struct iset *armed, const struct span *span)
{
	devoff_t at = span->start;
	int rc = 0;

	if (span->source == FAILURE_INJECTED)
		return 0;
	while (at < span->end && rc == 0) {
		const struct iset_range *mine = span->source == FAILURE_SIGBUS ? iset_find(armed, at, span->end) : NULL;
		const devoff_t stop = mine ? max_u64(mine->start, at) : span->end;

		if (stop > at)
			rc = iset_remove(good, at, stop);
		at = mine ? mine->end : span->end;
	}
	return rc;
}

/* On a device (a disk has errors, too) only what was injected is ours to call good; a plain file has no other poison. */
static int uninject_keep_real(struct notify *notify, struct iset *good, const struct iset *armed, devoff_t start,
			      devoff_t end)
{
	struct span span;
	int rc = 0;

	if (!media_is_device(notify->media) && !media_is_block(notify->media))
		return 0;
	journal_read_begin(notify->journal);
	for (; start < end && rc == 0; start = span.end) {
		rc = span_first(&notify->ledger.badblocks, start, end, &span);
		if (rc == 0)
			rc = uninject_keep_span(good, armed, &span);
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

static int uninject_ledger(struct notify *notify, const struct iset *armed, devoff_t start, devoff_t end)
{
	struct iset good;
	int rc;

	iset_init(&good);
	rc = iset_add(&good, start, end, 0);
	if (rc == 0)
		rc = uninject_keep_armed(notify, &good);
	if (rc == 0)
		rc = uninject_keep_real(notify, &good, armed, start, end);
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
	struct iset armed;
	uint64_t removed = 0;
	int rc = inject_check(notify, offset, length);

	iset_init(&armed);
	if (rc == 0)
		rc = uninject_list_armed(notify, &armed);
	if (rc == 0)
		rc = media_poison_disarm(notify->media, offset, length, &removed);
	if (rc == 0)
		rc = uninject_ledger(notify, &armed, round_down_u64(offset, SECTOR_BYTES),
				     round_up_u64(offset + length, SECTOR_BYTES));
	iset_fini(&armed);
	if (rc)
		return rc;
	event_publish(notify->setup.events, &event);
	*removed_bytes = removed;
	return 0;
}
