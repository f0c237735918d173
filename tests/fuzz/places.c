#include "tests/fuzz/places.h"

#include <stdlib.h>
#include <string.h>

#include "format/chunk_format.h"
#include "format/journal_format.h"
#include "format/poison_format.h"
#include "format/super_format.h"
#include "tests/fuzz/seal.h"

#define RECORD_BYTES_MAX (256u << 10)

struct place_list {
	struct place *list;
	size_t count, capacity;
};

struct places {
	const uint8_t *image;
	size_t size;
	struct super super;
	struct place_list kinds[PLACE_KINDS];
};

static struct place *places_add(struct places *places, enum place_kind kind, size_t length)
{
	struct place_list *kinds = &places->kinds[kind];

	if (kinds->count == kinds->capacity) {
		kinds->capacity = kinds->capacity ? 2 * kinds->capacity : 16;
		kinds->list = realloc(kinds->list, kinds->capacity * sizeof(*kinds->list));
		if (!kinds->list)
			abort();
	}
	kinds->list[kinds->count] = (struct place){.kind = kind, .length = length};
	return &kinds->list[kinds->count++];
}

static void place_add_copy(struct place *place, devoff_t offset)
{
	if (place->copies < PLACE_COPIES_MAX)
		place->offset[place->copies++] = offset;
}

static bool places_find_super(struct places *places)
{
	struct place *place = NULL;
	struct why why;

	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++) {
		devoff_t at = super_slot_offset(slot);

		if (at >= places->size || format_super_unpack(&places->super, (const void *)(places->image + at), &why))
			continue;
		if (!place)
			place = places_add(places, PLACE_SUPER, BLOCK_BYTES);
		place_add_copy(place, at);
	}
	return place != NULL;
}

/* --- metadata blocks --- */

static const struct format_block_header *header_at(const struct places *places, devoff_t at)
{
	return (const struct format_block_header *)(places->image + at);
}

static enum place_kind kind_of(const struct format_block_header *header)
{
	switch (header->role) {
	case FORMAT_ROLE_ROOT:
		return PLACE_ROOT;
	case FORMAT_ROLE_CHUNK_TABLE:
		return PLACE_TABLE;
	case FORMAT_ROLE_CHUNK_HEADER:
		return PLACE_CHUNK;
	default:
		return PLACE_TREE + header->tree;
	}
}

static struct place *find_address(struct places *places, enum place_kind kind, maddr_t address)
{
	struct place_list *kinds = &places->kinds[kind];

	for (size_t i = 0; i < kinds->count; i++)
		if (le64_get(header_at(places, kinds->list[i].offset[0])->address) == address)
			return &kinds->list[i];
	return NULL;
}

static void places_find_blocks(struct places *places)
{
	const char *field;

	for (devoff_t at = 0; at < places->size; at += BLOCK_BYTES) {
		const struct format_block_header *header = header_at(places, at);
		struct place *place;

		if (le32_get(header->magic) != FORMAT_BLOCK_MAGIC ||
		    format_block_verify(header, places->super.meta_uuid, le64_get(header->address), &field))
			continue;
		place = find_address(places, kind_of(header), le64_get(header->address));
		if (!place)
			place = places_add(places, kind_of(header), BLOCK_BYTES);
		place_add_copy(place, at);
	}
}

/* --- journal and poison log --- */

static void place_add_area(struct places *places, struct place *place, unsigned area, uint64_t at)
{
	for (unsigned copy = 0; copy < 2; copy++)
		if (places->super.areas[area].copy[copy])
			place_add_copy(place, places->super.areas[area].copy[copy] + at);
}

static void places_find_journal(struct places *places)
{
	const struct area *area = &places->super.areas[AREA_JOURNAL];
	const struct format_journal_head *head = (const void *)(places->image + area->copy[0]);
	uint64_t ring = area->length_bytes - BLOCK_BYTES, at = le64_get(head->tail_offset), next = le64_get(head->tail_sequence);

	place_add_area(places, places_add(places, PLACE_JOURNAL_HEAD, sizeof(*head)), AREA_JOURNAL, 0);
	while (at + LINE_BYTES <= ring) {
		const struct format_record_header *record = (const void *)(places->image + area->copy[0] + BLOCK_BYTES + at);
		uint32_t length = le32_get(record->length);

		if (le32_get(record->magic) != FORMAT_RECORD_MAGIC || le64_get(record->sequence) != next++ || !length ||
		    length > ring - at)
			break;
		place_add_area(places, places_add(places, PLACE_JOURNAL_RECORD, length), AREA_JOURNAL, BLOCK_BYTES + at);
		at = le16_get(record->type) == FORMAT_RECORD_JUMP ? le64_get(record->offset) : at + length;
	}
}

static void places_find_poison_log(struct places *places)
{
	const size_t step = sizeof(struct format_poison_entry);

	for (uint64_t at = 0; at < places->super.areas[AREA_POISON_LOG].length_bytes; at += step)
		place_add_area(places, places_add(places, PLACE_POISON_LOG, step), AREA_POISON_LOG, at);
}

struct places *places_find(const uint8_t *image, size_t size_bytes)
{
	struct places *places = calloc(1, sizeof(*places));

	if (!places)
		return NULL;
	places->image = image;
	places->size = size_bytes;
	if (!places_find_super(places)) {
		free(places);
		return NULL;
	}
	places_find_blocks(places);
	places_find_journal(places);
	places_find_poison_log(places);
	return places;
}

size_t places_count(const struct places *places, unsigned kind)
{
	return kind < PLACE_KINDS ? places->kinds[kind].count : 0;
}

struct place places_get(const struct places *places, unsigned kind, uint64_t index)
{
	kind %= PLACE_KINDS;
	while (kind != PLACE_RAW && !places->kinds[kind].count)
		kind = (kind + 1) % PLACE_KINDS;
	if (kind == PLACE_RAW)
		return (struct place){.kind = PLACE_RAW,
				      .copies = 1,
				      .length = BLOCK_BYTES,
				      .offset = {index % (places->size / BLOCK_BYTES) * BLOCK_BYTES}};
	return places->kinds[kind].list[index % places->kinds[kind].count];
}

void place_seal(const struct place *place, uint8_t *bytes)
{
	size_t length = place->length;

	switch (place->kind) {
	case PLACE_RAW:
		break;
	case PLACE_SUPER:
		seal_super(bytes);
		break;
	case PLACE_JOURNAL_RECORD:
		/* Of the bytes that it says it has, if they can be had. */
		length = le32_get(((const struct format_record_header *)bytes)->length);
		if (length < LINE_BYTES || length > place->length)
			length = place->length;
		seal_struct(bytes, length);
		break;
	default:
		seal_struct(bytes, length);
		break;
	}
}
