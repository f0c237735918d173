/* Out of journal space under load: several threads, the smallest ring, large transactions. They wait, checkpoints make room, nobody waits for ever. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/inode.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"
#include "util/log.h"

#define COUNT_THREADS 4
#define ROUNDS 30
#define PIECES 100 /* extents of a file: what a clone or the end of it puts into its transactions */
#define HANG_SECONDS 240

struct worker {
	struct fs *fs;
	unsigned number, round;
	pthread_t thread;
	const char *failed; /* the first call that did */
	int error;
};

static struct fsfix fix;

static void worker_note(struct worker *worker, const char *what, int error)
{
	if (!error || worker->failed)
		return;
	worker->failed = what;
	worker->error = error;
}

static void worker_write(struct worker *worker, inum_t ino)
{
	static const uint8_t data[BLOCK_BYTES] = {1};
	size_t done;

	for (unsigned i = 0; i < PIECES && !worker->failed; i++)
		worker_note(worker, "write", fs_write(worker->fs, ino, (uint64_t)i * 2 * BLOCK_BYTES, data, sizeof(data), &done));
}

static inum_t worker_make(struct worker *worker, const char *suffix, char name[32])
{
	struct fs_who who = {0};
	struct fs_attr attr = {0};

	snprintf(name, 32, "%u-%u-%s", worker->number, worker->round, suffix);
	worker_note(worker, "create", fs_create(worker->fs, &who, FS_ROOT_INO, name, S_IFREG | 0600, 0, &attr));
	if (!worker->failed)
		fs_forget(worker->fs, attr.ino, 1);
	return attr.ino;
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	char from[32], to[32];

	for (worker->round = 0; worker->round < ROUNDS && !worker->failed; worker->round++) {
		inum_t source = worker_make(worker, "from", from), target = worker_make(worker, "to", to);

		if (worker->failed)
			break;
		worker_write(worker, source);
		worker_note(worker, "clone", fs_clone(worker->fs, source, target));
		worker_note(worker, "fsync", fs_fsync(worker->fs, target));
		worker_note(worker, "unlink", fs_unlink(worker->fs, FS_ROOT_INO, from));
		worker_note(worker, "unlink", fs_unlink(worker->fs, FS_ROOT_INO, to));
	}
	return NULL;
}

START_TEST(large_transactions_of_many_threads_wait_for_room_and_get_it)
{
	struct worker workers[COUNT_THREADS];
	struct journal_counts counts;

	alarm(HANG_SECONDS);
	expect_equal(fsfix_create_mounted(&fix, FSFIX_SMALL_BYTES), 0);
	for (unsigned i = 0; i < COUNT_THREADS; i++) {
		workers[i] = (struct worker){.fs = fix.fs, .number = i};
		expect_equal(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]), 0);
	}
	for (unsigned i = 0; i < COUNT_THREADS; i++) {
		pthread_join(workers[i].thread, NULL);
		if (workers[i].failed)
			ck_abort_msg("thread %u, round %u: %s: %d", i, workers[i].round, workers[i].failed, workers[i].error);
	}
	journal_counts(fix.fs->journal, &counts);
	printf("sample: journal under load: %llu transactions, %llu bytes through a ring of %llu, %llu checkpoints\n", (unsigned long long)counts.transactions,
	       (unsigned long long)counts.record_bytes, (unsigned long long)counts.ring_bytes, (unsigned long long)counts.checkpoints);
	expect(counts.record_bytes > 3 * counts.ring_bytes);
	expect(counts.checkpoints > 3);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(fsfix_check(&fix), 0);
	fsfix_destroy(&fix);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("exhaust_journal");
	TCase *tests = tcase_create("load");
	SRunner *runner = srunner_create(suite);
	int failed;

	log_set_level(LOG_LEVEL_SILENT);
	tcase_set_timeout(tests, 300);
	tcase_add_test(tests, large_transactions_of_many_threads_wait_for_room_and_get_it);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
