#include "tests/support/lab.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct lab {
	struct media *media;
	struct lab_listener listener;
	pthread_mutex_t poison_lock; /* a mount's notify thread repairs beside the caller */
	struct iset poison;
	uint8_t *stored; /* by block: something was stored to it; NULL: not tracked */
};

static struct lab *lab_of(struct media *media)
{
	return media->backend_state;
}

static bool lab_find_poison(struct lab *lab, devoff_t offset, size_t length, devoff_t *at)
{
	const struct iset_range *bad;

	pthread_mutex_lock(&lab->poison_lock);
	bad = iset_find(&lab->poison, offset, offset + length);
	if (bad)
		*at = max_u64(bad->start, offset);
	pthread_mutex_unlock(&lab->poison_lock);
	return bad != NULL;
}

/* How many of the bytes come before a fault, all of them when there is none. */
static size_t lab_good_bytes(struct lab *lab, bool is_store, devoff_t offset, size_t length, struct guard_fault *fault)
{
	devoff_t at = 0;
	int code = lab_find_poison(lab, offset, length, &at) ? BUS_MCEERR_AR : 0;

	if (!code && lab->listener.fault)
		code = lab->listener.fault(lab->listener.arg, is_store, offset, length, &at);
	if (!code)
		return length;
	*fault = (struct guard_fault){.code = code, .address = at, .lsb = 6};
	return at - offset;
}

/* In runs of blocks that were stored to and blocks that were not. */
static void lab_copy_out(struct lab *lab, devoff_t offset, uint8_t *to, size_t length)
{
	while (length) {
		bool is_stored = lab->stored[offset / BLOCK_BYTES];
		size_t run = min_u64(length, BLOCK_BYTES - offset % BLOCK_BYTES);

		while (run < length && (bool)lab->stored[(offset + run) / BLOCK_BYTES] == is_stored)
			run = min_u64(length, run + BLOCK_BYTES);
		if (is_stored)
			memcpy(to, lab->media->map.base + offset, run);
		else
			memset(to, 0, run);
		offset += run;
		to += run;
		length -= run;
	}
}

static size_t lab_load(struct media *media, devoff_t offset, void *to, size_t length, struct guard_fault *fault)
{
	struct lab *lab = lab_of(media);
	size_t good = lab_good_bytes(lab, false, offset, length, fault);

	if (lab->listener.load)
		lab->listener.load(lab->listener.arg, offset, good);
	if (lab->stored)
		lab_copy_out(lab, offset, to, good);
	else
		memcpy(to, media->map.base + offset, good);
	return good;
}

static void lab_note_store(struct lab *lab, devoff_t offset, size_t length)
{
	if (lab->stored && length)
		memset(lab->stored + offset / BLOCK_BYTES, 1, (offset + length - 1) / BLOCK_BYTES - offset / BLOCK_BYTES + 1);
}

static size_t lab_put(struct media *media, devoff_t offset, const void *from, size_t length, struct guard_fault *fault)
{
	struct lab *lab = lab_of(media);
	size_t good = lab_good_bytes(lab, true, offset, length, fault);

	if (lab->listener.store && good)
		lab->listener.store(lab->listener.arg, offset, from, good);
	lab_note_store(lab, offset, good);
	if (from)
		memcpy(media->map.base + offset, from, good);
	else
		memset(media->map.base + offset, 0, good);
	return good;
}

static size_t lab_store(struct media *media, devoff_t offset, const void *from, size_t length, struct guard_fault *fault)
{
	return lab_put(media, offset, from, length, fault);
}

static size_t lab_zero(struct media *media, devoff_t offset, size_t length, struct guard_fault *fault)
{
	return lab_put(media, offset, NULL, length, fault);
}

static size_t lab_store_line(struct media *media, devoff_t offset, const void *line, struct guard_fault *fault)
{
	return lab_put(media, offset, line, LINE_BYTES, fault);
}

static void lab_drain(struct media *media)
{
	struct lab *lab = lab_of(media);

	if (lab->listener.drain)
		lab->listener.drain(lab->listener.arg);
}

/* What the real one would pass to msync and fdatasync, no more. */
static void lab_sync_range(struct media *media, devoff_t *start, devoff_t *end)
{
	*start = *end = 0;
	if (media->granularity == MEDIA_PAGE && !dirty_take(&media->dirty, start, end))
		*start = *end = 0;
	*end = min_u64(*end, media->size);
	if (atomic_exchange(&media->dirty.outside_mapping, false)) {
		*start = 0;
		*end = media->size;
	}
}

/* Where drain is durability, sync is no more than that. */
static int lab_sync(struct media *media)
{
	struct lab *lab = lab_of(media);
	devoff_t start, end;

	lab_sync_range(media, &start, &end);
	if (media->granularity != MEDIA_PAGE)
		lab_drain(media);
	else if (lab->listener.sync)
		lab->listener.sync(lab->listener.arg, start, end);
	return 0;
}

static int lab_clear(struct media *media, devoff_t offset, uint64_t length)
{
	lab_heal(lab_of(media), offset, length);
	return 0;
}

/* What a crash leaves of it may be the old bytes or zeros, as of a store. */
static int lab_discard(struct media *media, devoff_t offset, uint64_t length)
{
	struct guard_fault fault;

	lab_put(media, offset, NULL, length, &fault);
	return 0;
}

static const struct media_backend lab_backend = {
	.load = lab_load,
	.store = lab_store,
	.zero = lab_zero,
	.store_line = lab_store_line,
	.drain = lab_drain,
	.sync = lab_sync,
	.clear = lab_clear,
	.discard = lab_discard,
};

int lab_create(uint64_t size_bytes, enum media_granularity granularity, struct lab **out)
{
	struct media_options options = {.create_bytes = size_bytes, .resize = true};
	struct lab *lab = calloc(1, sizeof(*lab));
	char path[64] = "/dev/shm/mendfs-lab-XXXXXX";
	struct why why = {0};
	int fd = mkstemp(path), error;

	if (!lab || fd < 0)
		return -ENOMEM;
	close(fd);
	iset_init(&lab->poison);
	pthread_mutex_init(&lab->poison_lock, NULL);
	error = media_open(path, &options, &why, &lab->media);
	unlink(path);
	if (error) {
		fprintf(stderr, "lab: %s\n", why.text);
		free(lab);
		return error;
	}
	lab->media->granularity = granularity;
	lab->media->backend = &lab_backend;
	lab->media->backend_state = lab;
	*out = lab;
	return 0;
}

void lab_destroy(struct lab *lab)
{
	if (!lab)
		return;
	media_close(lab->media);
	iset_fini(&lab->poison);
	free(lab->stored);
	free(lab);
}

int lab_track_stores(struct lab *lab)
{
	lab->stored = calloc(1, lab->media->size / BLOCK_BYTES);
	return lab->stored ? 0 : -ENOMEM;
}

void lab_note_block(struct lab *lab, uint64_t block, bool is_zero)
{
	lab->stored[block] = !is_zero;
}

struct media *lab_media(struct lab *lab)
{
	return lab->media;
}

uint8_t *lab_bytes(struct lab *lab)
{
	return lab->media->map.base;
}

uint64_t lab_size(const struct lab *lab)
{
	return lab->media->size;
}

void lab_listen(struct lab *lab, const struct lab_listener *listener)
{
	lab->listener = listener ? *listener : (struct lab_listener){0};
}

void lab_reset(struct lab *lab)
{
	struct media *media = lab->media;
	devoff_t start, end;

	media_set_fault_handler(media, NULL, NULL);
	known_remove(&media->known, 0, media->size);
	if (media->granularity == MEDIA_PAGE)
		dirty_take(&media->dirty, &start, &end);
	if (media->granularity == MEDIA_PAGE)
		dirty_assume_all(&media->dirty); /* as media_open() does */
	media->dirty.sync.error = 0;
	atomic_store(&media->host_is_full, false);
	memset(&media->counts, 0, sizeof(media->counts));
}

int lab_poison(struct lab *lab, devoff_t offset, uint64_t length)
{
	int error;

	pthread_mutex_lock(&lab->poison_lock);
	error = iset_add(&lab->poison, round_down_u64(offset, LINE_BYTES), round_up_u64(offset + length, LINE_BYTES), 0);
	pthread_mutex_unlock(&lab->poison_lock);
	return error;
}

void lab_heal(struct lab *lab, devoff_t offset, uint64_t length)
{
	pthread_mutex_lock(&lab->poison_lock);
	iset_remove(&lab->poison, offset, offset + length);
	pthread_mutex_unlock(&lab->poison_lock);
}

void lab_heal_all(struct lab *lab)
{
	lab_heal(lab, 0, UINT64_MAX);
}
