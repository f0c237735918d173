#include "fsck/found.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_BYTES (64u << 20)

void found_fini(struct found_chunks *found)
{
	free(found->chunks);
	memset(found, 0, sizeof(*found));
}

static struct found_chunk *found_get(struct found_chunks *found, uint64_t chunk)
{
	size_t low = 0, high = found->count;
	struct found_chunk *chunks;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (found->chunks[middle].chunk < chunk)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < found->count && found->chunks[low].chunk == chunk)
		return &found->chunks[low];
	if (found->count == found->capacity) {
		found->capacity = found->capacity ? 2 * found->capacity : 64;
		chunks = realloc(found->chunks, found->capacity * sizeof(*chunks));
		if (!chunks)
			return NULL;
		found->chunks = chunks;
	}
	memmove(&found->chunks[low + 1], &found->chunks[low], (found->count++ - low) * sizeof(*found->chunks));
	found->chunks[low] = (struct found_chunk){.chunk = chunk};
	return &found->chunks[low];
}

/* Of an earlier life of the number, or a copy of the block that lies elsewhere as a file's data: not believed. */
static bool header_is_better(const struct found_chunk *known, const struct format_chunk_header *header)
{
	uint32_t generation = le32_get(header->generation);

	if (!known->has_header || generation != known->generation)
		return !known->has_header || generation > known->generation;
	return le64_get(header->header.sequence) >= known->sequence;
}

static int found_header(struct found_chunks *found, devoff_t place, const struct format_chunk_header *header)
{
	struct found_chunk *known;

	if (le64_get(header->header.address) != maddr_of_chunk(le64_get(header->chunk), 0) || header->shift < CHUNK_SHIFT_MIN ||
	    header->shift > CHUNK_SHIFT_MAX || (le64_get(header->copy[0]) != place && le64_get(header->copy[1]) != place))
		return 0;
	known = found_get(found, le64_get(header->chunk));
	if (!known)
		return -ENOMEM;
	if (!header_is_better(known, header))
		return 0;
	known->has_header = true;
	known->copy[0] = le64_get(header->copy[0]);
	known->copy[1] = le64_get(header->copy[1]);
	known->generation = le32_get(header->generation);
	known->shift = header->shift;
	known->sequence = le64_get(header->header.sequence);
	return 0;
}

/* Where its chunk would begin, by this block. */
static int found_node(struct repair *repair, struct found_chunks *found, devoff_t place, maddr_t address)
{
	uint64_t before = (uint64_t)maddr_index(address) * BLOCK_BYTES;
	struct found_chunk *known = found_get(found, maddr_chunk(address));

	if (!known)
		return -ENOMEM;
	if (known->has_header || place < before)
		return 0;
	for (unsigned i = 0; i < ARRAY_SIZE(known->starts); i++)
		if (!known->starts[i].votes || known->starts[i].start == place - before) {
			known->starts[i].start = place - before;
			known->starts[i].votes++;
			break;
		}
	return 0;
}

/* The place that most blocks vote for, and none of them any more. */
static devoff_t take_start(struct found_chunk *chunk)
{
	unsigned best = 0;

	for (unsigned i = 1; i < ARRAY_SIZE(chunk->starts); i++)
		if (chunk->starts[i].votes > chunk->starts[best].votes)
			best = i;
	if (!chunk->starts[best].votes)
		return 0;
	chunk->starts[best].votes = 0;
	return chunk->starts[best].start;
}

static void found_count_votes(struct repair *repair, struct found_chunks *found)
{
	for (size_t i = 0; i < found->count; i++) {
		struct found_chunk *chunk = &found->chunks[i];

		if (chunk->has_header)
			continue;
		chunk->shift = repair->super.chunk_shift;
		chunk->generation = 1;
		for (unsigned k = 0; k < repair->super.copies; k++)
			chunk->copy[k] = take_start(chunk);
	}
}

static int found_block(struct repair *repair, struct found_chunks *found, devoff_t place)
{
	uint8_t block[BLOCK_BYTES] __attribute__((aligned(64)));
	const struct format_block_header *header = (const struct format_block_header *)block;
	const char *field;
	maddr_t address;

	if (media_read(repair->media, place, block, sizeof(*header), NULL) || le32_get(header->magic) != FORMAT_BLOCK_MAGIC ||
	    memcmp(header->meta_uuid, repair->super.meta_uuid, FORMAT_UUID_BYTES))
		return 0;
	address = le64_get(header->address);
	if (maddr_is_fixed(address) || address >> 60 || media_read(repair->media, place, block, BLOCK_BYTES, NULL) ||
	    format_block_verify(block, repair->super.meta_uuid, address, &field))
		return 0;
	return header->role == FORMAT_ROLE_CHUNK_HEADER ? found_header(found, place, (const void *)block)
							: found_node(repair, found, place, address);
}

/* The next byte at or after `from` that an image has space for. */
static devoff_t skip_hole(struct repair *repair, devoff_t from)
{
	off_t next;

	if (media_is_device(repair->media))
		return from;
	next = lseek(media_fd(repair->media), (off_t)from, SEEK_DATA);
	if (next < 0)
		return errno == ENXIO ? UINT64_MAX : from;
	return max_u64(from, round_down_u64((uint64_t)next, BLOCK_BYTES));
}

int found_scan(struct repair *repair, struct found_chunks *out)
{
	uint64_t size = repair->super.size_bytes;
	devoff_t place = 0, next = 0;
	int error = 0;

	memset(out, 0, sizeof(*out));
	for (; place < size && !error; place += BLOCK_BYTES) {
		if (place >= next) {
			repair_progress(repair, "looking for metadata", place, size);
			place = skip_hole(repair, place);
			next = place == UINT64_MAX ? place : place + PROGRESS_BYTES;
			if (place >= size)
				break;
		}
		error = found_block(repair, out, place);
	}
	if (error)
		found_fini(out);
	else
		found_count_votes(repair, out);
	return error;
}
