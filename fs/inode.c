#include "fs/table.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "fs/change.h"
#include "fs/xattr.h"
#include "journal/root.h"

#define FLUSH_TOGETHER 32u /* inodes whose times go into one transaction */

uint64_t time_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- attributes ----------------------------------------------------------------------------------------------------------- */

void inode_copy_record(struct inode *inode, struct inode_record *out)
{
	struct fs_attr attr;

	inode_attr(inode, &attr);
	*out = attr.record;
}

void inode_attr(struct inode *inode, struct fs_attr *out)
{
	out->ino = inode->ino;
	lock_mutex(&inode->attr_lock, LOCK_OBJECT);
	out->record = inode->record;
	pthread_mutex_unlock(&inode->attr_lock);
}

static void inode_undo(struct inode *inode)
{
	struct inode_record now;
	bool dirty;

	lock_mutex(&inode->attr_lock, LOCK_OBJECT);
	now = inode->record;
	inode_set_record(inode, &inode->undo.record);
	if (inode->times_dirty) { /* overwritten since: that did happen */
		inode->record.mtime = now.mtime;
		inode->record.ctime = now.ctime;
		inode->record.change = now.change;
	}
	if (inode->atime_dirty) /* read since */
		inode->record.atime = now.atime;
	inode->times_dirty |= inode->undo.times_dirty;
	inode->atime_dirty |= inode->undo.atime_dirty;
	dirty = inode->times_dirty || inode->atime_dirty;
	pthread_mutex_unlock(&inode->attr_lock);
	if (dirty)
		inode_mark_dirty(inode);
}

static void inode_undo_hook(void *arg, bool committed, uint64_t sequence)
{
	struct inode *inode = arg;

	inode->has_undo = false;
	if (!committed)
		inode_undo(inode);
	inode_put(inode);
}

/* Once per transaction: the first image is the one to go back to. */
static int inode_add_undo(struct inode *inode, struct tx *tx)
{
	int error;

	if (inode->has_undo)
		return 0;
	error = tx_add_hook(tx, inode_undo_hook, inode);
	if (error)
		return error;
	lock_mutex(&inode->attr_lock, LOCK_OBJECT);
	inode->undo.record = inode->record;
	inode->undo.times_dirty = inode->times_dirty;
	inode->undo.atime_dirty = inode->atime_dirty;
	pthread_mutex_unlock(&inode->attr_lock);
	inode_ref(inode);
	inode->has_undo = true;
	return 0;
}

/*
 * A pure overwrite or a read that set its lazy times after this transaction began may not be in the caller's copy of the record: it
 * happened alongside, so its times win.
 */
static void inode_merge_lazy(struct inode *inode, struct inode_record *record)
{
	uint64_t started_ns = inode->fs->table->numbers[slot_mine()].tx_started_ns;

	if (inode->atime_dirty && inode->access_ns >= started_ns)
		record->atime = inode->record.atime;
	if (!inode->times_dirty || inode->lazy_ns < started_ns)
		return;
	record->mtime = inode->record.mtime;
	record->ctime = inode->record.ctime;
	record->change = max_u64(record->change, inode->record.change) + 1;
}

static int inode_store(struct fs *fs, struct tx *tx, inum_t ino, const struct inode_record *record, bool is_new)
{
	struct btree_key key = {{ino}};
	struct format_inode packed;

	format_inode_pack(&packed, record);
	if (is_new)
		return btree_insert(&fs->inodes, tx, &key, &packed, sizeof(packed));
	return btree_update(&fs->inodes, tx, &key, &packed, sizeof(packed));
}

int inode_update(struct inode *inode, struct tx *tx, const struct inode_record *record)
{
	struct inode_record merged = *record;
	int error = inode_add_undo(inode, tx);

	if (error)
		return error;
	lock_mutex(&inode->attr_lock, LOCK_OBJECT);
	inode_merge_lazy(inode, &merged);
	inode_set_record(inode, &merged);
	inode->times_dirty = inode->atime_dirty = false;
	inode_access_expire(inode);
	pthread_mutex_unlock(&inode->attr_lock);
	return inode_store(inode->fs, tx, inode->ino, &merged, false);
}

void inode_touch_lazily(struct inode *inode)
{
	uint64_t now = time_now_ns();
	bool was_dirty;

	lock_mutex(&inode->attr_lock, LOCK_OBJECT);
	inode->record.mtime.sec = (int64_t)(now / 1000000000u);
	inode->record.mtime.nsec = (uint32_t)(now % 1000000000u);
	inode->record.ctime = inode->record.mtime;
	inode->record.change++;
	inode->lazy_ns = now;
	inode_access_expire(inode);
	was_dirty = inode->times_dirty || inode->atime_dirty;
	inode->times_dirty = true;
	pthread_mutex_unlock(&inode->attr_lock);
	if (!was_dirty)
		inode_mark_dirty(inode);
}

static bool inode_has_lazy_times(struct inode *inode)
{
	bool dirty;

	lock_mutex(&inode->attr_lock, LOCK_OBJECT);
	dirty = inode->times_dirty || inode->atime_dirty;
	pthread_mutex_unlock(&inode->attr_lock);
	return dirty;
}

struct flush {
	struct inode **inodes;
	unsigned count;
};

static int flush_store(struct tx *tx, void *arg)
{
	const struct flush *flush = arg;
	struct inode_record record;
	int error = 0;

	for (unsigned i = 0; i < flush->count && !error; i++) {
		inode_copy_record(flush->inodes[i], &record);
		error = inode_update(flush->inodes[i], tx, &record);
	}
	return error;
}

/* All of them or none. */
static int flush_together(struct inode **inodes, unsigned count)
{
	struct tx *tx;
	int error = fs_tx_begin(inodes[0]->fs, TX_RESERVE, &tx);

	if (error)
		return error;
	return tx_end(tx, flush_store(tx, &(struct flush){inodes, count}), NULL);
}

int inode_flush_times(struct inode *inode)
{
	return inode_has_lazy_times(inode) ? change_inode(inode, TX_RESERVE, flush_store, &(struct flush){&inode, 1}) : 0;
}

/* Without this the undo hook would bring it back for ever. */
static void inode_lose_times(struct inode *inode)
{
	lock_mutex(&inode->attr_lock, LOCK_OBJECT);
	inode->times_dirty = inode->atime_dirty = false;
	pthread_mutex_unlock(&inode->attr_lock);
	inode_unmark_dirty(inode);
}

static unsigned flush_take(struct fs *fs, struct inode **inodes)
{
	unsigned count = 0;

	while (count < FLUSH_TOGETHER && (inodes[count] = inode_take_dirty(fs))) {
		if (inode_has_lazy_times(inodes[count]))
			count++;
		else
			inode_put(inodes[count]);
	}
	return count;
}

static int flush_alone(struct inode *inode)
{
	int error = inode_flush_times(inode);

	if (error)
		inode_lose_times(inode);
	return error;
}

int inode_flush_all(struct fs *fs)
{
	struct inode *inodes[FLUSH_TOGETHER];
	unsigned count;
	int first = 0;

	while ((count = flush_take(fs, inodes))) {
		bool together = !flush_together(inodes, count);

		for (unsigned i = 0; i < count; i++) {
			int error = together ? 0 : flush_alone(inodes[i]);

			first = first ? first : error;
			inode_put(inodes[i]);
		}
	}
	return first;
}

/* --- birth and death ------------------------------------------------------------------------------------------------------ */

static void numbers_hook(void *arg, bool committed, uint64_t sequence)
{
	struct inode_numbers *numbers = arg;

	/* The root block never said that these were taken. */
	if (!committed)
		numbers->next = numbers->end = 0;
}

static int numbers_refill(struct fs *fs, struct tx *tx, struct inode_numbers *numbers)
{
	inum_t first = root_get(fs->journal, ROOT_NEXT_INO), end = round_down_u64(first, INODE_BATCH) + INODE_BATCH;
	int error = root_add(tx, ROOT_NEXT_INO, (int64_t)(end - first));

	if (!error)
		error = tx_add_hook(tx, numbers_hook, numbers);
	if (error)
		return error;
	numbers->next = first;
	numbers->end = end;
	return 0;
}

static int inode_take_number(struct fs *fs, struct tx *tx, inum_t *out)
{
	struct inode_numbers *numbers = &fs->table->numbers[slot_mine()];
	int error = 0;

	if (numbers->next == numbers->end)
		error = tx_is_beside(tx) ? -EAGAIN : numbers_refill(fs, tx, numbers);
	if (!error)
		*out = numbers->next++;
	return error;
}

static void inode_birth_hook(void *arg, bool committed, uint64_t sequence)
{
	struct inode *inode = arg;

	if (!committed)
		inode_unhash(inode);
	inode_put(inode);
}

int inode_create(struct fs *fs, struct tx *tx, const struct inode_record *record, struct inode **out)
{
	struct inode *inode;
	inum_t ino;
	int error = inode_take_number(fs, tx, &ino);

	if (!error)
		error = root_add(tx, ROOT_INODES, 1);
	if (!error)
		error = inode_store(fs, tx, ino, record, true);
	if (error)
		return error;
	inode = inode_alloc(fs, ino, record);
	if (!inode)
		return -ENOMEM;
	atomic_store(&inode->xattrs_known, XATTRS_ABSENT_ALL);
	error = tx_add_hook(tx, inode_birth_hook, inode);
	if (error) {
		inode_free(inode);
		return error;
	}
	inode_ref(inode);
	*out = inode_publish(fs, inode);
	return 0;
}

static void inode_death_hook(void *arg, bool committed, uint64_t sequence)
{
	struct inode *inode = arg;

	if (committed)
		inode_unhash(inode);
	inode_put(inode);
}

int inode_destroy(struct inode *inode, struct tx *tx)
{
	struct fs *fs = inode->fs;
	struct btree_key key = {{inode->ino}};
	int error = btree_remove(&fs->orphans, tx, &key);

	if (!error)
		error = root_add(tx, ROOT_ORPHANS, -1);
	if (!error)
		error = btree_remove(&fs->inodes, tx, &key);
	if (!error)
		error = root_add(tx, ROOT_INODES, -1);
	if (!error)
		error = tx_add_hook(tx, inode_death_hook, inode);
	if (!error)
		inode_ref(inode);
	return error;
}
