/* One operation on names: a transaction, the inodes it holds, and the end of both. */
#ifndef FS_NAMES_H
#define FS_NAMES_H

#include "fs/dir.h"
#include "fs/inode.h"

#define NAMES_HELD_MAX 6

struct names_op {
	struct fs *fs;
	struct tx *tx;
	uint64_t now_ns;
	struct inode *dirs[2]; /* of one beside others: the directories that it has locked */
	struct inode *held[NAMES_HELD_MAX], *locked[NAMES_HELD_MAX];
	unsigned count_held, count_locked;
	bool sync;	      /* a directory of it asks that the change be durable when it returns */
	struct inode *result; /* gets a lookup reference and fills *attr when the operation succeeds */
	struct fs_attr *attr;
};

int names_begin(struct fs *fs, enum tx_kind kind, struct names_op *op);
/* Commit if error is 0, else abort; drop what is held. Returns the operation's outcome. */
int names_end(struct names_op *op, int error);
/*
 * Begin, change, end: beside others who change other directories, where that is possible, those who change one of these (`other` may be the same) waiting for each other, else alone. So `change`
 * may be called several times, each time within another transaction, and what it answers counts only if it runs alone.
 */
typedef int names_change_fn(struct names_op *op, void *arg);
int names_run(struct fs *fs, enum tx_kind kind, inum_t dir, inum_t other, names_change_fn *change, void *arg);
/* Held until names_end(), beside others with its data lock: -EAGAIN where somebody has that. */
int names_get(struct names_op *op, inum_t ino, struct inode **out);
/* A directory that still has a name, to be changed: -ENOTDIR, -ENOENT, -EPERM. */
int names_get_dir(struct names_op *op, inum_t ino, struct inode **out);
/* ctime, mtime where `modified`, change. */
void names_stamp(const struct names_op *op, struct inode_record *record, bool modified);
/* The directory gains or loses names and subdirectories. */
int names_update_dir(struct names_op *op, struct inode *dir, int entries, int subdirs);
/* nlink, ctime; an inode whose last name goes becomes an orphan, one that gets its first name is none any more. */
int names_change_links(struct names_op *op, struct inode *inode, int delta);
/* A name of `victim` goes, the caller removes or replaces the entry: its links; a directory must be empty and loses all of them. */
int names_drop_victim(struct names_op *op, struct inode *victim);
/* A new inode without a name, held until names_end(). */
int names_create_inode(struct names_op *op, const struct inode_record *record, struct inode **out);
/* A new inode and its name in dir. record is complete but for the number; names_end() answers with it. */
int names_add_new(struct names_op *op, struct inode *dir, const char *name, const struct inode_record *record, struct inode **out);
void names_init_record(const struct names_op *op, const struct fs_who *who, const struct inode *dir, mode_t mode,
		       struct inode_record *record);

#endif
