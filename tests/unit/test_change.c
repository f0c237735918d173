/*
 * Changes of attributes and extended attributes beside each other, and beside all else: nothing is lost, the trees agree. Run under TSan too. Then power is lost with
 * two in flight: after that, each file has what was acknowledged and at most the change that was not.
 */
#include "fs/change.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>

#include "journal/root.h"
#include "tests/support/files.h"
#include "tests/support/power.h"
#include "util/lock.h"

#define THREADS 2
#define FILES 300u
#define CRASH_FILES 40u
#define ROUNDS 400u

static struct fsfix fix;
static inum_t dirs[THREADS];
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

/* Transactions that ran alone so far. */
static uint64_t alone(void)
{
	struct lock_counts counts;

	lock_counts(&counts);
	return counts.taken[LOCK_GATE_WRITE];
}

/* --- the threads, each with files of its own, which stay looked up --- */

struct changer {
	pthread_t thread;
	inum_t dir;
	unsigned number, count, acknowledged;
	inum_t inos[FILES];
};
static struct changer changers[THREADS];

static void run_all(void *(*start)(void *))
{
	for (unsigned i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&changers[i].thread, NULL, start, &changers[i]), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(changers[i].thread, NULL);
}

static void *make_all(void *arg)
{
	struct changer *changer = arg;
	struct fs_attr attr;
	char name[32];

	for (unsigned i = 0; i < changer->count; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		expect_equal(fs_create(fix.fs, &who, changer->dir, name, S_IFREG | 0644, 0, &attr), 0);
		changer->inos[i] = attr.ino;
	}
	return NULL;
}

static void make_files(unsigned count)
{
	for (unsigned i = 0; i < THREADS; i++)
		changers[i] = (struct changer){.dir = dirs[i], .number = i, .count = count};
	run_all(make_all);
}

static void get(inum_t ino, struct inode_record *out)
{
	struct fs_attr attr;

	expect_equal(fs_getattr(fix.fs, ino, &attr), 0);
	*out = attr.record;
}

static int set_mode(inum_t ino, uint32_t mode)
{
	struct inode_record values = {.mode = mode};
	struct fs_attr attr;

	return fs_setattr(fix.fs, ino, FS_SET_MODE, &values, &attr);
}

static int set_size(inum_t ino, uint64_t size)
{
	struct inode_record values = {.size_bytes = size};
	struct fs_attr attr;

	return fs_setattr(fix.fs, ino, FS_SET_SIZE, &values, &attr);
}

/* Its bytes tell whose it is. */
static int set_value(inum_t ino, const char *name, unsigned tag, size_t size)
{
	uint8_t value[256];

	files_fill(value, tag, 0, size);
	return fs_setxattr(fix.fs, &who, ino, name, value, size, 0);
}

static int value_is(inum_t ino, const char *name, unsigned tag, size_t size)
{
	uint8_t value[256], wanted[256];
	size_t length = 0;
	int error = fs_getxattr(fix.fs, &who, ino, name, value, sizeof(value), &length);

	if (error)
		return error;
	files_fill(wanted, tag, 0, size);
	return length == size && !memcmp(value, wanted, size) ? 0 : -EILSEQ;
}

static uint32_t mode_of(unsigned i)
{
	return i * 7 % 0777;
}

static unsigned tag_of(const struct changer *changer, unsigned i)
{
	return 1 + changer->number * FILES + i;
}

/* --- different files --- */

static void *change_modes(void *arg)
{
	struct changer *changer = arg;

	for (unsigned i = 0; i < changer->count; i++)
		expect_equal(set_mode(changer->inos[i], mode_of(i)), 0);
	return NULL;
}

static void *raise_sizes(void *arg)
{
	struct changer *changer = arg;

	for (unsigned i = 0; i < changer->count; i++)
		expect_equal(set_size(changer->inos[i], 1 + i), 0);
	return NULL;
}

static void *give_attributes(void *arg)
{
	struct changer *changer = arg;

	for (unsigned i = 0; i < changer->count; i++) {
		expect_equal(set_value(changer->inos[i], "user.kept", tag_of(changer, i), 100 + i % 100), 0);
		expect_equal(set_value(changer->inos[i], "user.gone", 9, 50), 0);
		expect_equal(set_value(changer->inos[i], "user.kept", tag_of(changer, i), 200 - i % 100), 0);
		expect_equal(fs_removexattr(fix.fs, &who, changer->inos[i], "user.gone"), 0);
	}
	return NULL;
}

static void expect_all_changed(const struct changer *changer)
{
	struct inode_record record;

	for (unsigned i = 0; i < changer->count; i++) {
		get(changer->inos[i], &record);
		ck_assert_uint_eq(record.mode, S_IFREG | mode_of(i));
		ck_assert_uint_eq(record.size_bytes, 1 + i);
		expect_equal(value_is(changer->inos[i], "user.kept", tag_of(changer, i), 200 - i % 100), 0);
		expect_equal(value_is(changer->inos[i], "user.gone", 9, 50), -ENODATA);
	}
}

/* All but those that needed a root of the tree, or a block that was not in memory; what the background does runs alone too. */
static void expect_beside(void *(*start)(void *), unsigned changes)
{
	uint64_t before = alone();

	run_all(start);
	ck_assert_uint_lt(alone() - before, THREADS * changes / 10);
}

START_TEST(changes_in_different_files_run_beside_each_other)
{
	make_files(FILES);
	expect_beside(change_modes, FILES);
	expect_beside(raise_sizes, FILES);
	expect_beside(give_attributes, 4 * FILES);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < THREADS; i++)
			expect_all_changed(&changers[i]);
		expect_equal(fsfix_check(&fix), 0);
		expect_equal(fsfix_remount(&fix), 0);
	}
}
END_TEST

/* --- what unmaps --- */

#define BLOCKS 5u

static void *write_all(void *arg)
{
	struct changer *changer = arg;

	for (unsigned i = 0; i < changer->count; i++)
		for (unsigned k = 0; k < BLOCKS; k += 1 + k % 2) /* in two pieces */
			files_write(&fix, changer->inos[i], tag_of(changer, i), (uint64_t)k * BLOCK_BYTES, BLOCK_BYTES);
	return NULL;
}

static void *cut_all(void *arg)
{
	struct changer *changer = arg;

	for (unsigned i = 0; i < changer->count; i++)
		expect_equal(set_size(changer->inos[i], i % 3 * BLOCK_BYTES), 0);
	return NULL;
}

static void *punch_all(void *arg)
{
	struct changer *changer = arg;

	for (unsigned i = 0; i < changer->count; i++)
		if (i % 3)
			expect_equal(fs_fallocate(fix.fs, changer->inos[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BLOCK_BYTES), 0);
	return NULL;
}

static uint64_t free_blocks(void)
{
	uint64_t blocks;

	journal_read_begin(fix.fs->journal);
	blocks = alloc_free_blocks(fix.fs->alloc);
	journal_read_end(fix.fs->journal);
	return blocks;
}

START_TEST(blocks_of_different_files_are_given_back_side_by_side)
{
	struct inode_record record;
	uint64_t before;

	make_files(FILES);
	run_all(write_all);
	before = free_blocks();
	run_all(cut_all);
	run_all(punch_all);
	ck_assert_uint_gt(free_blocks(), before);
	for (unsigned i = 0; i < THREADS; i++)
		for (unsigned k = 0; k < FILES; k++) {
			get(changers[i].inos[k], &record);
			ck_assert_uint_eq(record.size_bytes, k % 3 * BLOCK_BYTES);
			ck_assert_uint_eq(record.count_blocks, k % 3 == 2);
			if (k % 3 == 2)
				files_expect(&fix, changers[i].inos[k], tag_of(&changers[i], k), BLOCK_BYTES, BLOCK_BYTES);
		}
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_remount(&fix), 0);
}
END_TEST

static uint64_t orphans(void)
{
	uint64_t count;

	journal_read_begin(fix.fs->journal);
	count = root_get(fix.fs->journal, ROOT_ORPHANS);
	journal_read_end(fix.fs->journal);
	return count;
}

static void *unlink_all(void *arg)
{
	struct changer *changer = arg;
	char name[32];

	for (unsigned i = 0; i < changer->count; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		expect_equal(fs_unlink(fix.fs, changer->dir, name), 0);
	}
	return NULL;
}

static void *remove_all(void *arg)
{
	struct changer *changer = arg;
	char name[32];

	for (unsigned i = 0; i < changer->count; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		expect_equal(fs_unlink(fix.fs, changer->dir, name), 0);
		fs_forget(fix.fs, changer->inos[i], 1);
		changer->acknowledged += !atomic_load(&power_is_lost);
	}
	return NULL;
}

static void pause_shortly(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void *forget_all(void *arg)
{
	struct changer *changer = arg;

	for (unsigned i = 0; i < changer->count; i++)
		fs_forget(fix.fs, changer->inos[i], 1);
	return NULL;
}

static void *empty_all(void *arg)
{
	struct changer *changer = arg;

	for (unsigned i = 0; i < changer->count; i++)
		expect_equal(set_size(changer->inos[i], 0), 0);
	return NULL;
}

/* Each finds the other still there, or frees them: neither both nor none. */
START_TEST(blocks_that_two_share_go_with_the_second)
{
	uint64_t before;

	make_files(FILES);
	before = free_blocks();
	write_all(&changers[0]);
	for (unsigned i = 0; i < FILES; i++)
		expect_equal(fs_clone(fix.fs, changers[0].inos[i], changers[1].inos[i]), 0);
	ck_assert_uint_ge(before - free_blocks(), 3 * FILES);
	before = free_blocks();
	run_all(empty_all);
	ck_assert_uint_ge(free_blocks() - before, 3 * FILES);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

/* With nobody to meet: how often two do depends on where their blocks lie. */
START_TEST(giving_blocks_back_does_not_run_alone)
{
	uint64_t before;

	make_files(FILES);
	run_all(write_all);
	before = alone();
	cut_all(&changers[0]);
	punch_all(&changers[1]);
	ck_assert_uint_lt(alone() - before, FILES / 10);
}
END_TEST

/* In the background: first with nobody to meet, then while two work on. */
START_TEST(inodes_end_beside_all_else)
{
	uint64_t before;

	make_files(FILES);
	run_all(write_all);
	run_all(give_attributes);
	unlink_all(&changers[0]);
	before = alone();
	forget_all(&changers[0]);
	while (orphans())
		pause_shortly();
	/* 16 of them together would be as many already if they ended alone. */
	ck_assert_uint_lt(alone() - before, FILES / RECLAIM_TOGETHER);
	make_all(&changers[0]);
	write_all(&changers[0]);
	run_all(remove_all);
	while (orphans())
		pause_shortly();
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

/* What is too large for such a transaction ends alone. */
START_TEST(large_and_shared_inodes_end_too)
{
	struct changer *changer = &changers[0];

	make_files(3);
	for (unsigned i = 0; i < 200; i++)
		files_write(&fix, changer->inos[0], 5, 2 * i * BLOCK_BYTES, BLOCK_BYTES);
	files_write(&fix, changer->inos[1], 6, 0, 3 * BLOCK_BYTES);
	expect_equal(fs_clone(fix.fs, changer->inos[1], changer->inos[2]), 0);
	for (unsigned i = 0; i < THREADS; i++)
		remove_all(&changers[i]);
	while (orphans())
		pause_shortly();
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

/* --- one file --- */

static void *change_one(void *arg)
{
	struct changer *changer = arg;
	char name[32];

	for (unsigned i = 0; i < ROUNDS; i++) {
		expect_equal(set_mode(changers[0].inos[0], mode_of(i)), 0);
		snprintf(name, sizeof(name), "user.%u-%u", changer->number, i % 10);
		expect_equal(set_value(changers[0].inos[0], name, tag_of(changer, i % 10), 30), 0);
	}
	return NULL;
}

START_TEST(of_two_who_change_one_file_neither_loses_anything)
{
	struct inode_record before, after;
	char name[32];

	make_files(1);
	get(changers[0].inos[0], &before);
	run_all(change_one);
	get(changers[0].inos[0], &after);
	/* Each counts. */
	ck_assert_uint_eq(after.change - before.change, THREADS * ROUNDS * 2);
	for (unsigned i = 0; i < THREADS * 10; i++) {
		snprintf(name, sizeof(name), "user.%u-%u", i / 10, i % 10);
		expect_equal(value_is(changers[0].inos[0], name, tag_of(&changers[i / 10], i % 10), 30), 0);
	}
}
END_TEST

static uint64_t alone_for(inum_t ino, uint32_t mode)
{
	uint64_t before = alone();

	expect_equal(set_mode(ino, mode), 0);
	return alone() - before;
}

/* Somebody reads it, or does what takes long: he is not waited for, nor is anything changed beside him. */
START_TEST(what_another_has_is_changed_alone)
{
	uint64_t least = UINT64_MAX;
	struct inode_record record;
	struct inode *inode;

	make_files(1);
	for (unsigned i = 0; i < 5; i++)
		least = min_u64(least, alone_for(changers[0].inos[0], 0600 + i));
	ck_assert_uint_eq(least, 0);
	expect_equal(inode_get(fix.fs, changers[0].inos[0], &inode), 0);
	pthread_rwlock_rdlock(&inode->data_lock);
	ck_assert_uint_ge(alone_for(inode->ino, 0640), 1);
	pthread_rwlock_unlock(&inode->data_lock);
	get(inode->ino, &record);
	ck_assert_uint_eq(record.mode, S_IFREG | 0640);
	inode_put(inode);
}
END_TEST

/* What is refused is refused for what it is: only alone is that certain. */
START_TEST(what_is_refused_says_why)
{
	inum_t ino;

	make_files(1);
	ino = changers[0].inos[0];
	expect_equal(fs_removexattr(fix.fs, &who, ino, "user.none"), -ENODATA);
	expect_equal(fs_setxattr(fix.fs, &who, ino, "user.a", "1", 1, XATTR_REPLACE), -ENODATA);
	expect_equal(fs_setxattr(fix.fs, &who, ino, "user.a", "1", 1, XATTR_CREATE), 0);
	expect_equal(fs_setxattr(fix.fs, &who, ino, "user.a", "1", 1, XATTR_CREATE), -EEXIST);
}
END_TEST

/* --- among everything else --- */

static atomic_bool changers_are_done;

static void *work_about(void *arg)
{
	struct fs_attr attr;
	char name[32], other[32];
	uint8_t byte = 1;
	size_t done;

	for (unsigned i = 0; !changers_are_done; i++) {
		inum_t dir = dirs[i % THREADS], ino = changers[i % THREADS].inos[i % CRASH_FILES];

		snprintf(name, sizeof(name), "mine-%u", i);
		snprintf(other, sizeof(other), "moved-%u", i);
		expect_equal(fs_create(fix.fs, &who, dir, name, S_IFREG | 0644, 0, &attr), 0);
		expect_equal(fs_rename(fix.fs, &who, dir, name, dir, other, 0), 0);
		expect_equal(fs_unlink(fix.fs, dir, other), 0);
		fs_forget(fix.fs, attr.ino, 1);
		expect_equal(fs_write(fix.fs, ino, i % 3 * 5000, &byte, 1, &done), 0);
		expect_equal(fs_read(fix.fs, ino, 0, &byte, 1, &done), 0);
		expect_equal(fs_fsync(fix.fs, ino), 0);
		expect_equal(set_mode(dir, 0700 + i % 8), 0);
		byte = 1;
	}
	return NULL;
}

static void *change_much(void *arg)
{
	struct changer *changer = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned at = i % CRASH_FILES;
		inum_t ino = changer->inos[at];

		expect_equal(set_mode(ino, mode_of(at)), 0);
		expect_equal(set_value(ino, "user.kept", tag_of(changer, at), 1 + i % 200), 0);
		expect_equal(set_size(ino, i * 50), 0);
	}
	return NULL;
}

START_TEST(changes_hold_their_own_among_names_writes_and_reads)
{
	struct inode_record record;
	pthread_t worker;

	make_files(CRASH_FILES);
	changers_are_done = false;
	ck_assert_int_eq(pthread_create(&worker, NULL, work_about, NULL), 0);
	run_all(change_much);
	changers_are_done = true;
	pthread_join(worker, NULL);
	for (unsigned i = 0; i < THREADS; i++)
		for (unsigned k = 0; k < CRASH_FILES; k++) {
			get(changers[i].inos[k], &record);
			ck_assert_uint_eq(record.mode, S_IFREG | mode_of(k));
			expect_equal(value_is(changers[i].inos[k], "user.kept", tag_of(&changers[i], k),
					      1 + (ROUNDS - CRASH_FILES + k) % 200),
				     0);
		}
}
END_TEST

/* --- crash --- */

static void *change_until_the_end(void *arg)
{
	struct changer *changer = arg;

	for (unsigned i = 0; i < changer->count; i++) {
		expect_equal(set_mode(changer->inos[i], 0601), 0);
		changer->acknowledged += !atomic_load(&power_is_lost);
		expect_equal(set_value(changer->inos[i], "user.a", tag_of(changer, i), 150), 0);
		changer->acknowledged += !atomic_load(&power_is_lost);
	}
	return NULL;
}

/* In the order in which they were made; the number of those that are there. */
static unsigned changes_found(const struct changer *changer)
{
	struct inode_record record;
	unsigned found = 0, gaps = 0;

	for (unsigned i = 0; i < changer->count; i++) {
		int error = value_is(changer->inos[i], "user.a", tag_of(changer, i), 150);

		ck_assert(error == 0 || error == -ENODATA);
		get(changer->inos[i], &record);
		gaps += (found < 2 * i && record.mode == (S_IFREG | 0601)) || (!error && record.mode != (S_IFREG | 0601));
		found += (record.mode == (S_IFREG | 0601)) + !error;
	}
	ck_assert_uint_eq(gaps, 0);
	return found;
}

START_TEST(power_lost_with_two_changes_in_flight_leaves_each_whole_or_not_made)
{
	make_files(CRASH_FILES);
	power_stores_left = 13 * (unsigned)_i + 1;
	run_all(change_until_the_end);
	expect_equal(fsfix_crash(&fix), 0);
	power_return();
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fsfix_check(&fix), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		unsigned found = changes_found(&changers[i]);

		ck_assert_uint_ge(found, changers[i].acknowledged);
		ck_assert_uint_le(found, changers[i].acknowledged + 1);
	}
}
END_TEST

START_TEST(power_lost_while_inodes_end_leaves_none_half_ended)
{
	struct fs_attr attr;
	char name[32];

	make_files(CRASH_FILES);
	run_all(write_all);
	run_all(give_attributes);
	power_stores_left = 31 * (unsigned)_i + 1;
	run_all(remove_all);
	expect_equal(fsfix_crash(&fix), 0);
	power_return();
	expect_equal(fsfix_mount(&fix), 0);
	while (orphans())
		pause_shortly();
	expect_equal(fsfix_check(&fix), 0);
	for (unsigned i = 0; i < THREADS; i++)
		for (unsigned k = 0; k < CRASH_FILES; k++) {
			int error;

			snprintf(name, sizeof(name), "f%u", k);
			error = fsfix_lookup(&fix, dirs[i], name, &attr);
			ck_assert(error == 0 || error == -ENOENT);
			ck_assert(error || k >= changers[i].acknowledged);
			if (error)
				continue;
			expect_equal(value_is(attr.ino, "user.kept", tag_of(&changers[i], k), 200 - k % 100), 0);
			files_expect(&fix, attr.ino, tag_of(&changers[i], k), 0, BLOCK_BYTES);
			expect_equal(fs_unlink(fix.fs, dirs[i], name), 0);
		}
	while (orphans())
		pause_shortly();
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("change");
	TCase *tests = tcase_create("change");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, changes_in_different_files_run_beside_each_other);
	tcase_add_test(tests, blocks_of_different_files_are_given_back_side_by_side);
	tcase_add_test(tests, blocks_that_two_share_go_with_the_second);
	tcase_add_test(tests, giving_blocks_back_does_not_run_alone);
	tcase_add_test(tests, inodes_end_beside_all_else);
	tcase_add_test(tests, large_and_shared_inodes_end_too);
	tcase_add_test(tests, of_two_who_change_one_file_neither_loses_anything);
	tcase_add_test(tests, what_another_has_is_changed_alone);
	tcase_add_test(tests, what_is_refused_says_why);
	tcase_add_test(tests, changes_hold_their_own_among_names_writes_and_reads);
	tcase_add_loop_test(tests, power_lost_with_two_changes_in_flight_leaves_each_whole_or_not_made, 0, 20);
	tcase_add_loop_test(tests, power_lost_while_inodes_end_leaves_none_half_ended, 0, 20);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
