#include "tests/crash/model_observe.h"

#include "tests/crash/model_xattr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/query.h"

struct observed *observed_create(void)
{
	return calloc(1, sizeof(struct observed));
}

void observed_destroy(struct observed *observed)
{
	if (!observed)
		return;
	free(observed->arena);
	free(observed->all_blocks);
	free(observed);
}

static size_t arena_take(struct observed *observed, size_t size)
{
	size_t at = observed->used, need = at + size;

	if (need > observed->capacity) {
		observed->capacity = 2 * need + (64u << 10);
		observed->arena = realloc(observed->arena, observed->capacity);
		if (!observed->arena)
			abort();
	}
	observed->used = need;
	return at;
}

static size_t blocks_take(struct observed *observed, size_t count)
{
	size_t at = observed->count_blocks, need = at + count;

	if (need > observed->capacity_blocks) {
		observed->capacity_blocks = 2 * need + 256;
		observed->all_blocks = realloc(observed->all_blocks, observed->capacity_blocks * sizeof(*observed->all_blocks));
		if (!observed->all_blocks)
			abort();
	}
	if (count)
		memset(observed->all_blocks + at, 0, count * sizeof(*observed->all_blocks));
	observed->count_blocks = need;
	return at;
}

static bool is_seen(const struct observed *observed, inum_t ino)
{
	for (size_t i = 0; i < observed->count_inodes; i++)
		if (observed->inodes[i].ino == ino)
			return true;
	return false;
}

/* --- directories ---------------------------------------------------------------------------------------------------------- */

struct listing {
	struct observed *observed;
	struct observed_inode *dir;
	bool full;
};

static int listing_visit(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next_cookie, const struct fs_attr *attr)
{
	struct listing *listing = arg;
	struct observed *observed = listing->observed;
	struct observed_name *entry = &observed->names[observed->count_names];
	size_t length = strlen(name) + 1;

	if (!strcmp(name, "."))
		return 0;
	if (!strcmp(name, "..")) {
		listing->dir->dotdot = ino;
		return 0;
	}
	listing->full = observed->count_names == ARRAY_SIZE(observed->names);
	if (listing->full)
		return 1;
	*entry = (struct observed_name){.name = arena_take(observed, length), .ino = ino, .type = type};
	memcpy(observed->arena + entry->name, name, length);
	observed->count_names++;
	return 0;
}

static int observe_dir(struct observed *observed, struct fs *fs, struct observed_inode *dir, struct why *why)
{
	struct listing listing = {.observed = observed, .dir = dir};
	int error;

	dir->first_name = observed->count_names;
	error = fs_readdir(fs, dir->ino, 0, false, listing_visit, &listing);
	dir->count_names = observed->count_names - dir->first_name;
	if (listing.full)
		return why_set(why, -EUCLEAN, "directory %llu has far too many names", (unsigned long long)dir->ino);
	return error ? why_set(why, -EUCLEAN, "directory %llu: %s", (unsigned long long)dir->ino, strerror(-error)) : 0;
}

/* --- files ---------------------------------------------------------------------------------------------------------------- */

struct bad_place {
	struct media *media;
	bool bad;
};

static int bad_place_visit(void *arg, const struct fs_map_extent *extent)
{
	struct bad_place *place = arg;
	uint64_t length;
	devoff_t bad;

	if (extent->written && media_bad_find(place->media, extent->device_offset, extent->length_bytes, &bad, &length))
		place->bad = true;
	return 0;
}

/* A block that cannot be read must be one that lies on something known to be bad. */
static int observe_bad(struct fs *fs, const struct observed_inode *inode, size_t index, struct why *why)
{
	struct bad_place place = {.media = fs_media(fs)};
	int error = fs_map(fs, inode->ino, (uint64_t)index * BLOCK_BYTES, 1, bad_place_visit, &place);

	if (!error && place.bad)
		return 0;
	return why_set(why, -EUCLEAN, "inode %llu block %zu cannot be read, but nothing is bad there", (unsigned long long)inode->ino, index);
}

static int observe_content(struct observed *observed, struct fs *fs, struct observed_inode *inode, bool may_be_bad, struct why *why)
{
	uint64_t pos = 0, size = inode->record.size_bytes;
	size_t done;
	int error = 0;

	while (pos < size && !error) {
		error = fs_read(fs, inode->ino, pos, observed->arena + inode->data + pos, size - pos, &done);
		pos += done;
		if (error == -EIO && may_be_bad) {
			error = observe_bad(fs, inode, pos / BLOCK_BYTES, why);
			if (error)
				return error;
			observed->all_blocks[inode->first_block + pos / BLOCK_BYTES].bad = true;
			pos = min_u64(round_down_u64(pos, BLOCK_BYTES) + BLOCK_BYTES, size);
		} else if (!error && !done) {
			error = -ENODATA;
		}
	}
	if (error)
		return why_set(why, -EUCLEAN, "inode %llu at byte %llu: %s", (unsigned long long)inode->ino, (unsigned long long)pos,
			       strerror(-error));
	return 0;
}

static int observe_file(struct observed *observed, struct fs *fs, struct observed_inode *inode, bool may_be_bad, struct why *why)
{
	uint64_t size = inode->record.size_bytes;

	if (size > MODEL_FILE_BYTES_MAX)
		return why_set(why, -EUCLEAN, "inode %llu has %llu bytes", (unsigned long long)inode->ino, (unsigned long long)size);
	inode->blocks = round_up_u64(size, BLOCK_BYTES) / BLOCK_BYTES;
	inode->first_block = blocks_take(observed, inode->blocks);
	observed->used = round_up_u64(observed->used, LINE_BYTES);
	inode->data = arena_take(observed, inode->blocks * BLOCK_BYTES);
	if (inode->blocks)
		memset(observed->arena + inode->data + (inode->blocks - 1) * BLOCK_BYTES, 0, BLOCK_BYTES);
	return observe_content(observed, fs, inode, may_be_bad, why);
}

static int observe_symlink(struct observed *observed, struct fs *fs, struct observed_inode *inode, struct why *why)
{
	char target[FS_SYMLINK_MAX + 1];
	int error = fs_readlink(fs, inode->ino, target, sizeof(target));

	if (error)
		return why_set(why, -EUCLEAN, "symlink %llu: %s", (unsigned long long)inode->ino, strerror(-error));
	inode->target = arena_take(observed, strlen(target) + 1);
	strcpy((char *)observed->arena + inode->target, target);
	return 0;
}

/* --- attributes ----------------------------------------------------------------------------------------------------------- */

static int observe_xattr(struct fs *fs, struct observed_inode *inode, const char *name, uint8_t *value)
{
	static const struct fs_who who = {.uid = 0};
	size_t length;
	int error = fs_getxattr(fs, &who, inode->ino, name, value, MODEL_VALUE_MAX, &length);

	if (!error)
		inode->xattrs += xattr_share(name, value, length);
	return error;
}

static int observe_xattrs(struct fs *fs, struct observed_inode *inode, struct why *why)
{
	static uint8_t value[MODEL_VALUE_MAX];
	static const struct fs_who who = {.uid = 0};
	char names[2048];
	size_t length = 0;
	int error = fs_listxattr(fs, &who, inode->ino, names, sizeof(names), &length);

	for (size_t at = 0; at < length && !error; at += strlen(names + at) + 1)
		error = observe_xattr(fs, inode, names + at, value);
	return error ? why_set(why, -EUCLEAN, "attributes of inode %llu: %s", (unsigned long long)inode->ino, strerror(-error)) : 0;
}

/* --- all ------------------------------------------------------------------------------------------------------------------ */

static int observe_inode(struct observed *observed, struct fs *fs, inum_t ino, bool may_be_bad, struct why *why)
{
	struct observed_inode *inode = &observed->inodes[observed->count_inodes];
	struct fs_attr attr;
	int error;

	if (is_seen(observed, ino))
		return 0;
	if (observed->count_inodes == STATE_INODES_MAX)
		return why_set(why, -EUCLEAN, "far too many inodes");
	error = fs_getattr(fs, ino, &attr);
	if (error)
		return why_set(why, -EUCLEAN, "inode %llu: %s", (unsigned long long)ino, strerror(-error));
	*inode = (struct observed_inode){.ino = ino, .record = attr.record};
	observed->count_inodes++;
	error = observe_xattrs(fs, inode, why);
	if (error)
		return error;
	if (S_ISDIR(attr.record.mode))
		return observe_dir(observed, fs, inode, why);
	if (S_ISLNK(attr.record.mode))
		return observe_symlink(observed, fs, inode, why);
	return S_ISREG(attr.record.mode) ? observe_file(observed, fs, inode, may_be_bad, why) : 0;
}

int observe(struct observed *observed, struct fs *fs, bool may_be_bad, struct why *why)
{
	int error;

	observed->count_inodes = observed->count_names = observed->count_blocks = observed->used = 0;
	error = observe_inode(observed, fs, FS_ROOT_INO, may_be_bad, why);
	for (size_t i = 0; i < observed->count_names && !error; i++)
		error = observe_inode(observed, fs, observed->names[i].ino, may_be_bad, why);
	return error;
}
