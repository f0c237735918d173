/* Long requests on an io_uring thread: it serves others meanwhile, and answers itself. The ring is a real one that runs NOPs. */
#include "fuse/job.h"

#include <check.h>
#include <liburing.h>
#include <semaphore.h>
#include <stdio.h>

int __wrap_io_uring_submit_and_wait(struct io_uring *uring, unsigned count);

static struct io_uring uring;
static sem_t may_work, has_worked;
static _Atomic pthread_t worker;
static pthread_t answerer;
static unsigned count_answers;

static void setup(void)
{
	ck_assert_int_eq(io_uring_queue_init(32, &uring, 0), 0);
	sem_init(&may_work, 0, 0);
	sem_init(&has_worked, 0, 0);
	count_answers = 0;
}

static void teardown(void)
{
	job_stop();
	io_uring_queue_exit(&uring);
}

static void send_nop(void)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring);

	ck_assert_ptr_nonnull(sqe);
	io_uring_prep_nop(sqe);
}

/* As libfuse does: submit, wait for something to come, take it. */
static unsigned serve(void)
{
	unsigned count;

	ck_assert_int_ge(__wrap_io_uring_submit_and_wait(&uring, 1), 0);
	count = io_uring_cq_ready(&uring);
	io_uring_cq_advance(&uring, count);
	return count;
}

static void work(struct job *job)
{
	while (sem_wait(&may_work))
		;
	worker = pthread_self();
	job->done = job->length + 1;
	sem_post(&has_worked);
}

/* A reply submits, as those of libfuse do. */
static void answer(struct job *job)
{
	ck_assert_uint_eq(job->done, job->length + 1);
	answerer = pthread_self();
	count_answers++;
	send_nop();
	io_uring_submit(&uring);
}

static struct job job_make(uint64_t length)
{
	return (struct job){.work = work, .answer = answer, .op = OP_FSYNC, .begin_ns = counter_begin(), .length = length};
}

static void *serve_others(void *arg)
{
	struct job job = job_make(1);

	send_nop();
	ck_assert_uint_eq(serve(), 1);
	job_run(&job, true);
	for (unsigned i = 0; i < 100; i++) {
		send_nop();
		ck_assert_uint_eq(serve(), 1);
	}
	ck_assert_uint_eq(count_answers, 0);
	sem_post(&may_work);
	/* Nothing else comes: what ends this wait is the answer. */
	ck_assert_uint_eq(serve(), 1);
	ck_assert_uint_eq(count_answers, 1);
	ck_assert(pthread_equal(answerer, pthread_self()));
	ck_assert(!pthread_equal(worker, pthread_self()));
	return NULL;
}

static void on_a_thread(void *(*run)(void *))
{
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, run, NULL), 0);
	pthread_join(thread, NULL);
}

START_TEST(requests_are_served_while_a_long_one_is_worked_on)
{
	on_a_thread(serve_others);
}
END_TEST

#define MANY 20

static void *leave_with_many(void *arg)
{
	send_nop();
	serve();
	for (unsigned i = 0; i < MANY; i++) {
		struct job job = job_make(i);

		job_run(&job, true);
	}
	for (unsigned i = 0; i < MANY; i++)
		sem_post(&may_work);
	return NULL;
}

START_TEST(a_thread_that_ends_answers_what_is_still_away)
{
	on_a_thread(leave_with_many);
	ck_assert_uint_eq(count_answers, MANY);
}
END_TEST

static void *answer_in_turn(void *arg)
{
	struct job job = job_make(1);

	send_nop();
	serve();
	for (unsigned i = 0; i < 200; i++) {
		job_run(&job, true);
		sem_post(&may_work);
		serve();
	}
	return NULL;
}

START_TEST(threads_are_used_again)
{
	on_a_thread(answer_in_turn);
	ck_assert_uint_eq(count_answers, 200);
}
END_TEST

START_TEST(without_a_ring_the_caller_works)
{
	struct job job = job_make(1);

	sem_post(&may_work);
	job_run(&job, true);
	ck_assert_uint_eq(count_answers, 1);
	ck_assert(pthread_equal(worker, pthread_self()));
}
END_TEST

static void *work_here(void *arg)
{
	struct job job = job_make(1);

	send_nop();
	serve();
	sem_post(&may_work);
	job_run(&job, false);
	ck_assert(pthread_equal(worker, pthread_self()));
	return NULL;
}

START_TEST(a_short_one_is_worked_on_where_it_comes_in)
{
	on_a_thread(work_here);
	ck_assert_uint_eq(count_answers, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("job");
	TCase *t = tcase_create("job");
	SRunner *runner = srunner_create(suite);
	struct io_uring probe;
	int failed;

	if (io_uring_queue_init(2, &probe, 0)) {
		puts("SKIP: no io_uring here");
		return 77;
	}
	io_uring_queue_exit(&probe);
	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, requests_are_served_while_a_long_one_is_worked_on);
	tcase_add_test(t, a_thread_that_ends_answers_what_is_still_away);
	tcase_add_test(t, threads_are_used_again);
	tcase_add_test(t, without_a_ring_the_caller_works);
	tcase_add_test(t, a_short_one_is_worked_on_where_it_comes_in);
	suite_add_tcase(suite, t);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
