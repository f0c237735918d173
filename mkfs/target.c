#include "mkfs/target.h"

#include <blkid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "media/claim.h"

/* All that libblkid knows has its signature in the first or the last MiB. */
#define PROBE_BYTES (1u << 20)

int target_classify(const struct mkfs_options *options, enum target_kind *out, struct why *why)
{
	bool has_size = options->size_bytes > 0;
	struct stat st;

	if (stat(options->target, &st) == 0) {
		bool is_empty = S_ISREG(st.st_mode) && st.st_size < (off_t)BLOCK_BYTES;

		if (is_empty && !has_size)
			return why_set(why, -EINVAL, "%s has %lld bytes: give the size with -s",
				       options->target, (long long)st.st_size);
		*out = is_empty ? TARGET_EMPTY : TARGET_EXISTING;
		return 0;
	}
	if (errno != ENOENT)
		return why_set(why, -errno, "%s: %s", options->target, strerror(errno));
	if (!has_size)
		return why_set(why, -ENOENT,
			       "%s does not exist: give a size with -s to create an image file",
			       options->target);
	*out = TARGET_NEW;
	return 0;
}

/* --- mounted? ------------------------------------------------------------------------------------------------------ */

/* mountinfo writes blanks and backslashes as \040 and so on. */
static void mountinfo_unescape(char *text)
{
	char *to = text;

	for (char *from = text; *from; to++) {
		unsigned code;

		if (from[0] == '\\' && sscanf(from + 1, "%3o", &code) == 1) {
			*to = (char)code;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = 0;
}

/* Fields: id parent dev root DIR options [tags ...] - type SOURCE options. A mount whose daemon is gone holds nothing. */
static bool mountinfo_matches(char *line, const char *real_path, char **dir)
{
	char *tail = strstr(line, " - ");
	char *save, *source, *real;
	struct stat st;
	bool is_same;

	if (!tail)
		return false;
	strtok_r(tail + 3, " ", &save);
	source = strtok_r(NULL, " ", &save);
	*dir = strtok_r(line, " ", &save);
	for (int field = 1; field < 5 && *dir; field++)
		*dir = strtok_r(NULL, " ", &save);
	if (!source || !*dir || source[0] != '/')
		return false;
	mountinfo_unescape(source);
	mountinfo_unescape(*dir);
	real = realpath(source, NULL);
	is_same = real && strcmp(real, real_path) == 0;
	free(real);
	return is_same && !(stat(*dir, &st) < 0 && claim_mount_is_dead(-errno));
}

static int target_check_mounted(struct media *media, struct why *why)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	size_t capacity = 0;
	char *line = NULL;
	int error = 0;
	char *dir;

	if (!file)
		return 0;
	while (!error && getline(&line, &capacity, file) > 0)
		if (mountinfo_matches(line, media_real_path(media), &dir))
			error = why_set(why, -EEXIST, "%s is mounted on %.512s; unmount it first",
					media_path(media), dir);
	free(line);
	fclose(file);
	return error;
}

/* --- does it hold something? ------------------------------------------------------------------------------------------ */

static int target_check_mendfs(struct media *media, struct why *why)
{
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++) {
		struct le64 magic;

		if (super_slot_offset(slot) + BLOCK_BYTES > media_size(media))
			break;
		if (media_read(media, super_slot_offset(slot), &magic, sizeof(magic), NULL))
			continue;
		if (le64_get(magic) == FORMAT_SUPER_MAGIC)
			return why_set(why, -EEXIST,
				       "%s holds a mendfs filesystem; use -f to overwrite it",
				       media_path(media));
	}
	return 0;
}

/* What is poisoned looks like zeros to the probe. */
static int probe_copy(struct media *media, int fd, devoff_t start, devoff_t end)
{
	static const uint8_t zeros[BLOCK_BYTES];
	uint8_t block[BLOCK_BYTES];

	for (devoff_t at = start; at < end; at += BLOCK_BYTES) {
		int error = media_read(media, at, block, sizeof(block), NULL);

		if (error && error != -EIO)
			return error;
		if (error || memcmp(block, zeros, sizeof(block)) == 0)
			continue;
		if (pwrite(fd, block, sizeof(block), (off_t)at) != sizeof(block))
			return -errno;
	}
	return 0;
}

/* A sparse twin in memory: libblkid reads by itself, and may neither touch poison nor can it read a device-dax device. */
static int probe_twin(struct media *media, int *out)
{
	uint64_t size = media_size(media);
	int fd = memfd_create("mendfs-probe", MFD_CLOEXEC);
	int error = 0;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) < 0)
		error = -errno;
	if (!error)
		error = probe_copy(media, fd, 0, min_u64(size, PROBE_BYTES));
	if (!error && size > PROBE_BYTES)
		error = probe_copy(media, fd, max_u64(size - PROBE_BYTES, PROBE_BYTES), size);
	if (error) {
		close(fd);
		return error;
	}
	*out = fd;
	return 0;
}

static int probe_judge(blkid_probe probe, const char *path, struct why *why)
{
	const char *name = NULL;
	int found = blkid_do_safeprobe(probe);

	if (found == 1)
		return 0;
	if (found == -2)
		return why_set(why, -EEXIST,
			       "%s holds signatures of several filesystems; use -f to overwrite it", path);
	if (found < 0)
		return why_set(why, -EIO, "%s cannot be probed for filesystems; use -f to overwrite it",
			       path);
	if (!blkid_probe_lookup_value(probe, "TYPE", &name, NULL))
		return why_set(why, -EEXIST, "%s holds a %s filesystem; use -f to overwrite it", path,
			       name);
	if (!blkid_probe_lookup_value(probe, "PTTYPE", &name, NULL))
		return why_set(why, -EEXIST, "%s holds a %s partition table; use -f to overwrite it",
			       path, name);
	return 0;
}

static int probe_run(int fd, const char *path, struct why *why)
{
	blkid_probe probe = blkid_new_probe();
	int error;

	if (!probe)
		return why_set(why, -ENOMEM, "out of memory");
	if (blkid_probe_set_device(probe, fd, 0, 0) < 0) {
		error = why_set(why, -EIO, "%s cannot be probed; use -f to overwrite it", path);
	} else {
		blkid_probe_enable_superblocks(probe, 1);
		blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE);
		blkid_probe_enable_partitions(probe, 1);
		error = probe_judge(probe, path, why);
	}
	blkid_free_probe(probe);
	return error;
}

static int target_check_others(struct media *media, struct why *why)
{
	int fd = -1;
	int error = probe_twin(media, &fd);

	if (error)
		return why_set(why, error, "%s cannot be read: %s; use -f to overwrite it",
			       media_path(media), strerror(-error));
	error = probe_run(fd, media_path(media), why);
	close(fd);
	return error;
}

int target_check(struct media *media, struct why *why)
{
	int error = target_check_mounted(media, why);

	if (!error)
		error = target_check_mendfs(media, why);
	if (!error)
		error = target_check_others(media, why);
	return error;
}
