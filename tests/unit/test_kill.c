/*
 * A process that mounts, works and is killed: what it had acknowledged is there at the next mount, the operation under way is there as a
 * whole or not at all. And the same after a crash of the host, where only what was synced must be.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/expect.h"
#include "tests/support/fsfix.h"
#include "tests/support/random.h"

#define ROUNDS 8
#define STEPS_PER_GROUP 5
#define SYNC_EVERY 64

static struct fsfix fix;
static const struct fs_who who = {.uid = 1000, .gid = 1000};

struct progress { /* shared with the child */
	volatile uint64_t acknowledged, synced;
};

static struct progress *progress;

static void setup(void)
{
	progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	expect(progress != MAP_FAILED);
	expect_equal(fsfix_create(&fix, 512u << 20), 0); /* room for more steps than any machine gets done */
}

static void teardown(void)
{
	unsetenv("MENDFS_BOOT_ID");
	fsfix_destroy(&fix);
	munmap(progress, sizeof(*progress));
}

/* --- the work: groups of steps, each group in its own directory --------------------------------------------------------------- */

static inum_t ino_at(inum_t dir, const char *name)
{
	struct fs_attr attr;
	int error = dir ? fsfix_lookup(&fix, dir, name, &attr) : -ENOENT;

	if (error && error != -ENOENT) {
		fprintf(stderr, "lookup of %s: %s\n", name, strerror(-error));
		abort();
	}
	return error ? 0 : attr.ino;
}

static int write_mark(inum_t ino, uint64_t group)
{
	char data[5000];
	size_t done;

	memset(data, (int)('a' + group % 26), sizeof(data));
	return fs_write(fix.fs, ino, 0, data, sizeof(data), &done);
}

static int work_step(uint64_t step)
{
	uint64_t group = step / STEPS_PER_GROUP;
	struct fs_attr attr;
	char name[32];
	inum_t ino, dir;
	int error;

	snprintf(name, sizeof(name), "d%llu", (unsigned long long)group);
	dir = ino_at(FS_ROOT_INO, name);
	switch (step % STEPS_PER_GROUP) {
	case 0:
		return fsfix_mkdir(&fix, FS_ROOT_INO, name, &ino);
	case 1:
		return fsfix_mkfile(&fix, dir, "new", &ino);
	case 2:
		return write_mark(ino_at(dir, "new"), group);
	case 3: /* replaces what the group before left there */
		return fs_rename(fix.fs, &who, dir, "new", FS_ROOT_INO, "current", 0);
	default:
		error = fs_link(fix.fs, ino_at(FS_ROOT_INO, "current"), dir, "kept", &attr);
		if (!error)
			fs_forget(fix.fs, attr.ino, 1);
		return error;
	}
}

static _Noreturn void child_main(uint64_t from)
{
	if (fsfix_mount(&fix))
		_exit(1);
	for (uint64_t step = from;; step++) {
		if (work_step(step))
			_exit(2);
		progress->acknowledged = step + 1;
		if (step % SYNC_EVERY)
			continue;
		if (fs_syncfs(fix.fs))
			_exit(3);
		progress->synced = step + 1;
	}
}

/* --- what must be there after `steps` of them ------------------------------------------------------------------------------------ */

static bool mark_is_there(inum_t ino, uint64_t group)
{
	char data[5000];
	size_t done;

	if (fs_read(fix.fs, ino, 0, data, sizeof(data), &done) || done != sizeof(data))
		return false;
	for (size_t i = 0; i < sizeof(data); i++)
		if (data[i] != (char)('a' + group % 26))
			return false;
	return true;
}

static bool group_is_as_after(uint64_t group, uint64_t steps)
{
	uint64_t first = group * STEPS_PER_GROUP, done = steps > first ? steps - first : 0;
	char name[32];
	inum_t dir, made, kept;

	snprintf(name, sizeof(name), "d%llu", (unsigned long long)group);
	dir = ino_at(FS_ROOT_INO, name);
	made = ino_at(dir, "new");
	kept = ino_at(dir, "kept");
	if (!dir != (done < 1) || !made != (done < 2 || done > 3) || !kept != (done < 5))
		return false;
	if (done == 3 && !mark_is_there(made, group))
		return false;
	if (done == 4 && !mark_is_there(ino_at(FS_ROOT_INO, "current"), group))
		return false;
	return !kept || mark_is_there(kept, group);
}

static bool all_is_as_after(uint64_t steps)
{
	uint64_t groups = steps / STEPS_PER_GROUP + 2;

	for (uint64_t group = 0; group < groups; group++)
		if (!group_is_as_after(group, steps))
			return false;
	return !ino_at(FS_ROOT_INO, "current") == (steps < 4);
}

/* How many steps the filesystem shows, between the two; aborts when it is none of them. */
static uint64_t steps_there(uint64_t least, uint64_t most)
{
	for (uint64_t steps = most + 1; steps-- > least;)
		if (all_is_as_after(steps))
			return steps;
	ck_abort_msg("neither %llu steps are there nor %llu nor anything between", (unsigned long long)least,
		     (unsigned long long)most);
	return 0;
}

static void run_and_kill(uint64_t from, unsigned microseconds)
{
	pid_t child = fork();
	int status;

	expect(child >= 0);
	if (child == 0)
		child_main(from);
	while (progress->acknowledged < from + 20 && waitpid(child, &status, WNOHANG) == 0)
		usleep(1000);
	usleep(microseconds);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	expect(!WIFEXITED(status));
}

static void rounds(bool host_crashes)
{
	struct random random = random_start(host_crashes ? "host crash" : "kill");
	uint64_t steps = 0;
	char boot[32];

	for (unsigned round = 0; round < ROUNDS; round++) {
		progress->acknowledged = progress->synced = steps;
		if (host_crashes) {
			snprintf(boot, sizeof(boot), "boot-%u", round * 2);
			setenv("MENDFS_BOOT_ID", boot, 1);
		}
		run_and_kill(steps, (unsigned)random_below(&random, 60000));
		if (host_crashes) {
			snprintf(boot, sizeof(boot), "boot-%u", round * 2 + 1);
			setenv("MENDFS_BOOT_ID", boot, 1);
		}
		expect_equal(fsfix_mount(&fix), 0);
		steps = steps_there(host_crashes ? progress->synced : progress->acknowledged,
				    progress->acknowledged + 1);
		expect_equal(fsfix_check(&fix), 0);
		expect_equal(fsfix_unmount(&fix), 0);
	}
	printf("%llu steps in the end\n", (unsigned long long)steps);
}

START_TEST(whatever_was_acknowledged_survives_kill_9)
{
	rounds(false);
}
END_TEST

START_TEST(whatever_was_synced_survives_a_crash_of_the_host)
{
	rounds(true);
}
END_TEST

START_TEST(what_is_unlinked_when_the_process_is_killed_is_freed)
{
	struct fs_statfs before, after;
	struct fs_attr attr;
	int status;
	pid_t child;

	expect_equal(fsfix_mount(&fix), 0);
	fs_statfs(fix.fs, &before);
	expect_equal(fsfix_unmount(&fix), 0);
	child = fork();
	if (child == 0) {
		if (fsfix_mount(&fix) || fs_create(fix.fs, &who, FS_ROOT_INO, "f", S_IFREG | 0600, 0, &attr) ||
		    write_mark(attr.ino, 1) || fs_unlink(fix.fs, FS_ROOT_INO, "f"))
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	waitpid(child, &status, 0);
	expect(WIFSIGNALED(status));
	expect_equal(fsfix_mount(&fix), 0);
	for (unsigned i = 0; i < 500; i++) {
		fs_statfs(fix.fs, &after);
		if (after.inodes == before.inodes)
			break;
		usleep(10000);
	}
	expect_equal(after.inodes, before.inodes);
	expect_equal(after.free_blocks, before.free_blocks);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("kill");
	TCase *t = tcase_create("plain");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 200);
	tcase_add_test(t, whatever_was_acknowledged_survives_kill_9);
	tcase_add_test(t, whatever_was_synced_survives_a_crash_of_the_host);
	tcase_add_test(t, what_is_unlinked_when_the_process_is_killed_is_freed);
	suite_add_tcase(suite, t);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
