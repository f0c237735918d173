/*
 * The list of damaged files: the reverse map asked for every bad or lost range, and the `damaged`
 * tree.
 */
#include "fs/data.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What is bad: a device range. */
struct bad_range {
	devoff_t offset;
	uint64_t length_bytes, cause_id;
};

/* What is hit: blocks of a file, [pos, end) in bytes. */
struct hit {
	inum_t ino;
	uint64_t pos, end, cause_id;
};

struct damage_query {
	struct fs *fs;
	struct bad_range *bad;
	size_t count_bad, capacity_bad;
	struct hit *hits;
	size_t count_hits, capacity_hits;
	uint64_t *causes; /* of the range being answered */
	size_t count_causes, capacity_causes;
	uint64_t cause_id; /* of the range being asked for */
};

/* Room for one more element. */
static int array_reserve(void **array, size_t count, size_t *capacity, size_t size)
{
	size_t wanted = *capacity ? *capacity * 2 : 64;
	void *grown;

	if (count < *capacity)
		return 0;
	grown = realloc(*array, wanted * size);
	if (!grown)
		return -ENOMEM;
	*array = grown;
	*capacity = wanted;
	return 0;
}

static int bad_add(struct damage_query *q, devoff_t offset, uint64_t length, uint64_t cause_id)
{
	int error =
	    array_reserve((void **)&q->bad, q->count_bad, &q->capacity_bad, sizeof(*q->bad));

	if (!error)
		q->bad[q->count_bad++] = (struct bad_range){offset, length, cause_id};
	return error;
}

static int hit_add(struct damage_query *q, inum_t ino, uint64_t pos, uint64_t end,
		   uint64_t cause_id)
{
	int error =
	    array_reserve((void **)&q->hits, q->count_hits, &q->capacity_hits, sizeof(*q->hits));

	if (!error)
		q->hits[q->count_hits++] = (struct hit){ino, pos, end, cause_id};
	return error;
}

static int damaged_badblock(void *arg, const struct badblock_record *record)
{
	if (record->state == BADBLOCK_CLEARED)
		return 0;
	return bad_add(arg, record->offset, record->length_bytes, record->cause_id);
}

static int damaged_lost(void *arg, const struct lost_record *record)
{
	return bad_add(arg, record->offset, record->length_bytes, record->cause_id);
}

static int damaged_owner(void *arg, const struct rmap_record *record)
{
	struct damage_query *q = arg;

	if (!owner_is_inode(record->owner) || (record->flags & EXTENT_UNWRITTEN))
		return 0;
	return hit_add(q, record->owner, record->offset << BLOCK_SHIFT,
		       (record->offset + record->count) << BLOCK_SHIFT, q->cause_id);
}

static int damaged_lost_map(void *arg, const struct btree_key *key, const void *value,
			    size_t length)
{
	struct damaged_record record;
	int error = format_damaged_unpack(&record, value, length);

	if (error)
		return error;
	return hit_add(arg, key->word[0], key->word[1], key->word[1] + record.length_bytes,
		       record.cause_id);
}

/* The ledger's walks take the metadata lock by themselves. */
static int damaged_collect_bad(struct damage_query *q)
{
	int error = ledger_walk_badblocks(q->fs->notify, damaged_badblock, q);

	return error ? error : ledger_walk_lost(q->fs->notify, damaged_lost, q);
}

/* Under the metadata lock. What cannot be read does not keep the rest from being told. */
static int damaged_collect_owners(struct damage_query *q)
{
	struct btree_key from = {{0}}, to = {{UINT64_MAX, UINT64_MAX, 0}};
	blkno_t start;
	size_t i;
	int error = 0, result = 0;

	for (i = 0; i < q->count_bad && result != -ENOMEM; i++) {
		start = q->bad[i].offset >> BLOCK_SHIFT;
		q->cause_id = q->bad[i].cause_id;
		error = rmap_query(&q->fs->rmap, start,
				   file_block_up(q->bad[i].offset + q->bad[i].length_bytes) - start,
				   damaged_owner, q);
		result = error ? error : result;
	}
	error = btree_walk(&q->fs->damaged, &from, &to, damaged_lost_map, q);
	return error ? error : result;
}

static int hit_compare(const void *a, const void *b)
{
	const struct hit *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	if (x->pos != y->pos)
		return x->pos < y->pos ? -1 : 1;
	return (x->cause_id > y->cause_id) - (x->cause_id < y->cause_id);
}

static int cause_compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* The causes of hits[first, last), each once. */
static int damaged_causes(struct damage_query *q, size_t first, size_t last)
{
	size_t i, out = 0;

	q->count_causes = 0;
	for (i = first; i < last; i++) {
		int error = array_reserve((void **)&q->causes, q->count_causes, &q->capacity_causes,
					  sizeof(*q->causes));

		if (error)
			return error;
		if (q->hits[i].cause_id)
			q->causes[q->count_causes++] = q->hits[i].cause_id;
	}
	if (q->count_causes)
		qsort(q->causes, q->count_causes, sizeof(*q->causes), cause_compare);
	for (i = 0; i < q->count_causes; i++)
		if (!i || q->causes[i] != q->causes[i - 1])
			q->causes[out++] = q->causes[i];
	q->count_causes = out;
	return 0;
}

/* What cannot be read is told without clipping. */
static uint64_t damaged_size(struct damage_query *q, inum_t ino)
{
	struct btree_key key = {{ino}};
	struct inode_record inode;
	struct btree_record record;
	int error;

	journal_read_begin(q->fs->journal);
	error = btree_lookup(&q->fs->inodes, &key, &record);
	journal_read_end(q->fs->journal);
	if (!error)
		error = format_inode_unpack(&inode, record.value, record.length);
	return error ? UINT64_MAX : inode.size_bytes;
}

/* hits[first, last) are one contiguous range that ends at `end`. */
static int damaged_answer(struct damage_query *q, size_t first, size_t last, uint64_t end,
			  fs_damage_fn *visit, void *arg)
{
	struct fs_damage damage = {.ino = q->hits[first].ino, .pos = q->hits[first].pos};
	int error;

	end = min_u64(end, damaged_size(q, damage.ino));
	if (end <= damage.pos)
		return 0;
	error = damaged_causes(q, first, last);
	if (error)
		return error;
	damage.length_bytes = end - damage.pos;
	damage.cause_ids = q->causes;
	damage.count_causes = q->count_causes;
	damage.cause_id = q->count_causes ? q->causes[0] : 0;
	return visit(arg, &damage);
}

static int damaged_answer_all(struct damage_query *q, fs_damage_fn *visit, void *arg)
{
	size_t first = 0, i;
	uint64_t end;
	int error = 0;

	if (q->count_hits)
		qsort(q->hits, q->count_hits, sizeof(*q->hits), hit_compare);
	while (first < q->count_hits && !error) {
		end = q->hits[first].end;
		for (i = first + 1; i < q->count_hits; i++) {
			if (q->hits[i].ino != q->hits[first].ino || q->hits[i].pos > end)
				break;
			end = max_u64(end, q->hits[i].end);
		}
		error = damaged_answer(q, first, i, end, visit, arg);
		first = i;
	}
	return error;
}

int fs_damaged(struct fs *fs, fs_damage_fn *visit, void *arg)
{
	struct damage_query q = {.fs = fs};
	int error = damaged_collect_bad(&q), rc;

	if (error != -ENOMEM) {
		journal_read_begin(fs->journal);
		rc = damaged_collect_owners(&q);
		journal_read_end(fs->journal);
		error = rc ? rc : error;
	}
	if (error != -ENOMEM) {
		rc = damaged_answer_all(&q, visit, arg);
		error = rc ? rc : error;
	}
	free(q.bad);
	free(q.hits);
	free(q.causes);
	return error;
}
