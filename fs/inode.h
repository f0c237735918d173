/* Inodes in memory, and the object that ties the layers. Internal to fs/. */
#ifndef FS_INODE_H
#define FS_INODE_H

#include <pthread.h>
#include <stdatomic.h>

#include "alloc/alloc.h"
#include "fs/fs.h"
#include "fs/loss.h"
#include "fs/query.h"
#include "notify/notify.h"
#include "util/lock.h"

struct fs {
	struct media *media;
	bool borrows_media; /* fs_mount_media() */
	struct super super; /* as mounted: what never changes may be read here, the rest is fs_super()'s */
	_Atomic(struct super_version *) super_now; /* fs/super_update.c; NULL: as mounted */
	pthread_mutex_t super_lock;		   /* one update at a time; outside every other lock */
	struct fs_options options;
	struct poison_log *poison_log;
	struct journal *journal;
	struct alloc *alloc;
	struct rmap rmap;
	struct btree inodes, dirents, parents, extents, xattrs, damaged, orphans, intents;
	struct notify *notify;
	struct event_bus *events;
	struct inode_table *table; /* fs/table.c */
	struct background *background; /* fs/background.c; NULL with options.tools or readonly */
	struct { uint64_t failed_at_free; } metaspace; /* free blocks + 1 when growing last failed */
	fs_invalidate_fn *invalidate;
	void *invalidate_arg;
	pthread_mutex_t state_lock;
	pthread_mutex_t trim_lock; /* held while a piece is set aside to be given back to the host; inside data locks, outside the metadata lock */
	atomic_uint count_trims;
	atomic_bool trim_yields;
	_Atomic uint64_t trimmed_free_blocks; /* fs/trim.c: free blocks when the host was last given space back */
	atomic_bool stopped; /* fs_stop(): every call answers -EIO */
	pthread_mutex_t stop_lock; /* one fs_stop() at a time; no other lock is held around it */
	bool metadata_lost, shutdown;
	const char *shutdown_reason;
	struct lost_blocks lost; /* fs/loss.c */
};

struct inode {
	/*
	 * Both locks outlive the object's use for one inode; what follows them is zero when the next begins. Data lock: shared for reads and
	 * unshared overwrites, exclusive for whatever repoints, truncates or clones. Two at once: ascending ino. Of a directory: exclusive for who changes it in a
	 * transaction beside others; of any other inode: exclusive for who removes or moves a name of it, or changes it (fs/change.h), in such a one.
	 */
	pthread_rwlock_t data_lock;
	pthread_mutex_t attr_lock;
	inum_t ino;
	struct fs *fs;
	uint32_t type; /* S_IFMT of its mode, which never changes */
	/*
	 * Under attr_lock. record: changed inside a transaction only (inode_update), except for the lazy times of a pure overwrite. Read it through
	 * inode_attr() or inside a transaction.
	 */
	struct inode_record record;
	bool times_dirty; /* mtime/ctime/change in record are newer than in the tree */
	bool atime_dirty; /* so is atime */
	uint64_t access_ns; /* when atime was last set lazily; under attr_lock */
	_Atomic uint64_t access_fresh_ns; /* until then no read need look at atime (fs/access.c); 0: not known. Set under attr_lock */
	/* Of record, for those who only want to know that much: set with it, read without a lock. Under the data lock neither size nor sharing begins to differ. */
	_Atomic uint64_t size_now, flags_now;
	_Atomic uint32_t mode_now;
	/* The kernel's lookups together are one of the references. That goes to 0 under the shard's lock only. */
	_Atomic uint64_t references;
	/* Private to table.c and inode.c, under the table's lock: */
	uint64_t lookups;
	uint64_t lazy_ns; /* when the lazy times were last set; under attr_lock */
	bool is_hashed, is_on_dirty, is_on_reclaim;
	uint64_t reclaim_round;
	struct inode *hash_next;
	struct inode *dirty_next, *dirty_prev;
	struct inode *reclaim_next;
	atomic_bool is_listed; /* a directory: since fs_listing_ends() was last called */
	_Atomic uint32_t xattrs_known; /* fs/xattr.h: which of the attributes that are asked for all the time it does not have */
	/* What the open transaction puts back if it aborts; under the metadata lock or, beside others, the data lock. */
	bool has_undo;
	struct {
		struct inode_record record;
		bool times_dirty, atime_dirty;
	} undo;
};

static inline bool fs_is_stopped(const struct fs *fs)
{
	return atomic_load_explicit(&fs->stopped, memory_order_relaxed);
}
/* Before a change: 0; -EIO: stopped; -EROFS. */
int fs_refuses_changes(struct fs *fs);

/* A reference (not a lookup reference). -ENOENT, -EIO (after fs_stop() always), -EUCLEAN. Caller must not hold the metadata lock unless inside a transaction (then `tx`). */
int inode_get(struct fs *fs, inum_t ino, struct inode **out);
int inode_get_anyway(struct fs *fs, inum_t ino, struct inode **out); /* after fs_stop() too */
int inode_get_tx(struct fs *fs, struct tx *tx, inum_t ino, struct inode **out); /* beside others: -EAGAIN if it is not in memory */
void inode_put(struct inode *inode); /* the last one of an orphan without lookups queues its reclaim */
void inode_attr(struct inode *inode, struct fs_attr *out);
/* Under attr_lock, or before anybody else knows it: the record is another. */
static inline void inode_set_record(struct inode *inode, const struct inode_record *record)
{
	inode->record = *record;
	atomic_store_explicit(&inode->size_now, record->size_bytes, memory_order_relaxed);
	atomic_store_explicit(&inode->flags_now, record->flags, memory_order_relaxed);
	atomic_store_explicit(&inode->mode_now, record->mode, memory_order_relaxed);
}
static inline uint64_t inode_flags(struct inode *inode)
{
	return atomic_load_explicit(&inode->flags_now, memory_order_relaxed);
}
/* The same, of the record alone: also within a transaction, since an overwrite in place may touch the times all the while. */
void inode_copy_record(struct inode *inode, struct inode_record *out);
/* Store `record` in the tree and in memory; memory goes back to what it was if the transaction aborts. */
int inode_update(struct inode *inode, struct tx *tx, const struct inode_record *record);
/* fs_kill_privileges(): nothing is locked by the caller but perhaps the data. Nothing to do is the usual case, and cheap. */
int inode_kill_privileges(struct inode *inode, bool kills_ids, unsigned *ids);
void inode_touch_lazily(struct inode *inode); /* mtime, ctime, change = now, in DRAM, flushed by fsync or the timer */
int inode_flush_times(struct inode *inode);
/* It was read: atime = now in DRAM, where the mount's options and the age of the last one ask for it. */
void inode_touch_access(struct inode *inode);
/* Some time of it has changed. Under attr_lock. */
static inline void inode_access_expire(struct inode *inode)
{
	atomic_store_explicit(&inode->access_fresh_ns, 0, memory_order_relaxed);
}
/*
 * Remove the record of an inode without names and its orphan record, lower the counters. The last link of orphan_reclaim(): its blocks and
 * xattrs are gone already. The caller's inode_put() afterwards queues nothing.
 */
int inode_destroy(struct inode *inode, struct tx *tx);
uint64_t time_now_ns(void);
void record_stamp_change(struct inode_record *record); /* ctime, change */

/* tx_begin after making sure that metadata space is in reserve (fs/metaspace.c); TX_RESERVE skips the check when there is no space to get. */
int fs_tx_begin(struct fs *fs, enum tx_kind kind, struct tx **out);
/* tx_begin_beside(): -EAGAIN also where metadata space may have to grow first. What it changes in memory is the caller's to guard. */
int fs_tx_begin_beside(struct fs *fs, enum tx_kind kind, struct tx **out);
/*
 * After -ENOSPC: free what only waits to be freed (orphans, empty metadata chunks, busy space). true: another try may do. The caller holds no
 * transaction and not the metadata lock; data locks of inodes that it has a reference of are fine. Not from within a reclaim.
 */
bool fs_make_space(struct fs *fs);
/* The host is full: give it the free runs of a sparse image back. True when it is worth trying again. */
bool fs_trim_host(struct fs *fs);
/* Space may be missing only because it is being given back: wait until it is there again. True when it may have been that. */
bool fs_trim_yield(struct fs *fs);

/* --- fs/super_update.c, fs/resize.c ------------------------------------------------------------------------------------------ */

struct super_version {
	struct super super;
	struct super_version *older;
};
/* Store it with a higher update number in all slots, then show it to everybody. Under super_lock. */
int super_update(struct fs *fs, struct super *super, struct why *why);
/* Label, uuid or size cannot be changed now: the error, with `why`. */
int identity_refuses(struct fs *fs, struct why *why);
/* Slots that do not hold the superblock as it is are rewritten: an update that a crash cut, or a copy that went bad. */
int super_complete(struct fs *fs);
void super_forget(struct fs *fs);
/* Blocks that free space and reverse map cover: fs_super()'s, or fewer while a resize is not finished. Under the metadata lock. */
uint64_t fs_size_blocks(struct fs *fs);
/* Mount: hand out what a resize that a crash cut had not. */
int resize_complete(struct fs *fs);

/* fs/trees.c */
extern const struct btree_ops inodes_ops, dirents_ops, parents_ops, extents_ops, xattrs_ops, damaged_ops, orphans_ops, intents_ops;

#define FS_TREES_MAX 13u
/* Every tree there is, with one that is initialised here; how many. */
unsigned fs_all_trees(struct fs *fs, struct btree *copy, const struct btree *trees[FS_TREES_MAX]);

/*
 * fs/paths.c: paths of an inode whose own record need not be had, at most `limit`, as fs_paths() gives them. Where a directory's entry cannot be read the name's
 * other place tells it.
 */
int fs_names(struct fs *fs, inum_t ino, size_t limit, char ***out, size_t *count);

/* --- fs/failure.c: what the failure pipeline asks of us; the holder is the struct fs ------------------------------------------ */

extern const struct notify_holder_ops fs_holder_ops;
/* Nothing changes from now on, what is intact is still read. Any thread, any lock. */
void fs_shutdown(struct fs *fs, const char *reason);

/* --- data side, fs/extent.c, fs/file.c, fs/truncate.c, fs/reflink.c ------------------------------------------------------- */

/* The extent at or after file_block, clipped to start at it; -ENOENT beyond the last. Under the metadata lock. */
int extent_lookup(struct fs *fs, inum_t ino, uint64_t file_block, struct extent *out);
/* Map [file_block, +count) to block, which must be a hole; extents and rmap both; merges with neighbours. */
int extent_insert(struct fs *fs, struct tx *tx, inum_t ino, const struct extent *extent);
/*
 * Unmap what is mapped in [file_block, end): extents, rmap; blocks that nobody else owns are freed (ledger_free_blocks). Stops early when tx_room gets low or
 * after EXTENTS_PER_LINK records: *next = where to go on (end when finished). *unmapped: blocks, for inode_record.count_blocks.
 */
int extent_unmap(struct fs *fs, struct tx *tx, struct inode *inode, uint64_t file_block, uint64_t end, uint64_t *next, uint64_t *unmapped);
#define EXTENTS_PER_LINK 64

/* Truncate for setattr, both ways. Takes the data lock exclusively itself. Chains under an intent where needed. */
int file_truncate(struct inode *inode, uint64_t size);
/*
 * Free all blocks, xattrs, inode record and orphan record of inodes without names, in ascending order; chained, restartable, small ones several
 * in one transaction. An error leaves some of them: try each alone. No locks held by the caller.
 */
#define RECLAIM_TOGETHER 16
int orphan_reclaim(struct fs *fs, const inum_t *inos, unsigned count);
/* Finish one intent found at mount: `id`, op and args as stored. Idempotent. */
int intent_finish(struct fs *fs, uint64_t id, const struct intent_record *intent);
/* Chain support: insert, replace, remove an intents record inside the transaction. */
int intent_begin(struct fs *fs, struct tx *tx, const struct intent_record *intent, uint64_t *id);
int intent_advance(struct fs *fs, struct tx *tx, uint64_t id, const struct intent_record *intent);
int intent_end(struct fs *fs, struct tx *tx, uint64_t id);

#endif
