/* The part of an input that changes the image. */
#include "tests/fuzz/image.h"

#include "format/node_format.h"

struct target {
	struct place place;
	uint8_t copies;
};

static struct target take_target(const struct base *base, struct bytes *bytes)
{
	unsigned kind = bytes_u8(bytes);
	uint16_t index = bytes_u16(bytes);

	return (struct target){.place = places_get(base->places, kind, index), .copies = bytes_u8(bytes)};
}

static bool target_has(const struct target *target, unsigned copy)
{
	uint8_t copies = target->copies & (uint8_t)~IMAGE_RAW;

	return !copies || copies & 1u << copy;
}

/* Change [offset, ...) of each copy that is meant, and seal it. */
static void patch(const struct base *base, const struct target *target, size_t offset, const uint8_t *from, size_t length)
{
	const struct place *place = &target->place;

	offset %= place->length;
	length = min_u64(length, place->length - offset);
	for (unsigned copy = 0; copy < place->copies; copy++) {
		uint8_t *bytes;

		if (!target_has(target, copy))
			continue;
		bytes = medium_change(base->medium, place->offset[copy], place->length);
		memmove(bytes + offset, from, length);
		if (!(target->copies & IMAGE_RAW))
			place_seal(place, bytes);
	}
}

static void do_patch(const struct base *base, struct bytes *bytes)
{
	struct target target = take_target(base, bytes);
	size_t offset = bytes_u16(bytes);

	patch(base, &target, offset, bytes->at, bytes->left);
}

static void do_record(const struct base *base, struct bytes *bytes)
{
	struct target target = take_target(base, bytes);
	const struct format_node *node = (const void *)(medium_kept(base->medium) + target.place.offset[0]);
	unsigned record = bytes_u8(bytes), count;
	size_t offset = bytes_u16(bytes);

	if (target.place.kind <= PLACE_TREE)
		return;
	count = le16_get(node->count);
	if (!count)
		return;
	record %= count;
	offset %= max_u64(1, le16_get(node->slots[record].length));
	patch(base, &target, le16_get(node->slots[record].offset) + offset, bytes->at, bytes->left);
}

static void do_copy(const struct base *base, struct bytes *bytes)
{
	struct target target = take_target(base, bytes), source = take_target(base, bytes);
	size_t keep = min_u64(8u * bytes_u8(bytes), target.place.length);
	const uint8_t *from = medium_kept(base->medium) + source.place.offset[0];

	patch(base, &target, keep, from + min_u64(keep, source.place.length),
	      source.place.length - min_u64(keep, source.place.length));
}

static void do_fill(const struct base *base, struct bytes *bytes)
{
	struct target target = take_target(base, bytes);
	size_t offset = bytes_u16(bytes), length = bytes_u16(bytes) % (BLOCK_BYTES + 1);
	uint8_t fill[BLOCK_BYTES];

	memset(fill, bytes_u8(bytes), sizeof(fill));
	patch(base, &target, offset, fill, length);
}

static void do_poison(const struct base *base, struct bytes *bytes)
{
	struct target target = take_target(base, bytes);
	size_t offset = bytes_u16(bytes) % target.place.length, length = bytes_u16(bytes);

	for (unsigned copy = 0; copy < target.place.copies; copy++)
		if (target_has(&target, copy))
			lab_poison(medium_lab(base->medium), target.place.offset[copy] + offset,
				   1 + length % (target.place.length - offset));
}

static void (*const doers[])(const struct base *base, struct bytes *bytes) = {
	[IMAGE_PATCH] = do_patch, [IMAGE_RECORD] = do_record, [IMAGE_COPY] = do_copy, [IMAGE_FILL] = do_fill, [IMAGE_POISON] = do_poison,
};

void image_spoil(const struct base *base, const struct program *program)
{
	for (size_t i = 0; i < program->count; i++) {
		struct bytes bytes = order_bytes(&program->orders[i]);
		unsigned kind = program->orders[i].kind % IMAGE_ORDERS;

		if (kind < ARRAY_SIZE(doers))
			doers[kind](base, &bytes);
	}
}
