/* What is recorded of failures, and of operations under way. */
#include "fs/check.h"

#include <errno.h>
#include <string.h>

#include "fs/data.h"
#include "journal/root.h"
#include "notify/ledger_copy.h"
#include "notify/span.h"

#define LEDGER_ATTEMPTS 3 /* at counting what changes under the check */

/* --- badblocks, lost ------------------------------------------------------------------------------------------------------------ */

struct ledger_sum {
	struct check *check;
	const struct btree *tree;
	const char *name;
	uint64_t bytes;
	devoff_t end; /* of the record before */
	bool overlaps, is_outside, is_unknown, is_future;
};

/* Length, cause and whether the medium is held to be bad, of either tree. */
static int ledger_unpack(const struct btree *tree, const void *value, size_t length, struct badblock_record *out)
{
	struct lost_record lost;
	int error;

	if (tree->ops->tree == FORMAT_TREE_BADBLOCKS)
		return format_badblock_unpack(out, value, length);
	error = format_lost_unpack(&lost, value, length);
	if (!error)
		*out = (struct badblock_record){
			.length_bytes = lost.length_bytes, .cause_id = lost.cause_id, .state = BADBLOCK_BAD};
	return error;
}

/* Every byte of it; judged only where nothing is healed meanwhile. */
static bool range_is_known(struct check *check, devoff_t start, devoff_t end)
{
	uint64_t length;
	devoff_t bad;

	while (start < end) {
		if (!media_bad_find(check->fs->media, start, end - start, &bad, &length) || bad > start)
			return false;
		start = bad + length;
	}
	return true;
}

static void ledger_add(struct check *check, const struct check_cursor *at, void *arg)
{
	struct ledger_sum *sum = arg;
	struct badblock_record record;
	devoff_t start = at->key.word[0];

	if (ledger_unpack(sum->tree, at->value, at->length, &record))
		return; /* the node was refused already */
	sum->is_outside |= start % SECTOR_BYTES || start >= media_size(check->fs->media) ||
			   record.length_bytes > media_size(check->fs->media) - start;
	sum->overlaps |= start < sum->end;
	sum->is_future |= record.cause_id >= root_get(check->fs->journal, ROOT_NEXT_CAUSE);
	sum->end = start + record.length_bytes;
	sum->bytes += record.length_bytes;
	if (check->fs->options.readonly && !sum->is_outside && record.state != BADBLOCK_CLEARED)
		sum->is_unknown |= !range_is_known(check, start, sum->end);
}

static void ledger_judge(const struct ledger_sum *sum, uint64_t stored)
{
	struct check *check = sum->check;

	if (sum->overlaps)
		check_finding(check, "tree %s: ranges overlap", sum->name);
	if (sum->is_outside)
		check_finding(check, "tree %s: a range is not within the device, in whole sectors", sum->name);
	if (sum->is_future)
		check_finding(check, "tree %s: a cause has a number that was never given", sum->name);
	if (sum->is_unknown)
		check_finding(check, "tree %s: a range is not known to be bad", sum->name);
	if (sum->bytes != stored)
		check_finding(check, "counter of bytes in %s: stored %llu, counted %llu", sum->name, (unsigned long long)stored,
			      (unsigned long long)sum->bytes);
}

static void check_ledger_tree(struct check *check, const struct btree *tree, enum root_counter counter)
{
	for (unsigned i = 0; i < LEDGER_ATTEMPTS && !check_is_over(check); i++) {
		struct ledger_sum sum = {.check = check, .tree = tree, .name = format_tree_name(tree->ops->tree)};
		uint64_t changes = check_changes(check);

		check_each(check, tree, ledger_add, &sum);
		if (check_changes(check) != changes)
			continue;
		ledger_judge(&sum, root_get(check->fs->journal, counter));
		return;
	}
	check_skip(check);
}

/* --- the copy --------------------------------------------------------------------------------------------------------------------- */

struct copy_check {
	const struct btree *trees[3]; /* of which it is a copy */
	struct btree copy;
};

/* In the copy too, with the same value? */
static void copy_check_record(struct check *check, const struct check_cursor *at, void *arg)
{
	struct copy_check *of = arg;
	unsigned tree = at->tree->ops->tree;
	struct btree_key key = ledger_copy_key(tree, &at->key);
	struct btree_record found;
	int error = btree_lookup(&of->copy, &key, &found);

	check_spend(check, CHECK_NODE_UNITS / 4);
	if (error && error != -ENOENT)
		check_unreadable(check, &of->copy, error);
	else if (error || found.length != at->length || memcmp(found.value, at->value, at->length))
		check_finding(check, "tree %s: record %llu: ledger_copy %s", format_tree_name(tree), (unsigned long long)at->key.word[0],
			      error ? "does not have it" : "says something else");
}

static const struct btree *copy_original(const struct copy_check *of, uint64_t tree)
{
	for (unsigned i = 0; i < ARRAY_SIZE(of->trees); i++)
		if (of->trees[i]->ops->tree == tree)
			return of->trees[i];
	return NULL;
}

/* Each record of the copy has its original; that they are equal is told from there. */
static void copy_check_original(struct check *check, const struct check_cursor *at, void *arg)
{
	const struct btree *tree = copy_original(arg, at->key.word[0]);
	struct btree_key key = {{at->key.word[1], at->key.word[2]}};
	struct btree_record found;
	int error;

	if (!tree) {
		check_finding(check, "tree ledger_copy: a record of tree %llu", (unsigned long long)at->key.word[0]);
		return;
	}
	error = btree_lookup(tree, &key, &found);
	check_spend(check, CHECK_NODE_UNITS / 4);
	if (error == -ENOENT)
		check_finding(check, "tree ledger_copy: record %llu of %s is not there", (unsigned long long)key.word[0],
			      format_tree_name(tree->ops->tree));
	else if (error)
		check_unreadable(check, tree, error);
}

static void check_ledger_copy(struct check *check)
{
	struct fs *fs = check->fs;
	struct copy_check of = {{ledger_badblocks_tree(fs->notify), ledger_lost_tree(fs->notify), &fs->damaged}, {0}};

	btree_init(&of.copy, fs->journal, &ledger_copy_ops);
	for (unsigned i = 0; i < ARRAY_SIZE(of.trees); i++)
		check_each(check, of.trees[i], copy_check_record, &of);
	check_each(check, &of.copy, copy_check_original, &of);
}

/* --- intents, orphans --------------------------------------------------------------------------------------------------------------- */

static const char *intent_fault(const struct check *check, uint64_t id, const struct intent_record *intent)
{
	const uint64_t *args = intent->args;
	bool is_clone = intent->op == INTENT_CLONE;

	if (id >= root_get(check->fs->journal, ROOT_NEXT_INTENT))
		return "has a number that was never given";
	if (!args[0] || !owner_is_inode(args[0]) || args[1] > FILE_BLOCKS_END)
		return "is about no part of a file";
	if (intent->op == INTENT_PUNCH && (args[2] > FILE_BLOCKS_END || args[1] > args[2]))
		return "is about no part of a file";
	if (is_clone && (!args[2] || !owner_is_inode(args[2]) || args[2] == args[0] || args[3] > FILE_BLOCKS_END ||
			 args[4] > FILE_BLOCKS_END || args[5] > FS_FILE_MAX))
		return "copies from or to no part of a file";
	return NULL;
}

static void check_intent(struct check *check, const struct check_cursor *at, void *arg)
{
	struct intent_record intent;
	const char *fault;

	if (format_intent_unpack(&intent, at->value, at->length))
		return;
	fault = intent_fault(check, at->key.word[0], &intent);
	if (fault)
		check_finding(check, "unfinished operation %llu: %s", (unsigned long long)at->key.word[0], fault);
}

static void count_record(struct check *check, const struct check_cursor *at, void *arg)
{
	++*(uint64_t *)arg;
}

/* Small trees: counted anew when others were quicker. */
static void check_counted(struct check *check, const struct btree *tree, enum root_counter counter)
{
	for (unsigned i = 0; i < LEDGER_ATTEMPTS && !check_is_over(check); i++) {
		uint64_t changes = check_changes(check), count = 0;

		check_each(check, tree, count_record, &count);
		if (check_changes(check) != changes)
			continue;
		check_counter(check, format_tree_name(tree->ops->tree), root_get(check->fs->journal, counter), count, changes);
		return;
	}
	check_skip(check);
}

void check_ledger(struct check *check)
{
	struct fs *fs = check->fs;

	check_begin_phase(check, "ledger", 0);
	check_ledger_tree(check, ledger_badblocks_tree(fs->notify), ROOT_BADBLOCK_BYTES);
	check_ledger_tree(check, ledger_lost_tree(fs->notify), ROOT_LOST_BYTES);
	if (fs->super.version >= 2)
		check_ledger_copy(check);
	check_each(check, &fs->intents, check_intent, NULL);
	check_counted(check, &fs->intents, ROOT_INTENTS);
	check_counted(check, &fs->orphans, ROOT_ORPHANS);
}
