/* Sharing: copy_file_range, clones, copy-on-write. */
#include "tests/support/files.h"

#include <errno.h>
#include <unistd.h>

#include "fs/data.h"

static struct fsfix fix;
static inum_t from, to;

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, 64u << 20), 0);
	from = files_new(&fix, "from");
	to = files_new(&fix, "to");
}

static void teardown(void)
{
	files_check(&fix);
	fsfix_destroy(&fix);
}

static uint64_t free_blocks(void)
{
	struct fs_statfs s;

	fs_statfs(fix.fs, &s);
	return s.free_blocks;
}

static uint64_t copy_range(inum_t a, uint64_t a_pos, inum_t b, uint64_t b_pos, uint64_t length)
{
	uint64_t done = 0;

	expect_equal(fs_copy_range(fix.fs, a, a_pos, b, b_pos, length, &done), 0);
	return done;
}

static bool is_shared(inum_t file, uint64_t pos)
{
	struct files_map map = {.count = 0};

	expect_equal(fs_map(fix.fs, file, pos, 1, files_map_add, &map), 0);
	return map.count && map.extents[0].shared;
}

START_TEST(a_whole_copy_takes_no_space)
{
	const uint64_t size = (10u << 20) + 123;
	uint64_t before;

	files_write(&fix, from, 1, 0, size);
	before = free_blocks();
	expect_equal(copy_range(from, 0, to, 0, UINT64_MAX >> 1), size);
	expect_equal(files_size(&fix, to), size);
	expect(before - free_blocks() < 256);
	expect_equal(files_device_offset(&fix, from, size - 1),
		     files_device_offset(&fix, to, size - 1));
	files_expect(&fix, to, 1, 0, size);
	expect(is_shared(from, 0) && is_shared(to, 0));
}
END_TEST

START_TEST(a_write_to_either_side_leaves_the_other)
{
	files_write(&fix, from, 1, 0, 10 * BLOCK_BYTES + 100);
	copy_range(from, 0, to, 0, 1u << 30);
	files_write(&fix, to, 2, 3 * BLOCK_BYTES + 50, 20);
	files_write(&fix, from, 3, 5 * BLOCK_BYTES, BLOCK_BYTES);
	files_write(&fix, from, 3, 10 * BLOCK_BYTES + 100, 1000);
	files_expect(&fix, from, 1, 0, 5 * BLOCK_BYTES);
	files_expect(&fix, from, 3, 5 * BLOCK_BYTES, BLOCK_BYTES);
	files_expect(&fix, from, 1, 6 * BLOCK_BYTES, 4 * BLOCK_BYTES + 100);
	files_expect(&fix, from, 3, 10 * BLOCK_BYTES + 100, 1000);
	files_expect(&fix, to, 1, 0, 3 * BLOCK_BYTES + 50);
	files_expect(&fix, to, 2, 3 * BLOCK_BYTES + 50, 20);
	files_expect(&fix, to, 1, 3 * BLOCK_BYTES + 70, 7 * BLOCK_BYTES + 30);
	expect(!is_shared(from, 5 * BLOCK_BYTES) && is_shared(from, 0));
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "from"), 0);
	files_expect(&fix, to, 1, 4 * BLOCK_BYTES, 6 * BLOCK_BYTES);
}
END_TEST

START_TEST(a_tail_inside_the_destination_is_copied)
{
	files_write(&fix, from, 1, 0, 2 * BLOCK_BYTES + 100);
	files_write(&fix, to, 2, 0, 5 * BLOCK_BYTES);
	expect_equal(copy_range(from, 0, to, 0, 1u << 20), 2 * BLOCK_BYTES + 100);
	files_expect(&fix, to, 1, 0, 2 * BLOCK_BYTES + 100);
	files_expect(&fix, to, 2, 2 * BLOCK_BYTES + 100, 3 * BLOCK_BYTES - 100);
	expect(is_shared(to, BLOCK_BYTES) && !is_shared(to, 2 * BLOCK_BYTES));
}
END_TEST

START_TEST(unaligned_ranges_are_copied)
{
	uint8_t bytes[1000], want[1000];
	size_t done;

	files_write(&fix, from, 1, 0, 3 * BLOCK_BYTES);
	expect_equal(copy_range(from, 100, to, 7000, 1000), 1000);
	files_expect(&fix, to, 0, 0, 7000);
	expect_equal(fs_read(fix.fs, to, 7000, bytes, 1000, &done), 0);
	files_fill(want, 1, 100, 1000);
	expect(memcmp(bytes, want, 1000) == 0);
}
END_TEST

START_TEST(holes_stay_holes)
{
	files_write(&fix, from, 1, 0, BLOCK_BYTES);
	expect_equal(fs_fallocate(fix.fs, from, 0, 2 * BLOCK_BYTES, BLOCK_BYTES), 0);
	files_write(&fix, from, 1, 10 * BLOCK_BYTES, BLOCK_BYTES);
	files_write(&fix, to, 2, 0, 20 * BLOCK_BYTES);
	copy_range(from, 0, to, 0, 11 * BLOCK_BYTES);
	expect_equal(files_record(&fix, to).count_blocks, 2 + 9);
	files_expect(&fix, to, 0, BLOCK_BYTES, 9 * BLOCK_BYTES);
	files_expect(&fix, to, 2, 11 * BLOCK_BYTES, 9 * BLOCK_BYTES);
}
END_TEST

#define FAR (FS_FILE_MAX / 2 / BLOCK_BYTES * BLOCK_BYTES)

START_TEST(a_range_of_exbibytes_with_two_blocks_in_it_is_one_call)
{
	files_write(&fix, from, 1, 0, BLOCK_BYTES);
	files_write(&fix, from, 1, 1ull << 40, BLOCK_BYTES);
	files_truncate(&fix, from, FS_FILE_MAX);
	files_write(&fix, to, 2, 1ull << 30, 9 * BLOCK_BYTES);
	expect_equal(copy_range(from, 0, to, 0, FS_FILE_MAX), FS_FILE_MAX);
	expect_equal(files_record(&fix, to).count_blocks, 2);
	expect_equal(files_size(&fix, to), FS_FILE_MAX);
	files_expect(&fix, to, 1, 1ull << 40, BLOCK_BYTES);
}
END_TEST

START_TEST(holes_stay_holes_in_an_unaligned_copy_too)
{
	uint64_t done;

	files_write(&fix, from, 1, 0, 100);
	files_write(&fix, from, 1, FAR, 2 * BLOCK_BYTES);
	files_write(&fix, to, 2, 0, 64 * BLOCK_BYTES);
	expect_equal(copy_range(from, 10, to, 5, FAR), FAR);
	expect(files_record(&fix, to).count_blocks <= 4);
	expect_equal(files_size(&fix, to), FAR + 5);
	files_expect(&fix, to, 0, 95, 70 * BLOCK_BYTES);
	expect_equal(fs_copy_range(fix.fs, from, 0, from, 1, 100, &done), -EINVAL);
}
END_TEST

START_TEST(one_file_shares_with_itself)
{
	uint64_t done;

	files_write(&fix, from, 1, 0, 4 * BLOCK_BYTES);
	copy_range(from, 0, from, 4 * BLOCK_BYTES, 4 * BLOCK_BYTES);
	expect_equal(files_size(&fix, from), 8 * BLOCK_BYTES);
	expect(is_shared(from, 0) && is_shared(from, 4 * BLOCK_BYTES));
	expect_equal(fs_copy_range(fix.fs, from, 0, from, BLOCK_BYTES, 2 * BLOCK_BYTES, &done),
		     -EINVAL);
	files_write(&fix, from, 2, 0, BLOCK_BYTES);
	files_truncate(&fix, from, 7 * BLOCK_BYTES);
	files_expect(&fix, from, 2, 0, BLOCK_BYTES);
	files_expect(&fix, from, 1, BLOCK_BYTES, 3 * BLOCK_BYTES);
}
END_TEST

START_TEST(a_copy_past_the_end_zeros_the_gap)
{
	files_write(&fix, to, 2, 0, BLOCK_BYTES);
	files_truncate(&fix, to, 100);
	files_write(&fix, from, 1, 0, 2 * BLOCK_BYTES);
	copy_range(from, 0, to, 2 * BLOCK_BYTES, BLOCK_BYTES);
	files_expect(&fix, to, 2, 0, 100);
	files_expect(&fix, to, 0, 100, 2 * BLOCK_BYTES - 100);
}
END_TEST

START_TEST(clone_replaces_all_of_the_destination)
{
	files_write(&fix, from, 1, 0, 3 * BLOCK_BYTES + 10);
	files_write(&fix, to, 2, 0, 50 * BLOCK_BYTES);
	expect_equal(fs_clone(fix.fs, from, to), 0);
	expect_equal(files_size(&fix, to), 3 * BLOCK_BYTES + 10);
	expect_equal(files_record(&fix, to).count_blocks, 4);
	files_expect(&fix, to, 1, 0, 3 * BLOCK_BYTES + 10);
	expect_equal(fs_clone(fix.fs, from, to), 0);
	expect_equal(fs_clone(fix.fs, to, from), 0);
	files_expect(&fix, from, 1, 0, 3 * BLOCK_BYTES + 10);
	expect_equal(fs_clone(fix.fs, from, from), -EINVAL);
	expect_equal(fs_clone(fix.fs, from, FS_ROOT_INO), -EISDIR);
}
END_TEST

START_TEST(the_last_sharer_writes_in_place_again)
{
	devoff_t before;

	files_write(&fix, from, 1, 0, 4 * BLOCK_BYTES);
	expect_equal(fs_clone(fix.fs, from, to), 0);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "to"), 0);
	for (unsigned i = 0; i < 100 && is_shared(from, 0); i++)
		usleep(50000);
	expect_equal(fs_syncfs(fix.fs), 0);
	before = files_device_offset(&fix, from, 0);
	files_write(&fix, from, 2, 0, 100);
	expect_equal(files_device_offset(&fix, from, 0), before);
}
END_TEST

/* A crash of the host before the sync would bring the clone back, with what was written here in it. */
START_TEST(the_last_sharer_of_a_plain_file_waits_for_the_sync)
{
	devoff_t before;

	files_write(&fix, from, 1, 0, 4 * BLOCK_BYTES);
	expect_equal(fs_clone(fix.fs, from, to), 0);
	files_truncate(&fix, to, 0);
	before = files_device_offset(&fix, from, 0);
	files_write(&fix, from, 2, 0, 100);
	expect(files_device_offset(&fix, from, 0) != before);
}
END_TEST

START_TEST(poison_is_inherited_by_sharing_and_stops_a_bounce)
{
	uint64_t done;
	size_t got;

	files_write(&fix, from, 1, 0, 8 * BLOCK_BYTES);
	files_poison(&fix, from, 4 * BLOCK_BYTES, 64, false);
	expect_equal(copy_range(from, 0, to, 0, 8 * BLOCK_BYTES), 8 * BLOCK_BYTES);
	expect_equal(files_read_error(&fix, to, 4 * BLOCK_BYTES, 10, &got), -EIO);
	expect_equal(copy_range(from, 1, to, 9 * BLOCK_BYTES, 8 * BLOCK_BYTES),
		     4 * BLOCK_BYTES - 1);
	expect_equal(fs_copy_range(fix.fs, from, 4 * BLOCK_BYTES + 1, to, 0, 100, &done), -EIO);
}
END_TEST

START_TEST(a_full_filesystem_still_clones)
{
	uint8_t *buffer = calloc(1, 1u << 20);
	uint64_t pos = 0;
	size_t done;

	while (!fs_write(fix.fs, from, pos, buffer, 1u << 20, &done))
		pos += done;
	free(buffer);
	expect_equal(fs_clone(fix.fs, from, to), 0);
	expect_equal(files_size(&fix, to), files_size(&fix, from));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("reflink");
	TCase *tests = tcase_create("reflink");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, a_whole_copy_takes_no_space);
	tcase_add_test(tests, a_write_to_either_side_leaves_the_other);
	tcase_add_test(tests, a_tail_inside_the_destination_is_copied);
	tcase_add_test(tests, unaligned_ranges_are_copied);
	tcase_add_test(tests, holes_stay_holes);
	tcase_add_test(tests, a_range_of_exbibytes_with_two_blocks_in_it_is_one_call);
	tcase_add_test(tests, holes_stay_holes_in_an_unaligned_copy_too);
	tcase_add_test(tests, one_file_shares_with_itself);
	tcase_add_test(tests, a_copy_past_the_end_zeros_the_gap);
	tcase_add_test(tests, clone_replaces_all_of_the_destination);
	tcase_add_test(tests, the_last_sharer_writes_in_place_again);
	tcase_add_test(tests, the_last_sharer_of_a_plain_file_waits_for_the_sync);
	tcase_add_test(tests, poison_is_inherited_by_sharing_and_stops_a_bounce);
	tcase_add_test(tests, a_full_filesystem_still_clones);
	suite_add_tcase(suite, tests);
	return files_run(suite);
}
