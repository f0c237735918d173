/*
 * badblocks, lost and damaged against their copy. What only one place has is kept, unless the counter of bytes, or a younger leaf, says that it was
 * taken out; of two values for one key, and of two ranges that overlap, the younger's.
 */
#include "fsck/records.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "journal/root.h"
#include "notify/ledger_copy.h"

static const struct btree *ledger_tree(const struct records *records, unsigned tree)
{
	if (tree == FORMAT_TREE_BADBLOCKS)
		return &records->badblocks;
	return tree == FORMAT_TREE_LOST ? &records->lost : &records->fs->damaged;
}

static uint64_t item_length(const struct ledger_item *item)
{
	struct le64 length;

	memcpy(&length, item->value, sizeof(length));
	return le64_get(length);
}

static int item_compare(const void *a, const void *b)
{
	const struct ledger_item *x = a, *y = b;

	if (x->tree != y->tree)
		return x->tree < y->tree ? -1 : 1;
	return btree_key_compare(&x->key, &y->key);
}

/* --- collecting ----------------------------------------------------------------------------------------------------------------------------- */

static int item_add(struct records *records, struct ledger_plan *plan, unsigned tree, bool is_in_copy, const struct cursor_record *record)
{
	const struct btree *from = is_in_copy ? &records->ledger_copy : ledger_tree(records, tree);
	struct leaf_view view;
	struct ledger_item *item;
	int error = records_view(records, from, &record->key, &view);

	if (error)
		return error;
	if (record->length > sizeof(item->value))
		return -EUCLEAN;
	item = records_grow((void **)&plan->list, &plan->count, &plan->capacity, sizeof(*item));
	if (!item)
		return -ENOMEM;
	*item = (struct ledger_item){.tree = tree, .key = record->key, .length = record->length, .sequence = view.sequence};
	if (is_in_copy)
		item->key = (struct btree_key){{record->key.word[1], record->key.word[2]}};
	item->is_in_copy = is_in_copy;
	item->is_in_tree = !is_in_copy;
	memcpy(item->value, record->value, record->length);
	return 0;
}

static int collect(struct records *records, struct ledger_plan *plan, const struct btree *from, unsigned tree)
{
	struct cursor_record record;
	struct cursor cursor;
	int got = cursor_begin(&cursor, records, from), error = got;

	while (!error && (got = cursor_peek(&cursor, &record)) > 0) {
		error = item_add(records, plan, tree ? tree : (unsigned)record.key.word[0], !tree, &record);
		cursor_advance(&cursor);
	}
	cursor_end(&cursor);
	return error ? error : got;
}

/* Of equal keys: one item when the bytes are equal, else the younger's, the other dropped. */
static void join_pair(struct ledger_item *a, struct ledger_item *b)
{
	bool is_equal = a->length == b->length && !memcmp(a->value, b->value, a->length);
	struct ledger_item *young = b->sequence > a->sequence ? b : a, *old = young == a ? b : a;

	old->is_dropped = true;
	if (is_equal)
		young->is_in_tree = young->is_in_copy = true;
}

static void join_pairs(struct ledger_plan *plan)
{
	if (plan->count)
		qsort(plan->list, plan->count, sizeof(*plan->list), item_compare);
	for (size_t i = 1; i < plan->count; i++)
		if (item_compare(&plan->list[i - 1], &plan->list[i]) == 0)
			join_pair(&plan->list[i - 1], &plan->list[i]);
}

/* --- judging ----------------------------------------------------------------------------------------------------------------------------------- */

struct ledger_sums {
	uint64_t both, of_tree, of_copy;
};

static bool item_is_single(const struct ledger_item *item)
{
	return !item->is_dropped && item->is_in_tree != item->is_in_copy;
}

static struct ledger_sums sum_up(const struct ledger_plan *plan, unsigned tree)
{
	struct ledger_sums sums = {0};

	for (size_t i = 0; i < plan->count; i++) {
		const struct ledger_item *item = &plan->list[i];

		if (item->tree != tree || item->is_dropped)
			continue;
		if (!item_is_single(item))
			sums.both += item_length(item);
		else
			*(item->is_in_tree ? &sums.of_tree : &sums.of_copy) += item_length(item);
	}
	return sums;
}

/* 1: the counter of bytes has it, -1: it has not. */
static int counter_says(struct records *records, const struct ledger_sums *sums, const struct ledger_item *item)
{
	uint64_t mine = item->is_in_tree ? sums->of_tree : sums->of_copy, theirs = item->is_in_tree ? sums->of_copy : sums->of_tree;
	uint64_t stored;

	if (item->tree == FORMAT_TREE_DAMAGED)
		return 0;
	stored = records->repair->said[item->tree == FORMAT_TREE_LOST ? ROOT_LOST_BYTES : ROOT_BADBLOCK_BYTES];
	if (stored == sums->both + mine + theirs || (stored == sums->both + mine && mine != theirs))
		return 1;
	if (stored && (stored == sums->both || (stored == sums->both + theirs && mine != theirs)))
		return -1;
	return 0;
}

static int item_judge(struct records *records, const struct ledger_sums *sums, struct ledger_item *item)
{
	const struct btree_key copy_key = ledger_copy_key(item->tree, &item->key);
	struct leaf_view view;
	int says = counter_says(records, sums, item), error;

	if (says) {
		item->is_dropped = says < 0;
		return 0;
	}
	error = item->is_in_tree ? records_view(records, &records->ledger_copy, &copy_key, &view)
				 : records_view(records, ledger_tree(records, item->tree), &item->key, &view);
	/* Where the other has another value for the key, the comparison of the two has decided. */
	item->is_dropped = !error && view.is_known && !view.found && view.sequence > item->sequence;
	return error;
}

static int judge_tree(struct records *records, struct ledger_plan *plan, unsigned tree)
{
	const struct ledger_sums sums = sum_up(plan, tree);
	int error = 0;

	for (size_t i = 0; i < plan->count && !error; i++)
		if (plan->list[i].tree == tree && item_is_single(&plan->list[i]))
			error = item_judge(records, &sums, &plan->list[i]);
	return error;
}

/* Where the range begins, on the device or in its file. */
static uint64_t item_start(const struct ledger_item *item)
{
	return item->key.word[item->tree == FORMAT_TREE_DAMAGED];
}

static bool items_share_space(const struct ledger_item *a, const struct ledger_item *b)
{
	return a->tree == b->tree && (a->tree != FORMAT_TREE_DAMAGED || a->key.word[0] == b->key.word[0]);
}

/* `last` begins before `item` and reaches into it: it ends there. All that is bad stays known, unless `item` lies within it and goes. */
static bool cut_last(struct ledger_item *last, struct ledger_item *item)
{
	struct le64 shorter = le64_make(item_start(item) - item_start(last));

	if (item_start(last) + item_length(last) >= item_start(item) + item_length(item)) {
		item->is_dropped = true;
		return false;
	}
	memcpy(last->value, &shorter, sizeof(shorter));
	last->is_in_tree = last->is_in_copy = false;
	return true;
}

/* Ranges do not overlap. Neighbours in order are enough to see whether any do. */
static void cut_overlaps(struct ledger_plan *plan)
{
	struct ledger_item *last = NULL;

	for (size_t i = 0; i < plan->count; i++) {
		struct ledger_item *item = &plan->list[i];

		if (item->is_dropped)
			continue;
		if (last && items_share_space(last, item) && item_start(last) + item_length(last) > item_start(item) && !cut_last(last, item))
			continue;
		last = item;
	}
}

int ledger_plan(struct records *records, struct ledger_plan *plan)
{
	static const unsigned trees[] = {FORMAT_TREE_BADBLOCKS, FORMAT_TREE_LOST, FORMAT_TREE_DAMAGED};
	int error = collect(records, plan, &records->ledger_copy, 0);

	for (unsigned i = 0; i < ARRAY_SIZE(trees) && !error; i++)
		error = collect(records, plan, ledger_tree(records, trees[i]), trees[i]);
	if (error)
		return error;
	join_pairs(plan);
	for (unsigned i = 0; i < ARRAY_SIZE(trees) && !error; i++)
		error = judge_tree(records, plan, trees[i]);
	cut_overlaps(plan);
	return error;
}

void ledger_plan_fini(struct ledger_plan *plan)
{
	free(plan->list);
}

/* --- applying ------------------------------------------------------------------------------------------------------------------------------------ */

static void item_tell(struct records *records, const struct ledger_item *item, const char *what)
{
	records_tell(records, RECORD_LEDGER, "%s: record of %llu at %llu %s", format_tree_name(item->tree),
		     (unsigned long long)item_length(item), (unsigned long long)item_start(item), what);
}

static int item_remove(struct records *records, const struct ledger_item *item)
{
	const struct btree_key copy_key = ledger_copy_key(item->tree, &item->key);
	int error = records_remove(records, ledger_tree(records, item->tree), &item->key);

	return error ? error : records_remove(records, &records->ledger_copy, &copy_key);
}

static int item_store(struct records *records, const struct ledger_item *item)
{
	const struct btree_key copy_key = ledger_copy_key(item->tree, &item->key);
	int error;

	if (item->is_in_tree && item->is_in_copy)
		return 0;
	item_tell(records, item, "put right");
	error = records_put(records, ledger_tree(records, item->tree), &item->key, item->value, item->length);
	return error ? error : records_put(records, &records->ledger_copy, &copy_key, item->value, item->length);
}

/* Is there another item for the same key, which stays? */
static bool item_is_replaced(const struct ledger_plan *plan, size_t i)
{
	return (i > 0 && item_compare(&plan->list[i - 1], &plan->list[i]) == 0) ||
	       (i + 1 < plan->count && item_compare(&plan->list[i + 1], &plan->list[i]) == 0);
}

int ledger_apply(struct records *records, const struct ledger_plan *plan)
{
	uint64_t bytes[FORMAT_TREE_COUNT] = {0};
	int error = 0;

	for (size_t i = 0; i < plan->count && !error; i++) {
		if (!plan->list[i].is_dropped || item_is_replaced(plan, i))
			continue;
		item_tell(records, &plan->list[i], "that is out of date removed");
		error = item_remove(records, &plan->list[i]);
	}
	for (size_t i = 0; i < plan->count && !error; i++) {
		if (plan->list[i].is_dropped)
			continue;
		bytes[plan->list[i].tree] += item_length(&plan->list[i]);
		error = item_store(records, &plan->list[i]);
	}
	if (!error)
		error = records_set_counter(records, ROOT_BADBLOCK_BYTES, bytes[FORMAT_TREE_BADBLOCKS]);
	return error ? error : records_set_counter(records, ROOT_LOST_BYTES, bytes[FORMAT_TREE_LOST]);
}
