#include "fuse/sched.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "util/log.h"
#include "util/types.h"

#define WATCH_MS 5
#define WAITED_NS 1000000u   /* in one look: somebody else wants the CPU */
#define HOLD_LOOKS 100	     /* ordinary for 0.5 s; after that, each time it was too early, twice as long */
#define HOLD_LOOKS_MAX 3200
#define QUIET_LOOKS 200	     /* without a request: stop looking */

struct watched {
	struct watched *next;
	pid_t tid;
	int schedstat;
	uint64_t waited_ns;
	_Atomic unsigned long noted; /* waits for requests */
	unsigned long seen;
	_Atomic bool is_waiting;     /* for requests */
};

static struct {
	pthread_mutex_t lock; /* of the list */
	struct watched *list;
	pthread_t thread;
	bool is_started;
	bool is_settled; /* no SCHED_IDLE any more */
	_Atomic bool is_over, is_parked;
	int wake;
	bool is_idle_class;
	unsigned hold, hold_next; /* looks until the next try, and how many it would be after that */
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = -1};

static _Thread_local struct watched *mine;

static int class_set(pid_t tid, int policy)
{
	static const struct sched_param none;

	return sched_setscheduler(tid, policy, &none) ? -errno : 0;
}

/* Nanoseconds that the thread was ready to run and did not, since the last look. */
static uint64_t watched_delay(struct watched *w)
{
	char text[96];
	ssize_t length = pread(w->schedstat, text, sizeof(text) - 1, 0);
	unsigned long long ran, waited;
	uint64_t delay;

	if (length <= 0)
		return 0;
	text[length] = '\0';
	if (sscanf(text, "%llu %llu", &ran, &waited) != 2)
		return 0;
	delay = waited - w->waited_ns;
	w->waited_ns = waited;
	return delay;
}

/* Under the lock. The longest delay; whether a request came. */
static uint64_t watch_look(bool *is_busy)
{
	uint64_t longest = 0;

	*is_busy = false;
	for (struct watched *w = watch.list; w; w = w->next) {
		unsigned long noted = atomic_load_explicit(&w->noted, memory_order_relaxed);

		*is_busy |= noted != w->seen;
		w->seen = noted;
		longest = max_u64(longest, watched_delay(w));
	}
	return longest;
}

/* Under the lock. */
static void watch_set_class(bool is_idle)
{
	if (watch.is_idle_class == is_idle || (is_idle && watch.is_settled))
		return;
	watch.is_idle_class = is_idle;
	for (struct watched *w = watch.list; w; w = w->next)
		class_set(w->tid, is_idle ? SCHED_IDLE : SCHED_OTHER);
}

static void watch_decide(uint64_t delay_ns)
{
	if (watch.is_idle_class && delay_ns > WAITED_NS) {
		watch_set_class(false);
		watch.hold = watch.hold_next;
		watch.hold_next = watch.hold_next * 2 < HOLD_LOOKS_MAX ? watch.hold_next * 2 : HOLD_LOOKS_MAX;
	} else if (!watch.is_idle_class && watch.hold) {
		watch.hold--;
	} else if (!watch.is_idle_class) {
		watch_set_class(true);
		watch.hold = HOLD_LOOKS;
	} else if (watch.hold && !--watch.hold) {
		watch.hold_next = HOLD_LOOKS; /* that long without trouble */
	}
}

/* Nobody uses the mount: leave the threads as those that start at once, and sleep until one is used. */
static void watch_park(void)
{
	struct pollfd item = {.fd = watch.wake, .events = POLLIN};
	eventfd_t count;

	pthread_mutex_lock(&watch.lock);
	watch_set_class(false);
	pthread_mutex_unlock(&watch.lock);
	watch.hold = 0;
	atomic_store(&watch.is_parked, true);
	poll(&item, 1, -1);
	atomic_store(&watch.is_parked, false);
	eventfd_read(watch.wake, &count);
}

static void *watch_main(void *arg)
{
	static const struct timespec pause = {.tv_nsec = WATCH_MS * 1000000};
	unsigned quiet = 0;
	bool is_busy;

	watch_park();
	while (!atomic_load(&watch.is_over)) {
		pthread_mutex_lock(&watch.lock);
		watch_decide(watch_look(&is_busy));
		pthread_mutex_unlock(&watch.lock);
		quiet = is_busy ? 0 : quiet + 1;
		if (quiet == QUIET_LOOKS) {
			watch_park();
			quiet = 0;
		}
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static int class_try(void)
{
	int error = class_set(0, SCHED_IDLE);

	return error ? error : class_set(0, SCHED_OTHER);
}

/* On a thread of its own: if it cannot go back, that one stays behind. */
static void *class_probe(void *arg)
{
	*(int *)arg = class_try();
	return NULL;
}

void sched_start(void)
{
	pthread_t probe;
	int error = 0;

	if (pthread_create(&probe, NULL, class_probe, &error))
		return;
	pthread_join(probe, NULL);
	if (error) {
		log_debug("io_uring threads stay in their scheduling class: nobody may leave SCHED_IDLE without privilege");
		return;
	}
	watch.hold_next = HOLD_LOOKS;
	watch.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	watch.is_started = watch.wake >= 0 && !pthread_create(&watch.thread, NULL, watch_main, NULL);
}

void sched_stop(void)
{
	if (!watch.is_started)
		return;
	atomic_store(&watch.is_over, true);
	eventfd_write(watch.wake, 1);
	pthread_join(watch.thread, NULL);
	close(watch.wake);
	watch.wake = -1;
	watch.is_started = false;
}

void sched_join(void)
{
	struct watched *w = calloc(1, sizeof(*w));
	char path[64];

	if (!w)
		return;
	w->tid = gettid();
	snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat", w->tid);
	w->schedstat = open(path, O_RDONLY | O_CLOEXEC);
	if (w->schedstat < 0) {
		free(w);
		return;
	}
	pthread_mutex_lock(&watch.lock);
	w->next = watch.list;
	watch.list = w;
	watched_delay(w);
	pthread_mutex_unlock(&watch.lock);
	mine = w;
}

void sched_leave(void)
{
	struct watched **link = &watch.list;

	if (!mine)
		return;
	pthread_mutex_lock(&watch.lock);
	while (*link != mine)
		link = &(*link)->next;
	*link = mine->next;
	pthread_mutex_unlock(&watch.lock);
	close(mine->schedstat);
	free(mine);
	mine = NULL;
}

void sched_wait_begin(void)
{
	if (!mine)
		return;
	atomic_store_explicit(&mine->is_waiting, true, memory_order_release);
	atomic_store_explicit(&mine->noted, mine->noted + 1, memory_order_relaxed);
	if (atomic_load_explicit(&watch.is_parked, memory_order_relaxed) && atomic_exchange(&watch.is_parked, false))
		eventfd_write(watch.wake, 1);
}

void sched_wait_end(void)
{
	if (mine)
		atomic_store_explicit(&mine->is_waiting, false, memory_order_relaxed);
}

/* Waiting, and with nothing to wake up for. */
static bool watched_sleeps(const struct watched *w)
{
	char path[64], text[256];
	const char *state;
	ssize_t length;
	int fd;

	if (!atomic_load_explicit(&w->is_waiting, memory_order_acquire))
		return false;
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", w->tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[length > 0 ? length : 0] = '\0';
	state = strrchr(text, ')');
	return !state || !strncmp(state, ") S", 3);
}

static bool watch_sleeps(void)
{
	bool sleeps = true;

	pthread_mutex_lock(&watch.lock);
	watch.is_settled = true;
	watch_set_class(false);
	for (struct watched *w = watch.list; w && sleeps; w = w->next)
		sleeps = watched_sleeps(w);
	pthread_mutex_unlock(&watch.lock);
	return sleeps;
}

void sched_settle(void)
{
	static const struct timespec pause = {.tv_nsec = 1000000};

	/* Twice: the last that one of them did may have been something for another. */
	for (unsigned ms = 0, asleep = 0; ms < SCHED_SETTLE_MS && asleep < 2; ms++) {
		asleep = watch_sleeps() ? asleep + 1 : 0;
		nanosleep(&pause, NULL);
	}
}
