/*
 * The parts of fs_check().
 *
 * All of it runs while others change the filesystem. The metadata lock is held shared for bounded pieces of work: a part reads on until
 * check_is_due(), closes its cursors, lets everybody else in by check_pause(), and goes on behind the last key. What is said of two trees together
 * is seen within one hold. What needs a count over several holds is judged only when nothing in question has changed meanwhile (else it is counted
 * as not compared), so no finding is ever an effect of concurrent work.
 *
 * Large trees are not compared by looking up each record of one in the other: both are read in order, and what each says is added up in sums
 * of hashes, by bucket of inode. Where a bucket's sums differ, its records, and only those, are looked up one by one in a second pass, which is
 * what finds.
 */
#ifndef FS_CHECK_H
#define FS_CHECK_H

#include "btree/cursor.h"
#include "fs/inode.h"
#include "journal/home.h"

/* Work of one hold, in units of about a record's cost; a piece of work that need not be cut in two ends at half of it. */
#define CHECK_HOLD_UNITS 8192u
#define CHECK_NODE_UNITS 16u /* to have a node that is not in memory */
#define CHECK_BUCKETS 4096u

struct check_dir {
	inum_t ino, parent;
};

struct check {
	struct fs *fs;
	const struct fs_check_options *options;
	struct fs_check_totals totals;
	int error;	/* why it cannot go on; sticky */
	uint64_t spent, hold_units; /* in this hold, of how many */
	uint64_t holds;
	uint64_t seed;
	char *lines; /* findings of this hold, told when it has ended */
	size_t lines_used, lines_size;
	const char *phase;
	uint64_t done, total; /* of the phase */
	uint64_t unreadable;  /* bit t: tree t has been said to be so */

	uint64_t *reached; /* a bit for each block of each chunk that a tree uses */
	uint64_t reached_chunks;

	uint64_t names_sum[CHECK_BUCKETS]; /* dirents less parents, by bucket of the inode named */
	uint64_t maps_sum[CHECK_BUCKETS];  /* extents less reverse map, by bucket of the owner */

	struct check_dir *dirs; /* ascending */
	size_t count_dirs, capacity_dirs;
	uint64_t ways_tried;
	inum_t *sharers; /* direct mapped: inodes seen to be flagged */
	uint64_t sharers_size;
};

/* --- check.c: holds, findings, counts ------------------------------------------------------------------------------------------- */

/* One finding. */
void check_finding(struct check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A tree cannot be read to its end; told once of each. */
void check_unreadable(struct check *check, const struct btree *tree, int error);
/* Something could not be judged because it was being changed. */
void check_skip(struct check *check);
void check_fail(struct check *check, int error);

static inline bool check_is_over(const struct check *check)
{
	return check->error != 0;
}
static inline void check_spend(struct check *check, uint64_t units)
{
	check->spent += units;
}
static inline bool check_is_due(const struct check *check)
{
	return check->spent >= check->hold_units;
}
static inline bool check_is_half_due(const struct check *check)
{
	return check->spent >= check->hold_units / 2;
}
/* End the hold and begin another; no node is held across it. */
void check_pause(struct check *check);
void check_begin_phase(struct check *check, const char *phase, uint64_t total);
static inline uint64_t check_changes(const struct check *check)
{
	return journal_changes(check->fs->journal);
}

/* 0, -ENOENT, or the error of reading. */
int check_load_inode(struct check *check, inum_t ino, struct inode_record *out);
/* Compare a counter of the root block with what was counted since `changes`. */
void check_counter(struct check *check, const char *name, uint64_t stored, uint64_t counted, uint64_t changes);

/* --- check_nodes.c: blocks of metadata ---------------------------------------------------------------------------------------------- */

/* What is wrong with a copy; NULL: nothing that is not known already. */
const char *check_copy_fault(const struct home_copy *copy);
/* All copies of a block in use, at home. */
void check_home(struct check *check, maddr_t address, const char *what);

/* --- check_space.c ------------------------------------------------------------------------------------------------------------------ */

/* The owner has exactly this range, from `offset` of it on. Within the hold. */
void check_owned(struct check *check, uint64_t owner, uint64_t offset, devoff_t at, uint64_t length_bytes, const char *what);

/* --- check_cursor.c: records in order, over many holds --------------------------------------------------------------------------- */

struct check_cursor {
	struct check *check;
	const struct btree *tree;
	struct btree_cursor at;
	struct btree_key next; /* where to go on */
	bool is_open, has_ended, has_record;
	bool is_past; /* the last key there can be */
	struct btree_key key; /* of the record, which is in place */
	const void *value;
	size_t length;
};

void check_cursor_init(struct check_cursor *cursor, struct check *check, const struct btree *tree);
/* Is there a record? The nodes that cannot be read are passed over, after check_unreadable(). */
bool check_cursor_get(struct check_cursor *cursor);
void check_cursor_advance(struct check_cursor *cursor);
/* Before the hold ends. */
void check_cursor_release(struct check_cursor *cursor);
/* Go on from here. */
void check_cursor_set(struct check_cursor *cursor, const struct btree_key *key);
/* All records of a tree, one by one, over many holds. */
typedef void check_visit_fn(struct check *check, const struct check_cursor *at, void *arg);
void check_each(struct check *check, const struct btree *tree, check_visit_fn *visit, void *arg);

/* --- hashes ----------------------------------------------------------------------------------------------------------------------- */

static inline uint64_t check_mix(uint64_t x)
{
	x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
	x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ull;
	return x ^ x >> 33;
}
static inline unsigned check_bucket(const struct check *check, inum_t ino)
{
	return (unsigned)(check_mix(check->seed ^ ino) % CHECK_BUCKETS);
}
/*
 * Of a run of blocks that an owner maps. The difference of two points, so that a mapping has the same sum however it is cut into records, and
 * an overlap another one.
 */
static inline uint64_t check_map_hash(const struct check *check, uint64_t owner, uint64_t offset, blkno_t start, uint64_t count,
				      uint8_t flags)
{
	uint64_t mapping = check_mix(check_mix(check_mix(check->seed ^ owner) + (start - offset)) + flags);

	return check_mix(mapping + start + count) - check_mix(mapping + start);
}
uint64_t check_name_hash(const struct check *check, inum_t ino, inum_t dir, uint64_t cookie, const void *value, size_t length);

/* --- parts ------------------------------------------------------------------------------------------------------------------------ */

void check_supers(struct check *check); /* without the metadata lock: whoever changes the superblock takes it */
void check_fixed(struct check *check);	/* journal heads, poison log, root block, chunk table */
void check_nodes(struct check *check);	/* each tree as a tree, all copies, blocks in use */
void check_leaks(struct check *check);	/* blocks in use that no tree has */
void check_inodes(struct check *check); /* every tree keyed by inode, against the inodes */
void check_names(struct check *check);	/* dirents against parents where the sums differ */
void check_dirs(struct check *check);	/* every directory is below the root */
void check_space(struct check *check);	/* reverse map and free space: every block once; sharing; areas */
void check_maps(struct check *check);	/* extents against the reverse map where the sums differ */
void check_ledger(struct check *check); /* badblocks, lost, damaged, their copy; intents */

#endif
