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
	_Atomic bool hashed;   /* in the cache: who reads it without a reference asks again afterwards */
	bool half;	       /* only one copy at home is whole: log a full image before it is overwritten */
	uint8_t written;       /* copies that the running checkpoint has stored */
	uint8_t cleared;       /* copies whose poison a write-back cleared; for journal_repair() */
	uint8_t told;	       /* of these, the ones that the handler was told of */
	int error;	       /* lost in recovery: what buf_get() answers */
	struct tx *_Atomic owner; /* the open transaction that has joined it */
	int slot;		  /* in that transaction, or -1; the owner's */
	_Atomic uint32_t version; /* odd while a transaction beside others changes the bytes */
	_Atomic uint64_t sequence; /* of the last record it contains */
	uint8_t block[BLOCK_BYTES] __attribute__((aligned(64)));
};
TAILQ_HEAD(cache_list, cache_buf);

struct cache_shard {
	_Alignas(64) struct cache_buf *_Atomic *buckets;
	size_t bucket_count;		     /* a power of two */
	_Alignas(64) pthread_mutex_t mutex; /* apart from what everybody reads */
	struct cache_list clock;
	size_t count, capacity;
};

/* What the thread of one slot has found in the cache. */
struct cache_finds {
	_Alignas(64) atomic_uint_fast64_t hits, misses;
};

struct tx_view;

struct tx_block {
	struct cache_buf *cb;
	struct tx_view *view; /* of a transaction beside others */
	uint8_t *bytes; /* where it is changed: in a copy, or in place if fresh */
	bool fresh;	/* came into the cache by this transaction: nobody else sees it, an abort drops it */
	bool init;	/* logged as a difference from zeros */
	bool destroyed;
};

struct tx_hook {
	tx_hook_fn *fn;
	void *arg;
};

/* A block as a transaction beside others sees it: a copy from one moment, its own to change once it has joined the block. */
struct tx_view {
	struct buf buf;
	uint32_t version; /* of the block when it was copied */
	unsigned holds;
	bool relied; /* the transaction counts only if the block is still the same */
	bool joined;
};
#define TX_VIEWS_MAX 64u

/* A metadata block that a transaction beside others takes, or gives back. */
struct tx_take {
	uint64_t chunk;
	unsigned index;
	bool gives;
};
/* What it adds there: to the word at `offset` of the block. */
struct tx_sum {
	size_t offset;
	uint64_t value;
};
#define TX_TAKES_MAX 16u
#define CLAIM_CHUNKS 64u

/* One per slot of a thread: lines that another CPU wrote last cost more than what is done with them. */
struct tx {
	_Alignas(64) struct journal *journal;
	enum tx_kind kind;
	bool beside;
	unsigned count, limit;
	/* Made when the slot's thread first begins one; without memory for that, it runs in the last slot's. */
	struct tx_block *blocks; /* of the longest transaction */
	uint8_t *images;	 /* BLOCK_BYTES for each of them, or for each view */
	uint8_t *record;	 /* LOG_RECORD_MAX_BYTES */
	struct tx_hook *hooks;
	unsigned hook_count, hook_capacity;
	uint64_t old_free_hint, old_entry_hint;
	bool retires; /* marks a chunk FREEING */
	maddr_t crowded, met;
	/* Of one beside others: */
	struct tx_view *views;
	unsigned view_count;
	struct tx_take takes[TX_TAKES_MAX];
	unsigned take_count;
	struct cache_buf *table; /* the block of the chunk table that they are in, with a reference */
	uint64_t take_chunk;	 /* where the last one was found */
	uint64_t deltas_mask; /* which root counters it changes, */
	int64_t deltas[ROOT_COUNTERS];
	/* So far, of this slot's: */
	atomic_uint_fast64_t logged, records, record_bytes, shown;
};

/* What is changed all the time lies apart from what everybody reads. */
struct journal {
	struct media *media;
	struct super super;
	struct journal_recovery recovery;
	uint64_t dirty_limit, cache_blocks;
	struct cache_buf *root; /* held for life */
	unsigned tx_limit; /* blocks of the longest transaction now, */
	uint64_t tx_bytes; /* and bytes of its record */
	uint8_t *bounce; /* one block, for sealing before a write-back */
	_Atomic uint64_t free_hint; /* no chunk below has a free block; lowered by transactions beside others too */
	uint64_t entry_hint; /* no entry of the table below is free */
	uint64_t retire_sequence;
	bool recovers;	   /* nobody else knows the journal yet */
	bool log_is_known; /* read to its end, without a hole */
	bool is_new;
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
	struct gate gate; /* the metadata lock: readers are inside, a transaction closes it to show what it has done; one that runs alone has reserved it */
	struct gate beside; /* transactions beside others are inside; whoever has reserved the metadata lock has closed it */
	struct log_ring log;
	_Alignas(64) _Atomic uint64_t claims[CLAIM_CHUNKS][8]; /* free blocks that transactions beside others have taken, by chunk modulo their number and bit of the map */
	struct cache_shard shards[CACHE_SHARDS];
	struct cache_finds finds[SLOT_COUNT];
	struct tx txs[SLOT_COUNT];
	/* Out of the cache, but a reader inside the gate may still look at them: freed by whoever has closed it next. */
	struct cache_list limbo;
	pthread_mutex_t limbo_mutex;
	_Atomic size_t limbo_count;
	/* To be used again: trees that come and go with one record take nothing from the heap. Under limbo_mutex. */
	struct cache_list spare;
	unsigned spare_count;
	_Alignas(64) pthread_mutex_t dirty_mutex;
	struct cache_list dirty;
	_Atomic uint64_t dirty_blocks;
	pthread_mutex_t sync_mutex;
	pthread_cond_t sync_cond;
	uint64_t sync_started, sync_done;
	bool sync_runs;
	_Atomic uint64_t checkpoints, written_back;
};

/* --- journal.c --- */
/* Keep other writers away, while readers go on seeing what was committed; never by a thread that reads. */
void journal_reserve(struct journal *journal);
/* Keep everybody away; by the one who has reserved it. Idempotent. */
void journal_exclude(struct journal *journal);
/* Both. */
void journal_lock(struct journal *journal);
void journal_unlock(struct journal *journal);
/* A store cleared the poison of the block at this offset, and is durable. */
void journal_tell_cleared(struct journal *journal, devoff_t offset);
/* Is this thread inside the gate: what it finds in the cache stays until it leaves, without a reference? */
bool journal_is_reading(const struct journal *journal);
/* This thread's transaction beside others, or NULL. */
struct tx *journal_beside(const struct journal *journal);
void journal_beside_enter(struct tx *tx);
void journal_beside_leave(struct tx *tx);
/* Has this thread reserved it: does it see what the open transaction has changed? */
bool journal_is_writing(const struct journal *journal);
/* Has this thread closed it: nobody else looks at anything? */
bool journal_is_locked(const struct journal *journal);

/* --- buf.c: the cache --- */
int cache_init(struct journal *journal, uint64_t cache_bytes);
void cache_fini(struct journal *journal);
/* Free what is in limbo; the gate is closed, by this thread. */
void cache_empty_limbo(struct journal *journal);
/* With a reference (readers inside the gate and transactions beside others: without, they need none), or NULL. */
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
void cache_raise_sequence(struct cache_buf *cb, uint64_t sequence);
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
int tx_make_buffers(struct tx *tx);
int tx_add_block(struct tx *tx, struct cache_buf *cb, struct tx_block **out);
void tx_run_hooks(struct tx *tx, bool committed, uint64_t sequence);
/* A block that has one whole copy at home and is not in the log must be logged whole: NULL. */
const uint8_t *tx_block_base(struct journal *journal, const struct tx_block *block);

/* --- beside_space.c: blocks for them --- */
int beside_take_block(struct tx *tx, maddr_t *address);
int beside_give_block(struct tx *tx, maddr_t address);
void beside_take_sums(const struct tx_take *take, struct tx_sum sums[2]);
uint64_t beside_table_lines(const struct tx *tx);
/* The gate is closed: what everybody sees. */
void beside_table_show(struct tx *tx, uint64_t sequence);
void beside_drop_takes(struct tx *tx);

/* --- root.c --- */
void root_count(struct format_root *root, unsigned counter, int64_t delta);

/* --- beside.c: transactions beside others --- */
int beside_get(struct tx *tx, maddr_t address, struct buf **out);
void beside_put(struct buf *buf);
int beside_join(struct tx *tx, struct buf *buf);
int beside_create(struct tx *tx, enum format_block_role role, unsigned tree, struct buf **out);
int beside_destroy(struct tx *tx, struct buf *buf);
int beside_commit(struct tx *tx, uint64_t *sequence);
void beside_abort(struct tx *tx);

/* --- checkpoint.c --- */
/* The metadata lock is held exclusively. */
int checkpoint_run(struct journal *journal, uint32_t epoch);
/* PAGE media: all that is logged is durable, and the log says so. */
int checkpoint_make_durable(struct journal *journal);

/* --- tx.c: record building --- */
struct tx_item {
	maddr_t address;
	const uint8_t *bytes;
	const uint8_t *base; /* NULL: zeros, flagged INIT */
	bool adds;	     /* bytes are to be added to what is there */
	uint64_t lines;	     /* that differ: found out by tx_stage_items(), unless they are known */
};
/* Stage the record of what differs, without its header. Bytes, or 0: nothing differs. *used: items in it. */
size_t tx_stage_items(uint8_t *record, struct tx_item *items, unsigned count, unsigned *used);
/* And append it. *sequence: 0 when nothing differs. */
int tx_log_items(struct log_ring *ring, struct tx_item *items, unsigned count, uint64_t *sequence);

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
/* Where one lies that is not the next. */
struct scan_found {
	uint64_t sequence, offset;
	uint32_t length, boot;
	unsigned copies;
	bool is_tx;
};
struct scan {
	struct scan_record *records;
	size_t count, capacity;
	uint64_t end_offset, end_sequence; /* where the next record would be */
	uint64_t durable_up_to;		   /* the highest one stated anywhere */
	uint64_t missing;		   /* the first that does not count although later ones do; 0: none */
	struct scan_found *found;	   /* whole records after the first that is missing, one per sequence, */
	size_t found_count, found_capacity;
	uint64_t later_count, later_sequence; /* of these, how many do not count; the highest sequence */
	uint64_t later_tx;
	uint32_t boot;			   /* of the records; 0: durable when written, or none */
};
/* Unless is_new the whole ring is read, for what may be written beyond the end. */
int scan_run(struct log_ring *ring, bool is_new, struct scan *scan);
void scan_fini(struct scan *scan);

#endif
