/* Free space given back to the host: fs_trim(). What a crash in the middle of it leaves: the workloads "trim" of tests/crash. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/inode.h"
#include "media/media_types.h"
#include "tests/support/files.h"

#define MIB (1ull << 20)
#define ALL ((struct fs_trim_range){.length_bytes = UINT64_MAX})

static struct fsfix fix;

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, FSFIX_USUAL_BYTES), 0);
}

static void teardown(void)
{
	expect_equal(fsfix_check(&fix), 0);
	fsfix_destroy(&fix);
}

static uint64_t host_bytes(void)
{
	struct stat st;

	ck_assert(!stat(fix.path, &st));
	return (uint64_t)st.st_blocks * 512;
}

static uint64_t trim(struct fs_trim_range range)
{
	uint64_t trimmed = 1;

	expect_equal(fs_trim(fix.fs, &range, NULL, NULL, &trimmed), 0);
	return trimmed;
}

/* Orphans are freed in the background; what is cut off is freed now. */
static void remove_now(const char *name, inum_t ino)
{
	files_truncate(&fix, ino, 0);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, name), 0);
	expect_equal(fs_syncfs(fix.fs), 0);
}

static uint64_t free_bytes(void)
{
	struct fs_statfs space;

	fs_statfs(fix.fs, &space);
	return space.free_blocks * BLOCK_BYTES;
}

START_TEST(freed_space_leaves_the_host_and_files_stay)
{
	inum_t keep = files_new(&fix, "keep"), gone = files_new(&fix, "gone");
	uint64_t before;

	files_write(&fix, keep, 1, 0, 3 * MIB + 100);
	files_write(&fix, gone, 2, 0, 40 * MIB);
	remove_now("gone", gone);
	before = host_bytes();
	ck_assert_uint_eq(trim(ALL), free_bytes());
	ck_assert_uint_le(host_bytes() + 40 * MIB, before);
	files_expect(&fix, keep, 1, 0, 3 * MIB + 100);
	expect_equal(fsfix_remount(&fix), 0);
	files_expect(&fix, keep, 1, 0, 3 * MIB + 100);
	files_write(&fix, keep, 3, 4 * MIB, 100 * MIB);
	files_expect(&fix, keep, 3, 4 * MIB, 100 * MIB);
}
END_TEST

START_TEST(the_range_is_honoured)
{
	struct files_map map;
	inum_t gone = files_new(&fix, "gone");
	devoff_t at;
	uint64_t before;

	files_write(&fix, gone, 2, 0, 32 * MIB);
	files_map(&fix, gone, &map);
	at = map.extents[0].device_offset;
	remove_now("gone", gone);
	before = host_bytes();
	ck_assert_uint_eq(trim((struct fs_trim_range){.start = at + 1, .length_bytes = 8 * MIB}), 8 * MIB - BLOCK_BYTES);
	ck_assert_uint_eq(before - host_bytes(), 8 * MIB - BLOCK_BYTES);
	ck_assert_uint_eq(trim((struct fs_trim_range){.start = at + 16 * MIB, .length_bytes = MIB}), MIB);
	ck_assert_uint_eq(before - host_bytes(), 9 * MIB - BLOCK_BYTES);
}
END_TEST

START_TEST(runs_that_are_shorter_than_asked_for_stay)
{
	inum_t ino = files_new(&fix, "file");
	uint64_t before;

	files_write(&fix, ino, 1, 0, 8 * MIB);
	for (unsigned i = 0; i < 8; i += 2)
		expect_equal(fs_fallocate(fix.fs, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, i * MIB, i ? 64 * BLOCK_BYTES : 8 * BLOCK_BYTES), 0);
	expect_equal(fs_syncfs(fix.fs), 0);
	before = host_bytes();
	trim((struct fs_trim_range){.length_bytes = UINT64_MAX, .least_bytes = 65 * BLOCK_BYTES});
	ck_assert_uint_eq(host_bytes(), before);
	trim((struct fs_trim_range){.length_bytes = UINT64_MAX, .least_bytes = 60 * BLOCK_BYTES});
	ck_assert_uint_eq(before - host_bytes(), 3 * 64 * BLOCK_BYTES);
	trim(ALL);
	ck_assert_uint_eq(before - host_bytes(), 3 * 64 * BLOCK_BYTES + 8 * BLOCK_BYTES);
}
END_TEST

static int trim_without_discard(void)
{
	struct media_options options = {0};
	struct media_backend none;
	struct media *media;
	uint64_t trimmed;
	struct fs *fs;
	struct why why;
	int error;

	expect_equal(media_open(fix.path, &options, &why, &media), 0);
	none = *media->backend;
	none.discard = NULL;
	media->backend = &none;
	expect_equal(fs_mount_media(media, &fix.options, &why, &fs), 0);
	error = fs_trim(fs, &ALL, NULL, NULL, &trimmed);
	expect_equal(fs_unmount(fs), 0);
	expect_equal(media_close(media), 0);
	return error;
}

START_TEST(ranges_that_make_no_sense_and_media_that_cannot_are_refused)
{
	uint64_t trimmed;

	expect_equal(fs_trim(fix.fs, &(struct fs_trim_range){.start = FSFIX_USUAL_BYTES, .length_bytes = MIB}, NULL, NULL, &trimmed), -EINVAL);
	expect_equal(fs_trim(fix.fs, &(struct fs_trim_range){.start = UINT64_MAX, .length_bytes = UINT64_MAX}, NULL, NULL, &trimmed), -EINVAL);
	expect_equal(fs_trim(fix.fs, &(struct fs_trim_range){.length_bytes = 4095}, NULL, NULL, &trimmed), -EINVAL);
	expect_equal(fs_trim(fix.fs, &(struct fs_trim_range){.length_bytes = MIB, .least_bytes = UINT64_MAX}, NULL, NULL, &trimmed), -EINVAL);
	expect_equal(fsfix_unmount(&fix), 0);
	expect_equal(trim_without_discard(), -EOPNOTSUPP);
	fix.options.readonly = true;
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fs_trim(fix.fs, &ALL, NULL, NULL, &trimmed), -EROFS);
}
END_TEST

/* --- what must not be touched --------------------------------------------------------------------------------------------- */

static void expect_host_bytes(devoff_t at, unsigned tag, uint64_t pos, size_t size)
{
	uint8_t *found = malloc(size), *wanted = malloc(size);

	files_fill(wanted, tag, pos, size);
	expect_equal(media_read(fs_media(fix.fs), at, found, size, NULL), 0);
	ck_assert(!memcmp(found, wanted, size));
	free(found);
	free(wanted);
}

START_TEST(what_was_freed_and_is_not_durable_stays)
{
	inum_t ino = files_new(&fix, "file");
	devoff_t at;

	fix.options.commit_seconds = 1000;
	files_write(&fix, ino, 5, 0, 2 * MIB);
	expect_equal(fsfix_remount(&fix), 0);
	at = files_device_offset(&fix, ino, 0);
	expect_equal(fs_fallocate(fix.fs, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, MIB), 0);
	ck_assert(alloc_has_busy(fix.fs->alloc)); /* a plain file: until it is synced */
	trim(ALL);
	expect_host_bytes(at, 5, 0, 2 * MIB);
	expect_equal(fs_syncfs(fix.fs), 0);
	trim(ALL);
	expect_host_bytes(at + MIB, 5, MIB, MIB);
	files_expect(&fix, ino, 0, 0, MIB);
}
END_TEST

START_TEST(what_somebody_has_set_aside_stays)
{
	struct alloc_request request = {.want_blocks = 512, .least_blocks = 512, .align_blocks = 1};
	uint8_t *bytes = malloc(512 * BLOCK_BYTES);
	blkno_t start;
	uint64_t count, trimmed;

	files_fill(bytes, 7, 0, 512 * BLOCK_BYTES);
	expect_equal(alloc_reserve(fix.fs->alloc, &request, &start, &count), 0);
	expect_equal(media_write(fs_media(fix.fs), start << BLOCK_SHIFT, bytes, 512 * BLOCK_BYTES, NULL), 0);
	trimmed = trim(ALL);
	ck_assert_uint_eq(trimmed, free_bytes() - 512 * BLOCK_BYTES);
	expect_host_bytes(start << BLOCK_SHIFT, 7, 0, 512 * BLOCK_BYTES);
	alloc_unreserve(fix.fs->alloc, start, count);
	ck_assert_uint_eq(trim(ALL), free_bytes());
	free(bytes);
}
END_TEST

START_TEST(bad_space_stays)
{
	inum_t ino = files_new(&fix, "file");
	uint64_t bad_blocks = 3;
	devoff_t at;

	files_write(&fix, ino, 1, 0, MIB);
	at = files_device_offset(&fix, ino, 0);
	remove_now("file", ino);
	expect_equal(media_bad_add(fs_media(fix.fs), at + 100 * BLOCK_BYTES, bad_blocks * BLOCK_BYTES), 0); /* not in quarantine yet */
	ck_assert_uint_eq(trim(ALL), free_bytes() - bad_blocks * BLOCK_BYTES);
	expect_equal(media_bad_remove(fs_media(fix.fs), at + 100 * BLOCK_BYTES, bad_blocks * BLOCK_BYTES), 0);
	expect_host_bytes(at + 100 * BLOCK_BYTES, 1, 100 * BLOCK_BYTES, bad_blocks * BLOCK_BYTES);
	expect_equal(fs_inject(fix.fs, at + 200 * BLOCK_BYTES, BLOCK_BYTES, false), 0);
	expect_equal(fs_notify_wait(fix.fs, 10000), 0);
	ck_assert_uint_eq(trim(ALL), free_bytes()); /* in quarantine: no longer free */
	expect_equal(fs_uninject(fix.fs, at + 200 * BLOCK_BYTES, BLOCK_BYTES, &bad_blocks), 0);
}
END_TEST

/* --- beside others -------------------------------------------------------------------------------------------------------- */

static bool go_on_thrice(void *arg)
{
	unsigned *left = arg;

	return (*left)-- > 0;
}

START_TEST(it_ends_when_it_is_no_longer_wanted)
{
	unsigned left = 3;
	uint64_t trimmed;

	expect_equal(fs_trim(fix.fs, &ALL, go_on_thrice, &left, &trimmed), -EINTR);
	ck_assert_uint_gt(trimmed, 0);
	ck_assert_uint_lt(trimmed, free_bytes());
}
END_TEST

static void *trim_for_ever(void *arg)
{
	bool *is_over = arg;

	while (!__atomic_load_n(is_over, __ATOMIC_RELAXED)) {
		uint64_t trimmed;
		int error = fs_trim(fix.fs, &ALL, NULL, NULL, &trimmed);

		if (error)
			return (void *)(intptr_t)error;
	}
	return NULL;
}

struct writer {
	pthread_t thread;
	unsigned number;
};

static void *write_and_check(void *arg)
{
	const struct writer *writer = arg;
	char name[32];

	for (unsigned i = 0; i < 30; i++) {
		uint64_t pos = i * 37 % 11 * 40000;
		struct fs_attr attr;
		inum_t ino;

		snprintf(name, sizeof(name), "file%u", writer->number);
		ino = files_new(&fix, name);
		files_write(&fix, ino, i + 1, pos, 2 * MIB);
		files_expect(&fix, ino, i + 1, pos, 2 * MIB);
		files_write(&fix, ino, i + 2, pos + 4096, MIB);
		expect_equal(fs_syncfs(fix.fs), 0);
		files_expect(&fix, ino, i + 2, pos + 4096, MIB);
		files_expect(&fix, ino, i + 1, pos + 4096 + MIB, MIB - 4096);
		expect_equal(fsfix_lookup(&fix, FS_ROOT_INO, name, &attr), 0);
		expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, name), 0);
	}
	return NULL;
}

START_TEST(writers_beside_it_lose_nothing)
{
	struct writer writers[3];
	bool is_over = false;
	pthread_t trimmer;
	void *error;

	ck_assert(!pthread_create(&trimmer, NULL, trim_for_ever, &is_over));
	for (unsigned i = 0; i < ARRAY_SIZE(writers); i++) {
		writers[i].number = i;
		ck_assert(!pthread_create(&writers[i].thread, NULL, write_and_check, &writers[i]));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(writers); i++)
		pthread_join(writers[i].thread, NULL);
	__atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
	pthread_join(trimmer, &error);
	ck_assert_ptr_null(error);
}
END_TEST

/* Space is not missing because a trim has some of it in its hands. */
START_TEST(a_writer_gets_the_last_block_beside_it)
{
	bool is_over = false;
	struct fs_statfs space;
	pthread_t trimmer;
	uint64_t size;
	void *error;
	inum_t ino;

	fs_statfs(fix.fs, &space);
	size = (space.available_blocks - 64) * BLOCK_BYTES;
	ck_assert(!pthread_create(&trimmer, NULL, trim_for_ever, &is_over));
	for (unsigned i = 0; i < 5; i++) {
		ino = files_new(&fix, "file");
		expect_equal(fs_fallocate(fix.fs, ino, 0, 0, size), 0);
		remove_now("file", ino);
	}
	__atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
	pthread_join(trimmer, &error);
	ck_assert_ptr_null(error);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("trim");
	TCase *tests = tcase_create("trim");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, freed_space_leaves_the_host_and_files_stay);
	tcase_add_test(tests, the_range_is_honoured);
	tcase_add_test(tests, runs_that_are_shorter_than_asked_for_stay);
	tcase_add_test(tests, ranges_that_make_no_sense_and_media_that_cannot_are_refused);
	tcase_add_test(tests, what_was_freed_and_is_not_durable_stays);
	tcase_add_test(tests, what_somebody_has_set_aside_stays);
	tcase_add_test(tests, bad_space_stays);
	tcase_add_test(tests, it_ends_when_it_is_no_longer_wanted);
	tcase_add_test(tests, writers_beside_it_lose_nothing);
	tcase_add_test(tests, a_writer_gets_the_last_block_beside_it);
	tcase_set_timeout(tests, 120);
	suite_add_tcase(suite, tests);
	return files_run(suite);
}
