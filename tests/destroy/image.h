/*
 * The populated image that is destroyed again and again: a lab, what its blocks looked like at earlier moments, and a way back that costs only the pages
 * that were changed.
 */
#ifndef TESTS_DESTROY_IMAGE_H
#define TESTS_DESTROY_IMAGE_H

#include <pthread.h>

#include "fs/fs.h"
#include "tests/support/lab.h"

#define IMAGE_BYTES (32ull << 20)
#define IMAGE_PAGES (IMAGE_BYTES / BLOCK_BYTES)
#define IMAGE_MOMENTS 5

struct image {
	struct lab *lab;
	uint8_t *moments[IMAGE_MOMENTS]; /* whole images, older first */
	unsigned count_moments;
	struct iset poison; /* that the base image has */
	/* Since image_seal(): */
	pthread_mutex_t lock; /* a mount's notify thread stores beside us */
	uint8_t *saved[IMAGE_PAGES]; /* what the page held; NULL: as ever */
	uint32_t touched[IMAGE_PAGES];
	size_t count_touched;
	uint64_t journal_from[2], journal_to[2];
	uint64_t changed_bytes; /* by stores since image_watch(), outside of the journal */
};

/* The populated filesystem, cleanly checkpointed. 0 or negative errno, said on stderr. */
int image_create(struct image *image);
void image_destroy(struct image *image);
struct fs *image_mount(struct image *image, bool readonly);
/* Remember the image as it is now as an earlier moment. */
int image_remember(struct image *image);
/* The way back leads here from now on. */
void image_seal(struct image *image);
void image_restore(struct image *image);
/* What the page held before it was destroyed. */
const uint8_t *image_base(const struct image *image, devoff_t page_offset);
/* Overwrite bytes behind everybody's back. */
void image_overwrite(struct image *image, devoff_t offset, const void *bytes, size_t length);
void image_poison(struct image *image, devoff_t offset, uint64_t length);
/* Count what stores change from now on. */
void image_watch(struct image *image);

/* --- populate.c --- */
int populate(struct image *image);

#endif
