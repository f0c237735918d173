/*
 * Out of journal space under load: several threads, the smallest ring, large transactions. They wait, checkpoints make room, nobody waits for ever; nor
 * where checkpoints cannot write home what is in the ring: then each call answers, and what was acknowledged is there afterwards.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/inode.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"
#include "util/log.h"

#define COUNT_THREADS 4
#define ROUNDS 30
#define PIECES 100 /* extents of a file: what a clone or the end of it puts into its transactions */
#define HANG_SECONDS 240

enum { FROM, TO, NAMES };

struct worker {
	struct fs *fs;
	unsigned number, load, round;
	pthread_t thread;
	const char *failed; /* the first call that did */
	int error;
	bool clones;
	bool is_there[NAMES], is_gone[NAMES]; /* this was acknowledged, of this round's files */
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

static void worker_name(const struct worker *worker, unsigned which, char name[48])
{
	snprintf(name, 48, "%u-%u-%u-%s", worker->load, worker->number, worker->round, which == FROM ? "from" : "to");
}

static inum_t worker_make(struct worker *worker, unsigned which)
{
	struct fs_who who = {0};
	struct fs_attr attr = {0};
	char name[48];

	worker_name(worker, which, name);
	if (worker->failed)
		return 0;
	worker_note(worker, "create", fs_create(worker->fs, &who, FS_ROOT_INO, name, S_IFREG | 0600, 0, &attr));
	if (worker->failed)
		return 0;
	worker->is_there[which] = true;
	fs_forget(worker->fs, attr.ino, 1);
	return attr.ino;
}

static void worker_unlink(struct worker *worker, unsigned which)
{
	char name[48];

	if (worker->failed)
		return;
	worker_name(worker, which, name);
	worker->is_there[which] = false; /* in flight: either is right */
	worker_note(worker, "unlink", fs_unlink(worker->fs, FS_ROOT_INO, name));
	worker->is_gone[which] = !worker->failed;
}

static void worker_round(struct worker *worker)
{
	inum_t source = worker_make(worker, FROM), target = worker_make(worker, TO);

	if (!worker->failed)
		worker_write(worker, source);
	if (!worker->failed && worker->clones)
		worker_note(worker, "clone", fs_clone(worker->fs, source, target));
	if (!worker->failed)
		worker_note(worker, "fsync", fs_fsync(worker->fs, target));
	worker_unlink(worker, FROM);
	worker_unlink(worker, TO);
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;

	for (worker->round = 0; worker->round < ROUNDS; worker->round++) {
		memset(worker->is_there, 0, sizeof(worker->is_there));
		memset(worker->is_gone, 0, sizeof(worker->is_gone));
		worker_round(worker);
		if (worker->failed)
			break;
	}
	return NULL;
}

static void load_run(struct worker workers[COUNT_THREADS], unsigned load, bool clones)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += HANG_SECONDS / 2;
	for (unsigned i = 0; i < COUNT_THREADS; i++) {
		workers[i] = (struct worker){.fs = fix.fs, .number = i, .load = load, .clones = clones};
		expect_equal(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]), 0);
	}
	for (unsigned i = 0; i < COUNT_THREADS; i++)
		if (pthread_timedjoin_np(workers[i].thread, NULL, &until))
			ck_abort_msg("thread %u, round %u: still waiting", i, workers[i].round);
}

static void expect_no_failure(const struct worker workers[COUNT_THREADS])
{
	for (unsigned i = 0; i < COUNT_THREADS; i++)
		if (workers[i].failed)
			ck_abort_msg("thread %u, round %u: %s: %d", i, workers[i].round, workers[i].failed, workers[i].error);
}

/* --- stores and syncs that fail ------------------------------------------------------------------------------------------------ */

static _Atomic int trouble_error; /* of what is to fail: 0: nothing does */
static atomic_uint trouble_every, trouble_seen, trouble_count;
static atomic_bool trouble_in_sync;

static bool trouble_hits(bool is_sync)
{
	if (!trouble_error || trouble_in_sync != is_sync || ++trouble_seen % trouble_every)
		return false;
	trouble_count++;
	return true;
}

/* A metadata block on its way home; the journal's own stores and those of data are left alone. */
static bool is_home_store(const void *buffer, size_t length)
{
	return length == BLOCK_BYTES && le32_get(((const struct format_block_header *)buffer)->magic) == FORMAT_BLOCK_MAGIC;
}

int __real_media_write(struct media *media, devoff_t offset, const void *buffer, size_t length, devoff_t *bad);
int __wrap_media_write(struct media *media, devoff_t offset, const void *buffer, size_t length, devoff_t *bad);
int __wrap_media_write(struct media *media, devoff_t offset, const void *buffer, size_t length, devoff_t *bad)
{
	return is_home_store(buffer, length) && trouble_hits(false) ? trouble_error : __real_media_write(media, offset, buffer, length, bad);
}

int __real_media_sync(struct media *media);
int __wrap_media_sync(struct media *media);
int __wrap_media_sync(struct media *media)
{
	return trouble_hits(true) ? trouble_error : __real_media_sync(media);
}

struct trouble {
	const char *name;
	int error;
	unsigned every;
	bool in_sync;
	bool passes; /* the mount goes on once it is over: so where nothing is cloned, for a chain that can go neither on nor back is for the next mount */
};

static const struct trouble troubles[] = {
	{"no home store succeeds", -EIO, 1, false, false},
	{"one home store in three fails", -EIO, 3, false, false},
	{"the host is full", -ENOSPC, 1, false, false},
	{"the host is full and nothing is cloned", -ENOSPC, 1, false, true},
	{"the host is full now and then", -ENOSPC, 5, false, true},
	{"no sync succeeds", -EIO, 1, true, false},
	{"one sync in nine fails", -EIO, 9, true, false},
};

static void trouble_begin(const struct trouble *trouble)
{
	trouble_seen = trouble_count = 0;
	trouble_every = trouble->every;
	trouble_in_sync = trouble->in_sync;
	trouble_error = trouble->error;
}

static void expect_clean_failures(const struct trouble *trouble, const struct worker workers[COUNT_THREADS])
{
	for (unsigned i = 0; i < COUNT_THREADS; i++) {
		int error = workers[i].error;

		if (error && error != trouble->error && error != -EROFS)
			ck_abort_msg("thread %u, round %u: %s: %d", i, workers[i].round, workers[i].failed, error);
	}
}

static void expect_acknowledged(const struct worker *worker)
{
	for (unsigned which = 0; which < NAMES; which++) {
		struct fs_attr attr;
		char name[48];
		int error;

		worker_name(worker, which, name);
		error = fsfix_lookup(&fix, FS_ROOT_INO, name, &attr);
		if ((worker->is_there[which] && error) || (worker->is_gone[which] && error != -ENOENT))
			ck_abort_msg("thread %u, round %u: name %u: %d", worker->number, worker->round, which, error);
	}
}

START_TEST(what_cannot_be_written_home_makes_nobody_wait_for_ever)
{
	const struct trouble *trouble = &troubles[_i];
	struct worker workers[COUNT_THREADS], again[COUNT_THREADS];
	unsigned failed = 0;

	alarm(HANG_SECONDS);
	expect_equal(fsfix_create_mounted(&fix, FSFIX_SMALL_BYTES), 0);
	trouble_begin(trouble);
	load_run(workers, 0, !trouble->passes);
	trouble_error = 0;
	expect(trouble_count > 0);
	expect_clean_failures(trouble, workers);
	for (unsigned i = 0; i < COUNT_THREADS; i++)
		failed += workers[i].failed != NULL;
	printf("sample: journal under load, %s: %u times, %u of %u threads were told\n", trouble->name, (unsigned)trouble_count, failed, COUNT_THREADS);
	if (trouble->every == 1)
		expect_equal(failed, COUNT_THREADS);
	if (trouble->passes) {
		load_run(again, 1, true);
		expect_no_failure(again);
	}
	fsfix_unmount(&fix); /* says what had failed */
	expect_equal(fsfix_mount(&fix), 0);
	for (unsigned i = 0; i < COUNT_THREADS; i++)
		expect_acknowledged(&workers[i]);
	expect_equal(fsfix_check(&fix), 0);
	load_run(again, 2, true);
	expect_no_failure(again);
	expect_equal(fsfix_check(&fix), 0);
	fsfix_destroy(&fix);
}
END_TEST

START_TEST(large_transactions_of_many_threads_wait_for_room_and_get_it)
{
	struct worker workers[COUNT_THREADS];
	struct journal_counts counts;

	alarm(HANG_SECONDS);
	expect_equal(fsfix_create_mounted(&fix, FSFIX_SMALL_BYTES), 0);
	load_run(workers, 0, true);
	expect_no_failure(workers);
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
	tcase_add_loop_test(tests, what_cannot_be_written_home_makes_nobody_wait_for_ever, 0, ARRAY_SIZE(troubles));
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
