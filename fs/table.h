/*
 * The table of inodes in memory: what mount, background and orphan need of it beyond fs/inode.h.
 * The lock of a shard is taken under the metadata lock and above an inode's attr_lock; nothing is waited for under it.
 */
#ifndef FS_TABLE_H
#define FS_TABLE_H

#include "fs/inode.h"
#include "util/slot.h"

#define INODE_BATCH 16384 /* numbers taken from the root block at a time, up to the next multiple: where one batch ends and another begins, threads meet in a node, which is then cut */

#define INODE_SHARDS 1024u /* a power of two; with a lookup's ten locks, two threads meet in one of 128 every fortieth time */

#define INODE_BUCKETS_MIN 8

/* The inodes whose numbers have one hash. Operations on different inodes seldom meet here. */
struct inode_shard {
	_Alignas(64) struct inode *first_buckets[INODE_BUCKETS_MIN];
	pthread_mutex_t lock;
	struct inode **buckets; /* first_buckets until they get too few */
	size_t count_buckets;	/* a power of two */
	size_t count;
	struct inode *dirty;		       /* lazy times to be written; doubly linked */
	struct inode *reclaim, **reclaim_tail; /* orphans whose last reference went */
	inum_t reclaiming;		       /* its puts queue nothing */
};

/* Objects to be used again, linked by hash_next, so that what comes and goes takes nothing from the heap: of one slot's thread, without a lock. */
struct inode_pool {
	_Alignas(64) struct inode *unused;
	unsigned count;
};

/* What the threads of one slot give to new inodes: who creates beside others then fills leaves of its own. */
struct inode_numbers {
	_Alignas(64) inum_t next;
	inum_t end;
	uint64_t tx_started_ns; /* the transaction that runs there now */
	unsigned count_begun;	/* beside others */
};

struct inode_table {
	struct inode_shard shards[INODE_SHARDS];
	/* One bit per shard, changed under its lock: has it anything on this list? */
	_Atomic uint64_t dirty_shards[INODE_SHARDS / 64], reclaim_shards[INODE_SHARDS / 64];
	pthread_mutex_t reclaim_lock;	/* one reclaimer at a time */
	_Atomic uint64_t reclaim_round; /* orphans are queued with its number */
	pthread_mutex_t shrink_lock;	/* metaspace_shrink(): no chunk is retired between its checkpoint and its removals */
	struct inode_pool pools[SLOT_SHARED];
	/* In a transaction only: */
	struct inode_numbers numbers[SLOT_COUNT];
};

int inode_table_create(struct inode_table **out);
/* Frees every inode in it; nobody else may be using them. */
void inode_table_destroy(struct inode_table *table);

/* As inode_get(), by a caller who holds the metadata lock in either way. */
int inode_get_locked(struct fs *fs, inum_t ino, struct inode **out);
/* With a reference, if it is in memory; NULL: it is not. */
struct inode *inode_find_ref(struct fs *fs, inum_t ino);
/* Is it in memory, whoever holds it? */
bool inode_is_cached(struct fs *fs, inum_t ino);
/* Is it being freed right now? */
bool inode_is_reclaimed(const struct inode *inode);
void inode_set_reclaimed(struct fs *fs, inum_t ino, bool reclaimed);
void inode_add_lookup(struct inode *inode);
/* Another reference of an inode that the caller holds. */
void inode_ref(struct inode *inode);
/* An inode object with one reference, not in the table; inode_publish() puts it there, or gives the one that is there already. */
struct inode *inode_alloc(struct fs *fs, inum_t ino, const struct inode_record *record);
void inode_free(struct inode *inode);
struct inode *inode_publish(struct fs *fs, struct inode *mine);
/* Out of the table: whoever holds it keeps it, nobody finds it any more. */
void inode_unhash(struct inode *inode);
/* The list of inodes with lazy times; one on it stays in memory. */
void inode_mark_dirty(struct inode *inode);
void inode_unmark_dirty(struct inode *inode);
struct inode *inode_take_dirty(struct fs *fs); /* with a reference; NULL: none */

/*
 * A new inode with the next number, in the tree and in memory (one reference). Leaves the table again if the transaction aborts.
 */
int inode_create(struct fs *fs, struct tx *tx, const struct inode_record *record, struct inode **out);
/* Write every lazy time. The first error; goes on after it. */
int inode_flush_all(struct fs *fs);
/* Take an orphan, queued in a round before that, off the reclaim list of the first shard from *shard on that has one, and go behind that: with a reference, or NULL. */
struct inode *inode_take_reclaim(struct fs *fs, unsigned *shard, uint64_t before);
bool inode_has_reclaim(struct fs *fs);
/* Unmount: the kernel's references are gone. */
void inode_forget_all(struct fs *fs);

#endif
