/* Changes made in a transaction beside others where that is possible, else alone. */
#ifndef FS_CHANGE_H
#define FS_CHANGE_H

#include "fs/inode.h"

/*
 * What is done within the transaction, which the caller of it ends. It may be called several times, each time within another one, so it leaves nothing behind but
 * what an abort takes back; what it answers beside others counts only once it is done alone, or succeeds.
 */
typedef int change_fn(struct tx *tx, void *arg);
/*
 * Begin, change, end. The caller has what it changes in memory beside the trees: the data locks, for writing, of the inodes that it changes. Waits for none
 * but the transactions; no transaction, and not the metadata lock, is held by the caller. The change's error, or the commit's.
 */
int change_run(struct fs *fs, enum tx_kind kind, change_fn *change, void *arg);
/* At once alone: for who knows that it takes what only such a one has. */
int change_alone(struct fs *fs, enum tx_kind kind, change_fn *change, void *arg);
/* As change_run(), of one inode, whose data lock is taken if it can be had at once; else, also where the caller himself has it, the change is made alone. */
int change_inode(struct inode *inode, enum tx_kind kind, change_fn *change, void *arg);

/*
 * Look at trees, as a transaction beside others that changes nothing: nobody who shows what he has done waits for it. What it sees is of one moment in each block only, so it is for what the
 * caller keeps from changing: records of an inode whose data lock he has. An error says nothing: look again with the metadata lock.
 */
typedef int change_look_fn(void *arg);
int change_look(struct fs *fs, change_look_fn *look, void *arg);

/*
 * What both are made of, for those who take locks for each attempt anew. An attempt begins by change_begin() and ends with change_outcome() of its error, and of
 * whether that is the commit's. It is repeated while others are met, at last made alone.
 */
struct change_way {
	bool beside;
	maddr_t crowded; /* where another was met the last time */
};
typedef int change_attempt_fn(void *arg, const struct change_way *way);
int change_attempt(struct fs *fs, change_attempt_fn *attempt, void *arg);
int change_begin(struct fs *fs, enum tx_kind kind, const struct change_way *way, struct tx **out);
int change_outcome(const struct change_way *way, int error, bool in_commit);

#endif
