#include "format/poison_format.h"

#include <errno.h>
#include <string.h>

#include "format/zero.h"
#include "util/crc.h"

const char *badblock_state_name(unsigned state)
{
	switch (state) {
	case BADBLOCK_SUSPECT:
		return "suspect";
	case BADBLOCK_BAD:
		return "bad";
	case BADBLOCK_CLEARED:
		return "cleared";
	case BADBLOCK_QUARANTINED:
		return "quarantined";
	case BADBLOCK_RETIRED:
		return "retired";
	default:
		return "unknown";
	}
}

const char *failure_source_name(unsigned source)
{
	switch (source) {
	case FAILURE_SIGBUS:
		return "sigbus";
	case FAILURE_KERNEL:
		return "kernel";
	case FAILURE_INJECTED:
		return "injected";
	case FAILURE_SCRUB:
		return "scrub";
	case FAILURE_CHECKSUM:
		return "checksum";
	case FAILURE_CONTROL:
		return "control";
	default:
		return "unknown";
	}
}

bool badblock_state_is_known(unsigned state)
{
	return state == BADBLOCK_SUSPECT || state == BADBLOCK_BAD || state == BADBLOCK_CLEARED ||
	       state == BADBLOCK_QUARANTINED || state == BADBLOCK_RETIRED;
}

bool failure_source_is_known(unsigned source)
{
	return source >= FAILURE_SIGBUS && source <= FAILURE_CONTROL;
}

static uint32_t entry_crc(const struct format_poison_entry *entry)
{
	struct format_poison_entry copy = *entry;

	copy.crc32c = le32_make(0);
	return crc32c(0, &copy, sizeof(copy));
}

void format_poison_entry_pack(struct format_poison_entry *to, const struct poison_entry *from,
			      const uint8_t *meta_uuid)
{
	memset(to, 0, sizeof(*to));
	to->magic = le32_make(FORMAT_POISON_MAGIC);
	to->sequence = le64_make(from->sequence);
	to->offset = le64_make(from->offset);
	to->length = le64_make(from->length_bytes);
	to->time_ns = le64_make(from->time_ns);
	to->cause_id = le64_make(from->cause_id);
	to->state = from->state;
	to->source = from->source;
	memcpy(to->meta_uuid, meta_uuid, sizeof(to->meta_uuid));
	to->crc32c = le32_make(entry_crc(to));
}

static bool entry_is_ours(const struct format_poison_entry *entry, const uint8_t *meta_uuid)
{
	return le32_get(entry->magic) == FORMAT_POISON_MAGIC &&
	       memcmp(entry->meta_uuid, meta_uuid, sizeof(entry->meta_uuid)) == 0 &&
	       le32_get(entry->crc32c) == entry_crc(entry);
}

static bool entry_is_sane(const struct format_poison_entry *entry)
{
	uint64_t offset = le64_get(entry->offset);
	uint64_t length = le64_get(entry->length);

	if (offset % SECTOR_BYTES || length % SECTOR_BYTES || length == 0)
		return false;
	if (offset > DEVICE_BYTES_MAX || length > DEVICE_BYTES_MAX - offset)
		return false;
	return badblock_state_is_known(entry->state) && failure_source_is_known(entry->source) &&
	       format_is_zero(entry->reserved, sizeof(entry->reserved));
}

int format_poison_entry_unpack(struct poison_entry *to, const struct format_poison_entry *from,
			       const uint8_t *meta_uuid)
{
	if (!entry_is_ours(from, meta_uuid) || !entry_is_sane(from))
		return -EUCLEAN;
	to->sequence = le64_get(from->sequence);
	to->offset = le64_get(from->offset);
	to->length_bytes = le64_get(from->length);
	to->time_ns = le64_get(from->time_ns);
	to->cause_id = le64_get(from->cause_id);
	to->state = from->state;
	to->source = from->source;
	return 0;
}
