#include "fs/orphan.h"

#include <errno.h>
#include <string.h>

#include "fs/table.h"
#include "journal/root.h"
#include "util/log.h"

#define ORPHANS_PER_BATCH 64

int orphan_add(struct fs *fs, struct tx *tx, inum_t ino)
{
	struct btree_key key = {{ino}};
	int error = btree_insert(&fs->orphans, tx, &key, NULL, 0);

	return error ? error : root_add(tx, ROOT_ORPHANS, 1);
}

int orphan_remove(struct fs *fs, struct tx *tx, inum_t ino)
{
	struct btree_key key = {{ino}};
	int error = btree_remove(&fs->orphans, tx, &key);

	return error ? error : root_add(tx, ROOT_ORPHANS, -1);
}

struct orphan_batch {
	inum_t inos[ORPHANS_PER_BATCH];
	unsigned count;
	struct inode *held[RECLAIM_TOGETHER]; /* of these, so that they need not be looked for again */
	unsigned count_held;
};

/* What cannot be reclaimed (its map is lost) stays recorded for fsck and the next mount; it is not tried again by this one. */
static void orphan_reclaim_one(struct fs *fs, inum_t ino)
{
	int error = orphan_reclaim(fs, &ino, 1);

	if (error && error != -ENOENT && error != -EROFS)
		log_error("inode %llu has no names but cannot be freed: %s", (unsigned long long)ino, strerror(-error));
}

/* Under the reclaim lock. */
static void orphan_reclaim_batch(struct fs *fs, const struct orphan_batch *batch)
{
	for (unsigned i = 0; i < batch->count; i++)
		inode_set_reclaimed(fs, batch->inos[i], true);
	if (batch->count == 1 || orphan_reclaim(fs, batch->inos, batch->count))
		for (unsigned i = 0; i < batch->count; i++)
			orphan_reclaim_one(fs, batch->inos[i]);
	for (unsigned i = 0; i < batch->count_held; i++)
		inode_put(batch->held[i]);
	for (unsigned i = 0; i < batch->count; i++)
		inode_set_reclaimed(fs, batch->inos[i], false);
}

/* Kept in ascending order: that is the order of their locks. */
static void batch_add(struct orphan_batch *batch, inum_t ino)
{
	unsigned at = batch->count++;

	for (; at && batch->inos[at - 1] > ino; at--)
		batch->inos[at] = batch->inos[at - 1];
	batch->inos[at] = ino;
}

/* One of each shard at most: a shard knows of one that is being reclaimed. */
static void orphan_take_batch(struct fs *fs, uint64_t before, unsigned *shard, struct orphan_batch *batch)
{
	struct inode *inode;

	batch->count = batch->count_held = 0;
	while (batch->count < RECLAIM_TOGETHER && (inode = inode_take_reclaim(fs, shard, before))) {
		batch->held[batch->count_held++] = inode;
		batch_add(batch, inode->ino);
	}
}

/* Once through all shards: has there been any? */
static bool orphan_reclaim_pass(struct fs *fs, uint64_t before)
{
	struct orphan_batch batch;
	unsigned shard = 0;
	bool any = false;

	do {
		pthread_mutex_lock(&fs->table->reclaim_lock);
		orphan_take_batch(fs, before, &shard, &batch);
		orphan_reclaim_batch(fs, &batch);
		pthread_mutex_unlock(&fs->table->reclaim_lock);
		any |= batch.count > 0;
	} while (batch.count == RECLAIM_TOGETHER);
	return any;
}

static void orphan_reclaim_before(struct fs *fs, uint64_t round)
{
	while (orphan_reclaim_pass(fs, round))
		;
}

void orphan_reclaim_queued(struct fs *fs)
{
	orphan_reclaim_before(fs, UINT64_MAX);
}

void orphan_reclaim_older(struct fs *fs)
{
	orphan_reclaim_before(fs, atomic_fetch_add(&fs->table->reclaim_round, 1));
}

static int orphan_collect(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct orphan_batch *batch = arg;

	batch->inos[batch->count++] = key->word[0];
	return batch->count == ORPHANS_PER_BATCH;
}

static int orphan_next_batch(struct fs *fs, inum_t from, struct orphan_batch *batch)
{
	struct btree_key first = {{from}}, last = {{UINT64_MAX}};
	int error;

	batch->count = 0;
	journal_read_begin(fs->journal);
	error = btree_walk(&fs->orphans, &first, &last, orphan_collect, batch);
	journal_read_end(fs->journal);
	return error < 0 ? error : 0;
}

static void orphan_reclaim_left_one(struct fs *fs, inum_t ino)
{
	struct orphan_batch batch = {.inos = {ino}, .count = 1};

	pthread_mutex_lock(&fs->table->reclaim_lock);
	orphan_reclaim_batch(fs, &batch);
	pthread_mutex_unlock(&fs->table->reclaim_lock);
}

void orphan_reclaim_left(struct fs *fs, const bool *stop)
{
	struct orphan_batch batch;
	inum_t from = 1;
	int error;

	do {
		error = orphan_next_batch(fs, from, &batch);
		for (unsigned i = 0; i < batch.count; i++) {
			if (stop && __atomic_load_n(stop, __ATOMIC_RELAXED))
				return;
			if (!inode_is_cached(fs, batch.inos[i]))
				orphan_reclaim_left_one(fs, batch.inos[i]);
		}
		if (batch.count)
			from = batch.inos[batch.count - 1] + 1;
	} while (!error && batch.count == ORPHANS_PER_BATCH);
	if (error)
		log_error("the list of inodes without names cannot be read: %s", strerror(-error));
}
