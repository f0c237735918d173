/* The medium in memory that crash tests and fuzzers stand on: many mounts of one medium, without a process to die. */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/table.h"
#include "journal/chunk.h"
#include "journal/journal.h"
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

static void poison_unused_metadata(struct lab *lab, struct fs *fs)
{
	struct chunk_entry entry;

	journal_read_begin(fs->journal);
	for (uint64_t c = 0; !chunk_entry(fs->journal, c, &entry); c++)
		for (unsigned i = 0; entry.state == FORMAT_CHUNK_LIVE && i < chunk_blocks(entry.shift); i++)
			for (unsigned k = 0; k < 2 && !(entry.map[i / 64] >> i % 64 & 1); k++)
				ck_assert_int_eq(lab_poison(lab, entry.copy[k] + i * BLOCK_BYTES + 2048, 1), 0);
	journal_read_end(fs->journal);
}

/* As fsck mounts: nobody works on the ledger, so the poison log's first word of a range stands until the next mount. */
START_TEST(poison_that_a_first_write_cleared_in_both_copies_is_not_believed_by_the_next_mount)
{
	const struct fs_options repair = {.tools = true, .repair = true, .cache_bytes = 1u << 20};
	struct lab *lab = lab_make(MEDIA_CACHELINE);
	struct why why = {0};
	struct fs_attr attr;
	struct fs *fs;
	char name[16];

	ck_assert_int_eq(fs_mount_media(lab_media(lab), &repair, &why, &fs), 0);
	poison_unused_metadata(lab, fs);
	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "%u", i);
		lab_mkdir(fs, name);
	}
	if (_i)
		ck_assert_int_eq(fs_unmount(fs), 0);
	else
		ck_assert_int_eq(journal_checkpoint(fs->journal), 0);
	if (!_i)
		fs_abandon(fs);
	lab_reset(lab);
	fs = lab_mount(lab);
	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "%u", i);
		ck_assert_int_eq(fs_lookup(fs, FS_ROOT_INO, name, &attr), 0);
		fs_forget(fs, attr.ino, 1);
	}
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
	tcase_add_loop_test(tests, poison_that_a_first_write_cleared_in_both_copies_is_not_believed_by_the_next_mount, 0, 2);
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
