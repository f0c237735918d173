/* Growing, label and uuid: what a user may change of a superblock, whole at every moment. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/inode.h"
#include "journal/root.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"
#include "util/log.h"

#define SMALL FSFIX_SMALL_BYTES
#define LARGE (48ull << 20)

static struct fsfix fix;
static struct why why;

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, SMALL), 0);
}

static void teardown(void)
{
	fsfix_destroy(&fix);
}

static uint64_t free_blocks(void)
{
	struct fs_statfs statfs;

	fs_statfs(fix.fs, &statfs);
	return statfs.free_blocks;
}

/* All slots hold the same bytes, which state this size. */
static void expect_slots(uint64_t size_bytes)
{
	struct format_super raw, first = {0};
	struct super super;

	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++) {
		expect_equal(media_read(fs_media(fix.fs), super_slot_offset(slot), &raw, sizeof(raw), NULL), 0);
		if (slot == 0)
			first = raw;
		expect(memcmp(&raw, &first, sizeof(raw)) == 0);
	}
	expect_equal(format_super_unpack(&super, &first, &why), 0);
	expect(super.size_bytes == size_bytes);
}

START_TEST(a_mounted_filesystem_grows_with_its_file)
{
	uint64_t before = free_blocks(), size = 20 << 20;
	uint8_t *bytes = calloc(1, size);
	size_t done;
	inum_t ino;

	memset(bytes, 0x42, size);
	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, "file", &ino), 0);
	expect_equal(fs_write(fix.fs, ino, 0, bytes, size, &done), -ENOSPC);
	expect_equal(fs_resize(fix.fs, LARGE, &why), 0);
	expect_equal(fs_write(fix.fs, ino, 0, bytes, size, &done), 0);
	expect_equal(fsfix_check(&fix), 0);
	expect_slots(LARGE);
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "file"), 0);
	expect_equal(fsfix_remount(&fix), 0);
	expect(free_blocks() == before + (LARGE - SMALL) / BLOCK_BYTES);
	free(bytes);
}
END_TEST

START_TEST(nothing_or_max_means_all_that_the_file_has)
{
	expect_equal(fs_resize(fix.fs, 0, &why), 0);
	expect_slots(SMALL);
	expect_equal(truncate(fix.path, LARGE), 0);
	expect_equal(fs_resize(fix.fs, 0, &why), 0);
	expect_slots(LARGE);
	expect_equal(fs_resize(fix.fs, SMALL, &why), -EINVAL);
	expect_equal(fs_resize(fix.fs, LARGE + 1, &why), -EINVAL);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

/* The superblock states the new size (in the first slots only), and then the power goes. */
START_TEST(a_resize_that_was_cut_is_finished_by_the_next_mount)
{
	struct media_options options = {0};
	struct super super;
	struct media *media;
	uint64_t before = free_blocks();

	expect_equal(fsfix_unmount(&fix), 0);
	expect_equal(truncate(fix.path, LARGE), 0);
	expect_equal(media_open(fix.path, &options, &why, &media), 0);
	expect_equal(fs_read_super(media, &super, &why), 0);
	super.update++;
	super.size_bytes = LARGE;
	super.slots = _i ? 0x0f : 0xff;
	if (_i) { /* slots 0 to 3 are new, the others are as they were */
		struct format_super packed;

		super.slots = 0xff;
		format_super_pack(&packed, &super);
		for (unsigned slot = 0; slot < 4; slot++)
			expect_equal(media_write(media, super_slot_offset(slot), &packed, sizeof(packed), NULL), 0);
	} else {
		expect_equal(fs_write_super(media, &super), 0);
	}
	expect_equal(media_close(media), 0);
	fix.options.readonly = true;
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_unmount(&fix), 0);
	fix.options.readonly = false;
	expect_equal(fsfix_mount(&fix), 0);
	expect_slots(LARGE);
	expect(free_blocks() == before + (LARGE - SMALL) / BLOCK_BYTES);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(a_resize_that_could_not_be_finished_is_finished_by_the_next)
{
	struct super super = *fs_super(fix.fs);
	uint64_t before = free_blocks();

	expect_equal(media_grow(fs_media(fix.fs), LARGE, &why), 0);
	super.size_bytes = LARGE;
	expect_equal(super_update(fix.fs, &super, &why), 0);
	expect(free_blocks() == before);
	expect_equal(fs_resize(fix.fs, LARGE, &why), 0);
	expect(free_blocks() == before + (LARGE - SMALL) / BLOCK_BYTES);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

/* Else the file would be as long, where the host can do that, and too long for the next mount. */
START_TEST(a_size_that_no_process_can_map_is_refused)
{
	expect_equal(fs_resize(fix.fs, 1ull << 50, &why), -EINVAL);
	expect_equal(fs_resize(fix.fs, 1ull << 63, &why), -EINVAL);
	expect_slots(SMALL);
}
END_TEST

START_TEST(what_is_bad_behind_the_old_end_is_never_handed_out)
{
	struct fs_summary summary;

	expect_equal(fsfix_unmount(&fix), 0);
	expect_equal(truncate(fix.path, LARGE), 0);
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fs_inject(fix.fs, SMALL + 100 * BLOCK_BYTES, 10 * BLOCK_BYTES, false), 0);
	expect_equal(fs_notify_wait(fix.fs, 5000), 0);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fs_resize(fix.fs, 0, &why), 0);
	expect_equal(fs_notify_wait(fix.fs, 5000), 0);
	expect_equal(fs_summary(fix.fs, &summary), 0);
	expect(summary.quarantined_bytes == 10 * BLOCK_BYTES);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(fs_summary(fix.fs, &summary), 0);
	expect(summary.quarantined_bytes == 10 * BLOCK_BYTES);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(metadata_goes_to_the_new_space)
{
	uint64_t size = 20 << 20;
	uint8_t *bytes = calloc(1, size);
	char name[32];
	size_t done;
	inum_t ino;

	memset(bytes, 0x42, size);
	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, "file", &ino), 0);
	expect_equal(fs_write(fix.fs, ino, 0, bytes, size, &done), -ENOSPC);
	free(bytes);
	expect_equal(fs_resize(fix.fs, LARGE, &why), 0);
	for (unsigned i = 0; i < 4000; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, name, &ino), 0);
	}
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(a_full_filesystem_grows)
{
	static const uint8_t bytes[BLOCK_BYTES] = {1};
	char name[32];
	size_t done;
	inum_t ino;
	int error = 0;

	for (unsigned i = 0; !error; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		error = fsfix_mkfile(&fix, FS_ROOT_INO, name, &ino);
		if (!error)
			error = fs_write(fix.fs, ino, 0, bytes, sizeof(bytes), &done);
	}
	expect_equal(error, -ENOSPC);
	expect_equal(fs_resize(fix.fs, 4 * SMALL, &why), 0);
	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, "one more", &ino), 0);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(a_size_within_the_file_is_a_multiple_of_blocks_too)
{
	expect_equal(fsfix_unmount(&fix), 0);
	expect_equal(truncate(fix.path, LARGE), 0);
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fs_resize(fix.fs, LARGE - 1, &why), -EINVAL);
	expect_slots(SMALL);
	expect_equal(fsfix_remount(&fix), 0);
}
END_TEST

START_TEST(however_much_is_bad_behind_the_old_end)
{
	struct fs_summary summary;
	const unsigned count = 3000; /* more than one transaction takes */

	expect_equal(fsfix_unmount(&fix), 0);
	expect_equal(truncate(fix.path, 4 * LARGE), 0);
	expect_equal(fsfix_mount(&fix), 0);
	for (unsigned i = 0; i < count; i++)
		expect_equal(fs_inject(fix.fs, SMALL + 2 * i * BLOCK_BYTES, BLOCK_BYTES, false), 0);
	expect_equal(fs_notify_wait(fix.fs, 20000), 0);
	expect_equal(fs_resize(fix.fs, 0, &why), 0);
	expect_equal(fs_notify_wait(fix.fs, 20000), 0);
	expect_equal(fs_summary(fix.fs, &summary), 0);
	expect_equal(summary.quarantined_bytes, count * BLOCK_BYTES);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

/* A root block that states too small a size would have owned blocks handed out. */
START_TEST(a_size_that_cannot_be_is_not_believed)
{
	uint8_t bytes[20000] = {1};
	struct tx *tx;
	size_t done;
	inum_t ino;

	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, "file", &ino), 0);
	expect_equal(fs_write(fix.fs, ino, 0, bytes, sizeof(bytes), &done), 0);
	expect_equal(tx_begin(fix.fs->journal, TX_RESERVE, &tx), 0);
	expect_equal(root_set(tx, ROOT_SIZE_BLOCKS, 64), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	expect_equal(fsfix_remount(&fix), 0);
	expect(fs_is_readonly(fix.fs));
	expect_equal(fs_read(fix.fs, ino, 0, bytes, sizeof(bytes), &done), 0);
	expect_equal(done, sizeof(bytes));
}
END_TEST

START_TEST(label_and_uuid_change_while_it_is_mounted)
{
	uint8_t uuid[FORMAT_UUID_BYTES] = {1, 2, 3};

	expect_equal(fs_set_label(fix.fs, "bücher", &why), 0);
	expect_equal(fs_set_uuid(fix.fs, uuid, &why), 0);
	expect(!strcmp(fs_super(fix.fs)->label, "bücher"));
	expect_slots(SMALL);
	expect_equal(fsfix_remount(&fix), 0);
	expect(!strcmp(fs_super(fix.fs)->label, "bücher"));
	expect(!memcmp(fs_super(fix.fs)->uuid, uuid, sizeof(uuid)));
	expect(memcmp(fs_super(fix.fs)->meta_uuid, uuid, sizeof(uuid)));
	expect_equal(fs_set_label(fix.fs, "tab\there", &why), -EINVAL);
	expect_equal(fs_set_label(fix.fs, "", &why), 0);
	expect(!strcmp(fs_super(fix.fs)->label, ""));
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(a_superblock_that_went_bad_is_rewritten_at_mount)
{
	static const uint8_t zeros[BLOCK_BYTES];

	expect_equal(media_write(fs_media(fix.fs), super_slot_offset(3), zeros, sizeof(zeros), NULL), 0);
	expect_equal(fsfix_remount(&fix), 0);
	expect_slots(SMALL);
}
END_TEST

/* Else it could store the superblock that it read before the change over the one after it. */
START_TEST(the_repair_of_a_superblock_waits_for_a_change_of_it)
{
	struct super super = *fs_super(fix.fs);

	pthread_mutex_lock(&fix.fs->super_lock);
	expect_equal(fs_inject(fix.fs, super_slot_offset(3), BLOCK_BYTES, false), 0);
	expect_equal(fs_notify_wait(fix.fs, 100), -ETIMEDOUT);
	super.label[0] = 'x';
	expect_equal(super_update(fix.fs, &super, &why), 0);
	pthread_mutex_unlock(&fix.fs->super_lock);
	expect_equal(fs_notify_wait(fix.fs, 5000), 0);
	expect_slots(SMALL);
}
END_TEST

START_TEST(nothing_changes_read_only)
{
	uint8_t uuid[FORMAT_UUID_BYTES] = {9};

	expect_equal(fsfix_unmount(&fix), 0);
	fix.options.readonly = true;
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fs_set_label(fix.fs, "x", &why), -EROFS);
	expect_equal(fs_set_uuid(fix.fs, uuid, &why), -EROFS);
	expect_equal(fs_resize(fix.fs, LARGE, &why), -EROFS);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("resize");
	TCase *tests = tcase_create("resize");
	SRunner *runner = srunner_create(suite);
	int failed;

	log_set_level(LOG_LEVEL_ERROR);
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, a_mounted_filesystem_grows_with_its_file);
	tcase_add_test(tests, nothing_or_max_means_all_that_the_file_has);
	tcase_add_loop_test(tests, a_resize_that_was_cut_is_finished_by_the_next_mount, 0, 2);
	tcase_add_test(tests, a_resize_that_could_not_be_finished_is_finished_by_the_next);
	tcase_add_test(tests, a_size_that_no_process_can_map_is_refused);
	tcase_add_test(tests, what_is_bad_behind_the_old_end_is_never_handed_out);
	tcase_add_test(tests, metadata_goes_to_the_new_space);
	tcase_add_test(tests, a_full_filesystem_grows);
	tcase_add_test(tests, a_size_within_the_file_is_a_multiple_of_blocks_too);
	tcase_add_test(tests, however_much_is_bad_behind_the_old_end);
	tcase_add_test(tests, a_size_that_cannot_be_is_not_believed);
	tcase_add_test(tests, label_and_uuid_change_while_it_is_mounted);
	tcase_add_test(tests, a_superblock_that_went_bad_is_rewritten_at_mount);
	tcase_add_test(tests, the_repair_of_a_superblock_waits_for_a_change_of_it);
	tcase_add_test(tests, nothing_changes_read_only);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
