/* The model that crash tests compare with: it follows the filesystem through every workload, and it is not content with anything else. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/inode.h"
#include "journal/root.h"
#include "tests/crash/workloads.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"
#include "tests/support/lab.h"
#include "tests/support/random.h"
#include "util/log.h"

/* --- every call has a workload -------------------------------------------------------------------------------------------- */

/* What each function of fs/fs.h is to the crash tests. A new one must be put here, and if it changes anything, get workloads. */
struct function {
	const char *name;
	enum { READS, LIFE, CHANGES } what; /* LIFE: mount, unmount, format: around each workload, or a test of their own */
	uint64_t kinds;			    /* of operations that call it */
};

#define BIT(kind) (1ull << (kind))

static const struct function functions[] = {
	{"fs_abandon", LIFE, 0},
	{"fs_append", CHANGES, BIT(MODEL_APPEND)},
	{"fs_clone", CHANGES, BIT(MODEL_CLONE)},
	{"fs_copy_range", CHANGES, BIT(MODEL_COPY)},
	{"fs_create", CHANGES, BIT(MODEL_CREATE)},
	{"fs_dedupe", CHANGES, BIT(MODEL_DEDUPE)},
	{"fs_events", READS, 0},
	{"fs_copy_range_as", CHANGES, BIT(MODEL_COPY)} /* fs_kill_privileges() within, as fs_write_as() */,
	{"fs_fallocate_as", CHANGES, BIT(MODEL_FALLOCATE)} /* as well */,
	{"fs_fallocate", CHANGES, BIT(MODEL_FALLOCATE)},
	{"fs_forget", CHANGES, BIT(MODEL_FORGET)},
	{"fs_format", LIFE, 0},
	{"fs_fsync", CHANGES, BIT(MODEL_FSYNC)},
	{"fs_getattr", READS, 0},
	{"fs_getxattr", READS, 0},
	{"fs_is_readonly", READS, 0},
	{"fs_known", READS, 0},
	{"fs_kill_privileges", CHANGES, BIT(MODEL_KILL)},
	{"fs_link", CHANGES, BIT(MODEL_LINK)},
	{"fs_listxattr", READS, 0},
	{"fs_lookup", READS, 0},
	{"fs_media", READS, 0},
	{"fs_mount", LIFE, 0},
	{"fs_mount_media", LIFE, 0},
	{"fs_read", READS, 0},
	{"fs_read_unseen", READS, 0},
	{"fs_read_super", READS, 0},
	{"fs_check_place", READS, 0},
	{"fs_readdir", READS, 0},
	{"fs_listing_ends", READS, 0},
	{"fs_readlink", READS, 0},
	{"fs_removexattr", CHANGES, BIT(MODEL_REMOVEXATTR)},
	{"fs_rename", CHANGES, BIT(MODEL_RENAME)},
	{"fs_resize", CHANGES, BIT(MODEL_RESIZE)},
	{"fs_rmdir", CHANGES, BIT(MODEL_RMDIR)},
	{"fs_seek", READS, 0},
	{"fs_set_flags", CHANGES, BIT(MODEL_FLAGS)},
	{"fs_set_label", CHANGES, BIT(MODEL_LABEL)},
	{"fs_set_uuid", CHANGES, BIT(MODEL_LABEL)} /* it is stored as the label is */,
	{"fs_setattr", CHANGES, BIT(MODEL_SETATTR)},
	{"fs_setxattr", CHANGES, BIT(MODEL_SETXATTR)},
	{"fs_statfs", READS, 0},
	{"fs_stop", LIFE, 0},
	{"fs_super", READS, 0},
	{"fs_symlink", CHANGES, BIT(MODEL_SYMLINK)},
	{"fs_syncfs", CHANGES, BIT(MODEL_SYNCFS)},
	{"fs_tmpfile", CHANGES, BIT(MODEL_TMPFILE)},
	{"fs_trim", CHANGES, BIT(MODEL_TRIM)},
	{"fs_unlink", CHANGES, BIT(MODEL_UNLINK)},
	{"fs_unmount", LIFE, 0},
	{"fs_verify_open", READS, 0},
	{"fs_write", CHANGES, BIT(MODEL_WRITE)},
	{"fs_write_as", CHANGES, BIT(MODEL_WRITE)} /* fs_kill_privileges(), then fs_write() */,
	{"fs_write_super", LIFE, 0},
};

static const struct function *find_function(const char *name, size_t length)
{
	for (size_t i = 0; i < ARRAY_SIZE(functions); i++)
		if (strlen(functions[i].name) == length && !memcmp(functions[i].name, name, length))
			return &functions[i];
	return NULL;
}

static char *read_header(void)
{
	FILE *file = fopen(MENDFS_SOURCE_DIR "/fs/fs.h", "r");
	char *text = calloc(1, 1 << 16);

	expect(file && text);
	expect(fread(text, 1, (1 << 16) - 1, file) > 1000);
	fclose(file);
	return text;
}

/* Declarations begin in the first column; what follows the last blank or star before the parenthesis is the name. Types of functions have a star. */
static bool declared_name(const char *line, const char **name, size_t *length)
{
	const char *end = strchr(line, '('), *newline = strchr(line, '\n'), *start;

	if (!end || (newline && end > newline) || !strchr("abcdefghijklmnopqrstuvwxyz", line[0]) || !strncmp(line, "typedef", 7))
		return false;
	for (start = end; start > line && (start[-1] == '_' || (start[-1] >= 'a' && start[-1] <= 'z')); start--)
		;
	*name = start;
	*length = (size_t)(end - start);
	return true;
}

static uint64_t kinds_that_succeed(void)
{
	uint64_t seen = 0;

	for (size_t i = 0; i < workloads_count(GROUP_SINGLE); i++) {
		struct workload workload;
		struct why why = {0};

		expect_equal(workloads_get(GROUP_SINGLE, i, MEDIA_CACHELINE, 1, &workload), 0);
		ck_assert_msg(workload_rehearse(&workload, &seen, &why) == 0, "%s", why.text);
		workload_fini(&workload);
	}
	return seen;
}

START_TEST(every_call_that_changes_anything_has_a_workload)
{
	uint64_t seen = kinds_that_succeed();
	char *text = read_header(), *line = text;
	unsigned count = 0;

	while (line) {
		const struct function *function;
		const char *name;
		size_t length;

		if (declared_name(line, &name, &length)) {
			function = find_function(name, length);
			ck_assert_msg(function != NULL, "fs/fs.h declares %.*s: say in this test whether it changes anything, and add workloads", (int)length, name);
			ck_assert_msg(function->what != CHANGES || (function->kinds & seen), "no workload calls %s with success", function->name);
			count++;
		}
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	free(text);
	ck_assert_uint_eq(count, ARRAY_SIZE(functions));
}
END_TEST

/* --- the model follows ---------------------------------------------------------------------------------------------------- */

static uint64_t rehearse(enum workload_group group, size_t index, uint64_t seed)
{
	struct workload workload;
	struct why why = {0};
	uint64_t seen = 0;

	expect_equal(workloads_get(group, index, index % 2 ? MEDIA_PAGE : MEDIA_CACHELINE, seed, &workload), 0);
	ck_assert_msg(workload_rehearse(&workload, &seen, &why) == 0, "%s", why.text);
	workload_fini(&workload);
	return seen;
}

START_TEST(the_model_follows_random_operations)
{
	struct random random = random_start("crash_model");
	uint64_t seen = 0;

	for (size_t i = 0; i < 12; i++)
		seen |= rehearse(GROUP_RANDOM, i, random.state);
	ck_assert_msg(seen & SEEN_NO_SPACE, "none of them ran out of space");
}
END_TEST

START_TEST(the_model_follows_pairs_of_operations)
{
	struct random random = random_start("crash_model_pairs");

	for (size_t i = 0; i < 100; i++)
		rehearse(GROUP_PAIRS, random_below(&random, workloads_count(GROUP_PAIRS)), 1);
}
END_TEST

/* --- and it is not content with anything else ----------------------------------------------------------------------------- */

static struct lab *lab;
static struct fs *fs;
static struct model *model;
static const struct fs_options options = {.tools = true, .cache_bytes = 1u << 20};

static void do_all(const char *text)
{
	struct script script;
	struct why why = {0};
	int answer;

	ck_assert_msg(script_parse(&script, text, &why) == 0, "%s", why.text);
	for (size_t i = 0; i < script.count; i++)
		ck_assert_msg(model_do(model, fs, NULL, &script.ops[i], &answer, &why) == 0 && answer == 0, "%s", why.text);
	script_fini(&script);
}

static void setup(void)
{
	struct why why = {0};

	expect_equal(lab_create(FSFIX_SMALL_BYTES, MEDIA_CACHELINE, &lab), 0);
	expect_equal(fsfix_format_media(lab_media(lab)), 0);
	lab_reset(lab);
	expect_equal(fs_mount_media(lab_media(lab), &options, &why, &fs), 0);
	model = model_create();
	expect_equal(model_prepare(model, fs, &why), 0);
	do_all("mkdir d; create d/f; write d/f 0 2b+50; create d/shared; clone d/f d/shared; create h; write h 0 2b; symlink s target");
	expect_equal(model_prepared(model, fs, &why), 0);
}

static void teardown(void)
{
	fs_abandon(fs);
	model_destroy(model);
	lab_destroy(lab);
}

static int judge_on(enum media_granularity granularity, unsigned durable, unsigned done, unsigned begun)
{
	struct crash_point point = {.durable = durable, .done = done, .begun = begun};
	struct why why = {0};

	return model_judge(model, fs, granularity, &point, &why);
}

static int judge(unsigned done, unsigned begun)
{
	return judge_on(MEDIA_CACHELINE, done, done, begun);
}

static inum_t at(const char *path)
{
	inum_t ino = model_resolve(model, path);

	expect(ino != 0);
	return ino;
}

static void write_behind(const char *path, uint64_t pos, const void *bytes, size_t size)
{
	struct fs_attr before, after;
	size_t done;

	expect_equal(fs_getattr(fs, at(path), &before), 0);
	expect_equal(fs_write(fs, at(path), pos, bytes, size, &done), 0);
	expect_equal(fs_setattr(fs, at(path), FS_SET_MTIME | FS_SET_CTIME, &before.record, &after), 0);
}

START_TEST(the_last_state_is_accepted_and_no_other)
{
	do_all("create a; mkdir b");
	expect_equal(judge(2, 2), 0);
	expect_equal(judge(1, 1), -EUCLEAN);
	expect_equal(judge(0, 1), -EUCLEAN);
	expect_equal(judge(1, 2), 0);
	expect_equal(judge_on(MEDIA_PAGE, 0, 2, 2), 0);
	expect_equal(judge_on(MEDIA_PAGE, 0, 1, 1), -EUCLEAN);
}
END_TEST

static const struct fs_who who = {0};

static int behind_create(void)
{
	struct fs_attr attr;

	return fs_create(fs, &who, FS_ROOT_INO, "x", S_IFREG | 0600, 0, &attr);
}

static int behind_unlink(void)
{
	return fs_unlink(fs, at("d"), "f");
}

static int behind_unlink_symlink(void)
{
	return fs_unlink(fs, FS_ROOT_INO, "s");
}

static int behind_rmdir(void)
{
	return fs_rmdir(fs, at("d"), "empty");
}

static int behind_rename(void)
{
	return fs_rename(fs, &who, at("d"), "f", at("d"), "g", 0);
}

static int behind_exchange(void)
{
	return fs_rename(fs, &who, at("d"), "f", FS_ROOT_INO, "h", RENAME_EXCHANGE);
}

static int behind_link(void)
{
	struct fs_attr attr;

	return fs_link(fs, at("d/f"), FS_ROOT_INO, "x", &attr);
}

static int behind_set(unsigned set)
{
	struct inode_record values = {.mode = 0600, .uid = 3, .gid = 4, .size_bytes = 100, .mtime.sec = 5, .atime.sec = 6};
	struct fs_attr attr;

	return fs_setattr(fs, at("d/f"), set, &values, &attr);
}

static int behind_chmod(void)
{
	return behind_set(FS_SET_MODE);
}

static int behind_chown(void)
{
	return behind_set(FS_SET_GID);
}

static int behind_truncate(void)
{
	return behind_set(FS_SET_SIZE);
}

static int behind_mtime(void)
{
	return behind_set(FS_SET_MTIME);
}

static int behind_atime(void)
{
	return behind_set(FS_SET_ATIME);
}

static int behind_write(void)
{
	write_behind("d/f", 5, "!", 1);
	return 0;
}

static int behind_allocate(void)
{
	return fs_fallocate(fs, at("h"), FALLOC_FL_KEEP_SIZE, 0, 9 * BLOCK_BYTES);
}

static int behind_xattr(void)
{
	return fs_setxattr(fs, &who, at("h"), "user.a", "x", 1, 0);
}

static int behind_label(void)
{
	struct why why;

	return fs_set_label(fs, "behind", &why);
}

static int behind_resize(void)
{
	struct why why;

	return fs_resize(fs, fs_super(fs)->size_bytes + BLOCK_BYTES, &why);
}

static int (*const behind[])(void) = {
	behind_create, behind_unlink, behind_unlink_symlink, behind_rmdir, behind_rename, behind_exchange, behind_link, behind_chmod,
	behind_chown, behind_truncate, behind_mtime, behind_atime, behind_write, behind_allocate, behind_label, behind_resize, behind_xattr,
};

START_TEST(what_nobody_did_is_refused)
{
	do_all("create a; unlink d/shared; unlink d/f; create d/f; write d/f 0 1b; mkdir d/empty");
	expect_equal(judge(6, 6), 0);
	expect_equal(behind[_i](), 0);
	expect_equal(judge(6, 6), -EUCLEAN);
}
END_TEST

START_TEST(an_overwrite_in_flight_may_be_mixed_by_words)
{
	uint8_t old[2 * BLOCK_BYTES];
	size_t done;

	expect_equal(fs_read(fs, at("h"), 0, old, sizeof(old), &done), 0);
	do_all("write h 0 2b");
	write_behind("h", 64, old + 64, 8);
	write_behind("h", BLOCK_BYTES + 16, old + BLOCK_BYTES + 16, 16);
	expect_equal(judge(0, 1), 0);
	expect_equal(judge(1, 1), -EUCLEAN);
	write_behind("h", 128, old + 128, 3); /* half a word */
	expect_equal(judge(0, 1), -EUCLEAN);
}
END_TEST

START_TEST(new_blocks_in_flight_are_there_as_a_prefix)
{
	static const uint8_t zeros[BLOCK_BYTES];

	do_all("write h 9b 40b");
	write_behind("h", 20 * BLOCK_BYTES, zeros, BLOCK_BYTES);
	expect_equal(judge(0, 1), -EUCLEAN); /* a hole in the prefix */
	expect_equal(fs_fallocate(fs, at("h"), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 20 * BLOCK_BYTES, 29 * BLOCK_BYTES), 0);
	expect_equal(judge(0, 1), -EUCLEAN); /* and the size is not that of the prefix */
}
END_TEST

START_TEST(a_page_of_a_later_overwrite_may_be_there_after_the_hosts_crash)
{
	uint8_t old[BLOCK_BYTES];
	size_t done;

	do_all("create a");
	expect_equal(fs_read(fs, at("h"), 0, old, sizeof(old), &done), 0);
	do_all("write h 0 2b");
	write_behind("h", 0, old, sizeof(old));
	expect_equal(judge_on(MEDIA_PAGE, 0, 2, 2), 0);
	expect_equal(judge_on(MEDIA_PAGE, 2, 2, 2), -EUCLEAN);
	expect_equal(judge(2, 2), -EUCLEAN);
}
END_TEST

static uint64_t count_intents(void)
{
	uint64_t next;

	journal_read_begin(fs->journal);
	next = root_get(fs->journal, ROOT_NEXT_INTENT);
	journal_read_end(fs->journal);
	return next;
}

/* Else the workloads named so would test less than they say. */
START_TEST(files_of_many_extents_make_chains)
{
	static const char *const chains[] = {"truncate m 0", "punch m 0 300b", "clone m h", "clone h m", "zero m 0 300b"};
	uint64_t before;

	do_all("create m; spread m 100");
	before = count_intents();
	do_all(chains[_i]);
	ck_assert_uint_eq(count_intents(), before + 1);
}
END_TEST

/* Blocks that were shared when the clone still had a name may not be overwritten in place as long as it may come back. */
START_TEST(an_overwrite_may_not_show_in_a_clone)
{
	uint8_t bytes[8] = "overwrit";

	do_all("unlink d/f");
	write_behind("d/shared", 0, bytes, sizeof(bytes));
	expect_equal(judge_on(MEDIA_PAGE, 0, 1, 1), -EUCLEAN);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("crash_model");
	TCase *follows = tcase_create("follows"), *refuses = tcase_create("refuses");
	SRunner *runner = srunner_create(suite);
	int failed;

	log_set_level(LOG_LEVEL_SILENT);
	tcase_set_timeout(follows, 300);
	tcase_add_test(follows, every_call_that_changes_anything_has_a_workload);
	tcase_add_test(follows, the_model_follows_random_operations);
	tcase_add_test(follows, the_model_follows_pairs_of_operations);
	suite_add_tcase(suite, follows);
	tcase_add_checked_fixture(refuses, setup, teardown);
	tcase_set_timeout(refuses, 60);
	tcase_add_test(refuses, the_last_state_is_accepted_and_no_other);
	tcase_add_loop_test(refuses, what_nobody_did_is_refused, 0, ARRAY_SIZE(behind));
	tcase_add_test(refuses, an_overwrite_in_flight_may_be_mixed_by_words);
	tcase_add_test(refuses, new_blocks_in_flight_are_there_as_a_prefix);
	tcase_add_test(refuses, a_page_of_a_later_overwrite_may_be_there_after_the_hosts_crash);
	tcase_add_test(refuses, an_overwrite_may_not_show_in_a_clone);
	tcase_add_loop_test(refuses, files_of_many_extents_make_chains, 0, 5);
	suite_add_tcase(suite, refuses);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
