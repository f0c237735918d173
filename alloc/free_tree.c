#include <errno.h>

#include "alloc/internal.h"
#include "format/record_format.h"

static uint64_t aggregate_length(const struct btree_key *key, const void *value, size_t length)
{
	uint64_t count;

	return format_free_unpack(&count, value, length) < 0 ? 0 : count;
}

/*
 * The low bits that inner nodes take no notice of: three bits of a length count. A run that shrinks block by block so changes what is said of it four times while its length
 * halves. Bits are set rather than added to, so that a length of up to three bits (powers of two, which chunks want) is found as exactly as before.
 */
static uint64_t length_low_bits(uint64_t count)
{
	unsigned bits = count ? 64u - (unsigned)__builtin_clzll(count) : 0;

	return bits > 3 ? (1ull << (bits - 3)) - 1 : 0;
}

uint64_t free_length_floor(uint64_t count)
{
	return count & ~length_low_bits(count);
}

static uint64_t round_length(uint64_t count, bool is_alike)
{
	return count | length_low_bits(count);
}

static int verify_record(const struct btree_key *key, const void *value, size_t length)
{
	uint64_t count;
	int error = format_free_unpack(&count, value, length);

	if (error < 0)
		return error;
	return key->word[0] <= DEVICE_BLOCKS_MAX - count ? 0 : -EUCLEAN;
}

const struct btree_ops free_ops = {
    .tree = FORMAT_TREE_FREE,
    .key_words = 1,
    .unit = DEVICE_UNIT_BLOCKS,
    .aggregate = aggregate_length,
    .round = round_length,
    .verify = verify_record,
};

int free_unpack(const struct alloc *alloc, struct run *to, const struct btree_key *key,
		const void *value, size_t length)
{
	uint64_t count;
	int error = format_free_unpack(&count, value, length);

	if (error < 0)
		return error;
	if (count > alloc->total_blocks || key->word[0] > alloc->total_blocks - count)
		return -EUCLEAN;
	*to = (struct run){key->word[0], count};
	return 0;
}

/* The last run that starts at or before the block. */
static int free_find_le(const struct alloc *alloc, blkno_t block, struct run *out)
{
	const struct btree_key key = {{block}};
	struct btree_record record;
	int error = btree_lookup_le(&alloc->tree, &key, &record);

	return error < 0 ? error
			 : free_unpack(alloc, out, &record.key, record.value, record.length);
}

static int free_find_ge(const struct alloc *alloc, blkno_t block, struct run *out)
{
	const struct btree_key key = {{block}};
	struct btree_record record;
	int error = btree_lookup_ge(&alloc->tree, &key, &record);

	return error < 0 ? error
			 : free_unpack(alloc, out, &record.key, record.value, record.length);
}

int free_find(const struct alloc *alloc, blkno_t block, struct run *out)
{
	struct run run;
	int error = free_find_le(alloc, block, &run);

	if (error < 0)
		return error;
	if (run_end(&run) <= block)
		return -ENOENT;
	*out = run;
	return 0;
}

static int free_add(const struct alloc *alloc, struct tx *tx, blkno_t start, uint64_t count)
{
	const struct btree_key key = {{start}};
	struct format_free value;

	format_free_pack(&value, count);
	return btree_insert(&alloc->tree, tx, &key, &value, sizeof(value));
}

static int free_resize(const struct alloc *alloc, struct tx *tx, blkno_t start, uint64_t count)
{
	const struct btree_key key = {{start}};
	struct format_free value;

	format_free_pack(&value, count);
	return btree_update(&alloc->tree, tx, &key, &value, sizeof(value));
}

static int free_drop(const struct alloc *alloc, struct tx *tx, blkno_t start)
{
	const struct btree_key key = {{start}};

	return btree_remove(&alloc->tree, tx, &key);
}

/* A run begins elsewhere, with nothing free between the one place and the other but itself. */
static int free_move(const struct alloc *alloc, struct tx *tx, blkno_t from, blkno_t start, uint64_t count)
{
	const struct btree_key old = {{from}}, key = {{start}};
	struct format_free value;

	format_free_pack(&value, count);
	return btree_rekey(&alloc->tree, tx, &old, &key, &value, sizeof(value));
}

int free_carve(const struct alloc *alloc, struct tx *tx, const struct run *whole,
	       const struct run *part)
{
	uint64_t before = part->start - whole->start, after = run_end(whole) - run_end(part);
	int error;

	if (before == 0)
		return after > 0 ? free_move(alloc, tx, whole->start, run_end(part), after)
				 : free_drop(alloc, tx, whole->start);
	error = free_resize(alloc, tx, whole->start, before);
	if (error < 0 || after == 0)
		return error;
	return free_add(alloc, tx, run_end(part), after);
}

enum merge { MERGE_NONE = 0, MERGE_LEFT = 1, MERGE_RIGHT = 2, MERGE_BOTH = 3 };

/* What of the runs on either side the new one touches. */
static int merge_classify(const struct alloc *alloc, const struct run *run, struct run *left,
			  struct run *right, enum merge *out)
{
	enum merge merge = MERGE_NONE;
	int error = free_find_le(alloc, run->start, left);

	if (error < 0 && error != -ENOENT)
		return error;
	if (error == 0 && run_end(left) > run->start)
		return -EUCLEAN;
	if (error == 0 && run_end(left) == run->start)
		merge |= MERGE_LEFT;
	error = free_find_ge(alloc, run->start, right);
	if (error < 0 && error != -ENOENT)
		return error;
	if (error == 0 && right->start < run_end(run))
		return -EUCLEAN;
	if (error == 0 && right->start == run_end(run))
		merge |= MERGE_RIGHT;
	*out = merge;
	return 0;
}

int free_merge(const struct alloc *alloc, struct tx *tx, const struct run *run)
{
	struct run left, right;
	enum merge merge;
	int error = merge_classify(alloc, run, &left, &right, &merge);

	if (error == 0 && merge == MERGE_BOTH)
		error = free_drop(alloc, tx, right.start);
	if (error < 0)
		return error;
	switch (merge) {
	case MERGE_NONE:
		break;
	case MERGE_LEFT:
		return free_resize(alloc, tx, left.start, left.count + run->count);
	case MERGE_RIGHT:
		return free_move(alloc, tx, right.start, run->start, run->count + right.count);
	case MERGE_BOTH:
		return free_resize(alloc, tx, left.start, left.count + run->count + right.count);
	}
	return free_add(alloc, tx, run->start, run->count);
}
