#include "fs/inode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/table.h"
#include "journal/root.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"

static struct fsfix fix;

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, 64u << 20), 0);
}

static void teardown(void)
{
	fsfix_destroy(&fix);
}

static inum_t file(const char *name)
{
	inum_t ino = 0;

	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, name, &ino), 0);
	return ino;
}

static struct fs_attr attr_of(inum_t ino)
{
	struct fs_attr attr = {0};

	expect_equal(fs_getattr(fix.fs, ino, &attr), 0);
	return attr;
}

START_TEST(numbers_are_never_used_again)
{
	inum_t highest = 0;
	char name[32];

	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < 100; i++) {
			inum_t ino;

			snprintf(name, sizeof(name), "f%u", i);
			ino = file(name);
			expect(ino > highest);
			highest = ino;
		}
		for (unsigned i = 0; i < 100; i++) {
			snprintf(name, sizeof(name), "f%u", i);
			expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, name), 0);
		}
		if (round % 2)
			expect_equal(fsfix_crash(&fix) ?: fsfix_mount(&fix), 0);
		else
			expect_equal(fsfix_remount(&fix), 0);
	}
}
END_TEST

START_TEST(times_before_1970_and_after_2038_keep_their_nanoseconds)
{
	static const int64_t seconds[] = {-2208988800, -1, 0, 4102444800, 253402300799};
	inum_t ino = file("f");
	struct fs_attr attr;

	for (unsigned i = 0; i < ARRAY_SIZE(seconds); i++) {
		struct inode_record values = {
			.atime = {.sec = seconds[i], .nsec = 999999999},
			.mtime = {.sec = seconds[i] + 1, .nsec = 1},
		};

		expect_equal(fs_setattr(fix.fs, ino, FS_SET_ATIME | FS_SET_MTIME, &values, &attr), 0);
		expect_equal(fsfix_remount(&fix), 0);
		attr = attr_of(ino);
		expect_equal(attr.record.atime.sec, seconds[i]);
		expect_equal(attr.record.atime.nsec, 999999999);
		expect_equal(attr.record.mtime.sec, seconds[i] + 1);
		expect_equal(attr.record.mtime.nsec, 1);
		expect(attr.record.ctime.sec > 1700000000);
	}
}
END_TEST

START_TEST(setattr_keeps_the_type_and_takes_suid_away_when_told)
{
	struct inode_record values = {.mode = S_IFDIR | S_ISUID | S_ISGID | 0755, .uid = 5, .gid = 6};
	inum_t ino = file("f");
	struct fs_attr attr;

	expect_equal(fs_setattr(fix.fs, ino, FS_SET_MODE | FS_SET_UID | FS_SET_GID, &values, &attr), 0);
	expect_equal(attr.record.mode, S_IFREG | S_ISUID | S_ISGID | 0755);
	expect_equal(attr.record.uid, 5);
	expect_equal(attr.record.gid, 6);
	expect_equal(fs_setattr(fix.fs, ino, FS_SET_KILL_SUIDGID, &values, &attr), 0);
	expect_equal(attr.record.mode, S_IFREG | 0755);
	expect_equal(fs_setattr(fix.fs, FS_ROOT_INO, FS_SET_SIZE, &values, &attr), -EISDIR);
	expect_equal(fs_setattr(fix.fs, 999999, FS_SET_MODE, &values, &attr), -ENOENT);
}
END_TEST

START_TEST(setattr_changes_the_size_both_ways)
{
	struct inode_record values = {.size_bytes = 1u << 20};
	inum_t ino = file("f");
	struct fs_attr attr;

	expect_equal(fs_setattr(fix.fs, ino, FS_SET_SIZE, &values, &attr), 0);
	expect_equal(attr.record.size_bytes, 1 << 20);
	values.size_bytes = 10;
	expect_equal(fs_setattr(fix.fs, ino, FS_SET_SIZE, &values, &attr), 0);
	expect_equal(attr_of(ino).record.size_bytes, 10);
}
END_TEST

START_TEST(lazy_times_are_seen_at_once_and_stored_by_the_timer)
{
	inum_t ino = file("f");
	uint64_t change = attr_of(ino).record.change;
	struct inode *inode;
	bool dirty = true;

	expect_equal(inode_get(fix.fs, ino, &inode), 0);
	inode_touch_lazily(inode);
	expect(attr_of(ino).record.change > change);
	inode_put(inode);
	for (unsigned i = 0; i < 500 && dirty; i++) {
		usleep(10000);
		dirty = inode_is_cached(fix.fs, ino);
	}
	expect(!dirty);
	expect_equal(fsfix_crash(&fix) ?: fsfix_mount(&fix), 0);
	expect(attr_of(ino).record.change > change);
}
END_TEST

START_TEST(lazy_times_survive_unmount_and_fsync)
{
	inum_t ino = file("f");
	struct inode *inode;
	uint64_t change;

	expect_equal(inode_get(fix.fs, ino, &inode), 0);
	inode_touch_lazily(inode);
	change = attr_of(ino).record.change;
	inode_put(inode);
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(attr_of(ino).record.change, change);
	expect_equal(inode_get(fix.fs, ino, &inode), 0);
	inode_touch_lazily(inode);
	inode_put(inode);
	expect_equal(fs_fsync(fix.fs, ino), 0);
	change = attr_of(ino).record.change;
	expect_equal(fsfix_crash(&fix) ?: fsfix_mount(&fix), 0);
	expect_equal(attr_of(ino).record.change, change);
}
END_TEST

START_TEST(an_update_before_the_touch_does_not_undo_an_explicit_time)
{
	struct inode_record values = {.mtime = {.sec = 1000, .nsec = 5}};
	inum_t ino = file("f");
	struct inode *inode;
	struct fs_attr attr;

	expect_equal(inode_get(fix.fs, ino, &inode), 0);
	inode_touch_lazily(inode);
	expect_equal(fs_setattr(fix.fs, ino, FS_SET_MTIME, &values, &attr), 0);
	expect_equal(attr.record.mtime.sec, 1000);
	inode_put(inode);
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(attr_of(ino).record.mtime.sec, 1000);
	/* And a touch after it wins. */
	expect_equal(inode_get(fix.fs, ino, &inode), 0);
	inode_touch_lazily(inode);
	expect(attr_of(ino).record.mtime.sec > 1000);
	inode_put(inode);
}
END_TEST

/* Padding is not compared. */
static bool records_equal(const struct inode_record *a, const struct inode_record *b)
{
	struct format_inode packed[2];

	format_inode_pack(&packed[0], a);
	format_inode_pack(&packed[1], b);
	return memcmp(&packed[0], &packed[1], sizeof(packed[0])) == 0;
}

START_TEST(an_aborted_transaction_restores_the_record_in_memory)
{
	inum_t ino = file("f");
	struct fs_attr before = attr_of(ino), after;
	struct inode_record record;
	struct inode *inode;
	struct tx *tx;

	expect_equal(inode_get(fix.fs, ino, &inode), 0);
	expect_equal(fs_tx_begin(fix.fs, TX_NORMAL, &tx), 0);
	record = inode->record;
	record.size_bytes = 1;
	expect_equal(inode_update(inode, tx, &record), 0);
	record.size_bytes = 2;
	expect_equal(inode_update(inode, tx, &record), 0);
	tx_abort(tx);
	after = attr_of(ino);
	expect(records_equal(&before.record, &after.record));
	inode_put(inode);
	after = attr_of(ino);
	expect_equal(after.record.size_bytes, 0);
}
END_TEST

START_TEST(an_aborted_birth_leaves_no_inode_behind)
{
	struct inode_record record = {.mode = S_IFREG | 0600, .nlink = 1};
	uint64_t count, next;
	struct inode *inode;
	struct tx *tx;
	inum_t ino;

	journal_read_begin(fix.fs->journal);
	count = root_get(fix.fs->journal, ROOT_INODES);
	next = root_get(fix.fs->journal, ROOT_NEXT_INO);
	journal_read_end(fix.fs->journal);
	expect_equal(fs_tx_begin(fix.fs, TX_NORMAL, &tx), 0);
	expect_equal(inode_create(fix.fs, tx, &record, &inode), 0);
	ino = inode->ino;
	tx_abort(tx);
	inode_put(inode);
	expect(!inode_is_cached(fix.fs, ino));
	expect_equal(inode_get(fix.fs, ino, &inode), -ENOENT);
	journal_read_begin(fix.fs->journal);
	expect_equal(root_get(fix.fs->journal, ROOT_INODES), count);
	expect_equal(root_get(fix.fs->journal, ROOT_NEXT_INO), next);
	journal_read_end(fix.fs->journal);
	file("next");
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(lookup_references_keep_an_inode_in_memory_until_they_are_forgotten)
{
	struct fs_attr attr;
	inum_t ino = file("f");

	expect(!inode_is_cached(fix.fs, ino));
	expect_equal(fs_lookup(fix.fs, FS_ROOT_INO, "f", &attr), 0);
	expect_equal(fs_lookup(fix.fs, FS_ROOT_INO, "f", &attr), 0);
	fs_forget(fix.fs, ino, 1);
	expect(inode_is_cached(fix.fs, ino));
	fs_forget(fix.fs, ino, 1);
	expect(!inode_is_cached(fix.fs, ino));
	fs_forget(fix.fs, ino, 7); /* more than there are: harmless */
	fs_forget(fix.fs, 424242, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("inode");
	TCase *t = tcase_create("plain");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, numbers_are_never_used_again);
	tcase_add_test(t, times_before_1970_and_after_2038_keep_their_nanoseconds);
	tcase_add_test(t, setattr_keeps_the_type_and_takes_suid_away_when_told);
	tcase_add_test(t, setattr_changes_the_size_both_ways);
	tcase_add_test(t, lazy_times_are_seen_at_once_and_stored_by_the_timer);
	tcase_add_test(t, lazy_times_survive_unmount_and_fsync);
	tcase_add_test(t, an_update_before_the_touch_does_not_undo_an_explicit_time);
	tcase_add_test(t, an_aborted_transaction_restores_the_record_in_memory);
	tcase_add_test(t, an_aborted_birth_leaves_no_inode_behind);
	tcase_add_test(t, lookup_references_keep_an_inode_in_memory_until_they_are_forgotten);
	suite_add_tcase(suite, t);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
