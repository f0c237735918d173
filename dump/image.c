#include "dump/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dump/internal.h"
#include "dump/scramble.h"
#include "format/zero.h"

struct image {
	struct dump *dump;
	struct image_report *report;
	int fd;
};

/* --- copying ------------------------------------------------------------------------------------------------------------------- */

static int copy_sectors(struct image *image, devoff_t offset, uint8_t *bytes)
{
	int error = 0;

	for (size_t i = 0; i < BLOCK_BYTES && !error; i += SECTOR_BYTES)
		if (media_read(image->dump->media, offset + i, bytes + i, SECTOR_BYTES, NULL)) {
			memset(bytes + i, 0, SECTOR_BYTES);
			error = iset_add(&image->report->skipped, offset + i, offset + i + SECTOR_BYTES, 0);
		}
	return error;
}

/* Zeros stay holes. */
static int copy_block(struct image *image, devoff_t offset)
{
	uint8_t bytes[BLOCK_BYTES] __attribute__((aligned(64)));
	int error = 0;

	if (offset + BLOCK_BYTES > media_size(image->dump->media))
		return 0;
	if (media_read(image->dump->media, offset, bytes, BLOCK_BYTES, NULL))
		error = copy_sectors(image, offset, bytes);
	if (error || format_is_zero(bytes, BLOCK_BYTES))
		return error;
	if (pwrite(image->fd, bytes, BLOCK_BYTES, (off_t)offset) != BLOCK_BYTES)
		return errno ? -errno : -EIO;
	image->report->copied_bytes += BLOCK_BYTES;
	return 0;
}

static int copy_range(struct image *image, devoff_t offset, uint64_t length)
{
	int error = 0;

	for (uint64_t i = 0; i < length && !error; i += BLOCK_BYTES)
		error = copy_block(image, offset + i);
	return error;
}

static int copy_fixed(struct image *image)
{
	const struct super *super = &image->dump->super;
	int error = 0;

	for (unsigned slot = 0; slot < SUPER_SLOTS && !error; slot++)
		if (super->slots >> slot & 1)
			error = copy_block(image, super_slot_offset(slot));
	for (unsigned area = 0; area < AREA_COUNT && !error; area++)
		for (unsigned k = 0; k < format_area_copies(super, area) && !error; k++)
			error = copy_range(image, super->areas[area].copy[k], super->areas[area].length_bytes);
	return error;
}

/* Whatever says by its header that it is metadata of this filesystem, where the table that would know cannot be read. */
static int copy_by_headers(struct image *image)
{
	const uint8_t *meta_uuid = image->dump->super.meta_uuid;
	struct format_block_header header;
	int error = 0;

	for (devoff_t offset = 0; offset < image->dump->super.size_bytes && !error; offset += BLOCK_BYTES)
		if (!media_read(image->dump->media, offset, &header, sizeof(header), NULL) &&
		    le32_get(header.magic) == FORMAT_BLOCK_MAGIC && !memcmp(header.meta_uuid, meta_uuid, FORMAT_UUID_BYTES))
			error = copy_block(image, offset);
	return error;
}

static int copy_chunks(struct image *image)
{
	uint64_t count = dump_count_chunks(image->dump);
	struct dump_block root;
	bool lost = dump_read_block(image->dump, MADDR_ROOT, &root) != 0;
	int error = 0;

	for (uint64_t chunk = 0; chunk < count && !error; chunk++) {
		struct chunk_entry entry;
		int read = dump_read_entry(image->dump, chunk, &entry);

		lost |= read && read != -ENOENT;
		for (unsigned k = 0; k < 2 && !read && !error; k++)
			if (entry.copy[k])
				error = copy_range(image, entry.copy[k], 1ull << entry.shift);
	}
	return !error && lost ? copy_by_headers(image) : error;
}

/* --- the file ------------------------------------------------------------------------------------------------------------------ */

static int fill(struct image *image, const char *path, const struct image_options *options, struct why *why)
{
	int error = ftruncate(image->fd, (off_t)image->report->size_bytes) ? -errno : 0;

	if (!error)
		error = copy_fixed(image);
	if (!error)
		error = copy_chunks(image);
	if (error)
		return why_set(why, error, "%s: %s", path, strerror(-error));
	if (options->scramble_names) {
		error = scramble_names(path, image->report, why);
		if (!error)
			error = scramble_wipe(path, image->fd, why);
	}
	if (!error && fsync(image->fd))
		error = why_set(why, -errno, "%s: %s", path, strerror(errno));
	return error;
}

static int give_name(const char *from, const char *to, bool replace, struct why *why)
{
	if (!renameat2(AT_FDCWD, from, AT_FDCWD, to, replace ? 0 : RENAME_NOREPLACE))
		return 0;
	if (errno == EEXIST)
		return why_set(why, -EEXIST, "%s is there already: --force replaces it", to);
	return why_set(why, -errno, "%s: %s", to, strerror(errno));
}

/* --force must not replace what is being copied. */
static int check_target(struct dump *dump, const char *path, bool replace, struct why *why)
{
	struct stat from, to;

	if (stat(path, &to))
		return errno == ENOENT ? 0 : why_set(why, -errno, "%s: %s", path, strerror(errno));
	if (!fstat(media_fd(dump->media), &from) && from.st_dev == to.st_dev && from.st_ino == to.st_ino)
		return why_set(why, -EINVAL, "%s is what is to be copied: name another file", path);
	if (!S_ISREG(to.st_mode))
		return why_set(why, -EINVAL, "%s is not a regular file", path);
	return replace ? 0 : why_set(why, -EEXIST, "%s is there already: --force replaces it", path);
}

int image_write(struct dump *dump, const char *path, const struct image_options *options, struct image_report *report, struct why *why)
{
	struct image image = {.dump = dump, .report = report};
	char *partial;
	int error;

	memset(report, 0, sizeof(*report));
	iset_init(&report->skipped);
	report->size_bytes = dump->super.size_bytes;
	error = check_target(dump, path, options->replace, why);
	if (error)
		return error;
	if (asprintf(&partial, "%s.XXXXXX", path) < 0)
		return why_set(why, -ENOMEM, "out of memory");
	image.fd = mkostemp(partial, O_CLOEXEC);
	if (image.fd < 0) {
		error = why_set(why, -errno, "%s: %s", path, strerror(errno));
		free(partial);
		return error;
	}
	error = fill(&image, partial, options, why);
	if (!error)
		error = give_name(partial, path, options->replace, why);
	if (error)
		unlink(partial);
	close(image.fd);
	free(partial);
	return error;
}
