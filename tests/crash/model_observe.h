/* What a mounted filesystem holds, read once through fs/fs.h, to be compared with many states. Internal to the model. */
#ifndef TESTS_CRASH_MODEL_OBSERVE_H
#define TESTS_CRASH_MODEL_OBSERVE_H

#include "tests/crash/model_state.h"

struct observed_block {
	bool bad;			   /* -EIO, as the filesystem knows it must be */
	const struct model_block *matched; /* the last that had the same bytes */
};

struct observed_name {
	size_t name; /* in the arena */
	inum_t ino;
	uint8_t type;
};

struct observed_inode {
	inum_t ino, dotdot;
	struct inode_record record;
	size_t first_name, count_names;	  /* of a directory */
	uint64_t xattrs;		  /* the sum of all attributes */
	size_t target;			  /* of a symlink: in the arena */
	size_t data, first_block, blocks; /* of a file: its bytes in the arena, zeros after the end */
};

struct observed {
	struct observed_inode inodes[STATE_INODES_MAX];
	size_t count_inodes;
	struct observed_name names[STATE_INODES_MAX + STATE_NAMES_MAX];
	size_t count_names;
	struct observed_block *all_blocks;
	size_t count_blocks, capacity_blocks;
	uint8_t *arena;
	size_t used, capacity;
};

struct observed *observed_create(void);
void observed_destroy(struct observed *observed);
/* 0; -EUCLEAN: something cannot be read that must be. */
int observe(struct observed *observed, struct fs *fs, bool may_be_bad, struct why *why);

/* Is it the last state, but for what is taken over from the filesystem? */
int judge_live(struct model *model, struct fs *fs, struct why *why);

static inline const uint8_t *observed_bytes(const struct observed *observed, const struct observed_inode *inode, size_t index)
{
	return observed->arena + inode->data + index * BLOCK_BYTES;
}

#endif
