/* Reading and writing one file: holes, ends, space, poison. */
#include "tests/support/files.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static struct fsfix fix;
static inum_t ino;

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, 64u << 20), 0);
	ino = files_new(&fix, "file");
}

static void teardown(void)
{
	files_check(&fix);
	fsfix_destroy(&fix);
}

START_TEST(what_was_written_is_read)
{
	files_write(&fix, ino, 1, 0, 100000);
	files_expect(&fix, ino, 1, 0, 100000);
	files_expect(&fix, ino, 1, 4095, 2);
	files_expect(&fix, ino, 1, 99999, 1);
}
END_TEST

START_TEST(a_read_ends_at_the_end_of_file)
{
	uint8_t bytes[100];
	size_t done;

	files_write(&fix, ino, 1, 0, 50);
	expect_equal(fs_read(fix.fs, ino, 20, bytes, sizeof(bytes), &done), 0);
	expect_equal(done, 30);
	expect_equal(fs_read(fix.fs, ino, 50, bytes, sizeof(bytes), &done), 0);
	expect_equal(done, 0);
	expect_equal(fs_read(fix.fs, ino, UINT64_MAX, bytes, sizeof(bytes), &done), 0);
	expect_equal(done, 0);
}
END_TEST

START_TEST(a_hole_reads_as_zeros)
{
	files_write(&fix, ino, 1, 1000000, 10);
	files_expect(&fix, ino, 0, 0, 1000000);
	files_expect(&fix, ino, 1, 1000000, 10);
	expect_equal(files_record(&fix, ino).count_blocks, 1);
}
END_TEST

START_TEST(positions_reach_to_the_largest_file)
{
	uint8_t byte = 7;
	size_t done;

	expect_equal(fs_write(fix.fs, ino, FS_FILE_MAX - 1, &byte, 1, &done), 0);
	expect_equal(files_size(&fix, ino), FS_FILE_MAX);
	byte = 0;
	expect_equal(fs_read(fix.fs, ino, FS_FILE_MAX - 1, &byte, 1, &done), 0);
	expect_equal(byte, 7);
	expect_equal(fs_write(fix.fs, ino, FS_FILE_MAX, &byte, 1, &done), -EFBIG);
	expect_equal(fs_write(fix.fs, ino, UINT64_MAX, &byte, 1, &done), -EFBIG);
}
END_TEST

/* What lies past the end on the medium is never seen, however the size is raised. */
START_TEST(bytes_past_the_old_end_are_zeros_when_the_size_is_raised)
{
	files_write(&fix, ino, 1, 0, 2 * BLOCK_BYTES);
	files_truncate(&fix, ino, 100);
	files_truncate(&fix, ino, BLOCK_BYTES);
	files_expect(&fix, ino, 1, 0, 100);
	files_expect(&fix, ino, 0, 100, BLOCK_BYTES - 100);
	files_write(&fix, ino, 1, 0, BLOCK_BYTES);
	files_truncate(&fix, ino, 200);
	files_write(&fix, ino, 1, 3000, 10);
	files_expect(&fix, ino, 0, 200, 2800);
	files_write(&fix, ino, 1, 0, BLOCK_BYTES);
	files_truncate(&fix, ino, 300);
	files_write(&fix, ino, 1, 3 * BLOCK_BYTES, 10);
	files_expect(&fix, ino, 0, 300, 3 * BLOCK_BYTES - 300);
	files_write(&fix, ino, 1, 0, BLOCK_BYTES);
	files_truncate(&fix, ino, 400);
	expect_equal(fs_fallocate(fix.fs, ino, 0, 0, 2 * BLOCK_BYTES), 0);
	files_expect(&fix, ino, 1, 0, 400);
	files_expect(&fix, ino, 0, 400, 2 * BLOCK_BYTES - 400);
}
END_TEST

START_TEST(raising_the_size_does_not_touch_a_sharers_bytes)
{
	inum_t other = files_new(&fix, "other");

	files_write(&fix, ino, 1, 0, BLOCK_BYTES);
	expect_equal(fs_clone(fix.fs, ino, other), 0);
	files_truncate(&fix, other, 1000);
	files_truncate(&fix, other, BLOCK_BYTES);
	files_expect(&fix, other, 0, 1000, BLOCK_BYTES - 1000);
	files_expect(&fix, ino, 1, 0, BLOCK_BYTES);
}
END_TEST

START_TEST(an_overwrite_stays_in_place)
{
	devoff_t before;

	files_write(&fix, ino, 1, 0, 10 * BLOCK_BYTES);
	before = files_device_offset(&fix, ino, 5 * BLOCK_BYTES);
	files_write(&fix, ino, 2, 5 * BLOCK_BYTES - 10, BLOCK_BYTES);
	expect_equal(files_device_offset(&fix, ino, 5 * BLOCK_BYTES), before);
	files_expect(&fix, ino, 2, 5 * BLOCK_BYTES - 10, BLOCK_BYTES);
	files_expect(&fix, ino, 1, 0, 5 * BLOCK_BYTES - 10);
	files_expect(&fix, ino, 1, 6 * BLOCK_BYTES - 10, 4 * BLOCK_BYTES + 10);
}
END_TEST

START_TEST(an_overwrite_changes_the_times)
{
	struct inode_record before, after;

	files_write(&fix, ino, 1, 0, BLOCK_BYTES);
	before = files_record(&fix, ino);
	files_write(&fix, ino, 2, 0, BLOCK_BYTES);
	after = files_record(&fix, ino);
	expect(after.change > before.change);
	expect(after.mtime.sec > before.mtime.sec || after.mtime.nsec != before.mtime.nsec);
	expect_equal(fs_fsync(fix.fs, ino), 0);
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(files_record(&fix, ino).mtime.nsec, after.mtime.nsec);
}
END_TEST

START_TEST(seek_finds_data_and_holes)
{
	uint64_t at;

	files_write(&fix, ino, 1, 4 * BLOCK_BYTES, 2 * BLOCK_BYTES);
	expect_equal(fs_fallocate(fix.fs, ino, 0, 6 * BLOCK_BYTES, 2 * BLOCK_BYTES), 0);
	files_write(&fix, ino, 1, 8 * BLOCK_BYTES, 100);
	expect_equal(fs_seek(fix.fs, ino, 0, SEEK_DATA, &at), 0);
	expect_equal(at, 4 * BLOCK_BYTES);
	expect_equal(fs_seek(fix.fs, ino, 0, SEEK_HOLE, &at), 0);
	expect_equal(at, 0);
	expect_equal(fs_seek(fix.fs, ino, 5 * BLOCK_BYTES + 1, SEEK_DATA, &at), 0);
	expect_equal(at, 5 * BLOCK_BYTES + 1);
	expect_equal(fs_seek(fix.fs, ino, 5 * BLOCK_BYTES + 1, SEEK_HOLE, &at), 0);
	expect_equal(at, 6 * BLOCK_BYTES);
	expect_equal(fs_seek(fix.fs, ino, 6 * BLOCK_BYTES, SEEK_DATA, &at), 0);
	expect_equal(at, 8 * BLOCK_BYTES);
	expect_equal(fs_seek(fix.fs, ino, 8 * BLOCK_BYTES, SEEK_HOLE, &at), 0);
	expect_equal(at, 8 * BLOCK_BYTES + 100);
	expect_equal(fs_seek(fix.fs, ino, 8 * BLOCK_BYTES + 100, SEEK_DATA, &at), -ENXIO);
	files_truncate(&fix, ino, 12 * BLOCK_BYTES);
	expect_equal(fs_seek(fix.fs, ino, 9 * BLOCK_BYTES, SEEK_DATA, &at), -ENXIO);
}
END_TEST

START_TEST(seek_crosses_many_extents)
{
	uint64_t at;

	for (unsigned i = 0; i < 100; i++)
		files_write(&fix, ino, 1, (1000 + 2ull * i) * BLOCK_BYTES, BLOCK_BYTES);
	expect_equal(fs_seek(fix.fs, ino, 0, SEEK_DATA, &at), 0);
	expect_equal(at, 1000 * BLOCK_BYTES);
	expect_equal(fs_seek(fix.fs, ino, 1100 * BLOCK_BYTES, SEEK_HOLE, &at), 0);
	expect_equal(at, 1101 * BLOCK_BYTES);
	files_write(&fix, ino, 1, 1000 * BLOCK_BYTES, 200 * BLOCK_BYTES);
	expect_equal(fs_seek(fix.fs, ino, 1000 * BLOCK_BYTES, SEEK_HOLE, &at), 0);
	expect_equal(at, files_size(&fix, ino));
}
END_TEST

/* --- space ---------------------------------------------------------------------------------- */

static uint64_t free_blocks(void)
{
	struct fs_statfs s;

	fs_statfs(fix.fs, &s);
	return s.free_blocks;
}

START_TEST(a_full_filesystem_keeps_a_prefix_and_frees_again)
{
	const size_t piece = 1u << 20;
	uint8_t *buffer = malloc(piece);
	uint64_t pos = 0, before = free_blocks(), full;
	size_t done;
	int error = 0;

	while (!error && pos < 128u << 20) {
		files_fill(buffer, 3, pos, piece);
		error = fs_write(fix.fs, ino, pos, buffer, piece, &done);
		pos += done;
	}
	free(buffer);
	expect_equal(error, -ENOSPC);
	expect_equal(files_size(&fix, ino), pos);
	files_check(&fix);
	files_expect(&fix, ino, 3, 0, pos);
	full = free_blocks();
	expect(full < before / 8);
	/* Overwriting needs no space, deleting works, and what was freed can be used at once. */
	files_write(&fix, ino, 4, 0, 100000);
	files_truncate(&fix, ino, pos / 2);
	files_write(&fix, ino, 3, pos / 2, pos / 4);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "file"), 0);
	expect_equal(fsfix_remount(&fix), 0);
	expect(free_blocks() + 1100 > before);
}
END_TEST

START_TEST(fallocate_beyond_the_space_changes_nothing)
{
	uint64_t before = free_blocks();

	expect_equal(fs_fallocate(fix.fs, ino, 0, 0, 1u << 30), -ENOSPC);
	expect_equal(free_blocks(), before);
	expect_equal(files_size(&fix, ino), 0);
}
END_TEST

/* --- poison --------------------------------------------------------------------------------- */

static void expect_bad_block(inum_t file, uint64_t block, uint64_t size)
{
	size_t done, whole = (size_t)min_u64(size - block * BLOCK_BYTES, BLOCK_BYTES);

	expect_equal(files_read_error(&fix, file, block * BLOCK_BYTES, whole, &done), -EIO);
	expect_equal(done, 0);
	expect_equal(files_read_error(&fix, file, block * BLOCK_BYTES + whole - 1, 1, &done), -EIO);
	expect_equal(files_read_error(&fix, file, 0, (size_t)size, &done), -EIO);
	expect_equal(done, block * BLOCK_BYTES);
	files_expect(&fix, file, 1, 0, block * BLOCK_BYTES);
	if (size > (block + 1) * BLOCK_BYTES)
		files_expect(&fix, file, 1, (block + 1) * BLOCK_BYTES,
			     size - (block + 1) * BLOCK_BYTES);
}

START_TEST(poison_fails_exactly_its_block_in_every_clone)
{
	const uint64_t size = 20 * BLOCK_BYTES + 1000, blocks[] = {0, 7, 20};
	inum_t clones[3];

	for (unsigned i = 0; i < 3; i++) {
		if (i)
			setup();
		clones[0] = ino;
		files_write(&fix, ino, 1, 0, size);
		clones[1] = files_new(&fix, "one");
		clones[2] = files_new(&fix, "two");
		expect_equal(fs_clone(fix.fs, ino, clones[1]), 0);
		expect_equal(fs_clone(fix.fs, clones[1], clones[2]), 0);
		files_poison(&fix, clones[1], blocks[i] * BLOCK_BYTES + 513, 1, i == 1);
		for (unsigned k = 0; k < 3; k++)
			expect_bad_block(clones[k], blocks[i], size);
		expect_equal(fsfix_remount(&fix), 0);
		for (unsigned k = 0; k < 3; k++)
			expect_bad_block(clones[k], blocks[i], size);
		if (i < 2)
			teardown();
	}
}
END_TEST

START_TEST(a_partial_overwrite_of_a_bad_block_is_refused)
{
	uint8_t bytes[BLOCK_BYTES] = {0};
	size_t done;

	files_write(&fix, ino, 1, 0, 10 * BLOCK_BYTES);
	files_poison(&fix, ino, 3 * BLOCK_BYTES, 64, false);
	expect_equal(fs_write(fix.fs, ino, 3 * BLOCK_BYTES + 2000, bytes, 100, &done), -EIO);
	expect_equal(done, 0);
	expect_equal(fs_write(fix.fs, ino, 3 * BLOCK_BYTES - 100, bytes, 200, &done), -EIO);
	expect_equal(done, 100);
}
END_TEST

static void expect_damages(size_t count)
{
	struct files_damage all;

	files_damaged(&fix, &all);
	expect_equal(all.count, count);
}

static void heals(bool latent, bool shared)
{
	inum_t other = 0;
	size_t done;

	files_write(&fix, ino, 1, 0, 10 * BLOCK_BYTES);
	if (shared) {
		other = files_new(&fix, "other");
		expect_equal(fs_clone(fix.fs, ino, other), 0);
	}
	files_poison(&fix, ino, 3 * BLOCK_BYTES + 700, 64, latent);
	files_write(&fix, ino, 2, 3 * BLOCK_BYTES, BLOCK_BYTES);
	expect_equal(fs_notify_wait(fix.fs, 5000), 0);
	files_expect(&fix, ino, 2, 3 * BLOCK_BYTES, BLOCK_BYTES);
	files_expect(&fix, ino, 1, 4 * BLOCK_BYTES, 6 * BLOCK_BYTES);
	if (shared) {
		/*
		 * Latent: our write went to a fresh block without touching the old one, which
		 * nobody knows to be bad yet.
		 */
		expect_equal(files_read_error(&fix, other, 3 * BLOCK_BYTES, BLOCK_BYTES, &done),
			     -EIO);
		expect_equal(fs_notify_wait(fix.fs, 5000), 0);
	}
	expect_damages(shared ? 1 : 0);
	expect_equal(fsfix_remount(&fix), 0);
	files_expect(&fix, ino, 2, 3 * BLOCK_BYTES, BLOCK_BYTES);
	expect_damages(shared ? 1 : 0);
}

START_TEST(a_whole_overwrite_heals_a_bad_block)
{
	heals(false, false);
}
END_TEST

START_TEST(a_whole_overwrite_heals_poison_that_nobody_knew)
{
	heals(true, false);
}
END_TEST

START_TEST(a_whole_overwrite_of_a_shared_bad_block_heals_one_side)
{
	heals(false, true);
}
END_TEST

START_TEST(a_whole_overwrite_of_shared_latent_poison_leaves_the_other_side_bad)
{
	heals(true, true);
}
END_TEST

START_TEST(a_long_write_over_bad_blocks_heals_them_all)
{
	files_write(&fix, ino, 1, 0, 100 * BLOCK_BYTES);
	for (unsigned i = 0; i < 10; i++)
		files_poison(&fix, ino, (5 + 9 * i) * BLOCK_BYTES + 100 * i, 64, i % 2);
	files_write(&fix, ino, 2, 0, 100 * BLOCK_BYTES);
	expect_equal(fs_notify_wait(fix.fs, 5000), 0);
	files_expect(&fix, ino, 2, 0, 100 * BLOCK_BYTES);
	expect_damages(0);
}
END_TEST

START_TEST(the_last_block_heals_when_all_of_the_file_in_it_is_written)
{
	files_write(&fix, ino, 1, 0, 2 * BLOCK_BYTES + 1000);
	files_poison(&fix, ino, 2 * BLOCK_BYTES, 64, false);
	files_write(&fix, ino, 2, 2 * BLOCK_BYTES, 1000);
	files_expect(&fix, ino, 2, 2 * BLOCK_BYTES, 1000);
	expect_damages(0);
}
END_TEST

START_TEST(healing_is_told)
{
	struct event_subscriber *subscriber;
	struct event *event;
	bool told = false;

	files_write(&fix, ino, 1, 0, 4 * BLOCK_BYTES);
	expect_equal(event_subscribe(fs_events(fix.fs), 100, &subscriber), 0);
	files_poison(&fix, ino, BLOCK_BYTES, 64, false);
	files_write(&fix, ino, 2, BLOCK_BYTES, BLOCK_BYTES);
	while ((event = event_take(subscriber))) {
		if (event->type == EVENT_REPAIRED) {
			told = true;
			expect_equal(event->inumber, ino);
			expect_equal(event->pos, BLOCK_BYTES);
			expect_equal(event->len, BLOCK_BYTES);
		}
		event_free(event);
	}
	event_unsubscribe(subscriber);
	expect(told);
}
END_TEST

START_TEST(fresh_blocks_that_are_bad_are_passed_over)
{
	uint64_t last;

	files_write(&fix, ino, 1, 0, BLOCK_BYTES);
	last = files_device_offset(&fix, ino, 0);
	for (unsigned i = 1; i < 8; i++)
		expect_equal(fs_inject(fix.fs, last + 2 * i * BLOCK_BYTES + 600, 64, true), 0);
	files_write(&fix, ino, 1, BLOCK_BYTES, 40 * BLOCK_BYTES);
	files_expect(&fix, ino, 1, 0, 41 * BLOCK_BYTES);
	expect_equal(fs_notify_wait(fix.fs, 5000), 0);
	expect_damages(0);
}
END_TEST

START_TEST(damage_leaves_the_list_by_overwrite_truncate_punch_and_unlink)
{
	inum_t other = files_new(&fix, "other");

	files_write(&fix, ino, 1, 0, 20 * BLOCK_BYTES);
	files_write(&fix, other, 1, 0, 4 * BLOCK_BYTES);
	for (unsigned i = 0; i < 4; i++)
		files_poison(&fix, ino, (2 + 4 * i) * BLOCK_BYTES, 64, false);
	files_poison(&fix, other, BLOCK_BYTES, 64, false);
	expect_damages(5);
	expect_equal(fsfix_remount(&fix), 0);
	expect_damages(5);
	files_write(&fix, ino, 2, 2 * BLOCK_BYTES, BLOCK_BYTES);
	expect_damages(4);
	expect_equal(fs_fallocate(fix.fs, ino, PUNCH, 6 * BLOCK_BYTES, BLOCK_BYTES), 0);
	expect_damages(3);
	files_truncate(&fix, ino, 14 * BLOCK_BYTES);
	expect_damages(2);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "file"), 0);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "other"), 0);
	expect_equal(fsfix_remount(&fix), 0);
	expect_damages(0);
}
END_TEST

static void add_poison_tests(TCase *tests)
{
	tcase_add_test(tests, poison_fails_exactly_its_block_in_every_clone);
	tcase_add_test(tests, a_partial_overwrite_of_a_bad_block_is_refused);
	tcase_add_test(tests, a_whole_overwrite_heals_a_bad_block);
	tcase_add_test(tests, a_whole_overwrite_heals_poison_that_nobody_knew);
	tcase_add_test(tests, a_whole_overwrite_of_a_shared_bad_block_heals_one_side);
	tcase_add_test(tests, a_whole_overwrite_of_shared_latent_poison_leaves_the_other_side_bad);
	tcase_add_test(tests, a_long_write_over_bad_blocks_heals_them_all);
	tcase_add_test(tests, the_last_block_heals_when_all_of_the_file_in_it_is_written);
	tcase_add_test(tests, healing_is_told);
	tcase_add_test(tests, fresh_blocks_that_are_bad_are_passed_over);
	tcase_add_test(tests, damage_leaves_the_list_by_overwrite_truncate_punch_and_unlink);
}

int main(void)
{
	Suite *suite = suite_create("file");
	TCase *tests = tcase_create("file");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, what_was_written_is_read);
	tcase_add_test(tests, a_read_ends_at_the_end_of_file);
	tcase_add_test(tests, a_hole_reads_as_zeros);
	tcase_add_test(tests, positions_reach_to_the_largest_file);
	tcase_add_test(tests, bytes_past_the_old_end_are_zeros_when_the_size_is_raised);
	tcase_add_test(tests, raising_the_size_does_not_touch_a_sharers_bytes);
	tcase_add_test(tests, an_overwrite_stays_in_place);
	tcase_add_test(tests, an_overwrite_changes_the_times);
	tcase_add_test(tests, seek_finds_data_and_holes);
	tcase_add_test(tests, seek_crosses_many_extents);
	tcase_add_test(tests, a_full_filesystem_keeps_a_prefix_and_frees_again);
	tcase_add_test(tests, fallocate_beyond_the_space_changes_nothing);
	add_poison_tests(tests);
	suite_add_tcase(suite, tests);
	return files_run(suite);
}
