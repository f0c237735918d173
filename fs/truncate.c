/* Unmapping in chains: truncate, the unmapping half of punch, and the end of inodes without names.
 */
#include "fs/data.h"

#include <errno.h>
#include <string.h>

#include "fs/change.h"
#include "fs/flags.h"
#include "journal/root.h"
#include "util/log.h"

#define RECLAIM_RECORDS 64
#define RECLAIM_ROOM_BLOCKS 24 /* what the last link joins besides the extents */

int chain_failed(struct fs *fs, inum_t ino, const char *what, int error)
{
	log_error("%s of inode %llu stopped half way: %s; the next mount finishes it", what,
		  (unsigned long long)ino, strerror(-error));
	fs_shutdown(fs, "chain_failed");
	return error;
}

struct unmap_chain {
	struct inode *inode;
	struct intent_record intent; /* args: inode, next file block, end (of a truncate: none, up
					to the end of the map) */
	uint64_t end, id;
	bool begun, finished;
	const uint64_t *size; /* of the file, set by the first link; NULL: as it is */
};

static int unmap_link_intent(struct unmap_chain *chain, struct tx *tx)
{
	struct fs *fs = chain->inode->fs;

	if (chain->finished)
		return chain->begun ? intent_end(fs, tx, chain->id) : 0;
	if (chain->begun)
		return intent_advance(fs, tx, chain->id, &chain->intent);
	return intent_begin(fs, tx, &chain->intent, &chain->id);
}

struct unmap_link {
	const struct unmap_chain *from;
	struct unmap_chain to;
};

/* Beside others it unmaps all or nothing: a chain would have less room there, and write its intent where all meet. */
static int unmap_link_apply(struct tx *tx, void *arg)
{
	struct unmap_link *link = arg;
	struct unmap_chain *chain = &link->to;
	struct inode *inode = link->from->inode;
	struct inode_record record;
	uint64_t next, unmapped;
	int error;

	*chain = *link->from;
	inode_copy_record(inode, &record);
	error = extent_unmap(inode->fs, tx, inode, chain->intent.args[1], chain->end, &next, &unmapped);
	if (error)
		return error;
	if (unmapped > record.count_blocks)
		return -EUCLEAN;
	record.count_blocks -= unmapped;
	if (!chain->begun)
		record_touch(&record);
	if (!chain->begun && chain->size)
		record.size_bytes = *chain->size;
	chain->finished = next >= chain->end;
	chain->intent.args[1] = next;
	if (!chain->finished && tx_is_beside(tx))
		return -EAGAIN;
	error = inode_update(inode, tx, &record);
	return error ? error : unmap_link_intent(chain, tx);
}

static int unmap_link(struct unmap_chain *chain)
{
	struct unmap_link link = {.from = chain};
	int error = (chain->begun ? change_alone : change_run)(chain->inode->fs, TX_RESERVE, unmap_link_apply, &link);

	if (error)
		return error;
	*chain = link.to;
	chain->begun = true;
	return 0;
}

static int unmap_chain_run(struct unmap_chain *chain)
{
	int error = 0;

	while (!error && !chain->finished)
		error = unmap_link(chain);
	if (error && chain->begun && error != -EROFS)
		return chain_failed(chain->inode->fs, chain->inode->ino, "unmapping", error);
	return error;
}

int file_unmap_chain(struct inode *inode, enum intent_op op, uint64_t file_block, uint64_t end,
		     const uint64_t *size)
{
	struct unmap_chain chain = {.inode = inode,
				    .intent = {.op = op, .args = {inode->ino, file_block}},
				    .end = end,
				    .size = size};

	if (op == INTENT_PUNCH)
		chain.intent.args[2] = end;
	return unmap_chain_run(&chain);
}

struct size_change {
	struct inode *inode;
	uint64_t size;
};

static int size_store(struct tx *tx, void *arg)
{
	const struct size_change *change = arg;
	struct inode_record record;

	inode_copy_record(change->inode, &record);
	record.size_bytes = change->size;
	record_touch(&record);
	return inode_update(change->inode, tx, &record);
}

int file_raise_size(struct inode *inode, uint64_t size)
{
	int error = file_zero_tail(inode);

	return error ? error : change_run(inode->fs, TX_NORMAL, size_store, &(struct size_change){inode, size});
}

int file_truncate(struct inode *inode, uint64_t size)
{
	int error;

	if (size > FS_FILE_MAX)
		return -EFBIG;
	lock_write(&inode->data_lock, LOCK_DATA);
	error = flags_verify_replace(inode);
	if (!error && size > file_size(inode))
		error = file_raise_size(inode, size);
	else if (!error)
		error = file_unmap_chain(inode, INTENT_TRUNCATE, file_block_up(size),
					 FILE_BLOCKS_END, &size);
	pthread_rwlock_unlock(&inode->data_lock);
	return error;
}

/* --- inodes without names ------------------------------------------------------------------- */

/* Remove the records of one inode from a tree, as many as this transaction takes. */
static int reclaim_records(const struct btree *tree, struct tx *tx, inum_t ino, bool *finished)
{
	struct btree_key key = {{ino}};
	struct btree_record record;
	unsigned i;
	int error;

	*finished = false;
	for (i = 0; i < RECLAIM_RECORDS && (i == 0 || tx_room(tx) >= RECLAIM_ROOM_BLOCKS); i++) {
		error = btree_lookup_ge(tree, &key, &record);
		if (error == -ENOENT || (!error && record.key.word[0] != ino)) {
			*finished = true;
			return 0;
		}
		if (!error)
			error = btree_remove(tree, tx, &record.key);
		if (error)
			return error;
	}
	return 0;
}

static int reclaim_apply(struct inode *inode, struct tx *tx, bool *finished)
{
	struct fs *fs = inode->fs;
	struct inode_record record;
	uint64_t next, unmapped;
	int error;

	inode_copy_record(inode, &record);
	error = record.nlink ? -EUCLEAN : extent_unmap(fs, tx, inode, 0, FILE_BLOCKS_END, &next, &unmapped);
	if (error)
		return error;
	/*
	 * A link that had nothing to unmap goes on whatever room there is: else a small journal
	 * would never see the end.
	 */
	*finished = next >= FILE_BLOCKS_END && (!unmapped || tx_room(tx) >= RECLAIM_ROOM_BLOCKS);
	if (*finished)
		error = reclaim_records(&fs->xattrs, tx, inode->ino, finished);
	if (!error && *finished)
		error = reclaim_records(&fs->damaged, tx, inode->ino, finished);
	if (!error && *finished)
		return inode_destroy(inode, tx);
	record.size_bytes = 0;
	record.count_blocks -= min_u64(unmapped, record.count_blocks);
	return error ? error : inode_update(inode, tx, &record);
}

struct reclaim {
	struct inode **inodes;
	unsigned count, done;
	unsigned then; /* done */
	bool goes_on;  /* a part of the first is done, as it is large */
};

/* One transaction: as many of them as it takes, or a part of one, for which one beside others has little room. */
static int reclaim_link_apply(struct tx *tx, void *arg)
{
	struct reclaim *reclaim = arg;
	unsigned now = reclaim->done;
	bool finished = false;
	int error;

	do {
		error = reclaim_apply(reclaim->inodes[now], tx, &finished);
		now += !error && finished;
	} while (!error && finished && now < reclaim->count && tx_room(tx) >= RECLAIM_ROOM_BLOCKS);
	reclaim->then = now;
	return !error && now == reclaim->done && tx_is_beside(tx) ? -EAGAIN : error;
}

static int reclaim_link(struct reclaim *reclaim)
{
	struct fs *fs = reclaim->inodes[0]->fs;
	int error = (reclaim->goes_on ? change_alone : change_run)(fs, TX_RESERVE, reclaim_link_apply, reclaim);

	if (error)
		return error;
	reclaim->goes_on = reclaim->then == reclaim->done;
	reclaim->done = reclaim->then;
	return 0;
}

/* An orphans record without an inode: only the record goes. */
static int reclaim_record_alone(struct fs *fs, inum_t ino)
{
	struct btree_key key = {{ino}};
	struct tx *tx;
	int error = fs_tx_begin(fs, TX_RESERVE, &tx);

	if (error)
		return error;
	error = btree_remove(&fs->orphans, tx, &key);
	if (!error)
		error = root_add(tx, ROOT_ORPHANS, -1);
	return tx_end(tx, error, NULL);
}

static int reclaim_all(struct inode **inodes, unsigned count)
{
	struct reclaim reclaim = {.inodes = inodes, .count = count};
	int error = 0;

	for (unsigned i = 0; i < count; i++)
		lock_write(&inodes[i]->data_lock, LOCK_DATA);
	while (!error && reclaim.done < count)
		error = reclaim_link(&reclaim);
	for (unsigned i = 0; i < count; i++)
		pthread_rwlock_unlock(&inodes[i]->data_lock);
	return error;
}

int orphan_reclaim(struct fs *fs, const inum_t *inos, unsigned count)
{
	struct inode *inodes[RECLAIM_TOGETHER];
	unsigned got = 0;
	int error = 0;

	while (got < count && !(error = inode_get(fs, inos[got], &inodes[got])))
		got++;
	if (!error)
		error = reclaim_all(inodes, count);
	else if (error == -ENOENT && count == 1)
		error = reclaim_record_alone(fs, inos[0]);
	while (got)
		inode_put(inodes[--got]);
	return error;
}

/* --- at mount ------------------------------------------------------------------------------- */

static int intent_drop(struct fs *fs, uint64_t id)
{
	struct tx *tx;
	int error = fs_tx_begin(fs, TX_RESERVE, &tx);

	if (error)
		return error;
	error = intent_end(fs, tx, id);
	return tx_end(tx, error, NULL);
}

int file_unmap_resume(struct inode *inode, uint64_t id, const struct intent_record *intent)
{
	struct unmap_chain chain = {
	    .inode = inode, .intent = *intent, .end = FILE_BLOCKS_END, .id = id, .begun = true};

	if (intent->op == INTENT_PUNCH)
		chain.end = intent->args[2];
	return chain.end > FILE_BLOCKS_END ? -EUCLEAN : unmap_chain_run(&chain);
}

static int truncate_finish(struct fs *fs, uint64_t id, const struct intent_record *intent)
{
	struct inode *inode;
	int error = inode_get(fs, intent->args[0], &inode);

	if (error)
		return error;
	lock_write(&inode->data_lock, LOCK_DATA);
	error = file_unmap_resume(inode, id, intent);
	pthread_rwlock_unlock(&inode->data_lock);
	inode_put(inode);
	return error;
}

int intent_finish(struct fs *fs, uint64_t id, const struct intent_record *intent)
{
	int error;

	switch (intent->op) {
	case INTENT_TRUNCATE:
	case INTENT_PUNCH:
		error = truncate_finish(fs, id, intent);
		break;
	case INTENT_CLONE:
		error = clone_finish(fs, id, intent);
		break;
	default:
		return -EUCLEAN;
	}
	/* Its inode was freed meanwhile: nothing is left to finish. */
	return error == -ENOENT ? intent_drop(fs, id) : error;
}
