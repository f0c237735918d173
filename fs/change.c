#include "fs/change.h"

#include <errno.h>

#include "util/spin.h"

#define BESIDE_TRIES 4
#define BESIDE_PAUSES 40 /* about as long as another has what it changes */

/* --- beside others, or alone ---------------------------------------------------------------------------------------------- */

int change_begin(struct fs *fs, enum tx_kind kind, const struct change_way *way, struct tx **out)
{
	int error = way->beside ? fs_tx_begin_beside(fs, kind, out) : fs_tx_begin(fs, kind, out);

	if (!error)
		tx_set_crowded(*out, way->crowded);
	return error;
}

/* -EDEADLK: once more; -EAGAIN: it is to be done alone, for whatever reason: only then an error is certain. */
int change_outcome(const struct change_way *way, int error, bool in_commit)
{
	return way->beside && error && error != -EDEADLK && !in_commit ? -EAGAIN : error;
}

int change_attempt(struct fs *fs, change_attempt_fn *attempt, void *arg)
{
	struct change_way way = {.beside = true};
	int error = attempt(arg, &way);

	for (unsigned i = 1; i < BESIDE_TRIES && error == -EDEADLK; i++) {
		way.crowded = tx_met(fs->journal);
		for (unsigned k = 0; k < BESIDE_PAUSES; k++)
			spin_pause();
		error = attempt(arg, &way);
	}
	if (error != -EAGAIN && error != -EDEADLK)
		return error;
	way.beside = false;
	return attempt(arg, &way);
}

/* --- of what the caller has locked ---------------------------------------------------------------------------------------- */

struct change_work {
	struct fs *fs;
	enum tx_kind kind;
	change_fn *change;
	void *arg;
};

static int change_work(void *arg, const struct change_way *way)
{
	const struct change_work *work = arg;
	struct tx *tx;
	bool in_commit = false;
	int error = change_begin(work->fs, work->kind, way, &tx);

	if (!error) {
		error = work->change(tx, work->arg);
		in_commit = !error;
		error = tx_end(tx, error, NULL);
	}
	return change_outcome(way, error, in_commit);
}

int change_run(struct fs *fs, enum tx_kind kind, change_fn *change, void *arg)
{
	return change_attempt(fs, change_work, &(struct change_work){.fs = fs, .kind = kind, .change = change, .arg = arg});
}

int change_alone(struct fs *fs, enum tx_kind kind, change_fn *change, void *arg)
{
	struct change_work work = {.fs = fs, .kind = kind, .change = change, .arg = arg};

	return change_work(&work, &(struct change_way){.beside = false});
}

/* Whoever runs alone needs no lock, and nobody waits long for one who reads or writes much. */
int change_inode(struct inode *inode, enum tx_kind kind, change_fn *change, void *arg)
{
	int error;

	if (!lock_try_write(&inode->data_lock, LOCK_DATA))
		return change_alone(inode->fs, kind, change, arg);
	error = change_run(inode->fs, kind, change, arg);
	pthread_rwlock_unlock(&inode->data_lock);
	return error;
}

int change_look(struct fs *fs, change_look_fn *look, void *arg)
{
	struct tx *tx;
	int error = tx_begin_beside(fs->journal, TX_NORMAL, &tx);

	if (error)
		return error;
	error = look(arg);
	tx_abort(tx);
	return error;
}
