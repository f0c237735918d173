#include "mkfs/known.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/poison_format.h"
#include "notify/notify.h"

static int known_add(struct media *media, struct known *known, devoff_t offset, uint64_t length)
{
	uint64_t size = media_size(media);
	int error;

	if (offset >= size || length == 0)
		return 0;
	length = min_u64(length, size - offset);
	error = media_bad_add(media, offset, length);
	if (error)
		return error;
	return iset_add(&known->bad, round_down_u64(offset, SECTOR_BYTES),
			round_up_u64(offset + length, SECTOR_BYTES), KNOWN_TOLD);
}

static int known_load_device(struct media *media, struct known *known)
{
	struct source_badblock *list = NULL;
	size_t count = 0;
	int told = 0;
	int error = source_badblocks(media_real_path(media), &list, &count, &told);

	known->source = FAILURE_KERNEL;
	known->is_unknown = !told;
	for (size_t i = 0; i < count && !error; i++)
		error = known_add(media, known, list[i].offset, list[i].length);
	free(list);
	return error;
}

/* Latent poison is what nobody has been told of: it is met, if at all. */
static int known_load_file(struct media *media, struct known *known)
{
	struct media_poison *list = NULL;
	size_t count = 0;
	int error = media_poison_list(media, &list, &count);

	known->source = FAILURE_INJECTED;
	for (size_t i = 0; i < count && !error; i++)
		if (!list[i].latent)
			error = known_add(media, known, list[i].offset, list[i].length);
	free(list);
	return error;
}

int known_load(struct media *media, struct known *out, struct why *why)
{
	struct known known = {0};
	int error = 0;

	iset_init(&known.bad);
	if (!media_is_device(media))
		error = media_poison_load(media, NULL, why);
	if (error)
		return error;
	error = media_is_device(media) ? known_load_device(media, &known)
				       : known_load_file(media, &known);
	if (error) {
		iset_fini(&known.bad);
		return why_set(why, error, "%s: the known poison cannot be read: %s",
			       media_path(media), strerror(-error));
	}
	known.bytes_told = iset_bytes(&known.bad);
	known.count_told = known.bad.count;
	*out = known;
	return 0;
}

void known_fini(struct known *known)
{
	iset_fini(&known->bad);
}

/* Poison rarely comes alone: read on behind it until something is good, so that mkfs starts again once and not for each sector. */
static void known_probe_on(struct media *media, devoff_t end)
{
	devoff_t stop = min_u64(end + HUGE_BYTES, media_size(media));
	uint8_t sector[SECTOR_BYTES];

	while (end + SECTOR_BYTES <= stop &&
	       media_read(media, end, sector, sizeof(sector), NULL) == -EIO)
		end += SECTOR_BYTES;
}

static int known_merge(struct known *known, devoff_t start, devoff_t end, bool *more)
{
	int error = 0;

	for (devoff_t at = start; at < end && !error;) {
		const struct iset_range *old = iset_find(&known->bad, at, end);
		devoff_t stop = old ? max_u64(old->start, at) : end;
		devoff_t resume = old ? old->end : end;

		if (stop > at) {
			error = iset_add(&known->bad, at, stop, KNOWN_MET);
			*more = true;
		}
		at = resume;
	}
	return error;
}

int known_refresh(struct media *media, struct known *known, bool *more)
{
	uint64_t size = media_size(media);
	devoff_t at = 0, bad;
	uint64_t length;
	int error = 0;

	*more = false;
	while (!error && at < size && media_bad_find(media, at, size - at, &bad, &length)) {
		if (!iset_covers(&known->bad, bad, bad + length)) {
			known_probe_on(media, bad + length);
			media_bad_find(media, bad, size - bad, &bad, &length);
		}
		error = known_merge(known, bad, bad + length, more);
		at = bad + length;
	}
	return error;
}

int known_list(const struct known *known, struct media_poison **out, size_t *count)
{
	struct media_poison *list = calloc(known->bad.count + 1, sizeof(*list));

	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < known->bad.count; i++) {
		const struct iset_range *range = &known->bad.ranges[i];

		list[i].offset = range->start;
		list[i].length = range->end - range->start;
		list[i].latent = range->tag == KNOWN_MET;
	}
	*out = list;
	*count = known->bad.count;
	return 0;
}
