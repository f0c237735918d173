/* The net itself: that the crash engine finds what is wrong, and nothing where nothing is. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/crash/engine.h"
#include "tests/crash/enumerate.h"
#include "tests/crash/pending.h"

#ifdef __SANITIZE_ADDRESS__
#define DEPTH 1 /* mounts take ten times as long */
#else
#define DEPTH 2
#endif

static const struct fs_who who = {.uid = 1000, .gid = 1000};

/* --- two directories, one after the other ----------------------------------------------------------------------------------- */

static bool is_in_operation;

static int run_two_dirs(void *arg, struct fs *fs, struct crash_run *run)
{
	static const char *const names[] = {"one", "two"};
	struct fs_attr attr;
	int error = 0;

	for (unsigned i = 0; i < 2 && !error; i++) {
		crash_begin(run);
		is_in_operation = true;
		error = fs_create(fs, &who, FS_ROOT_INO, names[i], S_IFDIR | 0755, 0, &attr);
		is_in_operation = false;
		crash_end(run, error);
	}
	return error;
}

static bool has_name(struct fs *fs, const char *name, int *error)
{
	struct fs_attr attr;
	int rc = fs_lookup(fs, FS_ROOT_INO, name, &attr);

	if (rc && rc != -ENOENT)
		*error = rc;
	return !rc;
}

static int verify_two_dirs(void *arg, struct fs *fs, const struct crash_point *point, struct why *why)
{
	int error = 0;
	bool one = has_name(fs, "one", &error), two = has_name(fs, "two", &error);
	unsigned count = one + two;

	if (error)
		return why_set(why, -EUCLEAN, "lookup: %s", strerror(-error));
	if (two && !one)
		return why_set(why, -EUCLEAN, "two without one");
	if (count < point->durable || count > point->begun)
		return why_set(why, -EUCLEAN, "%u names, %u durable, %u begun", count, point->durable, point->begun);
	return 0;
}

static int verify_wrongly(void *arg, struct fs *fs, const struct crash_point *point, struct why *why)
{
	return point->done == 1 ? why_set(why, -EUCLEAN, "not to my liking") : 0;
}

static struct crash_workload two_dirs(enum media_granularity granularity)
{
	return (struct crash_workload){
		.name = "two-dirs",
		.granularity = granularity,
		.image_bytes = 16u << 20,
		.run = run_two_dirs,
		.verify = verify_two_dirs,
	};
}

/* --- a file: written, synced, overwritten in place, the name last ----------------------------------------------------------------- */

#define FILE_BYTES 20000

static int file_write(struct fs *fs, struct crash_run *run, inum_t ino, int byte)
{
	static char bytes[FILE_BYTES];
	size_t done;
	int error;

	memset(bytes, byte, sizeof(bytes));
	crash_begin(run);
	error = fs_write(fs, ino, 0, bytes, sizeof(bytes), &done);
	crash_end(run, error);
	return error;
}

static int run_file(void *arg, struct fs *fs, struct crash_run *run)
{
	struct fs_attr attr;
	int error;

	crash_begin(run);
	error = fs_create(fs, &who, FS_ROOT_INO, "file", S_IFREG | 0644, 0, &attr);
	crash_end(run, error);
	if (!error)
		error = file_write(fs, run, attr.ino, 'a');
	if (!error)
		error = fs_fsync(fs, attr.ino);
	if (error)
		return error;
	crash_durable(run);
	return file_write(fs, run, attr.ino, 'b');
}

static int verify_bytes(const char *bytes, size_t count, const struct crash_point *point, struct why *why)
{
	for (size_t i = 0; i < count; i++) {
		if (bytes[i] != 'a' && bytes[i] != 'b')
			return why_set(why, -EUCLEAN, "byte %zu is %d", i, bytes[i]);
		if ((bytes[i] == 'a' && point->durable >= 3) || (bytes[i] == 'b' && point->begun < 3))
			return why_set(why, -EUCLEAN, "byte %zu is %c", i, bytes[i]);
	}
	return 0;
}

static int verify_file(void *arg, struct fs *fs, const struct crash_point *point, struct why *why)
{
	static char bytes[FILE_BYTES];
	struct fs_attr attr;
	size_t done = 0;
	int error = fs_lookup(fs, FS_ROOT_INO, "file", &attr);

	if (error == -ENOENT && point->durable < 1)
		return 0;
	if (!error)
		error = fs_read(fs, attr.ino, 0, bytes, sizeof(bytes), &done);
	if (error && !(error == -EIO && point->data_poisoned))
		return why_set(why, -EUCLEAN, "%s", strerror(-error));
	if (!error && done < sizeof(bytes) && point->durable >= 2)
		return why_set(why, -EUCLEAN, "%zu bytes", done);
	return verify_bytes(bytes, done, point, why);
}

static struct crash_workload one_file(enum media_granularity granularity)
{
	return (struct crash_workload){
		.name = "one-file",
		.granularity = granularity,
		.image_bytes = 16u << 20,
		.run = run_file,
		.verify = verify_file,
	};
}

/* --- exploring ------------------------------------------------------------------------------------------------------------------- */

static void explore(const struct crash_workload *workload, const struct crash_options *options, struct crash_totals *totals)
{
	*totals = (struct crash_totals){0};
	ck_assert_int_eq(crash_explore(workload, options, totals), 0);
	printf("%s: %llu points, %llu images, %llu distinct, %llu mounts, %llu violations, %.2f s\n", workload->name,
	       (unsigned long long)totals->points, (unsigned long long)totals->images, (unsigned long long)totals->distinct,
	       (unsigned long long)totals->mounts, (unsigned long long)totals->violations, totals->seconds);
}

static const enum media_granularity granularities[] = {MEDIA_CACHELINE, MEDIA_PAGE};

START_TEST(a_correct_workload_has_no_violation)
{
	struct crash_workload workload = two_dirs(granularities[_i]);
	struct crash_options options = {.seed = 1, .images_limit = 48};
	struct crash_totals totals;

	explore(&workload, &options, &totals);
	ck_assert_uint_eq(totals.violations, 0);
	ck_assert_uint_gt(totals.points, 15);
	ck_assert_uint_gt(totals.mounts, 100);
	ck_assert_uint_eq(totals.mounts, totals.distinct);
}
END_TEST

/* Each mounts more than what is without it; all of it is right. */
START_TEST(poison_and_crashes_within_recovery_lose_nothing)
{
	struct crash_workload workload = one_file(granularities[_i]);
	struct crash_options options = {.seed = 2, .images_limit = 8};
	struct crash_totals plain, poisoned, deep;

	explore(&workload, &options, &plain);
	options.with_poison = true;
	explore(&workload, &options, &poisoned);
	options.with_poison = false;
	options.recovery_depth = DEPTH;
	explore(&workload, &options, &deep);
	ck_assert_uint_eq(plain.violations + poisoned.violations + deep.violations, 0);
	ck_assert_uint_gt(poisoned.mounts, plain.mounts + 10);
	ck_assert_uint_gt(deep.mounts, 2 * DEPTH * plain.mounts);
}
END_TEST

START_TEST(the_same_run_makes_the_same_images)
{
	struct crash_workload workload = one_file(granularities[_i]);
	struct crash_options options = {.seed = 3, .images_limit = 8, .recovery_depth = 1};
	struct crash_totals one, other;

	explore(&workload, &options, &one);
	explore(&workload, &options, &other);
	ck_assert_uint_eq(one.images, other.images);
	ck_assert_uint_eq(one.distinct, other.distinct);
}
END_TEST

START_TEST(the_parts_of_a_run_are_the_whole_and_a_count_is_what_is_tried)
{
	struct crash_workload workload = one_file(granularities[_i]);
	struct crash_options options = {.seed = 3, .images_limit = 8};
	struct crash_totals whole, part, sum = {0};

	explore(&workload, &options, &whole);
	for (options.parts = 3; options.part < options.parts; options.part++) {
		explore(&workload, &options, &part);
		ck_assert_uint_lt(part.points, whole.points * 2 / 3);
		sum.points += part.points;
		sum.images += part.images;
	}
	ck_assert_uint_eq(sum.points, whole.points);
	ck_assert_uint_eq(sum.images, whole.images);
	options.parts = 0;
	options.counts_only = true;
	explore(&workload, &options, &part);
	ck_assert_uint_eq(part.images, whole.images);
	ck_assert_uint_eq(part.distinct, 0);
}
END_TEST

START_TEST(a_verify_that_rejects_a_correct_state_is_reported_and_its_id_reruns_it)
{
	struct crash_workload workload = two_dirs(granularities[_i]);
	struct crash_options options = {.seed = 1, .images_limit = 4};
	struct crash_totals totals, again;

	workload.verify = verify_wrongly;
	explore(&workload, &options, &totals);
	ck_assert_uint_gt(totals.violations, 1);
	options.only = totals.first_violation;
	explore(&workload, &options, &again);
	ck_assert_uint_eq(again.violations, 1);
	ck_assert_str_eq(again.first_violation, totals.first_violation);
	workload.verify = verify_two_dirs;
	explore(&workload, &options, &again);
	ck_assert_uint_eq(again.violations, 0);
}
END_TEST

START_TEST(an_id_of_another_workload_is_passed_over)
{
	struct crash_workload workload = two_dirs(MEDIA_CACHELINE);
	struct crash_options options = {.only = "two-dirs-and-more/3/all"};
	struct crash_totals totals;

	explore(&workload, &options, &totals);
	ck_assert_uint_eq(totals.mounts, 0);
}
END_TEST

/* --- broken twins ------------------------------------------------------------------------------------------------------------------ */

static bool drops_all(void *arg, unsigned depth, unsigned number, bool is_sync)
{
	return true;
}

static bool drops_of_operations(void *arg, unsigned depth, unsigned number, bool is_sync)
{
	return is_in_operation;
}

static bool drops_in_recovery(void *arg, unsigned depth, unsigned number, bool is_sync)
{
	return depth > 0;
}

static bool drops_number(void *arg, unsigned depth, unsigned number, bool is_sync)
{
	return depth == 0 && number == *(unsigned *)arg;
}

START_TEST(a_medium_whose_drains_do_nothing_is_caught)
{
	struct crash_workload workload = one_file(granularities[_i]);
	struct crash_options options = {.seed = 1, .violations_limit = 1, .drops = drops_all};
	struct crash_totals totals;

	explore(&workload, &options, &totals);
	ck_assert_uint_eq(totals.violations, 1);
}
END_TEST

START_TEST(an_operation_that_returns_before_it_is_durable_is_caught)
{
	struct crash_workload workload = two_dirs(MEDIA_CACHELINE);
	struct crash_options options = {.seed = 1, .violations_limit = 1, .drops = drops_of_operations};
	struct crash_totals totals;

	explore(&workload, &options, &totals);
	ck_assert_uint_eq(totals.violations, 1);
}
END_TEST

START_TEST(a_recovery_without_drains_is_caught_by_a_crash_within_it)
{
	struct crash_workload workload = one_file(MEDIA_CACHELINE);
	struct crash_options options = {.seed = 1, .images_limit = 1024, .violations_limit = 1, .drops = drops_in_recovery};
	struct crash_totals totals;

	explore(&workload, &options, &totals);
	ck_assert_uint_eq(totals.violations, 0);
	options.recovery_depth = 1;
	explore(&workload, &options, &totals);
	ck_assert_uint_eq(totals.violations, 1);
}
END_TEST

/* Not every drain must be caught by so small a workload: some come right after another one. Most are. */
START_TEST(single_drains_that_do_nothing_are_caught)
{
	struct crash_workload workload = one_file(MEDIA_CACHELINE);
	unsigned number, caught = 0;
	struct crash_options options = {.seed = 1, .images_limit = 12, .violations_limit = 1, .drops = drops_number, .drops_arg = &number};
	struct crash_totals totals;

	for (number = 0; number < 16; number++) {
		explore(&workload, &options, &totals);
		caught += totals.violations > 0;
	}
	printf("sample: crash engine: %u of %u drains, each dropped alone, caught by one small workload\n", caught, number);
	ck_assert_uint_ge(caught, 3);
}
END_TEST

/* --- units and images ----------------------------------------------------------------------------------------------------------------- */

#define MEDIUM_BYTES (64u << 10)

static uint8_t medium[MEDIUM_BYTES], stored[MEDIUM_BYTES];
static struct pending pending;

static void pending_set_up(bool paged)
{
	memset(medium, 0, sizeof(medium));
	memset(stored, 0x11, sizeof(stored));
	ck_assert_int_eq(pending_init(&pending, medium, MEDIUM_BYTES, paged), 0);
}

static void pending_store(devoff_t offset, uint64_t length)
{
	struct store store = {offset, length, stored, 1};

	ck_assert_int_eq(pending_add(&pending, &store), 0);
}

/* Apply all images of the point; how many different ones are there, and is the medium as before after each? */
static unsigned count_images(const uint8_t *free_map, uint64_t limit, struct images *images)
{
	static uint64_t hashes[8192];
	uint64_t zero = 0, hash;
	unsigned different = 0;

	ck_assert_int_eq(pending_find_lines(&pending), 0);
	ck_assert_int_eq(pending_make_units(&pending, free_map), 0);
	ck_assert_int_eq(images_make(&pending, limit, 7, images), 0);
	for (size_t i = 0; i < images->count; i++) {
		unsigned known = 0;

		hash = 0;
		ck_assert_int_eq(image_choose(&images->list[i], &pending), 0);
		ck_assert_int_eq(pending_apply(&pending, images->list[i].level, &hash), 0);
		pending_undo(&pending);
		for (size_t at = 0; at < MEDIUM_BYTES; at += 8)
			ck_assert_mem_eq(medium + at, &zero, 8);
		while (known < different && hashes[known] != hash)
			known++;
		hashes[known] = hash;
		different += known == different;
	}
	free(images->list);
	return different;
}

START_TEST(few_words_are_tried_in_every_combination)
{
	struct images images;

	pending_set_up(false);
	pending_store(64, 16);
	pending_store(4096 + 8, 8);
	ck_assert_uint_eq(count_images(NULL, 4096, &images), 8);
	ck_assert(images.is_whole);
	ck_assert_double_eq_tol(images.space_log2, 3, 1e-9);
	pending_fini(&pending);
}
END_TEST

START_TEST(a_word_stored_twice_may_be_there_in_either_version)
{
	static uint8_t first[8] = {9};
	struct store store = {64, 8, first, 1};
	struct images images;

	pending_set_up(false);
	ck_assert_int_eq(pending_add(&pending, &store), 0);
	pending_store(64, 8);
	ck_assert_uint_eq(count_images(NULL, 4096, &images), 3);
	pending_fini(&pending);
}
END_TEST

START_TEST(payload_of_a_free_block_is_there_or_not_or_torn)
{
	static const uint8_t block_one_is_free[MEDIUM_BYTES / BLOCK_BYTES / 8] = {1u << 1};
	struct images images;

	pending_set_up(false);
	pending_store(4096, 4096);
	ck_assert_uint_eq(count_images(block_one_is_free, 4096, &images), 3);
	ck_assert(images.is_whole);
	ck_assert_uint_gt(count_images(NULL, 4096, &images), 1000);
	ck_assert(!images.is_whole);
	pending_fini(&pending);
}
END_TEST

START_TEST(pages_are_there_or_not_as_a_whole)
{
	struct images images;

	pending_set_up(true);
	pending_store(0, 3 * 4096);
	ck_assert_uint_eq(count_images(NULL, 4096, &images), 8);
	pending_fini(&pending);
}
END_TEST

START_TEST(many_units_are_tried_alone_and_missing_and_at_random)
{
	struct images images;

	pending_set_up(false);
	pending_store(0, 20 * 64);
	/* none, all, 160 words and 20 lines alone and missing, and random ones */
	ck_assert_uint_ge(count_images(NULL, 4096, &images), 2 + 2 * 160 + 2 * 20 + 100);
	ck_assert(!images.is_whole);
	ck_assert_uint_le(count_images(NULL, 64, &images), 80);
	pending_fini(&pending);
}
END_TEST

START_TEST(a_sync_settles_what_it_reaches_and_no_more)
{
	uint64_t hash = 0;

	pending_set_up(true);
	pending_store(0, 3 * 4096);
	pending.keeps_settled = true;
	ck_assert_int_eq(pending_settle(&pending, 0, 4096, 8192, &hash), 0);
	ck_assert_uint_eq(pending.count_stores, 2);
	ck_assert_uint_eq(medium[4095], 0);
	ck_assert_uint_eq(medium[4096], 0x11);
	ck_assert_uint_eq(medium[8192], 0);
	ck_assert(hash != 0);
	pending_unsettle(&pending);
	ck_assert_uint_eq(medium[4096], 0);
	pending_fini(&pending);
}
END_TEST

START_TEST(a_drain_settles_its_own_threads_stores_alone)
{
	uint64_t hash = 0;

	pending_set_up(false);
	pending_store(0, 8);
	ck_assert_int_eq(pending_settle(&pending, 2, 0, UINT64_MAX, &hash), 0);
	ck_assert_uint_eq(pending.count_stores, 1);
	ck_assert_int_eq(pending_settle(&pending, 1, 0, UINT64_MAX, &hash), 0);
	ck_assert_uint_eq(pending.count_stores, 0);
	ck_assert_uint_eq(medium[0], 0x11);
	pending_fini(&pending);
}
END_TEST

START_TEST(a_name_is_its_image)
{
	static const char *const names[] = {"none", "all", "u=1f", "u#3", "u<4", "w+c", "w-a0", "u%2", "w~123456789abcdef"};
	struct image image;
	char name[IMAGE_NAME_BYTES];
	const char *rest;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		rest = image_parse(names[i], &image);
		ck_assert_ptr_nonnull(rest);
		ck_assert_str_eq(rest, "");
		image_name(&image, name);
		ck_assert_str_eq(name, names[i]);
	}
	ck_assert_ptr_null(image_parse("x=1", &image));
	ck_assert_ptr_null(image_parse("u=", &image));
}
END_TEST

static void add_units(TCase *tests)
{
	tcase_add_test(tests, few_words_are_tried_in_every_combination);
	tcase_add_test(tests, a_word_stored_twice_may_be_there_in_either_version);
	tcase_add_test(tests, payload_of_a_free_block_is_there_or_not_or_torn);
	tcase_add_test(tests, pages_are_there_or_not_as_a_whole);
	tcase_add_test(tests, many_units_are_tried_alone_and_missing_and_at_random);
	tcase_add_test(tests, a_sync_settles_what_it_reaches_and_no_more);
	tcase_add_test(tests, a_drain_settles_its_own_threads_stores_alone);
	tcase_add_test(tests, a_name_is_its_image);
}

int main(void)
{
	Suite *suite = suite_create("crash_engine");
	TCase *tests = tcase_create("engine");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tests, 600);
	add_units(tests);
	tcase_add_loop_test(tests, a_correct_workload_has_no_violation, 0, 2);
	tcase_add_loop_test(tests, poison_and_crashes_within_recovery_lose_nothing, 0, 2);
	tcase_add_loop_test(tests, the_same_run_makes_the_same_images, 0, 2);
	tcase_add_loop_test(tests, the_parts_of_a_run_are_the_whole_and_a_count_is_what_is_tried, 0, 2);
	tcase_add_loop_test(tests, a_verify_that_rejects_a_correct_state_is_reported_and_its_id_reruns_it, 0, 2);
	tcase_add_test(tests, an_id_of_another_workload_is_passed_over);
	tcase_add_loop_test(tests, a_medium_whose_drains_do_nothing_is_caught, 0, 2);
	tcase_add_test(tests, an_operation_that_returns_before_it_is_durable_is_caught);
	tcase_add_test(tests, a_recovery_without_drains_is_caught_by_a_crash_within_it);
	tcase_add_test(tests, single_drains_that_do_nothing_are_caught);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
