#include "fs/inode.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/support/expect.h"
#include "tests/support/fsfix.h"

#define DAY 86400

static struct fsfix fix;

static void setup(void)
{
	expect_equal(fsfix_create(&fix, 64u << 20), 0);
	fix.options.atime = FS_ATIME_RELATIVE;
	fix.options.commit_seconds = 3600;
	expect_equal(fsfix_mount(&fix), 0);
}

static void teardown(void)
{
	expect_equal(fsfix_check(&fix), 0);
	fsfix_destroy(&fix);
}

static void again_with(enum fs_atime atime)
{
	fix.options.atime = atime;
	expect_equal(fsfix_remount(&fix), 0);
}

static struct inode_record record_of(inum_t ino)
{
	struct fs_attr attr = {0};

	expect_equal(fs_getattr(fix.fs, ino, &attr), 0);
	return attr.record;
}

static inum_t file(const char *name)
{
	size_t done;
	inum_t ino = 0;

	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, name, &ino), 0);
	expect_equal(fs_write(fix.fs, ino, 0, "content", 7, &done), 0);
	return ino;
}

static void set_times(inum_t ino, int64_t atime, int64_t other)
{
	struct inode_record values = {.atime.sec = atime, .mtime.sec = other, .ctime.sec = other};
	struct fs_attr attr;

	expect_equal(fs_setattr(fix.fs, ino, FS_SET_ATIME | FS_SET_MTIME | FS_SET_CTIME, &values, &attr), 0);
}

static int64_t read_it(inum_t ino);

START_TEST(a_file_marked_noatime_keeps_its_access_time)
{
	const struct inode_record values = {.flags = INODE_NOATIME}, none = {.flags = 0};
	const struct fs_who root = {.uid = 0};
	inum_t ino = file("marked");

	again_with(FS_ATIME_ALWAYS);
	set_times(ino, 1000, 2000);
	expect_equal(fs_set_flags(fix.fs, &root, ino, FS_SET_FLAGS, &values), 0);
	expect_equal(read_it(ino), 1000);
	expect_equal(fs_set_flags(fix.fs, &root, ino, FS_SET_FLAGS, &none), 0);
	expect(read_it(ino) > 1000);
}
END_TEST

static int64_t read_it(inum_t ino)
{
	char buffer[8];
	size_t done;

	expect_equal(fs_read(fix.fs, ino, 0, buffer, sizeof(buffer), &done), 0);
	return record_of(ino).atime.sec;
}

static int64_t now_sec(void)
{
	return (int64_t)(time_now_ns() / 1000000000u);
}

START_TEST(relatime_follows_a_change_and_the_age_of_a_day)
{
	inum_t ino = file("f");
	int64_t now = now_sec();

	set_times(ino, now - 100, now - 50);
	expect(read_it(ino) >= now);
	set_times(ino, now - 50, now - 100);
	expect_equal(read_it(ino), now - 50);
	expect_equal(read_it(ino), now - 50);
	set_times(ino, now - 50, now - 50);
	expect(read_it(ino) >= now);
	set_times(ino, now - DAY - 1, now - 2 * DAY);
	expect(read_it(ino) >= now);
	set_times(ino, now - DAY + 600, now - 2 * DAY);
	expect_equal(read_it(ino), now - DAY + 600);
}
END_TEST

START_TEST(times_out_of_all_proportion_are_compared_without_overflow)
{
	inum_t ino = file("f");

	set_times(ino, INT64_MAX, INT64_MIN);
	expect_equal(read_it(ino), INT64_MAX);
	set_times(ino, INT64_MIN, INT64_MIN);
	expect(read_it(ino) > 0);
	set_times(ino, 1, INT64_MAX);
	expect(read_it(ino) > 1);
}
END_TEST

START_TEST(a_write_makes_the_next_read_count)
{
	inum_t ino = file("f");
	struct inode_record before;
	size_t done;

	read_it(ino);
	before = record_of(ino);
	expect_equal(fs_write(fix.fs, ino, 0, "CONTENT", 7, &done), 0);
	read_it(ino);
	expect(record_of(ino).atime.sec > before.atime.sec || record_of(ino).atime.nsec > before.atime.nsec);
}
END_TEST

START_TEST(a_read_stores_nothing_and_unmount_stores_the_time)
{
	inum_t ino = file("f");
	struct inode_record before;
	struct media_counts counts[2];

	again_with(FS_ATIME_ALWAYS);
	set_times(ino, 5, 5);
	expect_equal(fs_syncfs(fix.fs), 0);
	media_counts(fs_media(fix.fs), &counts[0]);
	for (unsigned i = 0; i < 100; i++)
		read_it(ino);
	media_counts(fs_media(fix.fs), &counts[1]);
	expect_equal(counts[1].writes, counts[0].writes);
	expect_equal(counts[1].drains, counts[0].drains);
	before = record_of(ino);
	expect(before.atime.sec > 5);
	expect_equal(before.mtime.sec, 5);
	expect_equal(before.ctime.sec, 5);
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(record_of(ino).atime.sec, before.atime.sec);
	expect_equal(record_of(ino).atime.nsec, before.atime.nsec);
	expect_equal(record_of(ino).change, before.change);
}
END_TEST

START_TEST(fsync_makes_it_durable_and_so_does_another_change)
{
	inum_t ino = file("f"), other = file("g");
	struct inode_record values = {.mode = 0600}, before[2];
	struct fs_attr attr;

	set_times(ino, 5, 6);
	set_times(other, 5, 6);
	read_it(ino);
	read_it(other);
	expect_equal(fs_fsync(fix.fs, ino), 0);
	expect_equal(fs_setattr(fix.fs, other, FS_SET_MODE, &values, &attr), 0);
	before[0] = record_of(ino);
	before[1] = record_of(other);
	expect_equal(fsfix_crash(&fix) ?: fsfix_mount(&fix), 0);
	expect_equal(record_of(ino).atime.nsec, before[0].atime.nsec);
	expect_equal(record_of(other).atime.nsec, before[1].atime.nsec);
}
END_TEST

START_TEST(directories_and_symlinks_have_one_too_and_nodiratime_spares_directories)
{
	struct fs_who who = {.uid = 1000};
	struct fs_attr link;
	char target[8];
	inum_t dir = 0;

	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "d", &dir), 0);
	expect_equal(fs_symlink(fix.fs, &who, FS_ROOT_INO, "l", "target", &link), 0);
	for (unsigned round = 0; round < 2; round++) {
		fix.options.no_diratime = round;
		expect_equal(fsfix_remount(&fix), 0);
		set_times(dir, 5, 6);
		set_times(link.ino, 5, 6);
		expect_equal(fs_readlink(fix.fs, link.ino, target, sizeof(target)), 0);
		expect_equal(fs_readdir(fix.fs, dir, INT64_MAX, false, NULL, NULL), 0);
		expect((record_of(dir).atime.sec > 5) == !round);
		expect(record_of(link.ino).atime.sec > 5);
	}
}
END_TEST

START_TEST(noatime_and_an_unseen_read_leave_it)
{
	inum_t ino = file("f");
	char buffer[8];
	size_t done;

	set_times(ino, 5, 6);
	expect_equal(fs_read_unseen(fix.fs, ino, 0, buffer, sizeof(buffer), &done), 0);
	expect_equal(record_of(ino).atime.sec, 5);
	again_with(FS_ATIME_NEVER);
	expect_equal(read_it(ino), 5);
	fix.options.readonly = true;
	again_with(FS_ATIME_ALWAYS);
	expect_equal(read_it(ino), 5);
	fix.options.readonly = false;
	expect_equal(fsfix_remount(&fix), 0);
}
END_TEST

/* mtime becomes 77 in a transaction, with a read before or after the record in memory is changed. */
static void change_beside_read(inum_t ino, bool is_read_first, bool is_committed)
{
	struct inode_record record;
	struct inode *inode;
	struct tx *tx;

	set_times(ino, 5, 6);
	expect_equal(inode_get(fix.fs, ino, &inode), 0);
	expect_equal(fs_tx_begin(fix.fs, TX_NORMAL, &tx), 0);
	record = inode->record;
	record.mtime.sec = 77;
	if (is_read_first)
		inode_touch_access(inode);
	expect_equal(inode_update(inode, tx, &record), 0);
	if (!is_read_first)
		inode_touch_access(inode);
	if (is_committed)
		expect_equal(tx_commit(tx, NULL), 0);
	else
		tx_abort(tx);
	inode_put(inode);
}

/* Both must be as they were, but for the access. */
START_TEST(an_aborted_transaction_takes_back_its_own_times_only)
{
	inum_t ino = file("f");

	change_beside_read(ino, false, false);
	expect(record_of(ino).atime.sec > 77);
	expect_equal(record_of(ino).mtime.sec, 6);
}
END_TEST

START_TEST(a_read_beside_a_change_loses_nothing_of_either)
{
	inum_t ino = file("f");

	for (unsigned is_read_first = 0; is_read_first < 2; is_read_first++) {
		change_beside_read(ino, is_read_first, true);
		expect(record_of(ino).atime.sec > 77);
		expect_equal(record_of(ino).mtime.sec, 77);
	}
}
END_TEST

static void *read_much(void *arg)
{
	for (unsigned i = 0; i < 2000; i++)
		read_it(*(inum_t *)arg);
	return NULL;
}

START_TEST(readers_and_writers_at_once_are_no_race)
{
	inum_t ino = file("f");
	struct inode_record values = {.mode = 0600};
	struct fs_attr attr;
	pthread_t threads[2];
	size_t done;

	again_with(FS_ATIME_ALWAYS);
	for (unsigned i = 0; i < 2; i++)
		expect_equal(pthread_create(&threads[i], NULL, read_much, &ino), 0);
	for (unsigned i = 0; i < 300; i++) {
		expect_equal(fs_write(fix.fs, ino, 0, "CONTENT", 7, &done), 0);
		expect_equal(fs_setattr(fix.fs, ino, FS_SET_MODE, &values, &attr), 0);
		expect_equal(fs_fsync(fix.fs, ino), 0);
	}
	for (unsigned i = 0; i < 2; i++)
		expect_equal(pthread_join(threads[i], NULL), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("access");
	TCase *t = tcase_create("times");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_file_marked_noatime_keeps_its_access_time);
	tcase_add_test(t, relatime_follows_a_change_and_the_age_of_a_day);
	tcase_add_test(t, times_out_of_all_proportion_are_compared_without_overflow);
	tcase_add_test(t, a_write_makes_the_next_read_count);
	tcase_add_test(t, a_read_stores_nothing_and_unmount_stores_the_time);
	tcase_add_test(t, fsync_makes_it_durable_and_so_does_another_change);
	tcase_add_test(t, directories_and_symlinks_have_one_too_and_nodiratime_spares_directories);
	tcase_add_test(t, noatime_and_an_unseen_read_leave_it);
	tcase_add_test(t, an_aborted_transaction_takes_back_its_own_times_only);
	tcase_add_test(t, a_read_beside_a_change_loses_nothing_of_either);
	tcase_add_test(t, readers_and_writers_at_once_are_no_race);
	suite_add_tcase(suite, t);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
