#include "fs/check.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/data.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"
#include "tests/support/random.h"
#include "util/log.h"

/*
 * The check while others change whatever it looks at: it says nothing of a filesystem that is whole, and finds what is broken all the same.
 * Holds of few records, so that most inodes and directories are cut in two by somebody's change. Run under TSan too.
 */

#define DIRS 4
#define NAMES 40
#define FILES 6
#define FILE_BLOCKS 200
#define MUTATORS 4
#define ROUNDS 25
#define ROUNDS_MAX 2000 /* until the others have come in between */

static struct fsfix fix;
static inum_t dirs[DIRS], files[FILES];
static atomic_bool stop;

static void setup(void)
{
	char name[16];

	log_set_level(LOG_LEVEL_SILENT);
	expect_equal(fsfix_create_mounted(&fix, 128u << 20), 0);
	for (unsigned i = 0; i < DIRS; i++) {
		snprintf(name, sizeof(name), "dir%u", i);
		expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, name, &dirs[i]), 0);
	}
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		expect_equal(fsfix_mkfile(&fix, dirs[0], name, &files[i]), 0);
	}
	stop = false;
}

static void teardown(void)
{
	fsfix_destroy(&fix);
}

/* --- those who change things ------------------------------------------------------------------------------------------------------ */

static void change_names(struct random *random)
{
	static const unsigned flags[] = {0, 0, RENAME_EXCHANGE, RENAME_WHITEOUT};
	const struct fs_who who = {.uid = 1000, .gid = 1000};
	inum_t from = dirs[random_below(random, DIRS)], to = dirs[random_below(random, DIRS)];
	char name[16], other[16];
	struct fs_attr attr;

	snprintf(name, sizeof(name), "n%u", (unsigned)random_below(random, NAMES));
	snprintf(other, sizeof(other), "n%u", (unsigned)random_below(random, NAMES));
	switch (random_below(random, 8)) {
	case 0:
		if (!fs_create(fix.fs, &who, from, name, S_IFDIR | 0755, 0, &attr))
			fs_forget(fix.fs, attr.ino, 1);
		break;
	case 1:
		if (!fs_symlink(fix.fs, &who, from, name, "some/where", &attr))
			fs_forget(fix.fs, attr.ino, 1);
		break;
	case 2:
		if (!fs_link(fix.fs, files[random_below(random, FILES)], from, name, &attr))
			fs_forget(fix.fs, attr.ino, 1);
		break;
	case 3:
		fs_rename(fix.fs, &who, from, name, to, other, flags[random_below(random, 4)]);
		break;
	case 4:
		fs_rmdir(fix.fs, from, name);
		break;
	case 5:
		fs_unlink(fix.fs, from, name);
		break;
	default:
		if (!fs_create(fix.fs, &who, from, name, S_IFREG | 0644, 0, &attr))
			fs_forget(fix.fs, attr.ino, 1);
	}
}

static void change_data(struct random *random)
{
	static const char data[8 * BLOCK_BYTES] = {1};
	inum_t one = files[random_below(random, FILES)], two = files[random_below(random, FILES)];
	uint64_t pos = random_below(random, FILE_BLOCKS) * BLOCK_BYTES, copied;
	struct inode_record values = {.size_bytes = pos};
	struct fs_attr attr;
	size_t done;

	switch (random_below(random, 10)) {
	case 0:
		fs_setattr(fix.fs, one, FS_SET_SIZE, &values, &attr);
		break;
	case 1:
		if (one != two)
			fs_clone(fix.fs, one, two);
		break;
	case 2:
		fs_copy_range(fix.fs, one, 0, two, pos, 16 * BLOCK_BYTES, &copied);
		break;
	case 3:
		fs_fallocate(fix.fs, one, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, pos, 4 * BLOCK_BYTES);
		break;
	case 4:
		fs_fallocate(fix.fs, one, FALLOC_FL_KEEP_SIZE, pos, 20 * BLOCK_BYTES);
		break;
	default:
		fs_write(fix.fs, one, pos, data, (1 + random_below(random, 8)) * BLOCK_BYTES / 2, &done);
	}
}

static void *mutator(void *arg)
{
	struct random random = {.state = (uintptr_t)arg};

	while (!stop) {
		for (unsigned i = 0; i < 8; i++)
			if (random_below(&random, 2))
				change_names(&random);
			else
				change_data(&random);
		if (!random_below(&random, 50))
			fs_syncfs(fix.fs);
		if (!random_below(&random, 100))
			journal_checkpoint(fix.fs->journal);
	}
	return NULL;
}

static void start(struct random *random, pthread_t threads[MUTATORS])
{
	for (unsigned i = 0; i < MUTATORS; i++)
		expect_equal(pthread_create(&threads[i], NULL, mutator, (void *)(uintptr_t)random_next(random)), 0);
}

static void join(pthread_t threads[MUTATORS])
{
	stop = true;
	for (unsigned i = 0; i < MUTATORS; i++)
		pthread_join(threads[i], NULL);
}

/* --- the check ---------------------------------------------------------------------------------------------------------------------- */

static void say(void *arg, const char *line)
{
	fprintf(stderr, "%s: %s\n", (const char *)arg, line);
}

static struct fs_check_totals check(uint64_t hold_units, const char *when)
{
	struct fs_check_options options = {.tell = say, .arg = (void *)when, .hold_units = hold_units};
	struct fs_check_totals totals;

	expect_equal(fs_check_with(fix.fs, &options, &totals), 0);
	return totals;
}

START_TEST(a_filesystem_in_use_has_no_findings)
{
	struct random random = random_start("check_online");
	uint64_t inodes = 0, skipped = 0;
	pthread_t threads[MUTATORS];
	unsigned rounds;

	start(&random, threads);
	for (rounds = 0; rounds < ROUNDS_MAX && (rounds < ROUNDS || skipped < ROUNDS / 5); rounds++) {
		struct fs_check_totals totals = check(rounds % 5 == 4 ? 0 : 20 + random_below(&random, 300), "in use");

		expect_equal(totals.findings, 0);
		expect(totals.inodes > DIRS + FILES);
		inodes += totals.inodes;
		skipped += totals.not_compared;
	}
	join(threads);
	printf("sample: checks of a filesystem in use: %u, %llu inodes, %llu comparisons left out, 0 findings\n", rounds,
	       (unsigned long long)inodes, (unsigned long long)skipped);
	expect(skipped > 0); /* or nothing was in use */
	expect_equal(check(0, "afterwards").findings, 0);
}
END_TEST

/* --- and memory that fails meanwhile ------------------------------------------------------------------------------------------------ */

#define READERS 2
#define BAD_BYTES 512u

static int take_name(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next_cookie, const struct fs_attr *attr)
{
	return 0;
}

/* Whatever is read is one of: good, gone meanwhile, or on bad memory. */
static void *reader(void *arg)
{
	struct random random = {.state = (uintptr_t)arg};
	uint8_t block[BLOCK_BYTES];
	struct fs_attr attr;
	char name[16];
	size_t done;
	int error;

	while (!stop) {
		error = fs_read(fix.fs, files[random_below(&random, FILES)], random_below(&random, FILE_BLOCKS) * BLOCK_BYTES, block, BLOCK_BYTES,
				&done);
		expect(error == 0 || error == -EIO);
		snprintf(name, sizeof(name), "n%u", (unsigned)random_below(&random, NAMES));
		error = fs_lookup(fix.fs, dirs[random_below(&random, DIRS)], name, &attr);
		expect(error == 0 || error == -ENOENT);
		if (!error)
			fs_forget(fix.fs, attr.ino, 1);
		expect_equal(fs_readdir(fix.fs, dirs[random_below(&random, DIRS)], 0, false, take_name, NULL), 0);
		if (!random_below(&random, 20))
			buf_drop_clean(fix.fs->journal); /* from under the others */
	}
	return NULL;
}

struct spot {
	devoff_t offset;
	bool found;
};

static int take_spot(void *arg, const struct fs_map_extent *extent)
{
	*(struct spot *)arg = (struct spot){extent->device_offset, true};
	return 1;
}

/* Sectors of files go bad, told of or not, and are good again a little later, whoever has the blocks by then. */
static void *spoiler(void *arg)
{
	struct random random = {.state = (uintptr_t)arg};
	uint64_t removed;

	while (!stop) {
		struct spot spot = {0};

		fs_map(fix.fs, files[random_below(&random, FILES)], random_below(&random, FILE_BLOCKS) * BLOCK_BYTES, 16 * BLOCK_BYTES, take_spot,
		       &spot);
		if (!spot.found)
			continue;
		expect_equal(fs_inject(fix.fs, spot.offset, BAD_BYTES, random_below(&random, 2)), 0);
		usleep(1000);
		expect_equal(fs_uninject(fix.fs, spot.offset, BAD_BYTES, &removed), 0);
	}
	return NULL;
}

START_TEST(a_filesystem_in_use_on_failing_memory_has_no_findings)
{
	struct random random = random_start("check_online");
	pthread_t threads[MUTATORS], readers[READERS], spoils;

	start(&random, threads);
	for (unsigned i = 0; i < READERS; i++)
		expect_equal(pthread_create(&readers[i], NULL, reader, (void *)(uintptr_t)random_next(&random)), 0);
	expect_equal(pthread_create(&spoils, NULL, spoiler, (void *)(uintptr_t)random_next(&random)), 0);
	for (unsigned i = 0; i < ROUNDS; i++)
		expect_equal(check(20 + random_below(&random, 300), "on failing memory").findings, 0);
	join(threads);
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	pthread_join(spoils, NULL);
	expect_equal(fs_notify_wait(fix.fs, 10000), 0);
	expect_equal(check(0, "afterwards").findings, 0);
}
END_TEST

struct broken {
	inum_t ino;
	unsigned found, other;
};

static void listen(void *arg, const char *line)
{
	struct broken *broken = arg;
	char wanted[32];

	snprintf(wanted, sizeof(wanted), "inode %llu: blocks 0 to", (unsigned long long)broken->ino);
	if (strstr(line, wanted))
		broken->found++;
	else
		broken->other++;
	if (!strstr(line, wanted))
		say((void *)"broken", line);
}

/* The extent of a file that nobody touches says unwritten, the reverse map does not. */
static inum_t break_a_file(void)
{
	static const char data[10 * BLOCK_BYTES] = {1};
	struct format_extent value;
	struct extent extent;
	struct btree_key key;
	struct tx *tx;
	size_t done;
	inum_t ino;

	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, "broken", &ino), 0);
	expect_equal(fs_write(fix.fs, ino, 0, data, sizeof(data), &done), 0);
	expect_equal(fs_tx_begin(fix.fs, TX_RESERVE, &tx), 0);
	expect_equal(extent_lookup(fix.fs, ino, 0, &extent), 0);
	extent.flags = EXTENT_UNWRITTEN;
	format_extent_pack(&value, &extent);
	key = (struct btree_key){{ino, 0}};
	expect_equal(btree_update(&fix.fs->extents, tx, &key, &value, sizeof(value)), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	return ino;
}

START_TEST(what_is_broken_is_found_in_use)
{
	struct random random = random_start("check_online");
	struct broken broken = {.ino = break_a_file()};
	pthread_t threads[MUTATORS];
	struct fs_check_totals totals;

	start(&random, threads);
	for (unsigned i = 0; i < 5; i++) {
		struct fs_check_options options = {.tell = listen, .arg = &broken, .hold_units = 200};

		expect_equal(fs_check_with(fix.fs, &options, &totals), 0);
		expect_equal(broken.found, i + 1);
	}
	join(threads);
	/* The same seen from the reverse map, once each time. */
	expect_equal(broken.other, 5);
}
END_TEST

/* Many names and extents of one inode each, changing all the time: work under one hold stays what it is. */
START_TEST(no_hold_is_longer_than_agreed)
{
	struct random random = random_start("check_online");
	pthread_t threads[MUTATORS];
	struct fs_check_totals totals;
	char name[16];
	inum_t ino;
	size_t done;

	for (unsigned i = 0; i < 6000; i++) {
		snprintf(name, sizeof(name), "many%u", i);
		expect_equal(fsfix_mkfile(&fix, dirs[1], name, &ino), 0);
		expect_equal(fs_write(fix.fs, files[0], 2 * (FILE_BLOCKS + i) * BLOCK_BYTES, "x", 1, &done), 0);
	}
	start(&random, threads);
	for (unsigned i = 0; i < 3; i++) {
		totals = check(0, "many");
		expect_equal(totals.findings, 0);
		expect(totals.longest_hold >= CHECK_HOLD_UNITS / 2);
		expect(totals.longest_hold <= CHECK_HOLD_UNITS + CHECK_HOLD_UNITS / 4);
	}
	join(threads);
	printf("sample: records under one hold of the lock at most: %llu\n", (unsigned long long)totals.longest_hold);
	expect_equal(check(0, "afterwards").findings, 0);
}
END_TEST

static bool progress_twice(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	unsigned *calls = arg;

	expect(phase != NULL);
	expect(total == 0 || done <= total);
	return ++*calls < 2;
}

START_TEST(it_ends_when_told_so)
{
	unsigned calls = 0;
	struct fs_check_options options = {.progress = progress_twice, .arg = &calls, .hold_units = 10};
	struct fs_check_totals totals;

	expect_equal(fs_check_with(fix.fs, &options, &totals), -ECANCELED);
	expect_equal(calls, 2);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("check_online");
	TCase *t = tcase_create("plain");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 300);
	tcase_add_test(t, a_filesystem_in_use_has_no_findings);
	tcase_add_test(t, a_filesystem_in_use_on_failing_memory_has_no_findings);
	tcase_add_test(t, what_is_broken_is_found_in_use);
	tcase_add_test(t, no_hold_is_longer_than_agreed);
	tcase_add_test(t, it_ends_when_told_so);
	suite_add_tcase(suite, t);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
