/* Questions: paths, resolve, map, damaged, badblocks, summary. */
#include "tests/support/files.h"

#include <errno.h>
#include <stdio.h>

static const struct fs_who who = {.uid = 1000, .gid = 1000};
static struct fsfix fix;

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, 64u << 20), 0);
}

static void teardown(void)
{
	files_check(&fix);
	fsfix_destroy(&fix);
}

static bool has_path(inum_t ino, const char *path)
{
	uint32_t generation;
	char **paths;
	size_t count, i;
	bool found = false;

	expect_equal(fs_paths(fix.fs, ino, &generation, &paths, &count), 0);
	for (i = 0; i < count; i++)
		found |= strcmp(paths[i], path) == 0;
	fs_paths_free(paths, count);
	return found;
}

static size_t count_paths(inum_t ino)
{
	char **paths;
	size_t count;

	expect_equal(fs_paths(fix.fs, ino, NULL, &paths, &count), 0);
	fs_paths_free(paths, count);
	return count;
}

START_TEST(every_hard_link_is_a_path)
{
	struct fs_attr attr;
	inum_t dir, sub, ino;

	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "dir", &dir), 0);
	expect_equal(fsfix_mkdir(&fix, dir, "sub", &sub), 0);
	expect_equal(fsfix_mkfile(&fix, sub, "file", &ino), 0);
	expect_equal(fs_link(fix.fs, ino, sub, "second", &attr), 0);
	expect_equal(fs_link(fix.fs, ino, FS_ROOT_INO, "top", &attr), 0);
	fs_forget(fix.fs, ino, 2);
	expect_equal(count_paths(ino), 3);
	expect(has_path(ino, "/dir/sub/file") && has_path(ino, "/dir/sub/second") &&
	       has_path(ino, "/top"));
	expect(has_path(FS_ROOT_INO, "/") && has_path(sub, "/dir/sub"));
	expect_equal(fs_rename(fix.fs, &who, FS_ROOT_INO, "dir", FS_ROOT_INO, "moved", 0), 0);
	expect(has_path(ino, "/moved/sub/file"));
	expect_equal(fs_unlink(fix.fs, sub, "file"), 0);
	expect_equal(count_paths(ino), 2);
}
END_TEST

START_TEST(an_open_file_without_names_has_no_path)
{
	struct fs_attr attr;

	expect_equal(fs_create(fix.fs, &who, FS_ROOT_INO, "gone", 0100644, 0, &attr), 0);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "gone"), 0);
	expect_equal(count_paths(attr.ino), 0);
	fs_forget(fix.fs, attr.ino, 1);
}
END_TEST

START_TEST(more_links_than_one_batch)
{
	struct fs_attr attr;
	char name[32];
	inum_t ino = files_new(&fix, "file");

	for (unsigned i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "link%u", i);
		expect_equal(fs_link(fix.fs, ino, FS_ROOT_INO, name, &attr), 0);
	}
	fs_forget(fix.fs, ino, 200);
	expect_equal(count_paths(ino), 201);
}
END_TEST

START_TEST(deep_directories_have_paths)
{
	inum_t dir = FS_ROOT_INO, ino;
	char path[1024] = "";

	for (unsigned i = 0; i < 200; i++) {
		expect_equal(fsfix_mkdir(&fix, dir, "d", &dir), 0);
		strcat(path, "/d");
	}
	expect_equal(fsfix_mkfile(&fix, dir, "file", &ino), 0);
	strcat(path, "/file");
	expect(has_path(ino, path));
}
END_TEST

START_TEST(resolve_walks_names_and_symlinks_in_between)
{
	struct fs_attr attr;
	inum_t dir, ino, found;

	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "dir", &dir), 0);
	expect_equal(fsfix_mkfile(&fix, dir, "file", &ino), 0);
	expect_equal(fs_symlink(fix.fs, &who, FS_ROOT_INO, "link", "dir", &attr), 0);
	fs_forget(fix.fs, attr.ino, 1);
	expect_equal(fs_resolve(fix.fs, "/dir/file", &found), 0);
	expect_equal(found, ino);
	expect_equal(fs_resolve(fix.fs, "dir//./../dir/file", &found), 0);
	expect_equal(found, ino);
	expect_equal(fs_resolve(fix.fs, "/link/file", &found), 0);
	expect_equal(found, ino);
	expect_equal(fs_resolve(fix.fs, "/link", &found), 0);
	expect_equal(found, attr.ino);
	expect_equal(fs_resolve(fix.fs, "/", &found), 0);
	expect_equal(found, FS_ROOT_INO);
	expect_equal(fs_resolve(fix.fs, "/nothing", &found), -ENOENT);
	expect_equal(fs_resolve(fix.fs, "/dir/file/x", &found), -ENOTDIR);
	expect_equal(fs_symlink(fix.fs, &who, FS_ROOT_INO, "loop", "loop/x", &attr), 0);
	fs_forget(fix.fs, attr.ino, 1);
	expect_equal(fs_resolve(fix.fs, "/loop/y", &found), -ELOOP);
}
END_TEST

START_TEST(map_tells_shared_and_unwritten_apart)
{
	struct files_map map;
	inum_t from = files_new(&fix, "from"), to = files_new(&fix, "to");
	uint64_t done;

	files_write(&fix, from, 1, 0, 8 * BLOCK_BYTES);
	expect_equal(fs_copy_range(fix.fs, from, 2 * BLOCK_BYTES, to, 0, 2 * BLOCK_BYTES, &done),
		     0);
	expect_equal(fs_fallocate(fix.fs, from, 0, 8 * BLOCK_BYTES, BLOCK_BYTES), 0);
	files_map(&fix, from, &map);
	expect_equal(map.count, 4);
	expect(!map.extents[0].shared && map.extents[1].shared && !map.extents[2].shared &&
	       !map.extents[3].written);
	expect_equal(map.extents[1].pos, 2 * BLOCK_BYTES);
	expect_equal(map.extents[1].length_bytes, 2 * BLOCK_BYTES);
	map.count = 0;
	expect_equal(fs_map(fix.fs, from, 100, 50, files_map_add, &map), 0);
	expect_equal(map.count, 1);
	expect_equal(map.extents[0].length_bytes, 50);
	expect_equal(map.extents[0].device_offset, files_device_offset(&fix, from, 0) + 100);
}
END_TEST

START_TEST(damage_is_listed_per_file_in_whole_blocks)
{
	struct files_damage all;
	inum_t one = files_new(&fix, "one"), two = files_new(&fix, "two");

	files_write(&fix, one, 1, 0, 3 * BLOCK_BYTES + 100);
	expect_equal(fs_clone(fix.fs, one, two), 0);
	files_poison(&fix, one, BLOCK_BYTES + 700, 1, false);
	files_poison(&fix, one, 2 * BLOCK_BYTES, 600, false);
	files_poison(&fix, two, 3 * BLOCK_BYTES, 1, false);
	files_damaged(&fix, &all);
	expect_equal(all.count, 2);
	expect_equal(all.ranges[0].ino, one);
	expect_equal(all.ranges[1].ino, two);
	expect_equal(all.ranges[0].pos, BLOCK_BYTES);
	expect_equal(all.ranges[0].length_bytes, 2 * BLOCK_BYTES + 100);
	expect_equal(all.ranges[1].length_bytes, 2 * BLOCK_BYTES + 100);
	expect_equal(all.ranges[0].count_causes, 3);
}
END_TEST

START_TEST(unwritten_and_free_space_damages_nobody)
{
	struct files_damage all;
	inum_t ino = files_new(&fix, "file");

	expect_equal(fs_fallocate(fix.fs, ino, 0, 0, 8 * BLOCK_BYTES), 0);
	files_poison(&fix, ino, BLOCK_BYTES, 100, false);
	files_damaged(&fix, &all);
	expect_equal(all.count, 0);
	files_expect(&fix, ino, 0, 0, 8 * BLOCK_BYTES);
	files_write(&fix, ino, 1, BLOCK_BYTES + 10, 100);
	files_expect(&fix, ino, 1, BLOCK_BYTES + 10, 100);
}
END_TEST

START_TEST(taken_back_poison_heals_with_the_old_content)
{
	struct files_damage all;
	uint64_t removed;
	inum_t ino = files_new(&fix, "file");
	devoff_t at;

	files_write(&fix, ino, 1, 0, 4 * BLOCK_BYTES);
	at = files_device_offset(&fix, ino, BLOCK_BYTES);
	files_poison(&fix, ino, BLOCK_BYTES, 64, false);
	expect_equal(fs_uninject(fix.fs, at, 64, &removed), 0);
	expect_equal(removed, 64);
	files_expect(&fix, ino, 1, 0, 4 * BLOCK_BYTES);
	files_damaged(&fix, &all);
	expect_equal(all.count, 0);
}
END_TEST

static int count_badblock(void *arg, const struct badblock_record *record)
{
	uint64_t *bytes = arg;

	*bytes += record->length_bytes;
	return 0;
}

START_TEST(the_summary_counts_and_survives_a_remount)
{
	struct fs_summary s;
	inum_t ino = files_new(&fix, "file");
	uint64_t bytes = 0;

	expect_equal(fs_summary(fix.fs, &s), 0);
	expect(strcmp(s.state, "ok") == 0);
	expect_equal(s.size_bytes, 64u << 20);
	files_write(&fix, ino, 1, 0, 4 * BLOCK_BYTES);
	files_poison(&fix, ino, BLOCK_BYTES, 1, false);
	for (unsigned i = 0; i < 2; i++) {
		expect_equal(fs_summary(fix.fs, &s), 0);
		expect(strcmp(s.state, "degraded") == 0);
		expect_equal(s.badblock_bytes, 512);
		expect_equal(s.damaged_files, 1);
		expect_equal(fsfix_remount(&fix), 0);
	}
	expect_equal(fs_badblocks(fix.fs, count_badblock, &bytes), 0);
	expect_equal(bytes, 512);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("query");
	TCase *tests = tcase_create("query");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, every_hard_link_is_a_path);
	tcase_add_test(tests, an_open_file_without_names_has_no_path);
	tcase_add_test(tests, more_links_than_one_batch);
	tcase_add_test(tests, deep_directories_have_paths);
	tcase_add_test(tests, resolve_walks_names_and_symlinks_in_between);
	tcase_add_test(tests, map_tells_shared_and_unwritten_apart);
	tcase_add_test(tests, damage_is_listed_per_file_in_whole_blocks);
	tcase_add_test(tests, unwritten_and_free_space_damages_nobody);
	tcase_add_test(tests, taken_back_poison_heals_with_the_old_content);
	tcase_add_test(tests, the_summary_counts_and_survives_a_remount);
	suite_add_tcase(suite, tests);
	return files_run(suite);
}
