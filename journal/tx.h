/*
 * Transactions. A transaction works on a copy of each block it joins; commit logs the 64-byte lines that differ and then shows them to
 * everybody, abort forgets the copies, so every error in the middle is a clean error.
 */
#ifndef JOURNAL_TX_H
#define JOURNAL_TX_H

#include "journal/buf.h"
#include "journal/journal.h"

enum tx_kind {
	TX_NORMAL,
	TX_RESERVE, /* deletes, repair, growing metadata space: may use the metadata reserve */
};

/*
 * Waits for journal space (the only place that does) and for other writers. 0; -EROFS (read-only or shut down); -EIO (sticky
 * log error). Call it with no buffer held and not under journal_read_begin().
 */
int tx_begin(struct journal *journal, enum tx_kind kind, struct tx **out);
/*
 * The same, but others that were begun so may run meanwhile. It sees blocks as copies, each from one moment, and takes a block for itself by joining it. -EDEADLK:
 * somebody else has a block, or changed one that it had looked at; -EAGAIN: it needs what only one at a time may do (another root of a tree, a block that is not in
 * the cache). The caller aborts and begins anew, after -EAGAIN by tx_begin(), as after any other error that is not the commit's: what it saw may have contradicted
 * itself. tx_commit() may answer these two as well. What the caller changes beside the trees is his to guard. -EAGAIN at once where none can run so.
 */
int tx_begin_beside(struct journal *journal, enum tx_kind kind, struct tx **out);
bool tx_is_beside(const struct tx *tx);
/* The block because of which this thread's last transaction beside others was refused by -EDEADLK; 0: none. */
maddr_t tx_met(struct journal *journal);
/* Such a block, where threads meet: the tree that it is a node of cuts it when this transaction comes through it to change something. 0: none (any more). */
void tx_set_crowded(struct tx *tx, maddr_t block);
maddr_t tx_crowded(const struct tx *tx);
struct journal *tx_journal(struct tx *tx);
enum tx_kind tx_kind(const struct tx *tx);
/*
 * Before the first change of a block within this transaction, which has got it by itself (buf_get() after tx_begin()). buf->data may be another
 * place afterwards. Idempotent. 0, -ENOMEM, -EFBIG: more blocks than one record holds (abort and use a chain).
 */
int tx_join(struct tx *tx, struct buf *buf);
/* Room left, in blocks that may still be joined; chains of an intent stop when it gets low. */
unsigned tx_room(const struct tx *tx);
/*
 * Commit. BYTE and CACHELINE media: durable on return. PAGE: visible to a remount on this boot, durable after journal_sync(). The lock
 * is released and tx is gone, also on error. *sequence (may be NULL) names it for tx_is_durable(). On any error the transaction has been aborted
 * as by tx_abort(): -EIO, -ENOSPC (the host's filesystem is full) before anything was stored, -EROFS after a shutdown; the journal
 * shuts down only where a record that failed may be found by a replay.
 */
int tx_commit(struct tx *tx, uint64_t *sequence);
void tx_abort(struct tx *tx);
/* Commits where nothing failed (error == 0), otherwise aborts. What failed, or what tx_commit() says. */
int tx_end(struct tx *tx, int error, uint64_t *sequence);
bool tx_is_durable(struct journal *journal, uint64_t sequence);
/* Called at commit (committed = true, with its sequence) or abort, in order of registration, lock still held. For DRAM state that must follow. */
typedef void tx_hook_fn(void *arg, bool committed, uint64_t sequence);
int tx_add_hook(struct tx *tx, tx_hook_fn *fn, void *arg);

#endif
