/* What the files of this folder share. Nobody else includes it. */
#ifndef JOURNAL_INTERNAL_H
#define JOURNAL_INTERNAL_H

#include <stdatomic.h>
#include <sys/queue.h>

#include "journal/buf.h"
#include "journal/chunk.h"
#include "journal/journal.h"
#include "journal/log.h"
#include "journal/root.h"
#include "journal/tx.h"
#include "util/gate.h"
#include "util/lock.h"

#define CACHE_SHARDS 8u
#define TX_BLOCKS_MAX 512u

/* A buffer in the cache. Fields without a word on locking change under the exclusive metadata lock only. */
struct cache_buf {
	struct buf buf;	 /* what everybody sees: as of the last commit */
	struct buf mine; /* what the open transaction sees: the same bytes until it joins the block, then its own copy of them */
	struct journal *journal;
	struct cache_buf *_Atomic hash_next; /* changed under the shard's mutex, read by anybody inside the gate */
	TAILQ_ENTRY(cache_buf) clock_link;   /* the shard's mutex; in limbo: limbo_mutex */
	TAILQ_ENTRY(cache_buf) dirty_link;
	_Atomic unsigned refs; /* raised under the shard's mutex (or by a holder), dropped anywhere; readers inside the gate need none */
	_Atomic bool dirty;    /* never evicted */
	_Atomic bool used;     /* since the clock's hand passed */
	_Atomic bool detached; /* no longer in the cache: freed with its last reference */
	bool half;	       /* only one copy at home is whole: log a full image before it is overwritten */
	uint8_t written;       /* copies that the running checkpoint has stored */
	uint8_t cleared;       /* copies whose poison a write-back cleared; for journal_repair() */
	uint8_t told;	       /* of these, the ones that the handler was told of */
	int error;	       /* lost in recovery: what buf_get() answers */
	int slot;	       /* in the open transaction, or -1; the writer's */
	uint64_t sequence;     /* of the last record it contains */
	uint8_t block[BLOCK_BYTES] __attribute__((aligned(64)));
};
TAILQ_HEAD(cache_list, cache_buf);

struct cache_shard {
	_Alignas(64) pthread_mutex_t mutex;
	struct cache_buf *_Atomic *buckets;
	size_t bucket_count; /* a power of two */
	struct cache_list clock;
	size_t count, capacity;
};

/* What the thread of one slot has found in the cache. */
struct cache_finds {
	_Alignas(64) atomic_uint_fast64_t hits, misses;
};

struct tx_block {
	struct cache_buf *cb;
	uint8_t *image; /* the copy that is changed */
	bool fresh;	/* came into the cache by this transaction: nobody else sees it, it is changed in place, an abort drops it */
	bool init;	/* logged as a difference from zeros */
	bool destroyed;
};

struct tx_hook {
	tx_hook_fn *fn;
	void *arg;
};

/* What a transaction writes into: of the thread's own slot, since lines that another CPU wrote last cost more than what is done with them. */
struct tx_scratch {
	struct tx_block *blocks; /* of the longest transaction */
	uint8_t *images;	 /* BLOCK_BYTES for each of them */
	uint8_t *record;	 /* LOG_RECORD_MAX_BYTES */
};

struct tx {
	struct journal *journal;
	enum tx_kind kind;
	unsigned count, limit;
	struct tx_block *blocks;
	uint8_t *images;
	struct tx_hook *hooks;
	unsigned hook_count, hook_capacity;
	uint64_t old_free_hint, old_entry_hint;
	bool retires; /* marks a chunk FREEING */
};

struct journal {
	struct media *media;
	struct super super;
	struct journal_recovery recovery;
	struct gate gate; /* the metadata lock: readers are inside, a transaction has reserved it and closes it to show what it has done */
	struct log_ring log;
	struct cache_shard shards[CACHE_SHARDS];
	struct cache_finds finds[SLOT_COUNT];
	/* Out of the cache, but a reader inside the gate may still look at them: freed by whoever has closed it next. */
	struct cache_list limbo;
	pthread_mutex_t limbo_mutex;
	_Atomic size_t limbo_count;
	/* To be used again: trees that come and go with one record take nothing from the heap. The writer's. */
	struct cache_list spare;
	unsigned spare_count;
	struct cache_list dirty;
	_Atomic uint64_t dirty_blocks;
	uint64_t dirty_limit, cache_blocks;
	struct cache_buf *root; /* held for life */
	struct tx tx;
	struct tx_scratch scratch[SLOT_COUNT]; /* the last one is there, others once used; under the reservation */
	uint64_t tx_bytes; /* of the longest record that fits now */
	uint8_t *bounce; /* one block, for sealing before a write-back */
	uint64_t free_hint;  /* no chunk below has a free block */
	uint64_t entry_hint; /* no entry of the table below is free */
	uint64_t retire_sequence;
	bool recovers;	   /* nobody else knows the journal yet */
	bool log_is_known; /* read to its end, without a hole */
	bool readonly;
	struct journal_salvage *salvage; /* during journal_open() */
	_Atomic bool is_shut_down;
	_Atomic int sync_error; /* sticky */
	_Atomic bool write_error_told;
	_Atomic uint64_t lost_told; /* address + 1 of the last block whose loss was logged */
	journal_bad_copy_fn *bad_copy;
	void *bad_copy_arg;
	journal_cleared_fn *on_cleared;
	void *on_cleared_arg;
	pthread_mutex_t sync_mutex;
	pthread_cond_t sync_cond;
	uint64_t sync_started, sync_done;
	bool sync_runs;
	_Atomic uint64_t transactions, checkpoints, written_back;
};

/* --- journal.c --- */
/* Keep other writers away, while readers go on seeing what was committed; never by a thread that reads. */
void journal_reserve(struct journal *journal);
/* Keep everybody away; by the one who has reserved it. Idempotent. */
void journal_exclude(struct journal *journal);
/* Both. */
void journal_lock(struct journal *journal);
void journal_unlock(struct journal *journal);
/* Is this thread inside the gate: what it finds in the cache stays until it leaves, without a reference? */
bool journal_is_reading(const struct journal *journal);
/* Has this thread reserved it: does it see what the open transaction has changed? */
bool journal_is_writing(const struct journal *journal);
/* Has this thread closed it: nobody else looks at anything? */
bool journal_is_locked(const struct journal *journal);

/* --- buf.c: the cache --- */
int cache_init(struct journal *journal, uint64_t cache_bytes);
void cache_fini(struct journal *journal);
/* Free what is in limbo; the gate is closed, by this thread. */
void cache_empty_limbo(struct journal *journal);
/* With a reference (readers inside the gate: without, they need none), or NULL. */
struct cache_buf *cache_find(struct journal *journal, maddr_t address);
struct cache_buf *cache_alloc(struct journal *journal, maddr_t address); /* zeroed, one reference, not in the cache */
/* Put it into the cache, or drop it for the one that somebody else has put there meanwhile. Keeps the reference. */
struct cache_buf *cache_insert(struct cache_buf *cb);
/* Out of the cache, whatever it held; drops the caller's reference. */
void cache_discard(struct cache_buf *cb);
void cache_put(struct cache_buf *cb);
/* As this thread sees it: with what its transaction has changed, or as of the last commit. */
struct buf *cache_view(struct cache_buf *cb);
void cache_set_dirty(struct cache_buf *cb);
void cache_set_clean(struct cache_buf *cb);

static inline struct cache_buf *cache_of(struct buf *buf)
{
	return buf->cache;
}

/* --- load.c: reading both copies --- */
/* Fill cb->block and cb->sequence from home. 0; -EIO, -EUCLEAN. Does not ask whether the address is in use. */
int load_block(struct journal *journal, struct cache_buf *cb);
/* Read and verify one copy whole. 0; -EIO; -EUCLEAN with *field. */
int load_copy(struct journal *journal, maddr_t address, devoff_t offset, void *block, const char **field);
void load_report(struct journal *journal, maddr_t address, unsigned copy, devoff_t offset, const char *reason);

/* --- chunk.c --- */
/* As chunk_map(), for chunks that are being freed too. -ENOENT: no such block. */
int chunk_locate(struct journal *journal, maddr_t address, devoff_t offset[2]);
/* 0: in use; -ENOENT: not; -EIO, -EUCLEAN: the table cannot say. */
int chunk_check_live(struct journal *journal, maddr_t address);
int chunk_take_block(struct tx *tx, maddr_t *address);
int chunk_give_block(struct tx *tx, maddr_t address);
void chunk_fill_header(void *block, const struct super *super, uint64_t chunk, const struct chunk_entry *entry);

/* --- tx.c --- */
/* Add a block that did not exist before to the transaction: logged from zeros, dropped by an abort. */
int tx_join_fresh(struct tx *tx, struct cache_buf *cb);
struct tx_block *tx_block_of(struct cache_buf *cb); /* NULL: not joined */
int tx_init(struct journal *journal);
void tx_fini(struct journal *journal);

/* --- checkpoint.c --- */
/* The metadata lock is held exclusively. */
int checkpoint_run(struct journal *journal, uint32_t epoch);
/* PAGE media: all that is logged is durable, and the log says so. */
int checkpoint_make_durable(struct journal *journal);

/* --- tx.c: record building --- */
struct tx_item {
	const struct cache_buf *cb;
	const uint8_t *base; /* NULL: zeros, flagged INIT */
};
/* Stage the record of what differs and append it. *sequence: 0 when nothing does, *lines[i] of each item otherwise. */
int tx_log_items(struct log_ring *ring, const struct tx_item *items, unsigned count, uint64_t *lines, uint64_t *sequence);

/* --- recover.c --- */
/* Replay into dirty buffers, hold the root block, say where the log goes on. 0; -EIO, -EUCLEAN: there is no root block. */
int recover_run(struct journal *journal, struct why *why);
/* As it would be found by buf_get(), with a reference, whether or not it is in use. */
int recover_get(struct journal *journal, maddr_t address, struct cache_buf **out);

/* --- scan.c: what lies in the ring --- */
struct scan_record {
	uint8_t *bytes;
	size_t length_bytes;
	uint64_t offset, sequence, durable_up_to;
	unsigned copies; /* bit k: copy k is whole */
};
struct scan {
	struct scan_record *records;
	size_t count, capacity;
	uint64_t end_offset, end_sequence; /* where the next record would be */
	uint64_t durable_up_to;		   /* the highest one stated anywhere */
	uint64_t later_count, later_sequence; /* whole records after the first that is missing; the highest sequence */
	uint64_t later_tx;
	uint32_t boot;			   /* of the records; 0: durable when written, or none */
};
int scan_run(struct log_ring *ring, struct scan *scan);
void scan_fini(struct scan *scan);

#endif
