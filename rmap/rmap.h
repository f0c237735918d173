/*
 * The reverse map: block range -> every owner. A record is (start block, owner, offset) -> (length, flags); shared blocks
 * have several overlapping records. owner is an inode number or OWNER(kind) (format/record_format.h); offset is in blocks
 * of the owner's own space (file block). It is the truth about sharing: there is no reference count.
 * Units are 4 KiB blocks. Queries under the metadata lock, changes in a transaction. Free space is its exact complement.
 */
#ifndef RMAP_RMAP_H
#define RMAP_RMAP_H

#include "btree/btree.h"
#include "format/record_format.h"

struct rmap {
	struct btree tree;
};

struct rmap_record {
	blkno_t start;
	uint64_t count;
	uint64_t owner;
	uint64_t offset;
	uint8_t flags; /* EXTENT_ flags for inodes */
};

void rmap_init(struct rmap *rmap, struct journal *journal);

/* Add an owner of [start, start + count). Merges with what it continues. -EEXIST when this owner has any of it at that offset. */
int rmap_insert(const struct rmap *rmap, struct tx *tx, const struct rmap_record *record);
/* Take one owner's mapping of the range away, splitting records as needed. -ENOENT when some of it is not there. */
int rmap_remove(const struct rmap *rmap, struct tx *tx, const struct rmap_record *record);

/*
 * The same for files, by those who have the file's own map before them: a block that many share is then found in O(log n), where the others look through all its owners.
 * What the map says is a hint only, how the records lie decides; that nothing (insert) or all of it (remove, flags) is there is the caller's word.
 */
struct rmap_beside {
	bool has_left, has_right; /* a mapping that it continues, one that continues it; flags alike */
	blkno_t left;		  /* where the former begins */
};
int rmap_insert_beside(const struct rmap *rmap, struct tx *tx, const struct rmap_record *record, const struct rmap_beside *beside);
/* `start`: where the mapping begins that the record is a part of. */
int rmap_remove_within(const struct rmap *rmap, struct tx *tx, const struct rmap_record *record, blkno_t start);

/* Every record that overlaps [start, start + count), clipped to it, in order of (start of the record, owner, offset). 0 goes on. */
typedef int rmap_visit_fn(void *arg, const struct rmap_record *record);
int rmap_query(const struct rmap *rmap, blkno_t start, uint64_t count, rmap_visit_fn *visit, void *arg);
/*
 * How far from `start` is the range alike: entirely without an owner other than (owner, offset of start), or entirely with one? *shared says
 * which, *run (1 .. count) how many blocks. O(log n + records met); it stops as soon as the answer for the run is known.
 */
int rmap_shared_run(const struct rmap *rmap, blkno_t start, uint64_t count, uint64_t owner, uint64_t offset, bool *shared, uint64_t *run);
/* Does any owner have any block of the range? */
int rmap_is_owned(const struct rmap *rmap, blkno_t start, uint64_t count, bool *owned);

#endif
