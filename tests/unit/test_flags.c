/* Flags of inodes: who may set which, what they forbid, what new inodes take over. What they promise after a crash: the workloads "flags" of tests/crash. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/inode.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"

static struct fsfix fix;
static const struct fs_who root = {.uid = 0}, owner = {.uid = 1000, .gid = 1000}, other = {.uid = 1001, .gid = 1000};

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, FSFIX_SMALL_BYTES), 0);
}

static void teardown(void)
{
	expect_equal(fsfix_check(&fix), 0);
	fsfix_destroy(&fix);
}

static int set(const struct fs_who *who, inum_t ino, uint64_t flags)
{
	const struct inode_record values = {.flags = flags};

	return fs_set_flags(fix.fs, who, ino, FS_SET_FLAGS, &values);
}

static int set_project(const struct fs_who *who, inum_t ino, uint32_t project)
{
	const struct inode_record values = {.project = project};

	return fs_set_flags(fix.fs, who, ino, FS_SET_PROJECT, &values);
}

static struct inode_record record_of(inum_t ino)
{
	struct fs_attr attr;

	expect_equal(fs_getattr(fix.fs, ino, &attr), 0);
	return attr.record;
}

static inum_t file(void)
{
	inum_t ino;

	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, "file", &ino), 0);
	return ino;
}

static inum_t make(inum_t dir, const char *name, mode_t mode)
{
	struct fs_attr attr;

	expect_equal(fs_create(fix.fs, &owner, dir, name, mode, 0, &attr), 0);
	fs_forget(fix.fs, attr.ino, 1);
	return attr.ino;
}

START_TEST(the_owner_sets_what_is_harmless_and_root_the_rest)
{
	inum_t ino = file();

	expect_equal(set(&owner, ino, INODE_NODUMP | INODE_NOATIME | INODE_SYNC), 0);
	expect_equal(set(&other, ino, 0), -EPERM);
	expect_equal(set(&owner, ino, INODE_IMMUTABLE), -EPERM);
	expect_equal(set(&owner, ino, INODE_APPEND), -EPERM);
	expect_equal(set_project(&owner, ino, 7), -EPERM);
	expect_equal(set_project(&owner, ino, 0), 0); /* as it is */
	expect(record_of(ino).flags == (INODE_NODUMP | INODE_NOATIME | INODE_SYNC));
	expect_equal(set(&root, ino, INODE_APPEND), 0);
	expect_equal(set(&owner, ino, 0), -EPERM);
	expect_equal(set(&owner, ino, INODE_APPEND | INODE_NODUMP), 0);
	expect_equal(set_project(&root, ino, 7), 0);
	expect(record_of(ino).project == 7 && record_of(ino).flags == (INODE_APPEND | INODE_NODUMP));
}
END_TEST

START_TEST(flags_that_nobody_knows_or_that_do_not_fit_are_refused)
{
	inum_t ino = file(), fifo = make(FS_ROOT_INO, "fifo", S_IFIFO | 0600);
	const struct inode_record hint = {.extent_hint = 16};

	for (unsigned bit = 0; bit < 64; bit++)
		if (!(INODE_FS_FLAGS >> bit & 1))
			expect_equal(set(&root, ino, 1ull << bit), -EOPNOTSUPP);
	expect_equal(set(&root, ino, INODE_DIRSYNC), -EOPNOTSUPP);
	expect_equal(set(&root, ino, INODE_PROJINHERIT), -EOPNOTSUPP);
	expect_equal(set(&root, fifo, INODE_IMMUTABLE), -EOPNOTSUPP);
	expect_equal(set(&root, fifo, INODE_NODUMP), 0);
	expect_equal(fs_set_flags(fix.fs, &root, fifo, FS_SET_EXTENT_HINT, &hint), -EINVAL);
	expect_equal(fs_set_flags(fix.fs, &root, ino, FS_SET_EXTENT_HINT, &hint), 0);
	expect(record_of(ino).extent_hint == 16 && record_of(ino).flags == 0);
}
END_TEST

START_TEST(flags_survive_a_remount_and_a_kill)
{
	inum_t ino = file();

	expect_equal(set(&root, ino, INODE_IMMUTABLE | INODE_NODUMP), 0);
	expect_equal(fsfix_remount(&fix), 0);
	expect(record_of(ino).flags == (INODE_IMMUTABLE | INODE_NODUMP));
	expect_equal(set(&root, ino, 0), 0);
	expect_equal(fsfix_crash(&fix), 0);
	expect_equal(fsfix_mount(&fix), 0);
	expect(record_of(ino).flags == 0);
}
END_TEST

START_TEST(what_stays_immutable_changes_in_nothing_else)
{
	const struct inode_record both = {.flags = 0, .project = 5};
	inum_t ino = file();

	expect_equal(set(&root, ino, INODE_IMMUTABLE), 0);
	expect_equal(set(&root, ino, INODE_IMMUTABLE | INODE_NODUMP), -EPERM);
	expect_equal(set_project(&root, ino, 5), -EPERM);
	expect_equal(fs_set_flags(fix.fs, &root, ino, FS_SET_FLAGS | FS_SET_PROJECT, &both), 0);
	expect(record_of(ino).project == 5 && !record_of(ino).flags);
}
END_TEST

START_TEST(opens_are_refused_as_the_kernel_does_where_it_knows_the_flags)
{
	inum_t ino = file();

	expect_equal(set(&root, ino, INODE_APPEND), 0);
	expect_equal(fs_verify_open(fix.fs, ino, O_RDONLY), 0);
	expect_equal(fs_verify_open(fix.fs, ino, O_WRONLY), -EPERM);
	expect_equal(fs_verify_open(fix.fs, ino, O_RDWR | O_APPEND), 0);
	expect_equal(fs_verify_open(fix.fs, ino, O_RDWR | O_APPEND | O_TRUNC), -EPERM);
	expect_equal(fs_verify_open(fix.fs, ino, O_RDONLY | O_TRUNC), -EPERM);
	expect_equal(set(&root, ino, INODE_IMMUTABLE), 0);
	expect_equal(fs_verify_open(fix.fs, ino, O_RDONLY), 0);
	expect_equal(fs_verify_open(fix.fs, ino, O_WRONLY | O_APPEND), -EPERM);
}
END_TEST

START_TEST(append_only_files_are_touched_but_not_dated)
{
	const struct inode_record values = {.mtime = {.sec = 5}, .ctime = {.sec = 6}};
	struct fs_attr attr;
	inum_t ino = file();

	expect_equal(set(&root, ino, INODE_APPEND), 0);
	expect_equal(fs_setattr(fix.fs, ino, FS_SET_MTIME, &values, &attr), -EPERM);
	expect_equal(fs_setattr(fix.fs, ino, FS_SET_MTIME_NOW | FS_SET_ATIME_NOW, &values, &attr), 0);
	/* What the kernel's write-back cache writes down late. */
	expect_equal(fs_setattr(fix.fs, ino, FS_SET_MTIME | FS_SET_CTIME, &values, &attr), 0);
	expect_equal(set(&root, ino, INODE_IMMUTABLE), 0);
	expect_equal(fs_setattr(fix.fs, ino, FS_SET_MTIME_NOW, &values, &attr), -EPERM);
}
END_TEST

static void expect_mode(inum_t ino, uint32_t mode)
{
	expect_equal(record_of(ino).mode & 07777, mode);
}

START_TEST(what_is_refused_leaves_setuid_as_it_is)
{
	const struct inode_record values = {.mode = 06777};
	struct fs_attr attr;
	unsigned ids = 0;
	uint64_t copied;
	size_t done;
	inum_t ino = file(), from = make(FS_ROOT_INO, "from", S_IFREG | 0600);

	expect_equal(fs_write(fix.fs, ino, 0, "0123456789", 10, &done), 0);
	expect_equal(fs_write(fix.fs, from, 0, "0123456789", 10, &done), 0);
	expect_equal(fs_setattr(fix.fs, ino, FS_SET_MODE, &values, &attr), 0);
	expect_equal(set(&root, ino, INODE_APPEND), 0);
	expect_equal(fs_write_as(fix.fs, ino, true, 0, "x", 1, &done, &ids), -EPERM);
	expect_equal(fs_fallocate_as(fix.fs, ino, true, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096, &ids), -EPERM);
	expect_equal(fs_fallocate_as(fix.fs, ino, true, FALLOC_FL_ZERO_RANGE, 0, 4096, &ids), -EPERM);
	expect_equal(fs_fallocate_as(fix.fs, ino, true, FALLOC_FL_COLLAPSE_RANGE, 0, 4096, &ids), -EOPNOTSUPP);
	expect_equal(fs_copy_range_as(fix.fs, true, from, 0, ino, 0, 10, &copied, &ids), -EPERM);
	expect_equal(fs_copy_range_as(fix.fs, true, ino, 0, ino, 5, 10, &copied, &ids), -EPERM);
	expect_equal(set(&root, ino, INODE_IMMUTABLE), 0);
	expect_equal(fs_write_as(fix.fs, ino, true, 100, "x", 1, &done, &ids), -EPERM);
	expect_equal(fs_fallocate_as(fix.fs, ino, true, 0, 0, 4096, &ids), -EPERM);
	expect_equal(fs_copy_range_as(fix.fs, true, from, 0, ino, 10, 10, &copied, &ids), -EPERM);
	expect_mode(ino, 06777);
	ck_assert_uint_eq(ids, 0);
	expect_equal(set(&root, ino, 0), 0);
	expect_equal(fs_copy_range_as(fix.fs, true, ino, 0, ino, 5, 10, &copied, &ids), -EINVAL);
	expect_mode(ino, 06777);
	expect_equal(fs_fallocate_as(fix.fs, ino, true, 0, 0, 4096, &ids), 0);
	expect_mode(ino, 0777);
	ck_assert_uint_eq(ids, FS_IDS_KILLED);
	expect_equal(fs_setattr(fix.fs, ino, FS_SET_MODE, &values, &attr), 0);
	expect_equal(fs_copy_range_as(fix.fs, true, from, 0, ino, 0, 10, &copied, &ids), 0);
	expect_mode(ino, 0777);
}
END_TEST

START_TEST(setgid_goes_with_a_chown_by_a_stranger_to_the_group)
{
	const struct inode_record values = {.mode = 02644, .gid = 7};
	struct fs_attr attr;
	inum_t ino = file(), dir = make(FS_ROOT_INO, "dir", S_IFDIR | 0755);

	expect_equal(fs_setattr(fix.fs, ino, FS_SET_MODE, &values, &attr), 0);
	expect_equal(fs_setattr(fix.fs, ino, FS_SET_GID, &values, &attr), 0);
	expect_mode(ino, 02644);
	expect_equal(fs_setattr(fix.fs, ino, FS_SET_GID | FS_SET_KILL_SETGID, &values, &attr), 0);
	expect_mode(ino, 0644);
	expect_equal(fs_setattr(fix.fs, dir, FS_SET_MODE, &values, &attr), 0);
	expect_equal(fs_setattr(fix.fs, dir, FS_SET_GID | FS_SET_KILL_SETGID, &values, &attr), 0);
	expect_mode(dir, 02644);
}
END_TEST

START_TEST(a_directory_hands_its_flags_project_and_hint_down)
{
	const struct inode_record values = {.flags = INODE_FS_FLAGS & ~(INODE_IMMUTABLE | INODE_APPEND), .project = 9, .extent_hint = 32};
	inum_t dir = make(FS_ROOT_INO, "dir", S_IFDIR | 0755), sub, ino, fifo;

	expect_equal(fs_set_flags(fix.fs, &root, dir, FS_SET_FLAGS | FS_SET_PROJECT | FS_SET_EXTENT_HINT, &values), 0);
	sub = make(dir, "sub", S_IFDIR | 0755);
	ino = make(sub, "file", S_IFREG | 0644);
	fifo = make(sub, "fifo", S_IFIFO | 0644);
	expect(record_of(sub).flags == values.flags && record_of(sub).project == 9 && record_of(sub).extent_hint == 32);
	expect(record_of(ino).flags == (INODE_SYNC | INODE_NODUMP | INODE_NOATIME) && record_of(ino).project == 9 && record_of(ino).extent_hint == 32);
	expect(record_of(fifo).flags == (INODE_NODUMP | INODE_NOATIME) && record_of(fifo).project == 9 && !record_of(fifo).extent_hint);
	expect_equal(set(&root, dir, INODE_APPEND | INODE_IMMUTABLE), 0);
	expect_equal(set(&root, dir, INODE_APPEND), 0);
	expect(!record_of(make(dir, "plain", S_IFREG | 0644)).flags);
}
END_TEST

START_TEST(another_project_has_no_place_where_one_is_handed_down)
{
	inum_t dir = make(FS_ROOT_INO, "dir", S_IFDIR | 0755), ino = file();
	struct fs_attr attr;

	expect_equal(set_project(&root, dir, 9), 0);
	expect_equal(set(&owner, dir, INODE_PROJINHERIT), 0);
	expect_equal(fs_link(fix.fs, ino, dir, "link", &attr), -EXDEV);
	expect_equal(fs_rename(fix.fs, &owner, FS_ROOT_INO, "file", dir, "moved", 0), -EXDEV);
	expect_equal(set_project(&root, ino, 9), 0);
	expect_equal(fs_rename(fix.fs, &owner, FS_ROOT_INO, "file", dir, "moved", 0), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("flags");
	TCase *tests = tcase_create("flags");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, the_owner_sets_what_is_harmless_and_root_the_rest);
	tcase_add_test(tests, flags_that_nobody_knows_or_that_do_not_fit_are_refused);
	tcase_add_test(tests, flags_survive_a_remount_and_a_kill);
	tcase_add_test(tests, what_stays_immutable_changes_in_nothing_else);
	tcase_add_test(tests, opens_are_refused_as_the_kernel_does_where_it_knows_the_flags);
	tcase_add_test(tests, append_only_files_are_touched_but_not_dated);
	tcase_add_test(tests, what_is_refused_leaves_setuid_as_it_is);
	tcase_add_test(tests, setgid_goes_with_a_chown_by_a_stranger_to_the_group);
	tcase_add_test(tests, a_directory_hands_its_flags_project_and_hint_down);
	tcase_add_test(tests, another_project_has_no_place_where_one_is_handed_down);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
