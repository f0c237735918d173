/*
 * The notify thread. Each round takes what is queued, enters it in the ledger, tells the owners,
 * and last moves the poison log's tail.
 *
 * What a crash leaves, step by step, for a failure:
 *   known set, poison log entry     -> next mount reads the log before anything else: known; queued
 * again by notify_create() badblocks, lost, quarantine     -> (one transaction per piece) in the
 * trees, and in the log still: queued again, found in the ledger already, no second event. Pieces
 * not reached are entered then, under a new cause events                          -> who was not
 * told finds it in `damaged`; metadata is repaired at the next mount tail in the root block -> the
 * log's entries no longer count; their slots are used again only after this is durable and for a
 * range that is good again: content written, drained        -> still called bad: EIO until it is
 * written again CLEARED entry                   -> the next mount takes it out of the trees trees
 * -> out of both; the entry, if the tail has not passed it, finds nothing to do known set -> DRAM
 * only, last, under notify->lock, and not where something failed again since
 */
#include <errno.h>
#include <string.h>

#include "notify/internal.h"
#include "util/log.h"

static bool notify_has_work(const struct notify *notify)
{
	return notify->handled < notify->submitted;
}

/* The lock is held. */
static void notify_take(struct notify *notify, struct work *work)
{
	queue_take(&notify->queue, &work->batch, &work->overflow_source);
	memcpy(work->bad_copies, notify->bad_copies,
	       notify->count_bad_copies * sizeof(work->bad_copies[0]));
	work->count_bad_copies = notify->count_bad_copies;
	notify->count_bad_copies = 0;
	work->is_host_full = notify->is_host_full;
	work->host_full_offset = notify->host_full_offset;
	work->is_gone = notify->is_gone;
	notify->is_host_full = false;
	notify->is_gone = false;
	work->is_list_changed = notify->is_list_changed;
	notify->is_list_changed = false;
	work->is_health_changed = notify->is_health_changed;
	notify->is_health_changed = false;
	work->submitted = notify->submitted;
	work->tail = poison_log_next_sequence(notify->setup.log);
	notify->batch = &work->batch;
}

static bool notify_is_stopping(struct notify *notify)
{
	bool is_stopping;

	pthread_mutex_lock(&notify->lock);
	is_stopping = notify->is_stopping;
	pthread_mutex_unlock(&notify->lock);
	return is_stopping;
}

/* What did not get into the trees must stay in the log: the tail does not move any more. */
static int notify_handle_range(struct notify *notify, const struct iset_range *range)
{
	if (notify_is_stopping(notify))
		return -EINTR;
	switch (queue_tag_state(range->tag)) {
	case BADBLOCK_CLEARED:
		return notify_clear_range(notify, range->start, range->end);
	case BADBLOCK_SUSPECT:
		return notify_narrow_range(notify, range->start, range->end);
	default:
		return notify_fail_range(notify, range->start, range->end, range->tag);
	}
}

static void notify_handle_batch(struct notify *notify, const struct work *work)
{
	notify->logged = 0;
	for (size_t i = 0; i < work->batch.count; i++)
		if (notify_handle_range(notify, &work->batch.ranges[i]))
			notify->tail_is_held = true;
	if (notify->logged > LOGGED_PER_ROUND)
		log_warning("%u media failures in one round", notify->logged);
}

void notify_shutdown(struct notify *notify, const char *reason, const struct event *cause)
{
	const struct event event = {.type = EVENT_SHUTDOWN, .reasons = reason};
	const bool is_first = !notify->is_shut_down;

	notify->is_shut_down = true;
	/* Who hears of it finds that nothing changes any more. */
	if (is_first)
		notify->setup.ops->shutdown(notify->setup.holder, reason);
	if (cause)
		event_publish(notify->setup.events, cause);
	if (is_first)
		event_publish(notify->setup.events, &event);
}

static void notify_handle_special(struct notify *notify, const struct work *work)
{
	const struct notify_setup *setup = &notify->setup;
	const struct event event = {
	    .type = EVENT_HOST_FULL, .device_offset = work->host_full_offset, .error = ENOSPC};

	if (work->is_host_full)
		event_publish(setup->events, &event);
	if (work->is_gone)
		notify_shutdown(notify, "device_removed", NULL);
	if (work->is_list_changed)
		notify_read_list(notify);
	if (work->is_health_changed)
		notify_read_health(notify);
	for (size_t i = 0; i < work->count_bad_copies; i++)
		notify_repair_copy(notify, &work->bad_copies[i]);
}

static int notify_store_counters(struct notify *notify, struct tx *tx, uint64_t tail)
{
	int rc = root_set(tx, ROOT_SIGBUS, atomic_load(&notify->sigbus_count));

	if (rc == 0 && !notify->tail_is_held)
		rc = root_set(tx, ROOT_POISON_LOG_TAIL, tail);
	return rc;
}

static bool notify_counters_are_stored(struct notify *notify, uint64_t tail)
{
	bool are_stored;

	journal_read_begin(notify->journal);
	are_stored =
	    root_get(notify->journal, ROOT_SIGBUS) == atomic_load(&notify->sigbus_count) &&
	    (notify->tail_is_held || root_get(notify->journal, ROOT_POISON_LOG_TAIL) >= tail);
	journal_read_end(notify->journal);
	return are_stored;
}

static void notify_move_tail(struct notify *notify, uint64_t tail)
{
	uint64_t sequence;
	struct tx *tx;

	if (notify_counters_are_stored(notify, tail) ||
	    notify->setup.ops->tx_begin(notify->setup.holder, &tx))
		return;
	if (tx_end(tx, notify_store_counters(notify, tx, tail), &sequence) == 0 && !notify->tail_is_held) {
		notify->trim_to = tail;
		notify->trim_sequence = sequence;
	}
}

/* Slots below the tail may be used again when the tail is durable. An msync of everything is worth
 * it only when slots run short. */
static void notify_trim(struct notify *notify)
{
	if (notify->trim_to == 0)
		return;
	if (!tx_is_durable(notify->journal, notify->trim_sequence))
		if (!poison_log_wants_trim(notify->setup.log) || journal_sync(notify->journal))
			return;
	poison_log_trim(notify->setup.log, notify->trim_to);
	notify->trim_to = 0;
}

static void notify_round(struct notify *notify, struct work *work)
{
	notify_handle_special(notify, work);
	notify_handle_batch(notify, work);
	if (work->overflow_source && notify_adopt_unannounced(notify, work->overflow_source))
		notify->tail_is_held = true;
	notify_move_tail(notify, work->tail);
	notify_trim(notify);
	/* The first round has what mount found. */
	event_bus_settle(notify->setup.events);
}

/* One round; the lock is held on entry and return. */
static void notify_run_once(struct notify *notify, struct work *work)
{
	notify_take(notify, work);
	pthread_mutex_unlock(&notify->lock);
	if (!notify->setup.passive)
		notify_round(notify, work);
	pthread_mutex_lock(&notify->lock);
	notify->batch = NULL;
	notify->handled = work->submitted;
	iset_fini(&work->batch);
	pthread_cond_broadcast(&notify->progress);
}

/* Before what is known to be bad is repaired, which says of each block that it is good again. */
static void notify_catch_up(struct notify *notify)
{
	if (journal_is_readonly(notify->journal))
		return;
	pthread_mutex_lock(&notify->lock);
	poison_log_catch_up(notify->setup.log);
	pthread_mutex_unlock(&notify->lock);
}

void *notify_main(void *arg)
{
	struct notify *notify = arg;
	struct work work;

	if (!notify->setup.passive) {
		notify_catch_up(notify);
		notify_repair_known(notify);
	}
	pthread_mutex_lock(&notify->lock);
	while (!notify->is_stopping) {
		if (notify_has_work(notify))
			notify_run_once(notify, &work);
		else
			pthread_cond_wait(&notify->wake, &notify->lock);
	}
	pthread_mutex_unlock(&notify->lock);
	return NULL;
}
