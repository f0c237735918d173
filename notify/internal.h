/* What the files of this folder share. Nobody else includes it. */
#ifndef NOTIFY_INTERNAL_H
#define NOTIFY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "notify/ledger.h"
#include "notify/notify.h"
#include "notify/overlay.h"
#include "notify/queue.h"

#define QUEUE_RANGES_MAX 4096
#define BAD_COPIES_MAX 256
#define LOST_BLOCKS_TOLD 64
#define LOGGED_PER_ROUND 16

/* A copy of a metadata block that is wrong without being poisoned. */
struct bad_copy {
	maddr_t address;
	unsigned copy;
	devoff_t offset;
};

/*
 * notify->lock is a leaf below the metadata lock and all of fs/: under it only the poison log and media's known set are touched, never a
 * tree, an op of the holder or the event bus.
 */
struct notify {
	struct notify_setup setup;
	struct journal *journal;
	struct media *media;
	struct ledger ledger;

	pthread_mutex_t lock;
	pthread_cond_t wake, progress;
	/* Under the lock: */
	struct queue queue;
	const struct iset *batch; /* what the thread works on */
	struct bad_copy bad_copies[BAD_COPIES_MAX];
	size_t count_bad_copies;
	maddr_t lost[LOST_BLOCKS_TOLD]; /* told to be lost without any poison: each reading of one reports it anew */
	size_t count_lost;
	devoff_t host_full_offset;
	bool is_host_full, is_gone, is_stopping, append_warned;
	bool is_list_changed; /* the kernel's, of bad blocks */
	bool is_health_changed;
	bool is_loaded;	 /* the thread may be started */
	bool is_running; /* and was */
	uint64_t submitted, handled;
	struct overlay overlay; /* failures that the trees could not take */

	_Atomic uint64_t sigbus_count; /* over all mounts; the root block follows */
	/* The thread's own: */
	uint64_t dram_cause;
	bool is_shut_down; /* and said so */
	struct iset listed, unlisted; /* what the kernel's list had when it was last read; what it had in this mount and has no longer */
	struct dimm_health told[HEALTH_DIMMS_MAX]; /* what subscribers were told last */
	size_t count_told;
	bool tail_is_held; /* something of the log is not in the trees: its entries must stay */
	unsigned logged; /* failures of this round that made a line in the log */
	uint64_t trim_to, trim_sequence;
	pthread_t thread;
	struct watch *watch; /* NULL: nobody asked for it */
};

/* A piece of work taken from the queues at once. */
struct work {
	struct iset batch;
	uint8_t overflow_source;
	struct bad_copy bad_copies[BAD_COPIES_MAX];
	size_t count_bad_copies;
	devoff_t host_full_offset;
	bool is_host_full, is_gone, is_list_changed, is_health_changed;
	uint64_t submitted;
	uint64_t tail; /* of the poison log: everything below is in this batch or was in an earlier one */
};

/* notify.c. The lock is held: write to the poison log. */
void notify_log(struct notify *notify, devoff_t start, devoff_t end, enum badblock_state state, enum failure_source source);
/* The lock is held: write to the poison log, queue, wake the thread. */
int notify_enter(struct notify *notify, devoff_t start, devoff_t end, enum badblock_state state, enum failure_source source);
/* Take the range out of the known set, but for what failed again since. The lock is held. */
void notify_unknow(struct notify *notify, devoff_t start, devoff_t end);
/* The same for the kernel's list, and for the health of DIMMs, which the thread then reads. The lock is not held. */
void notify_enter_list(struct notify *notify);
void notify_enter_health(struct notify *notify);
/*
 * Somewhere in this range memory has failed, and nobody has touched it. What is not known to be bad is queued, to be narrowed; until that is done a touch
 * of the bad line is a machine check like any other, and the good lines beside it stay in use. Touches no medium: may be called with SIGBUS blocked.
 */
void notify_suspect(struct notify *notify, devoff_t offset, uint64_t length);
/* Clip to the device and round to sectors: 0, -ERANGE. */
int notify_clip(const struct notify *notify, devoff_t offset, uint64_t length, devoff_t *start, devoff_t *end);
/* This block has no whole copy, and that has been told. Is it so? */
void notify_note_lost(struct notify *notify, maddr_t address);
bool notify_knows_lost(struct notify *notify, maddr_t address);
/* adopt.c: everything that notify_create() takes in before the thread runs. */
int notify_load(struct notify *notify);
/* Report what is in the known set, but neither in the ledger nor queued. */
int notify_adopt_unannounced(struct notify *notify, enum failure_source source);
/* ledger_fs.c: notify_unknow() when the transaction commits. */
int ledger_unknow_at_commit(struct notify *notify, struct tx *tx, devoff_t start, devoff_t end);
uint64_t notify_now_ns(void);

/* thread.c */
void *notify_main(void *arg);
/* The holder stops changing anything, and subscribers are told, once. On the thread only. */
/* The holder first, then the event that says why (or NULL), then `shutdown`, once. */
void notify_shutdown(struct notify *notify, const char *reason, const struct event *cause);
/* fail.c: one range of the queue that failed: into the ledger, then everybody is told. 0 or the error that kept it out of the trees. */
int notify_fail_range(struct notify *notify, devoff_t start, devoff_t end, uint32_t tag);
/* The next part of *start .. end that neither the ledger nor the overlay has, or cannot be asked for. -ENOENT: none. */
int notify_next_new(struct notify *notify, devoff_t start, devoff_t end, devoff_t *gap, devoff_t *gap_end);
/* narrow.c: a coarse report becomes exact: what is good leaves the known set, what is bad is reported or entered. */
int notify_narrow_range(struct notify *notify, devoff_t start, devoff_t end);
/*
 * watch.c. From these descriptors, which it takes over: struct signalfd_siginfo as signalfd() gives it, and the kernel's list or a negative number.
 */
int watch_open(struct notify *notify, int signal_fd, int list_fd);
void watch_stop(struct watch *watch);
/* What the kernel lists and nobody here knows yet is reported. On the thread only. */
void notify_read_list(struct notify *notify);
/* mended.c: quarantine ends where this list, which is known, has given up what it had. On the thread only. */
void notify_take_back(struct notify *notify, const struct source_list *list);
/* DIMMs that are in another state than subscribers know. On the thread only. */
void notify_read_health(struct notify *notify);
/* One range of the queue that is good again. */
int notify_clear_range(struct notify *notify, devoff_t start, devoff_t end);

/* A failure as it was entered, for those who must be told of it. */
struct cause {
	uint64_t id;
	devoff_t start, end;
	uint8_t source;
};
/* tell.c: media_failure, then each owner's action and event. */
void notify_tell(struct notify *notify, const struct cause *cause);
/* Repair what an earlier mount entered in the ledger and did not get to repair. */
void notify_repair_known(struct notify *notify);
void notify_repair_copy(struct notify *notify, const struct bad_copy *copy);

#endif
