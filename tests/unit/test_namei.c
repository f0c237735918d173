#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/table.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"

static struct fsfix fix;
static const struct fs_who who = {.uid = 1000, .gid = 1000};

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, 64u << 20), 0);
}

static void setup_small(void)
{
	expect_equal(fsfix_create_mounted(&fix, FSFIX_SMALL_BYTES), 0);
}

static void teardown(void)
{
	fsfix_destroy(&fix);
}

static inum_t file(inum_t dir, const char *name)
{
	inum_t ino = 0;

	expect_equal(fsfix_mkfile(&fix, dir, name, &ino), 0);
	return ino;
}

static inum_t directory(inum_t dir, const char *name)
{
	inum_t ino = 0;

	expect_equal(fsfix_mkdir(&fix, dir, name, &ino), 0);
	return ino;
}

static struct fs_attr attr_of(inum_t ino)
{
	struct fs_attr attr = {0};

	expect_equal(fs_getattr(fix.fs, ino, &attr), 0);
	return attr;
}

/* 0 where there is none. */
static inum_t ino_at(inum_t dir, const char *name)
{
	struct fs_attr attr;
	int error = fsfix_lookup(&fix, dir, name, &attr);

	expect(error == 0 || error == -ENOENT);
	return error ? 0 : attr.ino;
}

static int move(inum_t dir, const char *name, inum_t new_dir, const char *new_name, unsigned flags)
{
	return fs_rename(fix.fs, &who, dir, name, new_dir, new_name, flags);
}

static void wait_until_gone(inum_t ino)
{
	for (unsigned i = 0; i < 500 && inode_is_cached(fix.fs, ino); i++)
		usleep(10000);
	for (unsigned i = 0; i < 500; i++) {
		struct fs_attr attr;

		if (fs_getattr(fix.fs, ino, &attr) == -ENOENT)
			return;
		usleep(10000);
	}
	ck_abort_msg("inode %llu is still there", (unsigned long long)ino);
}

/* --- create --------------------------------------------------------------------------------------------------------------- */

START_TEST(create_gives_type_mode_owner_times_and_one_link)
{
	struct fs_attr attr, dir = attr_of(FS_ROOT_INO);

	expect_equal(fs_create(fix.fs, &who, FS_ROOT_INO, "f", S_IFREG | 0640, 0, &attr), 0);
	expect_equal(attr.record.mode, S_IFREG | 0640);
	expect_equal(attr.record.uid, 1000);
	expect_equal(attr.record.nlink, 1);
	expect(attr.record.generation != 0);
	expect(attr.record.mtime.sec == attr.record.btime.sec);
	expect_equal(attr_of(FS_ROOT_INO).record.entries, dir.record.entries + 1);
	expect(attr_of(FS_ROOT_INO).record.mtime.sec > dir.record.mtime.sec);
	expect(attr_of(FS_ROOT_INO).record.change > dir.record.change);
	fs_forget(fix.fs, attr.ino, 1);
	expect_equal(fs_create(fix.fs, &who, FS_ROOT_INO, "f", S_IFREG | 0640, 0, &attr), -EEXIST);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(create_makes_devices_fifos_and_sockets)
{
	static const mode_t types[] = {S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
	struct fs_attr attr;
	char name[8];

	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		expect_equal(fs_create(fix.fs, &who, FS_ROOT_INO, name, types[i] | 0600, 0x0103, &attr), 0);
		expect_equal(attr.record.mode & S_IFMT, types[i]);
		expect_equal(attr.record.rdev, i >= 2 ? 0x0103 : 0);
		fs_forget(fix.fs, attr.ino, 1);
	}
	expect_equal(fs_create(fix.fs, &who, FS_ROOT_INO, "l", S_IFLNK | 0777, 0, &attr), -EINVAL);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(names_of_255_bytes_work_and_256_do_not)
{
	char name[300];
	struct fs_attr attr;
	inum_t ino;

	memset(name, 'x', sizeof(name));
	name[255] = '\0';
	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, name, &ino), 0);
	expect_equal(ino_at(FS_ROOT_INO, name), ino);
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(ino_at(FS_ROOT_INO, name), ino);
	name[255] = 'x';
	name[256] = '\0';
	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, name, &ino), -ENAMETOOLONG);
	expect_equal(fsfix_lookup(&fix, FS_ROOT_INO, name, &attr), -ENAMETOOLONG);
}
END_TEST

START_TEST(bad_names_are_refused)
{
	inum_t ino;

	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, "", &ino), -EINVAL);
	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, "a/b", &ino), -EINVAL);
	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, ".", &ino), -EEXIST);
	expect_equal(fs_rmdir(fix.fs, FS_ROOT_INO, "."), -EINVAL);
	expect_equal(fs_rmdir(fix.fs, FS_ROOT_INO, ".."), -ENOTEMPTY);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "none"), -ENOENT);
}
END_TEST

START_TEST(a_setgid_directory_passes_its_group_on)
{
	inum_t dir = directory(FS_ROOT_INO, "d");
	struct inode_record values = {.mode = S_ISGID | 0755, .gid = 77};
	struct fs_attr attr;

	expect_equal(fs_setattr(fix.fs, dir, FS_SET_MODE | FS_SET_GID, &values, &attr), 0);
	expect_equal(attr_of(file(dir, "f")).record.gid, 77);
	attr = attr_of(directory(dir, "sub"));
	expect_equal(attr.record.gid, 77);
	expect(attr.record.mode & S_ISGID);
}
END_TEST

START_TEST(nothing_is_made_in_a_removed_directory_or_in_a_file)
{
	inum_t dir, ino, f = file(FS_ROOT_INO, "f");
	struct fs_attr attr;

	expect_equal(fs_create(fix.fs, &who, FS_ROOT_INO, "d", S_IFDIR | 0755, 0, &attr), 0);
	dir = attr.ino;
	expect_equal(fs_rmdir(fix.fs, FS_ROOT_INO, "d"), 0);
	expect_equal(fsfix_mkfile(&fix, dir, "x", &ino), -ENOENT);
	expect_equal(fsfix_mkfile(&fix, f, "x", &ino), -ENOTDIR);
	fs_forget(fix.fs, dir, 1);
}
END_TEST

START_TEST(dots_are_looked_up)
{
	inum_t a = directory(FS_ROOT_INO, "a"), b = directory(a, "b"), f = file(b, "f");

	expect_equal(ino_at(b, "."), b);
	expect_equal(ino_at(b, ".."), a);
	expect_equal(ino_at(FS_ROOT_INO, ".."), FS_ROOT_INO);
	expect_equal(ino_at(f, "."), f);
}
END_TEST

START_TEST(what_has_no_name_any_more_is_not_found_by_its_number)
{
	inum_t f = file(FS_ROOT_INO, "f");
	struct fs_attr attr;

	expect_equal(fs_lookup(fix.fs, FS_ROOT_INO, "f", &attr), 0);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "f"), 0);
	expect_equal(fs_getattr(fix.fs, f, &attr), 0);
	expect_equal(fs_lookup(fix.fs, f, ".", &attr), -ENOENT);
	fs_forget(fix.fs, f, 1);
}
END_TEST

/* --- symlinks ------------------------------------------------------------------------------------------------------------- */

START_TEST(symlink_targets_up_to_4095_bytes_come_back_whole)
{
	static const size_t lengths[] = {1, 999, 1000, 1001, 2000, 4095};
	char target[5000], back[5000], name[16];
	struct fs_attr attr;

	for (size_t i = 0; i < sizeof(target); i++)
		target[i] = (char)('a' + i % 23);
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		char kept = target[lengths[i]];

		snprintf(name, sizeof(name), "l%u", i);
		target[lengths[i]] = '\0';
		expect_equal(fs_symlink(fix.fs, &who, FS_ROOT_INO, name, target, &attr), 0);
		expect_equal(attr.record.size_bytes, lengths[i]);
		expect_equal(fs_readlink(fix.fs, attr.ino, back, sizeof(back)), 0);
		expect(strcmp(target, back) == 0);
		expect_equal(fs_readlink(fix.fs, attr.ino, back, 1), 0);
		expect_equal(back[0], 0);
		fs_forget(fix.fs, attr.ino, 1);
		target[lengths[i]] = kept;
	}
	target[4096] = '\0';
	expect_equal(fs_symlink(fix.fs, &who, FS_ROOT_INO, "long", target, &attr), -ENAMETOOLONG);
	expect_equal(fs_readlink(fix.fs, FS_ROOT_INO, back, sizeof(back)), -EINVAL);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

/* --- links ---------------------------------------------------------------------------------------------------------------- */

START_TEST(two_hard_links_in_one_directory_give_two_paths)
{
	inum_t dir = directory(FS_ROOT_INO, "d"), f = file(dir, "one");
	struct fs_attr attr;
	char **paths;
	uint32_t generation;
	size_t count;

	expect_equal(fs_link(fix.fs, f, dir, "two", &attr), 0);
	fs_forget(fix.fs, f, 1);
	expect_equal(attr.record.nlink, 2);
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(fs_paths(fix.fs, f, &generation, &paths, &count), 0);
	expect_equal(count, 2);
	expect(strcmp(paths[0], paths[1]) != 0);
	for (unsigned i = 0; i < 2; i++)
		expect(strcmp(paths[i], "/d/one") == 0 || strcmp(paths[i], "/d/two") == 0);
	fs_paths_free(paths, count);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(a_directory_has_no_second_name)
{
	inum_t dir = directory(FS_ROOT_INO, "d");
	struct fs_attr attr;

	expect_equal(fs_link(fix.fs, dir, FS_ROOT_INO, "e", &attr), -EPERM);
}
END_TEST

START_TEST(unlink_and_rmdir_tell_files_from_directories)
{
	inum_t dir = directory(FS_ROOT_INO, "d");

	file(FS_ROOT_INO, "f");
	file(dir, "x");
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "d"), -EISDIR);
	expect_equal(fs_rmdir(fix.fs, FS_ROOT_INO, "f"), -ENOTDIR);
	expect_equal(fs_rmdir(fix.fs, FS_ROOT_INO, "d"), -ENOTEMPTY);
	expect_equal(attr_of(FS_ROOT_INO).record.nlink, 3);
	expect_equal(fs_unlink(fix.fs, dir, "x"), 0);
	expect_equal(fs_rmdir(fix.fs, FS_ROOT_INO, "d"), 0);
	expect_equal(attr_of(FS_ROOT_INO).record.nlink, 2);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

/* --- rename --------------------------------------------------------------------------------------------------------------- */

START_TEST(rename_moves_and_replaces)
{
	inum_t a = directory(FS_ROOT_INO, "a"), b = directory(FS_ROOT_INO, "b");
	inum_t f = file(a, "f"), g = file(b, "g");

	expect_equal(move(a, "f", b, "g", 0), 0);
	expect_equal(ino_at(a, "f"), 0);
	expect_equal(ino_at(b, "g"), f);
	wait_until_gone(g);
	expect_equal(attr_of(a).record.entries, 0);
	expect_equal(attr_of(b).record.entries, 1);
	expect_equal(move(b, "g", b, "h", 0), 0);
	expect_equal(ino_at(b, "h"), f);
	expect_equal(move(b, "none", b, "h", 0), -ENOENT);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(rename_of_a_directory_changes_its_parent_and_both_link_counts)
{
	inum_t a = directory(FS_ROOT_INO, "a"), b = directory(FS_ROOT_INO, "b"), d = directory(a, "d");
	inum_t empty = directory(b, "empty");

	expect_equal(move(a, "d", b, "d", 0), 0);
	expect_equal(attr_of(a).record.nlink, 2);
	expect_equal(attr_of(b).record.nlink, 4);
	expect_equal(ino_at(d, ".."), b);
	expect_equal(move(b, "d", b, "empty", 0), 0);
	expect_equal(ino_at(b, "empty"), d);
	expect(d != empty);
	expect_equal(attr_of(b).record.nlink, 3);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(rename_refuses_what_posix_refuses)
{
	inum_t a = directory(FS_ROOT_INO, "a"), b = directory(a, "b"), c = directory(b, "c");

	file(FS_ROOT_INO, "f");
	file(a, "g");
	expect_equal(move(FS_ROOT_INO, "a", c, "x", 0), -EINVAL);
	expect_equal(move(FS_ROOT_INO, "a", a, "x", 0), -EINVAL);
	expect_equal(move(FS_ROOT_INO, "f", FS_ROOT_INO, "a", 0), -EISDIR);
	expect_equal(move(FS_ROOT_INO, "a", FS_ROOT_INO, "f", 0), -ENOTDIR);
	expect_equal(move(a, "b", FS_ROOT_INO, "a", 0), -ENOTEMPTY);
	expect_equal(move(FS_ROOT_INO, "f", a, "g", RENAME_NOREPLACE), -EEXIST);
	expect_equal(move(FS_ROOT_INO, "f", a, "none", RENAME_EXCHANGE), -ENOENT);
	expect_equal(move(FS_ROOT_INO, "f", a, "g", RENAME_NOREPLACE | RENAME_EXCHANGE), -EINVAL);
	expect_equal(move(FS_ROOT_INO, "f", a, "g", RENAME_WHITEOUT | RENAME_EXCHANGE), -EINVAL);
	expect_equal(move(FS_ROOT_INO, "f", a, "g", RENAME_WHITEOUT | RENAME_NOREPLACE), -EEXIST);
	expect_equal(move(FS_ROOT_INO, "f", a, "g", 8), -EINVAL);
	expect_equal(move(FS_ROOT_INO, "a", c, "c", RENAME_EXCHANGE), -ENOENT);
	expect_equal(move(FS_ROOT_INO, "a", b, "c", RENAME_EXCHANGE), -EINVAL);
	expect_equal(move(b, "c", FS_ROOT_INO, "a", RENAME_EXCHANGE), -EINVAL);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(rename_exchanges_a_file_and_a_directory)
{
	inum_t a = directory(FS_ROOT_INO, "a"), b = directory(FS_ROOT_INO, "b");
	inum_t d = directory(a, "d"), f = file(b, "f");

	expect_equal(move(a, "d", b, "f", RENAME_EXCHANGE), 0);
	expect_equal(ino_at(a, "d"), f);
	expect_equal(ino_at(b, "f"), d);
	expect_equal(attr_of(a).record.nlink, 2);
	expect_equal(attr_of(b).record.nlink, 3);
	expect_equal(ino_at(d, ".."), b);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(rename_leaves_a_whiteout_that_belongs_to_whoever_asked)
{
	inum_t a = directory(FS_ROOT_INO, "a"), d = directory(a, "d"), f = file(a, "f"), old = file(FS_ROOT_INO, "old");
	struct fs_attr left;

	expect_equal(move(a, "f", FS_ROOT_INO, "old", RENAME_WHITEOUT), 0);
	expect_equal(move(a, "d", FS_ROOT_INO, "d", RENAME_WHITEOUT), 0);
	expect_equal(ino_at(FS_ROOT_INO, "old"), f);
	expect_equal(ino_at(FS_ROOT_INO, "d"), d);
	expect_equal(ino_at(d, ".."), FS_ROOT_INO);
	expect_equal(attr_of(a).record.entries, 2);
	expect_equal(attr_of(a).record.nlink, 2);
	wait_until_gone(old);
	left = attr_of(ino_at(a, "f"));
	expect_equal(left.record.mode, S_IFCHR);
	expect_equal(left.record.rdev, 0);
	expect_equal(left.record.nlink, 1);
	expect_equal(left.record.uid, who.uid);
	expect_equal(left.record.gid, who.gid);
	expect(ino_at(a, "d") != left.ino && S_ISCHR(attr_of(ino_at(a, "d")).record.mode));
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

static void set_links(inum_t ino, uint32_t nlink)
{
	struct inode_record record;
	struct inode *inode;
	struct tx *tx;

	expect_equal(inode_get(fix.fs, ino, &inode), 0);
	expect_equal(fs_tx_begin(fix.fs, TX_NORMAL, &tx), 0);
	record = inode->record;
	record.nlink = nlink;
	expect_equal(inode_update(inode, tx, &record), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	inode_put(inode);
}

START_TEST(links_beyond_the_largest_number_are_refused)
{
	inum_t f = file(FS_ROOT_INO, "f"), a = directory(FS_ROOT_INO, "a");
	struct fs_attr attr;

	directory(FS_ROOT_INO, "b");
	set_links(f, FS_LINK_MAX);
	set_links(a, FS_LINK_MAX);
	expect_equal(fs_link(fix.fs, f, FS_ROOT_INO, "again", &attr), -EMLINK);
	expect_equal(fs_create(fix.fs, &who, a, "sub", S_IFDIR | 0755, 0, &attr), -EMLINK);
	expect_equal(move(FS_ROOT_INO, "b", a, "b", 0), -EMLINK);
	expect_equal(move(FS_ROOT_INO, "b", a, "b", RENAME_WHITEOUT), -EMLINK);
	expect_equal(attr_of(f).record.nlink, FS_LINK_MAX);
	expect_equal(ino_at(a, "sub"), 0);
	file(a, "file");
	set_links(f, 1);
	set_links(a, 2);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(rename_of_one_inode_onto_its_other_name_does_nothing)
{
	inum_t f = file(FS_ROOT_INO, "one");
	struct fs_attr attr;

	expect_equal(fs_link(fix.fs, f, FS_ROOT_INO, "two", &attr), 0);
	fs_forget(fix.fs, f, 1);
	expect_equal(move(FS_ROOT_INO, "one", FS_ROOT_INO, "two", 0), 0);
	expect_equal(ino_at(FS_ROOT_INO, "one"), f);
	expect_equal(ino_at(FS_ROOT_INO, "two"), f);
	expect_equal(move(FS_ROOT_INO, "one", FS_ROOT_INO, "one", 0), 0);
}
END_TEST

START_TEST(a_replaced_file_that_is_held_lives_until_it_is_forgotten)
{
	struct fs_attr held;

	expect_equal(fs_create(fix.fs, &who, FS_ROOT_INO, "old", S_IFREG | 0600, 0, &held), 0);
	file(FS_ROOT_INO, "new");
	expect_equal(move(FS_ROOT_INO, "new", FS_ROOT_INO, "old", 0), 0);
	expect_equal(attr_of(held.ino).record.nlink, 0);
	fs_forget(fix.fs, held.ino, 1);
	wait_until_gone(held.ino);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(rename_is_one_effect_whatever_moment_a_crash_takes)
{
	inum_t f = file(FS_ROOT_INO, "from"), moved;

	expect_equal(move(FS_ROOT_INO, "from", FS_ROOT_INO, "to", 0), 0);
	expect_equal(fsfix_crash(&fix), 0);
	expect_equal(fsfix_mount(&fix), 0);
	moved = ino_at(FS_ROOT_INO, "to");
	expect((moved == f) != (ino_at(FS_ROOT_INO, "from") == f));
	expect_equal(moved, f);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

/* --- orphans -------------------------------------------------------------------------------------------------------------- */

START_TEST(an_unlinked_open_file_is_read_until_forget_then_freed)
{
	char data[10000], back[10000];
	struct fs_statfs before, during, after;
	struct fs_attr attr;
	size_t done;

	memset(data, 'd', sizeof(data));
	fs_statfs(fix.fs, &before);
	expect_equal(fs_create(fix.fs, &who, FS_ROOT_INO, "f", S_IFREG | 0600, 0, &attr), 0);
	expect_equal(fs_write(fix.fs, attr.ino, 0, data, sizeof(data), &done), 0);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "f"), 0);
	expect_equal(fs_read(fix.fs, attr.ino, 0, back, sizeof(back), &done), 0);
	expect_equal(done, sizeof(data));
	expect(memcmp(data, back, sizeof(data)) == 0);
	expect_equal(fsfix_check(&fix), 0);
	fs_statfs(fix.fs, &during);
	expect(during.free_blocks < before.free_blocks);
	fs_forget(fix.fs, attr.ino, 1);
	wait_until_gone(attr.ino);
	fs_statfs(fix.fs, &after);
	expect_equal(after.free_blocks, before.free_blocks);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(orphans_of_a_crash_are_reclaimed_at_the_next_mount)
{
	struct fs_attr attr[5];
	struct fs_statfs before, after;
	char name[16], data[5000];
	size_t done;

	memset(data, 'o', sizeof(data));
	fs_statfs(fix.fs, &before);
	for (unsigned i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		expect_equal(fs_create(fix.fs, &who, FS_ROOT_INO, name, S_IFREG | 0600, 0, &attr[i]), 0);
		expect_equal(fs_write(fix.fs, attr[i].ino, 0, data, sizeof(data), &done), 0);
		expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, name), 0);
	}
	expect_equal(fsfix_crash(&fix), 0);
	expect_equal(fsfix_mount(&fix), 0);
	for (unsigned i = 0; i < 5; i++)
		wait_until_gone(attr[i].ino);
	fs_statfs(fix.fs, &after);
	expect_equal(after.free_blocks, before.free_blocks);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(unmount_frees_what_the_kernel_held)
{
	struct fs_attr attr, gone;

	expect_equal(fs_create(fix.fs, &who, FS_ROOT_INO, "f", S_IFREG | 0600, 0, &attr), 0);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "f"), 0);
	expect_equal(fsfix_unmount(&fix), 0);
	fix.options.readonly = true; /* so that mount itself reclaims nothing */
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fs_getattr(fix.fs, attr.ino, &gone), -ENOENT);
}
END_TEST

START_TEST(a_tmpfile_has_no_name_until_it_is_linked)
{
	struct fs_attr attr, linked;

	expect_equal(fs_tmpfile(fix.fs, &who, FS_ROOT_INO, S_IFREG | 0600, &attr), 0);
	expect_equal(attr.record.nlink, 0);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fs_link(fix.fs, attr.ino, FS_ROOT_INO, "named", &linked), 0);
	expect_equal(linked.record.nlink, 1);
	fs_forget(fix.fs, attr.ino, 2);
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(ino_at(FS_ROOT_INO, "named"), attr.ino);
	expect_equal(fs_tmpfile(fix.fs, &who, FS_ROOT_INO, S_IFREG | 0600, &attr), 0);
	fs_forget(fix.fs, attr.ino, 1);
	wait_until_gone(attr.ino);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

/* --- no space ------------------------------------------------------------------------------------------------------------- */

static unsigned fill_with_names(inum_t dir)
{
	char name[200];
	unsigned made = 0;
	inum_t ino;
	int error;

	memset(name, 'n', sizeof(name));
	do {
		snprintf(name + 150, 50, "%u", made);
		error = fsfix_mkfile(&fix, dir, name, &ino);
		made += !error;
	} while (!error && made < 1000000);
	expect_equal(error, -ENOSPC);
	return made;
}

START_TEST(a_full_filesystem_refuses_cleanly_and_lets_everything_be_deleted)
{
	inum_t dir = directory(FS_ROOT_INO, "d"), big = file(FS_ROOT_INO, "big");
	static char data[1 << 20];
	struct fs_statfs empty, after;
	uint64_t pos = 0;
	unsigned made;
	char name[200];
	size_t done;
	int error;

	fs_statfs(fix.fs, &empty);
	memset(data, 'b', sizeof(data));
	do {
		error = fs_write(fix.fs, big, pos, data, sizeof(data), &done);
		pos += done;
	} while (!error);
	expect_equal(error, -ENOSPC);
	made = fill_with_names(dir);
	expect_equal(attr_of(dir).record.entries, made);
	expect_equal(fsfix_check(&fix), 0);
	memset(name, 'n', sizeof(name));
	for (unsigned i = 0; i < made; i++) {
		snprintf(name + 150, 50, "%u", i);
		expect_equal(fs_unlink(fix.fs, dir, name), 0);
	}
	expect_equal(fs_rmdir(fix.fs, FS_ROOT_INO, "d"), 0);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "big"), 0);
	wait_until_gone(big);
	expect_equal(fsfix_check(&fix), 0);
	fs_statfs(fix.fs, &after);
	expect(after.free_blocks > empty.free_blocks / 2);
	file(FS_ROOT_INO, "again");
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(names_alone_fill_the_filesystem_cleanly)
{
	inum_t dir = directory(FS_ROOT_INO, "d");
	unsigned made = fill_with_names(dir);
	char name[200];

	expect(made > 1000);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(attr_of(dir).record.entries, made);
	memset(name, 'n', sizeof(name));
	for (unsigned i = 0; i < made; i++) {
		snprintf(name + 150, 50, "%u", i);
		expect_equal(fs_unlink(fix.fs, dir, name), 0);
	}
	expect_equal(fs_rmdir(fix.fs, FS_ROOT_INO, "d"), 0);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(space_of_a_file_just_deleted_is_there_for_the_next_write)
{
	static char data[1 << 20];
	uint64_t filled[2] = {0};
	size_t done;

	memset(data, 'b', sizeof(data));
	for (unsigned i = 0; i < 6; i++) {
		inum_t ino = file(FS_ROOT_INO, "big");
		uint64_t pos = 0;
		int error;

		do {
			error = fs_write(fix.fs, ino, pos, data, sizeof(data), &done);
			pos += done;
		} while (!error);
		expect_equal(error, -ENOSPC);
		if (i == 0)
			filled[0] = pos;
		filled[1] = pos;
		expect(filled[1] >= filled[0] - filled[0] / 10);
		expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "big"), 0);
	}
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

/* --- abort ---------------------------------------------------------------------------------------------------------------- */

/* Padding is not compared. */
static bool records_equal(const struct inode_record *a, const struct inode_record *b)
{
	struct format_inode packed[2];

	format_inode_pack(&packed[0], a);
	format_inode_pack(&packed[1], b);
	return memcmp(&packed[0], &packed[1], sizeof(packed[0])) == 0;
}

START_TEST(an_operation_that_fails_changes_neither_memory_nor_media)
{
	inum_t a = directory(FS_ROOT_INO, "a"), d = directory(a, "d"), full = directory(FS_ROOT_INO, "full");
	struct fs_attr before[3], after[3];
	inum_t inos[3] = {a, d, full};

	file(full, "x");
	for (unsigned i = 0; i < 3; i++)
		before[i] = attr_of(inos[i]);
	expect_equal(move(a, "d", FS_ROOT_INO, "full", 0), -ENOTEMPTY);
	expect_equal(fs_rmdir(fix.fs, FS_ROOT_INO, "full"), -ENOTEMPTY);
	for (unsigned i = 0; i < 3; i++) {
		after[i] = attr_of(inos[i]);
		expect(records_equal(&before[i].record, &after[i].record));
	}
	expect_equal(fsfix_remount(&fix), 0);
	for (unsigned i = 0; i < 3; i++) {
		after[i] = attr_of(inos[i]);
		expect_equal(before[i].record.change, after[i].record.change);
		expect_equal(before[i].record.nlink, after[i].record.nlink);
	}
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

static void add_plain(TCase *t)
{
	tcase_add_test(t, create_gives_type_mode_owner_times_and_one_link);
	tcase_add_test(t, create_makes_devices_fifos_and_sockets);
	tcase_add_test(t, names_of_255_bytes_work_and_256_do_not);
	tcase_add_test(t, bad_names_are_refused);
	tcase_add_test(t, a_setgid_directory_passes_its_group_on);
	tcase_add_test(t, nothing_is_made_in_a_removed_directory_or_in_a_file);
	tcase_add_test(t, dots_are_looked_up);
	tcase_add_test(t, what_has_no_name_any_more_is_not_found_by_its_number);
	tcase_add_test(t, symlink_targets_up_to_4095_bytes_come_back_whole);
	tcase_add_test(t, two_hard_links_in_one_directory_give_two_paths);
	tcase_add_test(t, a_directory_has_no_second_name);
	tcase_add_test(t, unlink_and_rmdir_tell_files_from_directories);
	tcase_add_test(t, rename_moves_and_replaces);
	tcase_add_test(t, rename_of_a_directory_changes_its_parent_and_both_link_counts);
	tcase_add_test(t, rename_refuses_what_posix_refuses);
	tcase_add_test(t, rename_exchanges_a_file_and_a_directory);
	tcase_add_test(t, rename_leaves_a_whiteout_that_belongs_to_whoever_asked);
	tcase_add_test(t, links_beyond_the_largest_number_are_refused);
	tcase_add_test(t, rename_of_one_inode_onto_its_other_name_does_nothing);
	tcase_add_test(t, a_replaced_file_that_is_held_lives_until_it_is_forgotten);
	tcase_add_test(t, rename_is_one_effect_whatever_moment_a_crash_takes);
	tcase_add_test(t, an_unlinked_open_file_is_read_until_forget_then_freed);
	tcase_add_test(t, orphans_of_a_crash_are_reclaimed_at_the_next_mount);
	tcase_add_test(t, unmount_frees_what_the_kernel_held);
	tcase_add_test(t, a_tmpfile_has_no_name_until_it_is_linked);
	tcase_add_test(t, an_operation_that_fails_changes_neither_memory_nor_media);
}

int main(void)
{
	Suite *suite = suite_create("namei");
	TCase *plain = tcase_create("plain"), *small = tcase_create("small");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(plain, setup, teardown);
	tcase_set_timeout(plain, 120);
	add_plain(plain);
	suite_add_tcase(suite, plain);
	tcase_add_checked_fixture(small, setup_small, teardown);
	tcase_set_timeout(small, 240);
	tcase_add_test(small, a_full_filesystem_refuses_cleanly_and_lets_everything_be_deleted);
	tcase_add_test(small, space_of_a_file_just_deleted_is_there_for_the_next_write);
	tcase_add_test(small, names_alone_fill_the_filesystem_cleanly);
	suite_add_tcase(suite, small);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
