/* The heads and the chain of records from the tail, from whichever copy has them. */
#include "dump/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/journal_format.h"
#include "util/crc.h"

#define RECORD_BYTES_MAX (256u << 10)
#define HEAD_BYTES BLOCK_BYTES

struct ring {
	struct dump *dump;
	const struct dump_request *request;
	uint64_t bytes, offset, sequence;
	uint32_t epoch;
	uint64_t update;
	uint8_t *record;
	bool is_missing; /* look for a later one */
};

/* The field is the second word of the struct, here as in a record. */
static uint32_t crc_of(const void *bytes, size_t length)
{
	static const uint8_t zeros[4];
	uint32_t crc = crc32c(0, bytes, 4);

	crc = crc32c(crc, zeros, sizeof(zeros));
	return crc32c(crc, (const uint8_t *)bytes + 8, length - 8);
}

/* --- heads --------------------------------------------------------------------------------------------------------------------- */

static const char *head_fault(const struct ring *ring, const struct format_journal_head *head)
{
	if (le32_get(head->magic) != FORMAT_JOURNAL_HEAD_MAGIC)
		return "magic";
	if (le32_get(head->crc32c) != crc_of(head, sizeof(*head)))
		return "crc32c";
	if (memcmp(head->meta_uuid, ring->dump->super.meta_uuid, FORMAT_UUID_BYTES))
		return "meta_uuid";
	if (le64_get(head->ring_bytes) != ring->bytes)
		return "ring_bytes";
	if (le64_get(head->tail_offset) % LINE_BYTES || le64_get(head->tail_offset) >= ring->bytes)
		return "tail_offset";
	return NULL;
}

static void head_take(struct ring *ring, const struct format_journal_head *head)
{
	if (ring->sequence && le64_get(head->update) <= ring->update)
		return;
	ring->update = le64_get(head->update);
	ring->sequence = le64_get(head->tail_sequence);
	ring->offset = le64_get(head->tail_offset);
	ring->epoch = le32_get(head->epoch);
}

static int head_show(struct ring *ring, unsigned copy)
{
	devoff_t offset = ring->dump->super.areas[AREA_JOURNAL].copy[copy];
	struct json_object *element = element_make("journal_head");
	struct format_journal_head head;
	int error = media_read(ring->dump->media, offset, &head, sizeof(head), NULL);
	const char *fault = error ? NULL : head_fault(ring, &head);

	if (!element)
		return -ENOMEM;
	json_add_text(element, "copy", copy ? "replica" : "primary");
	json_add_u64(element, "device_offset", offset);
	json_add_text(element, "state", error ? "poisoned" : fault ? "damaged" : "whole");
	if (fault)
		json_add_text(element, "wrong", fault);
	if (!error && !fault) {
		head_take(ring, &head);
		json_add_u64(element, "update", le64_get(head.update));
		json_add_u64(element, "epoch", le32_get(head.epoch));
		json_add_u64(element, "tail_sequence", le64_get(head.tail_sequence));
		json_add_u64(element, "tail_offset", le64_get(head.tail_offset));
		json_add_u64(element, "ring_bytes", le64_get(head.ring_bytes));
	}
	if (ring->request->raw && !error)
		element_hex(element, "raw", &head, sizeof(head));
	return element_emit(ring->request, element);
}

/* --- records ------------------------------------------------------------------------------------------------------------------- */

/* The next one; or, once that is missing, any later one of persistent memory, which counts without it. */
static bool record_is_expected(const struct ring *ring, const struct format_record_header *header)
{
	uint64_t ahead = le64_get(header->sequence) - ring->sequence;

	return ahead == 0 || (ring->is_missing && !le32_get(header->boot) && ahead < ring->bytes / LINE_BYTES);
}

/* Whole, of this epoch and expected, at ring->offset of this copy, into ring->record. */
static bool record_read(struct ring *ring, unsigned copy)
{
	const struct format_record_header *header = (const struct format_record_header *)ring->record;
	devoff_t at = ring->dump->super.areas[AREA_JOURNAL].copy[copy] + HEAD_BYTES + ring->offset;
	uint32_t length;

	if (ring->offset + LINE_BYTES > ring->bytes || media_read(ring->dump->media, at, ring->record, LINE_BYTES, NULL))
		return false;
	length = le32_get(header->length);
	if (le32_get(header->magic) != FORMAT_RECORD_MAGIC || le32_get(header->epoch) != ring->epoch ||
	    !record_is_expected(ring, header) || length < LINE_BYTES || length % LINE_BYTES ||
	    length > RECORD_BYTES_MAX || length > ring->bytes - ring->offset ||
	    memcmp(header->meta_uuid, ring->dump->super.meta_uuid, FORMAT_UUID_BYTES))
		return false;
	return !media_read(ring->dump->media, at, ring->record, length, NULL) &&
	       le32_get(header->crc32c) == crc_of(ring->record, length) &&
	       sizeof(*header) + le16_get(header->items) * sizeof(struct format_record_item) <= length;
}

static void record_items(struct json_object *element, const struct format_record_header *header)
{
	const struct format_record_item *item = (const struct format_record_item *)(header + 1);

	for (unsigned i = 0; i < le16_get(header->items); i++, item++) {
		struct json_object *member = json_object_new_object();

		json_add_u64(member, "address", le64_get(item->address));
		element_hex(member, "lines_mask", (uint64_t[]){htobe64(le64_get(item->lines))}, sizeof(uint64_t));
		json_add_u64(member, "lines", (unsigned)__builtin_popcountll(le64_get(item->lines)));
		json_add_bool(member, "from_zeros", le32_get(item->flags) & FORMAT_ITEM_INIT);
		json_add_bool(member, "added", le32_get(item->flags) & FORMAT_ITEM_ADD);
		element_list(element, "items", member);
	}
}

static const char *record_type_name(unsigned type)
{
	switch (type) {
	case FORMAT_RECORD_TX:
		return "transaction";
	case FORMAT_RECORD_JUMP:
		return "jump";
	case FORMAT_RECORD_MARK:
		return "mark";
	}
	return "unknown";
}

static int record_show(struct ring *ring, unsigned copies)
{
	const struct format_record_header *header = (const struct format_record_header *)ring->record;
	struct json_object *element = element_make("journal_record");

	if (!element)
		return -ENOMEM;
	json_add_u64(element, "sequence", le64_get(header->sequence));
	json_add_u64(element, "offset", ring->offset);
	json_add_text(element, "kind", record_type_name(le16_get(header->type)));
	json_add_u64(element, "len", le32_get(header->length));
	json_add_text(element, "copies", copies == 3 ? "both" : copies == 1 ? "primary" : "replica");
	json_add_u64(element, "count_items", le16_get(header->items));
	json_add_u64(element, "durable_up_to", le64_get(header->durable_up_to));
	json_add_u64(element, "boot", le32_get(header->boot));
	if (le16_get(header->type) == FORMAT_RECORD_JUMP)
		json_add_u64(element, "next_offset", le64_get(header->offset));
	if (ring->request->records)
		record_items(element, header);
	if (ring->request->raw)
		element_hex(element, "raw", ring->record, le32_get(header->length));
	return element_emit(ring->request, element);
}

static unsigned record_read_both(struct ring *ring)
{
	unsigned copies = record_read(ring, 1) ? 2 : 0;

	copies |= record_read(ring, 0) ? 1 : 0;
	return copies == 2 && !record_read(ring, 1) ? 0 : copies;
}

/* On around the ring, from where the next one is missing. */
static unsigned record_find_later(struct ring *ring)
{
	uint64_t from = ring->offset;
	unsigned copies = 0;

	ring->is_missing = true;
	for (uint64_t i = LINE_BYTES; i < ring->bytes && !copies; i += LINE_BYTES) {
		ring->offset = (from + i) % ring->bytes;
		copies = record_read_both(ring);
	}
	ring->is_missing = false;
	return copies;
}

static int records_show(struct ring *ring)
{
	const struct format_record_header *header = (const struct format_record_header *)ring->record;
	/* Every record takes a line, so a chain of hostile jumps ends. */
	uint64_t most = ring->bytes / LINE_BYTES;

	for (uint64_t i = 0; i < most; i++) {
		unsigned copies = record_read_both(ring);
		int error;

		if (!copies)
			copies = record_find_later(ring);
		if (!copies)
			return 0;
		error = record_show(ring, copies);
		if (error)
			return error;
		ring->offset = le16_get(header->type) == FORMAT_RECORD_JUMP ? le64_get(header->offset)
									    : ring->offset + le32_get(header->length);
		ring->sequence = le64_get(header->sequence) + 1;
		if (ring->offset % LINE_BYTES)
			return 0;
	}
	return 0;
}

int dump_journal(struct dump *dump, const struct dump_request *request, struct why *why)
{
	struct ring ring = {
		.dump = dump,
		.request = request,
		.bytes = dump->super.areas[AREA_JOURNAL].length_bytes - HEAD_BYTES,
		.record = malloc(RECORD_BYTES_MAX),
	};
	int error = ring.record ? 0 : -ENOMEM;

	for (unsigned k = 0; k < 2 && !error; k++)
		error = head_show(&ring, k);
	if (!error && ring.sequence)
		error = records_show(&ring);
	free(ring.record);
	return error;
}
