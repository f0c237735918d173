/*
 * Writing. A write is cut into plans: up to WRITE_RUNS runs of file blocks, each of one kind, whose
 * data are stored and drained first and then named by one transaction, so that new data are durable
 * before the commit that names them.
 *
 * - write_classify: what is there, run by run
 * - write_place: fresh blocks, and the storing of the data
 * - write: the transaction, the loop, the operations
 */
#ifndef FS_WRITE_H
#define FS_WRITE_H

#include "fs/data.h"

#define WRITE_RUNS 16
#define WRITE_REJECTS 16 /* fresh blocks found bad that one plan puts aside */

enum run_kind {
	RUN_IN_PLACE, /* written, ours alone, good */
	RUN_CONVERT,  /* unwritten, ours alone, good: stored in place, then marked written */
	RUN_HEAL,     /* known bad, ours alone, covered as a whole: cleared and stored in place */
	RUN_NEW, /* into fresh blocks: holes, shared blocks, bad blocks that cannot be cleared */
};

struct run {
	enum run_kind kind;
	uint64_t file_block, count_blocks;
	blkno_t block;  /* what is mapped there (RUN_NEW: until placed, then the fresh blocks) */
	bool mapped;    /* something is mapped there now */
	bool unwritten; /* what is mapped is unwritten */
	blkno_t old_block;
};

struct block_range {
	blkno_t start;
	uint64_t count;
};

struct write_plan {
	struct inode *inode;
	struct fs *fs;
	uint64_t pos, end;     /* bytes to write */
	const uint8_t *buffer; /* the byte at pos; NULL: zeros */
	uint64_t size;         /* of the file before */
	bool may_share;
	bool keep_size;
	blkno_t goal; /* where fresh blocks of the first run go best; 0: anywhere */
	bool no_heal; /* a cleared block was bad again: use fresh ones */
	struct run runs[WRITE_RUNS];
	unsigned count;  /* classified */
	unsigned placed; /* of these, stored */
	struct block_range rejects[WRITE_REJECTS];
	unsigned count_rejects;
};

/* Would the write leave nothing of what this block of the file held? */
bool plan_covers_block(const struct write_plan *p, uint64_t file_block);
/*
 * Fill runs[] from pos on; an error only when there is not even a first one. -EAGAIN: what was bad
 * no longer is.
 */
int plan_classify(struct write_plan *p);
/* The same, by who has the data lock for writing: nobody who shows what he has changed waits for it. */
int plan_classify_beside(struct write_plan *p);
/*
 * Store the runs in order and drain: `placed` of them. An error only when not even the first could
 * be stored; -EAGAIN: something bad was met that was not known, classify anew. Fresh blocks are set
 * aside in DRAM.
 */
int plan_place(struct write_plan *p);

#endif
