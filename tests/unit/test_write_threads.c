/*
 * Writes that allocate, beside each other and beside all else: nothing is lost, no block is two files', the trees agree. Run under TSan too. Then power is lost with two
 * in flight: after that, each file has what was acknowledged and at most the one block that was not.
 */
#include "tests/support/files.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#include "alloc/alloc.h"
#include "fs/inode.h"
#include "journal/journal.h"
#include "tests/support/other_thread.h"
#include "tests/support/power.h"
#include "tests/support/random.h"
#include "util/lock.h"

#define WRITERS 2
#define BLOCKS 500u
#define CRASH_BLOCKS 40u
#define MODEL_BLOCKS 48u
#define MODEL_ROUNDS 250u
#define FULL_BYTES (32ull << 20)

static struct fsfix fix;
static inum_t dirs[WRITERS];
static const struct fs_who who = {.uid = 1000, .gid = 1000};

static void start(uint64_t bytes)
{
	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	power_return();
	power_yields = true;
	expect_equal(fsfix_create_mounted(&fix, bytes), 0);
	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "left", &dirs[0]), 0);
	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "right", &dirs[1]), 0);
}

static void setup(void)
{
	start(FSFIX_USUAL_BYTES);
}

static void teardown(void)
{
	expect_equal(fsfix_check(&fix), 0);
	fsfix_destroy(&fix);
	unsetenv("PMEM2_FORCE_GRANULARITY");
}

/* It stays known, as what the kernel knows does. */
static inum_t make(inum_t dir, const char *name)
{
	struct fs_attr attr;

	expect_equal(fs_create(fix.fs, &who, dir, name, S_IFREG | 0644, 0, &attr), 0);
	return attr.ino;
}

static uint64_t free_blocks(void)
{
	uint64_t blocks;

	journal_read_begin(fix.fs->journal);
	blocks = alloc_free_blocks(fix.fs->alloc);
	journal_read_end(fix.fs->journal);
	return blocks;
}

/* Transactions that ran alone so far. */
static uint64_t alone(void)
{
	struct lock_counts counts;

	lock_counts(&counts);
	return counts.taken[LOCK_GATE_WRITE];
}

/* --- the threads --- */

struct writer {
	pthread_t thread;
	inum_t dir, file;
	unsigned tag, count;
	unsigned acknowledged;
	bool is_full;
	uint64_t seed;
};

static void run_all(void *(*run)(void *), struct writer *writers, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		ck_assert_int_eq(pthread_create(&writers[i].thread, NULL, run, &writers[i]), 0);
	for (unsigned i = 0; i < count; i++)
		pthread_join(writers[i].thread, NULL);
}

static int append_block(inum_t file, unsigned tag, uint64_t index)
{
	uint8_t buffer[BLOCK_BYTES];
	size_t done;
	int error;

	files_fill(buffer, tag, index * BLOCK_BYTES, sizeof(buffer));
	error = fs_append(fix.fs, file, buffer, sizeof(buffer), &done);
	ck_assert(error || done == sizeof(buffer));
	return error;
}

static void *append_all(void *arg)
{
	struct writer *writer = arg;

	for (unsigned i = 0; i < writer->count && !writer->is_full; i++) {
		int error = append_block(writer->file, writer->tag, i);

		ck_assert(!error || error == -ENOSPC);
		writer->is_full = error == -ENOSPC;
		writer->acknowledged += !error && !atomic_load(&power_is_lost);
	}
	return NULL;
}

static void expect_all(const struct writer *writers, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		ck_assert_uint_eq(files_size(&fix, writers[i].file), (uint64_t)writers[i].count * BLOCK_BYTES);
		ck_assert_uint_eq(files_record(&fix, writers[i].file).count_blocks, writers[i].count);
		files_expect(&fix, writers[i].file, writers[i].tag, 0, (size_t)writers[i].count * BLOCK_BYTES);
	}
}

/* As on a plain file, where records are stored in turn. */
static void use_pages(void)
{
	unsetenv("PMEM2_FORCE_GRANULARITY");
	expect_equal(fsfix_remount(&fix), 0);
}

/* In the same directory, or each in its own. */
START_TEST(appends_to_different_files_are_all_there)
{
	struct writer writers[WRITERS];

	if (_i & 2)
		use_pages();
	for (unsigned i = 0; i < WRITERS; i++)
		writers[i] = (struct writer){.file = make(dirs[_i & 1 ? i : 0], i ? "b" : "a"), .tag = 1 + i, .count = BLOCKS};
	run_all(append_all, writers, WRITERS);
	expect_all(writers, WRITERS);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_remount(&fix), 0);
	expect_all(writers, WRITERS);
}
END_TEST

/* Nobody else is there: the rest needed another root of a tree, or a block that was not in memory; the background may have some too. */
START_TEST(who_appends_needs_nobody_else_out)
{
	struct writer writer = {.file = make(dirs[0], "a"), .tag = 1, .count = BLOCKS};
	uint64_t before = alone();

	append_all(&writer);
	ck_assert_uint_lt(alone() - before, BLOCKS / 10);
	expect_all(&writer, 1);
}
END_TEST

static void *append_marks(void *arg)
{
	struct writer *writer = arg;
	uint8_t buffer[BLOCK_BYTES];
	size_t done;

	for (unsigned i = 0; i < writer->count; i++) {
		memset(buffer, (int)writer->tag, sizeof(buffer));
		expect_equal(fs_append(fix.fs, writer->file, buffer, sizeof(buffer), &done), 0);
	}
	return NULL;
}

START_TEST(of_two_who_append_to_one_file_each_block_is_whole)
{
	inum_t file = make(dirs[0], "a");
	struct writer writers[WRITERS] = {{.file = file, .tag = 1, .count = BLOCKS}, {.file = file, .tag = 2, .count = BLOCKS}};
	unsigned found[3] = {0};
	uint8_t buffer[BLOCK_BYTES];
	size_t done;

	run_all(append_marks, writers, WRITERS);
	ck_assert_uint_eq(files_size(&fix, file), (uint64_t)WRITERS * BLOCKS * BLOCK_BYTES);
	for (uint64_t i = 0; i < WRITERS * BLOCKS; i++) {
		expect_equal(fs_read(fix.fs, file, i * BLOCK_BYTES, buffer, sizeof(buffer), &done), 0);
		ck_assert_uint_le(buffer[0], WRITERS);
		found[buffer[0]]++;
		for (unsigned k = 1; k < BLOCK_BYTES; k++)
			ck_assert_uint_eq(buffer[k], buffer[0]);
	}
	ck_assert_uint_eq(found[1], BLOCKS);
	ck_assert_uint_eq(found[2], BLOCKS);
}
END_TEST

/* --- among everything else --- */

static atomic_bool writers_are_done;

/* Names of the files that are appended to, and files that come, are written and go. */
static void *change_names(void *arg)
{
	struct writer *writers = arg;
	struct fs_attr attr;
	char name[32], other[32];

	for (unsigned i = 0; !writers_are_done; i++) {
		inum_t dir = dirs[i % WRITERS], file;

		snprintf(name, sizeof(name), "link-%u", i);
		snprintf(other, sizeof(other), "moved-%u", i);
		expect_equal(fs_link(fix.fs, writers[i % WRITERS].file, dir, name, &attr), 0);
		expect_equal(fs_rename(fix.fs, &who, dir, name, dir, other, 0), 0);
		expect_equal(fs_unlink(fix.fs, dir, other), 0);
		fs_forget(fix.fs, writers[i % WRITERS].file, 1);
		file = make(dir, name);
		expect_equal(append_block(file, 7, 0), 0);
		expect_equal(append_block(file, 7, 1), 0);
		expect_equal(fs_unlink(fix.fs, dir, name), 0);
		fs_forget(fix.fs, file, 1);
	}
	return NULL;
}

/* What is read of a file that grows is what was appended; attributes are changed meanwhile, and times. */
static void *look_about(void *arg)
{
	struct writer *writers = arg;
	struct inode_record values = {0};
	struct fs_attr attr;

	for (unsigned i = 0; !writers_are_done; i++) {
		struct writer *writer = &writers[i % WRITERS];
		uint64_t size = files_size(&fix, writer->file);

		files_expect(&fix, writer->file, writer->tag, 0, size);
		values.mode = 0600 + i % 8;
		expect_equal(fs_setattr(fix.fs, writer->file, FS_SET_MODE, &values, &attr), 0);
		if (i % 8 == 0)
			expect_equal(fs_fsync(fix.fs, writer->file), 0);
	}
	return NULL;
}

START_TEST(appends_hold_their_own_among_changes_of_names_reads_and_attributes)
{
	struct writer writers[WRITERS];
	pthread_t namer, looker;

	for (unsigned i = 0; i < WRITERS; i++)
		writers[i] = (struct writer){.file = make(dirs[i], "a"), .tag = 1 + i, .count = BLOCKS};
	writers_are_done = false;
	ck_assert_int_eq(pthread_create(&namer, NULL, change_names, writers), 0);
	ck_assert_int_eq(pthread_create(&looker, NULL, look_about, writers), 0);
	run_all(append_all, writers, WRITERS);
	writers_are_done = true;
	pthread_join(namer, NULL);
	pthread_join(looker, NULL);
	expect_all(writers, WRITERS);
	for (unsigned i = 0; i < WRITERS; i++)
		ck_assert_uint_eq(files_record(&fix, writers[i].file).nlink, 1);
}
END_TEST

/* --- each kind of write, each file with its model --- */

struct model {
	uint8_t bytes[MODEL_BLOCKS * BLOCK_BYTES];
	uint64_t size;
};

static void model_write(struct model *model, inum_t file, struct random *random)
{
	uint64_t pos = random_below(random, (MODEL_BLOCKS - 9) * BLOCK_BYTES), size = 1 + random_below(random, 9 * BLOCK_BYTES);
	size_t done;

	if (random_below(random, 2)) {
		pos = round_down_u64(pos, BLOCK_BYTES);
		size = round_down_u64(size, BLOCK_BYTES) + BLOCK_BYTES;
	}
	size = min_u64(size, sizeof(model->bytes) - pos);
	memset(model->bytes + pos, (int)random_below(random, 256), size);
	expect_equal(fs_write(fix.fs, file, pos, model->bytes + pos, size, &done), 0);
	ck_assert_uint_eq(done, size);
	model->size = max_u64(model->size, pos + size);
}

static void model_append(struct model *model, inum_t file, struct random *random)
{
	uint64_t size = min_u64(1 + random_below(random, 2 * BLOCK_BYTES), sizeof(model->bytes) - model->size);
	size_t done;

	memset(model->bytes + model->size, (int)random_below(random, 256), size);
	expect_equal(fs_append(fix.fs, file, model->bytes + model->size, size, &done), 0);
	ck_assert_uint_eq(done, size);
	model->size += size;
}

/* Holes (3), blocks that are not written yet (0, and 16: zeros). */
static void model_allocate(struct model *model, inum_t file, struct random *random)
{
	static const int modes[] = {3, 0, 16};
	uint64_t pos = random_below(random, (MODEL_BLOCKS - 9) * BLOCK_BYTES), size = 1 + random_below(random, 9 * BLOCK_BYTES);
	int mode = modes[random_below(random, 3)];

	expect_equal(fs_fallocate(fix.fs, file, mode, pos, size), 0);
	if (mode)
		memset(model->bytes + pos, 0, mode == 3 ? pos >= model->size ? 0 : min_u64(size, model->size - pos) : size);
	if (mode != 3)
		model->size = max_u64(model->size, pos + size);
}

static void model_shrink(struct model *model, inum_t file, struct random *random)
{
	uint64_t size = random_below(random, model->size + 1);

	files_truncate(&fix, file, size);
	memset(model->bytes + size, 0, sizeof(model->bytes) - size);
	model->size = size;
}

static void model_compare(const struct model *model, inum_t file)
{
	static _Thread_local uint8_t bytes[MODEL_BLOCKS * BLOCK_BYTES];
	size_t done;

	ck_assert_uint_eq(files_size(&fix, file), model->size);
	expect_equal(fs_read(fix.fs, file, 0, bytes, sizeof(bytes), &done), 0);
	ck_assert_uint_eq(done, model->size);
	for (size_t i = 0; i < done; i++)
		if (bytes[i] != model->bytes[i])
			ck_abort_msg("inode %llu byte %zu: %02x, not %02x", (unsigned long long)file, i, bytes[i], model->bytes[i]);
}

/* All of one file and its clone: what they share is copied when it is written to. */
static void *change_all(void *arg)
{
	struct writer *writer = arg;
	struct random random = {.state = writer->seed};
	struct model *models = calloc(2, sizeof(*models));
	inum_t files[2] = {make(writer->dir, "one"), make(writer->dir, "two")};

	for (unsigned i = 0; i < writer->count; i++) {
		unsigned which = (unsigned)random_below(&random, 2);
		unsigned kind = (unsigned)random_below(&random, 16);

		if (kind == 0) {
			expect_equal(fs_clone(fix.fs, files[!which], files[which]), 0);
			models[which] = models[!which];
		} else if (kind == 1) {
			model_shrink(&models[which], files[which], &random);
		} else if (kind < 4) {
			model_allocate(&models[which], files[which], &random);
		} else if (kind < 8) {
			model_append(&models[which], files[which], &random);
		} else {
			model_write(&models[which], files[which], &random);
		}
		if (i % 8 == 0)
			model_compare(&models[which], files[which]);
	}
	for (unsigned k = 0; k < 2; k++)
		model_compare(&models[k], files[k]);
	free(models);
	return NULL;
}

START_TEST(of_all_kinds_of_writes_each_file_has_its_own)
{
	struct random random = random_start("write_threads");
	struct writer writers[WRITERS + 1];

	if (_i == 2)
		use_pages();
	for (unsigned i = 0; i <= WRITERS; i++) {
		writers[i] = (struct writer){.dir = dirs[i % WRITERS], .count = MODEL_ROUNDS, .seed = random_next(&random)};
		if (i == WRITERS)
			expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "third", &writers[i].dir), 0);
	}
	run_all(change_all, writers, WRITERS + 1);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_remount(&fix), 0);
}
END_TEST

/* --- blocks that two share --- */

#define SHARED 64u
#define APART 300u /* records of the reverse map between those of the two, which are then in different leaves */

static pthread_barrier_t both_write;

/* From the end on: of what the two have, just the length of one record changes. */
static void *overwrite_all(void *arg)
{
	struct writer *writer = arg;

	for (unsigned i = writer->count; i-- > writer->count - SHARED;) {
		pthread_barrier_wait(&both_write);
		files_write(&fix, writer->file, writer->tag, (uint64_t)i * BLOCK_BYTES, BLOCK_BYTES);
	}
	return NULL;
}

static void share(inum_t from, uint64_t from_block, inum_t to, uint64_t to_block, uint64_t count)
{
	uint64_t done;

	expect_equal(fs_copy_range(fix.fs, from, from_block * BLOCK_BYTES, to, to_block * BLOCK_BYTES, count * BLOCK_BYTES, &done), 0);
	ck_assert_uint_eq(done, count * BLOCK_BYTES);
}

/* Each sees the other's part in a block and leaves the block to him; if both did so it would be nobody's, and not free either. */
START_TEST(a_block_that_both_sharers_leave_at_once_is_free)
{
	inum_t whole = make(dirs[0], "whole"), part = make(dirs[1], "part"), apart = make(dirs[0], "apart");
	struct writer writers[WRITERS] = {{.file = whole, .tag = 2, .count = APART + SHARED}, {.file = part, .tag = 3, .count = SHARED}};
	uint64_t before;

	files_write(&fix, whole, 1, 0, (APART + SHARED) * BLOCK_BYTES);
	for (unsigned i = 1; i < APART; i++)
		share(whole, i, apart, 2ull * i, 1);
	share(whole, APART, part, 0, SHARED);
	before = free_blocks();
	pthread_barrier_init(&both_write, NULL, WRITERS);
	run_all(overwrite_all, writers, WRITERS);
	pthread_barrier_destroy(&both_write);
	ck_assert_uint_eq(free_blocks(), before - SHARED);
	files_expect(&fix, whole, 1, 0, (size_t)APART * BLOCK_BYTES);
	files_expect(&fix, whole, 2, (uint64_t)APART * BLOCK_BYTES, (size_t)SHARED * BLOCK_BYTES);
	files_expect(&fix, part, 3, 0, (size_t)SHARED * BLOCK_BYTES);
}
END_TEST

/* --- that nothing is there --- */

#define APART_RECORDS 600u
#define APART_BLOCK 40000u /* free: nobody asks for it here */

static struct rmap_record apart_record(unsigned i)
{
	return (struct rmap_record){.start = APART_BLOCK + 2ull * i, .count = 1, .owner = 900000 + i};
}

typedef int rmap_change_fn(const struct rmap *rmap, struct tx *tx, const struct rmap_record *record);

static void change_owner(rmap_change_fn *change, const struct rmap_record *record)
{
	struct tx *tx;

	expect_equal(tx_begin(fix.fs->journal, TX_NORMAL, &tx), 0);
	expect_equal(tx_end(tx, change(&fix.fs->rmap, tx, record), NULL), 0);
}

static void apart_change(rmap_change_fn *change)
{
	for (unsigned i = 0; i < APART_RECORDS; i++) {
		struct rmap_record record = apart_record(i);

		change_owner(change, &record);
	}
}

static void insert_beside(void *arg)
{
	struct tx *tx;

	expect_equal(tx_begin_beside(fix.fs->journal, TX_NORMAL, &tx), 0);
	expect_equal(tx_end(tx, rmap_insert(&fix.fs->rmap, tx, arg), NULL), 0);
}

static int count_owner(void *arg, const struct rmap_record *record)
{
	++*(unsigned *)arg;
	return 0;
}

/* A mapping that reaches the block comes into a leaf that was passed over, as all in it ended before. */
START_TEST(where_nobody_else_was_found_nobody_has_come_when_it_counts)
{
	struct rmap_record more = {.start = APART_BLOCK + 1, .count = _i ? 2 * APART_RECORDS : 1, .owner = 800000};
	struct other_thread other;
	unsigned owners = 0;
	struct tx *tx;

	apart_change(rmap_insert);
	change_owner(rmap_insert, &more); /* its leaf has room for it from then on */
	change_owner(rmap_remove, &more);
	other_start(&other);
	expect_equal(tx_begin_beside(fix.fs->journal, TX_NORMAL, &tx), 0);
	expect_equal(rmap_query(&fix.fs->rmap, APART_BLOCK + 2 * APART_RECORDS - 2, 1, count_owner, &owners), 0);
	ck_assert_uint_eq(owners, 1);
	other_do(&other, insert_beside, &more);
	ck_assert_int_eq(tx_commit(tx, NULL), _i ? -EDEADLK : 0);
	other_stop(&other);
	apart_change(rmap_remove);
	change_owner(rmap_remove, &more);
}
END_TEST

/* --- without space --- */

START_TEST(who_finds_no_space_left_says_so_and_nothing_is_lost)
{
	struct writer writers[WRITERS];
	uint64_t left;

	expect_equal(fsfix_check(&fix), 0);
	fsfix_destroy(&fix);
	start(FULL_BYTES);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < WRITERS; i++)
			writers[i] = (struct writer){.file = make(dirs[i], "a"), .tag = 1 + i, .count = FULL_BYTES / BLOCK_BYTES};
		run_all(append_all, writers, WRITERS);
		left = free_blocks();
		ck_assert_uint_le(left, alloc_reserve_blocks(fix.fs->alloc));
		for (unsigned i = 0; i < WRITERS; i++) {
			ck_assert(writers[i].is_full);
			writers[i].count = writers[i].acknowledged;
		}
		expect_all(writers, WRITERS);
		expect_equal(fsfix_check(&fix), 0);
		for (unsigned i = 0; i < WRITERS; i++) {
			expect_equal(fs_unlink(fix.fs, dirs[i], "a"), 0);
			fs_forget(fix.fs, writers[i].file, 1);
		}
	}
}
END_TEST

/* --- crash --- */

START_TEST(power_lost_with_two_appends_in_flight_leaves_each_whole_or_not_there)
{
	struct writer writers[WRITERS];

	for (unsigned i = 0; i < WRITERS; i++)
		writers[i] = (struct writer){.file = make(dirs[i], "a"), .tag = 1 + i, .count = CRASH_BLOCKS};
	/* Trees that have a root. */
	files_write(&fix, make(dirs[0], "first"), 9, 0, BLOCK_BYTES);
	power_stores_left = 9 * (unsigned)_i + 1;
	run_all(append_all, writers, WRITERS);
	expect_equal(fsfix_crash(&fix), 0);
	power_return();
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fsfix_check(&fix), 0);
	for (unsigned i = 0; i < WRITERS; i++) {
		uint64_t size = files_size(&fix, writers[i].file);

		ck_assert_uint_eq(size % BLOCK_BYTES, 0);
		ck_assert_uint_ge(size / BLOCK_BYTES, writers[i].acknowledged);
		ck_assert_uint_le(size / BLOCK_BYTES, writers[i].acknowledged + 1);
		files_expect(&fix, writers[i].file, writers[i].tag, 0, size);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("write_threads");
	TCase *tests = tcase_create("write_threads");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 300);
	tcase_add_loop_test(tests, appends_to_different_files_are_all_there, 0, 4);
	tcase_add_test(tests, who_appends_needs_nobody_else_out);
	tcase_add_test(tests, of_two_who_append_to_one_file_each_block_is_whole);
	tcase_add_test(tests, appends_hold_their_own_among_changes_of_names_reads_and_attributes);
	tcase_add_loop_test(tests, of_all_kinds_of_writes_each_file_has_its_own, 0, 3);
	tcase_add_loop_test(tests, a_block_that_both_sharers_leave_at_once_is_free, 0, 4);
	tcase_add_loop_test(tests, where_nobody_else_was_found_nobody_has_come_when_it_counts, 0, 2);
	tcase_add_test(tests, who_finds_no_space_left_says_so_and_nothing_is_lost);
	tcase_add_loop_test(tests, power_lost_with_two_appends_in_flight_leaves_each_whole_or_not_there, 0, 20);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
