#include "notify/notify.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "notify/internal.h"
#include "util/log.h"

#define DESTROY_WAIT_MS 5000u

uint64_t notify_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* --- the way in --- */

/* The lock is held. */
static int notify_start(struct notify *notify)
{
	sigset_t all, old;
	int rc;

	if (notify->is_running)
		return 0;
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&notify->thread, NULL, notify_main, notify);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	notify->is_running = rc == 0;
	return -rc;
}

static void notify_submit(struct notify *notify)
{
	notify->submitted++;
	/* Without a thread the poison log keeps it for the next mount; the next failure tries again. */
	if (notify->is_loaded && !notify->is_stopping && notify_start(notify))
		log_warning("no thread can be started: failures are not handled");
	pthread_cond_signal(&notify->wake);
}

/*
 * The poison log comes first: once it has the entry, a crash at any later point leaves the range
 * known (or, for CLEARED, good) at the next mount. A full log is not waited for here, where any
 * lock may be held: the known set has the range, the thread enters it in the trees, and only a
 * crash in between forgets it.
 */
void notify_log(struct notify *notify, devoff_t start, devoff_t end, enum badblock_state state,
		enum failure_source source)
{
	struct poison_entry entry = {
	    .offset = start,
	    .length_bytes = end - start,
	    .time_ns = notify_now_ns(),
	    .state = (uint8_t)state,
	    .source = (uint8_t)source,
	};
	const int rc = poison_log_append(notify->setup.log, &entry);

	if (rc == 0 || rc == -EROFS || notify->append_warned)
		return;
	notify->append_warned = true;
	log_warning("poison log: cannot append (%s); a crash now may forget that %llu+%llu is %s",
		    rc == -ENOSPC ? "full" : "no slot can be written", (unsigned long long)start,
		    (unsigned long long)(end - start), badblock_state_name(state));
}

int notify_enter(struct notify *notify, devoff_t start, devoff_t end, enum badblock_state state,
		 enum failure_source source)
{
	int rc;

	notify_log(notify, start, end, state, source);
	rc = queue_push(&notify->queue, start, end, state, source);
	if (rc == 0)
		notify_submit(notify);
	return rc;
}

void notify_unknow(struct notify *notify, devoff_t start, devoff_t end)
{
	while (start < end) {
		struct iset_range queued = {.start = end}, taken = {.start = end};
		struct iset_range *first = &queued;

		if (!queue_find_failed(&notify->queue.ranges, start, end, &queued))
			queued.start = queued.end = end;
		if (!notify->batch || !queue_find_failed(notify->batch, start, end, &taken))
			taken.start = taken.end = end;
		if (taken.start < queued.start)
			first = &taken;
		if (first->start > start &&
		    media_bad_remove(notify->media, start, first->start - start))
			log_warning("%llu+%llu stays known as bad until the next mount",
				    (unsigned long long)start,
				    (unsigned long long)(first->start - start));
		start = first->end;
	}
}

/* Clip to the device and round to sectors. */
int notify_clip(const struct notify *notify, devoff_t offset, uint64_t length, devoff_t *start,
		devoff_t *end)
{
	const uint64_t size = media_size(notify->media);

	if (offset >= size || length == 0)
		return -ERANGE;
	*start = round_down_u64(offset, SECTOR_BYTES);
	*end = length > size - offset ? size : round_up_u64(offset + length, SECTOR_BYTES);
	return 0;
}

void notify_enter_list(struct notify *notify)
{
	pthread_mutex_lock(&notify->lock);
	notify->is_list_changed = true;
	notify_submit(notify);
	pthread_mutex_unlock(&notify->lock);
}

void notify_enter_health(struct notify *notify)
{
	pthread_mutex_lock(&notify->lock);
	notify->is_health_changed = true;
	notify_submit(notify);
	pthread_mutex_unlock(&notify->lock);
}

void notify_suspect(struct notify *notify, devoff_t offset, uint64_t length)
{
	devoff_t start = 0, end = 0;

	if (notify_clip(notify, offset, length, &start, &end))
		return;
	pthread_mutex_lock(&notify->lock);
	while (start < end) {
		devoff_t bad = end;
		uint64_t bad_length = 0;

		if (!media_bad_find(notify->media, start, end - start, &bad, &bad_length))
			bad = end;
		/* Not into the poison log: that is a store to the medium, and tells nothing exact. */
		if (bad > start)
			queue_push(&notify->queue, start, bad, BADBLOCK_SUSPECT, FAILURE_KERNEL);
		start = bad + bad_length;
	}
	notify_submit(notify);
	pthread_mutex_unlock(&notify->lock);
}

static int notify_report_unknown(struct notify *notify, devoff_t start, devoff_t end,
				 enum failure_source source)
{
	while (start < end) {
		devoff_t bad = end, next = end;
		uint64_t length;
		int rc;

		if (media_bad_find(notify->media, start, end - start, &bad, &length))
			next = bad + length;
		if (bad > start) {
			rc = media_bad_add(notify->media, start, bad - start);
			if (rc)
				return rc;
			notify_enter(notify, start, bad, BADBLOCK_BAD, source);
		}
		start = next;
	}
	return 0;
}

int notify_report(struct notify *notify, devoff_t offset, uint64_t length,
		  enum failure_source source)
{
	devoff_t start, end;
	int rc;

	pthread_mutex_lock(&notify->lock);
	if (offset == 0 && length == UINT64_MAX) {
		notify->is_gone = true;
		notify_submit(notify);
		pthread_mutex_unlock(&notify->lock);
		return 0;
	}
	rc = notify_clip(notify, offset, length, &start, &end);
	if (rc == 0)
		rc = notify_report_unknown(notify, start, end, source);
	pthread_mutex_unlock(&notify->lock);
	return rc;
}

/* A round is due, if only for the counters. */
static void notify_store_soon(struct notify *notify)
{
	const bool is_locked = poison_log_is_appending();

	if (!is_locked)
		pthread_mutex_lock(&notify->lock);
	notify_submit(notify);
	if (!is_locked)
		pthread_mutex_unlock(&notify->lock);
}

static void notify_fault_range(struct notify *notify, const struct media_fault *fault)
{
	const bool is_missing = fault->kind == MEDIA_FAULT_MISSING;
	const enum badblock_state state =
	    fault->kind == MEDIA_FAULT_SUSPECT ? BADBLOCK_SUSPECT : BADBLOCK_BAD;
	const enum failure_source source = is_missing ? FAILURE_KERNEL : FAILURE_SIGBUS;
	devoff_t start, end;

	if (fault->kind == MEDIA_FAULT_POISON)
		atomic_fetch_add(&notify->sigbus_count, 1);
	if (fault->is_known) {
		notify_store_soon(notify);
		return;
	}
	if (notify_clip(notify, fault->offset, fault->length, &start, &end))
		return;
	if (poison_log_is_appending()) {
		/* The store of an entry met it: this thread is in notify_enter() and holds the lock
		 * already; the entry goes to the other copy. */
		queue_push(&notify->queue, start, end, state, source);
		notify_submit(notify);
		return;
	}
	pthread_mutex_lock(&notify->lock);
	notify_enter(notify, start, end, state, source);
	pthread_mutex_unlock(&notify->lock);
}

/* media/ has the range in the known set already and tells each one once. */
static void notify_on_fault(void *arg, const struct media_fault *fault)
{
	struct notify *notify = arg;
	const bool is_locked = poison_log_is_appending();

	if (fault->kind != MEDIA_FAULT_GONE && fault->kind != MEDIA_FAULT_HOST_FULL) {
		notify_fault_range(notify, fault);
		return;
	}
	if (!is_locked)
		pthread_mutex_lock(&notify->lock);
	if (fault->kind == MEDIA_FAULT_GONE)
		notify->is_gone = true;
	else
		notify->is_host_full = true;
	notify->host_full_offset = fault->offset;
	notify_submit(notify);
	if (!is_locked)
		pthread_mutex_unlock(&notify->lock);
}

/* Beyond a number nobody would read it. The lock is held. */
static bool loss_is_told(const struct notify *notify, maddr_t address)
{
	for (size_t i = 0; i < notify->count_lost; i++)
		if (notify->lost[i] == address)
			return true;
	return notify->count_lost == LOST_BLOCKS_TOLD;
}

bool notify_knows_lost(struct notify *notify, maddr_t address)
{
	bool knows;

	pthread_mutex_lock(&notify->lock);
	knows = loss_is_told(notify, address);
	pthread_mutex_unlock(&notify->lock);
	return knows;
}

void notify_note_lost(struct notify *notify, maddr_t address)
{
	pthread_mutex_lock(&notify->lock);
	if (!loss_is_told(notify, address))
		notify->lost[notify->count_lost++] = address;
	pthread_mutex_unlock(&notify->lock);
}

static void notify_on_bad_copy(void *arg, maddr_t address, unsigned copy, devoff_t offset,
			       const char *reason)
{
	struct notify *notify = arg;

	pthread_mutex_lock(&notify->lock);
	for (size_t i = 0; i < notify->count_bad_copies; i++)
		if (notify->bad_copies[i].address == address && notify->bad_copies[i].copy == copy)
			goto out;
	/* What finds no room is met again by the next read of it. */
	if (notify->count_bad_copies == BAD_COPIES_MAX || loss_is_told(notify, address))
		goto out;
	log_warning("metadata block %llu: %s copy is unusable (%s), to be repaired",
		    (unsigned long long)address, copy ? "replica" : "primary", reason);
	notify->bad_copies[notify->count_bad_copies++] = (struct bad_copy){address, copy, offset};
	notify_submit(notify);
out:
	pthread_mutex_unlock(&notify->lock);
}

/*
 * Poison in both copies of a block that nobody used is cleared when the block is first written home. Until the thread has been told, the log calls both copies
 * bad, and after a crash a good block could not be read.
 */
static void notify_on_cleared(void *arg, devoff_t offset)
{
	struct notify *notify = arg;

	pthread_mutex_lock(&notify->lock);
	notify_log(notify, offset, offset + BLOCK_BYTES, BADBLOCK_CLEARED, FAILURE_CONTROL);
	pthread_mutex_unlock(&notify->lock);
}

/* --- life --- */

static struct notify *notify_alloc(const struct notify_setup *setup)
{
	struct notify *notify = calloc(1, sizeof(*notify));
	pthread_condattr_t monotonic;

	if (!notify)
		return NULL;
	notify->setup = *setup;
	notify->journal = setup->journal;
	notify->media = journal_media(setup->journal);
	ledger_init(&notify->ledger, setup->journal, setup->rmap, setup->alloc);
	queue_init(&notify->queue, QUEUE_RANGES_MAX);
	iset_init(&notify->listed);
	iset_init(&notify->unlisted);
	pthread_mutex_init(&notify->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&notify->wake, &monotonic);
	pthread_cond_init(&notify->progress, &monotonic);
	pthread_condattr_destroy(&monotonic);
	return notify;
}

static void notify_free(struct notify *notify)
{
	media_set_fault_handler(notify->media, NULL, NULL);
	journal_set_bad_copy_handler(notify->journal, NULL, NULL);
	journal_set_cleared_handler(notify->journal, NULL, NULL);
	queue_fini(&notify->queue);
	iset_fini(&notify->listed);
	iset_fini(&notify->unlisted);
	overlay_fini(&notify->overlay);
	pthread_cond_destroy(&notify->wake);
	pthread_cond_destroy(&notify->progress);
	pthread_mutex_destroy(&notify->lock);
	free(notify);
}

/* The one round that is due in any case has nothing to do. */
static bool notify_may_start_late(struct notify *notify)
{
	if (!notify->setup.starts_late || notify->submitted > 1 || media_bad_any(notify->media))
		return false;
	notify->handled = notify->submitted;
	event_bus_settle(notify->setup.events);
	return true;
}

int notify_create(const struct notify_setup *setup, struct notify **out)
{
	struct notify *const before = *out;
	struct notify *notify = notify_alloc(setup);
	int rc;

	if (!notify)
		return -ENOMEM;
	media_set_fault_handler(notify->media, notify_on_fault, notify);
	journal_set_bad_copy_handler(notify->journal, notify_on_bad_copy, notify);
	journal_set_cleared_handler(notify->journal, notify_on_cleared, notify);
	rc = notify_load(notify);
	notify->setup.known = NULL;
	notify->setup.count_known = 0;
	if (rc)
		goto err;
	/* The thread's calls into the holder may come back here through it. */
	*out = notify;
	pthread_mutex_lock(&notify->lock);
	notify->is_loaded = true;
	rc = notify_may_start_late(notify) ? 0 : notify_start(notify);
	pthread_mutex_unlock(&notify->lock);
	if (rc)
		goto err;
	return 0;
err:
	*out = before;
	notify_free(notify);
	return rc;
}

static void deadline_in(struct timespec *at, unsigned ms)
{
	clock_gettime(CLOCK_MONOTONIC, at);
	at->tv_sec += ms / 1000;
	at->tv_nsec += (long)(ms % 1000) * 1000000;
	if (at->tv_nsec >= 1000000000) {
		at->tv_sec++;
		at->tv_nsec -= 1000000000;
	}
}

void notify_refresh(struct notify *notify)
{
	notify_enter_list(notify);
}

int notify_wait(struct notify *notify, unsigned timeout_ms)
{
	struct timespec at;
	uint64_t wanted;
	int rc = 0;

	deadline_in(&at, timeout_ms);
	pthread_mutex_lock(&notify->lock);
	wanted = notify->submitted;
	while (notify->handled < wanted && rc == 0)
		rc = pthread_cond_timedwait(&notify->progress, &notify->lock, &at);
	rc = notify->handled < wanted ? -ETIMEDOUT : 0;
	pthread_mutex_unlock(&notify->lock);
	return rc;
}

/* What the thread still does ends by itself: the holder has cut whatever an op of its could wait for. */
static void notify_stop(struct notify *notify)
{
	pthread_mutex_lock(&notify->lock);
	notify->is_stopping = true;
	pthread_cond_signal(&notify->wake);
	pthread_mutex_unlock(&notify->lock);
	if (notify->is_running)
		pthread_join(notify->thread, NULL);
}

void notify_destroy(struct notify *notify)
{
	if (!notify)
		return;
	watch_stop(notify->watch);
	if (notify_wait(notify, DESTROY_WAIT_MS))
		log_warning("failures are still being handled: the poison log keeps them for the "
			    "next mount");
	notify_stop(notify);
	notify_free(notify);
}
