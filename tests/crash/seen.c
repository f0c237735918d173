#include "tests/crash/seen.h"

#include <stdlib.h>

void seen_fini(struct seen *seen)
{
	free(seen->slots);
	*seen = (struct seen){0};
}

static bool seen_put(uint64_t *slots, size_t capacity, uint64_t hash)
{
	size_t i = hash & (capacity - 1);

	while (slots[i] && slots[i] != hash)
		i = (i + 1) & (capacity - 1);
	if (slots[i])
		return false;
	slots[i] = hash;
	return true;
}

static bool seen_grow(struct seen *seen)
{
	size_t capacity = seen->capacity ? 2 * seen->capacity : 4096;
	uint64_t *slots = calloc(capacity, sizeof(*slots));

	if (!slots)
		return false;
	for (size_t i = 0; i < seen->capacity; i++)
		if (seen->slots[i])
			seen_put(slots, capacity, seen->slots[i]);
	free(seen->slots);
	seen->slots = slots;
	seen->capacity = capacity;
	return true;
}

bool seen_add(struct seen *seen, uint64_t hash)
{
	bool is_new;

	hash = hash ? hash : 1;
	if (2 * seen->count >= seen->capacity && !seen_grow(seen))
		return true;
	is_new = seen_put(seen->slots, seen->capacity, hash);
	seen->count += is_new;
	return is_new;
}
