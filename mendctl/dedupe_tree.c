/*
 * What is the same in whole trees. One pass: each piece of each file is hashed and looked up among those seen before (mendctl/dedupe_index.h); pieces that follow each other
 * on both sides are one range, which the filesystem compares and shares. Holes are not read.
 */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mendctl/dedupe.h"
#include "mendctl/dedupe_index.h"
#include "mendctl/progress.h"
#include "util/crc.h"

#define BLOCK_SIZE_USUAL (128u << 10)
#define MEMORY_USUAL (128ull << 20)

struct scan {
	struct dedupe *dedupe;
	struct dedupe_index index;
	struct why *why;
	uint64_t block_size;
	char *buffer; /* of one piece */
	/* the file that is looked at */
	const char *path;
	int fd;
	uint64_t ino, size;
	uint32_t file; /* in the index, once there is a piece of it there; 0: not yet */
	bool is_refused;
	/* pieces like those of another file, one behind the other */
	struct index_place run_source;
	uint64_t run_pos, run_length;
	/* the other file, open as long as it is the same */
	uint32_t source_file;
	int source_fd;
};

/* --- ranges ------------------------------------------------------------------------------------------------------------------- */

static void source_close(struct scan *s)
{
	if (s->source_fd >= 0)
		close(s->source_fd);
	s->source_fd = -1;
}

/* The name may lead to another file by now. */
static int source_open(struct scan *s, uint32_t file)
{
	const struct index_file *known = index_file(&s->index, file);
	struct stat st;

	if (s->source_fd >= 0 && s->source_file == file)
		return 0;
	source_close(s);
	s->source_fd = open(known->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (s->source_fd < 0)
		return -errno;
	if (fstat(s->source_fd, &st) || st.st_ino != known->ino) {
		source_close(s);
		return -ESTALE;
	}
	s->source_file = file;
	return 0;
}

/* Errors of the filesystem as a whole end it, those of one file leave that one out. */
static bool error_ends_all(int error)
{
	return error == -ENOTTY || error == -EROFS || error == -ENOMEM || error == -ENOSPC;
}

static int run_end(struct scan *s)
{
	struct dedupe_pair pair = {
		.path = s->path, .fd = s->fd, .pos = s->run_pos, .length = s->run_length, .source_pos = s->run_source.pos,
	};
	int error;

	if (!s->run_length)
		return 0;
	s->run_length = 0;
	if (source_open(s, s->run_source.file))
		return 0; /* it is gone */
	pair.source_fd = s->source_fd;
	pair.source = index_file(&s->index, s->run_source.file)->path;
	error = dedupe_pair_run(s->dedupe, &pair);
	if (error_ends_all(error))
		return why_set(s->why, error, error == -ENOTTY ? "%s is not in a mounted mendfs" : "%s: %s", s->path, strerror(-error));
	if (error && !s->is_refused) {
		s->is_refused = true;
		dedupe_skip(s->dedupe, s->path, error);
	}
	pair.differs = false; /* behind `done`: what was changed in the meantime */
	return pair.gained ? dedupe_report(s->dedupe, &pair, s->why) : 0;
}

static bool run_goes_on(const struct scan *s, const struct index_place *place, uint64_t pos)
{
	return s->run_length && place->file == s->run_source.file && place->pos == s->run_source.pos + s->run_length && pos == s->run_pos + s->run_length;
}

/* A range must not lie over itself, as it does where the same file comes by another name. */
static bool is_itself(const struct scan *s, const struct index_place *place, uint64_t pos)
{
	uint64_t gap = place->pos > pos ? place->pos - pos : pos - place->pos;

	return index_file(&s->index, place->file)->ino == s->ino && gap < s->block_size;
}

static bool overlaps_itself(const struct scan *s, uint64_t length)
{
	const struct index_place *source = &s->run_source;
	uint64_t gap = source->pos > s->run_pos ? source->pos - s->run_pos : s->run_pos - source->pos;

	return index_file(&s->index, source->file)->ino == s->ino && gap < s->run_length + length;
}

/* --- pieces ------------------------------------------------------------------------------------------------------------------- */

static void piece_remember(struct scan *s, uint64_t hash, uint64_t pos, uint32_t length)
{
	if (!s->file)
		s->file = index_add_file(&s->index, s->ino, s->path);
	if (s->file)
		index_put(&s->index, hash, length, &(struct index_place){s->file, pos});
}

static int piece_take(struct scan *s, uint64_t pos, uint32_t length)
{
	uint64_t hash = crc64(length, s->buffer, length);
	struct index_place place;
	int error;

	if (!index_find(&s->index, hash, length, &place)) {
		error = run_end(s);
		if (!error)
			piece_remember(s, hash, pos, length);
		return error;
	}
	if (is_itself(s, &place, pos))
		return run_end(s);
	if (run_goes_on(s, &place, pos) && !overlaps_itself(s, length)) {
		s->run_length += length;
		return 0;
	}
	error = run_end(s);
	s->run_source = place;
	s->run_pos = pos;
	s->run_length = length;
	return error;
}

/* *pos: of the next piece with data. */
static bool skip_hole(const struct scan *s, uint64_t *pos)
{
	off_t data = lseek(s->fd, (off_t)*pos, SEEK_DATA);

	if (data < 0)
		return errno != ENXIO;
	*pos = max_u64(*pos, round_down_u64((uint64_t)data, s->block_size));
	return true;
}

/* 0: as long as it was. */
static int read_piece(struct scan *s, uint64_t pos, uint64_t length)
{
	for (uint64_t done = 0; done < length;) {
		ssize_t got = pread(s->fd, s->buffer + done, length - done, (off_t)(pos + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -ENODATA;
		done += (uint64_t)got;
	}
	return 0;
}

/* What cannot be read is left out, the rest of the file is not. */
static int scan_pieces(struct scan *s)
{
	uint64_t pos, length;
	int error = 0, unreadable = 0;

	for (pos = 0; !error && pos < s->size && skip_hole(s, &pos) && pos < s->size; pos += length) {
		length = min_u64(s->block_size, s->size - pos);
		unreadable = read_piece(s, pos, length);
		if (unreadable == -ENODATA)
			break;
		error = unreadable ? run_end(s) : piece_take(s, pos, (uint32_t)length);
		if (unreadable && !s->is_refused) {
			s->is_refused = true;
			dedupe_skip(s->dedupe, s->path, unreadable);
		}
		s->dedupe->bytes += length;
		progress_show(NULL, "bytes looked at", s->dedupe->bytes, 0);
	}
	return error ? error : run_end(s);
}

/* --- trees -------------------------------------------------------------------------------------------------------------------- */

static int scan_file(struct scan *s, const FTSENT *entry)
{
	struct stat st;
	int error = 0;

	s->fd = dedupe_open(entry->fts_accpath);
	if (s->fd < 0) {
		dedupe_skip(s->dedupe, entry->fts_path, s->fd);
		return 0;
	}
	if (!fstat(s->fd, &st) && S_ISREG(st.st_mode)) {
		s->path = entry->fts_path;
		s->ino = st.st_ino;
		s->size = (uint64_t)st.st_size;
		s->file = 0;
		s->is_refused = false;
		sync_file_range(s->fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
		error = scan_pieces(s);
		s->dedupe->files++;
	}
	close(s->fd);
	return error;
}

static int scan_entry(struct scan *s, const FTSENT *entry)
{
	switch (entry->fts_info) {
	case FTS_F:
		return scan_file(s, entry);
	case FTS_DNR:
	case FTS_ERR:
	case FTS_NS:
		dedupe_skip(s->dedupe, entry->fts_path, -entry->fts_errno);
		return 0;
	default:
		return 0;
	}
}

static int scan_trees(struct scan *s)
{
	FTS *fts = fts_open(s->dedupe->options->words, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_XDEV | FTS_NOCHDIR, NULL);
	FTSENT *entry;
	int error = 0;

	if (!fts)
		return why_set(s->why, -errno, "%s", strerror(errno));
	errno = 0;
	while (!error && (entry = fts_read(fts))) {
		error = scan_entry(s, entry);
		errno = 0;
	}
	if (!error && errno)
		error = why_set(s->why, -errno, "reading the tree: %s", strerror(errno));
	fts_close(fts);
	return error;
}

int dedupe_trees(struct dedupe *dedupe, struct why *why)
{
	const struct options *options = dedupe->options;
	struct scan s = {.dedupe = dedupe, .why = why, .source_fd = -1, .block_size = options->block_size ? options->block_size : BLOCK_SIZE_USUAL};
	int error = index_init(&s.index, options->memory ? options->memory : MEMORY_USUAL);

	if (error)
		return why_set(why, error, "no memory; give a smaller --memory");
	s.buffer = malloc(s.block_size);
	error = s.buffer ? scan_trees(&s) : why_set(why, -ENOMEM, "out of memory");
	source_close(&s);
	free(s.buffer);
	index_fini(&s.index);
	return error;
}
