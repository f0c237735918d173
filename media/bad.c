/* The known set as the layers above see it. */
#include <errno.h>

#include "media/media_types.h"

static bool bad_clip(const struct media *media, devoff_t offset, uint64_t length, devoff_t *end)
{
	if (length == 0 || offset >= media->size)
		return false;
	*end = length > media->size - offset ? media->size : offset + length;
	return true;
}

int media_bad_add(struct media *media, devoff_t offset, uint64_t length)
{
	devoff_t end;
	bool is_new;

	if (!bad_clip(media, offset, length, &end))
		return -ERANGE;
	return known_add(&media->known, round_down_u64(offset, SECTOR_BYTES),
			 round_up_u64(end, SECTOR_BYTES), &is_new);
}

int media_bad_remove(struct media *media, devoff_t offset, uint64_t length)
{
	devoff_t end;

	if (!bad_clip(media, offset, length, &end))
		return -ERANGE;
	return known_remove(&media->known, offset, end);
}

bool media_bad_find(struct media *media, devoff_t offset, uint64_t length, devoff_t *bad,
		    uint64_t *bad_length)
{
	devoff_t end, bad_end;

	if (!bad_clip(media, offset, length, &end) ||
	    !known_find(&media->known, offset, end, bad, &bad_end))
		return false;
	*bad_length = bad_end - *bad;
	return true;
}

bool media_bad_any(const struct media *media)
{
	return known_any(&media->known);
}
