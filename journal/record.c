#include "journal/log.h"

#include <errno.h>
#include <string.h>

#include "util/crc.h"

static uint32_t record_crc(const void *bytes, size_t length_bytes)
{
	static const uint8_t zero[4];
	uint32_t crc = crc32c(0, bytes, 4);

	crc = crc32c(crc, zero, 4);
	return crc32c(crc, (const uint8_t *)bytes + 8, length_bytes - 8);
}

void record_head_pack(struct format_journal_head *to, const struct log_ring *ring, const uint8_t *meta_uuid)
{
	memset(to, 0, sizeof(*to));
	to->magic = le32_make(FORMAT_JOURNAL_HEAD_MAGIC);
	memcpy(to->meta_uuid, meta_uuid, FORMAT_UUID_BYTES);
	to->tail_sequence = le64_make(ring->tail_sequence);
	to->tail_offset = le64_make(ring->tail_offset);
	to->epoch = le32_make(ring->epoch);
	to->update = le64_make(ring->update);
	to->ring_bytes = le64_make(ring->ring_bytes);
	to->crc32c = le32_make(record_crc(to, sizeof(*to)));
}

int record_head_verify(const struct format_journal_head *head, const struct log_ring *ring)
{
	uint64_t offset = le64_get(head->tail_offset);

	if (le32_get(head->magic) != FORMAT_JOURNAL_HEAD_MAGIC ||
	    le32_get(head->crc32c) != record_crc(head, sizeof(*head)) ||
	    memcmp(head->meta_uuid, ring->super->meta_uuid, FORMAT_UUID_BYTES))
		return -EUCLEAN;
	if (le64_get(head->ring_bytes) != ring->ring_bytes || offset % LINE_BYTES || offset >= ring->ring_bytes ||
	    !le64_get(head->tail_sequence) || le32_get(head->reserved))
		return -EUCLEAN;
	if (le64_get(head->tail_sequence) >= FORMAT_JOURNAL_COUNT_END || le64_get(head->update) >= FORMAT_JOURNAL_COUNT_END)
		return -EUCLEAN;
	return 0;
}

void record_seal(const struct log_ring *ring, uint8_t *record, unsigned type, size_t length_bytes, unsigned items, const struct log_claim *claim)
{
	struct format_record_header *header = (struct format_record_header *)record;

	memset(header, 0, sizeof(*header));
	header->magic = le32_make(FORMAT_RECORD_MAGIC);
	memcpy(header->meta_uuid, ring->super->meta_uuid, FORMAT_UUID_BYTES);
	header->sequence = le64_make(claim->sequence);
	header->length = le32_make((uint32_t)length_bytes);
	header->type = le16_make((uint16_t)type);
	header->items = le16_make((uint16_t)items);
	header->durable_up_to = le64_make(claim->durable);
	header->epoch = le32_make(ring->epoch);
	header->boot = le32_make(ring->paged ? ring->boot : 0);
	header->offset = le64_make(claim->offset);
	header->crc32c = le32_make(record_crc(header, length_bytes));
}

static bool header_place_is_right(const struct format_record_header *header, const struct log_ring *ring, uint64_t offset)
{
	uint64_t stated = le64_get(header->offset);

	switch (le16_get(header->type)) {
	case FORMAT_RECORD_TX:
		return stated == offset && le16_get(header->items);
	case FORMAT_RECORD_MARK:
		return stated == offset && !le16_get(header->items) && le32_get(header->length) == LINE_BYTES;
	case FORMAT_RECORD_JUMP:
		return stated % LINE_BYTES == 0 && stated < ring->ring_bytes && !le16_get(header->items) &&
		       le32_get(header->length) == LINE_BYTES;
	default:
		return false;
	}
}

bool record_header_is_ours(const struct format_record_header *header, const struct log_ring *ring, uint64_t offset)
{
	uint32_t length = le32_get(header->length);

	if (le32_get(header->magic) != FORMAT_RECORD_MAGIC || le32_get(header->epoch) != ring->epoch ||
	    memcmp(header->meta_uuid, ring->super->meta_uuid, FORMAT_UUID_BYTES))
		return false;
	if (length < LINE_BYTES || length % LINE_BYTES || length > LOG_RECORD_MAX_BYTES ||
	    offset + length > ring->ring_bytes)
		return false;
	return header_place_is_right(header, ring, offset);
}

static bool record_flags_fit(const struct format_record_item *item)
{
	switch (le32_get(item->flags)) {
	case 0:
	case FORMAT_ITEM_INIT:
		return true;
	case FORMAT_ITEM_ADD:
		return maddr_is_fixed(le64_get(item->address));
	default:
		return false;
	}
}

static bool record_items_fit(const struct format_record_header *header)
{
	const struct format_record_item *item = (const struct format_record_item *)(header + 1);
	unsigned items = le16_get(header->items);
	uint64_t length = record_lines_offset(items);

	if (length > le32_get(header->length))
		return false;
	for (unsigned i = 0; i < items; i++, item++) {
		if (!record_flags_fit(item) || le32_get(item->reserved))
			return false;
		length += (uint64_t)__builtin_popcountll(le64_get(item->lines)) * LINE_BYTES;
	}
	return length == le32_get(header->length);
}

bool record_is_whole(const void *record, size_t length_bytes)
{
	const struct format_record_header *header = record;

	if (le32_get(header->crc32c) != record_crc(record, length_bytes))
		return false;
	return le16_get(header->type) != FORMAT_RECORD_TX || record_items_fit(header);
}
