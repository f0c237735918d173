#include "format/super_format.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "format/chunk_format.h"
#include "format/poison_format.h"
#include "format/zero.h"
#include "util/crc.h"

static uint32_t super_crc(const struct format_super *super)
{
	static const uint8_t zeros[4];
	const uint8_t *bytes = (const uint8_t *)super;
	const size_t at = offsetof(struct format_super, crc32c);
	uint32_t crc = crc32c(0, bytes, at);

	crc = crc32c(crc, zeros, sizeof(zeros));
	return crc32c(crc, bytes + at + 4, sizeof(*super) - at - 4);
}

static void super_identity_pack(struct format_super *to, const struct super *from)
{
	memcpy(to->meta_uuid, from->meta_uuid, FORMAT_UUID_BYTES);
	memcpy(to->uuid, from->uuid, FORMAT_UUID_BYTES);
	memcpy(to->label, from->label, strnlen(from->label, SUPER_LABEL_BYTES));
	memcpy(to->hash_seed, from->hash_seed, sizeof(to->hash_seed));
	memcpy(to->device_uuid, from->device_uuid, FORMAT_UUID_BYTES);
	memcpy(to->mkfs_version, from->mkfs_version,
	       strnlen(from->mkfs_version, sizeof(to->mkfs_version)));
	to->mkfs_time_ns = le64_make(from->mkfs_time_ns);
	to->device_count = le16_make(from->device_count);
	to->device_index = le16_make(from->device_index);
	to->device_events = le64_make(from->device_events);
}

void format_super_pack(struct format_super *to, const struct super *from)
{
	memset(to, 0, sizeof(*to));
	to->magic = le64_make(FORMAT_SUPER_MAGIC);
	to->version = le32_make(from->version);
	super_identity_pack(to, from);
	to->compat = le64_make(from->compat);
	to->ro_compat = le64_make(from->ro_compat);
	to->incompat = le64_make(from->incompat);
	to->update = le64_make(from->update);
	to->size_bytes = le64_make(from->size_bytes);
	to->block_shift = BLOCK_SHIFT;
	to->chunk_shift = from->chunk_shift;
	to->checksum = CHECKSUM_CRC32C;
	to->copies = from->copies;
	to->slots = le32_make(from->slots);
	for (int i = 0; i < AREA_COUNT; i++) {
		to->areas[i].copy[0] = le64_make(from->areas[i].copy[0]);
		to->areas[i].copy[1] = le64_make(from->areas[i].copy[1]);
		to->areas[i].length = le64_make(from->areas[i].length_bytes);
	}
	to->scrub_cursor = le64_make(from->scrub_cursor);
	to->crc32c = le32_make(super_crc(to));
}

static void super_load(struct super *to, const struct format_super *from)
{
	memset(to, 0, sizeof(*to));
	to->version = le32_get(from->version);
	memcpy(to->meta_uuid, from->meta_uuid, FORMAT_UUID_BYTES);
	memcpy(to->uuid, from->uuid, FORMAT_UUID_BYTES);
	memcpy(to->label, from->label, SUPER_LABEL_BYTES);
	to->compat = le64_get(from->compat);
	to->ro_compat = le64_get(from->ro_compat);
	to->incompat = le64_get(from->incompat);
	to->update = le64_get(from->update);
	to->size_bytes = le64_get(from->size_bytes);
	to->chunk_shift = from->chunk_shift;
	to->copies = from->copies;
	to->slots = le32_get(from->slots);
	memcpy(to->hash_seed, from->hash_seed, sizeof(to->hash_seed));
	to->device_count = le16_get(from->device_count);
	to->device_index = le16_get(from->device_index);
	memcpy(to->device_uuid, from->device_uuid, FORMAT_UUID_BYTES);
	to->device_events = le64_get(from->device_events);
	to->mkfs_time_ns = le64_get(from->mkfs_time_ns);
	memcpy(to->mkfs_version, from->mkfs_version, sizeof(from->mkfs_version));
	for (int i = 0; i < AREA_COUNT; i++) {
		to->areas[i].copy[0] = le64_get(from->areas[i].copy[0]);
		to->areas[i].copy[1] = le64_get(from->areas[i].copy[1]);
		to->areas[i].length_bytes = le64_get(from->areas[i].length);
	}
	to->scrub_cursor = le64_get(from->scrub_cursor);
}

/* --- verification --------------------------------------------------------------------------------------------------- */

/* Length of the UTF-8 sequence at p (of at most `left` bytes), 0 when it is none or a control character. */
static size_t utf8_length(const uint8_t *p, size_t left)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t length = *p < 0x80 ? 1 : *p < 0xc0 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf8 ? 4 : 0;
	uint32_t code;

	if (length == 0 || length > left)
		return 0;
	if (length == 1)
		return *p >= 0x20 && *p != 0x7f;
	code = *p & (0x7fu >> length);
	for (size_t i = 1; i < length; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (p[i] & 0x3f);
	}
	if (code < least[length] || code < 0xa0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
		return 0;
	return length;
}

bool format_label_is_valid(const char *label, size_t length)
{
	const uint8_t *p = (const uint8_t *)label;

	if (length > SUPER_LABEL_BYTES)
		return false;
	while (length) {
		size_t step = utf8_length(p, length);

		if (step == 0)
			return false;
		p += step;
		length -= step;
	}
	return true;
}

/* Text, then zeros to the end of the field. */
static bool text_is_sane(const uint8_t *field, size_t size)
{
	size_t length = strnlen((const char *)field, size);

	return format_is_zero(field + length, size - length) &&
	       format_label_is_valid((const char *)field, length);
}

static const char *identity_fault(const struct format_super *super)
{
	if (format_is_zero(super->meta_uuid, FORMAT_UUID_BYTES))
		return "meta_uuid";
	if (format_is_zero(super->uuid, FORMAT_UUID_BYTES))
		return "uuid";
	if (!text_is_sane(super->label, sizeof(super->label)))
		return "label";
	if (!text_is_sane(super->mkfs_version, sizeof(super->mkfs_version)))
		return "mkfs_version";
	if (le16_get(super->device_count) != 1)
		return "device_count";
	if (le16_get(super->device_index) != 0)
		return "device_index";
	return NULL;
}

static const char *geometry_fault(const struct format_super *super)
{
	uint64_t size = le64_get(super->size_bytes);
	uint32_t slots = le32_get(super->slots);

	if (size < SUPER_MIN_BYTES || size > DEVICE_BYTES_MAX || size % BLOCK_BYTES)
		return "size_bytes";
	if (super->block_shift != BLOCK_SHIFT)
		return "block_shift";
	if (super->chunk_shift < CHUNK_SHIFT_MIN || super->chunk_shift > CHUNK_SHIFT_MAX)
		return "chunk_shift";
	if (super->checksum != CHECKSUM_CRC32C)
		return "checksum";
	if (super->copies != 1 && super->copies != 2)
		return "copies";
	if (slots == 0 || slots >> SUPER_SLOTS)
		return "slots";
	if (le64_get(super->scrub_cursor) > size)
		return "scrub_cursor";
	if (le32_get(super->reserved0) || !format_is_zero(super->reserved, sizeof(super->reserved)))
		return "reserved";
	return NULL;
}

static bool ranges_overlap(devoff_t a, uint64_t a_length, devoff_t b, uint64_t b_length)
{
	return a < b + b_length && b < a + a_length;
}

static bool range_is_clear(const struct super *super, devoff_t offset, uint64_t length)
{
	if (offset % BLOCK_BYTES || offset > super->size_bytes || length > super->size_bytes - offset)
		return false;
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
		if (ranges_overlap(offset, length, super_slot_offset(slot), BLOCK_BYTES))
			return false;
	return true;
}

static const char *const area_names[AREA_COUNT] = {
	"journal area", "poison log area", "fixed metadata area", "mirror intent area",
	"scrub area",	"area 5",	   "area 6",		  "area 7",
};

const char *format_area_name(unsigned area)
{
	return area < AREA_COUNT ? area_names[area] : "unknown";
}

/* How many copies an area must have, and its length; areas of later versions are empty. */
static bool area_shape_is_sane(const struct super *super, unsigned index)
{
	uint64_t length = super->areas[index].length_bytes;

	if (length % BLOCK_BYTES)
		return false;
	switch (index) {
	case AREA_JOURNAL:
		return length >= JOURNAL_RING_MIN + BLOCK_BYTES;
	case AREA_POISON_LOG:
		return length == POISON_LOG_BYTES;
	case AREA_FIXED:
		return length >= 2 * BLOCK_BYTES;
	default:
		return length == 0;
	}
}

unsigned format_area_copies(const struct super *super, unsigned area)
{
	switch (area) {
	case AREA_JOURNAL:
	case AREA_POISON_LOG:
		return 2;
	case AREA_FIXED:
		return super->copies;
	default:
		return 0;
	}
}

static bool area_is_sane(const struct super *super, unsigned index)
{
	const struct area *area = &super->areas[index];
	unsigned copies = format_area_copies(super, index);

	if (!area_shape_is_sane(super, index))
		return false;
	for (unsigned copy = 0; copy < 2; copy++) {
		if (copy >= copies && area->copy[copy] != 0)
			return false;
		if (copy < copies && !range_is_clear(super, area->copy[copy], area->length_bytes))
			return false;
	}
	return true;
}

static bool area_copy_is_disjoint(const struct super *super, unsigned index, unsigned copy)
{
	const struct area *one = &super->areas[index];

	for (unsigned i = 0; i < AREA_COUNT; i++) {
		const struct area *other = &super->areas[i];

		for (unsigned k = 0; k < format_area_copies(super, i); k++)
			if ((i != index || k != copy) &&
			    ranges_overlap(one->copy[copy], one->length_bytes, other->copy[k],
					   other->length_bytes))
				return false;
	}
	return true;
}

static const char *areas_fault(const struct format_super *raw, const struct super *super)
{
	for (unsigned i = 0; i < AREA_COUNT; i++)
		if (le64_get(raw->areas[i].reserved) || !area_is_sane(super, i))
			return area_names[i];
	for (unsigned i = 0; i < AREA_COUNT; i++)
		for (unsigned k = 0; k < format_area_copies(super, i); k++)
			if (!area_copy_is_disjoint(super, i, k))
				return area_names[i];
	return NULL;
}

int format_super_unpack(struct super *to, const struct format_super *from, struct why *why)
{
	struct super super;
	const char *fault;

	if (le64_get(from->magic) != FORMAT_SUPER_MAGIC)
		return why_set(why, -EUCLEAN, "superblock: wrong magic");
	if (le32_get(from->crc32c) != super_crc(from))
		return why_set(why, -EUCLEAN, "superblock: wrong checksum");
	if (le32_get(from->version) < FORMAT_VERSION_MIN || le32_get(from->version) > FORMAT_VERSION)
		return why_set(why, -ENOTSUP,
			       "format version %u; this program knows versions %u to %u: use a newer mendfs",
			       le32_get(from->version), FORMAT_VERSION_MIN, FORMAT_VERSION);
	super_load(&super, from);
	fault = identity_fault(from);
	if (!fault)
		fault = geometry_fault(from);
	if (!fault)
		fault = areas_fault(from, &super);
	if (fault)
		return why_set(why, -EUCLEAN, "superblock: wrong %s", fault);
	*to = super;
	return 0;
}

/* --- geometry that follows from the size ---------------------------------------------------------------------------- */

#define CHUNK_SIZE_SHARE 9 /* a chunk is 1/512 of the device, within its bounds */

unsigned format_chunk_shift(uint64_t size_bytes)
{
	unsigned shift = 63 - (unsigned)__builtin_clzll(size_bytes) - CHUNK_SIZE_SHARE;

	if (shift < CHUNK_SHIFT_MIN)
		return CHUNK_SHIFT_MIN;
	return shift > CHUNK_SHIFT_MAX ? CHUNK_SHIFT_MAX : shift;
}

/* --- features ------------------------------------------------------------------------------------------------------- */

struct feature {
	uint64_t bit;
	const char *name;
};
static const struct feature incompat_names[] = {{INCOMPAT_DEVICES, "devices"}};
static const struct feature ro_compat_names[] = {{RO_COMPAT_CSUMS, "csums"}};

/* Appends "incompat devices, incompat bit 7" for the bits given. */
static void features_name(char *text, size_t size, const char *set, const struct feature *names,
			  size_t count, uint64_t bits)
{
	for (unsigned bit = 0; bit < 64; bit++) {
		size_t used = strlen(text);
		const char *name = NULL;

		if (!(bits >> bit & 1))
			continue;
		for (size_t i = 0; i < count; i++)
			if (names[i].bit == 1ull << bit)
				name = names[i].name;
		if (name)
			snprintf(text + used, size - used, "%s%s %s", used ? ", " : "", set, name);
		else
			snprintf(text + used, size - used, "%s%s bit %u", used ? ", " : "", set, bit);
	}
}

int format_super_check_features(const struct super *super, struct why *why)
{
	uint64_t incompat = super->incompat & ~INCOMPAT_KNOWN;
	uint64_t ro_compat = super->ro_compat & ~RO_COMPAT_KNOWN;
	char text[512] = "";

	if (incompat) {
		features_name(text, sizeof(text), "incompat", incompat_names,
			      ARRAY_SIZE(incompat_names), incompat);
		return why_set(why, -ENOTSUP, "unknown features (%s): use a newer mendfs", text);
	}
	if (ro_compat) {
		features_name(text, sizeof(text), "ro_compat", ro_compat_names,
			      ARRAY_SIZE(ro_compat_names), ro_compat);
		why_set(why, 0, "unknown features (%s): read-only with this mendfs", text);
		return 1;
	}
	return 0;
}
