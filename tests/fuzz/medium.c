#include "tests/fuzz/medium.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct medium {
	struct lab *lab;
	uint8_t *kept; /* NULL before medium_keep() */
	pthread_mutex_t lock;
	uint8_t *is_changed; /* per block */
	uint8_t *is_zero;    /* per block, of what was kept */
	uint32_t *changed;   /* blocks, each once */
	size_t count_changed;
	uint64_t stores, stores_forgotten; /* calls */
};

static void medium_note(struct medium *medium, devoff_t offset, size_t length)
{
	if (!medium->kept || !length)
		return;
	pthread_mutex_lock(&medium->lock);
	medium->stores++;
	for (uint64_t block = offset / BLOCK_BYTES; block <= (offset + length - 1) / BLOCK_BYTES; block++) {
		if (medium->is_changed[block])
			continue;
		medium->is_changed[block] = 1;
		medium->changed[medium->count_changed++] = (uint32_t)block;
	}
	pthread_mutex_unlock(&medium->lock);
}

static void medium_stored(void *arg, devoff_t offset, const void *from, size_t length)
{
	medium_note(arg, offset, length);
}

int medium_create(uint64_t size_bytes, enum media_granularity granularity, struct medium **out)
{
	struct medium *medium = calloc(1, sizeof(*medium));
	struct lab_listener listener = {.store = medium_stored, .arg = medium};
	int error;

	if (!medium)
		return -ENOMEM;
	error = lab_create(size_bytes, granularity, &medium->lab);
	if (error) {
		free(medium);
		return error;
	}
	pthread_mutex_init(&medium->lock, NULL);
	lab_listen(medium->lab, &listener);
	*out = medium;
	return 0;
}

struct lab *medium_lab(struct medium *medium)
{
	return medium->lab;
}

struct media *medium_media(struct medium *medium)
{
	return lab_media(medium->lab);
}

uint64_t medium_size(const struct medium *medium)
{
	return lab_size(medium->lab);
}

static bool is_zero_block(const uint8_t *block)
{
	return !block[0] && !memcmp(block, block + 1, BLOCK_BYTES - 1);
}

int medium_keep(struct medium *medium)
{
	uint64_t size = medium_size(medium), blocks = size / BLOCK_BYTES;
	const uint8_t *bytes = lab_bytes(medium->lab);

	medium->kept = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	medium->is_changed = calloc(blocks, 1);
	medium->is_zero = calloc(blocks, 1);
	medium->changed = calloc(blocks, sizeof(*medium->changed));
	if (medium->kept == MAP_FAILED || !medium->is_changed || !medium->is_zero || !medium->changed || lab_track_stores(medium->lab))
		return -ENOMEM;
	for (uint64_t i = 0; i < blocks; i++) {
		medium->is_zero[i] = is_zero_block(bytes + i * BLOCK_BYTES);
		lab_note_block(medium->lab, i, medium->is_zero[i]);
		if (!medium->is_zero[i])
			memcpy(medium->kept + i * BLOCK_BYTES, bytes + i * BLOCK_BYTES, BLOCK_BYTES);
	}
	return 0;
}

const uint8_t *medium_kept(const struct medium *medium)
{
	return medium->kept;
}

uint8_t *medium_change(struct medium *medium, devoff_t offset, size_t length)
{
	medium_note(medium, offset, length);
	for (uint64_t block = offset / BLOCK_BYTES; medium->kept && length && block <= (offset + length - 1) / BLOCK_BYTES; block++)
		lab_note_block(medium->lab, block, false);
	return lab_bytes(medium->lab) + offset;
}

bool medium_is_changed(const struct medium *medium)
{
	return medium->stores != medium->stores_forgotten;
}

void medium_forget_changes(struct medium *medium)
{
	medium->stores_forgotten = medium->stores;
}

void medium_restore(struct medium *medium)
{
	uint8_t *bytes = lab_bytes(medium->lab);

	for (size_t i = 0; i < medium->count_changed; i++) {
		size_t at = (size_t)medium->changed[i] * BLOCK_BYTES;

		memcpy(bytes + at, medium->kept + at, BLOCK_BYTES);
		lab_note_block(medium->lab, medium->changed[i], medium->is_zero[medium->changed[i]]);
		medium->is_changed[medium->changed[i]] = 0;
	}
	medium->count_changed = 0;
	lab_heal_all(medium->lab);
	lab_reset(medium->lab);
}
