#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/inode.h"
#include "journal/chunk.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"
#include "util/crc.h"
#include "util/log.h"

static struct fsfix fix;
static const struct fs_who who = {.uid = 1000, .gid = 1000};

static void setup(void)
{
	expect_equal(fsfix_create(&fix, FSFIX_SMALL_BYTES), 0);
}

static void teardown(void)
{
	fsfix_destroy(&fix);
}

static uint32_t hash_of(const char *path)
{
	static char buffer[1 << 16];
	int fd = open(path, O_RDONLY);
	uint32_t crc = 0;
	ssize_t got;

	expect(fd >= 0);
	while ((got = read(fd, buffer, sizeof(buffer))) > 0)
		crc = crc32c(crc, buffer, (size_t)got);
	close(fd);
	return crc;
}

static void make_files(unsigned count)
{
	char name[32];
	inum_t ino;

	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, name, &ino), 0);
	}
}

static void expect_files(unsigned count)
{
	struct fs_attr attr;
	char name[32];

	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		expect_equal(fsfix_lookup(&fix, FS_ROOT_INO, name, &attr), 0);
	}
}

START_TEST(what_was_made_is_there_after_a_remount)
{
	expect_equal(fsfix_mount(&fix), 0);
	make_files(300);
	expect_equal(fsfix_remount(&fix), 0);
	expect_files(300);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(what_was_made_is_there_after_a_crash)
{
	expect_equal(fsfix_mount(&fix), 0);
	make_files(300);
	expect_equal(fsfix_crash(&fix), 0);
	expect_equal(fsfix_mount(&fix), 0);
	expect_files(300);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(a_readonly_mount_writes_not_one_byte)
{
	struct fs_attr attr;
	uint32_t before;
	inum_t ino;

	expect_equal(fsfix_mount(&fix), 0);
	make_files(50);
	expect_equal(fsfix_unmount(&fix), 0);
	before = hash_of(fix.path);
	fix.options.readonly = true;
	expect_equal(fsfix_mount(&fix), 0);
	expect(fs_is_readonly(fix.fs));
	expect_files(50);
	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, "no", &ino), -EROFS);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "file-1"), -EROFS);
	expect_equal(fsfix_lookup(&fix, FS_ROOT_INO, "file-1", &attr), 0);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_unmount(&fix), 0);
	expect(hash_of(fix.path) == before);
}
END_TEST

START_TEST(a_readonly_mount_of_a_dirty_journal_recovers_in_memory_only)
{
	uint32_t before;
	struct fs_attr held;

	expect_equal(fsfix_mount(&fix), 0);
	make_files(50);
	expect_equal(fs_create(fix.fs, &who, FS_ROOT_INO, "orphan", S_IFREG | 0600, 0, &held), 0);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "orphan"), 0);
	expect_equal(fsfix_crash(&fix), 0);
	before = hash_of(fix.path);
	fix.options.readonly = true;
	expect_equal(fsfix_mount(&fix), 0);
	expect_files(50);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_unmount(&fix), 0);
	expect(hash_of(fix.path) == before);
	fix.options.readonly = false;
	expect_equal(fsfix_mount(&fix), 0);
	expect_files(50);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(an_idle_mount_does_not_write)
{
	struct media_counts before, after;

	expect_equal(fsfix_mount(&fix), 0);
	make_files(5);
	sleep(3);
	media_counts(fs_media(fix.fs), &before);
	sleep(2);
	media_counts(fs_media(fix.fs), &after);
	expect_equal(after.writes, before.writes);
}
END_TEST

static int mount_error(char *text, size_t size)
{
	struct why why = {0};
	struct fs *fs;
	int error = fs_mount(fix.path, &fix.options, &why, &fs);

	if (!error)
		fs_unmount(fs);
	snprintf(text, size, "%s", why.text);
	return error;
}

START_TEST(a_zeroed_a_truncated_and_a_missing_image_are_refused_with_a_line)
{
	char text[1024];
	int fd = open(fix.path, O_RDWR);

	expect(fd >= 0);
	expect_equal(ftruncate(fd, FSFIX_SMALL_BYTES - (4 << 20)), 0);
	expect(mount_error(text, sizeof(text)) < 0);
	expect(text[0] != '\0');
	expect_equal(ftruncate(fd, 0), 0);
	expect(mount_error(text, sizeof(text)) < 0);
	expect_equal(ftruncate(fd, FSFIX_SMALL_BYTES), 0);
	expect(mount_error(text, sizeof(text)) < 0);
	expect(text[0] != '\0');
	close(fd);
	unlink(fix.path);
	expect_equal(mount_error(text, sizeof(text)), -ENOENT);
	expect(strstr(text, fix.path) != NULL);
}
END_TEST

START_TEST(known_poison_of_a_metadata_block_is_answered_from_its_copy_without_a_touch)
{
	char path[300], line[64];
	struct media_counts counts;
	devoff_t root;
	FILE *file;

	expect_equal(fsfix_mount(&fix), 0);
	make_files(100);
	root = fs_super(fix.fs)->areas[AREA_FIXED].copy[0];
	expect_equal(fsfix_unmount(&fix), 0);
	snprintf(path, sizeof(path), "%s.poison", fix.path);
	file = fopen(path, "w");
	snprintf(line, sizeof(line), "%llu 512", (unsigned long long)root);
	fprintf(file, "# mendfs poison for none\n%s\n", line);
	fclose(file);
	expect_equal(fsfix_mount(&fix), 0);
	expect_files(100);
	media_counts(fs_media(fix.fs), &counts);
	expect_equal(counts.sigbus, 0);
	expect_equal(fs_notify_wait(fix.fs, 5000), 0);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(every_unit_that_a_mount_runs_into_is_counted)
{
	struct fs_summary summary;
	char path[300];
	devoff_t log;
	FILE *file;

	expect_equal(fsfix_mount(&fix), 0);
	make_files(10);
	log = fs_super(fix.fs)->areas[AREA_POISON_LOG].copy[0];
	expect_equal(fsfix_unmount(&fix), 0);
	snprintf(path, sizeof(path), "%s.poison", fix.path);
	file = fopen(path, "w");
	/* Two sectors side by side, which the mount reads one by one. */
	fprintf(file, "# mendfs poison for none\n%llu 600 latent\n", (unsigned long long)log + 512);
	fclose(file);
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fs_notify_wait(fix.fs, 20000), 0);
	expect_equal(fs_summary(fix.fs, &summary), 0);
	expect_equal(summary.sigbus_count, 2);
	expect_equal(fsfix_unmount(&fix), 0);
	/* The log was rewritten there, which has cleared it. */
	expect_equal(access(path, F_OK), -1);
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fs_summary(fix.fs, &summary), 0);
	expect_equal(summary.sigbus_count, 2);
	expect_files(10);
}
END_TEST

START_TEST(poison_of_another_filesystem_is_dropped_again)
{
	char path[300];
	uint64_t length;
	devoff_t bad;
	FILE *file;

	snprintf(path, sizeof(path), "%s.poison", fix.path);
	file = fopen(path, "w");
	fprintf(file, "# mendfs poison for 01234567-89ab-cdef-0123-456789abcdef\n8192000 4096\n");
	fclose(file);
	expect_equal(fsfix_mount(&fix), 0);
	expect(!media_bad_find(fs_media(fix.fs), 0, FSFIX_SMALL_BYTES, &bad, &length));
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_unmount(&fix), 0);
	expect_equal(access(path, F_OK), 0);
}
END_TEST

static void rewrite_super(void (*change)(struct super *super))
{
	struct media_options options = {0};
	struct format_super raw;
	struct why why = {0};
	struct media *media;
	struct super super;

	expect_equal(media_open(fix.path, &options, &why, &media), 0);
	expect_equal(fs_read_super(media, &super, &why), 0);
	change(&super);
	super.update++;
	format_super_pack(&raw, &super);
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
		expect_equal(media_write(media, super_slot_offset(slot), &raw, sizeof(raw), NULL), 0);
	expect_equal(media_close(media), 0);
}

static void add_incompat(struct super *super)
{
	super->incompat |= 1ull << 40;
}

static void add_ro_compat(struct super *super)
{
	super->ro_compat |= 1ull << 41;
}

START_TEST(an_unknown_incompat_feature_refuses_by_name)
{
	char text[1024];

	rewrite_super(add_incompat);
	expect(mount_error(text, sizeof(text)) < 0);
	expect(strstr(text, "40") != NULL);
}
END_TEST

START_TEST(an_unknown_ro_compat_feature_mounts_read_only)
{
	uint32_t before;
	inum_t ino;

	expect_equal(fsfix_mount(&fix), 0);
	make_files(20);
	expect_equal(fsfix_crash(&fix), 0);
	rewrite_super(add_ro_compat);
	before = hash_of(fix.path);
	expect_equal(fsfix_mount(&fix), 0);
	expect(fs_is_readonly(fix.fs));
	expect_files(20);
	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, "no", &ino), -EROFS);
	expect_equal(fsfix_unmount(&fix), 0);
	expect(hash_of(fix.path) == before);
}
END_TEST

START_TEST(metadata_space_grows_and_is_given_back)
{
	uint64_t grown, after = UINT64_MAX;
	struct fs_statfs before, end;
	char name[64];
	inum_t ino;

	expect_equal(fsfix_mount(&fix), 0);
	fs_statfs(fix.fs, &before);
	for (unsigned i = 0; i < 7000; i++) {
		snprintf(name, sizeof(name), "a-rather-long-name-so-that-blocks-fill-%u", i);
		expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, name, &ino), 0);
	}
	fs_statfs(fix.fs, &end);
	grown = before.free_blocks - end.free_blocks;
	expect(grown > 1000);
	for (unsigned i = 0; i < 7000; i++) {
		snprintf(name, sizeof(name), "a-rather-long-name-so-that-blocks-fill-%u", i);
		expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, name), 0);
	}
	for (unsigned i = 0; i < 1000 && after >= grown / 2; i++) {
		usleep(10000);
		fs_statfs(fix.fs, &end);
		after = before.free_blocks - end.free_blocks;
	}
	expect(after < grown / 2);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_crash(&fix) ?: fsfix_mount(&fix), 0);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(statfs_counts)
{
	struct fs_statfs st;

	expect_equal(fsfix_mount(&fix), 0);
	fs_statfs(fix.fs, &st);
	expect_equal(st.total_blocks, FSFIX_SMALL_BYTES / BLOCK_BYTES);
	expect(st.free_blocks > 0 && st.free_blocks < st.total_blocks);
	expect_equal(st.available_blocks, st.free_blocks - 64); /* the reserve for deletes and repair */
	expect_equal(st.inodes, 1);
}
END_TEST

/* The file's bytes from `skip` on are the new file's from `lead` on, which is so long. */
static void move_image(uint64_t skip, uint64_t lead, uint64_t length)
{
	char *bytes = calloc(1, length), from[300];
	int fd = open(fix.path, O_RDONLY);
	size_t got;

	expect(bytes && fd >= 0);
	got = (size_t)pread(fd, bytes + lead, FSFIX_SMALL_BYTES - skip, (off_t)skip);
	expect_equal(got, FSFIX_SMALL_BYTES - skip);
	close(fd);
	snprintf(from, sizeof(from), "%s.moved", fix.path);
	fd = open(from, O_WRONLY | O_CREAT | O_EXCL, 0600);
	expect(fd >= 0);
	expect_equal(write(fd, bytes, length), (ssize_t)length);
	close(fd);
	expect_equal(rename(from, fix.path), 0);
	free(bytes);
}

/* As when a namespace is made anew and larger: its data begin elsewhere, and superblocks lie at every 2 MiB. */
START_TEST(a_filesystem_that_no_longer_begins_where_it_began_is_refused)
{
	char text[1024];
	uint32_t hash;

	for (uint64_t skip = 2ull << 20; skip <= 4ull << 20; skip += 2ull << 20) {
		move_image(skip, 0, FSFIX_SMALL_BYTES + (8ull << 20));
		hash = hash_of(fix.path);
		expect(mount_error(text, sizeof(text)) == -EUCLEAN);
		expect(strstr(text, "no longer begins where it began") != NULL);
		fix.options.repair = true;
		expect(mount_error(text, sizeof(text)) == -EUCLEAN);
		fix.options.repair = false;
		expect(hash_of(fix.path) == hash);
		teardown();
		setup();
	}
	move_image(0, 0, FSFIX_SMALL_BYTES + (8ull << 20));
	expect_equal(fsfix_mount(&fix), 0);
}
END_TEST

static int shutdowns_error = -ENOTSUP;
static uint64_t shutdowns;
static unsigned shutdowns_told;

int __wrap_media_unsafe_shutdowns(struct media *media, uint64_t *count);
void __wrap_log_message(enum log_level level, const char *format, ...);

int __wrap_media_unsafe_shutdowns(struct media *media, uint64_t *count)
{
	*count = shutdowns;
	return shutdowns_error;
}

void __wrap_log_message(enum log_level level, const char *format, ...)
{
	shutdowns_told += level == LOG_LEVEL_WARNING && strstr(format, "unsafe shutdowns") != NULL;
}

static void expect_shutdowns_told(uint64_t count, unsigned told)
{
	shutdowns = count;
	shutdowns_told = 0;
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(shutdowns_told, told);
	expect_equal(fsfix_unmount(&fix), 0);
}

START_TEST(an_unsafe_shutdown_since_the_last_mount_is_told_once)
{
	expect_shutdowns_told(3, 0); /* not to be had */
	shutdowns_error = 0;
	expect_shutdowns_told(3, 0); /* nothing to compare with */
	expect_shutdowns_told(3, 0);
	fix.options.readonly = true;
	expect_shutdowns_told(4, 0);
	fix.options.readonly = false;
	expect_shutdowns_told(4, 1);
	expect_shutdowns_told(4, 0);
	expect_shutdowns_told(0, 1); /* other DIMMs */
	expect_shutdowns_told(UINT64_MAX, 0);
	expect_shutdowns_told(0, 0);
	shutdowns_error = -ENOTSUP;
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("mount");
	TCase *t = tcase_create("plain");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, what_was_made_is_there_after_a_remount);
	tcase_add_test(t, what_was_made_is_there_after_a_crash);
	tcase_add_test(t, a_readonly_mount_writes_not_one_byte);
	tcase_add_test(t, a_readonly_mount_of_a_dirty_journal_recovers_in_memory_only);
	tcase_add_test(t, an_idle_mount_does_not_write);
	tcase_add_test(t, a_zeroed_a_truncated_and_a_missing_image_are_refused_with_a_line);
	tcase_add_test(t, known_poison_of_a_metadata_block_is_answered_from_its_copy_without_a_touch);
	tcase_add_test(t, every_unit_that_a_mount_runs_into_is_counted);
	tcase_add_test(t, poison_of_another_filesystem_is_dropped_again);
	tcase_add_test(t, an_unknown_incompat_feature_refuses_by_name);
	tcase_add_test(t, an_unknown_ro_compat_feature_mounts_read_only);
	tcase_add_test(t, metadata_space_grows_and_is_given_back);
	tcase_add_test(t, statfs_counts);
	tcase_add_test(t, a_filesystem_that_no_longer_begins_where_it_began_is_refused);
	tcase_add_test(t, an_unsafe_shutdown_since_the_last_mount_is_told_once);
	suite_add_tcase(suite, t);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
