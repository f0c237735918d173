#include "tests/exhaust/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PIECE_BYTES (256u << 10)

struct state_walk {
	struct fs *fs;
	struct state *state;
	char names[STATE_FILES][FS_NAME_MAX + 1];
	unsigned count;
};

static int state_note_name(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next_cookie, const struct fs_attr *attr)
{
	struct state_walk *walk = arg;

	if (strcmp(name, ".") && strcmp(name, "..") && walk->count < STATE_FILES)
		snprintf(walk->names[walk->count++], sizeof(walk->names[0]), "%s", name);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* A block that cannot be read is skipped. */
static int state_read_data(struct fs *fs, inum_t ino, struct state_file *file)
{
	uint64_t pos = 0;

	file->data = calloc(1, file->size + 1);
	while (file->data && pos < file->size) {
		size_t done = 0;
		int error = fs_read(fs, ino, pos, file->data + pos, (size_t)min_u64(file->size - pos, PIECE_BYTES), &done);

		pos += done;
		if (error && error != -EIO)
			return error;
		if (error) {
			file->unreadable = true;
			pos = round_down_u64(pos, BLOCK_BYTES) + BLOCK_BYTES;
		} else if (!done) {
			return -ENODATA;
		}
	}
	return file->data ? 0 : -ENOMEM;
}

static int state_read_link(struct fs *fs, inum_t ino, struct state_file *file)
{
	file->data = calloc(1, FS_SYMLINK_MAX + 1);
	return file->data ? fs_readlink(fs, ino, (char *)file->data, FS_SYMLINK_MAX + 1) : -ENOMEM;
}

static int state_read_dir(struct fs *fs, struct state *state, inum_t dir, const char *path);

static int state_read_file(struct fs *fs, struct state *state, inum_t dir, const char *parent, const char *name)
{
	struct state_file *file = &state->files[state->count];
	struct fs_attr attr;
	int error = fs_lookup(fs, dir, name, &attr);

	if (error)
		return error;
	fs_forget(fs, attr.ino, 1);
	if (state->count == STATE_FILES)
		return -E2BIG;
	state->count++;
	snprintf(file->path, sizeof(file->path), "%s/%.200s", parent, name);
	file->ino = attr.ino;
	file->mode = attr.record.mode;
	file->links = attr.record.nlink;
	file->uid = attr.record.uid;
	file->size = S_ISREG(file->mode) ? attr.record.size_bytes : 0;
	if (S_ISDIR(file->mode))
		return state_read_dir(fs, state, attr.ino, file->path);
	if (S_ISLNK(file->mode))
		return state_read_link(fs, attr.ino, file);
	return S_ISREG(file->mode) ? state_read_data(fs, attr.ino, file) : 0;
}

static int state_read_dir(struct fs *fs, struct state *state, inum_t dir, const char *path)
{
	struct state_walk *walk = calloc(1, sizeof(*walk));
	int error = walk ? fs_readdir(fs, dir, 0, false, state_note_name, walk) : -ENOMEM;

	if (!error)
		qsort(walk->names, walk->count, sizeof(walk->names[0]), by_name);
	for (unsigned i = 0; !error && i < walk->count; i++)
		error = state_read_file(fs, state, dir, path, walk->names[i]);
	free(walk);
	return error;
}

int state_read(struct fs *fs, struct state *out)
{
	memset(out, 0, sizeof(*out));
	return state_read_dir(fs, out, FS_ROOT_INO, "");
}

void state_free(struct state *state)
{
	for (unsigned i = 0; i < state->count; i++)
		free(state->files[i].data);
	state->count = 0;
}

static bool state_data_differ(const struct state_file *a, const struct state_file *b)
{
	if (a->unreadable || b->unreadable || !a->data || !b->data)
		return false;
	if (S_ISLNK(a->mode))
		return strcmp((char *)a->data, (char *)b->data) != 0;
	return memcmp(a->data, b->data, a->size) != 0;
}

static const struct state_file *state_find(const struct state *state, const char *path)
{
	for (unsigned i = 0; i < state->count; i++)
		if (!strcmp(state->files[i].path, path))
			return &state->files[i];
	return NULL;
}

const char *state_differs(const struct state *now, const struct state *other, const char *partial)
{
	static char text[STATE_PATH + 80];
	const struct state_file *skipped = partial ? state_find(now, partial) : NULL;

	for (unsigned i = 0; i < now->count || i < other->count; i++) {
		const struct state_file *a = &now->files[i], *b = &other->files[i];
		const char *what = NULL;

		if (i >= now->count || i >= other->count || strcmp(a->path, b->path))
			what = "names";
		else if (a->mode != b->mode || a->links != b->links || a->uid != b->uid)
			what = "attributes";
		else if (skipped && a->ino == skipped->ino)
			continue;
		else if (a->size != b->size)
			what = "size";
		else if (state_data_differ(a, b))
			what = "data";
		if (!what)
			continue;
		snprintf(text, sizeof(text), "%s: %s", i < now->count ? a->path : b->path, what);
		return text;
	}
	return NULL;
}

bool state_is_mix(const struct state *now, const struct state *before, const struct state *after, const char *path)
{
	const struct state_file *file = state_find(now, path), *a = state_find(before, path), *b = state_find(after, path);

	if (!file || !a || !b || file->size > max_u64(a->size, b->size))
		return false;
	for (uint64_t i = 0; i < file->size && !file->unreadable; i++)
		if (!(i < a->size && file->data[i] == a->data[i]) && !(i < b->size && file->data[i] == b->data[i]))
			return false;
	return true;
}
