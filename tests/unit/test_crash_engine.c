/* The net itself: that the crash engine finds what is wrong, and nothing where nothing is. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/crash/engine.h"

static const struct fs_who who = {.uid = 1000, .gid = 1000};

static int run_two_dirs(void *arg, struct fs *fs, struct crash_run *run)
{
	static const char *const names[] = {"one", "two"};
	struct fs_attr attr;
	int error = 0;

	for (unsigned i = 0; i < 2 && !error; i++) {
		crash_begin(run);
		error = fs_create(fs, &who, FS_ROOT_INO, names[i], S_IFDIR | 0755, 0, &attr);
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

static void explore(const struct crash_workload *workload, const struct crash_options *options, struct crash_totals *totals)
{
	*totals = (struct crash_totals){0};
	ck_assert_int_eq(crash_explore(workload, options, totals), 0);
	printf("%s: %llu points, %llu images, %llu distinct, %llu mounts, %llu violations, %.2f s\n", workload->name,
	       (unsigned long long)totals->points, (unsigned long long)totals->images, (unsigned long long)totals->distinct,
	       (unsigned long long)totals->mounts, (unsigned long long)totals->violations, totals->seconds);
}

START_TEST(a_correct_workload_has_no_violation)
{
	struct crash_workload workload = two_dirs(_i ? MEDIA_PAGE : MEDIA_CACHELINE);
	struct crash_options options = {.seed = 1};
	struct crash_totals totals;

	explore(&workload, &options, &totals);
	ck_assert_uint_eq(totals.violations, 0);
	ck_assert_uint_gt(totals.points, 5);
	ck_assert_uint_gt(totals.mounts, 10);
}
END_TEST

START_TEST(a_verify_that_rejects_a_correct_state_is_reported)
{
	struct crash_workload workload = two_dirs(MEDIA_CACHELINE);
	struct crash_options options = {.seed = 1};
	struct crash_totals totals;

	workload.verify = verify_wrongly;
	explore(&workload, &options, &totals);
	ck_assert_uint_gt(totals.violations, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("crash_engine");
	TCase *tests = tcase_create("engine");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tests, 300);
	tcase_add_loop_test(tests, a_correct_workload_has_no_violation, 0, 2);
	tcase_add_test(tests, a_verify_that_rejects_a_correct_state_is_reported);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
