/* Another thread that does what it is told, step by step. */
#ifndef TESTS_SUPPORT_OTHER_THREAD_H
#define TESTS_SUPPORT_OTHER_THREAD_H

#include <check.h>
#include <pthread.h>
#include <semaphore.h>

typedef void other_step_fn(void *arg);

struct other_thread {
	pthread_t thread;
	sem_t begin, done;
	other_step_fn *step;
	void *arg;
};

static inline void *other_main(void *arg)
{
	struct other_thread *other = arg;

	for (;;) {
		sem_wait(&other->begin);
		if (!other->step)
			return NULL;
		other->step(other->arg);
		sem_post(&other->done);
	}
}

/* Without waiting for it: other_wait() does. */
static inline void other_begin(struct other_thread *other, other_step_fn *step, void *arg)
{
	other->step = step;
	other->arg = arg;
	sem_post(&other->begin);
}

static inline void other_wait(struct other_thread *other)
{
	sem_wait(&other->done);
}

static inline void other_do(struct other_thread *other, other_step_fn *step, void *arg)
{
	other_begin(other, step, arg);
	other_wait(other);
}

static inline void other_start(struct other_thread *other)
{
	sem_init(&other->begin, 0, 0);
	sem_init(&other->done, 0, 0);
	ck_assert_int_eq(pthread_create(&other->thread, NULL, other_main, other), 0);
}

static inline void other_stop(struct other_thread *other)
{
	other_begin(other, NULL, NULL);
	pthread_join(other->thread, NULL);
	sem_destroy(&other->begin);
	sem_destroy(&other->done);
}

#endif
