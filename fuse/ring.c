#include "fuse/ring.h"

#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fuse/sched.h"
#include "util/log.h"

struct ring {
	pthread_mutex_t lock; /* of done */
	struct ring_call *done;
	int wake;	     /* eventfd: done is not empty */
	unsigned count_lent; /* its thread's alone */
};

static _Thread_local struct ring *mine;
static pthread_key_t ring_key;
static pthread_once_t ring_once = PTHREAD_ONCE_INIT;

static void ring_answer(struct ring *ring)
{
	struct ring_call *call, *next;
	eventfd_t count;

	eventfd_read(ring->wake, &count);
	pthread_mutex_lock(&ring->lock);
	call = ring->done;
	ring->done = NULL;
	pthread_mutex_unlock(&ring->lock);
	for (; call; call = next) {
		next = call->next;
		ring->count_lent--;
		call->run(call);
	}
}

static void ring_free(struct ring *ring)
{
	close(ring->wake);
	pthread_mutex_destroy(&ring->lock);
	free(ring);
}

/* The thread ends: libfuse frees its requests after this. */
static void ring_end(void *arg)
{
	struct ring *ring = arg;
	struct pollfd item = {.fd = ring->wake, .events = POLLIN};

	while (ring->count_lent) {
		poll(&item, 1, -1);
		ring_answer(ring);
	}
	mine = NULL;
	sched_leave();
	ring_free(ring);
}

static void ring_key_make(void)
{
	pthread_key_create(&ring_key, ring_end);
}

/* Without memory or descriptors requests are worked on where they come in: slower, not wrong. */
static struct ring *ring_start(void)
{
	struct ring *ring = calloc(1, sizeof(*ring));

	/* libfuse cancels its threads at the end, also while they hold what others wait for; all end by their eventfd as well. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_once(&ring_once, ring_key_make);
	if (!ring)
		return NULL;
	pthread_mutex_init(&ring->lock, NULL);
	ring->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ring->wake < 0 || pthread_setspecific(ring_key, ring)) {
		log_debug("an io_uring thread works on long requests by itself");
		ring_free(ring);
		return NULL;
	}
	sched_join();
	mine = ring;
	return ring;
}

struct ring *ring_current(void)
{
	return mine;
}

void ring_lend(struct ring *ring)
{
	ring->count_lent++;
}

void ring_give_back(struct ring *ring, struct ring_call *call)
{
	pthread_mutex_lock(&ring->lock);
	call->next = ring->done;
	ring->done = call;
	/* Under the lock: the ring may be gone as soon as its thread has seen the call. */
	eventfd_write(ring->wake, 1);
	pthread_mutex_unlock(&ring->lock);
}

/* While requests are lent, wait for what comes back too. */
static int ring_wait(struct ring *ring, struct io_uring *uring)
{
	struct pollfd items[] = {{.fd = uring->ring_fd, .events = POLLIN}, {.fd = ring->wake, .events = POLLIN}};
	int rc = io_uring_submit(uring);

	while (rc >= 0 && !io_uring_cq_ready(uring)) {
		poll(items, 2, -1);
		if (items[1].revents)
			ring_answer(ring);
	}
	return rc;
}

/* The linker puts these around the call with which libfuse's ring threads wait for requests (--wrap, fuse/CMakeLists.txt). */
int __real_io_uring_submit_and_wait(struct io_uring *uring, unsigned count);
int __wrap_io_uring_submit_and_wait(struct io_uring *uring, unsigned count);

int __wrap_io_uring_submit_and_wait(struct io_uring *uring, unsigned count)
{
	struct ring *ring = mine ? mine : ring_start();

	int rc;

	sched_wait_begin();
	if (ring && ring->count_lent)
		rc = ring_wait(ring, uring);
	else
		rc = __real_io_uring_submit_and_wait(uring, count);
	sched_wait_end();
	return rc;
}
