/* What the flags of an inode forbid and ask for. Internal to fs/. */
#ifndef FS_FLAGS_H
#define FS_FLAGS_H

#include <errno.h>

#include "fs/inode.h"

/* In a transaction: the record cannot change. -EPERM. */
static inline int flags_verify_change(const struct inode_record *record)
{
	return record->flags & (INODE_IMMUTABLE | INODE_APPEND) ? -EPERM : 0;
}

/* With the data lock, shared at least: fs_set_flags() takes it exclusively. Content from pos on; of append-only files only from the end on. */
int flags_verify_write(struct inode *inode, uint64_t pos);
/* The content as a whole, with the data lock. */
int flags_verify_replace(struct inode *inode);
/* `inode` leaves a name in `dir`. */
int flags_verify_removal(const struct inode *dir, const struct inode *inode);
/* `inode` gets a name in `dir`: -EXDEV when that has a project of its own. */
int flags_verify_entry(const struct inode *dir, const struct inode *inode);
/* What a new inode of this mode takes over from the directory that it is made in. */
void flags_inherit(struct inode_record *record, const struct inode_record *dir);
/* A change has been made, or a part of it: durable now if the inode is marked so. Returns `error`, or what went wrong here. No lock held but data locks. */
int flags_settle(struct inode *inode, int error);

#endif
