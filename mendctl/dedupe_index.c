#include "mendctl/dedupe_index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WAYS 4u /* slots that a hash may be in */
#define NAMES_ALIGN 8u

struct index_slot {
	uint64_t hash, pos;
	uint32_t file; /* 0: free */
	uint32_t length;
};

/* A quarter for names, at most half of the rest is lost by rounding. */
int index_init(struct dedupe_index *index, uint64_t memory)
{
	size_t slots = WAYS;

	while (2 * slots * sizeof(struct index_slot) <= memory / 4 * 3)
		slots *= 2;
	*index = (struct dedupe_index){.count_slots = slots, .names_size = memory - slots * sizeof(struct index_slot), .names_used = NAMES_ALIGN};
	index->slots = calloc(slots, sizeof(*index->slots));
	index->names = malloc(index->names_size);
	if (index->slots && index->names)
		return 0;
	index_fini(index);
	return -ENOMEM;
}

void index_fini(struct dedupe_index *index)
{
	free(index->slots);
	free(index->names);
	*index = (struct dedupe_index){0};
}

uint32_t index_add_file(struct dedupe_index *index, uint64_t ino, const char *path)
{
	size_t at = index->names_used, length = strlen(path) + 1;
	size_t bytes = round_up_u64(sizeof(struct index_file) + length, NAMES_ALIGN);
	struct index_file *file = (struct index_file *)(index->names + at);

	if (bytes > index->names_size - at || at / NAMES_ALIGN > UINT32_MAX)
		return 0;
	file->ino = ino;
	memcpy(file->path, path, length);
	index->names_used += bytes;
	return (uint32_t)(at / NAMES_ALIGN);
}

const struct index_file *index_file(const struct dedupe_index *index, uint32_t file)
{
	return (const struct index_file *)(index->names + (size_t)file * NAMES_ALIGN);
}

static struct index_slot *ways_of(const struct dedupe_index *index, uint64_t hash)
{
	return &index->slots[hash * WAYS & (index->count_slots - 1)];
}

bool index_find(const struct dedupe_index *index, uint64_t hash, uint32_t length, struct index_place *out)
{
	const struct index_slot *ways = ways_of(index, hash);

	for (unsigned i = 0; i < WAYS; i++) {
		if (ways[i].file && ways[i].hash == hash && ways[i].length == length) {
			*out = (struct index_place){ways[i].file, ways[i].pos};
			return true;
		}
	}
	return false;
}

void index_put(struct dedupe_index *index, uint64_t hash, uint32_t length, const struct index_place *place)
{
	struct index_slot *ways = ways_of(index, hash);

	/* The one that was put first goes. */
	memmove(&ways[1], &ways[0], (WAYS - 1) * sizeof(*ways));
	ways[0] = (struct index_slot){.hash = hash, .pos = place->pos, .file = place->file, .length = length};
}
