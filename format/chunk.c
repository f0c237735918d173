#include "format/chunk_format.h"

#include <errno.h>
#include <string.h>

#include "format/zero.h"

void format_chunk_entry_pack(struct format_chunk_entry *to, const struct chunk_entry *from)
{
	memset(to, 0, sizeof(*to));
	for (int i = 0; i < 2; i++) {
		to->copy[i] = le64_make(from->copy[i]);
		to->copy_state[i] = from->copy_state[i];
	}
	to->generation = le32_make(from->generation);
	to->shift = from->shift;
	to->state = from->state;
	to->free_blocks = le32_make(from->free_blocks);
	for (int i = 0; i < 8; i++)
		to->map[i] = le64_make(from->map[i]);
}

static void chunk_entry_load(struct chunk_entry *to, const struct format_chunk_entry *from)
{
	for (int i = 0; i < 2; i++) {
		to->copy[i] = le64_get(from->copy[i]);
		to->copy_state[i] = from->copy_state[i];
	}
	to->generation = le32_get(from->generation);
	to->shift = from->shift;
	to->state = from->state;
	to->free_blocks = le32_get(from->free_blocks);
	for (int i = 0; i < 8; i++)
		to->map[i] = le64_get(from->map[i]);
}

/* Blocks in use within the size of the chunk, or -1 when a bit beyond it is set or the header's is not. */
static int map_used(const struct chunk_entry *entry)
{
	unsigned blocks = chunk_blocks(entry->shift);
	int used = 0;

	if (!(entry->map[0] & 1))
		return -1;
	for (unsigned word = 0; word < 8; word++) {
		unsigned first = word * 64;
		uint64_t inside = 0;

		if (blocks >= first + 64)
			inside = UINT64_MAX;
		else if (blocks > first)
			inside = (1ull << (blocks - first)) - 1;
		if (entry->map[word] & ~inside)
			return -1;
		used += __builtin_popcountll(entry->map[word]);
	}
	return used;
}

static bool copy_is_sane(const struct chunk_entry *entry, int copy)
{
	devoff_t offset = entry->copy[copy];
	uint8_t state = entry->copy_state[copy];

	if (state == FORMAT_COPY_ABSENT)
		return offset == 0;
	if (state != FORMAT_COPY_WHOLE && state != FORMAT_COPY_STALE)
		return false;
	return offset != 0 && offset % BLOCK_BYTES == 0 &&
	       offset <= DEVICE_BYTES_MAX - (1ull << entry->shift);
}

static bool copies_overlap(const struct chunk_entry *entry)
{
	uint64_t bytes = 1ull << entry->shift;

	if (entry->copy_state[0] == FORMAT_COPY_ABSENT ||
	    entry->copy_state[1] == FORMAT_COPY_ABSENT)
		return false;
	return entry->copy[0] < entry->copy[1] + bytes && entry->copy[1] < entry->copy[0] + bytes;
}

static const char *live_fault(const struct chunk_entry *entry)
{
	int used;

	if (entry->shift < CHUNK_SHIFT_MIN || entry->shift > CHUNK_SHIFT_MAX)
		return "shift";
	if (!copy_is_sane(entry, 0) || !copy_is_sane(entry, 1) || copies_overlap(entry))
		return "copy";
	if (entry->copy_state[0] != FORMAT_COPY_WHOLE && entry->copy_state[1] != FORMAT_COPY_WHOLE)
		return "copy_state";
	used = map_used(entry);
	if (used < 0)
		return "map";
	if (entry->free_blocks != chunk_blocks(entry->shift) - (unsigned)used)
		return "free_blocks";
	return NULL;
}

static const char *entry_fault(const struct chunk_entry *entry, const struct format_chunk_entry *raw)
{
	if (le32_get(raw->reserved0) || !format_is_zero(raw->reserved1, sizeof(raw->reserved1)))
		return "reserved";
	switch (entry->state) {
	case FORMAT_CHUNK_FREE: /* only its generation says something */
		return NULL;
	case FORMAT_CHUNK_LIVE:
	case FORMAT_CHUNK_FREEING:
		return live_fault(entry);
	default:
		return "state";
	}
}

int format_chunk_entry_unpack(struct chunk_entry *to, const struct format_chunk_entry *from,
			      const char **field)
{
	struct chunk_entry entry;
	const char *fault;

	chunk_entry_load(&entry, from);
	fault = entry_fault(&entry, from);
	if (fault) {
		*field = fault;
		return -EUCLEAN;
	}
	*to = entry;
	return 0;
}
