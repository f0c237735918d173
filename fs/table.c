#include "fs/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/background.h"

#define TABLE_BUCKETS_MIN 1024

/* --- the table ------------------------------------------------------------------------------------------------------------ */

int inode_table_create(struct inode_table **out)
{
	struct inode_table *table = calloc(1, sizeof(*table));

	if (!table)
		return -ENOMEM;
	table->count_buckets = TABLE_BUCKETS_MIN;
	table->buckets = calloc(table->count_buckets, sizeof(*table->buckets));
	if (!table->buckets) {
		free(table);
		return -ENOMEM;
	}
	pthread_mutex_init(&table->lock, NULL);
	pthread_mutex_init(&table->reclaim_lock, NULL);
	pthread_mutex_init(&table->shrink_lock, NULL);
	table->reclaim_tail = &table->reclaim;
	*out = table;
	return 0;
}

void inode_free(struct inode *inode)
{
	pthread_mutex_destroy(&inode->attr_lock);
	pthread_rwlock_destroy(&inode->data_lock);
	free(inode);
}

void inode_table_destroy(struct inode_table *table)
{
	if (!table)
		return;
	for (size_t i = 0; i < table->count_buckets; i++) {
		struct inode *next;

		for (struct inode *inode = table->buckets[i]; inode; inode = next) {
			next = inode->hash_next;
			inode_free(inode);
		}
	}
	pthread_mutex_destroy(&table->lock);
	pthread_mutex_destroy(&table->reclaim_lock);
	pthread_mutex_destroy(&table->shrink_lock);
	free(table->buckets);
	free(table);
}

static struct inode **table_bucket(struct inode_table *table, inum_t ino)
{
	return &table->buckets[(ino * 0x9e3779b97f4a7c15ull >> 20) & (table->count_buckets - 1)];
}

static struct inode *table_find(struct inode_table *table, inum_t ino)
{
	struct inode *inode = *table_bucket(table, ino);

	while (inode && inode->ino != ino)
		inode = inode->hash_next;
	return inode;
}

/* A table that cannot grow is slower, not wrong. */
static void table_grow(struct inode_table *table)
{
	size_t old_count = table->count_buckets;
	struct inode **old = table->buckets;
	struct inode **buckets = calloc(old_count * 2, sizeof(*buckets));

	if (!buckets)
		return;
	table->buckets = buckets;
	table->count_buckets = old_count * 2;
	for (size_t i = 0; i < old_count; i++) {
		while (old[i]) {
			struct inode *inode = old[i];
			struct inode **bucket = table_bucket(table, inode->ino);

			old[i] = inode->hash_next;
			inode->hash_next = *bucket;
			*bucket = inode;
		}
	}
	free(old);
}

static void table_add(struct inode_table *table, struct inode *inode)
{
	struct inode **bucket;

	if (table->count >= table->count_buckets)
		table_grow(table);
	bucket = table_bucket(table, inode->ino);
	inode->hash_next = *bucket;
	*bucket = inode;
	inode->is_hashed = true;
	table->count++;
}

static void table_remove(struct inode_table *table, struct inode *inode)
{
	struct inode **link = table_bucket(table, inode->ino);

	if (!inode->is_hashed)
		return;
	while (*link != inode)
		link = &(*link)->hash_next;
	*link = inode->hash_next;
	inode->is_hashed = false;
	table->count--;
}

static void dirty_add(struct inode_table *table, struct inode *inode)
{
	if (inode->is_on_dirty)
		return;
	inode->is_on_dirty = true;
	inode->dirty_prev = NULL;
	inode->dirty_next = table->dirty;
	if (table->dirty)
		table->dirty->dirty_prev = inode;
	table->dirty = inode;
}

static void dirty_remove(struct inode_table *table, struct inode *inode)
{
	if (!inode->is_on_dirty)
		return;
	inode->is_on_dirty = false;
	if (inode->dirty_prev)
		inode->dirty_prev->dirty_next = inode->dirty_next;
	else
		table->dirty = inode->dirty_next;
	if (inode->dirty_next)
		inode->dirty_next->dirty_prev = inode->dirty_prev;
}

static void reclaim_add(struct inode_table *table, struct inode *inode)
{
	if (inode->is_on_reclaim)
		return;
	inode->is_on_reclaim = true;
	inode->reclaim_next = NULL;
	*table->reclaim_tail = inode;
	table->reclaim_tail = &inode->reclaim_next;
}

static struct inode *reclaim_take(struct inode_table *table)
{
	struct inode *inode = table->reclaim;

	if (!inode)
		return NULL;
	table->reclaim = inode->reclaim_next;
	if (!table->reclaim)
		table->reclaim_tail = &table->reclaim;
	inode->is_on_reclaim = false;
	return inode;
}

/* --- references ----------------------------------------------------------------------------------------------------------- */

struct inode *inode_alloc(struct fs *fs, inum_t ino, const struct inode_record *record)
{
	struct inode *inode = calloc(1, sizeof(*inode));

	if (!inode)
		return NULL;
	inode->ino = ino;
	inode->fs = fs;
	inode->record = *record;
	inode->references = 1;
	pthread_mutex_init(&inode->attr_lock, NULL);
	pthread_rwlock_init(&inode->data_lock, NULL);
	return inode;
}

static struct inode *inode_find_ref(struct fs *fs, inum_t ino)
{
	struct inode *inode;

	pthread_mutex_lock(&fs->table->lock);
	inode = table_find(fs->table, ino);
	if (inode)
		inode->references++;
	pthread_mutex_unlock(&fs->table->lock);
	return inode;
}

/* Two readers may load the same inode at once: the first one's stays. */
struct inode *inode_publish(struct fs *fs, struct inode *mine)
{
	struct inode *other;

	pthread_mutex_lock(&fs->table->lock);
	other = table_find(fs->table, mine->ino);
	if (other)
		other->references++;
	else
		table_add(fs->table, mine);
	pthread_mutex_unlock(&fs->table->lock);
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
	struct inode *inode = inode_find_ref(fs, ino);

	if (!inode)
		return inode_load(fs, ino, out);
	*out = inode;
	return 0;
}

int inode_get(struct fs *fs, inum_t ino, struct inode **out)
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

int inode_get_tx(struct fs *fs, struct tx *tx, inum_t ino, struct inode **out)
{
	return inode_get_locked(fs, ino, out);
}

bool inode_is_cached(struct fs *fs, inum_t ino)
{
	bool cached;

	pthread_mutex_lock(&fs->table->lock);
	cached = table_find(fs->table, ino) != NULL;
	pthread_mutex_unlock(&fs->table->lock);
	return cached;
}

bool inode_is_reclaimed(const struct inode *inode)
{
	struct inode_table *table = inode->fs->table;
	bool reclaimed;

	pthread_mutex_lock(&table->lock);
	reclaimed = table->reclaiming == inode->ino;
	pthread_mutex_unlock(&table->lock);
	return reclaimed;
}

void inode_ref(struct inode *inode)
{
	pthread_mutex_lock(&inode->fs->table->lock);
	inode->references++;
	pthread_mutex_unlock(&inode->fs->table->lock);
}

void inode_add_lookup(struct inode *inode)
{
	pthread_mutex_lock(&inode->fs->table->lock);
	inode->lookups++;
	pthread_mutex_unlock(&inode->fs->table->lock);
}

/*
 * Nobody holds it any more: true when the caller is to free it. An orphan waits on the reclaim list, in the table, so that
 * whoever still knows its number finds the same object until it is taken.
 */
static bool inode_retire(struct inode_table *table, struct inode *inode)
{
	bool orphan;

	if (inode->references || inode->lookups || inode->is_on_reclaim)
		return false;
	pthread_mutex_lock(&inode->attr_lock);
	orphan = inode->record.nlink == 0;
	pthread_mutex_unlock(&inode->attr_lock);
	if (orphan)
		dirty_remove(table, inode);
	if (orphan && inode->is_hashed && inode->ino != table->reclaiming) {
		reclaim_add(table, inode);
		return false;
	}
	if (inode->is_on_dirty)
		return false;
	table_remove(table, inode);
	return true;
}

static void inode_drop(struct inode *inode, uint64_t references, uint64_t lookups)
{
	struct fs *fs = inode->fs;
	struct inode_table *table = fs->table;
	bool gone, queued;

	pthread_mutex_lock(&table->lock);
	inode->references -= references;
	inode->lookups -= min_u64(lookups, inode->lookups);
	gone = inode_retire(table, inode);
	queued = table->reclaim != NULL;
	pthread_mutex_unlock(&table->lock);
	if (gone)
		inode_free(inode);
	if (queued)
		background_kick(fs);
}

void inode_put(struct inode *inode)
{
	inode_drop(inode, 1, 0);
}

void fs_forget(struct fs *fs, inum_t ino, uint64_t count)
{
	struct inode *inode = inode_find_ref(fs, ino);

	if (!inode)
		return;
	inode_drop(inode, 1, count);
	background_run_inline(fs);
}

inum_t inode_take_reclaim(struct fs *fs)
{
	struct inode_table *table = fs->table;
	struct inode *inode;
	inum_t ino = 0;

	pthread_mutex_lock(&table->lock);
	while (!ino && (inode = reclaim_take(table))) {
		if (inode->references || inode->lookups)
			continue; /* found again by its number: the next put brings it back */
		ino = inode->ino;
		table_remove(table, inode);
		inode_free(inode);
	}
	pthread_mutex_unlock(&table->lock);
	return ino;
}

bool inode_has_reclaim(struct fs *fs)
{
	bool any;

	pthread_mutex_lock(&fs->table->lock);
	any = fs->table->reclaim != NULL;
	pthread_mutex_unlock(&fs->table->lock);
	return any;
}

void inode_forget_all(struct fs *fs)
{
	struct inode_table *table = fs->table;

	pthread_mutex_lock(&table->lock);
	for (size_t i = 0; i < table->count_buckets; i++) {
		struct inode *next;

		for (struct inode *inode = table->buckets[i]; inode; inode = next) {
			next = inode->hash_next;
			inode->lookups = 0;
			if (inode_retire(table, inode))
				inode_free(inode);
		}
	}
	pthread_mutex_unlock(&table->lock);
}

/* --- what changes of a record need ------------------------------------------------------------------------------------------- */

void inode_mark_dirty(struct inode *inode)
{
	pthread_mutex_lock(&inode->fs->table->lock);
	dirty_add(inode->fs->table, inode);
	pthread_mutex_unlock(&inode->fs->table->lock);
}

void inode_unmark_dirty(struct inode *inode)
{
	pthread_mutex_lock(&inode->fs->table->lock);
	dirty_remove(inode->fs->table, inode);
	pthread_mutex_unlock(&inode->fs->table->lock);
}

struct inode *inode_take_dirty(struct fs *fs)
{
	struct inode_table *table = fs->table;
	struct inode *inode;

	pthread_mutex_lock(&table->lock);
	inode = table->dirty;
	if (inode) {
		dirty_remove(table, inode);
		inode->references++;
	}
	pthread_mutex_unlock(&table->lock);
	return inode;
}

void inode_unhash(struct inode *inode)
{
	pthread_mutex_lock(&inode->fs->table->lock);
	dirty_remove(inode->fs->table, inode);
	table_remove(inode->fs->table, inode);
	pthread_mutex_unlock(&inode->fs->table->lock);
}
