#include "tests/destroy/oracle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/xattr.h"
#include "util/crc.h"

static void *grow(void **list, size_t *count, size_t *capacity, size_t size)
{
	if (*count == *capacity) {
		*capacity = *capacity ? 2 * *capacity : 64;
		*list = realloc(*list, *capacity * size);
		if (!*list)
			abort();
	}
	memset((char *)*list + *count * size, 0, size);
	return (char *)*list + (*count)++ * size;
}

/* --- inodes -------------------------------------------------------------------------------------------------------------------- */

static int take_map(void *arg, const struct fs_map_extent *extent)
{
	struct oracle_inode *inode = arg;

	inode->maps = realloc(inode->maps, (inode->count_maps + 1) * sizeof(*inode->maps));
	if (!inode->maps)
		abort();
	inode->maps[inode->count_maps++] = (struct oracle_map){extent->pos, extent->length_bytes, extent->device_offset, extent->shared,
							       extent->written};
	return 0;
}

/* Block by block, so that one that is lost hides no other. */
static void take_content(struct fs *fs, struct oracle_inode *inode)
{
	uint8_t bytes[BLOCK_BYTES];
	size_t done;

	for (size_t i = 0; i < inode->count_maps; i++)
		for (uint64_t at = 0; inode->maps[i].written && at < inode->maps[i].length_bytes; at += BLOCK_BYTES) {
			uint64_t pos = inode->maps[i].pos + at;

			if (pos >= inode->record.size_bytes)
				break;
			if (fs_read(fs, inode->ino, pos, bytes, sizeof(bytes), &done))
				done = 0;
			inode->crc = crc32c(inode->crc, &done, sizeof(done));
			inode->crc = crc32c(inode->crc, bytes, done);
		}
}

static const struct fs_who root = {.uid = 0};

static int take_attribute(struct fs *fs, struct oracle_inode *inode, const char *name)
{
	static uint8_t value[XATTR_VALUE_MAX];
	struct oracle_attribute *to = grow((void **)&inode->attributes, &inode->count_attributes, &inode->capacity_attributes, sizeof(*to));
	int error = fs_getxattr(fs, &root, inode->ino, name, value, sizeof(value), &to->length);

	snprintf(to->name, sizeof(to->name), "%s", name);
	to->slot = xattr_hash(fs, name, strlen(name));
	to->crc = error ? 0 : crc32c(0, value, to->length);
	return error;
}

static int take_attributes(struct fs *fs, struct oracle_inode *inode)
{
	char names[4096];
	size_t used = 0;
	int error = fs_listxattr(fs, &root, inode->ino, names, sizeof(names), &used);

	for (size_t at = 0; at < used && !error; at += strlen(names + at) + 1)
		error = take_attribute(fs, inode, names + at);
	return error;
}

static int take_inode(struct fs *fs, struct oracle *oracle, inum_t ino)
{
	struct oracle_inode *inode = grow((void **)&oracle->inodes, &oracle->count_inodes, &oracle->capacity_inodes, sizeof(*inode));
	char target[FS_SYMLINK_MAX + 1];
	struct fs_attr attr;
	int error = fs_getattr(fs, ino, &attr);

	inode->ino = ino;
	if (error)
		return error;
	inode->record = attr.record;
	if (S_ISLNK(attr.record.mode)) {
		error = fs_readlink(fs, ino, target, sizeof(target));
		inode->target = strdup(error ? "" : target);
	}
	if (!error)
		error = take_attributes(fs, inode);
	if (!error && S_ISREG(attr.record.mode))
		error = fs_map(fs, ino, 0, INT64_MAX, take_map, inode);
	if (!error)
		take_content(fs, inode);
	return error;
}

static int compare_inodes(const void *a, const void *b)
{
	const struct oracle_inode *left = a, *right = b;

	return left->ino < right->ino ? -1 : left->ino > right->ino;
}

const struct oracle_inode *oracle_inode(const struct oracle *oracle, inum_t ino)
{
	struct oracle_inode key = {.ino = ino};

	if (!oracle->count_inodes)
		return NULL;
	return bsearch(&key, oracle->inodes, oracle->count_inodes, sizeof(key), compare_inodes);
}

/* --- names --------------------------------------------------------------------------------------------------------------------- */

struct take_dir {
	struct oracle *oracle;
	inum_t dir;
};

static int take_name(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next_cookie, const struct fs_attr *attr)
{
	struct take_dir *take = arg;
	struct oracle_name *to;

	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return 0;
	to = grow((void **)&take->oracle->names, &take->oracle->count_names, &take->oracle->capacity_names, sizeof(*to));
	to->dir = take->dir;
	to->ino = ino;
	to->cookie = next_cookie;
	to->type = type;
	snprintf(to->name, sizeof(to->name), "%s", name);
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	const struct oracle_name *left = a, *right = b;

	if (left->dir != right->dir)
		return left->dir < right->dir ? -1 : 1;
	return left->cookie < right->cookie ? -1 : left->cookie > right->cookie;
}

const struct oracle_name *oracle_name(const struct oracle *oracle, inum_t dir, uint64_t cookie)
{
	struct oracle_name key = {.dir = dir, .cookie = cookie};

	if (!oracle->count_names)
		return NULL;
	return bsearch(&key, oracle->names, oracle->count_names, sizeof(key), compare_names);
}

const struct oracle_name *oracle_lookup(const struct oracle *oracle, inum_t dir, const char *name)
{
	for (size_t i = 0; i < oracle->count_names; i++)
		if (oracle->names[i].dir == dir && !strcmp(oracle->names[i].name, name))
			return &oracle->names[i];
	return NULL;
}

/* Breadth first: names are appended while they are gone through. */
static int take_names(struct fs *fs, struct oracle *oracle, struct why *why)
{
	struct take_dir take = {.oracle = oracle, .dir = FS_ROOT_INO};
	int error = fs_readdir(fs, FS_ROOT_INO, 0, false, take_name, &take);

	for (size_t i = 0; i < oracle->count_names && !error; i++) {
		take.dir = oracle->names[i].ino;
		if (oracle->names[i].type == S_IFDIR >> 12)
			error = fs_readdir(fs, take.dir, 0, false, take_name, &take);
		if (oracle->count_names > 100000)
			return why_set(why, -ELOOP, "directories without an end");
	}
	return error ? why_set(why, error, "directory %llu: %s", (unsigned long long)take.dir, strerror(-error)) : 0;
}

static int compare_numbers(const void *a, const void *b)
{
	const inum_t *left = a, *right = b;

	return *left < *right ? -1 : *left > *right;
}

static int take_inodes(struct fs *fs, struct oracle *oracle, struct why *why)
{
	inum_t *all = calloc(oracle->count_names + 1, sizeof(*all));
	int error = 0;

	if (!all)
		abort();
	all[0] = FS_ROOT_INO;
	for (size_t i = 0; i < oracle->count_names; i++)
		all[i + 1] = oracle->names[i].ino;
	qsort(all, oracle->count_names + 1, sizeof(*all), compare_numbers);
	for (size_t i = 0; i <= oracle->count_names && !error; i++) {
		if (i && all[i] == all[i - 1])
			continue;
		error = take_inode(fs, oracle, all[i]);
		if (error)
			why_set(why, error, "inode %llu: %s", (unsigned long long)all[i], strerror(-error));
	}
	free(all);
	return error;
}

/* --- ledger -------------------------------------------------------------------------------------------------------------------- */

static int take_damage(void *arg, const struct fs_damage *damage)
{
	struct oracle *oracle = arg;
	struct oracle_damage *to = grow((void **)&oracle->damage, &oracle->count_damage, &oracle->capacity_damage, sizeof(*to));

	*to = (struct oracle_damage){damage->ino, damage->pos, damage->length_bytes, damage->cause_id};
	return 0;
}

static int take_bad(void *arg, const struct badblock_record *record)
{
	struct oracle *oracle = arg;
	struct badblock_record *to = grow((void **)&oracle->bad, &oracle->count_bad, &oracle->capacity_bad, sizeof(*to));

	*to = *record;
	return 0;
}

int oracle_take(struct fs *fs, struct oracle *out, struct why *why)
{
	struct fs_summary summary;
	int error;

	memset(out, 0, sizeof(*out));
	error = take_names(fs, out, why);
	if (!error)
		error = take_inodes(fs, out, why);
	qsort(out->names, out->count_names, sizeof(*out->names), compare_names);
	if (!error && fs_damaged(fs, take_damage, out))
		error = why_set(why, -EIO, "the list of damaged files cannot be read");
	if (!error && fs_badblocks(fs, take_bad, out))
		error = why_set(why, -EIO, "the list of bad blocks cannot be read");
	if (!error && !fs_summary(fs, &summary))
		out->quarantined_bytes = summary.quarantined_bytes;
	return error;
}

void oracle_fini(struct oracle *oracle)
{
	for (size_t i = 0; i < oracle->count_inodes; i++) {
		free(oracle->inodes[i].maps);
		free(oracle->inodes[i].target);
		free(oracle->inodes[i].attributes);
	}
	free(oracle->names);
	free(oracle->inodes);
	free(oracle->damage);
	free(oracle->bad);
	memset(oracle, 0, sizeof(*oracle));
}
