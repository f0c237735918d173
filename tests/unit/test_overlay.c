#include <check.h>

#include "notify/overlay.h"

static struct overlay overlay;

static void add(uint64_t start, uint64_t end, uint64_t cause_id)
{
	const struct badblock_record record = {
	    .offset = start, .length_bytes = end - start, .cause_id = cause_id};

	ck_assert_int_eq(overlay_add(&overlay, &record), 0);
}

static void expect_record(size_t index, uint64_t start, uint64_t end, uint64_t cause_id)
{
	ck_assert_uint_lt(index, overlay.count);
	ck_assert_uint_eq(overlay.records[index].offset, start);
	ck_assert_uint_eq(overlay.records[index].length_bytes, end - start);
	ck_assert_uint_eq(overlay.records[index].cause_id, cause_id);
}

static void setup(void)
{
	overlay = (struct overlay){0};
}

static void teardown(void)
{
	overlay_fini(&overlay);
}

START_TEST(records_are_kept_in_order)
{
	add(8, 9, 1);
	add(2, 3, 2);
	add(4, 6, 3);
	expect_record(0, 2, 3, 2);
	expect_record(1, 4, 6, 3);
	expect_record(2, 8, 9, 1);
	ck_assert_uint_eq(overlay_next(&overlay, 3)->offset, 4);
	ck_assert_uint_eq(overlay_next(&overlay, 5)->offset, 4);
	ck_assert_ptr_null(overlay_next(&overlay, 9));
}
END_TEST

START_TEST(adding_over_records_fills_the_gaps_only)
{
	add(4, 6, 1);
	add(8, 10, 2);
	add(2, 12, 3);
	ck_assert_uint_eq(overlay.count, 5);
	expect_record(0, 2, 4, 3);
	expect_record(1, 4, 6, 1);
	expect_record(2, 6, 8, 3);
	expect_record(3, 8, 10, 2);
	expect_record(4, 10, 12, 3);
	add(3, 11, 4);
	ck_assert_uint_eq(overlay.count, 5);
}
END_TEST

START_TEST(removing_splits_trims_and_drops)
{
	add(0, 10, 1);
	add(20, 30, 2);
	add(40, 50, 3);
	ck_assert_int_eq(overlay_remove(&overlay, 4, 6), 0);
	ck_assert_int_eq(overlay_remove(&overlay, 15, 45), 0);
	ck_assert_uint_eq(overlay.count, 3);
	expect_record(0, 0, 4, 1);
	expect_record(1, 6, 10, 1);
	expect_record(2, 45, 50, 3);
	ck_assert_int_eq(overlay_remove(&overlay, 0, 100), 0);
	ck_assert_uint_eq(overlay.count, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("overlay");
	TCase *tcase = tcase_create("overlay");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, records_are_kept_in_order);
	tcase_add_test(tcase, adding_over_records_fills_the_gaps_only);
	tcase_add_test(tcase, removing_splits_trims_and_drops);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
