/* Small steps with files for unit tests of fs/; each fails the test on any surprise. */
#ifndef TESTS_FILES_H
#define TESTS_FILES_H

#include <stdlib.h>
#include <string.h>

#include "tests/support/expect.h"
#include "tests/support/fsfix.h"

/* Content that tells its file and position: byte `pos` of the stream `tag`. */
static inline uint8_t files_byte(unsigned tag, uint64_t pos)
{
	uint64_t z = (pos >> 3) * 0x9e3779b97f4a7c15ull + tag * 0xbf58476d1ce4e5b9ull + 1;

	z ^= z >> 29;
	return (uint8_t)(z >> ((pos & 7) * 8));
}

static inline void files_fill(void *buffer, unsigned tag, uint64_t pos, size_t size)
{
	uint8_t *bytes = buffer;
	size_t i;

	for (i = 0; i < size; i++)
		bytes[i] = files_byte(tag, pos + i);
}

static inline inum_t files_new(struct fsfix *fix, const char *name)
{
	inum_t ino = 0;

	expect_equal(fsfix_mkfile(fix, FS_ROOT_INO, name, &ino), 0);
	return ino;
}

static inline void files_write(struct fsfix *fix, inum_t ino, unsigned tag, uint64_t pos,
			       size_t size)
{
	uint8_t *buffer = malloc(size ? size : 1);
	size_t done = 0;

	files_fill(buffer, tag, pos, size);
	expect_equal(fs_write(fix->fs, ino, pos, buffer, size, &done), 0);
	expect_equal(done, size);
	free(buffer);
}

static inline int files_read_error(struct fsfix *fix, inum_t ino, uint64_t pos, size_t size,
				   size_t *done)
{
	uint8_t *buffer = malloc(size ? size : 1);
	int error = fs_read(fix->fs, ino, pos, buffer, size, done);

	free(buffer);
	return error;
}

/* tag 0: zeros */
static inline void files_expect(struct fsfix *fix, inum_t ino, unsigned tag, uint64_t pos,
				size_t size)
{
	uint8_t *buffer = malloc(size ? size : 1);
	size_t done = 0, i;

	expect_equal(fs_read(fix->fs, ino, pos, buffer, size, &done), 0);
	expect_equal(done, size);
	for (i = 0; i < size; i++)
		if (buffer[i] != (tag ? files_byte(tag, pos + i) : 0))
			ck_abort_msg("inode %llu byte %llu: %02x, not of stream %u",
				     (unsigned long long)ino, (unsigned long long)(pos + i),
				     buffer[i], tag);
	free(buffer);
}

static inline struct inode_record files_record(struct fsfix *fix, inum_t ino)
{
	struct fs_attr attr;

	expect_equal(fs_getattr(fix->fs, ino, &attr), 0);
	return attr.record;
}

static inline uint64_t files_size(struct fsfix *fix, inum_t ino)
{
	return files_record(fix, ino).size_bytes;
}

static inline void files_truncate(struct fsfix *fix, inum_t ino, uint64_t size)
{
	struct inode_record values = {.size_bytes = size};
	struct fs_attr attr;

	expect_equal(fs_setattr(fix->fs, ino, FS_SET_SIZE, &values, &attr), 0);
}

struct files_map {
	struct fs_map_extent extents[64];
	size_t count;
};

static inline int files_map_add(void *arg, const struct fs_map_extent *extent)
{
	struct files_map *map = arg;

	if (map->count < ARRAY_SIZE(map->extents))
		map->extents[map->count] = *extent;
	map->count++;
	return 0;
}

static inline void files_map(struct fsfix *fix, inum_t ino, struct files_map *map)
{
	map->count = 0;
	expect_equal(fs_map(fix->fs, ino, 0, UINT64_MAX, files_map_add, map), 0);
}

/* Where the byte at pos lies on the device. */
static inline devoff_t files_device_offset(struct fsfix *fix, inum_t ino, uint64_t pos)
{
	struct files_map map = {.count = 0};

	expect_equal(fs_map(fix->fs, ino, pos, 1, files_map_add, &map), 0);
	expect_equal(map.count, 1);
	return map.extents[0].device_offset;
}

static inline void files_poison(struct fsfix *fix, inum_t ino, uint64_t pos, uint64_t length,
				bool latent)
{
	expect_equal(fs_inject(fix->fs, files_device_offset(fix, ino, pos), length, latent), 0);
	if (!latent)
		expect_equal(fs_notify_wait(fix->fs, 5000), 0);
}

struct files_damage {
	struct fs_damage ranges[64];
	size_t count;
};

static inline int files_damage_add(void *arg, const struct fs_damage *damage)
{
	struct files_damage *all = arg;

	if (all->count < ARRAY_SIZE(all->ranges))
		all->ranges[all->count] = *damage;
	all->count++;
	return 0;
}

static inline void files_damaged(struct fsfix *fix, struct files_damage *all)
{
	all->count = 0;
	expect_equal(fs_damaged(fix->fs, files_damage_add, all), 0);
}

static inline void files_check(struct fsfix *fix)
{
	expect_equal(fsfix_check(fix), 0);
}

static inline int files_run(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}

#endif
