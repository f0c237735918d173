#include "fs/names.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/background.h"
#include "fs/change.h"
#include "fs/table.h"

int names_begin(struct fs *fs, enum tx_kind kind, struct names_op *op)
{
	*op = (struct names_op){.fs = fs};
	op->now_ns = time_now_ns();
	return fs_tx_begin(fs, kind, &op->tx);
}

static int names_finish(struct names_op *op, int error)
{
	error = tx_end(op->tx, error, NULL);
	if (!error && op->sync)
		error = journal_sync(op->fs->journal);
	if (!error && op->result) {
		inode_add_lookup(op->result);
		inode_attr(op->result, op->attr);
	}
	for (unsigned i = 0; i < op->count_locked; i++)
		pthread_rwlock_unlock(&op->locked[i]->data_lock);
	for (unsigned i = 0; i < op->count_held; i++)
		inode_put(op->held[i]);
	return error;
}

int names_end(struct names_op *op, int error)
{
	error = names_finish(op, error);
	background_run_inline(op->fs);
	return error;
}

static void names_hold(struct names_op *op, struct inode *inode)
{
	op->held[op->count_held++] = inode;
}

static bool names_has_locked(const struct names_op *op, const struct inode *inode)
{
	bool locked = inode == op->dirs[0] || inode == op->dirs[1];

	for (unsigned i = 0; i < op->count_locked; i++)
		locked |= inode == op->locked[i];
	return locked;
}

/* Who runs alone needs no lock. Within a transaction none is waited for. */
static int names_lock(struct names_op *op, struct inode *inode)
{
	if (!tx_is_beside(op->tx) || names_has_locked(op, inode))
		return 0;
	if (!lock_try_write(&inode->data_lock, LOCK_DATA))
		return -EAGAIN;
	op->locked[op->count_locked++] = inode;
	return 0;
}

int names_get(struct names_op *op, inum_t ino, struct inode **out)
{
	int error = inode_get_tx(op->fs, op->tx, ino, out);

	if (error)
		return error;
	names_hold(op, *out);
	return names_lock(op, *out);
}

int names_get_dir(struct names_op *op, inum_t ino, struct inode **out)
{
	int error = names_get(op, ino, out);

	if (error)
		return error;
	if (!S_ISDIR((*out)->record.mode))
		return -ENOTDIR;
	if (!(*out)->record.nlink)
		return -ENOENT;
	op->sync |= ((*out)->record.flags & (INODE_SYNC | INODE_DIRSYNC)) != 0;
	return (*out)->record.flags & INODE_IMMUTABLE ? -EPERM : 0;
}

int names_create_inode(struct names_op *op, const struct inode_record *record, struct inode **out)
{
	int error = inode_create(op->fs, op->tx, record, out);

	if (!error)
		names_hold(op, *out);
	return error;
}

/* --- beside others, or alone ---------------------------------------------------------------------------------------------- */

struct names_work {
	struct fs *fs;
	enum tx_kind kind;
	inum_t dirs[2]; /* the lower first; of one directory: twice the same */
	names_change_fn *change;
	void *arg;
};

static int names_work_in(const struct names_work *work, const struct change_way *way, struct inode *dirs[2])
{
	struct names_op op = {.fs = work->fs, .now_ns = time_now_ns()};
	int error = change_begin(work->fs, work->kind, way, &op.tx);
	bool in_commit = false;

	if (!error) {
		if (dirs)
			memcpy(op.dirs, dirs, sizeof(op.dirs));
		error = work->change(&op, work->arg);
		in_commit = !error;
		error = names_finish(&op, error);
	}
	return change_outcome(way, error, in_commit);
}

/* Locked, as two of anything are, in the order of their numbers. */
static int names_lock_dirs(const struct names_work *work, struct inode *dirs[2])
{
	int error = inode_get(work->fs, work->dirs[0], &dirs[0]);

	if (error)
		return error;
	dirs[1] = dirs[0];
	if (work->dirs[1] != work->dirs[0])
		error = inode_get(work->fs, work->dirs[1], &dirs[1]);
	if (error) {
		inode_put(dirs[0]);
		return error;
	}
	lock_write(&dirs[0]->data_lock, LOCK_DATA);
	if (dirs[1] != dirs[0])
		lock_write(&dirs[1]->data_lock, LOCK_DATA);
	return 0;
}

static void names_unlock_dirs(struct inode *dirs[2])
{
	for (unsigned i = dirs[1] != dirs[0] ? 2 : 1; i-- > 0;) {
		pthread_rwlock_unlock(&dirs[i]->data_lock);
		inode_put(dirs[i]);
	}
}

/* Who runs alone needs no lock of a directory. */
static int names_work(void *arg, const struct change_way *way)
{
	const struct names_work *work = arg;
	struct inode *dirs[2];
	int error;

	if (!way->beside)
		return names_work_in(work, way, NULL);
	if (names_lock_dirs(work, dirs))
		return -EAGAIN;
	error = names_work_in(work, way, dirs);
	names_unlock_dirs(dirs);
	return error;
}

int names_run(struct fs *fs, enum tx_kind kind, inum_t dir, inum_t other, names_change_fn *change, void *arg)
{
	struct names_work work = {.fs = fs, .kind = kind, .dirs = {min_u64(dir, other), max_u64(dir, other)}, .change = change, .arg = arg};
	int error = change_attempt(fs, names_work, &work);

	background_run_inline(fs);
	return error;
}
