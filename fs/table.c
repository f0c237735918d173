#include "fs/table.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/background.h"

/* Locks of two inodes are taken by their numbers; the sanitizer for threads knows locks by their places, where an object used again has another number. */
#ifdef __SANITIZE_THREAD__
#define POOL_MAX 0
#else
#define POOL_MAX 512
#endif

/* --- the table ------------------------------------------------------------------------------------------------------------ */

static void shard_init(struct inode_shard *shard)
{
	pthread_mutex_init(&shard->lock, NULL);
	shard->reclaim_tail = &shard->reclaim;
	shard->count_buckets = INODE_BUCKETS_MIN;
	shard->buckets = shard->first_buckets;
}

int inode_table_create(struct inode_table **out)
{
	struct inode_table *table = aligned_alloc(_Alignof(struct inode_table), sizeof(*table));

	if (!table)
		return -ENOMEM;
	memset(table, 0, sizeof(*table));
	pthread_mutex_init(&table->reclaim_lock, NULL);
	pthread_mutex_init(&table->shrink_lock, NULL);
	for (unsigned i = 0; i < INODE_SHARDS; i++)
		shard_init(&table->shards[i]);
	*out = table;
	return 0;
}

static void inode_destroy_object(struct inode *inode)
{
	pthread_mutex_destroy(&inode->attr_lock);
	pthread_rwlock_destroy(&inode->data_lock);
	free(inode);
}

static void chain_destroy(struct inode *inode)
{
	while (inode) {
		struct inode *next = inode->hash_next;

		inode_destroy_object(inode);
		inode = next;
	}
}

static void shard_fini(struct inode_shard *shard)
{
	for (size_t i = 0; i < shard->count_buckets; i++)
		chain_destroy(shard->buckets[i]);
	pthread_mutex_destroy(&shard->lock);
	if (shard->buckets != shard->first_buckets)
		free(shard->buckets);
}

void inode_table_destroy(struct inode_table *table)
{
	if (!table)
		return;
	for (unsigned i = 0; i < INODE_SHARDS; i++)
		shard_fini(&table->shards[i]);
	for (unsigned i = 0; i < SLOT_SHARED; i++)
		chain_destroy(table->pools[i].unused);
	pthread_mutex_destroy(&table->reclaim_lock);
	pthread_mutex_destroy(&table->shrink_lock);
	free(table);
}

static uint64_t ino_hash(inum_t ino)
{
	return ino * 0x9e3779b97f4a7c15ull;
}

static struct inode_shard *shard_of(struct fs *fs, inum_t ino)
{
	return &fs->table->shards[ino_hash(ino) >> 32 & (INODE_SHARDS - 1)];
}

/* The shard of this inode, locked. */
static struct inode_shard *shard_lock(struct fs *fs, inum_t ino)
{
	struct inode_shard *shard = shard_of(fs, ino);

	lock_mutex(&shard->lock, LOCK_TABLE);
	return shard;
}

static void shard_unlock(struct inode_shard *shard)
{
	pthread_mutex_unlock(&shard->lock);
}

/* Under the shard's lock. */
static void shards_set(struct inode_table *table, _Atomic uint64_t *mask, const struct inode_shard *shard, bool any)
{
	size_t index = (size_t)(shard - table->shards);
	uint64_t bit = 1ull << index % 64, old = atomic_load_explicit(&mask[index / 64], memory_order_relaxed);

	if (any && !(old & bit))
		atomic_fetch_or(&mask[index / 64], bit);
	else if (!any && (old & bit))
		atomic_fetch_and(&mask[index / 64], ~bit);
}

/* The first from index `from` on; NULL: none. */
static struct inode_shard *shards_find(struct inode_table *table, _Atomic uint64_t *mask, unsigned from)
{
	for (unsigned i = from / 64; i < INODE_SHARDS / 64; i++) {
		uint64_t bits = atomic_load(&mask[i]);

		if (i == from / 64)
			bits &= ~0ull << from % 64;
		if (bits)
			return &table->shards[i * 64 + (unsigned)__builtin_ctzll(bits)];
	}
	return NULL;
}

static struct inode **table_bucket(struct inode_shard *shard, inum_t ino)
{
	return &shard->buckets[(ino_hash(ino) >> 40) & (shard->count_buckets - 1)];
}

static struct inode *table_find(struct inode_shard *shard, inum_t ino)
{
	struct inode *inode = *table_bucket(shard, ino);

	while (inode && inode->ino != ino)
		inode = inode->hash_next;
	return inode;
}

/* A table that cannot grow is slower, not wrong. */
static void table_grow(struct inode_shard *shard)
{
	size_t old_count = shard->count_buckets;
	struct inode **old = shard->buckets;
	struct inode **buckets = calloc(old_count * 2, sizeof(*buckets));

	if (!buckets)
		return;
	shard->buckets = buckets;
	shard->count_buckets = old_count * 2;
	for (size_t i = 0; i < old_count; i++) {
		while (old[i]) {
			struct inode *inode = old[i];
			struct inode **bucket = table_bucket(shard, inode->ino);

			old[i] = inode->hash_next;
			inode->hash_next = *bucket;
			*bucket = inode;
		}
	}
	if (old != shard->first_buckets)
		free(old);
}

static void table_add(struct inode_shard *shard, struct inode *inode)
{
	struct inode **bucket;

	if (shard->count >= shard->count_buckets)
		table_grow(shard);
	bucket = table_bucket(shard, inode->ino);
	inode->hash_next = *bucket;
	*bucket = inode;
	inode->is_hashed = true;
	shard->count++;
}

static void table_remove(struct inode_shard *shard, struct inode *inode)
{
	struct inode **link = table_bucket(shard, inode->ino);

	if (!inode->is_hashed)
		return;
	while (*link != inode)
		link = &(*link)->hash_next;
	*link = inode->hash_next;
	inode->is_hashed = false;
	shard->count--;
}

static void dirty_add(struct inode_shard *shard, struct inode *inode)
{
	struct inode_table *table = inode->fs->table;

	if (inode->is_on_dirty)
		return;
	inode->is_on_dirty = true;
	inode->dirty_prev = NULL;
	inode->dirty_next = shard->dirty;
	if (shard->dirty)
		shard->dirty->dirty_prev = inode;
	shard->dirty = inode;
	shards_set(table, table->dirty_shards, shard, true);
}

static void dirty_remove(struct inode_shard *shard, struct inode *inode)
{
	struct inode_table *table = inode->fs->table;

	if (!inode->is_on_dirty)
		return;
	inode->is_on_dirty = false;
	if (inode->dirty_prev)
		inode->dirty_prev->dirty_next = inode->dirty_next;
	else
		shard->dirty = inode->dirty_next;
	if (inode->dirty_next)
		inode->dirty_next->dirty_prev = inode->dirty_prev;
	shards_set(table, table->dirty_shards, shard, shard->dirty != NULL);
}

static void reclaim_add(struct inode_shard *shard, struct inode *inode)
{
	struct inode_table *table = inode->fs->table;

	if (inode->is_on_reclaim)
		return;
	inode->is_on_reclaim = true;
	inode->reclaim_round = atomic_load_explicit(&table->reclaim_round, memory_order_relaxed);
	inode->reclaim_next = NULL;
	*shard->reclaim_tail = inode;
	shard->reclaim_tail = &inode->reclaim_next;
	shards_set(table, table->reclaim_shards, shard, true);
}

static struct inode *reclaim_take(struct inode_shard *shard, uint64_t before)
{
	struct inode *inode = shard->reclaim;

	if (!inode || inode->reclaim_round >= before)
		return NULL;
	shard->reclaim = inode->reclaim_next;
	if (!shard->reclaim)
		shard->reclaim_tail = &shard->reclaim;
	shards_set(inode->fs->table, inode->fs->table->reclaim_shards, shard, shard->reclaim != NULL);
	inode->is_on_reclaim = false;
	return inode;
}

/* --- references ----------------------------------------------------------------------------------------------------------- */

/* Kept with its locks, or gone. No longer in the table, or never there. */
static void object_give(struct fs *fs, struct inode *inode)
{
	unsigned slot = slot_mine();
	struct inode_pool *pool = &fs->table->pools[slot];

	if (slot == SLOT_SHARED || pool->count == POOL_MAX) {
		inode_destroy_object(inode);
		return;
	}
	inode->hash_next = pool->unused;
	pool->unused = inode;
	pool->count++;
}

static struct inode *object_take(struct fs *fs)
{
	unsigned slot = slot_mine();
	struct inode_pool *pool = &fs->table->pools[slot];
	struct inode *inode = slot == SLOT_SHARED ? NULL : pool->unused;

	if (inode) {
		pool->unused = inode->hash_next;
		pool->count--;
	}
	return inode;
}

static struct inode *inode_new_object(void)
{
	size_t bytes = round_up_u64(sizeof(struct inode), 64);
	struct inode *inode = aligned_alloc(64, bytes); /* threads that use two of them share no cache line */

	if (!inode)
		return NULL;
	memset(inode, 0, bytes);
	pthread_mutex_init(&inode->attr_lock, NULL);
	pthread_rwlock_init(&inode->data_lock, NULL);
	return inode;
}

void inode_free(struct inode *inode)
{
	object_give(inode->fs, inode);
}

struct inode *inode_alloc(struct fs *fs, inum_t ino, const struct inode_record *record)
{
	struct inode *inode = object_take(fs);

	if (!inode)
		inode = inode_new_object();
	if (!inode)
		return NULL;
	memset(&inode->ino, 0, sizeof(*inode) - offsetof(struct inode, ino));
	inode->ino = ino;
	inode->fs = fs;
	inode->type = record->mode & S_IFMT;
	inode_set_record(inode, record);
	atomic_init(&inode->references, 1);
	return inode;
}

struct inode *inode_find_ref(struct fs *fs, inum_t ino)
{
	struct inode_shard *shard = shard_lock(fs, ino);
	struct inode *inode = table_find(shard, ino);

	if (inode)
		inode_ref(inode);
	shard_unlock(shard);
	return inode;
}

/* Two readers may load the same inode at once: the first one's stays. */
struct inode *inode_publish(struct fs *fs, struct inode *mine)
{
	struct inode_shard *shard = shard_lock(fs, mine->ino);
	struct inode *other = table_find(shard, mine->ino);

	if (other)
		inode_ref(other);
	else
		table_add(shard, mine);
	shard_unlock(shard);
	if (!other)
		return mine;
	inode_free(mine);
	return other;
}

/* Read and published under one hold of the metadata lock: no change can fall between the two. */
static int inode_load(struct fs *fs, inum_t ino, struct inode **out)
{
	struct btree_key key = {{ino}};
	struct btree_record found;
	struct inode_record record;
	struct inode *inode;
	int error = btree_lookup(&fs->inodes, &key, &found);

	if (!error)
		error = format_inode_unpack(&record, found.value, found.length);
	if (error)
		return error;
	inode = inode_alloc(fs, ino, &record);
	if (!inode)
		return -ENOMEM;
	*out = inode_publish(fs, inode);
	return 0;
}

int inode_get_locked(struct fs *fs, inum_t ino, struct inode **out)
{
	struct inode *inode;

	if (fs_is_stopped(fs))
		return -EIO;
	inode = inode_find_ref(fs, ino);
	if (!inode)
		return inode_load(fs, ino, out);
	*out = inode;
	return 0;
}

int inode_get_anyway(struct fs *fs, inum_t ino, struct inode **out)
{
	struct inode *inode = inode_find_ref(fs, ino);
	int error;

	if (inode) {
		*out = inode;
		return 0;
	}
	journal_read_begin(fs->journal);
	error = inode_load(fs, ino, out);
	journal_read_end(fs->journal);
	return error;
}

int inode_get(struct fs *fs, inum_t ino, struct inode **out)
{
	return fs_is_stopped(fs) ? -EIO : inode_get_anyway(fs, ino, out);
}

int inode_get_tx(struct fs *fs, struct tx *tx, inum_t ino, struct inode **out)
{
	if (!tx_is_beside(tx))
		return inode_get_locked(fs, ino, out);
	if (fs_is_stopped(fs))
		return -EIO;
	*out = inode_find_ref(fs, ino); /* what it would load may be out of date */
	return *out ? 0 : -EAGAIN;
}

bool inode_is_cached(struct fs *fs, inum_t ino)
{
	struct inode_shard *shard = shard_lock(fs, ino);
	bool cached = table_find(shard, ino) != NULL;

	shard_unlock(shard);
	return cached;
}

bool inode_is_reclaimed(const struct inode *inode)
{
	struct inode_shard *shard = shard_lock(inode->fs, inode->ino);
	bool reclaimed = shard->reclaiming == inode->ino;

	shard_unlock(shard);
	return reclaimed;
}

void inode_set_reclaimed(struct fs *fs, inum_t ino, bool reclaimed)
{
	struct inode_shard *shard = shard_lock(fs, ino);

	shard->reclaiming = reclaimed ? ino : 0;
	shard_unlock(shard);
}

void inode_ref(struct inode *inode)
{
	atomic_fetch_add_explicit(&inode->references, 1, memory_order_relaxed);
}

void inode_add_lookup(struct inode *inode)
{
	struct inode_shard *shard = shard_lock(inode->fs, inode->ino);

	if (!inode->lookups++)
		inode_ref(inode);
	shard_unlock(shard);
}

/* Under the shard's lock; the caller still holds a reference of its own, or looks at it there. */
static void lookups_end(struct inode *inode, uint64_t count)
{
	if (!inode->lookups || !count)
		return;
	inode->lookups -= min_u64(count, inode->lookups);
	if (!inode->lookups)
		atomic_fetch_sub(&inode->references, 1);
}

/*
 * Nobody holds it any more: true when the caller is to free it. An orphan waits on the reclaim list, in the table, so that
 * whoever still knows its number finds the same object until it is taken.
 */
static bool inode_retire(struct inode_shard *shard, struct inode *inode)
{
	bool orphan;

	if (atomic_load(&inode->references) || inode->is_on_reclaim)
		return false;
	lock_mutex(&inode->attr_lock, LOCK_OBJECT);
	orphan = inode->record.nlink == 0;
	pthread_mutex_unlock(&inode->attr_lock);
	if (orphan)
		dirty_remove(shard, inode);
	if (orphan && inode->is_hashed && inode->ino != shard->reclaiming) {
		reclaim_add(shard, inode);
		return false;
	}
	if (inode->is_on_dirty)
		return false;
	table_remove(shard, inode);
	return true;
}

/* Give a reference back, and that many lookups. */
static void inode_drop(struct inode *inode, uint64_t lookups)
{
	struct fs *fs = inode->fs;
	struct inode_shard *shard = shard_lock(fs, inode->ino);
	bool gone, queued;

	lookups_end(inode, lookups);
	atomic_fetch_sub(&inode->references, 1);
	gone = inode_retire(shard, inode);
	queued = shard->reclaim != NULL;
	shard_unlock(shard);
	if (gone)
		object_give(fs, inode);
	if (queued)
		background_kick(fs);
}

/* The usual case needs no lock: others hold it too, the kernel as a rule. */
static bool reference_give_back(struct inode *inode)
{
	uint64_t references = atomic_load_explicit(&inode->references, memory_order_relaxed);

	while (references > 1)
		if (atomic_compare_exchange_weak_explicit(&inode->references, &references, references - 1, memory_order_release, memory_order_relaxed))
			return true;
	return false;
}

void inode_put(struct inode *inode)
{
	if (!reference_give_back(inode))
		inode_drop(inode, 0);
}

void fs_forget(struct fs *fs, inum_t ino, uint64_t count)
{
	struct inode *inode = inode_find_ref(fs, ino);

	if (!inode)
		return;
	inode_drop(inode, count);
	background_run_inline(fs);
}

static struct inode *shard_take_reclaim(struct inode_shard *shard, uint64_t before)
{
	struct inode *inode;

	lock_mutex(&shard->lock, LOCK_TABLE);
	do
		inode = reclaim_take(shard, before);
	while (inode && atomic_load(&inode->references)); /* found again by its number: the next put brings it back */
	if (inode)
		inode_ref(inode);
	shard_unlock(shard);
	return inode;
}

struct inode *inode_take_reclaim(struct fs *fs, unsigned *index, uint64_t before)
{
	struct inode_shard *shard;
	struct inode *inode = NULL;

	while (!inode && (shard = shards_find(fs->table, fs->table->reclaim_shards, *index))) {
		inode = shard_take_reclaim(shard, before);
		*index = (unsigned)(shard - fs->table->shards) + 1;
	}
	return inode;
}

bool inode_has_reclaim(struct fs *fs)
{
	return shards_find(fs->table, fs->table->reclaim_shards, 0) != NULL;
}

/* Numbers of a shard's inodes with lookup references, into an array that holds all of them. */
static size_t shard_list_known(struct inode_shard *shard, inum_t **out)
{
	size_t count = 0;

	lock_mutex(&shard->lock, LOCK_TABLE);
	*out = malloc((shard->count + 1) * sizeof(**out));
	for (size_t i = 0; *out && i < shard->count_buckets; i++)
		for (const struct inode *inode = shard->buckets[i]; inode; inode = inode->hash_next)
			if (inode->lookups || inode->ino == FS_ROOT_INO)
				(*out)[count++] = inode->ino;
	shard_unlock(shard);
	return count;
}

int fs_known(struct fs *fs, fs_known_fn *visit, void *arg)
{
	int result = 0;

	for (unsigned i = 0; i < INODE_SHARDS && !result; i++) {
		inum_t *inos;
		size_t count = shard_list_known(&fs->table->shards[i], &inos);

		if (!inos)
			return -ENOMEM;
		for (size_t k = 0; k < count && !result; k++)
			result = visit(arg, inos[k]);
		free(inos);
	}
	return result;
}

static void shard_forget_all(struct inode_shard *shard)
{
	lock_mutex(&shard->lock, LOCK_TABLE);
	for (size_t i = 0; i < shard->count_buckets; i++) {
		struct inode *next;

		for (struct inode *inode = shard->buckets[i]; inode; inode = next) {
			next = inode->hash_next;
			lookups_end(inode, inode->lookups);
			if (inode_retire(shard, inode))
				inode_destroy_object(inode);
		}
	}
	shard_unlock(shard);
}

void inode_forget_all(struct fs *fs)
{
	for (unsigned i = 0; i < INODE_SHARDS; i++)
		shard_forget_all(&fs->table->shards[i]);
}

/* --- what changes of a record need ------------------------------------------------------------------------------------------- */

void inode_mark_dirty(struct inode *inode)
{
	struct inode_shard *shard = shard_lock(inode->fs, inode->ino);

	dirty_add(shard, inode);
	shard_unlock(shard);
}

void inode_unmark_dirty(struct inode *inode)
{
	struct inode_shard *shard = shard_lock(inode->fs, inode->ino);

	dirty_remove(shard, inode);
	shard_unlock(shard);
}

struct inode *inode_take_dirty(struct fs *fs)
{
	struct inode_shard *shard;
	struct inode *inode = NULL;

	while (!inode && (shard = shards_find(fs->table, fs->table->dirty_shards, 0))) {
		lock_mutex(&shard->lock, LOCK_TABLE);
		inode = shard->dirty;
		if (inode) {
			dirty_remove(shard, inode);
			inode_ref(inode);
		}
		shard_unlock(shard);
	}
	return inode;
}

void inode_unhash(struct inode *inode)
{
	struct inode_shard *shard = shard_lock(inode->fs, inode->ino);

	dirty_remove(shard, inode);
	table_remove(shard, inode);
	shard_unlock(shard);
}
