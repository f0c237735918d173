#include "rmap/rmap.h"

#include <errno.h>

#include "rmap/mapping.h"

/* --- stored form --- */

static uint64_t aggregate_end(const struct btree_key *key, const void *value, size_t length)
{
	uint64_t count;
	uint8_t flags;

	return format_rmap_unpack(&count, &flags, value, length) < 0 ? UINT64_MAX
								     : key->word[0] + count;
}

/*
 * So an append changes what is said of its leaf once in 64 blocks, rather than each time; and a look for owners goes into leaves in vain only where they end within 64 blocks before: less than one,
 * when each block has a record of its own. A leaf that has several of one block's sharers, and nothing else, tells exactly: there may be thousands of such, to be looked through for any block behind.
 */
#define ROUND_BLOCKS 64u

static uint64_t round_end(uint64_t end, bool is_alike)
{
	return is_alike ? end : round_up_u64(end, ROUND_BLOCKS);
}

static bool owner_is_known(uint64_t owner)
{
	uint64_t kind = owner & ~OWNER_SPECIAL;

	return owner_is_inode(owner) ? owner != 0
				     : kind >= OWNER_SUPERBLOCK && kind <= OWNER_QUARANTINE;
}

static bool record_is_sane(const struct rmap_record *record)
{
	return record->count > 0 && record->start < DEVICE_BLOCKS_MAX &&
	       record->count <= DEVICE_BLOCKS_MAX - record->start &&
	       record->offset <= UINT64_MAX - record->count && owner_is_known(record->owner) &&
	       (record->flags & ~EXTENT_UNWRITTEN) == 0 &&
	       (record->flags == 0 || owner_is_inode(record->owner)) &&
	       (record->offset == 0 || owner_has_offsets(record->owner));
}

int rmap_unpack(struct rmap_record *to, const struct btree_key *key, const void *value,
		size_t length)
{
	to->start = key->word[0];
	to->owner = key->word[1];
	to->offset = key->word[2];
	return format_rmap_unpack(&to->count, &to->flags, value, length);
}

static int verify_record(const struct btree_key *key, const void *value, size_t length)
{
	struct rmap_record record;
	int error = rmap_unpack(&record, key, value, length);

	if (error < 0)
		return error;
	return record_is_sane(&record) ? 0 : -EUCLEAN;
}

const struct btree_ops rmap_ops = {
    .tree = FORMAT_TREE_RMAP,
    .key_words = 3,
    .unit = DEVICE_UNIT_BLOCKS,
    .aggregate = aggregate_end,
    .round = round_end,
    .verify = verify_record,
};

void rmap_init(struct rmap *rmap, struct journal *journal)
{
	btree_init(&rmap->tree, journal, &rmap_ops);
}

static struct btree_key key_of(const struct rmap_record *record)
{
	return (struct btree_key){{record->start, record->owner, record->offset}};
}

static int record_add(const struct rmap *rmap, struct tx *tx, const struct rmap_record *record)
{
	struct btree_key key = key_of(record);
	struct format_rmap value;

	format_rmap_pack(&value, record->count, record->flags);
	return btree_insert(&rmap->tree, tx, &key, &value, sizeof(value));
}

static int record_resize(const struct rmap *rmap, struct tx *tx, const struct rmap_record *record,
			 uint64_t count)
{
	struct btree_key key = key_of(record);
	struct format_rmap value;

	format_rmap_pack(&value, count, record->flags);
	return btree_update(&rmap->tree, tx, &key, &value, sizeof(value));
}

/* `record` becomes `to`, which begins elsewhere. */
static int record_move(const struct rmap *rmap, struct tx *tx, const struct rmap_record *record, const struct rmap_record *to)
{
	struct btree_key from = key_of(record), key = key_of(to);
	struct format_rmap value;

	format_rmap_pack(&value, to->count, to->flags);
	return btree_rekey(&rmap->tree, tx, &from, &key, &value, sizeof(value));
}

static int record_drop(const struct rmap *rmap, struct tx *tx, const struct rmap_record *record)
{
	struct btree_key key = key_of(record);

	return btree_remove(&rmap->tree, tx, &key);
}

/* --- insert --- */

enum merge { MERGE_NONE = 0, MERGE_LEFT = 1, MERGE_RIGHT = 2, MERGE_BOTH = 3 };

/* What lies around and in a mapping that is to be added. */
struct neighbours {
	const struct rmap_record *self;
	enum merge merge;
	struct rmap_record left, right; /* ends where self begins; begins where self ends */
};

static int neighbours_visit(void *arg, const struct btree_key *key, const void *value,
			    size_t length)
{
	struct neighbours *near = arg;
	struct rmap_record other;
	int error = rmap_unpack(&other, key, value, length);

	if (error < 0 || !rmap_same_mapping(&other, near->self))
		return error;
	if (rmap_record_end(&other) > near->self->start &&
	    other.start < rmap_record_end(near->self))
		return -EEXIST;
	if (other.flags != near->self->flags || !owner_merges(other.owner))
		return 0;
	if (other.start < near->self->start) {
		near->left = other;
		near->merge |= MERGE_LEFT;
	} else {
		near->right = other;
		near->merge |= MERGE_RIGHT;
	}
	return 0;
}

/* One walk over what touches the range tells what the new mapping continues, and that the owner has
 * none of it yet. */
static int neighbours_find(const struct rmap *rmap, const struct rmap_record *record,
			   struct neighbours *near)
{
	blkno_t before = record->start > 0 ? record->start - 1 : 0;

	near->self = record;
	near->merge = MERGE_NONE;
	return btree_walk_overlap(&rmap->tree, before, rmap_record_end(record) + 1,
				  neighbours_visit, near);
}

static int insert_before_right(const struct rmap *rmap, struct tx *tx,
			       const struct neighbours *near)
{
	struct rmap_record joined = *near->self;

	joined.count += near->right.count;
	return record_move(rmap, tx, &near->right, &joined);
}

static int insert_between(const struct rmap *rmap, struct tx *tx, const struct neighbours *near)
{
	int error = record_drop(rmap, tx, &near->right);

	if (error < 0)
		return error;
	return record_resize(rmap, tx, &near->left,
			     near->left.count + near->self->count + near->right.count);
}

static int insert_merged(const struct rmap *rmap, struct tx *tx, const struct neighbours *near)
{
	switch (near->merge) {
	case MERGE_NONE:
		break;
	case MERGE_LEFT:
		return record_resize(rmap, tx, &near->left, near->left.count + near->self->count);
	case MERGE_RIGHT:
		return insert_before_right(rmap, tx, near);
	case MERGE_BOTH:
		return insert_between(rmap, tx, near);
	}
	return record_add(rmap, tx, near->self);
}

int rmap_insert(const struct rmap *rmap, struct tx *tx, const struct rmap_record *record)
{
	struct neighbours near;
	int error;

	if (!record_is_sane(record))
		return -EUCLEAN;
	error = neighbours_find(rmap, record, &near);
	return error < 0 ? error : insert_merged(rmap, tx, &near);
}

/* The record of the same mapping that begins here. */
static int record_at(const struct rmap *rmap, const struct rmap_record *self, blkno_t start,
		     struct rmap_record *out)
{
	struct btree_key key = {{start, self->owner, self->offset + (start - self->start)}};
	struct btree_record record;
	int error = btree_lookup(&rmap->tree, &key, &record);

	return error ? error : rmap_unpack(out, &record.key, record.value, record.length);
}

/* -ENOENT: not as the caller's map has it. */
static int neighbours_take(const struct rmap *rmap, const struct rmap_record *record,
			   const struct rmap_beside *beside, struct neighbours *near)
{
	int error = 0;

	near->self = record;
	near->merge = MERGE_NONE;
	if (beside->has_left) {
		error = record_at(rmap, record, beside->left, &near->left);
		if (!error && (rmap_record_end(&near->left) != record->start || near->left.flags != record->flags))
			error = -ENOENT;
		near->merge |= MERGE_LEFT;
	}
	if (!error && beside->has_right) {
		error = record_at(rmap, record, rmap_record_end(record), &near->right);
		if (!error && near->right.flags != record->flags)
			error = -ENOENT;
		near->merge |= MERGE_RIGHT;
	}
	return error;
}

int rmap_insert_beside(const struct rmap *rmap, struct tx *tx, const struct rmap_record *record,
		       const struct rmap_beside *beside)
{
	struct neighbours near;
	int error;

	if (!record_is_sane(record))
		return -EUCLEAN;
	error = neighbours_take(rmap, record, beside, &near);
	if (error == -ENOENT)
		error = neighbours_find(rmap, record, &near);
	return error < 0 ? error : insert_merged(rmap, tx, &near);
}

/* --- remove --- */

enum cut { CUT_ALL, CUT_HEAD, CUT_TAIL, CUT_MIDDLE };

static enum cut cut_classify(const struct rmap_record *whole, const struct rmap_record *part)
{
	bool from_start = part->start == whole->start,
	     to_end = rmap_record_end(part) == rmap_record_end(whole);

	if (from_start)
		return to_end ? CUT_ALL : CUT_HEAD;
	return to_end ? CUT_TAIL : CUT_MIDDLE;
}

static int cut_head(const struct rmap *rmap, struct tx *tx, const struct rmap_record *whole,
		    blkno_t end)
{
	struct rmap_record rest = rmap_clip(whole, end, rmap_record_end(whole));

	return record_move(rmap, tx, whole, &rest);
}

static int cut_middle(const struct rmap *rmap, struct tx *tx, const struct rmap_record *whole,
		      const struct rmap_record *part)
{
	struct rmap_record rest = rmap_clip(whole, rmap_record_end(part), rmap_record_end(whole));
	int error = record_resize(rmap, tx, whole, part->start - whole->start);

	return error < 0 ? error : record_add(rmap, tx, &rest);
}

static int record_cut(const struct rmap *rmap, struct tx *tx, const struct rmap_record *whole,
		      const struct rmap_record *part)
{
	switch (cut_classify(whole, part)) {
	case CUT_ALL:
		break;
	case CUT_HEAD:
		return cut_head(rmap, tx, whole, rmap_record_end(part));
	case CUT_TAIL:
		return record_resize(rmap, tx, whole, part->start - whole->start);
	case CUT_MIDDLE:
		return cut_middle(rmap, tx, whole, part);
	}
	return record_drop(rmap, tx, whole);
}

struct holder_search {
	const struct rmap_record *self;
	struct rmap_record found;
};

static int holder_visit(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct holder_search *search = arg;
	int error = rmap_unpack(&search->found, key, value, length);

	if (error < 0)
		return error;
	return rmap_same_mapping(&search->found, search->self);
}

/* The record that holds the first block of this mapping. Most are removed as they were inserted:
 * ask for that key first, and for where the whole is said to begin. */
static int holder_find(const struct rmap *rmap, const struct rmap_record *self, blkno_t start,
		       struct rmap_record *out)
{
	struct holder_search search = {.self = self};
	int found = record_at(rmap, self, self->start, out);

	if (found == -ENOENT && start < self->start) {
		found = record_at(rmap, self, start, out);
		if (!found && rmap_record_end(out) <= self->start)
			found = -ENOENT;
	}
	if (found != -ENOENT)
		return found;
	found =
	    btree_walk_overlap(&rmap->tree, self->start, self->start + 1, holder_visit, &search);
	if (found < 0)
		return found;
	if (found == 0)
		return -ENOENT;
	*out = search.found;
	return 0;
}

int rmap_remove(const struct rmap *rmap, struct tx *tx, const struct rmap_record *record)
{
	return rmap_remove_within(rmap, tx, record, record->start);
}

int rmap_remove_within(const struct rmap *rmap, struct tx *tx, const struct rmap_record *record,
		       blkno_t start)
{
	struct rmap_record left = *record;

	if (!record_is_sane(record))
		return -EUCLEAN;
	while (left.count > 0) {
		struct rmap_record holder, part;
		int error = holder_find(rmap, &left, start, &holder);

		if (error < 0)
			return error;
		part = rmap_clip(&holder, left.start, rmap_record_end(&left));
		error = record_cut(rmap, tx, &holder, &part);
		if (error < 0)
			return error;
		left.offset = rmap_offset_at(&left, rmap_record_end(&part));
		left.start += part.count;
		left.count -= part.count;
	}
	return 0;
}
