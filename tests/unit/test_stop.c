/* fs_stop(): what FS_IOC_SHUTDOWN asks for. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/inode.h"
#include "tests/support/expect.h"
#include "tests/support/files.h"
#include "tests/support/fsfix.h"

static struct fsfix fix;
static const struct fs_who root = {.uid = 0};
static const enum fs_stop_mode modes[] = {FS_STOP_SYNCED, FS_STOP_LOGGED, FS_STOP_AT_ONCE};

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, FSFIX_SMALL_BYTES), 0);
}

static void teardown(void)
{
	fsfix_destroy(&fix);
}

static inum_t make(const char *name)
{
	inum_t ino;

	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, name, &ino), 0);
	return ino;
}

/* The host lost power, but where nothing was promised for that: the daemon's death and what it leaves is enough there. */
static void remount_after(enum fs_stop_mode mode)
{
	expect_equal(fsfix_unmount(&fix), 0);
	if (mode != FS_STOP_AT_ONCE)
		setenv("MENDFS_BOOT_ID", "another", 1);
	expect_equal(fsfix_mount(&fix), 0);
	unsetenv("MENDFS_BOOT_ID");
}

static void put(inum_t ino, const char *text)
{
	size_t done;

	expect_equal(fs_write(fix.fs, ino, 0, text, strlen(text), &done), 0);
}

static int visit_none(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next, const struct fs_attr *attr)
{
	return 0;
}

static void expect_reads_refused(inum_t ino)
{
	struct fs_attr attr;
	char buffer[64];
	uint64_t pos;
	size_t done;

	expect_equal(fs_getattr(fix.fs, ino, &attr), -EIO);
	expect_equal(fs_getattr(fix.fs, FS_ROOT_INO, &attr), 0); /* tools find by it what is mounted */
	expect_equal(fs_lookup(fix.fs, FS_ROOT_INO, "file", &attr), -EIO);
	expect_equal(fs_lookup(fix.fs, FS_ROOT_INO, "absent", &attr), -EIO);
	expect_equal(fs_read(fix.fs, ino, 0, buffer, sizeof(buffer), &done), -EIO);
	expect_equal(fs_readdir(fix.fs, FS_ROOT_INO, 0, false, visit_none, NULL), -EIO);
	expect_equal(fs_readlink(fix.fs, ino, buffer, sizeof(buffer)), -EIO);
	expect_equal(fs_seek(fix.fs, ino, 0, SEEK_DATA, &pos), -EIO);
	expect_equal(fs_getxattr(fix.fs, &root, ino, "user.a", buffer, sizeof(buffer), &done), -EIO);
	expect_equal(fs_listxattr(fix.fs, &root, ino, buffer, sizeof(buffer), &done), -EIO);
	expect_equal(fs_verify_open(fix.fs, ino, O_RDONLY), -EIO);
	expect_equal(fs_verify_open(fix.fs, ino, O_RDWR), -EIO);
}

static void expect_content_changes_refused(inum_t ino)
{
	const struct inode_record values = {.mode = 0600};
	struct fs_attr attr;
	uint64_t copied;
	size_t done;

	expect_equal(fs_write(fix.fs, ino, 0, "x", 1, &done), -EIO);
	expect_equal(fs_append(fix.fs, ino, "x", 1, &done), -EIO);
	expect_equal(fs_setattr(fix.fs, ino, FS_SET_MODE, &values, &attr), -EIO);
	expect_equal(fs_setattr(fix.fs, ino, FS_SET_SIZE, &values, &attr), -EIO);
	expect_equal(fs_set_flags(fix.fs, &root, ino, FS_SET_FLAGS, &values), -EIO);
	expect_equal(fs_setxattr(fix.fs, &root, ino, "user.a", "x", 1, 0), -EIO);
	expect_equal(fs_removexattr(fix.fs, &root, ino, "user.a"), -EIO);
	expect_equal(fs_fallocate(fix.fs, ino, 0, 0, 4096), -EIO);
	expect_equal(fs_copy_range(fix.fs, ino, 0, FS_ROOT_INO, 0, 1, &copied), -EIO);
	expect_equal(fs_clone(fix.fs, ino, FS_ROOT_INO), -EIO);
	expect_equal(fs_kill_privileges(fix.fs, ino, true, NULL), -EIO);
	expect_equal(fs_fsync(fix.fs, ino), -EIO);
	expect_equal(fs_syncfs(fix.fs), -EIO);
}

static void expect_name_changes_refused(inum_t ino)
{
	struct fs_attr attr;
	struct why why;

	expect_equal(fs_create(fix.fs, &root, FS_ROOT_INO, "new", S_IFREG | 0600, 0, &attr), -EIO);
	expect_equal(fs_tmpfile(fix.fs, &root, FS_ROOT_INO, S_IFREG | 0600, &attr), -EIO);
	expect_equal(fs_symlink(fix.fs, &root, FS_ROOT_INO, "new", "to", &attr), -EIO);
	expect_equal(fs_link(fix.fs, ino, FS_ROOT_INO, "new", &attr), -EIO);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "file"), -EIO);
	expect_equal(fs_rmdir(fix.fs, FS_ROOT_INO, "file"), -EIO);
	expect_equal(fs_rename(fix.fs, &root, FS_ROOT_INO, "file", FS_ROOT_INO, "new", 0), -EIO);
	expect_equal(fs_set_label(fix.fs, "label", &why), -EIO);
	expect_equal(fs_resize(fix.fs, 0, &why), -EIO);
}

START_TEST(every_call_answers_eio_afterwards_but_the_size_of_the_whole)
{
	struct fs_statfs space;
	inum_t ino = make("file");

	put(ino, "text");
	expect_equal(fs_stop(fix.fs, modes[_i]), 0);
	expect_reads_refused(ino);
	expect_content_changes_refused(ino);
	expect_name_changes_refused(ino);
	fs_statfs(fix.fs, &space);
	ck_assert_uint_gt(space.free_blocks, 0);
	ck_assert(fs_is_readonly(fix.fs));
	fs_forget(fix.fs, ino, 1);
	expect_equal(fs_stop(fix.fs, FS_STOP_SYNCED), 0);
}
END_TEST

START_TEST(the_state_says_so_and_one_event)
{
	struct event_subscriber *sub;
	struct fs_summary summary;
	struct event *event;

	expect_equal(event_subscribe(fs_events(fix.fs), 16, &sub), 0);
	expect_equal(fs_stop(fix.fs, modes[_i]), 0);
	expect_equal(fs_stop(fix.fs, modes[_i]), 0);
	expect_equal(fs_summary(fix.fs, &summary), 0);
	ck_assert_str_eq(summary.state, "shutdown");
	event = event_take(sub);
	ck_assert_ptr_nonnull(event);
	ck_assert_int_eq(event->type, EVENT_SHUTDOWN);
	ck_assert_str_eq(event->reasons, "force_umount");
	event_free(event);
	ck_assert_ptr_null(event_take(sub));
	event_unsubscribe(sub);
}
END_TEST

/* --- what is on the medium ------------------------------------------------------------------------------------------------ */

static uint64_t stored_bytes(void)
{
	struct media_counts counts;

	media_counts(fs_media(fix.fs), &counts);
	return counts.write_bytes;
}

static uint8_t *image_read(void)
{
	uint8_t *bytes = malloc(FSFIX_SMALL_BYTES);
	FILE *file = fopen(fix.path, "rb");

	ck_assert(bytes && file);
	ck_assert_uint_eq(fread(bytes, 1, FSFIX_SMALL_BYTES, file), FSFIX_SMALL_BYTES);
	fclose(file);
	return bytes;
}

START_TEST(nothing_is_stored_any_more_not_even_by_unmount)
{
	uint8_t *before, *after;
	inum_t ino = make("file");

	put(ino, "text");
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "file"), 0); /* an orphan that unmount would free */
	expect_equal(fs_stop(fix.fs, modes[_i]), 0);
	before = image_read();
	expect_equal(fs_inject(fix.fs, FSFIX_SMALL_BYTES / 2, 4096, false), 0); /* the poison log cannot take it */
	fs_notify_wait(fix.fs, 10000);
	expect_equal(fsfix_unmount(&fix), 0);
	after = image_read();
	ck_assert(!memcmp(before, after, FSFIX_SMALL_BYTES));
	free(before);
	free(after);
}
END_TEST

START_TEST(the_next_mount_has_everything)
{
	char buffer[8];
	struct fs_attr attr;
	size_t done;
	inum_t ino = make("file");

	put(ino, "text");
	expect_equal(fs_stop(fix.fs, modes[_i]), 0);
	remount_after(modes[_i]);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_lookup(&fix, FS_ROOT_INO, "file", &attr), 0);
	expect_equal(fs_read(fix.fs, attr.ino, 0, buffer, sizeof(buffer), &done), 0);
	ck_assert_uint_eq(done, 4);
	ck_assert(!memcmp(buffer, "text", 4));
	put(ino, "more");
}
END_TEST

/* --- beside others -------------------------------------------------------------------------------------------------------- */

#define WORKERS 4
#define FILES_EACH 400

struct worker {
	pthread_t thread;
	unsigned number;
	unsigned acknowledged; /* files made and written, each with its number */
	int error;
};

static int work_once(const struct worker *worker, unsigned i)
{
	struct fs_attr attr;
	char name[32], text[32];
	size_t done;
	int error;

	/* More files would fill the image before it is stopped. */
	snprintf(name, sizeof(name), "w%u-%u", worker->number, i % FILES_EACH);
	snprintf(text, sizeof(text), "%-31u", i % FILES_EACH);
	if (i < FILES_EACH)
		error = fs_create(fix.fs, &root, FS_ROOT_INO, name, S_IFREG | 0600, 0, &attr);
	else
		error = fs_lookup(fix.fs, FS_ROOT_INO, name, &attr);
	if (error)
		return error;
	error = fs_write(fix.fs, attr.ino, 0, text, sizeof(text), &done);
	if (!error)
		error = fs_write(fix.fs, attr.ino, 0, text, sizeof(text), &done); /* in place */
	fs_forget(fix.fs, attr.ino, 1);
	return error;
}

static void *work(void *arg)
{
	struct worker *worker = arg;

	while (!worker->error) {
		worker->error = work_once(worker, worker->acknowledged);
		if (!worker->error)
			__atomic_add_fetch(&worker->acknowledged, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void expect_all_of(const struct worker *worker)
{
	for (unsigned i = 0; i < worker->acknowledged && i < FILES_EACH; i++) {
		char name[32], text[32], found[32];
		struct fs_attr attr;
		size_t done;

		snprintf(name, sizeof(name), "w%u-%u", worker->number, i);
		snprintf(text, sizeof(text), "%-31u", i);
		expect_equal(fsfix_lookup(&fix, FS_ROOT_INO, name, &attr), 0);
		expect_equal(fs_read(fix.fs, attr.ino, 0, found, sizeof(found), &done), 0);
		ck_assert(done == sizeof(found) && !memcmp(found, text, sizeof(text)));
	}
}

static void wait_for_work(const struct worker *workers)
{
	for (unsigned i = 0; i < WORKERS; i++)
		while (__atomic_load_n(&workers[i].acknowledged, __ATOMIC_RELAXED) < 20)
			sched_yield();
}

START_TEST(writers_beside_it_end_with_eio_and_lose_nothing_that_was_acknowledged)
{
	struct worker workers[WORKERS] = {{0}};
	uint64_t stored;

	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i].number = i;
		ck_assert(!pthread_create(&workers[i].thread, NULL, work, &workers[i]));
	}
	wait_for_work(workers);
	expect_equal(fs_stop(fix.fs, modes[_i]), 0);
	stored = stored_bytes();
	for (unsigned i = 0; i < WORKERS; i++) {
		pthread_join(workers[i].thread, NULL);
		expect_equal(workers[i].error, -EIO);
	}
	ck_assert_uint_eq(stored_bytes(), stored);
	remount_after(modes[_i]);
	expect_equal(fsfix_check(&fix), 0);
	for (unsigned i = 0; i < WORKERS; i++)
		expect_all_of(&workers[i]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stop");
	TCase *tests = tcase_create("stop");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_loop_test(tests, every_call_answers_eio_afterwards_but_the_size_of_the_whole, 0, 3);
	tcase_add_loop_test(tests, the_state_says_so_and_one_event, 0, 3);
	tcase_add_loop_test(tests, nothing_is_stored_any_more_not_even_by_unmount, 0, 3);
	tcase_add_loop_test(tests, the_next_mount_has_everything, 0, 3);
	tcase_add_loop_test(tests, writers_beside_it_end_with_eio_and_lose_nothing_that_was_acknowledged, 0, 3);
	tcase_set_timeout(tests, 120);
	suite_add_tcase(suite, tests);
	return files_run(suite);
}
