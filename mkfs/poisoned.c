#include "mkfs/poisoned.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/poison_format.h"
#include "notify/notify.h"

static int poisoned_add(struct media *media, struct poisoned *poisoned, devoff_t offset, uint64_t length)
{
	uint64_t size = media_size(media);
	int error;

	if (offset >= size || length == 0)
		return 0;
	length = min_u64(length, size - offset);
	error = media_bad_add(media, offset, length);
	if (error)
		return error;
	return iset_add(&poisoned->bad, round_down_u64(offset, SECTOR_BYTES),
			round_up_u64(offset + length, SECTOR_BYTES), POISONED_TOLD);
}

static int poisoned_load_listed(struct media *media, struct poisoned *poisoned)
{
	struct source_list list;
	int error = source_badblocks(media, &list);

	if (error)
		return error;
	poisoned->is_unknown = list.state == SOURCE_UNKNOWN;
	poisoned->why = list.why;
	for (size_t i = 0; i < list.count && !error; i++)
		error = poisoned_add(media, poisoned, list.blocks[i].offset, list.blocks[i].length);
	if (list.count)
		poisoned->source = FAILURE_KERNEL;
	source_list_fini(&list);
	return error;
}

/* Latent poison is what nobody has been told of: it is met, if at all. */
static int poisoned_load_emulated(struct media *media, struct poisoned *poisoned)
{
	struct media_poison *list = NULL;
	size_t count = 0;
	int error = media_poison_list(media, &list, &count);

	poisoned->source = FAILURE_INJECTED;
	for (size_t i = 0; i < count && !error; i++)
		if (!list[i].latent)
			error = poisoned_add(media, poisoned, list[i].offset, list[i].length);
	free(list);
	return error;
}

int poisoned_load(struct media *media, struct poisoned *out, struct why *why)
{
	struct poisoned poisoned = {0};
	int error = 0;

	iset_init(&poisoned.bad);
	if (!media_is_device(media))
		error = media_poison_load(media, NULL, why);
	if (error)
		return error;
	error = poisoned_load_emulated(media, &poisoned);
	if (!error)
		error = poisoned_load_listed(media, &poisoned);
	if (error) {
		iset_fini(&poisoned.bad);
		return why_set(why, error, "%s: the known poison cannot be read: %s",
			       media_path(media), strerror(-error));
	}
	poisoned.bytes_told = iset_bytes(&poisoned.bad);
	poisoned.count_told = poisoned.bad.count;
	*out = poisoned;
	return 0;
}

void poisoned_fini(struct poisoned *poisoned)
{
	iset_fini(&poisoned->bad);
}

/* Poison rarely comes alone: read on behind it until something is good, so that mkfs starts again once and not for each sector. */
static void poisoned_probe_on(struct media *media, devoff_t end)
{
	devoff_t stop = min_u64(end + HUGE_BYTES, media_size(media));
	uint8_t sector[SECTOR_BYTES];

	while (end + SECTOR_BYTES <= stop &&
	       media_read(media, end, sector, sizeof(sector), NULL) == -EIO)
		end += SECTOR_BYTES;
}

static int poisoned_merge(struct poisoned *poisoned, devoff_t start, devoff_t end, bool *more)
{
	int error = 0;

	for (devoff_t at = start; at < end && !error;) {
		const struct iset_range *old = iset_find(&poisoned->bad, at, end);
		devoff_t stop = old ? max_u64(old->start, at) : end;
		devoff_t resume = old ? old->end : end;

		if (stop > at) {
			error = iset_add(&poisoned->bad, at, stop, POISONED_MET);
			*more = true;
		}
		at = resume;
	}
	return error;
}

int poisoned_refresh(struct media *media, struct poisoned *poisoned, bool *more)
{
	uint64_t size = media_size(media);
	devoff_t at = 0, bad;
	uint64_t length;
	int error = 0;

	*more = false;
	while (!error && at < size && media_bad_find(media, at, size - at, &bad, &length)) {
		if (!iset_covers(&poisoned->bad, bad, bad + length)) {
			poisoned_probe_on(media, bad + length);
			media_bad_find(media, bad, size - bad, &bad, &length);
		}
		error = poisoned_merge(poisoned, bad, bad + length, more);
		at = bad + length;
	}
	return error;
}

int poisoned_list(const struct poisoned *poisoned, struct media_poison **out, size_t *count)
{
	struct media_poison *list = calloc(poisoned->bad.count + 1, sizeof(*list));

	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < poisoned->bad.count; i++) {
		const struct iset_range *range = &poisoned->bad.ranges[i];

		list[i].offset = range->start;
		list[i].length = range->end - range->start;
		list[i].latent = range->tag == POISONED_MET;
	}
	*out = list;
	*count = poisoned->bad.count;
	return 0;
}
