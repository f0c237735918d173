/*
 * What operations cost in steady state: nothing of the heap (the linker sends this program's calls of the allocator here, and they are counted), and at
 * most two drains on media of lines.
 */
#include "tests/support/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/inode.h"

#define FILES 100u
#define WARM_UP_ROUNDS 30u

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__real_reallocarray(void *old, size_t count, size_t size);
void *__wrap_reallocarray(void *old, size_t count, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);

static struct fsfix fix;
static unsigned allocations; /* without background thread: there is one thread */
static inum_t dir, inos[FILES];
static uint8_t block[BLOCK_BYTES];

void *__wrap_malloc(size_t size)
{
	allocations++;
	return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	allocations++;
	return __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	allocations++;
	return __real_realloc(old, size);
}

void *__wrap_reallocarray(void *old, size_t count, size_t size)
{
	allocations++;
	return __real_reallocarray(old, count, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
	allocations++;
	return __real_aligned_alloc(alignment, size);
}

char *__wrap_strdup(const char *text)
{
	allocations++;
	return __real_strdup(text);
}

static void setup(void)
{
	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	expect_equal(fsfix_create(&fix, FSFIX_USUAL_BYTES), 0);
	fix.options.tools = true;
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "dir", &dir), 0);
}

static void teardown(void)
{
	fsfix_destroy(&fix);
	unsetenv("PMEM2_FORCE_GRANULARITY");
}

/* --- one operation on file i --- */

static const char *name_of(char name[16], const char *prefix, unsigned i)
{
	snprintf(name, 16, "%s-%u", prefix, i);
	return name;
}

/* It stays known, as what the kernel knows does. */
static int make(unsigned i, const char *prefix, mode_t mode)
{
	struct fs_who who = {0};
	struct fs_attr attr;
	char name[16];
	int error = fs_create(fix.fs, &who, dir, name_of(name, prefix, i), mode, 0, &attr);

	inos[i] = error ? 0 : attr.ino;
	return error;
}

static int do_create(unsigned i)
{
	return make(i, "file", S_IFREG | 0644);
}

static int do_lookup(unsigned i)
{
	struct fs_attr attr;
	char name[16];

	return fsfix_lookup(&fix, dir, name_of(name, "file", i), &attr);
}

static int do_getattr(unsigned i)
{
	struct fs_attr attr;

	return fs_getattr(fix.fs, inos[i], &attr);
}

static int do_write(unsigned i)
{
	size_t done;

	return fs_write(fix.fs, inos[i], 0, block, sizeof(block), &done);
}

static int do_append(unsigned i)
{
	size_t done;

	return fs_append(fix.fs, inos[i], block, sizeof(block), &done);
}

static int do_read(unsigned i)
{
	size_t done;

	return fs_read(fix.fs, inos[i], 0, block, sizeof(block), &done);
}

static int do_chmod(unsigned i)
{
	struct inode_record values = {.mode = 0600};
	struct fs_attr attr;

	return fs_setattr(fix.fs, inos[i], FS_SET_MODE, &values, &attr);
}

/* A small one: each leaf that a long value takes anew is a buffer. */
static int do_setxattr(unsigned i)
{
	struct fs_who who = {0};

	return fs_setxattr(fix.fs, &who, inos[i], "user.a", block, 64, 0);
}

static int do_getxattr(unsigned i)
{
	struct fs_who who = {0};
	uint8_t value[sizeof(block)];
	size_t length;

	return fs_getxattr(fix.fs, &who, inos[i], "user.a", value, sizeof(value), &length);
}

static int do_removexattr(unsigned i)
{
	struct fs_who who = {0};

	return fs_removexattr(fix.fs, &who, inos[i], "user.a");
}

static int do_kill(unsigned i)
{
	return fs_kill_privileges(fix.fs, inos[i], true, NULL);
}

static int do_fsync(unsigned i)
{
	return fs_fsync(fix.fs, inos[i]);
}

static int do_truncate(unsigned i)
{
	struct inode_record values = {.size_bytes = BLOCK_BYTES};
	struct fs_attr attr;

	return fs_setattr(fix.fs, inos[i], FS_SET_SIZE, &values, &attr);
}

static int do_link(unsigned i)
{
	struct fs_attr attr;
	char name[16];
	int error = fs_link(fix.fs, inos[i], dir, name_of(name, "link", i), &attr);

	if (!error)
		fs_forget(fix.fs, attr.ino, 1);
	return error;
}

static int do_unlink_link(unsigned i)
{
	char name[16];

	return fs_unlink(fix.fs, dir, name_of(name, "link", i));
}

static int do_rename(unsigned i)
{
	struct fs_who who = {0};
	char from[16], to[16];

	return fs_rename(fix.fs, &who, dir, name_of(from, "file", i), dir, name_of(to, "name", i), 0);
}

static int do_unlink(unsigned i)
{
	char name[16];

	return fs_unlink(fix.fs, dir, name_of(name, "name", i));
}

/* Of what has lost its last name: nobody else does it here. */
static int do_reclaim(unsigned i)
{
	fs_forget(fix.fs, inos[i], 1);
	return 0;
}

static int do_mkdir(unsigned i)
{
	return make(i, "dir", S_IFDIR | 0755);
}

static int do_rmdir(unsigned i)
{
	char name[16];

	return fs_rmdir(fix.fs, dir, name_of(name, "dir", i));
}

/* In this order: each finds what the ones before left. */
static const struct operation {
	const char *name;
	int (*run)(unsigned i);
} operations[] = {
    {"create", do_create},     {"lookup", do_lookup},     {"getattr", do_getattr},
    {"first write", do_write}, {"write", do_write},       {"append", do_append},
    {"read", do_read},         {"chmod", do_chmod},       {"fsync", do_fsync},
    {"setxattr", do_setxattr}, {"getxattr", do_getxattr}, {"removexattr", do_removexattr},
    {"kill privileges", do_kill}, {"truncate", do_truncate}, {"link", do_link},         {"unlink of one of two", do_unlink_link},
    {"rename", do_rename},     {"unlink", do_unlink},     {"reclaim", do_reclaim},
    {"mkdir", do_mkdir},       {"rmdir", do_rmdir},       {"reclaim of a directory", do_reclaim},
};

static unsigned count_allocations(const struct operation *operation)
{
	unsigned before = allocations;

	for (unsigned i = 0; i < FILES; i++)
		expect_equal(operation->run(i), 0);
	return allocations - before;
}

START_TEST(in_steady_state_no_operation_allocates)
{
	unsigned all = 0;

	for (unsigned round = 0; round <= WARM_UP_ROUNDS; round++)
		for (unsigned k = 0; k < ARRAY_SIZE(operations); k++) {
			unsigned count = count_allocations(&operations[k]);

			if (round < WARM_UP_ROUNDS)
				continue;
			printf("sample: %u allocations in %u of %s\n", count, FILES, operations[k].name);
			fflush(stdout);
			all += count;
		}
	ck_assert_msg(!all, "%u allocations", all);
}
END_TEST

struct cost {
	uint64_t drains, journal_bytes, checkpoints;
};

static struct cost cost_so_far(void)
{
	struct journal_counts journal;
	struct media_counts media;

	media_counts(fs_media(fix.fs), &media);
	journal_counts(fix.fs->journal, &journal);
	return (struct cost){media.drains, journal.record_bytes, journal.checkpoints};
}

/* Not counted: one that finds the journal full and has to empty it first. */
static void expect_cheap(const struct operation *operation)
{
	uint64_t most = 0, bytes = 0;
	unsigned count = 0;

	for (unsigned i = 0; i < FILES; i++) {
		struct cost before = cost_so_far(), after;

		expect_equal(operation->run(i), 0);
		after = cost_so_far();
		if (after.checkpoints != before.checkpoints)
			continue;
		most = max_u64(most, after.drains - before.drains);
		bytes += after.journal_bytes - before.journal_bytes;
		count++;
	}
	expect(count > FILES / 2);
	printf("sample: %s: at most %llu drains, %llu bytes of journal in each copy\n", operation->name,
	       (unsigned long long)most, (unsigned long long)(bytes / count));
	fflush(stdout);
	ck_assert_msg(most <= 2, "%s: %llu drains", operation->name, (unsigned long long)most);
}

START_TEST(no_operation_takes_more_than_two_drains)
{
	for (unsigned k = 0; k < ARRAY_SIZE(operations); k++)
		count_allocations(&operations[k]); /* metadata space has grown */
	for (unsigned k = 0; k < ARRAY_SIZE(operations); k++)
		expect_cheap(&operations[k]);
}
END_TEST

/* Otherwise the linker does not send them here, and the test above shows nothing. */
START_TEST(an_allocation_is_counted)
{
	unsigned before = allocations;
	char **paths;
	size_t count;

	expect_equal(fs_paths(fix.fs, dir, NULL, &paths, &count), 0);
	fs_paths_free(paths, count);
	expect(allocations > before);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("steady");
	TCase *tests = tcase_create("steady");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 300);
	tcase_add_test(tests, in_steady_state_no_operation_allocates);
	tcase_add_test(tests, no_operation_takes_more_than_two_drains);
	tcase_add_test(tests, an_allocation_is_counted);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
