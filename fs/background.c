#include "fs/background.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/metaspace.h"
#include "fs/orphan.h"
#include "fs/table.h"
#include "util/log.h"

#define LINGER_NS 5000000

struct background {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool kicked, stopping;
	unsigned period_seconds;
	/* Private to the thread: what the last sync had seen. */
	uint64_t synced_transactions, synced_writes;
	int told_error;
};

static uint64_t count_transactions(struct fs *fs)
{
	struct journal_counts counts;

	journal_counts(fs->journal, &counts);
	return counts.transactions;
}

static uint64_t count_writes(struct fs *fs)
{
	struct media_counts counts;

	media_counts(fs->media, &counts);
	return counts.writes;
}

/* An idle filesystem is not written to. */
static void background_sync(struct fs *fs, struct background *background)
{
	uint64_t transactions = count_transactions(fs);
	int error;

	if (transactions == background->synced_transactions &&
	    count_writes(fs) == background->synced_writes)
		return;
	error = journal_sync(fs->journal);
	if (error && error != background->told_error)
		log_error("what was written can no longer be made durable: %s", strerror(-error));
	background->told_error = error;
	background->synced_transactions = transactions;
	background->synced_writes = count_writes(fs);
}

static void background_tick(struct fs *fs, struct background *background)
{
	if (fs_is_readonly(fs))
		return;
	inode_flush_all(fs);
	background_sync(fs, background);
	metaspace_shrink(fs);
}

static void background_work(struct fs *fs)
{
	int error = 0;

	if (fs_is_readonly(fs))
		return;
	orphan_reclaim_older(fs);
	if (inode_has_reclaim(fs))
		background_kick(fs);
	if (journal_wants_checkpoint(fs->journal))
		error = journal_checkpoint(fs->journal);
	if (error && error != -EROFS)
		log_error("checkpoint: %s", strerror(-error));
}

static void deadline_after(struct timespec *deadline, unsigned seconds)
{
	clock_gettime(CLOCK_MONOTONIC, deadline);
	deadline->tv_sec += seconds;
}

/* Waits for a kick or the deadline. A kick stays set until background_linger(). */
static void background_wait(struct background *background, const struct timespec *deadline, bool *stop)
{
	int error = 0;

	pthread_mutex_lock(&background->lock);
	while (!background->kicked && !background->stopping && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&background->wake, &background->lock, deadline);
	*stop = background->stopping;
	pthread_mutex_unlock(&background->lock);
}

/* What comes up within a few milliseconds is done together: fewer transactions, and nobody is kept waiting for it. */
static void background_linger(struct background *background)
{
	struct timespec deadline;
	int error = 0;

	deadline_after(&deadline, 0);
	deadline.tv_nsec += LINGER_NS;
	deadline.tv_sec += deadline.tv_nsec / 1000000000;
	deadline.tv_nsec %= 1000000000;
	pthread_mutex_lock(&background->lock);
	while (background->kicked && !background->stopping && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&background->wake, &background->lock, &deadline);
	__atomic_store_n(&background->kicked, false, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&background->lock);
}

static bool deadline_passed(const struct timespec *deadline)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > deadline->tv_sec ||
	       (now.tv_sec == deadline->tv_sec && now.tv_nsec >= deadline->tv_nsec);
}

static void *background_main(void *arg)
{
	struct fs *fs = arg;
	struct background *background = fs->background;
	struct timespec deadline;
	bool stop = false;

	orphan_reclaim_left(fs, &background->stopping);
	deadline_after(&deadline, background->period_seconds);
	while (!stop) {
		background_wait(background, &deadline, &stop);
		if (stop)
			break;
		background_linger(background);
		background_work(fs);
		if (deadline_passed(&deadline)) {
			background_tick(fs, background);
			deadline_after(&deadline, background->period_seconds);
		}
	}
	return NULL;
}

int background_start(struct fs *fs)
{
	struct background *background = calloc(1, sizeof(*background));
	pthread_condattr_t attr;
	sigset_t blocked, before;
	int error;

	if (!background)
		return -ENOMEM;
	background->period_seconds = fs->options.commit_seconds ? fs->options.commit_seconds : 1;
	pthread_mutex_init(&background->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&background->wake, &attr);
	pthread_condattr_destroy(&attr);
	fs->background = background;
	/* Signals are the daemon's to handle; SIGBUS stays, because this thread touches the media. */
	sigfillset(&blocked);
	sigdelset(&blocked, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	error = pthread_create(&background->thread, NULL, background_main, fs);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!error)
		return 0;
	fs->background = NULL;
	pthread_cond_destroy(&background->wake);
	pthread_mutex_destroy(&background->lock);
	free(background);
	return -error;
}

void background_stop(struct fs *fs)
{
	struct background *background = fs->background;

	if (!background)
		return;
	pthread_mutex_lock(&background->lock);
	__atomic_store_n(&background->stopping, true, __ATOMIC_RELAXED);
	pthread_cond_signal(&background->wake);
	pthread_mutex_unlock(&background->lock);
	pthread_join(background->thread, NULL);
}

void background_destroy(struct fs *fs)
{
	struct background *background = fs->background;

	if (!background)
		return;
	fs->background = NULL;
	pthread_cond_destroy(&background->wake);
	pthread_mutex_destroy(&background->lock);
	free(background);
}

void background_kick(struct fs *fs)
{
	struct background *background = fs->background;

	if (!background || __atomic_load_n(&background->kicked, __ATOMIC_SEQ_CST))
		return; /* whoever took it back meanwhile has yet to look what there is to do */
	pthread_mutex_lock(&background->lock);
	if (!background->kicked)
		pthread_cond_signal(&background->wake);
	__atomic_store_n(&background->kicked, true, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&background->lock);
}

void background_run_inline(struct fs *fs)
{
	if (!fs->background && inode_has_reclaim(fs) && !fs_is_readonly(fs))
		orphan_reclaim_queued(fs);
}
