#include "media/dirty.h"

#include <errno.h>
#include <stdlib.h>

#define WORD_BITS 64u

int dirty_init(struct dirty *dirty, uint64_t size_bytes)
{
	uint64_t regions = size_bytes / HUGE_BYTES + 1;

	dirty->count_words = (size_t)(regions / WORD_BITS + 1);
	dirty->words = calloc(dirty->count_words, sizeof(*dirty->words));
	if (!dirty->words)
		return -ENOMEM;
	return -pthread_mutex_init(&dirty->sync.lock, NULL);
}

void dirty_fini(struct dirty *dirty)
{
	if (!dirty->words)
		return;
	free(dirty->words);
	pthread_mutex_destroy(&dirty->sync.lock);
	*dirty = (struct dirty){0};
}

static void dirty_use(struct dirty *dirty, size_t word)
{
	size_t used = atomic_load(&dirty->used_words);

	while (used <= word && !atomic_compare_exchange_weak(&dirty->used_words, &used, word + 1))
		;
}

void dirty_mark(struct dirty *dirty, devoff_t offset, uint64_t length)
{
	if (length == 0)
		return;
	for (uint64_t i = offset / HUGE_BYTES; i <= (offset + length - 1) / HUGE_BYTES; i++) {
		atomic_uint_fast64_t *word = &dirty->words[i / WORD_BITS];
		uint64_t bit = UINT64_C(1) << (i % WORD_BITS);

		/*
		 * The plain load keeps the line shared while the bit is set. It cannot miss a
		 * concurrent take for good: a taker clears before msync, and our stores precede
		 * this load (full fence), so either it syncs them or we see the bit cleared.
		 */
		atomic_thread_fence(memory_order_seq_cst);
		if (!(atomic_load_explicit(word, memory_order_relaxed) & bit)) {
			dirty_use(dirty, i / WORD_BITS);
			atomic_fetch_or(word, bit);
		}
	}
}

/* Its pages are in the host's cache, but in no page table of ours: msync of the mapping would not find them, fdatasync does. */
void dirty_assume_all(struct dirty *dirty)
{
	atomic_store(&dirty->outside_mapping, true);
}

bool dirty_take(struct dirty *dirty, devoff_t *start, devoff_t *end)
{
	size_t used = atomic_load(&dirty->used_words);
	bool any = false;

	for (size_t i = 0; i < used; i++) {
		uint64_t bits;
		uint64_t first = i * WORD_BITS;

		if (!atomic_load(&dirty->words[i]))
			continue;
		bits = atomic_exchange(&dirty->words[i], 0);
		if (!bits)
			continue;
		if (!any)
			*start = (first + (unsigned)__builtin_ctzll(bits)) * HUGE_BYTES;
		*end = (first + WORD_BITS - (unsigned)__builtin_clzll(bits)) * HUGE_BYTES;
		any = true;
	}
	return any;
}
