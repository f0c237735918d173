/* The medium in memory that crash tests and fuzzers stand on: many mounts of one medium, without a process to die. */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/support/fsfix.h"
#include "tests/support/lab.h"
#include "util/log.h"

static const struct fs_options options = {.tools = true, .cache_bytes = 1u << 20};

static struct lab *lab_make(enum media_granularity granularity)
{
	struct lab *lab;

	ck_assert_int_eq(lab_create(FSFIX_SMALL_BYTES, granularity, &lab), 0);
	ck_assert_int_eq(fsfix_format_media(lab_media(lab)), 0);
	lab_reset(lab);
	return lab;
}

static struct fs *lab_mount(struct lab *lab)
{
	struct why why;
	struct fs *fs = NULL;
	int error = fs_mount_media(lab_media(lab), &options, &why, &fs);

	ck_assert_msg(!error, "%s", why.text);
	return fs;
}

static void lab_mkdir(struct fs *fs, const char *name)
{
	struct fs_who who = {0};
	struct fs_attr attr;

	ck_assert_int_eq(fs_create(fs, &who, FS_ROOT_INO, name, S_IFDIR | 0755, 0, &attr), 0);
}

START_TEST(what_was_done_is_there_after_an_abandoned_mount)
{
	struct lab *lab = lab_make(_i ? MEDIA_PAGE : MEDIA_CACHELINE);
	struct fs *fs = lab_mount(lab);
	struct fs_attr attr;

	lab_mkdir(fs, "one");
	fs_abandon(fs);
	lab_reset(lab);
	fs = lab_mount(lab);
	ck_assert_int_eq(fs_lookup(fs, FS_ROOT_INO, "one", &attr), 0);
	ck_assert_int_eq(fs_unmount(fs), 0);
	lab_destroy(lab);
}
END_TEST

static void store_counted(void *arg, devoff_t offset, const void *from, size_t length)
{
	*(uint64_t *)arg += length;
}

START_TEST(an_abandoned_mount_stores_nothing_more)
{
	struct lab *lab = lab_make(MEDIA_CACHELINE);
	struct fs *fs = lab_mount(lab);
	uint64_t stored = 0;
	struct lab_listener listener = {.store = store_counted, .arg = &stored};

	lab_listen(lab, &listener);
	lab_mkdir(fs, "one");
	ck_assert_uint_gt(stored, 0);
	stored = 0;
	fs_abandon(fs);
	ck_assert_uint_eq(stored, 0);
	lab_destroy(lab);
}
END_TEST

START_TEST(poison_of_the_lab_is_found_by_the_next_reader)
{
	struct lab *lab = lab_make(MEDIA_CACHELINE);
	uint8_t byte;
	devoff_t bad;

	lab_poison(lab, 8 << 20, 1);
	ck_assert_int_eq(media_read(lab_media(lab), 8 << 20, &byte, 1, &bad), -EIO);
	ck_assert_uint_eq(bad, 8 << 20);
	ck_assert(media_bad_any(lab_media(lab)));
	lab_reset(lab);
	ck_assert(!media_bad_any(lab_media(lab)));
	ck_assert_int_eq(media_read(lab_media(lab), 8 << 20, &byte, 1, &bad), -EIO);
	ck_assert_int_eq(media_clear(lab_media(lab), 8 << 20, 512), 0);
	ck_assert_int_eq(media_read(lab_media(lab), 8 << 20, &byte, 1, &bad), 0);
	lab_destroy(lab);
}
END_TEST

static unsigned count_threads(void)
{
	DIR *tasks = opendir("/proc/self/task");
	unsigned count = 0;

	ck_assert_ptr_nonnull(tasks);
	for (const struct dirent *entry = readdir(tasks); entry; entry = readdir(tasks))
		count += entry->d_name[0] != '.';
	closedir(tasks);
	return count;
}

static int badblock_counted(void *arg, const struct badblock_record *record)
{
	++*(unsigned *)arg;
	return 0;
}

START_TEST(a_tool_has_no_thread_before_the_first_failure)
{
	struct lab *lab = lab_make(MEDIA_CACHELINE);
	unsigned before = count_threads(), badblocks = 0;
	struct fs *fs = lab_mount(lab);
	uint8_t byte;

	ck_assert_uint_eq(count_threads(), before);
	lab_poison(lab, 15 << 20, 1);
	ck_assert_int_eq(media_read(lab_media(lab), 15 << 20, &byte, 1, NULL), -EIO);
	ck_assert_int_eq(fs_notify_wait(fs, 5000), 0);
	ck_assert_uint_eq(count_threads(), before + 1);
	ck_assert_int_eq(fs_badblocks(fs, badblock_counted, &badblocks), 0);
	ck_assert_uint_eq(badblocks, 1);
	fs_abandon(fs);
	ck_assert_uint_eq(count_threads(), before);
	lab_destroy(lab);
}
END_TEST

/* Not a measurement: a guard against a mount that costs a second. */
START_TEST(a_thousand_mounts_are_soon_done)
{
	struct lab *lab = lab_make(MEDIA_CACHELINE);

	for (unsigned i = 0; i < 1000; i++) {
		fs_abandon(lab_mount(lab));
		lab_reset(lab);
	}
	lab_destroy(lab);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lab");
	TCase *tests = tcase_create("lab");
	SRunner *runner = srunner_create(suite);
	int failed;

	log_set_level(LOG_LEVEL_SILENT);
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, what_was_done_is_there_after_an_abandoned_mount, 0, 2);
	tcase_add_test(tests, an_abandoned_mount_stores_nothing_more);
	tcase_add_test(tests, poison_of_the_lab_is_found_by_the_next_reader);
	tcase_add_test(tests, a_tool_has_no_thread_before_the_first_failure);
	tcase_add_test(tests, a_thousand_mounts_are_soon_done);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
