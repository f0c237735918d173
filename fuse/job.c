#include "fuse/job.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

#include "util/log.h"

#define JOB_THREADS 8

static struct {
	pthread_mutex_t lock;
	pthread_cond_t ready;
	struct job *first, **last;
	pthread_t threads[JOB_THREADS];
	unsigned count_threads, count_idle, count_waiting;
	bool is_over;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .ready = PTHREAD_COND_INITIALIZER, .last = &pool.first};

static void job_finish(struct job *job)
{
	enum counter_op op = job->op;
	uint64_t begin_ns = job->begin_ns;

	job->answer(job);
	counter_end(op, begin_ns);
}

static void job_return(struct ring_call *call)
{
	struct job *job = (struct job *)((char *)call - offsetof(struct job, call));

	job_finish(job);
	free(job);
}

/* Under the lock. NULL: it is over. */
static struct job *job_take(void)
{
	struct job *job;

	pool.count_idle++;
	while (!pool.first && !pool.is_over)
		pthread_cond_wait(&pool.ready, &pool.lock);
	pool.count_idle--;
	job = pool.first;
	if (!job)
		return NULL;
	pool.first = job->next;
	if (!pool.first)
		pool.last = &pool.first;
	pool.count_waiting--;
	return job;
}

/* A ring's requests are answered by its own thread, others by any. */
static void job_hand_back(struct job *job)
{
	if (job->ring)
		ring_give_back(job->ring, &job->call);
	else
		job_return(&job->call);
}

static void *job_main(void *arg)
{
	struct job *job;

	pthread_mutex_lock(&pool.lock);
	while ((job = job_take())) {
		pthread_mutex_unlock(&pool.lock);
		job->work(job);
		job_hand_back(job);
		pthread_mutex_lock(&pool.lock);
	}
	pthread_mutex_unlock(&pool.lock);
	return NULL;
}

/* Under the lock. One thread at least is needed, more are better. */
static bool job_have_thread(void)
{
	if (pool.count_idle > pool.count_waiting || pool.count_threads == JOB_THREADS)
		return true;
	if (!pthread_create(&pool.threads[pool.count_threads], NULL, job_main, NULL))
		pool.count_threads++;
	return pool.count_threads > 0;
}

static bool job_queue(struct job *job)
{
	bool taken;

	pthread_mutex_lock(&pool.lock);
	taken = job_have_thread();
	if (taken) {
		*pool.last = job;
		pool.last = &job->next;
		pool.count_waiting++;
		pthread_cond_signal(&pool.ready);
	}
	pthread_mutex_unlock(&pool.lock);
	return taken;
}

static bool job_send_away(const struct job *from)
{
	struct ring *ring = ring_current();
	struct job *job = malloc(sizeof(*job));

	if (!job)
		return false;
	*job = *from;
	job->ring = ring;
	job->call.run = job_return;
	job->next = NULL;
	if (!job_queue(job)) {
		free(job);
		return false;
	}
	if (ring)
		ring_lend(ring);
	return true;
}

void job_run(struct job *job, bool is_long)
{
	if (is_long && ring_current() && job_send_away(job))
		return;
	job->work(job);
	job_finish(job);
}

void job_run_apart(struct job *job)
{
	if (job_send_away(job))
		return;
	job->error = -ENOMEM;
	job_finish(job);
}

void job_stop(void)
{
	pthread_mutex_lock(&pool.lock);
	pool.is_over = true;
	pthread_cond_broadcast(&pool.ready);
	pthread_mutex_unlock(&pool.lock);
	for (unsigned i = 0; i < pool.count_threads; i++)
		pthread_join(pool.threads[i], NULL);
	pool.count_threads = 0;
	pool.is_over = false;
}
