/* Read what lies in the ring: the chain of records from the tail, and whole records beyond its end. Writes nothing. */
#include "journal/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SCAN_WINDOW_BYTES (16u << 10) /* stays in the first-level cache while its lines are looked at */

/* A whole record at this place of one copy, into `bytes` (LOG_RECORD_MAX_BYTES); any sequence. */
static bool scan_read(struct log_ring *ring, unsigned copy, uint64_t offset, uint8_t *bytes)
{
	const struct format_record_header *header = (const struct format_record_header *)bytes;
	devoff_t place = ring->ring[copy] + offset;
	uint32_t length;

	if (offset + LINE_BYTES > ring->ring_bytes || media_read(ring->media, place, bytes, LINE_BYTES, NULL) ||
	    !record_header_is_ours(header, ring, offset))
		return false;
	length = le32_get(header->length);
	if (length > LINE_BYTES && media_read(ring->media, place + LINE_BYTES, bytes + LINE_BYTES, length - LINE_BYTES, NULL))
		return false;
	return record_is_whole(bytes, length);
}

static uint64_t record_sequence(const uint8_t *bytes)
{
	return le64_get(((const struct format_record_header *)bytes)->sequence);
}

static int scan_add(struct scan *scan, const struct scan_record *record)
{
	size_t capacity = scan->capacity ? 2 * scan->capacity : 256;
	struct scan_record *records;

	if (scan->count == scan->capacity) {
		records = realloc(scan->records, capacity * sizeof(*records));
		if (!records)
			return -ENOMEM;
		scan->records = records;
		scan->capacity = capacity;
	}
	scan->records[scan->count++] = *record;
	return 0;
}

static void scan_note(struct scan *scan, const struct format_record_header *header)
{
	scan->durable_up_to = max_u64(scan->durable_up_to, le64_get(header->durable_up_to));
	if (le32_get(header->boot))
		scan->boot = le32_get(header->boot);
}

static int scan_keep(struct scan *scan, struct scan_record *record, const uint8_t *bytes)
{
	const struct format_record_header *header = (const struct format_record_header *)bytes;
	int error;

	record->length_bytes = le32_get(header->length);
	record->bytes = malloc(record->length_bytes);
	if (!record->bytes)
		return -ENOMEM;
	memcpy(record->bytes, bytes, record->length_bytes);
	error = scan_add(scan, record);
	if (error) {
		free(record->bytes);
		return error;
	}
	scan_note(scan, header);
	scan->end_sequence = record->sequence + 1;
	scan->end_offset = le16_get(header->type) == FORMAT_RECORD_JUMP ? le64_get(header->offset) : record->offset + record->length_bytes;
	return 0;
}

/* The record that must be next, from whichever copy has it. -ENOENT: neither. */
static int scan_next(struct log_ring *ring, struct scan *scan, uint8_t *buffer)
{
	struct scan_record record = { .offset = scan->end_offset, .sequence = scan->end_sequence };

	for (unsigned k = ring->copies; k-- > 0;)
		if (scan_read(ring, k, record.offset, buffer) && record_sequence(buffer) == record.sequence)
			record.copies |= 1u << k;
	if (!record.copies)
		return -ENOENT;
	if (!(record.copies & 1) && (!scan_read(ring, 1, record.offset, buffer) || record_sequence(buffer) != record.sequence))
		return -ENOENT;
	return scan_keep(scan, &record, buffer);
}

static int scan_add_found(struct scan *scan, const struct scan_found *found)
{
	size_t capacity = scan->found_capacity ? 2 * scan->found_capacity : 64;
	struct scan_found *all;

	if (scan->found_count == scan->found_capacity) {
		all = realloc(scan->found, capacity * sizeof(*all));
		if (!all)
			return -ENOMEM;
		scan->found = all;
		scan->found_capacity = capacity;
	}
	scan->found[scan->found_count++] = *found;
	return 0;
}

static int scan_later_line(struct log_ring *ring, struct scan *scan, unsigned copy, uint64_t offset, const uint8_t *line, uint8_t *buffer)
{
	const struct format_record_header *header = (const struct format_record_header *)line;
	uint64_t sequence = le64_get(header->sequence);

	if (le32_get(header->magic) != FORMAT_RECORD_MAGIC)
		return 0;
	if (!record_header_is_ours(header, ring, offset) || sequence <= scan->end_sequence ||
	    sequence - scan->end_sequence > ring->ring_bytes / LINE_BYTES)
		return 0;
	if (!scan_read(ring, copy, offset, buffer))
		return 0;
	header = (const struct format_record_header *)buffer;
	scan_note(scan, header);
	return scan_add_found(scan, &(struct scan_found){ .sequence = sequence, .offset = offset, .length = le32_get(header->length),
							  .boot = le32_get(header->boot), .copies = 1u << copy,
							  .is_tx = le16_get(header->type) == FORMAT_RECORD_TX });
}

/* Bytes of the window that can be read; those that cannot are zeros. */
static void scan_window(struct log_ring *ring, unsigned copy, uint64_t offset, uint8_t *window, size_t length)
{
	if (!media_read(ring->media, ring->ring[copy] + offset, window, length, NULL))
		return;
	for (size_t i = 0; i < length; i += SECTOR_BYTES) {
		size_t step = min_u64(SECTOR_BYTES, length - i);

		if (media_read(ring->media, ring->ring[copy] + offset + i, window + i, step, NULL))
			memset(window + i, 0, step);
	}
}

#define SCAN_UNCHECKED __attribute__((no_sanitize("address", "thread", "undefined")))

SCAN_UNCHECKED static inline unsigned line_may_be(const uint8_t *line, struct le32 magic)
{
	return ((const struct format_record_header *)line)->magic.raw == magic.raw;
}

/*
 * May a header be among the lines? Nearly never, and this is most of a mount's time on a small image: four at a time, and without the checks of
 * sanitizers.
 */
SCAN_UNCHECKED static bool window_may_have(const uint8_t *window, size_t length)
{
	const struct le32 magic = le32_make(FORMAT_RECORD_MAGIC);
	const uint8_t *line = window, *end = window + length;
	unsigned found = 0;

	for (; end - line >= 4 * (ptrdiff_t)LINE_BYTES; line += 4 * LINE_BYTES)
		found |= line_may_be(line, magic) | line_may_be(line + LINE_BYTES, magic) | line_may_be(line + 2 * LINE_BYTES, magic) |
			 line_may_be(line + 3 * LINE_BYTES, magic);
	for (; line < end; line += LINE_BYTES)
		found |= line_may_be(line, magic);
	return found;
}

static int scan_later(struct log_ring *ring, struct scan *scan, unsigned copy, uint8_t *window, uint8_t *buffer)
{
	int error = 0;

	for (uint64_t offset = 0; offset < ring->ring_bytes && !error; offset += SCAN_WINDOW_BYTES) {
		size_t length = min_u64(SCAN_WINDOW_BYTES, ring->ring_bytes - offset);

		scan_window(ring, copy, offset, window, length);
		if (!window_may_have(window, length))
			continue;
		for (size_t i = 0; i + LINE_BYTES <= length && !error; i += LINE_BYTES)
			error = scan_later_line(ring, scan, copy, offset + i, window + i, buffer);
	}
	return error;
}

/* --- behind one that is missing ------------------------------------------------------------------------------------- */

static int compare_found(const void *a, const void *b)
{
	const struct scan_found *x = a, *y = b;

	if (x->sequence != y->sequence)
		return x->sequence < y->sequence ? -1 : 1;
	return x->copies < y->copies ? -1 : x->copies > y->copies;
}

/* One for both copies; two places for one number contradict each other, and the second copy's is left out. */
static void scan_sort_found(struct scan *scan)
{
	size_t kept = 0;

	if (scan->found_count)
		qsort(scan->found, scan->found_count, sizeof(*scan->found), compare_found);
	for (size_t i = 0; i < scan->found_count; i++) {
		struct scan_found *last = kept ? &scan->found[kept - 1] : NULL;

		if (!last || last->sequence != scan->found[i].sequence)
			scan->found[kept++] = scan->found[i];
		else if (last->offset == scan->found[i].offset && last->length == scan->found[i].length)
			last->copies |= scan->found[i].copies;
	}
	scan->found_count = kept;
	if (kept)
		scan->later_sequence = scan->found[kept - 1].sequence;
}

/* On the way around from the tail. */
static uint64_t distance_of(const struct log_ring *ring, uint64_t offset)
{
	return (offset + ring->ring_bytes - ring->tail_offset) % ring->ring_bytes;
}

static int scan_take_found(struct log_ring *ring, struct scan *scan, const struct scan_found *found, uint8_t *buffer)
{
	struct scan_record record = { .offset = found->offset, .sequence = found->sequence, .copies = found->copies };

	if (!scan_read(ring, found->copies & 1 ? 0 : 1, found->offset, buffer))
		return -EIO;
	return scan_keep(scan, &record, buffer);
}

/*
 * Of persistent memory, a record counts without those before it that nothing says were durable: they never were, and nobody has seen what they
 * changed. Else it does not, nor does any behind it.
 */
static int scan_take_later(struct log_ring *ring, struct scan *scan, uint8_t *buffer)
{
	uint64_t reach = distance_of(ring, scan->end_offset);
	size_t taken = 0;
	int error = 0;

	scan_sort_found(scan);
	if (scan->found_count && scan->end_sequence > scan->durable_up_to && !scan->found[0].boot)
		scan->missing = scan->end_sequence;
	while (scan->missing && taken < scan->found_count && !error) {
		const struct scan_found *found = &scan->found[taken];

		if ((found->boot && found->sequence != scan->end_sequence) || distance_of(ring, found->offset) < reach)
			break;
		error = scan_take_found(ring, scan, found, buffer);
		taken += !error;
		reach = max_u64(reach, distance_of(ring, scan->end_offset));
	}
	for (size_t i = taken; i < scan->found_count; i++)
		scan->later_tx += scan->found[i].is_tx;
	scan->later_count = scan->found_count - taken;
	return error == -EIO ? 0 : error;
}

int scan_run(struct log_ring *ring, bool is_new, struct scan *scan)
{
	uint8_t *buffer = ring->record; /* nothing is staged before the log was read */
	uint8_t *window = aligned_alloc(LINE_BYTES, SCAN_WINDOW_BYTES);
	int error = window ? 0 : -ENOMEM;

	memset(scan, 0, sizeof(*scan));
	scan->end_offset = ring->tail_offset;
	scan->end_sequence = ring->tail_sequence;
	scan->durable_up_to = ring->tail_sequence - 1;
	while (!error)
		error = scan_next(ring, scan, buffer);
	if (error == -ENOENT) {
		error = 0;
		for (unsigned k = 0; k < ring->copies && !is_new && !error; k++)
			error = scan_later(ring, scan, k, window, buffer);
		if (!error)
			error = scan_take_later(ring, scan, buffer);
	}
	free(window);
	return error;
}

void scan_fini(struct scan *scan)
{
	for (size_t i = 0; i < scan->count; i++)
		free(scan->records[i].bytes);
	free(scan->records);
	free(scan->found);
	memset(scan, 0, sizeof(*scan));
}
