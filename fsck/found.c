#include "fsck/found.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "btree/node.h"
#include "fsck/vector.h"
#include "rmap/mapping.h"

#define PROGRESS_BYTES (64u << 20)

void found_fini(struct found_chunks *found)
{
	free(found->chunks);
	free(found->places);
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
static int found_node(struct found_chunks *found, devoff_t place, maddr_t address)
{
	uint64_t before = (uint64_t)maddr_index(address) * BLOCK_BYTES;

	if (place <= before)
		return 0;
	if (!found_get(found, maddr_chunk(address)) ||
	    !vector_reserve((void **)&found->places, found->count_places, &found->capacity_places, sizeof(*found->places)))
		return -ENOMEM;
	found->places[found->count_places++] = (struct found_place){maddr_chunk(address), place - before, 1, maddr_index(address), 0};
	return 0;
}

/* A record of the reverse map: the copy of a chunk, if it is one. */
static int found_owner(struct found_chunks *found, const struct rmap_record *record, uint64_t sequence)
{
	uint64_t copy = record->offset / CHUNK_SLOTS;
	struct found_chunk *known;

	if (record->owner != OWNER(OWNER_CHUNK) || record->offset % CHUNK_SLOTS || !record->count || record->count & (record->count - 1) ||
	    record->count > CHUNK_SLOTS || record->count < chunk_blocks(CHUNK_SHIFT_MIN))
		return 0;
	known = found_get(found, copy / 2);
	if (!known)
		return -ENOMEM;
	if (sequence < known->named[copy % 2].sequence)
		return 0;
	known->named[copy % 2].start = record->start * BLOCK_BYTES;
	known->named[copy % 2].shift = (uint8_t)(__builtin_ctzll(record->count) + BLOCK_SHIFT);
	known->named[copy % 2].sequence = sequence;
	return 0;
}

static int found_owners(struct found_chunks *found, const struct format_node *node)
{
	struct rmap_record record;
	struct btree_key key;
	const char *field;
	const void *value;
	size_t length;
	int error = 0;

	if (node->header.tree != FORMAT_TREE_RMAP || node->level || node_verify(node, &rmap_ops, &field))
		return 0;
	for (unsigned i = 0; i < node_count(node) && !error; i++) {
		node_key(node, i, &key);
		value = node_value(node, i, &length);
		if (!rmap_unpack(&record, &key, value, length))
			error = found_owner(found, &record, le64_get(node->header.sequence));
	}
	return error;
}

/* --- weighing ------------------------------------------------------------------------------------------------------------------ */

static int compare_places(const void *a, const void *b)
{
	const struct found_place *x = a, *y = b;

	if (x->chunk != y->chunk)
		return x->chunk < y->chunk ? -1 : 1;
	return (x->start > y->start) - (x->start < y->start);
}

/* Of one chunk: what the reverse map names first, then what most blocks vote for. */
static int compare_likely(const void *a, const void *b)
{
	const struct found_place *x = a, *y = b;

	if (x->chunk != y->chunk)
		return x->chunk < y->chunk ? -1 : 1;
	if (!x->named != !y->named)
		return x->named ? -1 : 1;
	if (x->votes != y->votes)
		return x->votes > y->votes ? -1 : 1;
	return (x->start > y->start) - (x->start < y->start);
}

static void places_merge(struct found_chunks *found)
{
	size_t kept = 0;

	if (found->count_places)
		qsort(found->places, found->count_places, sizeof(*found->places), compare_places);
	for (size_t i = 0; i < found->count_places; i++) {
		struct found_place *last = kept ? &found->places[kept - 1] : NULL;

		if (last && !compare_places(last, &found->places[i])) {
			last->votes++;
			last->last = last->last > found->places[i].last ? last->last : found->places[i].last;
		} else {
			found->places[kept++] = found->places[i];
		}
	}
	found->count_places = kept;
}

/* The reverse map names one copy where blocks lie, and another of which none is left. */
static int place_add_named(struct found_chunks *found, const struct found_chunk *chunk, unsigned copy)
{
	if (!vector_reserve((void **)&found->places, found->count_places, &found->capacity_places, sizeof(*found->places)))
		return -ENOMEM;
	found->places[found->count_places++] = (struct found_place){chunk->chunk, chunk->named[copy].start, 0, 0, (uint8_t)(copy + 1)};
	return 0;
}

static int chunk_name_places(struct found_chunks *found, const struct found_chunk *chunk)
{
	bool has_votes[2] = {false, false};
	int error = 0;

	for (unsigned copy = 0; copy < 2; copy++) {
		const struct found_place key = {.chunk = chunk->chunk, .start = chunk->named[copy].start};
		struct found_place *place = NULL;

		if (chunk->named[copy].sequence && chunk->count_places)
			place = bsearch(&key, &found->places[chunk->first_place], chunk->count_places, sizeof(key), compare_places);
		has_votes[copy] = place != NULL;
		if (place)
			place->named = (uint8_t)(copy + 1);
	}
	for (unsigned copy = 0; copy < 2 && !error; copy++)
		if (has_votes[!copy] && !has_votes[copy] && chunk->named[copy].sequence)
			error = place_add_named(found, chunk, copy);
	return error;
}

/* Each chunk's own stretch of the places, which are in order of chunk. */
static void chunks_find_places(struct found_chunks *found)
{
	size_t at = 0;

	for (size_t i = 0; i < found->count; i++) {
		struct found_chunk *chunk = &found->chunks[i];

		chunk->first_place = at;
		chunk->count_places = 0;
		chunk->votes = 0;
		for (; at < found->count_places && found->places[at].chunk == chunk->chunk; at++) {
			chunk->count_places++;
			chunk->votes = found->places[at].votes > chunk->votes ? found->places[at].votes : chunk->votes;
		}
	}
}

/* The reverse map has changed its mind since: the header is of an earlier life of the number. */
static void chunk_doubt_header(struct found_chunk *chunk)
{
	for (unsigned copy = 0; copy < 2; copy++)
		if (chunk->named[copy].sequence > chunk->sequence && chunk->named[copy].start != chunk->copy[copy])
			chunk->has_header = false;
}

static void chunk_confirm(const struct found_chunks *found, struct found_chunk *chunk)
{
	for (size_t i = 0; i < chunk->count_places; i++) {
		devoff_t start = found->places[chunk->first_place + i].start;

		chunk->is_confirmed |= chunk->has_header && (start == chunk->copy[0] || start == chunk->copy[1]);
	}
}

static int compare_chunks(const void *a, const void *b)
{
	const struct found_chunk *x = a, *y = b;

	if (x->has_header != y->has_header)
		return x->has_header ? -1 : 1;
	if (x->is_confirmed != y->is_confirmed)
		return x->is_confirmed ? -1 : 1;
	if (x->has_header && x->sequence != y->sequence)
		return x->sequence > y->sequence ? -1 : 1;
	if (x->votes != y->votes)
		return x->votes > y->votes ? -1 : 1;
	return (x->chunk > y->chunk) - (x->chunk < y->chunk);
}

static int found_weigh(struct found_chunks *found)
{
	int error = 0;

	places_merge(found);
	chunks_find_places(found);
	for (size_t i = 0; i < found->count && !error; i++) {
		chunk_doubt_header(&found->chunks[i]);
		chunk_confirm(found, &found->chunks[i]);
		error = chunk_name_places(found, &found->chunks[i]);
	}
	if (!error && found->count_places)
		qsort(found->places, found->count_places, sizeof(*found->places), compare_likely);
	chunks_find_places(found);
	if (!error && found->count)
		qsort(found->chunks, found->count, sizeof(*found->chunks), compare_chunks);
	return error;
}

/* --- looking ------------------------------------------------------------------------------------------------------------------- */

static int found_block(struct repair *repair, struct found_chunks *found, devoff_t place)
{
	uint8_t block[BLOCK_BYTES] __attribute__((aligned(64)));
	const struct format_block_header *header = (const struct format_block_header *)block;
	const char *field;
	maddr_t address;
	int error;

	if (media_read(repair->media, place, block, sizeof(*header), NULL) || le32_get(header->magic) != FORMAT_BLOCK_MAGIC ||
	    memcmp(header->meta_uuid, repair->super.meta_uuid, FORMAT_UUID_BYTES))
		return 0;
	address = le64_get(header->address);
	if (maddr_is_fixed(address) || address >> 60 || media_read(repair->media, place, block, BLOCK_BYTES, NULL) ||
	    format_block_verify(block, repair->super.meta_uuid, address, &field))
		return 0;
	if (header->role == FORMAT_ROLE_CHUNK_HEADER)
		return found_header(found, place, (const void *)block);
	error = found_node(found, place, address);
	return error || header->role != FORMAT_ROLE_NODE ? error : found_owners(found, (const void *)block);
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
	if (!error)
		error = found_weigh(out);
	if (error)
		found_fini(out);
	return error;
}
