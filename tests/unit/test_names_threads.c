/*
 * Creates, removals and renames beside each other, and beside all else: nothing is lost, nothing is there twice, the trees agree. Run under TSan too. Then power is lost with two
 * in flight: after that, each directory has what was acknowledged and at most the one that was not.
 */
#include "tests/support/files.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#include "fs/inode.h"
#include "journal/journal.h"
#include "journal/root.h"
#include "tests/support/power.h"
#include "tests/support/random.h"
#include "util/lock.h"

#define CREATORS 2
#define FILES 600u
#define CRASH_FILES 40u

static struct fsfix fix;
static inum_t dirs[CREATORS];
static const struct fs_who who = {.uid = 1000, .gid = 1000};

static void setup(void)
{
	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	power_return();
	expect_equal(fsfix_create_mounted(&fix, FSFIX_USUAL_BYTES), 0);
	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "left", &dirs[0]), 0);
	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "right", &dirs[1]), 0);
}

static void teardown(void)
{
	expect_equal(fsfix_check(&fix), 0);
	fsfix_destroy(&fix);
	unsetenv("PMEM2_FORCE_GRANULARITY");
}

static int create(inum_t dir, const char *name)
{
	struct fs_attr attr;
	int error = fs_create(fix.fs, &who, dir, name, S_IFREG | 0644, 0, &attr);

	if (!error)
		fs_forget(fix.fs, attr.ino, 1);
	return error;
}

static const char *name_of(char name[32], const char *prefix, unsigned i)
{
	snprintf(name, 32, "%s-%u", prefix, i);
	return name;
}

static unsigned count_of(inum_t dir, const char *prefix, unsigned count)
{
	struct fs_attr attr;
	unsigned found = 0;
	char name[32];

	for (unsigned i = 0; i < count; i++)
		found += !fsfix_lookup(&fix, dir, name_of(name, prefix, i), &attr);
	return found;
}

/* --- the threads --- */

struct creator {
	pthread_t thread;
	inum_t dir;
	const char *prefix;
	unsigned count;
	unsigned created, present, acknowledged;
	inum_t inos[FILES];
};

static void *create_all(void *arg)
{
	struct creator *creator = arg;
	char name[32];

	for (unsigned i = 0; i < creator->count; i++) {
		int error = create(creator->dir, name_of(name, creator->prefix, i));

		ck_assert(error == 0 || error == -EEXIST);
		creator->created += error == 0;
		creator->present += error == -EEXIST;
		creator->acknowledged += error == 0 && !atomic_load(&power_is_lost);
	}
	return NULL;
}

static void run_all(void *(*start)(void *), struct creator *creators, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		ck_assert_int_eq(pthread_create(&creators[i].thread, NULL, start, &creators[i]), 0);
	for (unsigned i = 0; i < count; i++)
		pthread_join(creators[i].thread, NULL);
}

static uint64_t entries_of(inum_t dir)
{
	struct fs_attr attr;

	expect_equal(fs_getattr(fix.fs, dir, &attr), 0);
	return attr.record.entries;
}

/* Transactions that ran alone so far. */
static uint64_t alone(void)
{
	struct lock_counts counts;

	lock_counts(&counts);
	return counts.taken[LOCK_GATE_WRITE];
}

START_TEST(creates_in_different_directories_run_beside_each_other)
{
	struct creator creators[CREATORS] = {{.dir = dirs[0], .prefix = "f", .count = FILES}, {.dir = dirs[1], .prefix = "f", .count = FILES}};
	uint64_t before = alone();

	run_all(create_all, creators, CREATORS);
	/* Nearly all: the rest needed another root of a tree, a batch of numbers, a block that was not in memory. */
	ck_assert_uint_lt(alone() - before, CREATORS * FILES / 4);
	for (unsigned i = 0; i < CREATORS; i++) {
		ck_assert_uint_eq(creators[i].created, FILES);
		ck_assert_uint_eq(count_of(dirs[i], "f", FILES), FILES);
		ck_assert_uint_eq(entries_of(dirs[i]), FILES);
	}
	expect_equal(fsfix_remount(&fix), 0);
	for (unsigned i = 0; i < CREATORS; i++)
		ck_assert_uint_eq(count_of(dirs[i], "f", FILES), FILES);
}
END_TEST

START_TEST(of_two_who_create_the_same_name_one_does)
{
	struct creator creators[CREATORS] = {{.dir = dirs[0], .prefix = "f", .count = FILES}, {.dir = dirs[0], .prefix = "f", .count = FILES}};

	run_all(create_all, creators, CREATORS);
	ck_assert_uint_eq(creators[0].created + creators[1].created, FILES);
	ck_assert_uint_eq(creators[0].present + creators[1].present, FILES);
	ck_assert_uint_eq(entries_of(dirs[0]), FILES);
}
END_TEST

/* --- among everything else --- */

static atomic_bool creators_are_done;

static void *move_about(void *arg)
{
	struct random random = {.state = 7};
	char name[32], other[32];
	int error;

	for (unsigned i = 0; !creators_are_done; i++) {
		inum_t from = dirs[i % CREATORS], to = dirs[random_below(&random, CREATORS)];

		error = create(from, name_of(name, "mine", i));
		ck_assert_int_eq(error, 0);
		error = fs_rename(fix.fs, &who, from, name, to, name_of(other, "moved", i), 0);
		ck_assert_int_eq(error, 0);
		error = fs_unlink(fix.fs, to, other);
		ck_assert_int_eq(error, 0);
	}
	return NULL;
}

static void *look_about(void *arg)
{
	struct random random = {.state = 11};
	struct fs_attr attr;
	char name[32];
	int error;

	while (!creators_are_done) {
		inum_t dir = dirs[random_below(&random, CREATORS)];

		error = fsfix_lookup(&fix, dir, name_of(name, "f", (unsigned)random_below(&random, FILES)), &attr);
		ck_assert(error == 0 || error == -ENOENT);
		ck_assert_int_eq(fs_getattr(fix.fs, dir, &attr), 0);
	}
	return NULL;
}

START_TEST(creates_hold_their_own_among_renames_unlinks_and_lookups)
{
	struct creator creators[CREATORS] = {{.dir = dirs[0], .prefix = "f", .count = FILES}, {.dir = dirs[1], .prefix = "f", .count = FILES}};
	pthread_t mover, looker;

	creators_are_done = false;
	ck_assert_int_eq(pthread_create(&mover, NULL, move_about, NULL), 0);
	ck_assert_int_eq(pthread_create(&looker, NULL, look_about, NULL), 0);
	run_all(create_all, creators, CREATORS);
	creators_are_done = true;
	pthread_join(mover, NULL);
	pthread_join(looker, NULL);
	for (unsigned i = 0; i < CREATORS; i++) {
		ck_assert_uint_eq(count_of(dirs[i], "f", FILES), FILES);
		ck_assert_uint_eq(entries_of(dirs[i]), FILES);
	}
}
END_TEST

/* --- those who remove --- */

static void keep(inum_t dir, const char *name, mode_t mode)
{
	struct fs_attr attr;

	expect_equal(fs_create(fix.fs, &who, dir, name, mode, 0, &attr), 0);
}

/* Files, which stay looked up, as by a kernel, and a name of each third one in the other directory; each seventh is a directory. */
static bool is_dir(unsigned i)
{
	return i % 7 == 6;
}

static bool has_link(unsigned i)
{
	return i % 3 == 0 && !is_dir(i);
}

static void *keep_all(void *arg)
{
	struct creator *creator = arg;
	char name[32];

	for (unsigned i = 0; i < creator->count; i++)
		keep(creator->dir, name_of(name, creator->prefix, i), is_dir(i) ? S_IFDIR | 0755 : S_IFREG | 0644);
	return NULL;
}

static void *remove_all(void *arg)
{
	struct creator *creator = arg;
	char name[32];

	for (unsigned i = 0; i < creator->count; i++) {
		int error = (is_dir(i) ? fs_rmdir : fs_unlink)(fix.fs, creator->dir, name_of(name, creator->prefix, i));

		ck_assert(error == 0 || error == -ENOENT);
		creator->created += error == 0;
		creator->present += error == -ENOENT;
		creator->acknowledged += error == 0 && !atomic_load(&power_is_lost);
	}
	return NULL;
}

static uint64_t orphans(void)
{
	uint64_t value;

	journal_read_begin(fix.fs->journal);
	value = root_get(fix.fs->journal, ROOT_ORPHANS);
	journal_read_end(fix.fs->journal);
	return value;
}

START_TEST(removals_in_different_directories_run_beside_each_other)
{
	struct creator creators[CREATORS] = {{.dir = dirs[0], .prefix = "f", .count = FILES}, {.dir = dirs[1], .prefix = "f", .count = FILES}};
	uint64_t before;

	run_all(keep_all, creators, CREATORS);
	before = alone();
	run_all(remove_all, creators, CREATORS);
	/* The rest found a root of the tree of orphans to make, or one to cut or to take away. */
	ck_assert_uint_lt(alone() - before, CREATORS * FILES / 10);
	ck_assert_uint_eq(orphans(), CREATORS * FILES);
	for (unsigned i = 0; i < CREATORS; i++) {
		struct fs_attr attr;

		ck_assert_uint_eq(creators[i].created, FILES);
		expect_equal(fs_getattr(fix.fs, dirs[i], &attr), 0);
		ck_assert_uint_eq(attr.record.entries, 0);
		ck_assert_uint_eq(attr.record.nlink, 2);
	}
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_remount(&fix), 0); /* forgets all of them */
}
END_TEST

START_TEST(of_two_who_remove_the_same_name_one_does)
{
	struct creator creators[CREATORS] = {{.dir = dirs[0], .prefix = "f", .count = FILES}, {.dir = dirs[0], .prefix = "f", .count = FILES}};

	run_all(keep_all, creators, 1);
	run_all(remove_all, creators, CREATORS);
	ck_assert_uint_eq(creators[0].created + creators[1].created, FILES);
	ck_assert_uint_eq(creators[0].present + creators[1].present, FILES);
	ck_assert_uint_eq(entries_of(dirs[0]), 0);
	ck_assert_uint_eq(orphans(), FILES);
}
END_TEST

/* How many transactions ran alone meanwhile; the background may have some too. */
static uint64_t unlink_alone(inum_t dir, const char *name)
{
	uint64_t before = alone();

	expect_equal(fs_unlink(fix.fs, dir, name), 0);
	return alone() - before;
}

/* Somebody reads it, or does what takes long: nobody waits for that within a transaction, nor changes it beside whoever has it. */
START_TEST(a_name_of_what_another_has_is_removed_alone)
{
	uint64_t least = UINT64_MAX;
	struct inode *inode;
	struct fs_attr attr;
	char name[32];

	keep(dirs[0], "file", S_IFREG | 0644);
	expect_equal(fsfix_lookup(&fix, dirs[0], "file", &attr), 0);
	for (unsigned i = 0; i < 5; i++) {
		expect_equal(fs_link(fix.fs, attr.ino, dirs[0], name_of(name, "link", i), &attr), 0);
		least = min_u64(least, unlink_alone(dirs[0], name));
	}
	ck_assert_uint_eq(least, 0);
	expect_equal(fs_link(fix.fs, attr.ino, dirs[0], "last", &attr), 0);
	expect_equal(inode_get(fix.fs, attr.ino, &inode), 0);
	pthread_rwlock_rdlock(&inode->data_lock);
	ck_assert_uint_ge(unlink_alone(dirs[0], "file"), 1);
	pthread_rwlock_unlock(&inode->data_lock);
	inode_put(inode);
}
END_TEST

/* Both may take a name of one inode at the same time: it ends with the second. */
START_TEST(two_names_of_one_inode_go_at_the_same_time)
{
	struct creator creators[CREATORS] = {{.dir = dirs[0], .prefix = "f", .count = FILES}, {.dir = dirs[1], .prefix = "f", .count = FILES}};
	struct fs_attr attr;
	unsigned others = 0;
	char name[32];

	run_all(keep_all, creators, 1);
	for (unsigned i = 0; i < FILES; i++) {
		if (!has_link(i))
			continue;
		expect_equal(fsfix_lookup(&fix, dirs[0], name_of(name, "f", i), &attr), 0);
		expect_equal(fs_link(fix.fs, attr.ino, dirs[1], name, &attr), 0);
		others++;
	}
	run_all(remove_all, creators, CREATORS);
	ck_assert_uint_eq(creators[0].created, FILES);
	ck_assert_uint_eq(creators[1].created, others);
	ck_assert_uint_eq(orphans(), FILES);
}
END_TEST

static void *turn_over(void *arg)
{
	struct creator *creator = arg;
	struct fs_attr attr;
	char name[32];

	for (unsigned i = 0; i < creator->count; i++) {
		mode_t mode = is_dir(i) ? S_IFDIR | 0755 : S_IFREG | 0644;

		expect_equal(fs_create(fix.fs, &who, creator->dir, name_of(name, creator->prefix, i), mode, 0, &attr), 0);
		creator->inos[i] = attr.ino;
		if (i < 20)
			continue;
		name_of(name, creator->prefix, i - 20);
		expect_equal((is_dir(i - 20) ? fs_rmdir : fs_unlink)(fix.fs, creator->dir, name), 0);
		fs_forget(fix.fs, creator->inos[i - 20], 1);
	}
	return NULL;
}

/* In the same directories too, with inodes that end meanwhile. */
START_TEST(removals_hold_their_own_among_creates_renames_and_lookups)
{
	struct creator creators[2 * CREATORS] = {{.dir = dirs[0], .prefix = "f", .count = FILES},
						 {.dir = dirs[1], .prefix = "f", .count = FILES},
						 {.dir = dirs[0], .prefix = "g", .count = FILES},
						 {.dir = dirs[1], .prefix = "g", .count = FILES}};
	pthread_t mover, looker;

	creators_are_done = false;
	ck_assert_int_eq(pthread_create(&mover, NULL, move_about, NULL), 0);
	ck_assert_int_eq(pthread_create(&looker, NULL, look_about, NULL), 0);
	run_all(turn_over, creators, 2 * CREATORS);
	creators_are_done = true;
	pthread_join(mover, NULL);
	pthread_join(looker, NULL);
	for (unsigned i = 0; i < CREATORS; i++)
		ck_assert_uint_eq(entries_of(dirs[i]), 2 * 20);
}
END_TEST

/* --- those who rename --- */

static void *rename_all(void *arg)
{
	struct creator *creator = arg;
	char name[32], other[32];

	for (unsigned i = 0; i < creator->count; i++) {
		int error = fs_rename(fix.fs, &who, creator->dir, name_of(name, creator->prefix, i), creator->dir, name_of(other, "new", i), 0);

		ck_assert_int_eq(error, 0);
		creator->acknowledged += !atomic_load(&power_is_lost);
	}
	return NULL;
}

START_TEST(renames_within_different_directories_run_beside_each_other)
{
	struct creator creators[CREATORS] = {{.dir = dirs[0], .prefix = "f", .count = FILES}, {.dir = dirs[1], .prefix = "f", .count = FILES}};
	uint64_t before;

	run_all(keep_all, creators, CREATORS);
	before = alone();
	run_all(rename_all, creators, CREATORS);
	ck_assert_uint_lt(alone() - before, CREATORS * FILES / 10);
	for (unsigned i = 0; i < CREATORS; i++) {
		ck_assert_uint_eq(count_of(dirs[i], "f", FILES), 0);
		ck_assert_uint_eq(count_of(dirs[i], "new", FILES), FILES);
		ck_assert_uint_eq(entries_of(dirs[i]), FILES);
	}
}
END_TEST

/* To the other directory, back, over what is there, in exchange: two of them each in the other's way. */
static void *swap_about(void *arg)
{
	struct creator *creator = arg;
	inum_t away = creator->dir == dirs[0] ? dirs[1] : dirs[0];
	char name[32], other[32];

	for (unsigned i = 0; i < creator->count; i++) {
		if (is_dir(i))
			continue;
		name_of(name, "f", i);
		name_of(other, creator->prefix, i);
		expect_equal(fs_rename(fix.fs, &who, creator->dir, name, away, other, 0), 0);
		if (i % 2)
			expect_equal(fs_rename(fix.fs, &who, creator->dir, "own", away, other, RENAME_EXCHANGE), 0);
		expect_equal(fs_rename(fix.fs, &who, away, other, creator->dir, "own", 0), 0);
		expect_equal(fs_rename(fix.fs, &who, creator->dir, "own", creator->dir, "own", 0), 0);
	}
	return NULL;
}

START_TEST(two_who_rename_into_each_others_directory_end)
{
	struct creator creators[CREATORS] = {{.dir = dirs[0], .prefix = "f", .count = FILES}, {.dir = dirs[1], .prefix = "f", .count = FILES}};
	struct creator swappers[CREATORS] = {{.dir = dirs[0], .prefix = "a", .count = FILES}, {.dir = dirs[1], .prefix = "b", .count = FILES}};
	unsigned files = 0;

	run_all(keep_all, creators, CREATORS);
	for (unsigned i = 0; i < CREATORS; i++)
		keep(dirs[i], "own", S_IFREG | 0644);
	run_all(swap_about, swappers, CREATORS);
	for (unsigned i = 0; i < FILES; i++)
		files += !is_dir(i);
	ck_assert_uint_eq(orphans(), CREATORS * files); /* each took the place of the one before */
	for (unsigned i = 0; i < CREATORS; i++)
		ck_assert_uint_eq(entries_of(dirs[i]), FILES - files + 1);
}
END_TEST

struct mover {
	pthread_t thread;
	inum_t into;
	const char *name;
	unsigned moved, refused;
};

static void *move_below(void *arg)
{
	struct mover *mover = arg;
	int error = fs_rename(fix.fs, &who, FS_ROOT_INO, mover->name, mover->into, "below", 0);

	ck_assert(!error || error == -EINVAL || error == -ENOENT);
	mover->moved += !error;
	mover->refused += error != 0;
	return NULL;
}

/* Each into the other: one comes too late, or there would be two directories that nobody finds. */
START_TEST(of_two_directories_that_move_below_each_other_one_does)
{
	keep(dirs[0], "moved", S_IFDIR | 0755);
	for (unsigned i = 0; i < 10; i++) { /* alone: others may change what is above */
		uint64_t before = alone();

		expect_equal(fs_rename(fix.fs, &who, dirs[i % 2], "moved", dirs[(i + 1) % 2], "moved", 0), 0);
		ck_assert_uint_ge(alone() - before, 1);
	}
	for (unsigned i = 0; i < 100; i++) {
		struct mover movers[2] = {{.into = dirs[1], .name = "left"}, {.into = dirs[0], .name = "right"}};

		for (unsigned k = 0; k < 2; k++)
			ck_assert_int_eq(pthread_create(&movers[k].thread, NULL, move_below, &movers[k]), 0);
		for (unsigned k = 0; k < 2; k++)
			pthread_join(movers[k].thread, NULL);
		ck_assert_uint_eq(movers[0].moved + movers[1].moved, 1);
		for (unsigned k = 0; k < 2; k++)
			if (movers[k].moved)
				expect_equal(fs_rename(fix.fs, &who, movers[k].into, "below", FS_ROOT_INO, movers[k].name, 0), 0);
	}
}
END_TEST

/* --- crash --- */

START_TEST(power_lost_with_two_creates_in_flight_leaves_each_whole_or_not_there)
{
	struct creator creators[CREATORS] = {{.dir = dirs[0], .prefix = "f", .count = CRASH_FILES},
					     {.dir = dirs[1], .prefix = "f", .count = CRASH_FILES}};

	power_stores_left = 7 * (unsigned)_i + 1;
	run_all(create_all, creators, CREATORS);
	expect_equal(fsfix_crash(&fix), 0);
	power_return();
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fsfix_check(&fix), 0);
	for (unsigned i = 0; i < CREATORS; i++) {
		unsigned found = count_of(dirs[i], "f", CRASH_FILES);

		ck_assert_uint_ge(found, creators[i].acknowledged);
		ck_assert_uint_le(found, creators[i].acknowledged + 1);
		ck_assert_uint_eq(count_of(dirs[i], "f", found), found);
	}
}
END_TEST

START_TEST(power_lost_with_two_removals_in_flight_leaves_each_whole_or_not_done)
{
	struct creator creators[CREATORS] = {{.dir = dirs[0], .prefix = "f", .count = CRASH_FILES},
					     {.dir = dirs[1], .prefix = "f", .count = CRASH_FILES}};

	run_all(keep_all, creators, CREATORS);
	keep(FS_ROOT_INO, "orphan", S_IFREG | 0644);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "orphan"), 0);
	power_stores_left = 7 * (unsigned)_i + 1;
	run_all(remove_all, creators, CREATORS);
	expect_equal(fsfix_crash(&fix), 0);
	power_return();
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fsfix_check(&fix), 0);
	for (unsigned i = 0; i < CREATORS; i++) {
		unsigned found = count_of(dirs[i], "f", CRASH_FILES);

		ck_assert_uint_le(found, CRASH_FILES - creators[i].acknowledged);
		ck_assert_uint_ge(found + 1, CRASH_FILES - creators[i].acknowledged);
		ck_assert_uint_eq(count_of(dirs[i], "f", CRASH_FILES - found), 0);
	}
}
END_TEST

START_TEST(power_lost_with_two_renames_in_flight_leaves_one_name_of_each)
{
	struct creator creators[CREATORS] = {{.dir = dirs[0], .prefix = "f", .count = CRASH_FILES},
					     {.dir = dirs[1], .prefix = "f", .count = CRASH_FILES}};

	run_all(keep_all, creators, CREATORS);
	power_stores_left = 13 * (unsigned)_i + 1;
	run_all(rename_all, creators, CREATORS);
	expect_equal(fsfix_crash(&fix), 0);
	power_return();
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fsfix_check(&fix), 0);
	for (unsigned i = 0; i < CREATORS; i++) {
		unsigned found = count_of(dirs[i], "new", CRASH_FILES);

		ck_assert_uint_ge(found, creators[i].acknowledged);
		ck_assert_uint_le(found, creators[i].acknowledged + 1);
		ck_assert_uint_eq(count_of(dirs[i], "f", CRASH_FILES), CRASH_FILES - found);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("names_threads");
	TCase *tests = tcase_create("names_threads");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, creates_in_different_directories_run_beside_each_other);
	tcase_add_test(tests, of_two_who_create_the_same_name_one_does);
	tcase_add_test(tests, creates_hold_their_own_among_renames_unlinks_and_lookups);
	tcase_add_test(tests, removals_in_different_directories_run_beside_each_other);
	tcase_add_test(tests, of_two_who_remove_the_same_name_one_does);
	tcase_add_test(tests, a_name_of_what_another_has_is_removed_alone);
	tcase_add_test(tests, two_names_of_one_inode_go_at_the_same_time);
	tcase_add_test(tests, removals_hold_their_own_among_creates_renames_and_lookups);
	tcase_add_test(tests, renames_within_different_directories_run_beside_each_other);
	tcase_add_test(tests, two_who_rename_into_each_others_directory_end);
	tcase_add_test(tests, of_two_directories_that_move_below_each_other_one_does);
	tcase_add_loop_test(tests, power_lost_with_two_renames_in_flight_leaves_one_name_of_each, 0, 10);
	tcase_add_loop_test(tests, power_lost_with_two_removals_in_flight_leaves_each_whole_or_not_done, 0, 20);
	tcase_add_loop_test(tests, power_lost_with_two_creates_in_flight_leaves_each_whole_or_not_there, 0, 20);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
