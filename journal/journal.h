/*
 * The metadata store: checked DRAM buffers of metadata blocks, transactions over them, the redo log that makes a
 * transaction one effect, write-back to both copies, recovery. Files of this folder, each with its own header:
 *   chunk   logical metadata address -> the two device places; allocation of single blocks within chunks
 *   buf     the bounded cache of metadata blocks; reads check both copies
 *   tx      begin, join, commit, abort
 *   beside  transactions that run side by side
 *   log     the ring of records
 *   checkpoint  write-back of dirty buffers, then the tail moves
 *   recover the log into DRAM
 *   root    tree roots and counters
 *
 * Locking: one writer at a time (tx_begin .. tx_commit/abort reserves the metadata lock, a gate), or several that agree block by block (tx_begin_beside); readers hold it shared between
 * journal_read_begin/end. A transaction changes copies of its own: its thread sees them, readers see what was committed, all of it as of one
 * moment, until the commit keeps them out for the moment in which the copies take the place of the old bytes, after they are durable. What
 * fs/ has in DRAM may be ahead of what readers see in the trees. A thread that holds the lock shared must not call tx_begin, nor take it shared again
 * (a waiting writer goes first).
 * Order: inode locks -> the metadata lock -> everything in here -> media. The caller never waits for a request of the kernel
 * while it holds it.
 */
#ifndef JOURNAL_JOURNAL_H
#define JOURNAL_JOURNAL_H

#include "format/super_format.h"
#include "media/media.h"

struct journal;
struct journal_salvage;
struct tx;

/* Called (any thread, any lock held) when a copy of a metadata block was found unusable for a reason other than poison, which media/
 * reports itself: wrong checksum or older sequence; also when there is no whole one, at each reading. The handler queues; the repair is journal_repair(), later. */
typedef void journal_bad_copy_fn(void *arg, maddr_t address, unsigned copy, devoff_t offset, const char *reason);
/* Called (metadata lock held) when a write-back, a repair or a new chunk cleared the poison of a block at offset (4096 bytes) and what it stored there is durable, but may be had from
 * the log yet. The handler makes durable that the range is good: who reads it as bad once the tail has moved has lost it. */
typedef void journal_cleared_fn(void *arg, devoff_t offset);

struct journal_options {
	bool readonly;	      /* recover into DRAM, never write; the cache may grow beyond cache_bytes by the recovered set */
	bool is_new;	      /* mkfs: formatted just now, so that no record of this filesystem can lie anywhere, and the ring need not be read */
	uint64_t cache_bytes; /* 0: 1/64 of RAM */
	struct journal_salvage *salvage; /* fsck only: journal/salvage.h; NULL else */
};

/* What recovery found; for messages, fsck and events. */
struct journal_recovery {
	uint64_t records; /* replayed */
	uint64_t discarded; /* written but never made durable before a host crash (PAGE media, another boot) */
	bool hole;	  /* an invalid record where a valid one must have been: stopped there, the filesystem must stay read-only */
	uint64_t lost;	  /* blocks with changes in the log and no whole copy at home: read-only, and the log is kept as it is */
};

/*
 * Open over a superblock already verified. Reads the heads, replays into DRAM and, unless readonly or a hole was found, makes both
 * log copies equal, writes everything home and starts a new epoch. 0; -EIO / -EUCLEAN (both heads gone, root block gone: `why` says it).
 */
int journal_open(struct media *media, const struct super *super, const struct journal_options *options, struct why *why,
		 struct journal **out);
/* Checkpoint (unless readonly or shut down) and free. Its error means that the next mount replays. */
int journal_close(struct journal *journal);
/* mkfs: write empty heads, root block and chunk header of the first chunk pair, so that journal_open() works. Media must be drained
 * by the caller's media_sync(). first[] are device bytes of the first chunk's copies, of 1 << super->chunk_shift bytes. */
int journal_format(struct media *media, const struct super *super, const devoff_t first[2]);

const struct journal_recovery *journal_recovery(const struct journal *journal);
struct media *journal_media(const struct journal *journal);
const struct super *journal_super(const struct journal *journal);
/* By fsck, alone: the trees are written as this format version has them from now on. */
void journal_set_version(struct journal *journal, uint32_t version);
void journal_set_bad_copy_handler(struct journal *journal, journal_bad_copy_fn *handler, void *arg);
void journal_set_cleared_handler(struct journal *journal, journal_cleared_fn *handler, void *arg);

void journal_read_begin(struct journal *journal);
void journal_read_end(struct journal *journal);

/* Everything committed before is durable on return on every medium (fsync, commit= timer). 0, or an error that is sticky. */
int journal_sync(struct journal *journal);
/* Write all dirty buffers home (primary, drain, replica, drain), move the tail. Takes the metadata lock. */
int journal_checkpoint(struct journal *journal);
/* Is a checkpoint worth doing in the background (ring or cache half full)? */
bool journal_wants_checkpoint(const struct journal *journal);

/* No transaction commits from now on (-EROFS from tx_begin), reads go on. Used by shutdown and when metadata is lost. */
void journal_shutdown(struct journal *journal);
/* The same, between two transactions: none is open on return. Takes the metadata lock. */
void journal_stop(struct journal *journal);
bool journal_is_readonly(const struct journal *journal); /* opened so, hole, or shut down */

/*
 * Rewrite the copies of one metadata block from its whole copy or the buffer. Clears poison under a bad copy first (media_clear).
 * 0: both copies are equal and whole, *repaired says which copies (bit 0, bit 1) were rewritten (0: nothing to do or not in use);
 * -EIO: both are gone; -ENOTSUP: the medium cannot clear, the block goes on with one copy; -EROFS: opened read-only. Works after
 * journal_shutdown(). Takes the metadata lock.
 */
int journal_repair(struct journal *journal, maddr_t address, unsigned *repaired);

struct journal_counts {
	uint64_t transactions, records, record_bytes, checkpoints, written_back_blocks, ring_bytes, ring_used;
	uint64_t cache_hits, cache_misses, cache_bytes;
};
void journal_counts(const struct journal *journal, struct journal_counts *out);
/* Grows with every change, when it is logged and when it can be seen: while it stays the same, nobody sees any metadata change. */
uint64_t journal_changes(const struct journal *journal);

#endif
