#include <check.h>
#include <errno.h>

#include "notify/queue.h"

#define PAGE 4096ull

static struct queue queue;
static struct iset batch;
static uint8_t overflow_source;

static void setup(void)
{
	queue_init(&queue, 64);
	iset_init(&batch);
}

static void teardown(void)
{
	iset_fini(&batch);
	queue_fini(&queue);
}

static void push(uint64_t start, uint64_t end)
{
	ck_assert_int_eq(queue_push(&queue, start, end, BADBLOCK_BAD, FAILURE_SIGBUS), 0);
}

static void push_cleared(uint64_t start, uint64_t end)
{
	ck_assert_int_eq(queue_push(&queue, start, end, BADBLOCK_CLEARED, FAILURE_CONTROL), 0);
}

static void take(void)
{
	iset_fini(&batch);
	queue_take(&queue, &batch, &overflow_source);
}

static void expect_range(size_t index, uint64_t start, uint64_t end, enum badblock_state state)
{
	ck_assert_uint_lt(index, batch.count);
	ck_assert_uint_eq(batch.ranges[index].start, start);
	ck_assert_uint_eq(batch.ranges[index].end, end);
	ck_assert_int_eq(queue_tag_state(batch.ranges[index].tag), state);
}

START_TEST(a_storm_of_single_pages_becomes_one_range)
{
	const uint64_t pages = 100000;

	/* In an order that leaves gaps to be closed later. */
	for (uint64_t i = 0; i < pages; i += 1024)
		for (uint64_t k = 0; k < 1024 && i + k < pages; k += 2)
			push((i + k) * PAGE, (i + k + 1) * PAGE);
	ck_assert_uint_le(queue.ranges.count, 64);
	ck_assert(queue.overflowed);
	take();
	for (uint64_t i = 0; i < pages; i++)
		push(i * PAGE, (i + 1) * PAGE);
	take();
	ck_assert_uint_eq(batch.count, 1);
	ck_assert_uint_eq(overflow_source, 0);
	expect_range(0, 0, pages * PAGE, BADBLOCK_BAD);
}
END_TEST

START_TEST(what_touches_is_merged_and_what_does_not_is_kept_apart)
{
	push(0, PAGE);
	push(PAGE, 2 * PAGE);
	push(3 * PAGE, 4 * PAGE);
	take();
	ck_assert_uint_eq(batch.count, 2);
	expect_range(0, 0, 2 * PAGE, BADBLOCK_BAD);
	expect_range(1, 3 * PAGE, 4 * PAGE, BADBLOCK_BAD);
	ck_assert(queue_is_empty(&queue));
}
END_TEST

START_TEST(sources_are_kept_apart)
{
	push(0, PAGE);
	ck_assert_int_eq(queue_push(&queue, PAGE, 2 * PAGE, BADBLOCK_BAD, FAILURE_INJECTED), 0);
	take();
	ck_assert_uint_eq(batch.count, 2);
	ck_assert_int_eq(queue_tag_source(batch.ranges[1].tag), FAILURE_INJECTED);
}
END_TEST

START_TEST(the_newest_word_on_a_range_wins)
{
	push(0, 4 * PAGE);
	push_cleared(PAGE, 2 * PAGE);
	push_cleared(2 * PAGE, 3 * PAGE);
	push(2 * PAGE, 3 * PAGE);
	take();
	ck_assert_uint_eq(batch.count, 3);
	expect_range(0, 0, PAGE, BADBLOCK_BAD);
	expect_range(1, PAGE, 2 * PAGE, BADBLOCK_CLEARED);
	expect_range(2, 2 * PAGE, 4 * PAGE, BADBLOCK_BAD);
}
END_TEST

START_TEST(beyond_the_limit_only_the_fact_is_kept)
{
	for (uint64_t i = 0; i < 100; i++)
		push(2 * i * PAGE, (2 * i + 1) * PAGE);
	ck_assert_uint_eq(queue.ranges.count, 64);
	ck_assert(!queue_is_empty(&queue));
	take();
	ck_assert_int_eq(overflow_source, FAILURE_SIGBUS);
	ck_assert(queue_is_empty(&queue));
	take();
	ck_assert_int_eq(overflow_source, 0);
}
END_TEST

START_TEST(a_full_queue_still_takes_what_continues_or_replaces_a_range)
{
	for (uint64_t i = 0; i < 64; i++)
		push(4 * i * PAGE, (4 * i + 1) * PAGE);
	push(PAGE, 2 * PAGE);
	ck_assert(!queue.overflowed);
	push_cleared(8 * PAGE, 9 * PAGE);
	push(8 * PAGE, 9 * PAGE);
	ck_assert(!queue.overflowed);
	push_cleared(2000 * PAGE, 2001 * PAGE);
	take();
	ck_assert_uint_eq(batch.count, 65);
	expect_range(0, 0, 2 * PAGE, BADBLOCK_BAD);
}
END_TEST

START_TEST(cleared_is_refused_rather_than_forgotten)
{
	int rc = 0;

	for (uint64_t i = 0; i < 10000 && rc == 0; i++)
		rc = queue_push(&queue, 2 * i * PAGE, (2 * i + 1) * PAGE, BADBLOCK_CLEARED,
				FAILURE_CONTROL);
	ck_assert_int_eq(rc, -ENOSPC);
	ck_assert(!queue.overflowed);
}
END_TEST

START_TEST(failed_parts_are_found_between_cleared_ones)
{
	struct iset_range found;

	push_cleared(0, 2 * PAGE);
	push(2 * PAGE, 3 * PAGE);
	ck_assert(queue_find_failed(&queue.ranges, PAGE, 8 * PAGE, &found));
	ck_assert_uint_eq(found.start, 2 * PAGE);
	ck_assert_uint_eq(found.end, 3 * PAGE);
	ck_assert(!queue_find_failed(&queue.ranges, 0, 2 * PAGE, &found));
	ck_assert(!queue_find_failed(&queue.ranges, 3 * PAGE, 8 * PAGE, &found));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("queue");
	TCase *tcase = tcase_create("queue");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_storm_of_single_pages_becomes_one_range);
	tcase_add_test(tcase, what_touches_is_merged_and_what_does_not_is_kept_apart);
	tcase_add_test(tcase, sources_are_kept_apart);
	tcase_add_test(tcase, the_newest_word_on_a_range_wins);
	tcase_add_test(tcase, beyond_the_limit_only_the_fact_is_kept);
	tcase_add_test(tcase, a_full_queue_still_takes_what_continues_or_replaces_a_range);
	tcase_add_test(tcase, cleared_is_refused_rather_than_forgotten);
	tcase_add_test(tcase, failed_parts_are_found_between_cleared_ones);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
