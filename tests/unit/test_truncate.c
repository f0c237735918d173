/*
 * Truncate, punch, zero, unlink: short ones, and chains over many extents that a kill may cut
 * anywhere.
 */
#include "tests/support/files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/data.h"
#include "journal/root.h"
#include "journal/tx.h"
#include "tests/support/random.h"

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define MANY_EXTENTS 20000u

static struct fsfix fix;
static inum_t ino;

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, 64u << 20), 0);
	ino = files_new(&fix, "file");
}

static void teardown(void)
{
	if (fix.fs)
		files_check(&fix);
	fsfix_destroy(&fix);
}

START_TEST(truncate_frees_what_is_beyond)
{
	files_write(&fix, ino, 1, 0, 10 * BLOCK_BYTES);
	files_truncate(&fix, ino, 4 * BLOCK_BYTES + 1);
	expect_equal(files_record(&fix, ino).count_blocks, 5);
	files_truncate(&fix, ino, 10 * BLOCK_BYTES);
	files_expect(&fix, ino, 1, 0, 4 * BLOCK_BYTES + 1);
	files_expect(&fix, ino, 0, 4 * BLOCK_BYTES + 1, 6 * BLOCK_BYTES - 1);
	files_truncate(&fix, ino, 0);
	expect_equal(files_record(&fix, ino).count_blocks, 0);
}
END_TEST

START_TEST(truncate_to_any_64_bit_size)
{
	files_write(&fix, ino, 1, 0, 10);
	files_truncate(&fix, ino, FS_FILE_MAX);
	expect_equal(files_size(&fix, ino), FS_FILE_MAX);
	files_expect(&fix, ino, 0, FS_FILE_MAX - 100, 100);
	files_truncate(&fix, ino, 10);
	files_expect(&fix, ino, 1, 0, 10);
}
END_TEST

START_TEST(space_allocated_beyond_the_end_goes_with_truncate)
{
	expect_equal(fs_fallocate(fix.fs, ino, FALLOC_FL_KEEP_SIZE, 0, 20 * BLOCK_BYTES), 0);
	expect_equal(files_size(&fix, ino), 0);
	expect_equal(files_record(&fix, ino).count_blocks, 20);
	files_write(&fix, ino, 1, 0, 100);
	files_truncate(&fix, ino, 100);
	expect_equal(files_record(&fix, ino).count_blocks, 1);
}
END_TEST

START_TEST(punch_zeros_the_edges_and_frees_the_middle)
{
	files_write(&fix, ino, 1, 0, 10 * BLOCK_BYTES);
	expect_equal(fs_fallocate(fix.fs, ino, PUNCH, 1000, 5 * BLOCK_BYTES), 0);
	files_expect(&fix, ino, 1, 0, 1000);
	files_expect(&fix, ino, 0, 1000, 5 * BLOCK_BYTES);
	files_expect(&fix, ino, 1, 5 * BLOCK_BYTES + 1000, 5 * BLOCK_BYTES - 1000);
	expect_equal(files_record(&fix, ino).count_blocks, 6);
	expect_equal(fs_fallocate(fix.fs, ino, PUNCH, 7 * BLOCK_BYTES + 10, 20), 0);
	files_expect(&fix, ino, 0, 7 * BLOCK_BYTES + 10, 20);
	files_expect(&fix, ino, 1, 7 * BLOCK_BYTES + 30, BLOCK_BYTES);
	expect_equal(fs_fallocate(fix.fs, ino, PUNCH, 8 * BLOCK_BYTES, 1u << 30), 0);
	expect_equal(files_size(&fix, ino), 10 * BLOCK_BYTES);
	files_expect(&fix, ino, 0, 8 * BLOCK_BYTES, 2 * BLOCK_BYTES);
}
END_TEST

START_TEST(zero_range_leaves_space_allocated)
{
	files_write(&fix, ino, 1, 0, 4 * BLOCK_BYTES);
	expect_equal(fs_fallocate(fix.fs, ino, FALLOC_FL_ZERO_RANGE, 100, 8 * BLOCK_BYTES), 0);
	expect_equal(files_size(&fix, ino), 8 * BLOCK_BYTES + 100);
	files_expect(&fix, ino, 1, 0, 100);
	files_expect(&fix, ino, 0, 100, 8 * BLOCK_BYTES);
	expect_equal(files_record(&fix, ino).count_blocks, 9);
	expect_equal(fs_fallocate(fix.fs, ino, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0,
				  12 * BLOCK_BYTES),
		     0);
	expect_equal(files_size(&fix, ino), 8 * BLOCK_BYTES + 100);
	expect_equal(files_record(&fix, ino).count_blocks, 12);
}
END_TEST

#define ZERO_KEEP (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

static struct extent first_extent(inum_t of)
{
	struct extent e = {0};
	unsigned count = 0;
	uint64_t covered;

	expect_equal(extent_collect_unlocked(fix.fs, of, 0, 1, &e, 1, &count, &covered), 0);
	expect_equal(count, 1);
	return e;
}

static uint64_t available(void)
{
	struct fs_statfs st;

	expect_equal(fs_syncfs(fix.fs), 0);
	fs_statfs(fix.fs, &st);
	return st.available_blocks;
}

START_TEST(zero_range_keeps_the_very_blocks_and_needs_no_space)
{
	struct extent before;
	inum_t filler = files_new(&fix, "filler");
	uint64_t left;

	files_write(&fix, ino, 1, 0, 64 * BLOCK_BYTES);
	before = first_extent(ino);
	while ((left = available()))
		expect_equal(fs_fallocate(fix.fs, filler, 0, files_size(&fix, filler), left * BLOCK_BYTES), 0);
	expect_equal(fs_fallocate(fix.fs, ino, FALLOC_FL_ZERO_RANGE, 0, 64 * BLOCK_BYTES), 0);
	expect_equal(first_extent(ino).block, before.block);
	expect(first_extent(ino).flags & EXTENT_UNWRITTEN);
	expect_equal(files_record(&fix, ino).count_blocks, 64);
	files_expect(&fix, ino, 0, 0, 64 * BLOCK_BYTES);
	files_write(&fix, ino, 2, 0, 64 * BLOCK_BYTES);
	expect_equal(fsfix_remount(&fix), 0);
	files_expect(&fix, ino, 2, 0, 64 * BLOCK_BYTES);
}
END_TEST

START_TEST(zero_range_leaves_a_sharer_alone_and_gets_blocks_of_its_own)
{
	inum_t other = files_new(&fix, "other");
	uint64_t left;

	files_write(&fix, ino, 1, 0, 300 * BLOCK_BYTES);
	expect_equal(fs_clone(fix.fs, ino, other), 0);
	left = available();
	expect_equal(fs_fallocate(fix.fs, other, FALLOC_FL_ZERO_RANGE, 10, 200 * BLOCK_BYTES), 0);
	expect_equal(available(), left - 201);
	files_expect(&fix, ino, 1, 0, 300 * BLOCK_BYTES);
	files_expect(&fix, other, 1, 0, 10);
	files_expect(&fix, other, 0, 10, 200 * BLOCK_BYTES);
	files_expect(&fix, other, 1, 200 * BLOCK_BYTES + 10, 99 * BLOCK_BYTES);
	expect_equal(files_record(&fix, other).count_blocks, 300);
}
END_TEST

START_TEST(zero_range_without_space_changes_nothing)
{
	inum_t other = files_new(&fix, "other"), filler = files_new(&fix, "filler");
	uint64_t left;

	files_write(&fix, ino, 1, 0, 64 * BLOCK_BYTES);
	expect_equal(fs_clone(fix.fs, ino, other), 0);
	expect_equal(fs_fallocate(fix.fs, filler, 0, 0, (available() - 32) * BLOCK_BYTES), 0);
	left = available();
	expect_equal(fs_fallocate(fix.fs, ino, ZERO_KEEP, 0, 64 * BLOCK_BYTES), -ENOSPC);
	expect_equal(fs_fallocate(fix.fs, ino, FALLOC_FL_ZERO_RANGE, 100, 200 * BLOCK_BYTES), -ENOSPC);
	expect_equal(fs_fallocate(fix.fs, ino, 0, 63 * BLOCK_BYTES, 200 * BLOCK_BYTES), -ENOSPC);
	expect_equal(available(), left);
	expect_equal(files_size(&fix, ino), 64 * BLOCK_BYTES);
	files_expect(&fix, ino, 1, 0, 64 * BLOCK_BYTES);
	files_expect(&fix, other, 1, 0, 64 * BLOCK_BYTES);
}
END_TEST

START_TEST(zero_range_of_many_extents_is_zero_all_over_after_a_kill)
{
	for (unsigned i = 0; i < 2000; i++)
		files_write(&fix, ino, 1, 2ull * i * BLOCK_BYTES, BLOCK_BYTES);
	expect_equal(fs_fallocate(fix.fs, ino, ZERO_KEEP, 50, 3999ull * BLOCK_BYTES - 50), 0);
	/* Not a copy of the image: write-back may be at work on it just now. */
	fs_abandon(fix.fs);
	fix.fs = NULL;
	expect_equal(fsfix_mount(&fix), 0);
	files_expect(&fix, ino, 1, 0, 50);
	files_expect(&fix, ino, 0, 50, 3998 * BLOCK_BYTES);
	expect_equal(files_record(&fix, ino).count_blocks, 3999);
}
END_TEST

START_TEST(unknown_modes_are_refused)
{
	expect_equal(fs_fallocate(fix.fs, ino, FALLOC_FL_COLLAPSE_RANGE, 0, BLOCK_BYTES),
		     -EOPNOTSUPP);
	expect_equal(fs_fallocate(fix.fs, ino, FALLOC_FL_PUNCH_HOLE, 0, BLOCK_BYTES), -EOPNOTSUPP);
	expect_equal(fs_fallocate(fix.fs, ino, 0, 0, 0), -EINVAL);
	expect_equal(fs_fallocate(fix.fs, ino, 0, FS_FILE_MAX, 2), -EFBIG);
	expect_equal(fs_fallocate(fix.fs, FS_ROOT_INO, 0, 0, 1), -EISDIR);
}
END_TEST

/* --- chains --------------------------------------------------------------------------------- */

/* A file whose every second block is mapped, out of one run: as many extents as blocks. */
static void make_many_extents(inum_t file, unsigned count)
{
	struct tx *tx;
	unsigned i = 0;

	while (i < count) {
		struct inode *inode;
		struct inode_record record;

		expect_equal(inode_get(fix.fs, file, &inode), 0);
		expect_equal(fs_tx_begin(fix.fs, TX_NORMAL, &tx), 0);
		record = inode->record;
		for (unsigned k = 0; k < 256 && i < count; k++, i++) {
			struct alloc_request request = {
			    .want_blocks = 1, .least_blocks = 1, .align_blocks = 1};
			struct extent e = {.file_block = 2ull * i, .flags = EXTENT_UNWRITTEN};

			expect_equal(
			    alloc_take(fix.fs->alloc, tx, &request, &e.block, &e.count_blocks), 0);
			expect_equal(extent_insert(fix.fs, tx, file, &e), 0);
			record.count_blocks++;
		}
		record.size_bytes = 2ull * i * BLOCK_BYTES;
		expect_equal(inode_update(inode, tx, &record), 0);
		expect_equal(tx_commit(tx, NULL), 0);
		inode_put(inode);
	}
}

static uint64_t counter(enum root_counter which)
{
	uint64_t value;

	journal_read_begin(fix.fs->journal);
	value = root_get(fix.fs->journal, which);
	journal_read_end(fix.fs->journal);
	return value;
}

static void many_setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, 256u << 20), 0);
	ino = files_new(&fix, "file");
	make_many_extents(ino, MANY_EXTENTS);
}

START_TEST(a_file_of_many_extents_is_truncated)
{
	uint64_t before = counter(ROOT_FREE_BLOCKS);

	files_truncate(&fix, ino, MANY_EXTENTS * BLOCK_BYTES);
	expect_equal(files_record(&fix, ino).count_blocks, MANY_EXTENTS / 2);
	expect_equal(counter(ROOT_INTENTS), 0);
	expect(counter(ROOT_FREE_BLOCKS) >= before + MANY_EXTENTS / 2);
}
END_TEST

START_TEST(a_file_of_many_extents_is_deleted)
{
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "file"), 0);
	expect_equal(fsfix_remount(&fix), 0);
	for (unsigned i = 0; i < 100 && counter(ROOT_ORPHANS); i++)
		usleep(100000);
	expect_equal(counter(ROOT_ORPHANS), 0);
}
END_TEST

START_TEST(a_file_of_many_extents_is_punched)
{
	expect_equal(fs_fallocate(fix.fs, ino, PUNCH, 0, MANY_EXTENTS * BLOCK_BYTES), 0);
	expect_equal(files_record(&fix, ino).count_blocks, MANY_EXTENTS / 2);
	expect_equal(counter(ROOT_INTENTS), 0);
}
END_TEST

enum chain { CHAIN_TRUNCATE, CHAIN_PUNCH, CHAIN_UNLINK, CHAIN_CLONE, CHAINS };

static void run_chain(enum chain chain, inum_t target)
{
	switch (chain) {
	case CHAIN_TRUNCATE:
		files_truncate(&fix, ino, 100);
		break;
	case CHAIN_PUNCH:
		fs_fallocate(fix.fs, ino, PUNCH, 0, MANY_EXTENTS * BLOCK_BYTES);
		break;
	case CHAIN_UNLINK:
		fs_unlink(fix.fs, FS_ROOT_INO, "file");
		sleep(10);
		break;
	case CHAIN_CLONE:
		fs_clone(fix.fs, target, ino);
		break;
	default:
		break;
	}
}

/* Kills this process when the chain has freed so many blocks. */
static void *kill_after_blocks(void *arg)
{
	uint64_t until = *(uint64_t *)arg + counter(ROOT_FREE_BLOCKS);

	while (counter(ROOT_FREE_BLOCKS) < until)
		sched_yield();
	kill(getpid(), SIGKILL);
	return NULL;
}

/* A child serves the filesystem and is killed in the middle of the chain. */
static void kill_in_chain(enum chain chain, inum_t target, uint64_t after_blocks)
{
	pthread_t killer;
	pid_t child;

	expect_equal(fsfix_unmount(&fix), 0);
	fflush(NULL);
	child = fork();
	if (!child) {
		if (fsfix_mount(&fix) ||
		    pthread_create(&killer, NULL, kill_after_blocks, &after_blocks))
			_exit(1);
		run_chain(chain, target);
		kill(getpid(), SIGKILL);
	}
	expect_equal(waitpid(child, NULL, 0), child);
	expect_equal(fsfix_mount(&fix), 0);
}

static void wait_for_background(void)
{
	for (unsigned i = 0; i < 300 && counter(ROOT_ORPHANS); i++)
		usleep(100000);
	expect_equal(counter(ROOT_ORPHANS), 0);
	expect_equal(counter(ROOT_INTENTS), 0);
}

static void expect_chain_whole(enum chain chain, inum_t target)
{
	struct inode_record record = {0};
	struct fs_attr attr;
	bool gone = fsfix_lookup(&fix, FS_ROOT_INO, "file", &attr) == -ENOENT;

	wait_for_background();
	if (!gone)
		record = files_record(&fix, ino);
	if (chain == CHAIN_UNLINK)
		expect(gone || record.count_blocks == MANY_EXTENTS);
	if (chain == CHAIN_TRUNCATE)
		expect((record.size_bytes == 100 && record.count_blocks <= 1) ||
		       record.count_blocks == MANY_EXTENTS);
	if (chain == CHAIN_PUNCH)
		expect(record.count_blocks == MANY_EXTENTS ||
		       record.count_blocks == MANY_EXTENTS / 2);
	if (chain == CHAIN_CLONE) {
		uint64_t size = files_size(&fix, target);

		expect(record.size_bytes == size || record.count_blocks == MANY_EXTENTS);
		if (record.size_bytes == size)
			files_expect(&fix, ino, 1, 0, (size_t)size);
	}
	files_check(&fix);
}

START_TEST(a_chain_cut_by_a_kill_is_finished_by_the_next_mount)
{
	struct random random = random_start("chain_cut_by_a_kill");
	enum chain chain = (enum chain)_i;
	inum_t target = 0;

	for (unsigned round = 0; round < 3; round++) {
		if (round) {
			setup();
			teardown();
			many_setup();
		}
		if (chain == CHAIN_CLONE) {
			target = files_new(&fix, "source");
			files_write(&fix, target, 1, 0, 300000);
		}
		kill_in_chain(chain, target, random_below(&random, MANY_EXTENTS / 2));
		expect_chain_whole(chain, target);
		if (round < 2)
			fsfix_destroy(&fix);
	}
}
END_TEST

START_TEST(a_million_extents_are_deleted)
{
	const unsigned count = 1000000;

	if (!getenv("MENDFS_LONG")) {
		printf("sample: files of thousands of extents, not of a million (--long)\n");
		return;
	}
	fsfix_destroy(&fix);
	expect_equal(fsfix_create_mounted(&fix, 8ull << 30), 0);
	ino = files_new(&fix, "file");
	make_many_extents(ino, count);
	inum_t clone = files_new(&fix, "clone");
	expect_equal(fs_clone(fix.fs, ino, clone), 0);
	files_truncate(&fix, clone, (uint64_t)count * BLOCK_BYTES);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "file"), 0);
	expect_equal(fsfix_remount(&fix), 0);
	for (unsigned i = 0; i < 600 && counter(ROOT_ORPHANS); i++)
		usleep(100000);
	expect_equal(counter(ROOT_ORPHANS), 0);
}
END_TEST

/* --- a commit that fails, once --- */

static int commit_error;

int __real_tx_end(struct tx *tx, int error, uint64_t *sequence);
int __wrap_tx_end(struct tx *tx, int error, uint64_t *sequence);

int __wrap_tx_end(struct tx *tx, int error, uint64_t *sequence)
{
	if (!error) {
		error = commit_error;
		commit_error = 0;
	}
	return __real_tx_end(tx, error, sequence);
}

START_TEST(a_chain_whose_first_link_fails_has_changed_nothing)
{
	struct inode_record values = {.size_bytes = 0};
	struct fs_attr attr;

	files_write(&fix, ino, 1, 0, 10 * BLOCK_BYTES);
	expect_equal(fs_syncfs(fix.fs), 0);
	commit_error = -EIO;
	expect_equal(fs_setattr(fix.fs, ino, FS_SET_SIZE, &values, &attr), -EIO);
	expect_equal(commit_error, 0);
	expect(!fs_is_readonly(fix.fs));
	files_expect(&fix, ino, 1, 0, 10 * BLOCK_BYTES);
	files_truncate(&fix, ino, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("truncate");
	TCase *tests = tcase_create("truncate"), *chains = tcase_create("chains");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, truncate_frees_what_is_beyond);
	tcase_add_test(tests, truncate_to_any_64_bit_size);
	tcase_add_test(tests, a_chain_whose_first_link_fails_has_changed_nothing);
	tcase_add_test(tests, space_allocated_beyond_the_end_goes_with_truncate);
	tcase_add_test(tests, punch_zeros_the_edges_and_frees_the_middle);
	tcase_add_test(tests, zero_range_leaves_space_allocated);
	tcase_add_test(tests, zero_range_keeps_the_very_blocks_and_needs_no_space);
	tcase_add_test(tests, zero_range_leaves_a_sharer_alone_and_gets_blocks_of_its_own);
	tcase_add_test(tests, zero_range_without_space_changes_nothing);
	tcase_add_test(tests, zero_range_of_many_extents_is_zero_all_over_after_a_kill);
	tcase_add_test(tests, unknown_modes_are_refused);
	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(chains, many_setup, teardown);
	tcase_set_timeout(chains, 600);
	tcase_add_test(chains, a_file_of_many_extents_is_truncated);
	tcase_add_test(chains, a_file_of_many_extents_is_deleted);
	tcase_add_test(chains, a_file_of_many_extents_is_punched);
	tcase_add_loop_test(chains, a_chain_cut_by_a_kill_is_finished_by_the_next_mount, 0, CHAINS);
	tcase_add_test(chains, a_million_extents_are_deleted);
	suite_add_tcase(suite, chains);
	return files_run(suite);
}
