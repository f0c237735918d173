/* The extent-size hint. What a crash leaves: the workloads "hint" of tests/crash. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tests/support/files.h"

#define MIB (1ull << 20)

static struct fsfix fix;
static const struct fs_who root = {.uid = 0};

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, FSFIX_USUAL_BYTES), 0);
}

static void teardown(void)
{
	expect_equal(fsfix_check(&fix), 0);
	fsfix_destroy(&fix);
}

static void set_hint(inum_t ino, uint32_t blocks)
{
	const struct inode_record values = {.extent_hint = blocks};

	expect_equal(fs_set_flags(fix.fs, &root, ino, FS_SET_EXTENT_HINT, &values), 0);
}

static inum_t make_hinted(const char *name, uint32_t blocks)
{
	inum_t ino = files_new(&fix, name);

	set_hint(ino, blocks);
	return ino;
}

/* All of the file's blocks, which begin with file block `first`, lie in one run that begins at a multiple of `align` blocks. */
static void expect_one_run(inum_t ino, uint64_t first, uint64_t count, uint64_t align)
{
	struct files_map map;
	uint64_t pos = first * BLOCK_BYTES;
	devoff_t start;

	files_map(&fix, ino, &map);
	ck_assert_uint_gt(map.count, 0);
	start = map.extents[0].device_offset;
	ck_assert_uint_eq(start % (align * BLOCK_BYTES), 0);
	for (size_t i = 0; i < map.count; i++) {
		ck_assert_uint_eq(map.extents[i].pos, pos);
		ck_assert_uint_eq(map.extents[i].device_offset, start + pos - first * BLOCK_BYTES);
		pos += map.extents[i].length_bytes;
	}
	ck_assert_uint_eq(pos, (first + count) * BLOCK_BYTES);
	ck_assert_uint_eq(files_record(&fix, ino).count_blocks, count);
}

START_TEST(one_byte_takes_a_unit_and_the_rest_of_it_waits)
{
	inum_t ino = make_hinted("file", 64);

	files_write(&fix, ino, 1, 100, 1);
	expect_one_run(ino, 0, 64, 64);
	ck_assert_uint_eq(files_size(&fix, ino), 101);
	files_expect(&fix, ino, 0, 0, 100);
	files_write(&fix, ino, 1, 101, 30 * BLOCK_BYTES);
	expect_one_run(ino, 0, 64, 64);
	files_expect(&fix, ino, 1, 100, 1 + 30 * BLOCK_BYTES);
	files_write(&fix, ino, 1, 200 * BLOCK_BYTES, 1);
	ck_assert_uint_eq(files_record(&fix, ino).count_blocks, 128); /* 192 to 255 */
	files_expect(&fix, ino, 0, 64 * BLOCK_BYTES, 136 * BLOCK_BYTES);
}
END_TEST

START_TEST(files_that_grow_side_by_side_keep_their_units)
{
	inum_t files[4];
	char name[16];

	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		files[i] = make_hinted(name, 128);
	}
	for (unsigned k = 0; k < 100; k++)
		for (unsigned i = 0; i < 4; i++)
			files_write(&fix, files[i], i + 1, k * 5000, 5000);
	for (unsigned i = 0; i < 4; i++) {
		expect_one_run(files[i], 0, 128, 128);
		files_expect(&fix, files[i], i + 1, 0, 500000);
	}
}
END_TEST

/* The unit need not be a power of two. */
START_TEST(any_unit_will_do)
{
	static const uint32_t units[] = {2, 3, 5, 17, 100, 512, 600};
	char name[16];

	for (unsigned i = 0; i < ARRAY_SIZE(units); i++) {
		inum_t ino;

		snprintf(name, sizeof(name), "file%u", i);
		ino = make_hinted(name, units[i]);
		files_write(&fix, ino, 1, (units[i] + 1) * BLOCK_BYTES, 10);
		expect_one_run(ino, units[i], units[i], units[i]);
	}
}
END_TEST

START_TEST(nothing_of_who_was_there_before_can_be_seen)
{
	inum_t ino = files_new(&fix, "before");
	struct fs_statfs space;

	fs_statfs(fix.fs, &space);
	files_write(&fix, ino, 9, 0, space.available_blocks / 2 * BLOCK_BYTES);
	files_truncate(&fix, ino, 0);
	expect_equal(fs_syncfs(fix.fs), 0);
	ino = make_hinted("file", 256);
	files_write(&fix, ino, 1, 5, 10);
	files_truncate(&fix, ino, MIB);
	files_expect(&fix, ino, 0, 15, MIB - 15);
	expect_equal(fsfix_crash(&fix), 0);
	expect_equal(fsfix_mount(&fix), 0);
	files_expect(&fix, ino, 0, 15, MIB - 15);
	files_expect(&fix, ino, 1, 5, 10);
}
END_TEST

START_TEST(where_a_unit_does_not_fit_the_write_does)
{
	inum_t fill = files_new(&fix, "fill"), ino = make_hinted("file", 4096);
	struct fs_statfs space;

	fs_statfs(fix.fs, &space);
	expect_equal(fs_fallocate(fix.fs, fill, 0, 0, (space.available_blocks - 300) * BLOCK_BYTES), 0);
	files_write(&fix, ino, 1, 0, 3 * BLOCK_BYTES);
	ck_assert_uint_eq(files_record(&fix, ino).count_blocks, 3);
	files_expect(&fix, ino, 1, 0, 3 * BLOCK_BYTES);
}
END_TEST

START_TEST(preallocation_follows_it_and_a_punch_does_not)
{
	inum_t ino = make_hinted("file", 32);

	expect_equal(fs_fallocate(fix.fs, ino, 0, 5 * BLOCK_BYTES, BLOCK_BYTES), 0);
	expect_one_run(ino, 0, 32, 32);
	ck_assert_uint_eq(files_size(&fix, ino), 6 * BLOCK_BYTES);
	expect_equal(fs_fallocate(fix.fs, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * BLOCK_BYTES), 0);
	ck_assert_uint_eq(files_record(&fix, ino).count_blocks, 30);
}
END_TEST

START_TEST(a_directory_hands_it_down)
{
	struct fs_attr attr;
	inum_t dir;

	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "dir", &dir), 0);
	set_hint(dir, 16);
	expect_equal(fs_create(fix.fs, &root, dir, "file", S_IFREG | 0600, 0, &attr), 0);
	files_write(&fix, attr.ino, 1, 0, 1);
	expect_one_run(attr.ino, 0, 16, 16);
	fs_forget(fix.fs, attr.ino, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("hint");
	TCase *tests = tcase_create("hint");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, one_byte_takes_a_unit_and_the_rest_of_it_waits);
	tcase_add_test(tests, files_that_grow_side_by_side_keep_their_units);
	tcase_add_test(tests, any_unit_will_do);
	tcase_add_test(tests, nothing_of_who_was_there_before_can_be_seen);
	tcase_add_test(tests, where_a_unit_does_not_fit_the_write_does);
	tcase_add_test(tests, preallocation_follows_it_and_a_punch_does_not);
	tcase_add_test(tests, a_directory_hands_it_down);
	tcase_set_timeout(tests, 120);
	suite_add_tcase(suite, tests);
	return files_run(suite);
}
