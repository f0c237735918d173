#include "notify/overlay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void overlay_fini(struct overlay *overlay)
{
	free(overlay->records);
	*overlay = (struct overlay){0};
}

static devoff_t record_end(const struct badblock_record *record)
{
	return record->offset + record->length_bytes;
}

static size_t overlay_lower(const struct overlay *overlay, devoff_t start)
{
	size_t i = 0;

	while (i < overlay->count && record_end(&overlay->records[i]) <= start)
		i++;
	return i;
}

const struct badblock_record *overlay_next(const struct overlay *overlay, devoff_t start)
{
	const size_t i = overlay_lower(overlay, start);

	return i < overlay->count ? &overlay->records[i] : NULL;
}

static int overlay_insert_at(struct overlay *overlay, size_t index,
			     const struct badblock_record *record)
{
	if (overlay->count == overlay->capacity) {
		const size_t capacity = overlay->capacity ? overlay->capacity * 2 : 16;
		struct badblock_record *records =
		    reallocarray(overlay->records, capacity, sizeof(*records));

		if (!records)
			return -ENOMEM;
		overlay->records = records;
		overlay->capacity = capacity;
	}
	memmove(overlay->records + index + 1, overlay->records + index,
		(overlay->count - index) * sizeof(*record));
	overlay->records[index] = *record;
	overlay->count++;
	return 0;
}

int overlay_add(struct overlay *overlay, const struct badblock_record *record)
{
	const devoff_t end = record_end(record);
	struct badblock_record piece = *record;
	size_t i = overlay_lower(overlay, record->offset);
	int rc;

	while (piece.offset < end) {
		const devoff_t stop =
		    i < overlay->count
			? min_u64(end, max_u64(piece.offset, overlay->records[i].offset))
			: end;

		piece.length_bytes = stop - piece.offset;
		if (piece.length_bytes) {
			rc = overlay_insert_at(overlay, i++, &piece);
			if (rc)
				return rc;
		}
		if (i >= overlay->count)
			break;
		piece.offset = record_end(&overlay->records[i++]);
	}
	return 0;
}

int overlay_remove(struct overlay *overlay, devoff_t start, devoff_t end)
{
	size_t i = overlay_lower(overlay, start);

	while (i < overlay->count && overlay->records[i].offset < end) {
		struct badblock_record *record = &overlay->records[i];
		struct badblock_record right = *record;
		int rc;

		right.offset = min_u64(end, record_end(record));
		right.length_bytes = record_end(record) - right.offset;
		if (right.length_bytes) {
			rc = overlay_insert_at(overlay, i + 1, &right);
			if (rc)
				return rc;
			record = &overlay->records[i];
		}
		if (record->offset < start) {
			record->length_bytes = start - record->offset;
			i++;
			continue;
		}
		memmove(record, record + 1, (overlay->count - i - 1) * sizeof(*record));
		overlay->count--;
	}
	return 0;
}
