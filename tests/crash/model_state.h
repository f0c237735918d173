/* The states of the model. Inodes and blocks are never changed once a second state refers to them. Internal to the model. */
#ifndef TESTS_CRASH_MODEL_STATE_H
#define TESTS_CRASH_MODEL_STATE_H

#include "tests/crash/model.h"

#define STATE_INODES_MAX 96
#define STATE_NAMES_MAX 64 /* in one directory */

struct model_block {
	unsigned references;
	uint8_t bytes[BLOCK_BYTES];
};

struct model_name {
	char *name; /* malloc'ed */
	inum_t ino;
};

#define INODE_XATTRS_MAX 12

struct model_xattr {
	char name[40];
	uint32_t mode; /* of an ACL: what it says as mode bits */
	uint64_t share;
};

struct model_inode {
	unsigned references;
	inum_t ino;
	/* mode, uid, gid, nlink, size, rdev, entries are the model's own; times, count_blocks, generation are taken from the filesystem. */
	struct inode_record record;
	/* mtime and ctime on the medium may be as old as this: an overwrite in place has not stored its times yet. */
	uint64_t stored_mtime_ns, stored_ctime_ns;
	char *target;
	struct model_xattr xattrs[INODE_XATTRS_MAX];
	unsigned count_xattrs;
	inum_t parent;
	struct model_name names[STATE_NAMES_MAX]; /* of a directory, by name */
	unsigned count_names;
	/* Of a file: its blocks up to the size, NULL are zeros; and where written ones lie on the medium, in blocks, 0: nowhere. */
	struct model_block **blocks;
	blkno_t *places;
	size_t count_blocks;
};

struct model_state {
	struct model_inode *inodes[STATE_INODES_MAX];
	unsigned count_inodes;
	char label[SUPER_LABEL_BYTES + 1];
	uint64_t size_bytes; /* of the filesystem */
};

/* How the operation between two states may be found half done. */
enum change_kind {
	CHANGE_ATOMIC,
	CHANGE_PREFIX,	   /* [pos, end) in order; blocks in place by words, others whole */
	CHANGE_PUNCH,	   /* the cut blocks at both ends first, by words; then all others together; then the size */
	CHANGE_SIZE,	   /* the content stays, times and blocks first, the size at last */
	CHANGE_SIZE_FIRST, /* the size, then mode, owner, times */
	CHANGE_FINISHED,   /* all of it, by mount, which stamps its own time */
	CHANGE_ANY,	   /* it failed: each block of [pos, end) old, new or of `source` */
};

struct model_change {
	enum change_kind kind;
	inum_t ino, source;
	uint64_t pos, end;
};

struct model {
	struct model_state states[MODEL_OPERATIONS_MAX + 1];
	struct model_change changes[MODEL_OPERATIONS_MAX]; /* [k]: from state k to k + 1 */
	char texts[MODEL_OPERATIONS_MAX][96];
	unsigned count; /* operations; states[count] is the last */
	inum_t slots[MODEL_SLOTS];
	unsigned next_tag;
	bool preparing; /* operations are not compared one by one, and only the last state is kept */
	struct observed *observed;
	uint8_t *buffer; /* MODEL_FILE_BYTES_MAX */
};

static inline uint64_t time_ns(int64_t sec, uint32_t nsec)
{
	return (uint64_t)sec * 1000000000u + nsec;
}

#define TIME_NS(stamp) time_ns((stamp).sec, (stamp).nsec)

static inline struct model_state *state_last(struct model *model)
{
	return &model->states[model->count];
}

void state_fini(struct model_state *state);
void state_copy(struct model_state *to, const struct model_state *from);
struct model_inode *state_find(const struct model_state *state, inum_t ino);
/* For changing: its own copy if others refer to it. NULL: no such inode. */
struct model_inode *state_edit(struct model_state *state, inum_t ino);
struct model_inode *state_add(struct model_state *state, inum_t ino, mode_t mode);
void state_remove(struct model_state *state, inum_t ino);

struct model_name *inode_find_name(const struct model_inode *dir, const char *name);
void inode_add_name(struct model_inode *dir, const char *name, inum_t ino);
void inode_remove_name(struct model_inode *dir, const char *name);

/* The block's bytes; zeros where nothing was written. */
const uint8_t *inode_block(const struct model_inode *inode, size_t index);
void inode_read(const struct model_inode *inode, uint64_t pos, void *buffer, size_t size); /* zeros past the end */
void inode_write(struct model_inode *inode, uint64_t pos, const void *buffer, size_t size); /* NULL: zeros; raises the size */
void inode_resize(struct model_inode *inode, uint64_t size);
void inode_share_blocks(struct model_inode *to, const struct model_inode *from); /* content and size */

#endif
