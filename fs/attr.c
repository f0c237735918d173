#include <errno.h>
#include <sys/stat.h>

#include "fs/acl.h"
#include "fs/change.h"
#include "fs/flags.h"

#define SET_TIMES                                                                                                      \
	(FS_SET_ATIME | FS_SET_MTIME | FS_SET_ATIME_NOW | FS_SET_MTIME_NOW | FS_SET_CTIME)

int fs_getattr(struct fs *fs, inum_t ino, struct fs_attr *out)
{
	struct inode *inode;
	/* What is mounted must be had when nothing else can: tools find it by the root's attributes. */
	int error = ino == FS_ROOT_INO ? inode_get_anyway(fs, ino, &inode) : inode_get(fs, ino, &inode);

	if (error)
		return error;
	inode_attr(inode, out);
	inode_put(inode);
	return 0;
}

static void attr_set_times(struct inode_record *record, unsigned set, const struct inode_record *values, uint64_t now_ns)
{
	struct inode_record now = {
		.ctime = {.sec = (int64_t)(now_ns / 1000000000u), .nsec = (uint32_t)(now_ns % 1000000000u)},
	};

	if (set & FS_SET_ATIME)
		record->atime = values->atime;
	if (set & FS_SET_MTIME)
		record->mtime = values->mtime;
	if (set & FS_SET_ATIME_NOW) {
		record->atime.sec = now.ctime.sec;
		record->atime.nsec = now.ctime.nsec;
	}
	if (set & FS_SET_MTIME_NOW) {
		record->mtime.sec = now.ctime.sec;
		record->mtime.nsec = now.ctime.nsec;
	}
	record->ctime = set & FS_SET_CTIME ? values->ctime : now.ctime;
}

static bool mode_has_ids(uint32_t mode)
{
	return (mode & S_ISUID) || (mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP);
}

static bool mode_is_setgid_alone(uint32_t mode)
{
	return (mode & (S_ISGID | S_IXGRP)) == S_ISGID;
}

static void kill_ids(struct inode_record *record)
{
	if (S_ISDIR(record->mode) || !mode_has_ids(record->mode))
		return;
	record->mode &= ~(uint32_t)S_ISUID;
	if (record->mode & S_IXGRP)
		record->mode &= ~(uint32_t)S_ISGID;
}

/* A new owner did not ask for what the old one allowed; whoever sets the mode as well has decided. */
static bool set_kills_ids(unsigned set)
{
	return (set & FS_SET_KILL_SUIDGID) || ((set & (FS_SET_UID | FS_SET_GID)) && !(set & FS_SET_MODE));
}

static void attr_set(struct inode_record *record, unsigned set, const struct inode_record *values)
{
	if (set & FS_SET_MODE)
		record->mode = (record->mode & S_IFMT) | (values->mode & 07777);
	if (set & FS_SET_UID)
		record->uid = values->uid;
	if (set & FS_SET_GID)
		record->gid = values->gid;
	if (set_kills_ids(set))
		kill_ids(record);
	if ((set & FS_SET_KILL_SETGID) && !S_ISDIR(record->mode))
		record->mode &= ~(uint32_t)S_ISGID;
	attr_set_times(record, set, values, time_now_ns());
	record->change++;
}

static int attr_verify(struct inode *inode, unsigned set, const struct inode_record *values)
{
	struct fs_attr attr;

	if (((set & FS_SET_ATIME) && values->atime.nsec >= 1000000000u) ||
	    ((set & FS_SET_MTIME) && values->mtime.nsec >= 1000000000u) ||
	    ((set & FS_SET_CTIME) && values->ctime.nsec >= 1000000000u))
		return -EINVAL;
	inode_attr(inode, &attr);
	if (!(set & FS_SET_SIZE) || S_ISREG(attr.record.mode))
		return 0;
	return S_ISDIR(attr.record.mode) ? -EISDIR : -EINVAL;
}

/* Append-only files keep mode, owner and chosen times, but are touched; times that come with their ctime are a cache's, written down late. */
static int attr_verify_flags(const struct inode_record *record, unsigned set)
{
	if (record->flags & INODE_IMMUTABLE)
		return -EPERM;
	if (!(record->flags & INODE_APPEND) || (set & FS_SET_CTIME))
		return 0;
	return set & (FS_SET_MODE | FS_SET_UID | FS_SET_GID | FS_SET_ATIME | FS_SET_MTIME) ? -EPERM : 0;
}

struct attr_change {
	struct inode *inode;
	unsigned set;
	const struct inode_record *values;
};

static int attr_store(struct tx *tx, void *arg)
{
	const struct attr_change *change = arg;
	struct inode *inode = change->inode;
	struct inode_record record;
	int error;

	inode_copy_record(inode, &record);
	error = attr_verify_flags(&record, change->set);
	attr_set(&record, change->set, change->values);
	if (!error && (change->set & FS_SET_MODE))
		error = acl_follow_mode(inode, tx, record.mode);
	if (!error && (change->set & (FS_SET_UID | FS_SET_GID | FS_SET_KILL_SUIDGID)))
		error = xattr_drop(inode, tx, XATTR_COMMON_CAPABILITY);
	return error ? error : inode_update(inode, tx, &record);
}

static int capability_look(struct inode *inode, bool *found)
{
	size_t length;
	int error;

	*found = false;
	if (xattr_is_absent(inode, XATTR_COMMON_CAPABILITY))
		return 0;
	journal_read_begin(inode->fs->journal);
	error = xattr_load_common(inode, NULL, XATTR_COMMON_CAPABILITY, NULL, 0, &length);
	journal_read_end(inode->fs->journal);
	*found = !error;
	return error == -ENODATA ? 0 : error;
}

struct kill_change {
	struct inode *inode;
	bool kills_ids;
};

static int kill_store(struct tx *tx, void *arg)
{
	const struct kill_change *change = arg;
	struct inode_record record;
	int error;

	inode_copy_record(change->inode, &record);
	error = record.flags & INODE_IMMUTABLE ? -EPERM : xattr_drop(change->inode, tx, XATTR_COMMON_CAPABILITY);
	if (change->kills_ids)
		kill_ids(&record);
	record_stamp_change(&record);
	return error ? error : inode_update(change->inode, tx, &record);
}

int inode_kill_privileges(struct inode *inode, bool kills_ids, unsigned *ids)
{
	const uint32_t mode = kills_ids && !S_ISDIR(inode->type) ? atomic_load_explicit(&inode->mode_now, memory_order_relaxed) : 0;
	const bool has_ids = mode_has_ids(mode);
	bool has_capability;
	int error = capability_look(inode, &has_capability);

	if (!error && (has_capability || has_ids))
		error = change_inode(inode, TX_RESERVE, kill_store, &(struct kill_change){inode, has_ids});
	if (ids && !error)
		*ids |= (has_ids ? FS_IDS_KILLED : 0) | (mode_is_setgid_alone(mode) ? FS_IDS_SETGID : 0);
	return error;
}

int fs_kill_privileges(struct fs *fs, inum_t ino, bool kills_ids, unsigned *ids)
{
	struct inode *inode;
	int error = inode_get(fs, ino, &inode);

	if (error)
		return error;
	error = inode_kill_privileges(inode, kills_ids, ids);
	inode_put(inode);
	return error;
}

static int attr_apply(struct inode *inode, unsigned set, const struct inode_record *values)
{
	unsigned rest = set & (FS_SET_MODE | FS_SET_UID | FS_SET_GID | FS_SET_KILL_SUIDGID | FS_SET_KILL_SETGID | SET_TIMES);
	int error = attr_verify(inode, set, values);

	if (set & FS_SET_SIZE)
		rest &= ~(unsigned)FS_SET_KILL_SUIDGID; /* done before the content changes */
	if (!error && (set & FS_SET_SIZE))
		error = flags_verify_replace(inode);
	if (!error && (set & FS_SET_SIZE))
		error = inode_kill_privileges(inode, set & FS_SET_KILL_SUIDGID, NULL);
	if (!error && (set & FS_SET_SIZE))
		error = file_truncate(inode, values->size_bytes);
	if (!error && rest)
		error = change_inode(inode, TX_RESERVE, attr_store, &(struct attr_change){inode, rest, values});
	return error;
}

int fs_setattr(struct fs *fs, inum_t ino, unsigned set, const struct inode_record *values, struct fs_attr *out)
{
	struct inode *inode;
	int error = inode_get(fs, ino, &inode);

	if (error)
		return error;
	error = flags_settle(inode, attr_apply(inode, set, values));
	if (!error)
		inode_attr(inode, out);
	inode_put(inode);
	return error;
}
