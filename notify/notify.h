/*
 * The failure pipeline: source -> device range -> coalescing queue -> poison log and ledger -> reverse map -> one action per
 * owner through the holder's ops -> events. Every step takes ranges. The ledger is two trees: badblocks (the medium) and lost
 * (the content); media/ keeps their union in DRAM as the known set.
 */
#ifndef NOTIFY_NOTIFY_H
#define NOTIFY_NOTIFY_H

#include "alloc/alloc.h"
#include "notify/event.h"
#include "notify/poison_log.h"
#include "notify/source.h"
#include "rmap/rmap.h"

struct notify;

/* One contiguous range of one file is hit. */
struct notify_file_failure {
	uint64_t cause_id;
	devoff_t device_offset;
	inum_t ino;
	uint64_t pos; /* bytes */
	uint64_t length_bytes;
	uint64_t sharers; /* owners of the cause */
};

/* Filled in by fs/. Called by the notify thread, no lock held. */
struct notify_holder_ops {
	/*
	 * Drop the kernel's and our own cached pages of it and fill generation and paths (malloc'ed) for the event; clip pos, len and bytes_lost of the
	 * event to the end of file. 0; 1: nothing of it can be seen through the file (wholly past its end), no event; or errno: logged, no event.
	 */
	int (*file_failure)(void *holder, const struct notify_file_failure *failure, struct event *event);
	/* A metadata block's copy is bad: repair. *event gets action, and type METADATA_REPAIRED or METADATA_LOST, then with a report if there is memory for it. */
	int (*metadata_failure)(void *holder, maddr_t address, unsigned copy, devoff_t offset, struct event *event);
	/* A superblock slot is hit: write it anew from another. *event as for metadata. */
	int (*super_failure)(void *holder, unsigned slot, struct event *event);
	/* Every owner has been told of this cause. */
	void (*failure_done)(void *holder, uint64_t cause_id);
	/* The filesystem must stop changing anything. */
	void (*shutdown)(void *holder, const char *reason);
	/* tx_begin of the holder (keeps metadata space in reserve). */
	int (*tx_begin)(void *holder, struct tx **tx);
};

/* What a source knew to be bad before anything was read (kernel badblocks, IMAGE.poison without its latent ranges). */
struct notify_known {
	devoff_t offset;
	uint64_t length;
	enum failure_source source;
};

struct notify_setup {
	struct journal *journal;
	struct rmap *rmap;
	struct alloc *alloc;
	struct poison_log *log;
	struct event_bus *events;
	const struct notify_holder_ops *ops;
	void *holder;
	const struct notify_known *known; /* all that fs/mount added to the known set from sources; may be NULL */
	size_t count_known;
	uint64_t count_consumed; /* units of poison that the mount ran into so far */
	bool starts_late; /* no thread before there is something to handle: for tools, which mount often and briefly */
	bool passive; /* fsck: what is met goes to the known set and the poison log, never to the trees, which may be under repair */
};

/*
 * Load the ledger's trees into the known set, register as media's fault handler and the journal's bad-copy handler, then start the thread, which moves
 * what the poison log has into the trees. What setup->known lists, or media/ found bad before this call, and the ledger does not have yet, is reported:
 * poison that existed before the mount is announced once, ever. When the journal is readonly failures are kept in DRAM only; events still flow.
 * The holder must be ready to serve its ops: they may be called before this returns (*out is set by then). Ledger trees that cannot be read
 * are no error: the filesystem becomes read-only (ops->shutdown).
 */
int notify_create(const struct notify_setup *setup, struct notify **out);
/*
 * For a mount that lasts: hear, from now on, of memory that failed untouched. The kernel's list of bad blocks wakes us when it changes (libndctl),
 * and action-optional errors reach a thread of ours that asked for them. Once. 0, or why it is not to be had: the mount works without. Ends with
 * notify_destroy().
 */
int notify_watch(struct notify *notify);
/* Handles what is queued (bounded by 5 s), then waits for the thread's end: no op of the holder may wait for ever by now. */
void notify_destroy(struct notify *notify);

/*
 * Report a failed range; any thread, any lock. Enters the known set and the poison log before it returns; the rest follows on the notify thread.
 * A range already known makes no second event. 0, -ERANGE (outside the device; clipped otherwise). (0, UINT64_MAX) is the loss of the device.
 */
int notify_report(struct notify *notify, devoff_t offset, uint64_t length, enum failure_source source);
/*
 * As notify_report() for what may be in the known set already without having been announced: whatever of the range the ledger does not have. Reads
 * the trees: no lock may be held.
 */
int notify_adopt(struct notify *notify, devoff_t offset, uint64_t length, enum failure_source source);
/* Wait until all that was reported before is handled; tests and inject use it. 0, -ETIMEDOUT. */
int notify_wait(struct notify *notify, unsigned timeout_ms);

/* Read the kernel's list of bad blocks now, report what is new on it, and end the quarantine of what is good again; notify_wait() waits for that. */
void notify_refresh(struct notify *notify);

/* Inject (arms via media/, then reports unless latent) and take back. Ranges exactly as given. */
int notify_inject(struct notify *notify, devoff_t offset, uint64_t length, bool latent);
/* Disarm, take the sectors out of badblocks and lost, give their quarantine back to free space; UNINJECTED event. *removed_bytes: how much was armed. */
int notify_uninject(struct notify *notify, devoff_t offset, uint64_t length, uint64_t *removed_bytes);

/* --- the ledger, for fs/ (inside its transactions; beside others -EAGAIN where the ledger would change) ---------------------------------------------------------------------- */

/* Content of the range was written anew by this transaction's owner after media_clear() succeeded: out of badblocks and lost (and of the known
 * set at commit, with a CLEARED poison-log entry first). */
int ledger_cleared(struct notify *notify, struct tx *tx, devoff_t offset, uint64_t length);
/*
 * The blocks are being freed: give the good ones to alloc, keep those with badblocks as OWNER_QUARANTINE in rmap; `lost` of all of it ends. Use this
 * instead of alloc_give() for everything that held data. The caller has removed its own rmap records, and nobody else owns the blocks.
 */
int ledger_free_blocks(struct notify *notify, struct tx *tx, blkno_t start, uint64_t count);
/* In order of offset. Takes the metadata lock shared by itself; visitors run without it. Includes what a readonly mount knows in DRAM only. */
int ledger_walk_badblocks(struct notify *notify, int (*visit)(void *arg, const struct badblock_record *record), void *arg);
int ledger_walk_lost(struct notify *notify, int (*visit)(void *arg, const struct lost_record *record), void *arg);
uint64_t ledger_sigbus_count(struct notify *notify); /* over all mounts */
/* The trees themselves, for checks that hold the metadata lock already. */
const struct btree *ledger_badblocks_tree(const struct notify *notify);
const struct btree *ledger_lost_tree(const struct notify *notify);

#endif
