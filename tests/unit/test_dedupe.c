/* Deduplication: what is the same becomes shared, what is not stays as it is. */
#include "tests/support/files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "fs/data.h"
#include "tests/support/random.h"

static struct fsfix fix;
static inum_t from, to;

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, 128u << 20), 0);
	from = files_new(&fix, "from");
	to = files_new(&fix, "to");
}

static void teardown(void)
{
	files_check(&fix);
	fsfix_destroy(&fix);
}

static int try_range(inum_t a, uint64_t a_pos, inum_t b, uint64_t b_pos, uint64_t length, struct fs_dedupe *out)
{
	*out = (struct fs_dedupe){.from = a, .to = b, .from_pos = a_pos, .to_pos = b_pos, .length = length};
	return fs_dedupe(fix.fs, out);
}

static int try(uint64_t from_pos, uint64_t to_pos, uint64_t length)
{
	struct fs_dedupe dedupe;

	return try_range(from, from_pos, to, to_pos, length, &dedupe);
}

/* The same bytes on both sides: how many of them are newly shared? */
static uint64_t dedupe(uint64_t from_pos, uint64_t to_pos, uint64_t length)
{
	struct fs_dedupe dedupe;

	expect_equal(try_range(from, from_pos, to, to_pos, length, &dedupe), 0);
	expect(!dedupe.differs);
	expect_equal(dedupe.done, length);
	return dedupe.gained;
}

static void expect_differs(uint64_t length)
{
	struct fs_dedupe dedupe;

	expect_equal(try_range(from, 0, to, 0, length, &dedupe), 0);
	expect(dedupe.differs && !dedupe.done && !dedupe.gained);
}

static bool is_shared(inum_t file, uint64_t pos)
{
	struct files_map map = {.count = 0};

	expect_equal(fs_map(fix.fs, file, pos, 1, files_map_add, &map), 0);
	return map.count && map.extents[0].shared;
}

static uint64_t free_blocks(void)
{
	struct fs_statfs s;

	expect_equal(fs_syncfs(fix.fs), 0);
	fs_statfs(fix.fs, &s);
	return s.free_blocks;
}

static void write_both(uint64_t pos, size_t size)
{
	files_write(&fix, from, 1, pos, size);
	files_write(&fix, to, 1, pos, size);
}

static void zeros(inum_t file, uint64_t pos, size_t size)
{
	void *buffer = calloc(1, size);
	size_t done;

	expect_equal(fs_write(fix.fs, file, pos, buffer, size, &done), 0);
	free(buffer);
}

static uint64_t reads(void)
{
	struct media_counts counts;

	media_counts(fs_media(fix.fs), &counts);
	return counts.read_bytes;
}

START_TEST(equal_files_become_one_and_space_comes_back)
{
	const uint64_t size = (10u << 20) + 123;
	uint64_t before;

	write_both(0, size);
	before = free_blocks();
	expect_equal(dedupe(0, 0, size), round_up_u64(size, BLOCK_BYTES));
	expect(free_blocks() >= before + (size >> BLOCK_SHIFT) - 64);
	expect_equal(files_device_offset(&fix, from, size - 1), files_device_offset(&fix, to, size - 1));
	files_expect(&fix, to, 1, 0, size);
	files_write(&fix, to, 2, 100, 5000);
	files_expect(&fix, from, 1, 0, size);
	files_expect(&fix, to, 2, 100, 5000);
}
END_TEST

START_TEST(a_difference_anywhere_leaves_all_of_it)
{
	write_both(0, 12u << 20);
	files_write(&fix, to, 2, (12u << 20) - 1, 1);
	expect_differs(12u << 20);
	expect(!is_shared(to, 0));
	expect_equal(dedupe(0, 0, 11u << 20), 11u << 20);
	files_expect(&fix, to, 2, (12u << 20) - 1, 1);
}
END_TEST

START_TEST(a_difference_within_a_slice_leaves_all_of_it)
{
	for (unsigned i = 0; i < 256; i += 2)
		write_both(i * BLOCK_BYTES, BLOCK_BYTES);
	files_write(&fix, to, 2, 254 * BLOCK_BYTES, 1);
	expect_differs(255 * BLOCK_BYTES);
	expect(!is_shared(to, 0));
	expect_equal(dedupe(0, 0, 254 * BLOCK_BYTES), 127 * BLOCK_BYTES);
}
END_TEST

START_TEST(what_is_shared_already_is_not_read)
{
	uint64_t before;

	write_both(0, 8u << 20);
	expect_equal(dedupe(0, 0, 8u << 20), 8u << 20);
	before = reads();
	expect_equal(dedupe(0, 0, 8u << 20), 0);
	expect(reads() - before < 1u << 20);
}
END_TEST

START_TEST(neither_size_nor_times_nor_privileges_change)
{
	struct inode_record values = {.mode = 06755}, before, after;
	struct fs_attr attr;

	write_both(0, 3 * BLOCK_BYTES);
	expect_equal(fs_setattr(fix.fs, to, FS_SET_MODE, &values, &attr), 0);
	before = files_record(&fix, to);
	usleep(2000);
	expect_equal(dedupe(0, 0, 3 * BLOCK_BYTES), 3 * BLOCK_BYTES);
	after = files_record(&fix, to);
	expect_equal(after.mode, before.mode);
	expect_equal(after.mtime.nsec, before.mtime.nsec);
	expect_equal(after.ctime.nsec, before.ctime.nsec);
	expect_equal(after.size_bytes, before.size_bytes);
}
END_TEST

START_TEST(a_last_piece_of_a_block_needs_the_end_of_both)
{
	struct fs_dedupe d;

	write_both(0, 2 * BLOCK_BYTES + 100);
	expect_equal(try_range(from, 0, to, 0, BLOCK_BYTES + 50, &d), 0);
	expect_equal(d.done, BLOCK_BYTES);
	expect_equal(dedupe(0, 0, 2 * BLOCK_BYTES + 100), 2 * BLOCK_BYTES);
	files_write(&fix, to, 1, 2 * BLOCK_BYTES + 100, 1);
	files_write(&fix, to, 1, 2 * BLOCK_BYTES, 100);
	expect_equal(try_range(from, 2 * BLOCK_BYTES, to, 2 * BLOCK_BYTES, 100, &d), 0);
	expect(d.done == 0 && !d.differs);
	files_expect(&fix, to, 1, 0, 2 * BLOCK_BYTES + 101);
}
END_TEST

START_TEST(what_may_be_asked_for)
{
	struct fs_dedupe d;

	write_both(0, 4 * BLOCK_BYTES);
	expect_equal(try(1, 0, BLOCK_BYTES), -EINVAL);
	expect_equal(try(0, 100, BLOCK_BYTES), -EINVAL);
	expect_equal(try(0, 0, 4 * BLOCK_BYTES + 1), -EINVAL);
	expect_equal(try(4 * BLOCK_BYTES, 0, BLOCK_BYTES), -EINVAL);
	expect_equal(try(UINT64_MAX & ~4095ull, 0, BLOCK_BYTES), -EINVAL);
	expect_equal(try(0, UINT64_MAX & ~4095ull, UINT64_MAX), -EINVAL);
	expect_equal(try_range(from, 0, from, BLOCK_BYTES, 2 * BLOCK_BYTES, &d), -EINVAL);
	expect_equal(try_range(from, 0, FS_ROOT_INO, 0, BLOCK_BYTES, &d), -EISDIR);
	expect_equal(try_range(from, 0, 99999, 0, BLOCK_BYTES, &d), -ENOENT);
	expect_equal(dedupe(0, 0, 0), 0);
	expect(!is_shared(to, 0));
}
END_TEST

static void set_flags(inum_t ino, uint64_t flags)
{
	const struct fs_who root = {.uid = 0};
	const struct inode_record values = {.flags = flags};

	expect_equal(fs_set_flags(fix.fs, &root, ino, FS_SET_FLAGS, &values), 0);
}

START_TEST(immutable_files_are_left_alone_others_may_be_read_only_in_any_way)
{
	write_both(0, 4 * BLOCK_BYTES);
	set_flags(to, INODE_IMMUTABLE);
	expect_equal(try(0, 0, BLOCK_BYTES), -EPERM);
	set_flags(to, INODE_APPEND);
	set_flags(from, INODE_IMMUTABLE);
	expect_equal(dedupe(0, 0, 4 * BLOCK_BYTES), 4 * BLOCK_BYTES);
	set_flags(to, 0);
	set_flags(from, 0);
	fix.options.readonly = true;
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(try(0, 0, BLOCK_BYTES), -EROFS);
}
END_TEST

START_TEST(holes_and_unwritten_blocks_are_zeros)
{
	files_write(&fix, from, 1, 0, BLOCK_BYTES);
	files_truncate(&fix, from, 1u << 20);
	expect_equal(fs_fallocate(fix.fs, from, 0, 100 * BLOCK_BYTES, 10 * BLOCK_BYTES), 0);
	files_write(&fix, to, 1, 0, BLOCK_BYTES);
	zeros(to, BLOCK_BYTES, (1u << 20) - BLOCK_BYTES);
	expect_equal(dedupe(0, 0, 1u << 20), 1u << 20);
	expect_equal(files_record(&fix, to).count_blocks, 1);
	files_expect(&fix, to, 0, BLOCK_BYTES, (1u << 20) - BLOCK_BYTES);
	expect_equal(files_record(&fix, from).count_blocks, 11);
}
END_TEST

START_TEST(where_the_destination_has_no_data_it_stays_so)
{
	zeros(from, 0, 20 * BLOCK_BYTES);
	expect_equal(fs_fallocate(fix.fs, to, 0, 0, 10 * BLOCK_BYTES), 0);
	files_truncate(&fix, to, 20 * BLOCK_BYTES);
	expect_equal(dedupe(0, 0, 20 * BLOCK_BYTES), 0);
	expect_equal(files_record(&fix, to).count_blocks, 10);
}
END_TEST

START_TEST(exbibytes_of_holes_are_one_call)
{
	const uint64_t size = FS_FILE_MAX / BLOCK_BYTES * BLOCK_BYTES;

	write_both(0, 2 * BLOCK_BYTES);
	write_both(1ull << 50, 2 * BLOCK_BYTES);
	files_truncate(&fix, from, size);
	files_truncate(&fix, to, size);
	expect_equal(dedupe(0, 0, size), 4 * BLOCK_BYTES);
}
END_TEST

START_TEST(one_file_shares_with_itself)
{
	struct fs_dedupe d;

	files_write(&fix, from, 1, 0, BLOCK_BYTES);
	for (unsigned i = 1; i < 8; i++) {
		uint8_t bytes[BLOCK_BYTES];
		size_t done;

		files_fill(bytes, 1, 0, BLOCK_BYTES);
		expect_equal(fs_write(fix.fs, from, i * BLOCK_BYTES, bytes, BLOCK_BYTES, &done), 0);
		expect_equal(try_range(from, 0, from, i * BLOCK_BYTES, BLOCK_BYTES, &d), 0);
		expect_equal(d.gained, BLOCK_BYTES);
	}
	expect_equal(files_device_offset(&fix, from, 0), files_device_offset(&fix, from, 7 * BLOCK_BYTES));
	expect_equal(files_record(&fix, from).count_blocks, 8);
}
END_TEST

/* 16 MiB of data, and what is left is asked for again. */
START_TEST(a_long_range_goes_in_several_calls)
{
	const uint64_t size = 24u << 20;
	struct fs_dedupe d;

	write_both(0, size);
	expect_equal(try_range(from, 0, to, 0, size, &d), 0);
	expect_equal(d.done, FS_DEDUPE_BYTES);
	expect_equal(dedupe(d.done, d.done, size - d.done), size - d.done);
}
END_TEST

/* --- failing memory ------------------------------------------------------------------------------------------------------ */

static void expect_poisoned(inum_t which, bool latent)
{
	write_both(0, 4u << 20);
	files_poison(&fix, which, (3u << 20) + 50, 1, latent);
	expect_equal(try(0, 0, 4u << 20), -EIO);
	expect(!is_shared(from, 0) && !is_shared(to, 0) && !is_shared(to, 3u << 20));
	expect_equal(try(3u << 20, 3u << 20, BLOCK_BYTES), -EIO);
	expect_equal(dedupe(0, 0, 3u << 20), 3u << 20);
	expect(!is_shared(to, 3u << 20));
	files_expect(&fix, to, 1, 0, 3u << 20);
	files_write(&fix, which, 1, 3u << 20, BLOCK_BYTES);
	expect_equal(dedupe(0, 0, 4u << 20), 1u << 20);
}

START_TEST(bad_blocks_of_the_source_are_never_shared)
{
	expect_poisoned(from, _i);
}
END_TEST

START_TEST(bad_blocks_of_the_destination_are_never_shared)
{
	expect_poisoned(to, _i);
}
END_TEST

/* --- beside others ------------------------------------------------------------------------------------------------------- */

#define THREAD_BLOCKS 600
#define THREAD_TURNS 400

static atomic_bool stop;

/* Each block of a file says whose it is, and how often it was written; the beginnings are the same in both now and then. */
static void *write_blocks(void *arg)
{
	inum_t file = *(const inum_t *)arg;
	uint64_t block[BLOCK_BYTES / 8], turn = 0;
	struct random random = {.state = file};

	while (!atomic_load(&stop)) {
		uint64_t at = random_below(&random, THREAD_BLOCKS), what = turn++ % 4 ? 1 : file;
		size_t done;

		for (unsigned i = 0; i < BLOCK_BYTES / 8; i++)
			block[i] = what;
		expect_equal(fs_write(fix.fs, file, at * BLOCK_BYTES, block, BLOCK_BYTES, &done), 0);
	}
	return NULL;
}

static void *read_blocks(void *arg)
{
	inum_t file = *(const inum_t *)arg;
	uint64_t block[BLOCK_BYTES / 8];
	struct random random = {.state = file + 1000};

	while (!atomic_load(&stop)) {
		size_t done;

		expect_equal(fs_read(fix.fs, file, random_below(&random, THREAD_BLOCKS) * BLOCK_BYTES, block, BLOCK_BYTES, &done), 0);
		for (unsigned i = 0; i < BLOCK_BYTES / 8; i++)
			expect(block[i] == 1 || block[i] == file);
	}
	return NULL;
}

static void *dedupe_blocks(void *arg)
{
	const inum_t *files = arg;
	struct random random = {.state = files[0] + 2000};
	uint64_t *gained = calloc(1, sizeof(*gained));

	for (unsigned i = 0; i < THREAD_TURNS; i++) {
		uint64_t at = random_below(&random, THREAD_BLOCKS - 1), length = 1 + random_below(&random, THREAD_BLOCKS - at);
		struct fs_dedupe d = {
			.from = files[0], .to = files[1], .from_pos = at * BLOCK_BYTES, .to_pos = at * BLOCK_BYTES, .length = min_u64(length, 4) * BLOCK_BYTES};

		if (random_below(&random, 8) == 0)
			d.length = length * BLOCK_BYTES;
		expect_equal(fs_dedupe(fix.fs, &d), 0);
		expect(d.done <= d.length && d.gained <= d.done && (!d.differs || !d.done));
		*gained += d.gained;
	}
	return gained;
}

/* A write is never lost, and no file ever shows what was written to the other one only. */
START_TEST(writers_and_readers_of_both_files_go_on)
{
	inum_t forth[2] = {from, to}, back[2] = {to, from};
	pthread_t threads[6];
	void *gained[2];

	zeros(from, 0, THREAD_BLOCKS * BLOCK_BYTES);
	for (uint64_t i = 0, one[BLOCK_BYTES / 8]; i < THREAD_BLOCKS * 2; i++) {
		size_t done;

		for (unsigned k = 0; k < ARRAY_SIZE(one); k++)
			one[k] = 1;
		expect_equal(fs_write(fix.fs, i % 2 ? from : to, i / 2 * BLOCK_BYTES, one, BLOCK_BYTES, &done), 0);
	}
	atomic_store(&stop, false);
	pthread_create(&threads[0], NULL, write_blocks, &from);
	pthread_create(&threads[1], NULL, write_blocks, &to);
	pthread_create(&threads[2], NULL, read_blocks, &from);
	pthread_create(&threads[3], NULL, read_blocks, &to);
	pthread_create(&threads[4], NULL, dedupe_blocks, forth);
	pthread_create(&threads[5], NULL, dedupe_blocks, back);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[4 + i], &gained[i]);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	expect(*(uint64_t *)gained[0] + *(uint64_t *)gained[1] > 0);
	free(gained[0]);
	free(gained[1]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("dedupe");
	TCase *tests = tcase_create("files");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, equal_files_become_one_and_space_comes_back);
	tcase_add_test(tests, a_difference_anywhere_leaves_all_of_it);
	tcase_add_test(tests, a_difference_within_a_slice_leaves_all_of_it);
	tcase_add_test(tests, what_is_shared_already_is_not_read);
	tcase_add_test(tests, neither_size_nor_times_nor_privileges_change);
	tcase_add_test(tests, a_last_piece_of_a_block_needs_the_end_of_both);
	tcase_add_test(tests, what_may_be_asked_for);
	tcase_add_test(tests, immutable_files_are_left_alone_others_may_be_read_only_in_any_way);
	tcase_add_test(tests, holes_and_unwritten_blocks_are_zeros);
	tcase_add_test(tests, where_the_destination_has_no_data_it_stays_so);
	tcase_add_test(tests, exbibytes_of_holes_are_one_call);
	tcase_add_test(tests, one_file_shares_with_itself);
	tcase_add_test(tests, a_long_range_goes_in_several_calls);
	tcase_add_loop_test(tests, bad_blocks_of_the_source_are_never_shared, 0, 2);
	tcase_add_loop_test(tests, bad_blocks_of_the_destination_are_never_shared, 0, 2);
	tcase_add_test(tests, writers_and_readers_of_both_files_go_on);
	suite_add_tcase(suite, tests);
	return files_run(suite);
}
