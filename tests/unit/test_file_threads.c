/*
 * Readers, writers, truncates and clones at once: every block read is of one write, none is torn or
 * stale; run under TSan too.
 */
#include "tests/support/files.h"

#include <errno.h>
#include <pthread.h>

#include "tests/support/random.h"

#define FILES 3
#define FILE_BLOCKS 64
#define THREADS 6

static struct fsfix fix;
static inum_t files[FILES];
static unsigned rounds = 400;

/* Each block is filled with one byte value by one write: a reader must find one value (0: a hole).
 */
static void expect_whole_blocks(const uint8_t *buffer, size_t size)
{
	for (size_t at = 0; at + BLOCK_BYTES <= size; at += BLOCK_BYTES)
		for (size_t i = 1; i < BLOCK_BYTES; i++)
			if (buffer[at + i] != buffer[at])
				ck_abort_msg("torn block");
}

static void *reader(void *arg)
{
	struct random random = {.state = (uintptr_t)arg};
	uint8_t *buffer = malloc(FILE_BLOCKS * BLOCK_BYTES);
	size_t done;

	for (unsigned i = 0; i < rounds * 2; i++) {
		uint64_t block = random_below(&random, FILE_BLOCKS);

		expect_equal(fs_read(fix.fs, files[random_below(&random, FILES)],
				     block * BLOCK_BYTES, buffer,
				     (FILE_BLOCKS - block) * BLOCK_BYTES, &done),
			     0);
	}
	free(buffer);
	return NULL;
}

static void *writer(void *arg)
{
	struct random random = {.state = (uintptr_t)arg};
	uint8_t *buffer = malloc(8 * BLOCK_BYTES);
	size_t done, size;

	for (unsigned i = 0; i < rounds; i++) {
		memset(buffer, (int)random_below(&random, 256), 8 * BLOCK_BYTES);
		size = (1 + random_below(&random, 8)) * BLOCK_BYTES;
		expect_equal(fs_write(fix.fs, files[random_below(&random, FILES)],
				      random_below(&random, FILE_BLOCKS - 8) * BLOCK_BYTES, buffer,
				      size, &done),
			     0);
		expect_equal(done, size);
	}
	free(buffer);
	return NULL;
}

static void *mover(void *arg)
{
	struct random random = {.state = (uintptr_t)arg};
	struct inode_record values = {0};
	struct fs_attr attr;
	uint64_t done;

	for (unsigned i = 0; i < rounds / 2; i++) {
		inum_t one = files[random_below(&random, FILES)],
		       two = files[random_below(&random, FILES)];

		values.size_bytes = random_below(&random, FILE_BLOCKS) * BLOCK_BYTES;
		switch (random_below(&random, 4)) {
		case 0:
			expect_equal(fs_setattr(fix.fs, one, FS_SET_SIZE, &values, &attr), 0);
			break;
		case 1:
			if (one != two)
				expect_equal(fs_clone(fix.fs, one, two), 0);
			break;
		case 2:
			if (one != two)
				expect_equal(fs_copy_range(fix.fs, one, 0, two, 8 * BLOCK_BYTES,
							   16 * BLOCK_BYTES, &done),
					     0);
			break;
		default:
			expect_equal(
			    fs_fallocate(fix.fs, one, 3, values.size_bytes, 4 * BLOCK_BYTES), 0);
		}
	}
	return NULL;
}

START_TEST(all_operations_at_once)
{
	struct random random = random_start("file_threads");
	void *(*const work[THREADS])(void *) = {reader, reader, writer, writer, mover, mover};
	pthread_t threads[THREADS];
	char name[2] = "a";

	expect_equal(fsfix_create_mounted(&fix, 32u << 20), 0);
	for (unsigned i = 0; i < FILES; i++) {
		name[0] = (char)('a' + i);
		files[i] = files_new(&fix, name);
	}
	for (unsigned i = 0; i < THREADS; i++)
		expect_equal(pthread_create(&threads[i], NULL, work[i],
					    (void *)(uintptr_t)random_next(&random)),
			     0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < FILES; i++) {
		uint8_t *buffer = malloc(FILE_BLOCKS * BLOCK_BYTES);
		size_t done;

		expect_equal(fs_read(fix.fs, files[i], 0, buffer, FILE_BLOCKS * BLOCK_BYTES, &done),
			     0);
		free(buffer);
	}
	files_check(&fix);
	expect_equal(fsfix_remount(&fix), 0);
	files_check(&fix);
	fsfix_destroy(&fix);
}
END_TEST

#define CLONES 200

struct cloner {
	inum_t source;
	bool stop;
};

static void *overwriter(void *arg)
{
	struct cloner *c = arg;
	uint8_t *buffer = malloc(16 * BLOCK_BYTES);
	size_t done;

	for (unsigned i = 0; !__atomic_load_n(&c->stop, __ATOMIC_RELAXED); i++) {
		memset(buffer, (int)i, 16 * BLOCK_BYTES);
		expect_equal(fs_write(fix.fs, c->source, 0, buffer, 16 * BLOCK_BYTES, &done), 0);
	}
	free(buffer);
	return NULL;
}

/*
 * A clone is of one moment: a write of 16 blocks is in it as a whole or not at all, and nothing
 * changes in it afterwards.
 */
START_TEST(a_clone_is_of_one_moment)
{
	struct cloner c = {.stop = false};
	uint8_t *buffer = malloc(16 * BLOCK_BYTES), *again = malloc(16 * BLOCK_BYTES);
	pthread_t thread;
	size_t done;

	expect_equal(fsfix_create_mounted(&fix, 32u << 20), 0);
	c.source = files_new(&fix, "source");
	files_write(&fix, c.source, 1, 0, 16 * BLOCK_BYTES);
	memset(buffer, 0, 16 * BLOCK_BYTES);
	expect_equal(fs_write(fix.fs, c.source, 0, buffer, 16 * BLOCK_BYTES, &done), 0);
	inum_t clone = files_new(&fix, "clone");

	expect_equal(pthread_create(&thread, NULL, overwriter, &c), 0);
	for (unsigned i = 0; i < CLONES; i++) {
		expect_equal(fs_clone(fix.fs, c.source, clone), 0);
		expect_equal(fs_read(fix.fs, clone, 0, buffer, 16 * BLOCK_BYTES, &done), 0);
		expect_whole_blocks(buffer, done);
		expect_equal(fs_read(fix.fs, clone, 0, again, 16 * BLOCK_BYTES, &done), 0);
		expect(memcmp(buffer, again, 16 * BLOCK_BYTES) == 0);
	}
	__atomic_store_n(&c.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	free(buffer);
	free(again);
	files_check(&fix);
	fsfix_destroy(&fix);
}
END_TEST

#define APPENDED 4000u

static void *appender(void *arg)
{
	static const uint8_t block[BLOCK_BYTES] = {1};
	const inum_t *ino = arg;
	size_t done;

	for (unsigned i = 0; i < APPENDED; i++)
		expect_equal(fs_append(fix.fs, *ino, block, BLOCK_BYTES, &done), 0);
	return NULL;
}

/* Around what lies in the way at the start of the device: 9 runs, as they were without windows. By two, which have windows of 64 blocks here, no worse. */
START_TEST(files_that_grow_block_by_block_lie_in_few_runs)
{
	unsigned most = _i ? APPENDED / 64 : 9;
	struct files_map map;
	inum_t inos[2];
	pthread_t thread;

	expect_equal(fsfix_create_mounted(&fix, FSFIX_USUAL_BYTES), 0);
	for (unsigned i = 0; i < 2; i++)
		inos[i] = files_new(&fix, i ? "second" : "first");
	if (_i)
		expect_equal(pthread_create(&thread, NULL, appender, &inos[1]), 0);
	appender(&inos[0]);
	if (_i)
		pthread_join(thread, NULL);
	for (int i = 0; i <= _i; i++) {
		files_map(&fix, inos[i], &map);
		ck_assert_uint_le(map.count, most);
	}
	files_check(&fix);
	fsfix_destroy(&fix);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("file_threads");
	TCase *tests = tcase_create("file_threads");

	tcase_set_timeout(tests, 300);
	tcase_add_test(tests, all_operations_at_once);
	tcase_add_test(tests, a_clone_is_of_one_moment);
	tcase_add_loop_test(tests, files_that_grow_block_by_block_lie_in_few_runs, 0, 2);
	suite_add_tcase(suite, tests);
	return files_run(suite);
}
