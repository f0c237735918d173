/* Two ranges: shared by the filesystem, which compares them itself; or given files, one by one. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/mendfs_ioctl.h"
#include "mendctl/dedupe.h"
#include "mendctl/progress.h"

#define COMPARE_BYTES (1u << 20)

/* --- one pair --------------------------------------------------------------------------------------------------------------- */

/* What lies in the same place is shared already: 0 means it is not, or not known. */
static uint64_t shared_length(int fd, uint64_t pos, uint64_t length, uint64_t *device_offset)
{
	struct mendfs_map map = {.start = pos, .length = length, .room = 1};

	if (ioctl(fd, MENDFS_IOC_MAP, &map) || !map.count || map.extents[0].offset != pos || !(map.extents[0].flags & MENDFS_EXTENT_SHARED))
		return 0;
	*device_offset = map.extents[0].device_offset;
	return map.extents[0].length;
}

static uint64_t shared_already(const struct dedupe_pair *pair)
{
	uint64_t left = pair->length - pair->done, a, b;
	uint64_t one = shared_length(pair->source_fd, pair->source_pos + pair->done, left, &a);
	uint64_t other = one ? shared_length(pair->fd, pair->pos + pair->done, left, &b) : 0;

	return one && other && a == b ? min_u64(one, other) : 0;
}

static int read_all(int fd, uint64_t pos, char *buffer, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t got = pread(fd, buffer + done, size - done, (off_t)(pos + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -EINVAL;
		done += (size_t)got;
	}
	return 0;
}

/* Without changing anything. */
static int pair_compare(struct dedupe_pair *pair)
{
	char *buffer = malloc(2 * (size_t)COMPARE_BYTES);
	int error = buffer ? 0 : -ENOMEM;

	while (!error && !pair->differs && pair->done < pair->length) {
		uint64_t shared = shared_already(pair), part = min_u64(pair->length - pair->done, COMPARE_BYTES);

		if (shared) {
			pair->done += min_u64(shared, pair->length - pair->done);
			continue;
		}
		error = read_all(pair->source_fd, pair->source_pos + pair->done, buffer, part);
		if (!error)
			error = read_all(pair->fd, pair->pos + pair->done, buffer + COMPARE_BYTES, part);
		if (!error)
			pair->differs = memcmp(buffer, buffer + COMPARE_BYTES, part) != 0;
		if (!error && !pair->differs) {
			pair->done += part;
			pair->gained += part;
		}
	}
	free(buffer);
	return error;
}

static int pair_share(struct dedupe_pair *pair)
{
	struct mendfs_dedupe order = {.count = 1};
	struct mendfs_dedupe_target *target = &order.targets[0];

	while (pair->done < pair->length) {
		order.offset = pair->source_pos + pair->done;
		order.length = pair->length - pair->done;
		*target = (struct mendfs_dedupe_target){.offset = pair->pos + pair->done};
		if (ioctl(pair->fd, MENDFS_IOC_TICKET, &target->ticket) || ioctl(pair->source_fd, MENDFS_IOC_DEDUPE, &order))
			return -errno;
		if (target->status < 0)
			return target->status;
		pair->differs = target->status == MENDFS_DEDUPE_DIFFERS;
		if (pair->differs || !target->bytes_deduped)
			return 0;
		pair->done += target->bytes_deduped;
		pair->gained += target->bytes_gained;
	}
	return 0;
}

int dedupe_pair_run(struct dedupe *dedupe, struct dedupe_pair *pair)
{
	pair->done = pair->gained = 0;
	pair->differs = false;
	return dedupe->options->given & OPTION_DRY_RUN ? pair_compare(pair) : pair_share(pair);
}

/* --- given files -------------------------------------------------------------------------------------------------------------- */

static int open_file(const char *path, int (*how)(const char *path), struct stat *st, struct why *why)
{
	int fd = how(path);

	if (fd < 0)
		return why_set(why, fd, "%s: %s", path, strerror(-fd));
	if (fstat(fd, st) || !S_ISREG(st->st_mode)) {
		close(fd);
		return why_set(why, -EINVAL, "%s is not a regular file", path);
	}
	/* What was stored through mappings is compared too. */
	sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
	return fd;
}

static int open_to_read(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	return fd < 0 ? -errno : fd;
}

static int open_followed(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	return fd < 0 ? open_to_read(path) : fd;
}

/* As much as both have, from the offsets on. */
static int pair_set_length(const struct options *options, struct dedupe_pair *pair, const struct stat *source, const struct stat *target, struct why *why)
{
	uint64_t size = (uint64_t)target->st_size, source_size = (uint64_t)source->st_size;

	if (source->st_dev != target->st_dev)
		return why_set(why, -EXDEV, "%s and %s are not in the same filesystem", pair->source, pair->path);
	if (pair->source_pos > source_size || pair->pos > size)
		return why_set(why, -EINVAL, "%s: the offset is past the end", pair->source_pos > source_size ? pair->source : pair->path);
	pair->length = min_u64(source_size - pair->source_pos, size - pair->pos);
	if (!(options->given & OPTION_LENGTH))
		return 0;
	if (options->length > pair->length)
		return why_set(why, -EINVAL, "%s and %s: the range goes past the end of one of them", pair->source, pair->path);
	pair->length = options->length;
	return 0;
}

static int dedupe_with(struct dedupe *dedupe, struct dedupe_pair *pair, const struct stat *source, struct why *why)
{
	struct stat st;
	int error;

	pair->fd = open_file(pair->path, open_followed, &st, why);
	if (pair->fd < 0)
		return pair->fd;
	error = pair_set_length(dedupe->options, pair, source, &st, why);
	if (!error) {
		error = dedupe_pair_run(dedupe, pair);
		if (error == -ENOTTY)
			why_set(why, error, "%s is not in a mounted mendfs", pair->source);
		else if (error)
			why_set(why, error, "%s with %s: %s", pair->path, pair->source, strerror(-error));
	}
	close(pair->fd);
	if (error)
		return error;
	dedupe->files++;
	dedupe->bytes += pair->length;
	return dedupe_report(dedupe, pair, why);
}

int dedupe_files(struct dedupe *dedupe, struct why *why)
{
	const struct options *options = dedupe->options;
	struct dedupe_pair pair = {.source = options->words[0], .source_pos = options->offset};
	struct stat source;
	int error = 0;

	pair.pos = options->given & OPTION_DST_OFFSET ? options->dst_offset : options->offset;
	pair.source_fd = open_file(pair.source, open_to_read, &source, why);
	if (pair.source_fd < 0)
		return pair.source_fd;
	dedupe->files++;
	for (int i = 1; i < options->count_words && !error; i++) {
		pair.path = options->words[i];
		progress_show(NULL, "files", (uint64_t)i, (uint64_t)options->count_words);
		error = dedupe_with(dedupe, &pair, &source, why);
	}
	close(pair.source_fd);
	return error;
}
