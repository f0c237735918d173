/* What makes two records parts of one mapping, and how they are stored. For this folder. */
#ifndef RMAP_MAPPING_H
#define RMAP_MAPPING_H

#include "rmap/rmap.h"

static inline uint64_t rmap_record_end(const struct rmap_record *record)
{
	return record->start + record->count;
}

/* Quarantined space has no place in a file: its offset is always 0. */
static inline bool owner_has_offsets(uint64_t owner)
{
	return owner != OWNER(OWNER_QUARANTINE);
}

/* Each area and chunk keeps its own record; what files own and what is quarantined is merged as it
 * grows. */
static inline bool owner_merges(uint64_t owner)
{
	return owner_is_inode(owner) || !owner_has_offsets(owner);
}

static inline uint64_t rmap_offset_at(const struct rmap_record *record, blkno_t block)
{
	return owner_has_offsets(record->owner) ? record->offset + (block - record->start) : 0;
}

/* Do both map the same block of the owner to the same block of the device, wherever they meet? */
static inline bool rmap_same_mapping(const struct rmap_record *a, const struct rmap_record *b)
{
	return a->owner == b->owner &&
	       (!owner_has_offsets(a->owner) || a->start - a->offset == b->start - b->offset);
}

/* The part of the record within [start, end), which it overlaps. */
struct rmap_record rmap_clip(const struct rmap_record *record, blkno_t start, blkno_t end);

extern const struct btree_ops rmap_ops;
int rmap_unpack(struct rmap_record *to, const struct btree_key *key, const void *value,
		size_t length);

#endif
