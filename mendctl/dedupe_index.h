/*
 * Where content was seen first: hash and length of a piece -> file and position. In a fixed amount of memory: when it is full an older piece makes way for a newer one, and files whose
 * names find no room any more are not remembered. So it may forget, and is never wrong but for hashes that are equal by chance: the bytes are compared afterwards.
 */
#ifndef MENDCTL_DEDUPE_INDEX_H
#define MENDCTL_DEDUPE_INDEX_H

#include "util/types.h"

#define INDEX_MEMORY_LEAST (1ull << 20)

struct index_file {
	uint64_t ino;
	char path[];
};

struct index_place {
	uint32_t file; /* 0: none */
	uint64_t pos;
};

struct index_slot;

struct dedupe_index {
	struct index_slot *slots;
	size_t count_slots; /* a power of two */
	char *names;
	size_t names_used, names_size;
};

/* memory: at least INDEX_MEMORY_LEAST. 0 or -ENOMEM. */
int index_init(struct dedupe_index *index, uint64_t memory);
void index_fini(struct dedupe_index *index);
/* A number for a file; 0: no room. */
uint32_t index_add_file(struct dedupe_index *index, uint64_t ino, const char *path);
const struct index_file *index_file(const struct dedupe_index *index, uint32_t file);
bool index_find(const struct dedupe_index *index, uint64_t hash, uint32_t length, struct index_place *out);
void index_put(struct dedupe_index *index, uint64_t hash, uint32_t length, const struct index_place *place);

#endif
