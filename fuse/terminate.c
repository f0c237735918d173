#include "fuse/terminate.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "fuse/sched.h"
#include "util/log.h"

#define NUDGE_NS 50000000

static struct {
	struct fuse_session *session;
	const char *mountpoint;
	void (*settle)(void *arg);
	void *settle_arg;
	pthread_t loop, thread;
	sigset_t signals;
	sem_t flushed;
	atomic_bool is_over;
} state;

static void nudge(int number)
{
	/* Only to end a wait of the loop's thread with EINTR. */
}

/* sync(2) on the mount sends no request of its own to a FUSE server, but writes back dirty pages. May never return: nobody waits for ever. */
static void *flush_main(void *arg)
{
	int fd = open(state.mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0) {
		if (syncfs(fd))
			log_warning("%s: not everything that was written through mappings could be saved", state.mountpoint);
		close(fd);
		/* syncfs(2) begins the writes, and does not wait for a FUSE server. */
		sched_settle();
	}
	sem_post(&state.flushed);
	return NULL;
}

/* Wait for the flush, its time limit, or a second signal. */
static void flush_wait(void)
{
	static const struct timespec pause = {.tv_nsec = NUDGE_NS};

	for (unsigned i = 0; i < TERMINATE_FLUSH_SECONDS * (1000000000u / NUDGE_NS); i++)
		if (!sem_trywait(&state.flushed) || sigtimedwait(&state.signals, NULL, &pause) > 0)
			return;
	log_warning("%s: saving what was written through mappings takes too long; going on without", state.mountpoint);
}

static void flush(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, flush_main, NULL))
		return;
	pthread_detach(thread);
	flush_wait();
}

static void *terminate_main(void *arg)
{
	static const struct timespec pause = {.tv_nsec = NUDGE_NS};
	int number;

	sigwait(&state.signals, &number);
	if (atomic_load(&state.is_over))
		return NULL;
	flush();
	state.settle(state.settle_arg);
	fuse_session_exit(state.session);
	while (!atomic_load(&state.is_over)) {
		pthread_kill(state.loop, SIGUSR1);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

int terminate_start(struct fuse_session *session, const char *mountpoint, void (*settle)(void *arg), void *settle_arg)
{
	struct sigaction action = {.sa_handler = nudge};

	state.session = session;
	state.mountpoint = mountpoint;
	state.settle = settle;
	state.settle_arg = settle_arg;
	state.loop = pthread_self();
	sem_init(&state.flushed, 0, 0);
	sigemptyset(&state.signals);
	sigaddset(&state.signals, SIGTERM);
	sigaddset(&state.signals, SIGINT);
	sigaddset(&state.signals, SIGHUP);
	sigaction(SIGUSR1, &action, NULL);
	pthread_sigmask(SIG_BLOCK, &state.signals, NULL);
	return -pthread_create(&state.thread, NULL, terminate_main, NULL);
}

void terminate_stop(void)
{
	atomic_store(&state.is_over, true);
	pthread_kill(state.thread, SIGHUP);
	pthread_join(state.thread, NULL);
}
