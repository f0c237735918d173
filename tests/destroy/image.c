#include "tests/destroy/image.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/fsfix.h"

/* --- the way back -------------------------------------------------------------------------------------------------------------- */

static void save_page(struct image *image, size_t page)
{
	if (image->saved[page])
		return;
	image->saved[page] = malloc(BLOCK_BYTES);
	if (!image->saved[page])
		abort();
	memcpy(image->saved[page], lab_bytes(image->lab) + page * BLOCK_BYTES, BLOCK_BYTES);
	image->touched[image->count_touched++] = (uint32_t)page;
}

static void save_range(struct image *image, devoff_t offset, size_t length)
{
	for (size_t page = offset / BLOCK_BYTES; page <= (offset + length - 1) / BLOCK_BYTES; page++)
		save_page(image, page);
}

static bool is_journal(const struct image *image, devoff_t offset)
{
	return (offset >= image->journal_from[0] && offset < image->journal_to[0]) ||
	       (offset >= image->journal_from[1] && offset < image->journal_to[1]);
}

static void on_store(void *arg, devoff_t offset, const void *from, size_t length)
{
	struct image *image = arg;
	const uint8_t *old = lab_bytes(image->lab) + offset, *bytes = from;

	pthread_mutex_lock(&image->lock);
	save_range(image, offset, length);
	for (size_t i = 0; i < length && !is_journal(image, offset); i++)
		image->changed_bytes += old[i] != (bytes ? bytes[i] : 0);
	pthread_mutex_unlock(&image->lock);
}

void image_restore(struct image *image)
{
	lab_reset(image->lab);
	lab_heal_all(image->lab);
	for (size_t i = 0; i < image->count_touched; i++) {
		uint32_t page = image->touched[i];

		memcpy(lab_bytes(image->lab) + (size_t)page * BLOCK_BYTES, image->saved[page], BLOCK_BYTES);
		free(image->saved[page]);
		image->saved[page] = NULL;
	}
	image->count_touched = 0;
	for (size_t i = 0; i < image->poison.count; i++)
		lab_poison(image->lab, image->poison.ranges[i].start, image->poison.ranges[i].end - image->poison.ranges[i].start);
}

void image_seal(struct image *image)
{
	struct lab_listener listener = {.store = on_store, .arg = image};
	struct super super;
	struct why why;

	lab_reset(image->lab);
	if (fs_read_super(lab_media(image->lab), &super, &why))
		abort();
	for (unsigned k = 0; k < 2; k++) {
		image->journal_from[k] = super.areas[AREA_JOURNAL].copy[k];
		image->journal_to[k] = image->journal_from[k] + super.areas[AREA_JOURNAL].length_bytes;
	}
	lab_listen(image->lab, &listener);
	image_restore(image);
}

void image_watch(struct image *image)
{
	image->changed_bytes = 0;
}

const uint8_t *image_base(const struct image *image, devoff_t page_offset)
{
	const uint8_t *saved = image->saved[page_offset / BLOCK_BYTES];

	return saved ? saved : lab_bytes(image->lab) + page_offset;
}

void image_overwrite(struct image *image, devoff_t offset, const void *bytes, size_t length)
{
	save_range(image, offset, length);
	memcpy(lab_bytes(image->lab) + offset, bytes, length);
}

void image_poison(struct image *image, devoff_t offset, uint64_t length)
{
	lab_poison(image->lab, offset, length);
}

/* --- life ---------------------------------------------------------------------------------------------------------------------- */

struct fs *image_mount(struct image *image, bool readonly)
{
	struct fs_options options = {.readonly = readonly, .tools = true, .cache_bytes = 8u << 20};
	struct fs *fs = NULL;
	struct why why;

	lab_reset(image->lab);
	if (fs_mount_media(lab_media(image->lab), &options, &why, &fs)) {
		fprintf(stderr, "destroy: %s\n", why.text);
		return NULL;
	}
	return fs;
}

int image_remember(struct image *image)
{
	uint8_t *copy = malloc(IMAGE_BYTES);

	if (!copy || image->count_moments == IMAGE_MOMENTS)
		return -ENOMEM;
	memcpy(copy, lab_bytes(image->lab), IMAGE_BYTES);
	image->moments[image->count_moments++] = copy;
	return 0;
}

int image_create(struct image *image)
{
	int error;

	memset(image, 0, sizeof(*image));
	pthread_mutex_init(&image->lock, NULL);
	iset_init(&image->poison);
	error = lab_create(IMAGE_BYTES, MEDIA_CACHELINE, &image->lab);
	if (!error)
		error = fsfix_format_media(lab_media(image->lab));
	if (!error)
		error = populate(image);
	if (!error)
		image_seal(image);
	return error;
}

void image_destroy(struct image *image)
{
	lab_listen(image->lab, NULL);
	lab_destroy(image->lab);
	for (unsigned i = 0; i < image->count_moments; i++)
		free(image->moments[i]);
	for (size_t i = 0; i < image->count_touched; i++)
		free(image->saved[image->touched[i]]);
	iset_fini(&image->poison);
	pthread_mutex_destroy(&image->lock);
}
