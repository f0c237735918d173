#include "rmap/mapping.h"

#include <errno.h>

struct rmap_record rmap_clip(const struct rmap_record *record, blkno_t start, blkno_t end)
{
	struct rmap_record part = *record;

	part.start = max_u64(record->start, start);
	part.offset = rmap_offset_at(record, part.start);
	part.count = min_u64(rmap_record_end(record), end) - part.start;
	return part;
}

struct query {
	blkno_t start, end;
	rmap_visit_fn *visit;
	void *arg;
};

static int query_visit(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	const struct query *query = arg;
	struct rmap_record record;
	int error = rmap_unpack(&record, key, value, length);

	if (error < 0)
		return error;
	record = rmap_clip(&record, query->start, query->end);
	return query->visit(query->arg, &record);
}

int rmap_query(const struct rmap *rmap, blkno_t start, uint64_t count, rmap_visit_fn *visit,
	       void *arg)
{
	struct query query = {start, start + count, visit, arg};

	if (query.end < start)
		query.end = UINT64_MAX;
	return btree_walk_overlap(&rmap->tree, start, query.end, query_visit, &query);
}

static int owned_visit(void *arg, const struct rmap_record *record)
{
	return 1;
}

int rmap_is_owned(const struct rmap *rmap, blkno_t start, uint64_t count, bool *owned)
{
	int found = rmap_query(rmap, start, count, owned_visit, NULL);

	if (found < 0)
		return found;
	*owned = found == 1;
	return 0;
}

struct sharing {
	struct rmap_record self; /* the mapping that asks */
	blkno_t covered;         /* [self.start, covered) has other owners */
	blkno_t clear;           /* when nothing is covered: where the first other owner begins */
};

/* Records come in the order of their start, clipped to the range. */
static int sharing_visit(void *arg, const struct rmap_record *record)
{
	struct sharing *sharing = arg;
	blkno_t end = rmap_record_end(&sharing->self);

	if (rmap_same_mapping(record, &sharing->self))
		return 0;
	if (record->start > sharing->covered) {
		sharing->clear = record->start;
		return 1;
	}
	sharing->covered = max_u64(sharing->covered, rmap_record_end(record));
	return sharing->covered == end;
}

int rmap_shared_run(const struct rmap *rmap, blkno_t start, uint64_t count, uint64_t owner,
		    uint64_t offset, bool *shared, uint64_t *run)
{
	struct sharing sharing = {
	    .self = {.start = start, .count = count, .owner = owner, .offset = offset},
	    .covered = start,
	    .clear = start + count,
	};
	int found = rmap_query(rmap, start, count, sharing_visit, &sharing);

	if (found < 0)
		return found;
	*shared = sharing.covered > start;
	*run = (*shared ? sharing.covered : sharing.clear) - start;
	return 0;
}
