#include "btree/btree.h"

#include <check.h>
#include <errno.h>
#include <string.h>

#include "btree/cursor.h"
#include "btree/node.h"
#include "tests/support/expect.h"
#include "tests/support/fake_journal.h"
#include "tests/support/random.h"
#include "util/log.h"

/* --- a tree under test, and what must be in it --- */

static uint64_t end_of_record(const struct btree_key *key, const void *value, size_t length)
{
	uint16_t span = 0;

	memcpy(&span, value, length < sizeof(span) ? length : sizeof(span));
	return key->word[0] + 1 + span;
}

static int refuse_odd_tail(const struct btree_key *key, const void *value, size_t length)
{
	return length > 2 && ((const uint8_t *)value)[length - 1] == 0xee ? -EUCLEAN : 0;
}

static uint64_t round_end(uint64_t end, bool is_alike)
{
	return is_alike ? end : round_up_u64(end, 64);
}

#define UNIT 1000
static const struct btree_ops ops_by_words[4] = {
    [1] = {.tree = FORMAT_TREE_FREE,
	   .key_words = 1,
	   .aggregate = end_of_record,
	   .verify = refuse_odd_tail},
    [2] = {.tree = FORMAT_TREE_EXTENTS, .key_words = 2},
    [3] = {.tree = FORMAT_TREE_RMAP, .key_words = 3, .unit = UNIT, .aggregate = end_of_record, .round = round_end},
};

struct model_record {
	struct btree_key key;
	uint16_t length;
	uint32_t seed;
	struct btree_key from; /* of a change that gives it another key */
};

#define MODEL_MAX 8192
struct fixture {
	struct journal *journal;
	struct btree tree;
	struct random random;
	uint64_t key_range;
	size_t value_max;
	unsigned count;
	struct model_record *model;
};

static void fixture_open(struct fixture *f, unsigned key_words, const char *name)
{
	f->journal = fake_create(1ull << 30);
	btree_init(&f->tree, f->journal, &ops_by_words[key_words]);
	f->random = random_start(name);
	f->key_range = 3000;
	f->value_max = 40;
	f->count = 0;
	f->model = calloc(MODEL_MAX, sizeof(*f->model));
}

static void fixture_close(struct fixture *f)
{
	ck_assert_uint_eq(fake_references(f->journal), 0);
	fake_destroy(f->journal);
	free(f->model);
}

static void model_value(const struct model_record *record, uint8_t *out)
{
	struct random random = {record->seed};

	for (unsigned i = 0; i < record->length; i++)
		out[i] = i == 1 ? 0 : (uint8_t)(random_next(&random) & 0x7f);
}

static uint64_t model_aggregate(const struct model_record *record)
{
	uint8_t value[NODE_VALUE_MAX];

	model_value(record, value);
	return end_of_record(&record->key, value, record->length);
}

/* First record >= key. */
static unsigned model_find(const struct fixture *f, const struct btree_key *key, bool *found)
{
	unsigned low = 0, high = f->count;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (btree_key_compare(&f->model[middle].key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*found = low < f->count && btree_key_compare(&f->model[low].key, key) == 0;
	return low;
}

static void model_insert(struct fixture *f, unsigned at, const struct model_record *record)
{
	memmove(&f->model[at + 1], &f->model[at], (f->count - at) * sizeof(*f->model));
	f->model[at] = *record;
	f->count++;
}

static void model_remove(struct fixture *f, unsigned at)
{
	memmove(&f->model[at], &f->model[at + 1], (f->count - at - 1) * sizeof(*f->model));
	f->count--;
}

static struct btree_key random_key(struct fixture *f)
{
	struct btree_key key = {{0}};

	key.word[0] = random_below(&f->random, f->key_range);
	for (unsigned i = 1; i < f->tree.ops->key_words; i++)
		key.word[i] = random_below(&f->random, 3);
	return key;
}

static struct model_record random_record(struct fixture *f)
{
	struct model_record record = {.key = random_key(f),
				      .seed = (uint32_t)random_next(&f->random)};
	bool big = random_below(&f->random, 50) == 0;

	record.length =
	    (uint16_t)random_below(&f->random, big ? NODE_VALUE_MAX + 1 : f->value_max + 1);
	return record;
}

static void assert_same(const struct btree_record *got, const struct model_record *want)
{
	uint8_t value[NODE_VALUE_MAX];

	model_value(want, value);
	expect_equal(btree_key_compare(&got->key, &want->key), 0);
	expect_equal(got->length, want->length);
	expect(memcmp(got->value, value, want->length) == 0);
}

/* --- one random change, to the tree and to the model --- */

enum change { CHANGE_INSERT, CHANGE_UPDATE, CHANGE_REKEY, CHANGE_REMOVE };

static int change_tree(struct fixture *f, struct tx *tx, enum change change,
		       const struct model_record *record)
{
	uint8_t value[NODE_VALUE_MAX];

	model_value(record, value);
	switch (change) {
	case CHANGE_INSERT:
		return btree_insert(&f->tree, tx, &record->key, value, record->length);
	case CHANGE_UPDATE:
		return btree_update(&f->tree, tx, &record->key, value, record->length);
	case CHANGE_REKEY:
		return btree_rekey(&f->tree, tx, &record->from, &record->key, value, record->length);
	case CHANGE_REMOVE:
		break;
	}
	return btree_remove(&f->tree, tx, &record->key);
}

static int rekey_model(struct fixture *f, const struct model_record *record, bool apply)
{
	bool found, taken;
	unsigned at = model_find(f, &record->from, &found);

	(void)model_find(f, &record->key, &taken);
	if (!found)
		return -ENOENT;
	if (taken && btree_key_compare(&record->key, &record->from))
		return -EEXIST;
	if (!apply)
		return 0;
	model_remove(f, at);
	model_insert(f, model_find(f, &record->key, &found), record);
	return 0;
}

static int change_model(struct fixture *f, enum change change, const struct model_record *record,
			bool apply)
{
	bool found;
	unsigned at = model_find(f, &record->key, &found);

	if (change == CHANGE_REKEY)
		return rekey_model(f, record, apply);
	if (change == CHANGE_INSERT && found)
		return -EEXIST;
	if (change != CHANGE_INSERT && !found)
		return -ENOENT;
	if (!apply)
		return 0;
	if (change == CHANGE_INSERT)
		model_insert(f, at, record);
	else if (change == CHANGE_UPDATE)
		f->model[at] = *record;
	else
		model_remove(f, at);
	return 0;
}

static enum change random_change(struct fixture *f, unsigned step)
{
	/* Growing and shrinking in turn, so that trees become deep and empty again. */
	unsigned insert_percent = step / 4000 % 2 ? 25 : 55;
	uint64_t dice = random_below(&f->random, 100);

	if (dice < insert_percent && f->count + 1 < MODEL_MAX)
		return CHANGE_INSERT;
	if (dice < insert_percent + 15)
		return dice % 2 ? CHANGE_UPDATE : CHANGE_REKEY;
	return CHANGE_REMOVE;
}

/* Most stay where they are among the others. */
static void rekey_target(struct fixture *f, struct model_record *record)
{
	bool found;
	unsigned at = model_find(f, &record->key, &found);

	record->from = record->key;
	if (found && random_below(&f->random, 4) > 0)
		record->length = f->model[at].length;
	if (random_below(&f->random, 4) == 0)
		record->key = random_key(f);
	else if (random_below(&f->random, 2) == 0)
		record->key.word[0] += random_below(&f->random, 4);
	else
		record->key.word[0] -= min_u64(random_below(&f->random, 4), record->key.word[0]);
}

static struct model_record change_target(struct fixture *f, enum change change)
{
	struct model_record record = random_record(f);

	if (change != CHANGE_INSERT && f->count > 0 && random_below(&f->random, 8) > 0)
		record.key = f->model[random_below(&f->random, f->count)].key;
	if (change == CHANGE_REKEY)
		rekey_target(f, &record);
	return record;
}

struct pick {
	uint64_t left;
	maddr_t address;
};

static int pick_node(void *arg, maddr_t address, unsigned level, int error)
{
	struct pick *pick = arg;

	pick->address = address;
	return pick->left-- == 0;
}

/* Any of the first hundred, now and then. */
static maddr_t random_crowded(struct fixture *f)
{
	struct pick pick = {.left = random_below(&f->random, 100)};

	if (random_below(&f->random, 20) == 0)
		expect(btree_walk_nodes(&f->tree, pick_node, &pick) >= 0);
	return pick.address;
}

static void change_both(struct fixture *f, unsigned step)
{
	enum change change = random_change(f, step);
	struct model_record record = change_target(f, change);
	int expect = change_model(f, change, &record, true);
	struct tx *tx;

	maddr_t crowded = random_crowded(f);

	expect_equal(tx_begin(f->journal, TX_NORMAL, &tx), 0);
	tx_set_crowded(tx, crowded);
	expect_equal(change_tree(f, tx, change, &record), expect);
	if (expect == 0)
		expect_equal(tx_commit(tx, NULL), 0);
	else
		tx_abort(tx);
}

/* --- comparisons --- */

struct compare {
	const struct fixture *f;
	unsigned at, step;
	uint64_t start, end; /* overlap */
};

static int compare_next(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct compare *compare = arg;
	struct btree_record got = {.key = *key, .length = (uint16_t)length};

	expect(compare->at < compare->f->count);
	memcpy(got.value, value, length);
	assert_same(&got, &compare->f->model[compare->at++]);
	return 0;
}

static void assert_tree_is_model(struct fixture *f)
{
	static const struct btree_key first, last = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}};
	struct compare compare = {.f = f};
	uint64_t records = 0;

	expect_equal(btree_check(&f->tree, &records), 0);
	expect_equal(records, f->count);
	expect_equal(btree_walk(&f->tree, &first, &last, compare_next, &compare), 0);
	expect_equal(compare.at, f->count);
}

static void assert_lookups_agree(struct fixture *f)
{
	struct btree_key key = random_key(f);
	struct btree_record record;
	bool found;
	unsigned at = model_find(f, &key, &found);

	expect_equal(btree_lookup(&f->tree, &key, &record), found ? 0 : -ENOENT);
	if (found)
		assert_same(&record, &f->model[at]);
	expect_equal(btree_lookup_ge(&f->tree, &key, &record), at < f->count ? 0 : -ENOENT);
	if (at < f->count)
		assert_same(&record, &f->model[at]);
	expect_equal(btree_lookup_le(&f->tree, &key, &record), found || at > 0 ? 0 : -ENOENT);
	if (found || at > 0)
		assert_same(&record, &f->model[found ? at : at - 1]);
}

static void assert_find_aggregate_agrees(struct fixture *f)
{
	struct btree_key key = random_key(f);
	uint64_t least = random_below(&f->random, f->key_range + 100), most = 0, got;
	struct btree_record record;
	bool found;
	unsigned at = model_find(f, &key, &found);

	while (at < f->count && model_aggregate(&f->model[at]) < least)
		at++;
	expect_equal(btree_find_aggregate(&f->tree, &key, least, &record),
		     at < f->count ? 0 : -ENOENT);
	if (at < f->count)
		assert_same(&record, &f->model[at]);
	for (unsigned i = 0; i < f->count; i++)
		most = max_u64(most, model_aggregate(&f->model[i]));
	expect_equal(btree_max_aggregate(&f->tree, &got), 0);
	expect(got >= most && got <= (f->tree.ops->round ? round_up_u64(most, 64) : most));
}

static bool model_overlaps(const struct compare *compare, unsigned at)
{
	const struct model_record *record = &compare->f->model[at];

	return record->key.word[0] < compare->end && model_aggregate(record) > compare->start;
}

static int compare_overlap(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct compare *compare = arg;

	while (compare->at < compare->f->count && !model_overlaps(compare, compare->at))
		compare->at++;
	return compare_next(arg, key, value, length);
}

static void assert_overlaps_agree(struct fixture *f)
{
	struct compare compare = {.f = f, .start = random_below(&f->random, f->key_range)};

	compare.end = compare.start + random_below(&f->random, 60);
	expect_equal(
	    btree_walk_overlap(&f->tree, compare.start, compare.end, compare_overlap, &compare), 0);
	while (compare.at < f->count)
		expect(!model_overlaps(&compare, compare.at++) || compare.start >= compare.end);
}

static void run_model(unsigned key_words, unsigned steps, size_t value_max, uint64_t key_range)
{
	struct fixture f;

	fixture_open(&f, key_words, "btree model");
	f.value_max = value_max;
	f.key_range = key_range;
	for (unsigned step = 0; step < steps; step++) {
		change_both(&f, step);
		assert_lookups_agree(&f);
		if (f.tree.ops->aggregate && step % 32 == 0) {
			assert_find_aggregate_agrees(&f);
			assert_overlaps_agree(&f);
		}
		if (step % 997 == 0)
			assert_tree_is_model(&f);
		if (step % 4999 == 0)
			fake_forget_verified(f.journal);
	}
	assert_tree_is_model(&f);
	fixture_close(&f);
}

START_TEST(random_changes_agree_with_a_sorted_array)
{
	run_model(1, 60000, 40, 3000);
	run_model(2, 60000, 200, 3000);
	run_model(3, 60000, 8, 100000);
	run_model(3, 60000, 40, 3000);
}
END_TEST

START_TEST(random_changes_agree_with_long_values)
{
	run_model(1, 20000, NODE_VALUE_MAX, 500);
	run_model(3, 20000, NODE_VALUE_MAX, 500);
	run_model(3, 20000, NODE_VALUE_MAX, 20); /* leaves of one first word, and others */
}
END_TEST

/* --- errors in the middle --- */

START_TEST(a_failed_change_leaves_the_tree_as_it_was)
{
	struct fixture f;
	struct tx *tx;
	unsigned failed = 0;

	fixture_open(&f, 3, "btree faults");
	f.value_max = 300;
	for (unsigned step = 0; step < 20000; step++) {
		enum change change = random_change(&f, step);
		struct model_record record = change_target(&f, change);
		int expect = change_model(&f, change, &record, false), got;

		expect_equal(tx_begin(f.journal, TX_NORMAL, &tx), 0);
		if (random_below(&f.random, 3) == 0)
			fake_fail_change(f.journal, 1 + (unsigned)random_below(&f.random, 6),
					 -ENOMEM);
		got = change_tree(&f, tx, change, &record);
		fake_fail_change(f.journal, 0, 0);
		expect(got == expect || got == -ENOMEM);
		failed += got == -ENOMEM;
		if (got == 0) {
			expect_equal(tx_commit(tx, NULL), 0);
			change_model(&f, change, &record, true);
		} else {
			tx_abort(tx);
		}
		expect_equal(fake_references(f.journal), 0);
		if (step % 199 == 0)
			assert_tree_is_model(&f);
	}
	assert_tree_is_model(&f);
	ck_assert_uint_gt(failed, 1000);
	fixture_close(&f);
}
END_TEST

/* --- shape --- */

static void fill_ascending(struct fixture *f, unsigned count, size_t length)
{
	uint8_t value[NODE_VALUE_MAX] = {0};
	struct tx *tx;

	for (unsigned i = 0; i < count; i++) {
		struct btree_key key = {{i * 2 + 10}};

		ck_assert_int_eq(tx_begin(f->journal, TX_NORMAL, &tx), 0);
		ck_assert_int_eq(btree_insert(&f->tree, tx, &key, value, length), 0);
		ck_assert_int_eq(tx_commit(tx, NULL), 0);
	}
}

START_TEST(ascending_keys_fill_the_nodes)
{
	struct fixture f;
	unsigned per_leaf = NODE_SPACE_BYTES / (4 + 8 + 16);

	fixture_open(&f, 1, "btree ascending");
	fill_ascending(&f, per_leaf * 50, 16);
	ck_assert_uint_le(fake_blocks(f.journal), 52);
	fixture_close(&f);
}
END_TEST

START_TEST(removing_all_leaves_no_node)
{
	struct fixture f;
	struct tx *tx;

	fixture_open(&f, 1, "btree emptied");
	fill_ascending(&f, 20000, 16);
	for (unsigned i = 0; i < 20000; i++) {
		struct btree_key key = {{i * 2 + 10}};

		ck_assert_int_eq(tx_begin(f.journal, TX_NORMAL, &tx), 0);
		ck_assert_int_eq(btree_remove(&f.tree, tx, &key), 0);
		ck_assert_int_eq(tx_commit(tx, NULL), 0);
	}
	ck_assert_uint_eq(fake_blocks(f.journal), 0);
	assert_tree_is_model(&f);
	fixture_close(&f);
}
END_TEST

/* --- nodes where threads meet --- */

struct nodes {
	struct fixture *f;
	unsigned count[NODE_LEVELS_MAX], mixed[NODE_LEVELS_MAX];
};

static int count_node(void *arg, maddr_t address, unsigned level, int error)
{
	struct nodes *nodes = arg;
	struct btree_key first, last;
	struct format_node *node;
	struct buf *buf;

	ck_assert_int_eq(error, 0);
	ck_assert_int_eq(buf_get_any(nodes->f->journal, address, &buf), 0);
	node = (struct format_node *)buf->data;
	node_key(node, level > 0, &first); /* the first key of an inner node may be anything below */
	node_key(node, node_count(node) - 1, &last);
	nodes->count[level]++;
	nodes->mixed[level] += first.word[0] / UNIT != last.word[0] / UNIT;
	buf_put(buf);
	return 0;
}

static struct nodes count_all(struct fixture *f)
{
	struct nodes nodes = {.f = f};

	ck_assert_int_eq(btree_walk_nodes(&f->tree, count_node, &nodes), 0);
	return nodes;
}

static void change_crowded(struct fixture *f, maddr_t crowded, enum change change, uint64_t word)
{
	struct model_record record = {.key = {{word}}, .length = 40};
	struct tx *tx;

	ck_assert_int_eq(change_model(f, change, &record, true), 0);
	ck_assert_int_eq(tx_begin(f->journal, TX_NORMAL, &tx), 0);
	tx_set_crowded(tx, crowded);
	ck_assert_int_eq(change_tree(f, tx, change, &record), 0);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
}

static maddr_t root_address(struct fixture *f)
{
	maddr_t address;
	unsigned level;

	root_tree_get(f->journal, f->tree.ops->tree, &address, &level);
	return address;
}

START_TEST(a_crowded_leaf_is_cut_between_two_units)
{
	struct fixture f;
	struct nodes nodes;

	fixture_open(&f, 3, "btree crowded");
	for (unsigned i = 0; i < 10; i++) {
		change_crowded(&f, 0, CHANGE_INSERT, UNIT + i);
		change_crowded(&f, 0, CHANGE_INSERT, 2 * UNIT + i);
	}
	ck_assert_uint_eq(count_all(&f).count[0], 1);
	change_crowded(&f, root_address(&f) + 1000, CHANGE_INSERT, UNIT + 10); /* another tree's */
	ck_assert_uint_eq(count_all(&f).count[0], 1);
	change_crowded(&f, root_address(&f), CHANGE_INSERT, UNIT + 11);
	nodes = count_all(&f);
	ck_assert_uint_eq(nodes.count[0], 2);
	ck_assert_uint_eq(nodes.count[1], 1);
	ck_assert_uint_eq(nodes.mixed[0], 0);
	for (unsigned i = 1; i < 4; i++) /* nor are they merged again while they have more than a quarter */
		change_crowded(&f, 0, CHANGE_REMOVE, UNIT + i);
	ck_assert_uint_eq(count_all(&f).count[0], 2);
	for (unsigned i = 4; i < 11; i++)
		change_crowded(&f, 0, CHANGE_REMOVE, UNIT + i);
	ck_assert_uint_eq(count_all(&f).count[0], 1);
	assert_tree_is_model(&f);
	fixture_close(&f);
}
END_TEST

START_TEST(a_crowded_inner_node_is_cut_between_two_units)
{
	struct fixture f;
	struct nodes nodes;

	fixture_open(&f, 3, "btree crowded inner");
	for (unsigned i = 0; i < 800; i++) {
		change_crowded(&f, 0, CHANGE_INSERT, UNIT + i);
		change_crowded(&f, 0, CHANGE_INSERT, 2 * UNIT + i);
	}
	nodes = count_all(&f);
	ck_assert_uint_eq(nodes.count[1], 1);
	ck_assert_uint_eq(nodes.mixed[1], 1);
	change_crowded(&f, root_address(&f), CHANGE_UPDATE, 2 * UNIT + 400);
	nodes = count_all(&f);
	ck_assert_uint_eq(nodes.count[1], 2);
	ck_assert_uint_eq(nodes.count[2], 1);
	ck_assert_uint_eq(nodes.mixed[1], 0);
	assert_tree_is_model(&f);
	fixture_close(&f);
}
END_TEST

START_TEST(a_crowded_leaf_of_one_unit_is_cut_beside_the_key)
{
	struct fixture f;
	struct btree_record record;

	fixture_open(&f, 3, "btree crowded unit");
	for (unsigned i = 0; i < 10; i++)
		change_crowded(&f, 0, CHANGE_INSERT, UNIT + i);
	change_crowded(&f, root_address(&f), CHANGE_UPDATE, UNIT + 3);
	ck_assert_uint_eq(count_all(&f).count[0], 2);
	ck_assert_int_eq(btree_lookup(&f.tree, &(struct btree_key){{UNIT + 2}}, &record), 0);
	assert_tree_is_model(&f);
	fixture_close(&f);
}
END_TEST

/* --- what inner nodes say of the records below --- */

/* Of 640 times that the last record grew by one: how often the parent of its leaf was changed. */
static unsigned count_parent_changes(struct fixture *f, uint32_t version)
{
	struct btree_key key = {{50000}};
	unsigned changes = 0;

	journal_set_version(f->journal, version);
	for (unsigned i = 0; i < 400; i++)
		change_crowded(f, 0, CHANGE_INSERT, i * 100);
	change_crowded(f, 0, CHANGE_INSERT, key.word[0]);
	for (uint16_t span = 0; span < 640; span++) {
		struct tx *tx;

		expect_equal(tx_begin(f->journal, TX_NORMAL, &tx), 0);
		expect_equal(btree_update(&f->tree, tx, &key, &span, sizeof(span)), 0);
		expect_equal(tx_commit(tx, NULL), 0);
		changes += fake_last_joined(f->journal) > 1;
	}
	return changes;
}

START_TEST(a_record_that_grows_seldom_changes_the_parent_of_its_leaf)
{
	static const uint32_t versions[] = {FORMAT_VERSION_ROUNDED, FORMAT_VERSION_ROUNDED - 1};

	for (unsigned i = 0; i < ARRAY_SIZE(versions); i++) {
		struct fixture f;
		uint64_t records;
		unsigned changes;

		fixture_open(&f, 3, "btree growing");
		changes = count_parent_changes(&f, versions[i]);
		ck_assert(versions[i] < FORMAT_VERSION_ROUNDED ? changes >= 639 : changes <= 11);
		ck_assert_int_eq(btree_check(&f.tree, &records), 0);
		fixture_close(&f);
	}
}
END_TEST

static unsigned settle_all(struct fixture *f)
{
	struct btree_key from = {{0}};
	bool ended = false;
	unsigned leaves = 0;
	struct tx *tx;

	for (; !ended; leaves++) {
		expect_equal(tx_begin(f->journal, TX_NORMAL, &tx), 0);
		expect_equal(btree_settle_leaf(&f->tree, tx, &from, &ended), 0);
		expect_equal(tx_commit(tx, NULL), 0);
	}
	return leaves;
}

START_TEST(exact_aggregates_are_right_before_the_format_rounds_them_and_can_be_made_so)
{
	struct fixture f;
	uint64_t records;

	fixture_open(&f, 3, "btree settled");
	journal_set_version(f.journal, FORMAT_VERSION_ROUNDED - 1);
	for (unsigned step = 0; step < 3000; step++)
		change_both(&f, step);
	assert_tree_is_model(&f);
	journal_set_version(f.journal, FORMAT_VERSION_ROUNDED);
	ck_assert_int_eq(btree_check(&f.tree, &records), -EUCLEAN);
	for (unsigned step = 0; step < 500; step++) {
		assert_find_aggregate_agrees(&f);
		assert_overlaps_agree(&f);
	}
	ck_assert_uint_gt(settle_all(&f), 10);
	assert_tree_is_model(&f);
	fixture_close(&f);
}
END_TEST

/* --- keys that change --- */

static void rekey(struct fixture *f, uint64_t from, uint64_t to, unsigned joined)
{
	struct model_record record = {.key = {{to}}, .from = {{from}}, .length = 40};
	struct tx *tx;

	expect_equal(change_model(f, CHANGE_REKEY, &record, true), 0);
	expect_equal(tx_begin(f->journal, TX_NORMAL, &tx), 0);
	expect_equal(change_tree(f, tx, CHANGE_REKEY, &record), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	if (joined)
		ck_assert_uint_eq(fake_last_joined(f->journal), joined);
	assert_tree_is_model(f);
}

static uint64_t first_of_second_leaf(struct fixture *f)
{
	struct btree_key key;
	struct buf *root;

	ck_assert_int_eq(buf_get_any(f->journal, root_address(f), &root), 0);
	node_key((struct format_node *)root->data, 1, &key);
	buf_put(root);
	return key.word[0];
}

START_TEST(a_record_that_stays_in_its_leaf_changes_that_alone)
{
	struct btree_record record;
	struct fixture f;
	unsigned blocks;
	uint64_t second;

	fixture_open(&f, 2, "btree rekey");
	for (unsigned i = 1; i <= 200; i++)
		change_crowded(&f, 0, CHANGE_INSERT, i * 10);
	blocks = fake_blocks(f.journal);
	second = first_of_second_leaf(&f);
	rekey(&f, 1000, 1007, 1);
	rekey(&f, 1007, 991, 1);
	rekey(&f, second, second + 5, 1); /* its leaf's first: what the parent says is below it still */
	rekey(&f, second + 5, second, 1);
	rekey(&f, 10, 5, 1); /* below all */
	rekey(&f, 5, 25, 1); /* behind the next one in its leaf */
	rekey(&f, 25, 10, 1);
	rekey(&f, second - 10, second - 1, 1); /* its leaf's last */
	rekey(&f, second, second, 1);
	ck_assert_uint_eq(fake_blocks(f.journal), blocks);
	rekey(&f, second, second - 5, 0); /* to the leaf before */
	rekey(&f, 500, 1502, 0);
	ck_assert_int_eq(btree_lookup(&f.tree, &(struct btree_key){{500}}, &record), -ENOENT);
	fixture_close(&f);
}
END_TEST

START_TEST(the_only_record_of_a_leaf_or_tree_gets_another_key_in_place)
{
	struct fixture f;
	maddr_t root;

	fixture_open(&f, 3, "btree rekey alone");
	change_crowded(&f, 0, CHANGE_INSERT, 100);
	root = root_address(&f);
	rekey(&f, 100, 200, 1);
	rekey(&f, 200, 50, 1);
	ck_assert_uint_eq(root_address(&f), root);
	change_crowded(&f, 0, CHANGE_INSERT, UNIT);
	change_crowded(&f, root, CHANGE_UPDATE, UNIT);
	ck_assert_uint_eq(count_all(&f).count[0], 2);
	rekey(&f, UNIT, UNIT + 500, 0); /* with what the parent says of its end */
	rekey(&f, 50, 60, 0);
	ck_assert_uint_eq(count_all(&f).count[0], 2);
	fixture_close(&f);
}
END_TEST

START_TEST(an_empty_tree_has_nothing)
{
	static const struct btree_key key = {{7}};
	struct fixture f;
	struct btree_record record;
	uint64_t most = 1;
	struct tx *tx;

	fixture_open(&f, 1, "btree empty");
	ck_assert_int_eq(btree_lookup(&f.tree, &key, &record), -ENOENT);
	ck_assert_int_eq(btree_lookup_ge(&f.tree, &key, &record), -ENOENT);
	ck_assert_int_eq(btree_lookup_le(&f.tree, &key, &record), -ENOENT);
	ck_assert_int_eq(btree_find_aggregate(&f.tree, &key, 0, &record), -ENOENT);
	ck_assert_int_eq(btree_max_aggregate(&f.tree, &most), 0);
	ck_assert_uint_eq(most, 0);
	ck_assert_int_eq(tx_begin(f.journal, TX_NORMAL, &tx), 0);
	ck_assert_int_eq(btree_remove(&f.tree, tx, &key), -ENOENT);
	ck_assert_int_eq(btree_update(&f.tree, tx, &key, "", 0), -ENOENT);
	ck_assert_int_eq(btree_insert(&f.tree, tx, &key, &f, NODE_VALUE_MAX + 1), -EINVAL);
	tx_abort(tx);
	fixture_close(&f);
}
END_TEST

static int stop_at_third(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	return ++*(unsigned *)arg == 3 ? 42 : 0;
}

START_TEST(a_walk_ends_with_what_its_visitor_says)
{
	static const struct btree_key first, last = {{UINT64_MAX}};
	struct fixture f;
	unsigned seen = 0;

	fixture_open(&f, 1, "btree stop");
	fill_ascending(&f, 10, 16);
	ck_assert_int_eq(btree_walk(&f.tree, &first, &last, stop_at_third, &seen), 42);
	ck_assert_uint_eq(seen, 3);
	fixture_close(&f);
}
END_TEST

/* --- media that lie --- */

static struct format_node *root_node(struct fixture *f)
{
	maddr_t address;
	unsigned level;
	struct buf *buf;

	root_tree_get(f->journal, f->tree.ops->tree, &address, &level);
	ck_assert_int_eq(buf_get_any(f->journal, address, &buf), 0);
	buf_put(buf);
	return (struct format_node *)buf->data;
}

static void point_child(struct fixture *f, unsigned index, maddr_t address)
{
	struct node_child child;
	uint8_t packed[NODE_CHILD_BYTES];

	node_child(root_node(f), index, &child);
	child.address = address;
	node_child_pack(packed, &child);
	node_set_value(root_node(f), index, packed, sizeof(packed));
}

static void assert_all_refuse(struct fixture *f, unsigned index)
{
	static const struct btree_key first, last = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}};
	struct btree_record record;
	struct btree_key key;
	unsigned seen = 1000000;
	uint64_t records;
	struct tx *tx;

	node_key(root_node(f), index, &key);
	key.word[0] += 2;
	ck_assert_int_eq(btree_check(&f->tree, &records), -EUCLEAN);
	ck_assert_int_eq(btree_lookup(&f->tree, &key, &record), -EUCLEAN);
	ck_assert_int_eq(btree_walk(&f->tree, &first, &last, stop_at_third, &seen), -EUCLEAN);
	ck_assert_int_eq(tx_begin(f->journal, TX_NORMAL, &tx), 0);
	ck_assert_int_eq(btree_remove(&f->tree, tx, &key), -EUCLEAN);
	tx_abort(tx);
}

START_TEST(children_that_point_anywhere_are_refused)
{
	struct fixture f;
	struct node_child child;
	maddr_t own;
	unsigned level;

	fixture_open(&f, 1, "btree children");
	fill_ascending(&f, 2000, 16);
	root_tree_get(f.journal, f.tree.ops->tree, &own, &level);
	node_child(root_node(&f), 2, &child);
	point_child(&f, 3, own); /* a loop */
	assert_all_refuse(&f, 3);
	point_child(&f, 3, child.address); /* two ways to one node */
	assert_all_refuse(&f, 3);
	point_child(&f, 3, UINT64_MAX);
	assert_all_refuse(&f, 3);
	point_child(&f, 3, 0);
	assert_all_refuse(&f, 3);
	fixture_close(&f);
}
END_TEST

START_TEST(a_node_is_not_merged_with_itself)
{
	struct fixture f;
	struct btree_record record;
	struct node_child child;
	struct btree_key key;
	unsigned children;
	struct tx *tx;

	fixture_open(&f, 1, "btree alias");
	fill_ascending(&f, 2000, 16);
	children = node_count(root_node(&f));
	node_child(root_node(&f), 2, &child);
	point_child(&f, 1, child.address);
	point_child(&f, 3, child.address);
	for (node_key(root_node(&f), 2, &key); btree_lookup(&f.tree, &key, &record) == 0;
	     key.word[0] += 2) {
		ck_assert_int_eq(tx_begin(f.journal, TX_NORMAL, &tx), 0);
		ck_assert_int_eq(btree_remove(&f.tree, tx, &key), 0);
		ck_assert_int_eq(tx_commit(tx, NULL), 0);
	}
	ck_assert_uint_eq(node_count(root_node(&f)), children - 1);
	fixture_close(&f);
}
END_TEST

static int count_nodes(void *arg, maddr_t address, unsigned level, int error)
{
	unsigned *seen = arg;

	seen[error < 0]++;
	return 0;
}

START_TEST(a_lost_node_hides_only_what_is_below_it)
{
	struct fixture f;
	struct btree_record record;
	struct node_child child;
	struct btree_key key;
	unsigned seen[2] = {0}, children;
	struct tx *tx;

	fixture_open(&f, 1, "btree lost");
	fill_ascending(&f, 2000, 16);
	children = node_count(root_node(&f));
	node_child(root_node(&f), 3, &child);
	fake_fail_get(f.journal, child.address, -EIO);
	ck_assert_int_eq(btree_walk_nodes(&f.tree, count_nodes, seen), 0);
	ck_assert_uint_eq(seen[0], children);
	ck_assert_uint_eq(seen[1], 1);
	node_key(root_node(&f), 3, &key);
	ck_assert_int_eq(btree_lookup(&f.tree, &key, &record), -EIO);
	/* Its neighbours can be emptied although they would like to merge with it. */
	for (key.word[0] -= 2; btree_lookup(&f.tree, &key, &record) == 0; key.word[0] -= 2) {
		ck_assert_int_eq(tx_begin(f.journal, TX_NORMAL, &tx), 0);
		ck_assert_int_eq(btree_remove(&f.tree, tx, &key), 0);
		ck_assert_int_eq(tx_commit(tx, NULL), 0);
	}
	ck_assert_uint_eq(node_count(root_node(&f)), children - 3);
	fake_fail_get(f.journal, child.address, 0);
	fixture_close(&f);
}
END_TEST

struct parts {
	unsigned nodes, errors, per_part;
	maddr_t told[2000]; /* each address once */
};

static int tell_node(void *arg, maddr_t address, unsigned level, int error, const char *fault)
{
	struct parts *parts = arg;

	ck_assert_ptr_null(fault);
	if (error) {
		parts->errors++;
		return 0;
	}
	for (unsigned i = 0; i < parts->nodes; i++)
		if (parts->told[i] == address)
			return 0; /* above the leaf where this part begins */
	parts->told[parts->nodes++] = address;
	return parts->per_part && parts->nodes % parts->per_part == 0;
}

static unsigned check_in_parts(struct fixture *f, unsigned per_part, unsigned *errors)
{
	struct parts parts = {.per_part = per_part};
	struct btree_key from = {{0}};
	bool ended = false;

	for (unsigned i = 0; !ended; i++) {
		ck_assert_uint_lt(i, 3000);
		ck_assert_int_eq(btree_check_nodes(&f->tree, &from, &ended, tell_node, &parts), 0);
	}
	*errors = parts.errors;
	return parts.nodes;
}

START_TEST(a_check_in_parts_tells_of_every_node)
{
	struct fixture f;
	unsigned seen[2] = {0}, errors;

	fixture_open(&f, 1, "btree parts");
	ck_assert_uint_eq(check_in_parts(&f, 1, &errors), 0);
	fill_ascending(&f, 20000, 16);
	ck_assert_int_eq(btree_walk_nodes(&f.tree, count_nodes, seen), 0);
	for (unsigned per_part = 0; per_part < 40; per_part += 1 + per_part / 3) {
		ck_assert_uint_eq(check_in_parts(&f, per_part, &errors), seen[0]);
		ck_assert_uint_eq(errors, 0);
	}
	fixture_close(&f);
}
END_TEST

struct children {
	struct fixture *f;
	unsigned count[2], per_call; /* inner nodes, leaves */
	maddr_t told[2000];	     /* each address once */
	bool is_leaf[2000];
	struct btree_key covered;    /* leaves lie one behind the other: up to here */
	bool is_whole;
};

static int tell_child(void *arg, const struct btree_child *child)
{
	struct children *all = arg;
	const unsigned count = all->count[0] + all->count[1];

	for (unsigned i = 0; i < count; i++)
		if (all->told[i] == child->address)
			return 0;
	ck_assert_uint_lt(count, ARRAY_SIZE(all->told));
	all->told[count] = child->address;
	all->is_leaf[count] = child->level == 0;
	all->count[child->level == 0]++;
	if (child->level)
		return 0;
	ck_assert_int_ge(btree_key_compare(&child->from, &all->covered), 0);
	all->is_whole = !child->is_bounded;
	if (child->is_bounded) {
		ck_assert_int_lt(btree_key_compare(&child->from, &child->end), 0);
		all->covered = child->end;
	}
	return 0;
}

static struct children walk_children(struct fixture *f, unsigned per_call)
{
	struct children all = {.f = f};
	struct btree_key from = {{0}};
	bool ended = false;

	for (unsigned i = 0; !ended; i++) {
		ck_assert_uint_lt(i, 3000);
		ck_assert_int_eq(btree_walk_children(&f->tree, &from, per_call, &ended, tell_child, &all), 0);
	}
	return all;
}

START_TEST(parents_tell_of_every_node_and_its_keys_without_a_leaf_being_read)
{
	struct fixture f;
	struct children all, again;
	unsigned seen[2] = {0};

	fixture_open(&f, 1, "btree children");
	all = walk_children(&f, 1);
	ck_assert_uint_eq(all.count[0] + all.count[1], 0);
	fill_ascending(&f, 20000, 16);
	ck_assert_int_eq(btree_walk_nodes(&f.tree, count_nodes, seen), 0);
	for (unsigned per_call = 1; per_call < 40; per_call += 1 + per_call / 3) {
		all = walk_children(&f, per_call);
		ck_assert_uint_eq(all.count[0] + all.count[1], seen[0]);
		ck_assert(all.is_whole);
	}
	for (unsigned i = 0; i < seen[0]; i++)
		fake_fail_get(f.journal, all.told[i], all.is_leaf[i] ? -EIO : 0);
	again = walk_children(&f, 2);
	ck_assert_uint_eq(again.count[0], all.count[0]);
	ck_assert_uint_eq(again.count[1], all.count[1]);
	for (unsigned i = 0; i < seen[0]; i++)
		fake_fail_get(f.journal, all.told[i], 0);
	fixture_close(&f);
}
END_TEST

START_TEST(an_inner_node_that_is_lost_is_told_of_by_its_parent)
{
	struct fixture f;
	struct children all, less;
	struct node_child child;

	fixture_open(&f, 1, "btree children lost");
	fill_ascending(&f, 60000, 16);
	ck_assert_uint_eq(root_node(&f)->level, 2);
	all = walk_children(&f, 1);
	node_child(root_node(&f), 1, &child);
	fake_fail_get(f.journal, child.address, -EIO);
	less = walk_children(&f, 1);
	ck_assert_uint_eq(less.count[0], all.count[0]);
	ck_assert_uint_lt(less.count[1], all.count[1]);
	ck_assert(less.is_whole);
	fake_fail_get(f.journal, child.address, 0);
	fixture_close(&f);
}
END_TEST

/* From the record at or after `from` on: as many as are left, in order. */
static unsigned count_from(struct fixture *f, uint64_t from, unsigned *lost)
{
	struct btree_cursor cursor = {.count_nodes = 0};
	struct btree_key key = {{from}}, before = {{0}};
	unsigned count = 0;
	size_t length;
	int error = btree_cursor_seek(&cursor, &f->tree, &key);

	for (*lost = 0; error != -ENOENT; error = error ? btree_cursor_skip(&cursor) : btree_cursor_next(&cursor)) {
		if (error) {
			++*lost;
			continue;
		}
		ck_assert_ptr_nonnull(btree_cursor_record(&cursor, &key, &length));
		ck_assert(key.word[0] >= from && (!count || btree_key_compare(&before, &key) < 0));
		before = key;
		count++;
	}
	btree_cursor_close(&cursor);
	return count;
}

START_TEST(a_cursor_meets_all_that_can_be_read)
{
	struct fixture f;
	struct node_child child;
	struct btree_key last;
	unsigned lost, all, rest;

	fixture_open(&f, 1, "btree cursor");
	ck_assert_uint_eq(count_from(&f, 0, &lost), 0);
	fill_ascending(&f, 2000, 16);
	ck_assert_uint_eq(count_from(&f, 0, &lost), 2000);
	ck_assert_uint_eq(lost, 0);
	node_key(root_node(&f), 3, &last);
	all = count_from(&f, last.word[0], &lost);
	node_key(root_node(&f), 4, &last);
	rest = count_from(&f, last.word[0], &lost);
	node_child(root_node(&f), 3, &child);
	fake_fail_get(f.journal, child.address, -EIO);
	ck_assert_uint_eq(count_from(&f, 0, &lost), 2000 - (all - rest));
	ck_assert_uint_eq(lost, 1);
	fake_fail_get(f.journal, child.address, 0);
	ck_assert_uint_eq(count_from(&f, UINT64_MAX, &lost), 0);
	fixture_close(&f);
}
END_TEST

static int stop_at_each(void *arg, maddr_t address, unsigned level, int error, const char *fault)
{
	return 1;
}

/* Whatever the bytes are, it comes to an end. */
static void use_in_parts(struct fixture *f)
{
	struct btree_cursor cursor = {.count_nodes = 0};
	struct btree_key from = {{0}};
	bool ended = false;
	unsigned steps = 0;
	int error;

	while (!ended && !btree_check_nodes(&f->tree, &from, &ended, stop_at_each, NULL))
		ck_assert_uint_lt(++steps, 10000);
	from = (struct btree_key){{0}};
	for (error = btree_cursor_seek(&cursor, &f->tree, &from); error != -ENOENT; error = btree_cursor_next(&cursor))
		ck_assert_uint_lt(++steps, 100000);
	btree_cursor_close(&cursor);
}

static void use_everything(struct fixture *f)
{
	static const struct btree_key first, last = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}};
	unsigned seen[2] = {4, 4};
	struct btree_record record;
	uint64_t records;
	struct tx *tx;

	(void)btree_check(&f->tree, &records);
	(void)btree_walk(&f->tree, &first, &last, stop_at_third, seen);
	(void)btree_walk_overlap(&f->tree, random_below(&f->random, 3000), 3000, stop_at_third,
				 seen);
	(void)btree_walk_nodes(&f->tree, count_nodes, seen);
	use_in_parts(f);
	for (unsigned i = 0; i < 20; i++) {
		struct model_record target = change_target(f, CHANGE_REMOVE);

		(void)btree_lookup(&f->tree, &target.key, &record);
		(void)btree_lookup_le(&f->tree, &target.key, &record);
		(void)btree_find_aggregate(&f->tree, &target.key, random_below(&f->random, 4000),
					   &record);
		expect_equal(tx_begin(f->journal, TX_NORMAL, &tx), 0);
		(void)change_tree(f, tx, (enum change)random_below(&f->random, 3), &target);
		tx_abort(tx);
	}
	expect_equal(fake_references(f->journal), 0);
}

static void damage(struct fixture *f, struct buf *buf, uint8_t *old)
{
	unsigned flips = 1 + (unsigned)random_below(&f->random, 4);

	memcpy(old, buf->data, BLOCK_BYTES);
	for (unsigned i = 0; i < flips; i++) {
		bool header = random_below(&f->random, 2);
		uint64_t at = header ? 64 + random_below(&f->random, 256)
				     : 64 + random_below(&f->random, BLOCK_BYTES - 64);

		buf->data[at] = random_below(&f->random, 3)
				    ? (uint8_t)random_next(&f->random)
				    : (uint8_t)(buf->data[at] ^ 1u << random_below(&f->random, 8));
	}
}

START_TEST(damaged_nodes_never_crash_or_hang)
{
	static uint8_t old[BLOCK_BYTES];
	struct fixture f;

	log_set_level((enum log_level) - 1);
	for (unsigned words = 1; words <= 3; words++) {
		fixture_open(&f, words, "btree fuzz");
		f.value_max = 100;
		for (unsigned step = 0; step < 4000; step++)
			change_both(&f, 0);
		for (unsigned round = 0; round < 2000; round++) {
			struct buf *buf = fake_block(
			    f.journal, (unsigned)random_below(&f.random, fake_blocks(f.journal)));

			damage(&f, buf, old);
			fake_forget_verified(f.journal);
			use_everything(&f);
			memcpy(buf->data, old, BLOCK_BYTES);
		}
		fake_forget_verified(f.journal);
		assert_tree_is_model(&f);
		fixture_close(&f);
	}
	log_set_level(LOG_LEVEL_INFO);
}
END_TEST

START_TEST(verify_names_the_field_that_is_wrong)
{
	static _Alignas(64) uint8_t block[BLOCK_BYTES], good[BLOCK_BYTES];
	struct format_node *node = (struct format_node *)block;
	static const struct btree_key one = {{1}}, two = {{2}};
	const char *field = "";

	node_init(node, 0, 1);
	ck_assert_int_eq(node_verify(node, &ops_by_words[1], &field), -EUCLEAN);
	ck_assert_str_eq(field, "count");
	node_insert(node, 0, &one, "abcdef", 6);
	node_insert(node, 1, &two, "ghi", 3);
	ck_assert_int_eq(node_verify(node, &ops_by_words[1], &field), 0);
	memcpy(good, block, sizeof(good));
	ck_assert_int_eq(node_verify(node, &ops_by_words[2], &field), -EUCLEAN);
	ck_assert_str_eq(field, "key_words");
	node->reserved[3] = 1;
	ck_assert_int_eq(node_verify(node, &ops_by_words[1], &field), -EUCLEAN);
	ck_assert_str_eq(field, "reserved");
	memcpy(block, good, sizeof(good));
	node->slots[1].offset = node->slots[0].offset;
	ck_assert_int_eq(node_verify(node, &ops_by_words[1], &field), -EUCLEAN);
	ck_assert_str_eq(field, "slot overlap");
	memcpy(block, good, sizeof(good));
	node_set_key(node, 0, &two);
	ck_assert_int_eq(node_verify(node, &ops_by_words[1], &field), -EUCLEAN);
	ck_assert_str_eq(field, "key order");
	memcpy(block, good, sizeof(good));
	node_set_value(node, 1, "xy\xee", 3);
	ck_assert_int_eq(node_verify(node, &ops_by_words[1], &field), -EUCLEAN);
	ck_assert_str_eq(field, "record");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("btree");
	TCase *shape = tcase_create("shape"), *model = tcase_create("model"),
	      *hostile = tcase_create("hostile");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(shape, an_empty_tree_has_nothing);
	tcase_add_test(shape, ascending_keys_fill_the_nodes);
	tcase_add_test(shape, removing_all_leaves_no_node);
	tcase_add_test(shape, a_walk_ends_with_what_its_visitor_says);
	tcase_add_test(shape, a_crowded_leaf_is_cut_between_two_units);
	tcase_add_test(shape, a_crowded_inner_node_is_cut_between_two_units);
	tcase_add_test(shape, a_crowded_leaf_of_one_unit_is_cut_beside_the_key);
	tcase_add_test(shape, a_record_that_stays_in_its_leaf_changes_that_alone);
	tcase_add_test(shape, the_only_record_of_a_leaf_or_tree_gets_another_key_in_place);
	tcase_add_test(shape, a_record_that_grows_seldom_changes_the_parent_of_its_leaf);
	tcase_add_test(shape, exact_aggregates_are_right_before_the_format_rounds_them_and_can_be_made_so);
	tcase_set_timeout(model, 120);
	tcase_add_test(model, random_changes_agree_with_a_sorted_array);
	tcase_add_test(model, random_changes_agree_with_long_values);
	tcase_add_test(model, a_failed_change_leaves_the_tree_as_it_was);
	tcase_set_timeout(hostile, 120);
	tcase_add_test(hostile, verify_names_the_field_that_is_wrong);
	tcase_add_test(hostile, children_that_point_anywhere_are_refused);
	tcase_add_test(hostile, a_node_is_not_merged_with_itself);
	tcase_add_test(hostile, a_lost_node_hides_only_what_is_below_it);
	tcase_add_test(hostile, a_check_in_parts_tells_of_every_node);
	tcase_add_test(hostile, parents_tell_of_every_node_and_its_keys_without_a_leaf_being_read);
	tcase_add_test(hostile, an_inner_node_that_is_lost_is_told_of_by_its_parent);
	tcase_add_test(hostile, a_cursor_meets_all_that_can_be_read);
	tcase_add_test(hostile, damaged_nodes_never_crash_or_hang);
	suite_add_tcase(suite, shape);
	suite_add_tcase(suite, model);
	suite_add_tcase(suite, hostile);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
