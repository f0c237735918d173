#include <check.h>
#include <stdlib.h>

#include "util/gate.h"
#include "util/lock.h"

#define ROUNDS 3000
#define READERS 6

static struct gate gate;
static struct {
	uint64_t left, right; /* alike whenever the gate is not closed */
} pair;
static atomic_uint writers_done, readers_done;

static void setup(void)
{
	ck_assert_int_eq(gate_init(&gate), 0);
	pair.left = pair.right = 0;
	writers_done = readers_done = 0;
}

static void teardown(void)
{
	gate_fini(&gate);
}

static void *write_rounds(void *arg)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		gate_reserve(&gate);
		gate_close(&gate);
		pair.left++;
		pair.right++;
		gate_open(&gate);
		gate_vacate(&gate);
	}
	writers_done++;
	return NULL;
}

static void *read_rounds(void *arg)
{
	uintptr_t wrong = 0;

	for (unsigned i = 0; i < ROUNDS; i++) {
		gate_enter(&gate);
		wrong += pair.left != pair.right;
		gate_leave(&gate);
	}
	readers_done++;
	return (void *)wrong;
}

START_TEST(readers_see_all_of_a_change_or_none_and_all_of_them_finish)
{
	pthread_t writer[2], reader[READERS];
	void *wrong;

	for (unsigned i = 0; i < READERS; i++)
		ck_assert_int_eq(pthread_create(&reader[i], NULL, read_rounds, NULL), 0);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&writer[i], NULL, write_rounds, NULL), 0);
	for (unsigned i = 0; i < READERS; i++) {
		pthread_join(reader[i], &wrong);
		ck_assert_ptr_null(wrong);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(writer[i], NULL);
	ck_assert_uint_eq(pair.left, 2 * ROUNDS);
	ck_assert_uint_eq(pair.right, 2 * ROUNDS);
}
END_TEST

START_TEST(readers_alone_never_wait_for_each_other)
{
	struct lock_counts before, after;
	pthread_t reader[READERS];
	void *wrong;

	lock_counts(&before);
	for (unsigned i = 0; i < READERS; i++)
		ck_assert_int_eq(pthread_create(&reader[i], NULL, read_rounds, NULL), 0);
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(reader[i], &wrong);
	lock_counts(&after);
	ck_assert_uint_eq(after.taken[LOCK_GATE_SHARED] - before.taken[LOCK_GATE_SHARED], READERS * ROUNDS);
	ck_assert_uint_eq(after.contended[LOCK_GATE_SHARED] - before.contended[LOCK_GATE_SHARED], 0);
}
END_TEST

static atomic_bool inside;

static void *close_once(void *arg)
{
	gate_reserve(&gate);
	gate_close(&gate);
	inside = true;
	gate_open(&gate);
	gate_vacate(&gate);
	return NULL;
}

START_TEST(a_writer_waits_for_the_reader_that_is_inside)
{
	struct lock_counts before, after;
	pthread_t writer;

	lock_counts(&before);
	inside = false;
	gate_enter(&gate);
	ck_assert_int_eq(pthread_create(&writer, NULL, close_once, NULL), 0);
	while (!atomic_load(&gate.closed))
		sched_yield();
	ck_assert(!inside);
	gate_leave(&gate);
	pthread_join(writer, NULL);
	ck_assert(inside);
	lock_counts(&after);
	ck_assert_uint_eq(after.contended[LOCK_GATE_EXCLUSIVE] - before.contended[LOCK_GATE_EXCLUSIVE], 1);
}
END_TEST

static void *reserve_once(void *arg)
{
	gate_reserve(&gate);
	inside = true;
	gate_vacate(&gate);
	return NULL;
}

START_TEST(a_reserved_gate_lets_readers_in_and_keeps_writers_out)
{
	struct lock_counts before, after;
	pthread_t reader, writer;
	void *wrong;

	lock_counts(&before);
	inside = false;
	gate_reserve(&gate);
	ck_assert_int_eq(pthread_create(&writer, NULL, reserve_once, NULL), 0);
	ck_assert_int_eq(pthread_create(&reader, NULL, read_rounds, NULL), 0);
	pthread_join(reader, &wrong);
	ck_assert_ptr_null(wrong);
	ck_assert(!inside);
	gate_vacate(&gate);
	pthread_join(writer, NULL);
	ck_assert(inside);
	lock_counts(&after);
	ck_assert_uint_eq(after.contended[LOCK_GATE_SHARED] - before.contended[LOCK_GATE_SHARED], 0);
}
END_TEST

/* Each changes a place of its own. */
static void *close_rounds(void *arg)
{
	uint64_t *mine = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		gate_close(&gate);
		*mine = *mine + 1;
		gate_open(&gate);
	}
	return NULL;
}

static void *compare_rounds(void *arg)
{
	uint64_t left, right;
	uintptr_t wrong = 0;

	for (unsigned i = 0; i < ROUNDS; i++) {
		gate_enter(&gate);
		left = pair.left;
		right = pair.right;
		sched_yield();
		wrong += left != pair.left || right != pair.right;
		gate_leave(&gate);
	}
	return (void *)wrong;
}

START_TEST(several_close_it_at_once_and_readers_see_nothing_change)
{
	pthread_t writer[2], reader[READERS];
	void *wrong;

	ck_assert_int_eq(pthread_create(&writer[0], NULL, close_rounds, &pair.left), 0);
	ck_assert_int_eq(pthread_create(&writer[1], NULL, close_rounds, &pair.right), 0);
	for (unsigned i = 0; i < READERS; i++)
		ck_assert_int_eq(pthread_create(&reader[i], NULL, compare_rounds, NULL), 0);
	for (unsigned i = 0; i < READERS; i++) {
		pthread_join(reader[i], &wrong);
		ck_assert_ptr_null(wrong);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(writer[i], NULL);
	ck_assert_uint_eq(pair.left + pair.right, 2 * ROUNDS);
}
END_TEST

static void *take_slot(void *arg)
{
	return (void *)(uintptr_t)slot_mine();
}

START_TEST(slots_of_threads_that_have_ended_are_given_out_again)
{
	unsigned mine = slot_mine();
	pthread_t thread;
	void *slot;

	for (unsigned i = 0; i < 3 * SLOT_COUNT; i++) {
		ck_assert_int_eq(pthread_create(&thread, NULL, take_slot, NULL), 0);
		pthread_join(thread, &slot);
		ck_assert_uint_ne((uintptr_t)slot, mine);
		ck_assert_uint_lt((uintptr_t)slot, SLOT_SHARED);
	}
}
END_TEST

static pthread_barrier_t all_started;

static void *take_slot_and_wait(void *arg)
{
	unsigned slot = slot_mine();

	gate_enter(&gate);
	pthread_barrier_wait(&all_started);
	gate_leave(&gate);
	return (void *)(uintptr_t)slot;
}

START_TEST(more_threads_than_slots_share_the_last_one)
{
	enum { THREADS = SLOT_COUNT + 8 };
	struct lock_counts before, after;
	bool taken[SLOT_SHARED] = { false };
	pthread_t thread[THREADS];
	void *result;

	lock_counts(&before);
	pthread_barrier_init(&all_started, NULL, THREADS);
	for (unsigned i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, take_slot_and_wait, NULL), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(thread[i], &result);
		if ((uintptr_t)result == SLOT_SHARED)
			continue;
		ck_assert(!taken[(uintptr_t)result]);
		taken[(uintptr_t)result] = true;
	}
	pthread_barrier_destroy(&all_started);
	gate_reserve(&gate);
	gate_close(&gate);
	gate_open(&gate);
	lock_counts(&after);
	ck_assert_uint_eq(after.taken[LOCK_GATE_SHARED] - before.taken[LOCK_GATE_SHARED], THREADS);
}
END_TEST

START_TEST(each_class_of_locks_has_a_name_and_counts_for_itself)
{
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	struct lock_counts before, after;

	for (unsigned class = 0; class < LOCK_CLASSES; class++)
		ck_assert_ptr_nonnull(lock_class_name(class));
	lock_counts(&before);
	lock_mutex(&mutex, LOCK_SPACE);
	pthread_mutex_unlock(&mutex);
	lock_counts(&after);
	for (unsigned class = 0; class < LOCK_CLASSES; class++) {
		ck_assert_uint_eq(after.taken[class] - before.taken[class], class == LOCK_SPACE);
		ck_assert_uint_eq(after.contended[class], before.contended[class]);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("gate");
	TCase *tcase = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, readers_see_all_of_a_change_or_none_and_all_of_them_finish);
	tcase_add_test(tcase, readers_alone_never_wait_for_each_other);
	tcase_add_test(tcase, a_writer_waits_for_the_reader_that_is_inside);
	tcase_add_test(tcase, several_close_it_at_once_and_readers_see_nothing_change);
	tcase_add_test(tcase, a_reserved_gate_lets_readers_in_and_keeps_writers_out);
	tcase_add_test(tcase, slots_of_threads_that_have_ended_are_given_out_again);
	tcase_add_test(tcase, more_threads_than_slots_share_the_last_one);
	tcase_add_test(tcase, each_class_of_locks_has_a_name_and_counts_for_itself);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
