/* The root block (maddr 0): roots of all trees and the counters that mount must not have to compute. Journaled and replicated. */
#ifndef FORMAT_ROOT_FORMAT_H
#define FORMAT_ROOT_FORMAT_H

#include "format/block_format.h"

enum root_counter {
	ROOT_NEXT_INO = 0,	    /* next inode number never handed out */
	ROOT_INODES = 1,	    /* inodes in use, orphans included */
	ROOT_FREE_BLOCKS = 2,	    /* sum of the free tree */
	ROOT_QUARANTINED_BLOCKS = 3,
	ROOT_CHUNKS = 4,	    /* entries of the chunk table ever used; those beyond are not initialised on media */
	ROOT_META_BLOCKS = 5,	    /* metadata blocks in live chunks, headers included */
	ROOT_META_FREE = 6,	    /* of these, free */
	ROOT_CHUNKS_FREEING = 7,
	ROOT_ORPHANS = 8,
	ROOT_INTENTS = 9,
	ROOT_NEXT_INTENT = 10,
	ROOT_NEXT_CAUSE = 11,	    /* next cause_id; 0 is never one */
	ROOT_BADBLOCK_BYTES = 12,
	ROOT_LOST_BYTES = 13,
	ROOT_MOUNTS = 14,
	ROOT_SIGBUS = 15,	    /* poison consumptions, over all mounts */
	ROOT_FLAGS = 16,	    /* enum root_flag */
	ROOT_POISON_LOG_TAIL = 17,  /* poison log entries with a lower sequence are in the trees */
	ROOT_SIZE_BLOCKS = 18,	    /* what free space and rmap cover; 0: the superblock's size. Behind it only while a resize is not finished */
	ROOT_UNSAFE_SHUTDOWNS = 19, /* 1 + the device's count of unsafe shutdowns at the last writable mount; 0: it was not to be had */
	ROOT_COUNTERS = 64,
};

enum root_flag {
	ROOT_FLAG_METADATA_LOST = 1, /* both copies of some block are gone: read-only until fsck */
};

struct format_tree_root {
	struct le64 address; /* 0: the tree is empty */
	uint8_t level;	     /* of the root node; 0 is a leaf */
	uint8_t reserved[7];
};

struct format_root {
	struct format_block_header header;
	struct format_tree_root trees[16]; /* indexed by enum format_tree_id */
	struct le64 counters[ROOT_COUNTERS];
	uint8_t reserved[4096 - 64 - 256 - 512];
};
static_assert(sizeof(struct format_tree_root) == 16, "stored layout");
static_assert(offsetof(struct format_root, counters) == 320, "stored layout");
static_assert(sizeof(struct format_root) == BLOCK_BYTES, "one block");

#endif
