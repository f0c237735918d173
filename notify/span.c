#include "notify/span.h"

#include <errno.h>

#include "format/poison_format.h"
#include "notify/ledger_copy.h"

static uint64_t stored_length(const void *value)
{
	/* Both records begin with their length, unaligned as any value. */
	struct le64 length;

	__builtin_memcpy(&length, value, sizeof(length));
	return le64_get(length);
}

static uint64_t span_aggregate(const struct btree_key *key, const void *value, size_t length)
{
	(void)length;
	return key->word[0] + stored_length(value);
}

static int span_verify_place(const struct btree_key *key, uint64_t length_bytes)
{
	if (key->word[0] % SECTOR_BYTES || length_bytes % SECTOR_BYTES || length_bytes == 0)
		return -EUCLEAN;
	if (key->word[0] >= DEVICE_BYTES_MAX || length_bytes > DEVICE_BYTES_MAX - key->word[0])
		return -EUCLEAN;
	return 0;
}

static int badblocks_verify(const struct btree_key *key, const void *value, size_t length)
{
	struct badblock_record record;
	int rc = format_badblock_unpack(&record, value, length);

	return rc ? rc : span_verify_place(key, record.length_bytes);
}

static int lost_verify(const struct btree_key *key, const void *value, size_t length)
{
	struct lost_record record;
	int rc = format_lost_unpack(&record, value, length);

	return rc ? rc : span_verify_place(key, record.length_bytes);
}

const struct btree_ops badblocks_ops = {
    .tree = FORMAT_TREE_BADBLOCKS,
    .key_words = 1,
    .aggregate = span_aggregate,
    .verify = badblocks_verify,
};

const struct btree_ops lost_ops = {
    .tree = FORMAT_TREE_LOST,
    .key_words = 1,
    .aggregate = span_aggregate,
    .verify = lost_verify,
};

void span_tree_init(struct span_tree *tree, struct journal *journal, const struct btree_ops *ops,
		    enum root_counter bytes)
{
	btree_init(&tree->tree, journal, ops);
	tree->bytes = bytes;
}

static bool span_is_lost_tree(const struct span_tree *tree)
{
	return tree->tree.ops == &lost_ops;
}

static size_t span_pack(const struct span_tree *tree, const struct span *span, uint8_t *value)
{
	if (span_is_lost_tree(tree)) {
		const struct lost_record record = {
		    .offset = span->start,
		    .length_bytes = span->end - span->start,
		    .cause_id = span->cause_id,
		    .source = span->source,
		};

		format_lost_pack((struct format_lost *)value, &record);
		return sizeof(struct format_lost);
	}
	const struct badblock_record record = {
	    .offset = span->start,
	    .length_bytes = span->end - span->start,
	    .since_ns = span->since_ns,
	    .cause_id = span->cause_id,
	    .count = span->count,
	    .state = span->state,
	    .source = span->source,
	};
	format_badblock_pack((struct format_badblock *)value, &record);
	return sizeof(struct format_badblock);
}

static int span_unpack_lost(struct span *span, const struct btree_record *from)
{
	struct lost_record record;
	int rc = format_lost_unpack(&record, from->value, from->length);

	if (rc)
		return rc;
	*span = (struct span){.cause_id = record.cause_id, .source = record.source};
	span->start = from->key.word[0];
	span->end = span->start + record.length_bytes;
	return 0;
}

static int span_unpack(const struct span_tree *tree, struct span *span,
		       const struct btree_record *from)
{
	struct badblock_record record;
	int rc;

	if (span_is_lost_tree(tree))
		return span_unpack_lost(span, from);
	rc = format_badblock_unpack(&record, from->value, from->length);
	if (rc)
		return rc;
	*span = (struct span){
	    .start = from->key.word[0],
	    .end = from->key.word[0] + record.length_bytes,
	    .cause_id = record.cause_id,
	    .since_ns = record.since_ns,
	    .count = record.count,
	    .state = record.state,
	    .source = record.source,
	};
	return 0;
}

static int span_at_or_before(const struct span_tree *tree, devoff_t start, struct span *out)
{
	const struct btree_key key = {{start}};
	struct btree_record record;
	int rc = btree_lookup_le(&tree->tree, &key, &record);

	return rc ? rc : span_unpack(tree, out, &record);
}

static int span_at_or_after(const struct span_tree *tree, devoff_t start, struct span *out)
{
	const struct btree_key key = {{start}};
	struct btree_record record;
	int rc = btree_lookup_ge(&tree->tree, &key, &record);

	return rc ? rc : span_unpack(tree, out, &record);
}

int span_first(const struct span_tree *tree, devoff_t start, devoff_t end, struct span *out)
{
	struct span span;
	int rc = span_at_or_before(tree, start, &span);

	if (rc && rc != -ENOENT)
		return rc;
	if (rc || span.end <= start) {
		rc = span_at_or_after(tree, start, &span);
		if (rc)
			return rc;
	}
	if (span.start >= end)
		return -ENOENT;
	*out = span;
	return 0;
}

int span_gap(const struct span_tree *tree, devoff_t start, devoff_t end, devoff_t *gap_start,
	     devoff_t *gap_end)
{
	struct span span;
	int rc;

	while (start < end) {
		rc = span_first(tree, start, end, &span);
		if (rc && rc != -ENOENT)
			return rc;
		if (rc || span.start > start) {
			*gap_start = start;
			*gap_end = rc ? end : span.start;
			return 0;
		}
		start = span.end;
	}
	return -ENOENT;
}

static bool span_is_alike(const struct span *a, const struct span *b)
{
	return a->state == b->state && a->source == b->source && a->cause_id == b->cause_id;
}

static int span_store(const struct span_tree *tree, struct tx *tx, const struct span *span,
		      bool is_new)
{
	const struct btree_key key = {{span->start}};
	uint64_t value[sizeof(struct format_badblock) / 8 + 1];
	const size_t length = span_pack(tree, span, (uint8_t *)value);

	const int rc = is_new ? btree_insert(&tree->tree, tx, &key, value, length)
			      : btree_update(&tree->tree, tx, &key, value, length);

	return rc ? rc : ledger_copy_put(&tree->tree, tx, &key, value, length);
}

static int span_delete(const struct span_tree *tree, struct tx *tx, devoff_t start)
{
	const struct btree_key key = {{start}};
	const int rc = btree_remove(&tree->tree, tx, &key);

	return rc ? rc : ledger_copy_remove(&tree->tree, tx, &key);
}

static void span_absorb(struct span *into, const struct span *other)
{
	into->start = min_u64(into->start, other->start);
	into->end = max_u64(into->end, other->end);
	into->since_ns = min_u64(into->since_ns, other->since_ns);
	into->count = into->count > other->count ? into->count : other->count;
}

/* Grow `span` over what it touches on the right, which leaves the tree. */
static int span_merge_right(const struct span_tree *tree, struct tx *tx, struct span *span)
{
	struct span right;
	int rc = span_at_or_after(tree, span->start, &right);

	if (rc)
		return rc == -ENOENT ? 0 : rc;
	if (right.start < span->end)
		return -EEXIST;
	if (right.start > span->end || !span_is_alike(span, &right))
		return 0;
	rc = span_delete(tree, tx, right.start);
	if (rc == 0)
		span_absorb(span, &right);
	return rc;
}

int span_insert(const struct span_tree *tree, struct tx *tx, const struct span *span)
{
	struct span left, merged = *span;
	bool is_new = true;
	int rc = span_at_or_before(tree, span->start, &left);

	if (rc && rc != -ENOENT)
		return rc;
	if (rc == 0 && left.end > span->start)
		return -EEXIST;
	if (rc == 0)
		is_new = left.end < span->start || !span_is_alike(span, &left);
	rc = span_merge_right(tree, tx, &merged);
	if (rc)
		return rc;
	if (!is_new)
		span_absorb(&merged, &left);
	rc = span_store(tree, tx, &merged, is_new);
	if (rc)
		return rc;
	return root_add(tx, tree->bytes, (int64_t)(span->end - span->start));
}

/* Take [start, end), which lies within `span`, out of it. */
static int span_cut(const struct span_tree *tree, struct tx *tx, const struct span *span,
		    devoff_t start, devoff_t end)
{
	struct span left = *span, right = *span;
	int rc;

	left.end = start;
	right.start = end;
	if (left.start < left.end)
		rc = span_store(tree, tx, &left, false);
	else
		rc = span_delete(tree, tx, span->start);
	if (rc == 0 && right.start < right.end)
		rc = span_store(tree, tx, &right, true);
	if (rc)
		return rc;
	return root_add(tx, tree->bytes, -(int64_t)(end - start));
}

int span_remove(const struct span_tree *tree, struct tx *tx, devoff_t start, devoff_t end)
{
	struct span span;
	int rc = 0;

	for (; start < end && rc == 0; start = min_u64(end, span.end)) {
		rc = span_first(tree, start, end, &span);
		if (rc)
			return rc == -ENOENT ? 0 : rc;
		rc = span_cut(tree, tx, &span, max_u64(start, span.start), min_u64(end, span.end));
	}
	return rc;
}

static int span_restate(const struct span_tree *tree, struct tx *tx, const struct span *span,
			devoff_t start, devoff_t end, uint8_t state)
{
	struct span changed = *span;
	int rc = span_cut(tree, tx, span, start, end);

	if (rc)
		return rc;
	changed.start = start;
	changed.end = end;
	changed.state = state;
	return span_insert(tree, tx, &changed);
}

int span_set_state(const struct span_tree *tree, struct tx *tx, devoff_t start, devoff_t end,
		   uint8_t state)
{
	struct span span;
	int rc = 0;

	for (; start < end && rc == 0; start = min_u64(end, span.end)) {
		rc = span_first(tree, start, end, &span);
		if (rc)
			return rc == -ENOENT ? 0 : rc;
		if (span.state != state)
			rc = span_restate(tree, tx, &span, max_u64(start, span.start),
					  min_u64(end, span.end), state);
	}
	return rc;
}
