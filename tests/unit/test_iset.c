#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/crc.h"
#include "util/iset.h"
#include "util/why.h"

static struct iset set;

static void setup(void)
{
	iset_init(&set);
}

static void teardown(void)
{
	iset_fini(&set);
}

static void expect_range(size_t i, uint64_t start, uint64_t end, uint32_t tag)
{
	ck_assert_uint_lt(i, set.count);
	ck_assert_uint_eq(set.ranges[i].start, start);
	ck_assert_uint_eq(set.ranges[i].end, end);
	ck_assert_uint_eq(set.ranges[i].tag, tag);
}

START_TEST(touching_ranges_with_equal_tags_merge)
{
	ck_assert_int_eq(iset_add(&set, 0, 10, 1), 0);
	ck_assert_int_eq(iset_add(&set, 20, 30, 1), 0);
	ck_assert_int_eq(iset_add(&set, 10, 20, 1), 0);
	ck_assert_uint_eq(set.count, 1);
	expect_range(0, 0, 30, 1);
}
END_TEST

START_TEST(touching_ranges_with_different_tags_stay_apart)
{
	ck_assert_int_eq(iset_add(&set, 0, 10, 1), 0);
	ck_assert_int_eq(iset_add(&set, 10, 20, 2), 0);
	ck_assert_uint_eq(set.count, 2);
	ck_assert(iset_covers(&set, 0, 20));
	ck_assert(!iset_covers(&set, 0, 21));
}
END_TEST

START_TEST(adding_inside_splits_and_overwrites_the_tag)
{
	ck_assert_int_eq(iset_add(&set, 0, 30, 1), 0);
	ck_assert_int_eq(iset_add(&set, 10, 20, 2), 0);
	ck_assert_uint_eq(set.count, 3);
	expect_range(0, 0, 10, 1);
	expect_range(1, 10, 20, 2);
	expect_range(2, 20, 30, 1);
	ck_assert_int_eq(iset_add(&set, 5, 25, 1), 0);
	ck_assert_uint_eq(set.count, 1);
	expect_range(0, 0, 30, 1);
}
END_TEST

START_TEST(removing_the_middle_leaves_both_ends)
{
	ck_assert_int_eq(iset_add(&set, 0, 30, 7), 0);
	ck_assert_int_eq(iset_remove(&set, 10, 20), 0);
	ck_assert_uint_eq(set.count, 2);
	expect_range(0, 0, 10, 7);
	expect_range(1, 20, 30, 7);
	ck_assert_uint_eq(iset_bytes(&set), 20);
	ck_assert(!iset_overlaps(&set, 10, 20));
	ck_assert(iset_overlaps(&set, 9, 20));
}
END_TEST

START_TEST(empty_ranges_are_refused)
{
	ck_assert_int_eq(iset_add(&set, 5, 5, 0), -EINVAL);
	ck_assert_int_eq(iset_add(&set, 6, 5, 0), -EINVAL);
	ck_assert_int_eq(iset_remove(&set, 5, 5), -EINVAL);
	ck_assert_ptr_null(iset_find(&set, 0, UINT64_MAX));
}
END_TEST

START_TEST(the_whole_number_line_fits)
{
	ck_assert_int_eq(iset_add(&set, 0, UINT64_MAX, 3), 0);
	ck_assert(iset_covers(&set, 0, UINT64_MAX));
	ck_assert_int_eq(iset_remove(&set, UINT64_MAX - 1, UINT64_MAX), 0);
	expect_range(0, 0, UINT64_MAX - 1, 3);
}
END_TEST

#define MODEL 256

static void compare_with_model(const uint8_t *model)
{
	for (size_t i = 0; i < set.count; i++) {
		const struct iset_range *r = &set.ranges[i];

		ck_assert_uint_lt(r->start, r->end);
		if (i > 0) {
			const struct iset_range *before = r - 1;

			ck_assert_uint_le(before->end, r->start);
			ck_assert(before->end < r->start || before->tag != r->tag);
		}
	}
	for (uint64_t p = 0; p < MODEL; p++) {
		const struct iset_range *r = iset_find(&set, p, p + 1);

		ck_assert_int_eq(r != NULL, model[p] != 0);
		if (r)
			ck_assert_uint_eq(r->tag, model[p]);
	}
}

static void check_cover(const uint8_t *model, unsigned a, unsigned b)
{
	unsigned set_bytes = 0;

	for (unsigned p = a; p < b; p++)
		set_bytes += model[p] != 0;
	ck_assert_int_eq(iset_overlaps(&set, a, b), set_bytes > 0);
	ck_assert_int_eq(iset_covers(&set, a, b), set_bytes == b - a);
}

START_TEST(random_operations_agree_with_a_byte_map)
{
	uint8_t model[MODEL] = {0};
	unsigned seed = 12345;

	for (int step = 0; step < 20000; step++) {
		unsigned a = (unsigned)rand_r(&seed) % (MODEL - 1);
		unsigned b = a + 1 + (unsigned)rand_r(&seed) % (MODEL - a - 1);
		uint8_t tag = (uint8_t)((unsigned)rand_r(&seed) % 4);

		if (step % 3)
			b = a + 1 + (b - a) / 16;
		if (tag)
			ck_assert_int_eq(iset_add(&set, a, b, tag), 0);
		else
			ck_assert_int_eq(iset_remove(&set, a, b), 0);
		memset(model + a, tag, b - a);
		compare_with_model(model);
		check_cover(model, a, b);
	}
}
END_TEST

START_TEST(crc32c_is_the_standard_one_and_chains)
{
	const char *text = "123456789";

	ck_assert_uint_eq(crc32c(0, text, 9), 0xe3069283u);
	ck_assert_uint_eq(crc32c(crc32c(0, text, 4), text + 4, 5), 0xe3069283u);
	ck_assert_uint_eq(crc32c(0, text, 0), 0);
}
END_TEST

START_TEST(why_returns_its_error_and_cuts_long_lines)
{
	struct why why;
	char text[2000];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = 0;
	ck_assert_int_eq(why_set(&why, -EBUSY, "%s", text), -EBUSY);
	ck_assert_uint_eq(strlen(why.text), sizeof(why.text) - 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("iset");
	TCase *tc = tcase_create("iset");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, touching_ranges_with_equal_tags_merge);
	tcase_add_test(tc, touching_ranges_with_different_tags_stay_apart);
	tcase_add_test(tc, adding_inside_splits_and_overwrites_the_tag);
	tcase_add_test(tc, removing_the_middle_leaves_both_ends);
	tcase_add_test(tc, empty_ranges_are_refused);
	tcase_add_test(tc, the_whole_number_line_fits);
	tcase_add_test(tc, random_operations_agree_with_a_byte_map);
	tcase_add_test(tc, crc32c_is_the_standard_one_and_chains);
	tcase_add_test(tc, why_returns_its_error_and_cuts_long_lines);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
