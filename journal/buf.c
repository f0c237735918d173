#include "journal/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "util/log.h"

#define CACHE_BLOCKS_MIN 1024u
#define SPARE_MAX 64u

static uint64_t cache_hash(maddr_t address)
{
	return (address * 0x9e3779b97f4a7c15ull) >> 16;
}

static struct cache_shard *cache_shard_of(struct journal *journal, maddr_t address)
{
	return &journal->shards[cache_hash(address) % CACHE_SHARDS];
}

static struct cache_buf *_Atomic *cache_bucket(struct cache_shard *shard, maddr_t address)
{
	return &shard->buckets[cache_hash(address) / CACHE_SHARDS & (shard->bucket_count - 1)];
}

static int shard_init(struct cache_shard *shard, size_t capacity)
{
	pthread_mutex_init(&shard->mutex, NULL);
	TAILQ_INIT(&shard->clock);
	shard->capacity = capacity;
	shard->bucket_count = 64;
	while (shard->bucket_count < capacity)
		shard->bucket_count *= 2;
	shard->buckets = calloc(shard->bucket_count, sizeof(*shard->buckets));
	return shard->buckets ? 0 : -ENOMEM;
}

int cache_init(struct journal *journal, uint64_t cache_bytes)
{
	struct sysinfo info;
	int error = 0;

	if (!cache_bytes)
		cache_bytes = sysinfo(&info) ? 0 : (uint64_t)info.totalram * info.mem_unit / 64;
	journal->cache_blocks = max_u64(cache_bytes / BLOCK_BYTES, CACHE_BLOCKS_MIN);
	TAILQ_INIT(&journal->dirty);
	TAILQ_INIT(&journal->limbo);
	TAILQ_INIT(&journal->spare);
	pthread_mutex_init(&journal->limbo_mutex, NULL);
	for (unsigned i = 0; i < CACHE_SHARDS; i++)
		if (shard_init(&journal->shards[i], journal->cache_blocks / CACHE_SHARDS))
			error = -ENOMEM;
	return error;
}

void cache_fini(struct journal *journal)
{
	struct cache_buf *cb;

	cache_empty_limbo(journal);
	pthread_mutex_destroy(&journal->limbo_mutex);
	while ((cb = TAILQ_FIRST(&journal->spare))) {
		TAILQ_REMOVE(&journal->spare, cb, clock_link);
		free(cb);
	}
	for (unsigned i = 0; i < CACHE_SHARDS; i++) {
		while ((cb = TAILQ_FIRST(&journal->shards[i].clock))) {
			TAILQ_REMOVE(&journal->shards[i].clock, cb, clock_link);
			free(cb);
		}
		free(journal->shards[i].buckets);
		pthread_mutex_destroy(&journal->shards[i].mutex);
	}
}

/* --- limbo --------------------------------------------------------------------------------------------------------- */

static void spare_put(struct cache_buf *cb)
{
	struct journal *journal = cb->journal;

	if (journal->spare_count == SPARE_MAX) {
		free(cb);
		return;
	}
	TAILQ_INSERT_HEAD(&journal->spare, cb, clock_link);
	journal->spare_count++;
}

static struct cache_buf *spare_take(struct journal *journal)
{
	struct cache_buf *cb;

	if (!journal_is_writing(journal) && !journal_beside(journal))
		return NULL;
	lock_mutex(&journal->limbo_mutex, LOCK_CACHE);
	cb = TAILQ_FIRST(&journal->spare);
	if (cb) {
		TAILQ_REMOVE(&journal->spare, cb, clock_link);
		journal->spare_count--;
	}
	pthread_mutex_unlock(&journal->limbo_mutex);
	return cb;
}

void cache_empty_limbo(struct journal *journal)
{
	struct cache_buf *cb;

	pthread_mutex_lock(&journal->limbo_mutex);
	while ((cb = TAILQ_FIRST(&journal->limbo))) {
		TAILQ_REMOVE(&journal->limbo, cb, clock_link);
		spare_put(cb);
	}
	journal->limbo_count = 0;
	pthread_mutex_unlock(&journal->limbo_mutex);
}

/* No longer in the cache, and nobody has a reference. */
static void cache_buf_free(struct cache_buf *cb)
{
	struct journal *journal = cb->journal;

	pthread_mutex_lock(&journal->limbo_mutex);
	if (journal_is_locked(journal)) {
		spare_put(cb);
	} else {
		TAILQ_INSERT_TAIL(&journal->limbo, cb, clock_link);
		journal->limbo_count++;
	}
	pthread_mutex_unlock(&journal->limbo_mutex);
}

/* --- under the shard's mutex ------------------------------------------------------------------------------------- */

/* Or inside the gate: what is taken out of a chain meanwhile keeps its link. */
static struct cache_buf *shard_find(struct cache_shard *shard, maddr_t address)
{
	struct cache_buf *cb = atomic_load_explicit(cache_bucket(shard, address), memory_order_acquire);

	while (cb && cb->buf.address != address)
		cb = atomic_load_explicit(&cb->hash_next, memory_order_acquire);
	return cb;
}

static void shard_remove(struct cache_shard *shard, struct cache_buf *cb)
{
	struct cache_buf *_Atomic *link = cache_bucket(shard, cb->buf.address);

	cb->hashed = false;
	while (*link != cb)
		link = &(*link)->hash_next;
	*link = cb->hash_next;
	TAILQ_REMOVE(&shard->clock, cb, clock_link);
	shard->count--;
}

static bool cache_buf_is_idle(struct cache_buf *cb)
{
	return !atomic_load_explicit(&cb->refs, memory_order_acquire) && !cb->dirty && !cb->error;
}

/* Out of the cache, unless somebody takes a reference meanwhile who had found it without: one of the two sees the other. */
static bool shard_evict(struct cache_shard *shard, struct cache_buf *cb)
{
	atomic_store(&cb->hashed, false);
	if (atomic_load(&cb->refs)) {
		atomic_store(&cb->hashed, true);
		return false;
	}
	shard_remove(shard, cb);
	cache_buf_free(cb);
	return true;
}

/* One turn of the clock's hand over at most two rounds: whoever was not used since the last time goes. */
static void shard_shrink(struct cache_shard *shard)
{
	size_t steps = 2 * shard->count;
	struct cache_buf *cb;

	while (shard->count > shard->capacity && steps--) {
		cb = TAILQ_FIRST(&shard->clock);
		if (cache_buf_is_idle(cb) && !atomic_exchange(&cb->used, false) && shard_evict(shard, cb))
			continue;
		TAILQ_REMOVE(&shard->clock, cb, clock_link);
		TAILQ_INSERT_TAIL(&shard->clock, cb, clock_link);
	}
}

static void shard_insert(struct cache_shard *shard, struct cache_buf *cb)
{
	struct cache_buf *_Atomic *link = cache_bucket(shard, cb->buf.address);

	shard_shrink(shard);
	cb->hash_next = *link;
	*link = cb;
	cb->hashed = true;
	TAILQ_INSERT_TAIL(&shard->clock, cb, clock_link);
	shard->count++;
}

/* --- the cache ---------------------------------------------------------------------------------------------------- */

static struct cache_buf *cache_find_referenced(struct cache_shard *shard, maddr_t address)
{
	struct cache_buf *cb;

	lock_mutex(&shard->mutex, LOCK_CACHE);
	cb = shard_find(shard, address);
	if (cb)
		atomic_fetch_add(&cb->refs, 1);
	pthread_mutex_unlock(&shard->mutex);
	return cb;
}

struct cache_buf *cache_find(struct journal *journal, maddr_t address)
{
	struct cache_shard *shard = cache_shard_of(journal, address);
	unsigned slot = slot_mine();
	struct cache_buf *cb;

	if (!journal_is_reading(journal) && !journal_is_locked(journal) && !journal_beside(journal))
		cb = cache_find_referenced(shard, address);
	else
		cb = shard_find(shard, address); /* nobody takes it out, or frees it */
	if (cb && journal_is_locked(journal))
		atomic_fetch_add_explicit(&cb->refs, 1, memory_order_relaxed);

	slot_count(cb ? &journal->finds[slot].hits : &journal->finds[slot].misses, slot, 1);
	if (cb && !atomic_load_explicit(&cb->used, memory_order_relaxed))
		atomic_store_explicit(&cb->used, true, memory_order_relaxed);
	return cb;
}

struct cache_buf *cache_alloc(struct journal *journal, maddr_t address)
{
	struct cache_buf *cb = spare_take(journal);

	if (!cb)
		cb = aligned_alloc(64, round_up_u64(sizeof(*cb), 64));
	if (!cb)
		return NULL;
	memset(cb, 0, sizeof(*cb));
	cb->buf = (struct buf){ .address = address, .cache = cb, .data = cb->block };
	cb->mine = cb->buf;
	cb->journal = journal;
	cb->refs = 1;
	cb->used = true;
	cb->slot = -1;
	return cb;
}

struct cache_buf *cache_insert(struct cache_buf *cb)
{
	struct cache_shard *shard = cache_shard_of(cb->journal, cb->buf.address);
	bool is_reading = journal_is_reading(cb->journal);
	struct cache_buf *other;

	if (is_reading)
		cb->refs = 0;
	lock_mutex(&shard->mutex, LOCK_CACHE);
	other = shard_find(shard, cb->buf.address);
	if (!other)
		shard_insert(shard, cb);
	else if (!is_reading)
		atomic_fetch_add(&other->refs, 1);
	pthread_mutex_unlock(&shard->mutex);
	if (other)
		free(cb);
	return other ? other : cb;
}

void cache_put(struct cache_buf *cb)
{
	bool detached;

	if (journal_is_reading(cb->journal))
		return;
	detached = cb->detached; /* set only by a holder, before its own put */
	if (atomic_fetch_sub_explicit(&cb->refs, 1, memory_order_acq_rel) == 1 && detached)
		cache_buf_free(cb);
}

void cache_discard(struct cache_buf *cb)
{
	struct cache_shard *shard = cache_shard_of(cb->journal, cb->buf.address);

	cache_set_clean(cb);
	pthread_mutex_lock(&shard->mutex);
	shard_remove(shard, cb);
	cb->detached = true;
	pthread_mutex_unlock(&shard->mutex);
	cache_put(cb);
}

void cache_set_dirty(struct cache_buf *cb)
{
	if (cb->dirty)
		return;
	pthread_mutex_lock(&cb->journal->dirty_mutex);
	if (!cb->dirty) { /* the root block is anybody's */
		TAILQ_INSERT_TAIL(&cb->journal->dirty, cb, dirty_link);
		cb->journal->dirty_blocks++;
		cb->dirty = true;
	}
	pthread_mutex_unlock(&cb->journal->dirty_mutex);
}

void cache_raise_sequence(struct cache_buf *cb, uint64_t sequence)
{
	uint64_t seen = cb->sequence;

	while (seen < sequence && !atomic_compare_exchange_weak(&cb->sequence, &seen, sequence))
		;
}

void cache_set_clean(struct cache_buf *cb)
{
	if (!cb->dirty)
		return;
	pthread_mutex_lock(&cb->journal->dirty_mutex);
	TAILQ_REMOVE(&cb->journal->dirty, cb, dirty_link);
	cb->journal->dirty_blocks--;
	cb->dirty = false;
	pthread_mutex_unlock(&cb->journal->dirty_mutex);
}

/* --- the interface ------------------------------------------------------------------------------------------------ */

static int buf_load(struct journal *journal, maddr_t address, struct cache_buf **out)
{
	struct cache_buf *cb;
	int error = chunk_check_live(journal, address);

	if (error)
		return error == -ENOENT ? -EUCLEAN : error;
	cb = cache_alloc(journal, address);
	if (!cb)
		return -ENOMEM;
	error = load_block(journal, cb);
	if (error) {
		free(cb);
		return error;
	}
	*out = cache_insert(cb);
	return 0;
}

static bool cache_buf_is_gone(struct cache_buf *cb)
{
	struct tx_block *block = tx_block_of(cb);

	return block && block->destroyed;
}

/* What either has verified of bytes that are the same, the other need not. */
struct buf *cache_view(struct cache_buf *cb)
{
	if (!journal_is_writing(cb->journal))
		return &cb->buf;
	if (cb->slot < 0)
		cb->mine.verified |= __atomic_load_n(&cb->buf.verified, __ATOMIC_RELAXED);
	return &cb->mine;
}

int buf_get_any(struct journal *journal, maddr_t address, struct buf **out)
{
	struct tx *beside = journal_beside(journal);
	struct cache_buf *cb;
	int error = 0;

	if (beside)
		return beside_get(beside, address, out);
	cb = cache_find(journal, address);
	if (!cb)
		error = buf_load(journal, address, &cb);
	if (error)
		return error;
	if (cb->error || (journal_is_writing(journal) && cache_buf_is_gone(cb))) {
		error = cb->error ? cb->error : -EUCLEAN;
		cache_put(cb);
		return error;
	}
	*out = cache_view(cb);
	return 0;
}

int buf_get(struct journal *journal, maddr_t address, enum format_block_role role, unsigned tree, struct buf **out)
{
	const struct format_block_header *header;
	struct buf *buf;
	int error = buf_get_any(journal, address, &buf);

	if (error)
		return error;
	header = (const struct format_block_header *)buf->data;
	if ((header->role != role || header->tree != tree) && buf_is_tentative(buf)) {
		buf_put(buf);
		return -EDEADLK;
	}
	if (header->role != role || header->tree != tree) {
		log_error("metadata block %#llx: role %#x of tree %s where role %#x of tree %s must be",
			  (unsigned long long)address, header->role, format_tree_name(header->tree), role,
			  format_tree_name(tree));
		buf_put(buf);
		return -EUCLEAN;
	}
	*out = buf;
	return 0;
}

void buf_put(struct buf *buf)
{
	struct cache_buf *cb = cache_of(buf);

	if (buf_is_tentative(buf)) {
		beside_put(buf);
		return;
	}
	if (buf == &cb->mine && cb->slot < 0 && cb->mine.verified & ~__atomic_load_n(&cb->buf.verified, __ATOMIC_RELAXED))
		__atomic_fetch_or(&cb->buf.verified, cb->mine.verified, __ATOMIC_RELAXED);
	cache_put(cb);
}

uint64_t buf_sequence(const struct buf *buf)
{
	return cache_of((struct buf *)buf)->sequence;
}

/* A buffer for a block that nobody uses: what an earlier life of the address left in the cache goes. */
static int buf_new(struct journal *journal, maddr_t address, struct cache_buf **out)
{
	struct cache_buf *cb = cache_find(journal, address);

	if (cb && tx_block_of(cb)) { /* destroyed by this very transaction */
		memset(cb->mine.data, 0, BLOCK_BYTES);
		cb->mine.verified = 0;
		*out = cb;
		return 0;
	}
	if (cb)
		cache_discard(cb);
	cb = cache_alloc(journal, address);
	if (!cb)
		return -ENOMEM;
	*out = cache_insert(cb);
	return 0;
}

int buf_create(struct tx *tx, enum format_block_role role, unsigned tree, struct buf **out)
{
	struct journal *journal = tx_journal(tx);
	struct cache_buf *cb;
	maddr_t address;
	int error;

	if (tx->beside)
		return beside_create(tx, role, tree, out);
	error = chunk_take_block(tx, &address);
	if (error)
		return error;
	error = buf_new(journal, address, &cb);
	if (error)
		goto err_give;
	error = tx_join_fresh(tx, cb);
	if (error)
		goto err_discard;
	format_block_header_init((struct format_block_header *)cb->mine.data, journal->super.meta_uuid, address, role, tree);
	*out = &cb->mine;
	return 0;

err_discard:
	cache_discard(cb);
err_give:
	chunk_give_block(tx, address);
	return error;
}

int buf_destroy(struct tx *tx, struct buf *buf)
{
	int error = tx->beside ? beside_destroy(tx, buf) : tx_join(tx, buf);

	if (error || tx->beside)
		return error;
	error = chunk_give_block(tx, buf->address);
	if (error)
		return error;
	tx_block_of(cache_of(buf))->destroyed = true;
	buf_put(buf);
	return 0;
}

static void cache_drop_clean(struct journal *journal)
{
	struct cache_shard *shard;
	struct cache_buf *cb, *next;

	for (unsigned i = 0; i < CACHE_SHARDS; i++) {
		shard = &journal->shards[i];
		pthread_mutex_lock(&shard->mutex);
		for (cb = TAILQ_FIRST(&shard->clock); cb; cb = next) {
			next = TAILQ_NEXT(cb, clock_link);
			if (cache_buf_is_idle(cb))
				shard_evict(shard, cb);
		}
		pthread_mutex_unlock(&shard->mutex);
	}
}

void buf_drop_clean(struct journal *journal)
{
	bool alone = !journal_is_reading(journal) && !journal_is_writing(journal);

	/* Whoever has closed the gate relies on what it finds. */
	if (alone)
		journal_read_begin(journal);
	cache_drop_clean(journal);
	if (alone)
		journal_read_end(journal);
}
