#include "rmap/rmap.h"

#include <check.h>
#include <errno.h>
#include <string.h>

#include "journal/root.h"
#include "tests/support/expect.h"
#include "tests/support/fake_journal.h"
#include "tests/support/random.h"

struct fixture {
	struct journal *journal;
	struct rmap rmap;
	struct tx *tx;
};

static void fixture_open(struct fixture *f)
{
	f->journal = fake_create(1ull << 30);
	rmap_init(&f->rmap, f->journal);
}

static void fixture_close(struct fixture *f)
{
	expect_equal(fake_references(f->journal), 0);
	fake_destroy(f->journal);
}

static int end_change(struct fixture *f, int error)
{
	if (error < 0)
		tx_abort(f->tx);
	else
		expect_equal(tx_commit(f->tx, NULL), 0);
	return error;
}

static int insert(struct fixture *f, struct rmap_record record)
{
	expect_equal(tx_begin(f->journal, TX_NORMAL, &f->tx), 0);
	return end_change(f, rmap_insert(&f->rmap, f->tx, &record));
}

static int take_away(struct fixture *f, struct rmap_record record)
{
	expect_equal(tx_begin(f->journal, TX_NORMAL, &f->tx), 0);
	return end_change(f, rmap_remove(&f->rmap, f->tx, &record));
}

static int set_flags(struct fixture *f, struct rmap_record record, uint8_t flags)
{
	int error;

	expect_equal(tx_begin(f->journal, TX_NORMAL, &f->tx), 0);
	error = rmap_remove(&f->rmap, f->tx, &record);

	record.flags = flags;
	return end_change(f, error ? error : rmap_insert(&f->rmap, f->tx, &record));
}

static int insert_beside(struct fixture *f, struct rmap_record record, struct rmap_beside beside)
{
	expect_equal(tx_begin(f->journal, TX_NORMAL, &f->tx), 0);
	return end_change(f, rmap_insert_beside(&f->rmap, f->tx, &record, &beside));
}

static int take_within(struct fixture *f, struct rmap_record record, blkno_t start)
{
	expect_equal(tx_begin(f->journal, TX_NORMAL, &f->tx), 0);
	return end_change(f, rmap_remove_within(&f->rmap, f->tx, &record, start));
}

/* --- what a query says, as a list --- */

#define ANSWERS_MAX 65536
struct answers {
	unsigned count;
	struct rmap_record record[ANSWERS_MAX];
};
static struct answers answers;

static int answers_add(void *arg, const struct rmap_record *record)
{
	expect(answers.count < ANSWERS_MAX);
	answers.record[answers.count++] = *record;
	return 0;
}

static const struct answers *ask(struct fixture *f, blkno_t start, uint64_t count)
{
	answers.count = 0;
	expect_equal(rmap_query(&f->rmap, start, count, answers_add, NULL), 0);
	return &answers;
}

static void assert_records(struct fixture *f, const struct rmap_record *want, unsigned count)
{
	const struct answers *got = ask(f, 0, 1ull << 40);

	ck_assert_uint_eq(got->count, count);
	for (unsigned i = 0; i < count; i++) {
		ck_assert_uint_eq(got->record[i].start, want[i].start);
		ck_assert_uint_eq(got->record[i].count, want[i].count);
		ck_assert_uint_eq(got->record[i].owner, want[i].owner);
		ck_assert_uint_eq(got->record[i].offset, want[i].offset);
		ck_assert_uint_eq(got->record[i].flags, want[i].flags);
	}
}

#define RECORDS(...) \
	(const struct rmap_record[]){__VA_ARGS__}, \
	    ARRAY_SIZE(((const struct rmap_record[]){__VA_ARGS__}))

/* --- sentences --- */

START_TEST(insert_merges_with_left_neighbour)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 10, 7, 0, 0}), 0);
	ck_assert_int_eq(insert(&f, (struct rmap_record){110, 5, 7, 10, 0}), 0);
	assert_records(&f, RECORDS({100, 15, 7, 0, 0}));
	fixture_close(&f);
}
END_TEST

START_TEST(insert_merges_with_right_neighbour)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){110, 5, 7, 10, 0}), 0);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 10, 7, 0, 0}), 0);
	assert_records(&f, RECORDS({100, 15, 7, 0, 0}));
	fixture_close(&f);
}
END_TEST

START_TEST(insert_between_two_joins_them)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 10, 7, 0, 0}), 0);
	ck_assert_int_eq(insert(&f, (struct rmap_record){115, 5, 7, 15, 0}), 0);
	ck_assert_int_eq(insert(&f, (struct rmap_record){110, 5, 7, 10, 0}), 0);
	assert_records(&f, RECORDS({100, 20, 7, 0, 0}));
	fixture_close(&f);
}
END_TEST

START_TEST(insert_keeps_apart_what_differs)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 10, 7, 0, 0}), 0);
	ck_assert_int_eq(insert(&f, (struct rmap_record){110, 1, 8, 10, 0}), 0); /* owner */
	ck_assert_int_eq(insert(&f, (struct rmap_record){110, 1, 7, 11, 0}), 0); /* offset */
	ck_assert_int_eq(insert(&f, (struct rmap_record){110, 1, 7, 10, EXTENT_UNWRITTEN}),
			 0); /* flags */
	ck_assert_int_eq(insert(&f, (struct rmap_record){0, 8, OWNER(OWNER_CHUNK), 0, 0}), 0);
	ck_assert_int_eq(insert(&f, (struct rmap_record){8, 8, OWNER(OWNER_CHUNK), 8, 0}),
			 0); /* a chunk has its own */
	assert_records(&f,
		       RECORDS({0, 8, OWNER(OWNER_CHUNK), 0, 0}, {8, 8, OWNER(OWNER_CHUNK), 8, 0},
			       {100, 10, 7, 0, 0}, {110, 1, 7, 10, EXTENT_UNWRITTEN},
			       {110, 1, 7, 11, 0}, {110, 1, 8, 10, 0}));
	fixture_close(&f);
}
END_TEST

START_TEST(insert_refuses_what_the_owner_has_already)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 10, 7, 50, 0}), 0);
	ck_assert_int_eq(insert(&f, (struct rmap_record){109, 3, 7, 59, 0}), -EEXIST);
	ck_assert_int_eq(insert(&f, (struct rmap_record){90, 11, 7, 40, EXTENT_UNWRITTEN}),
			 -EEXIST);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 10, 7, 0, 0}), 0);
	assert_records(&f, RECORDS({100, 10, 7, 0, 0}, {100, 10, 7, 50, 0}));
	fixture_close(&f);
}
END_TEST

START_TEST(insert_refuses_what_cannot_be)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 0, 7, 0, 0}), -EUCLEAN);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 1, 0, 0, 0}), -EUCLEAN);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 1, OWNER(99), 0, 0}), -EUCLEAN);
	ck_assert_int_eq(insert(&f, (struct rmap_record){1ull << 52, 1, 7, 0, 0}), -EUCLEAN);
	ck_assert_int_eq(insert(&f, (struct rmap_record){1, UINT64_MAX, 7, 0, 0}), -EUCLEAN);
	ck_assert_int_eq(insert(&f, (struct rmap_record){1, 2, 7, UINT64_MAX, 0}), -EUCLEAN);
	ck_assert_int_eq(insert(&f, (struct rmap_record){1, 2, 7, 0, 2}), -EUCLEAN);
	assert_records(&f, NULL, 0);
	fixture_close(&f);
}
END_TEST

START_TEST(remove_splits_the_record_around_the_range)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 20, 7, 0, EXTENT_UNWRITTEN}), 0);
	ck_assert_int_eq(take_away(&f, (struct rmap_record){105, 5, 7, 5, 0}), 0);
	assert_records(
	    &f, RECORDS({100, 5, 7, 0, EXTENT_UNWRITTEN}, {110, 10, 7, 10, EXTENT_UNWRITTEN}));
	ck_assert_int_eq(take_away(&f, (struct rmap_record){110, 1, 7, 10, 0}), 0);
	ck_assert_int_eq(take_away(&f, (struct rmap_record){119, 1, 7, 19, 0}), 0);
	ck_assert_int_eq(take_away(&f, (struct rmap_record){100, 5, 7, 0, 0}), 0);
	assert_records(&f, RECORDS({111, 8, 7, 11, EXTENT_UNWRITTEN}));
	fixture_close(&f);
}
END_TEST

START_TEST(remove_leaves_other_owners_alone)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 20, 7, 0, 0}), 0);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 20, 8, 0, 0}), 0);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 20, 7, 500, 0}), 0);
	ck_assert_int_eq(take_away(&f, (struct rmap_record){100, 20, 7, 0, 0}), 0);
	assert_records(&f, RECORDS({100, 20, 7, 500, 0}, {100, 20, 8, 0, 0}));
	fixture_close(&f);
}
END_TEST

START_TEST(remove_of_what_is_not_there_says_so)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 20, 7, 0, 0}), 0);
	ck_assert_int_eq(take_away(&f, (struct rmap_record){100, 21, 7, 0, 0}), -ENOENT);
	ck_assert_int_eq(take_away(&f, (struct rmap_record){99, 2, 7, UINT64_MAX - 5, 0}), -ENOENT);
	ck_assert_int_eq(take_away(&f, (struct rmap_record){100, 1, 8, 0, 0}), -ENOENT);
	ck_assert_int_eq(take_away(&f, (struct rmap_record){100, 1, 7, 1, 0}), -ENOENT);
	assert_records(&f, RECORDS({100, 20, 7, 0, 0}));
	fixture_close(&f);
}
END_TEST

START_TEST(written_blocks_join_their_written_neighbours)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 20, 7, 0, EXTENT_UNWRITTEN}), 0);
	ck_assert_int_eq(set_flags(&f, (struct rmap_record){100, 5, 7, 0, 0}, 0), 0);
	ck_assert_int_eq(set_flags(&f, (struct rmap_record){105, 5, 7, 5, 0}, 0), 0);
	assert_records(&f, RECORDS({100, 10, 7, 0, 0}, {110, 10, 7, 10, EXTENT_UNWRITTEN}));
	ck_assert_int_eq(set_flags(&f, (struct rmap_record){95, 10, 7, 0, 0}, 0), -ENOENT);
	fixture_close(&f);
}
END_TEST

START_TEST(quarantined_blocks_merge_whatever_their_offset)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 1, OWNER(OWNER_QUARANTINE), 0, 0}),
			 0);
	ck_assert_int_eq(insert(&f, (struct rmap_record){101, 9, OWNER(OWNER_QUARANTINE), 0, 0}),
			 0);
	ck_assert_int_eq(insert(&f, (struct rmap_record){105, 1, OWNER(OWNER_QUARANTINE), 0, 0}),
			 -EEXIST);
	ck_assert_int_eq(take_away(&f, (struct rmap_record){104, 2, OWNER(OWNER_QUARANTINE), 0, 0}),
			 0);
	assert_records(&f, RECORDS({100, 4, OWNER(OWNER_QUARANTINE), 0, 0},
				   {106, 4, OWNER(OWNER_QUARANTINE), 0, 0}));
	fixture_close(&f);
}
END_TEST

START_TEST(query_clips_to_the_range)
{
	struct fixture f;
	const struct answers *got;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 20, 7, 1000, 0}), 0);
	ck_assert_int_eq(insert(&f, (struct rmap_record){50, 500, 8, 0, 0}), 0);
	got = ask(&f, 105, 3);
	ck_assert_uint_eq(got->count, 2);
	ck_assert_uint_eq(got->record[0].owner, 8);
	ck_assert_uint_eq(got->record[0].offset, 55);
	ck_assert_uint_eq(got->record[1].start, 105);
	ck_assert_uint_eq(got->record[1].count, 3);
	ck_assert_uint_eq(got->record[1].offset, 1005);
	ck_assert_uint_eq(ask(&f, 550, 100)->count, 0);
	ck_assert_uint_eq(ask(&f, 105, 0)->count, 0);
	ck_assert_uint_eq(ask(&f, 549, UINT64_MAX)->count, 1);
	fixture_close(&f);
}
END_TEST

static void assert_run(struct fixture *f, blkno_t start, uint64_t count, uint64_t offset,
		       bool want_shared, uint64_t want_run)
{
	bool shared;
	uint64_t run;

	ck_assert_int_eq(rmap_shared_run(&f->rmap, start, count, 7, offset, &shared, &run), 0);
	ck_assert_int_eq(shared, want_shared);
	ck_assert_uint_eq(run, want_run);
}

START_TEST(a_shared_run_ends_where_sharing_does)
{
	struct fixture f;
	bool owned;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 100, 7, 0, 0}), 0);
	assert_run(&f, 100, 100, 0, false, 100);
	ck_assert_int_eq(insert(&f, (struct rmap_record){90, 20, 8, 0, 0}), 0); /* begins before */
	assert_run(&f, 100, 100, 0, true, 10);
	assert_run(&f, 105, 3, 5, true, 3);
	assert_run(&f, 110, 90, 10, false, 90);
	ck_assert_int_eq(insert(&f, (struct rmap_record){110, 10, 9, 0, 0}), 0);
	assert_run(&f, 100, 100, 0, true, 20);
	ck_assert_int_eq(insert(&f, (struct rmap_record){150, 10, 7, 0, 0}),
			 0); /* the same file, elsewhere */
	assert_run(&f, 120, 80, 20, false, 30);
	assert_run(&f, 150, 50, 50, true, 10);
	ck_assert_int_eq(rmap_is_owned(&f.rmap, 200, 1000, &owned), 0);
	ck_assert(!owned);
	ck_assert_int_eq(rmap_is_owned(&f.rmap, 199, 1000, &owned), 0);
	ck_assert(owned);
	fixture_close(&f);
}
END_TEST

/* --- the naive model: for each block the list of its owners --- */

#define MODEL_BLOCKS 1536
#define MODEL_OWNERS 24
struct model_owner {
	uint64_t owner, offset;
	uint8_t flags;
	unsigned stamp;
};
struct model_block {
	unsigned count;
	struct model_owner owners[MODEL_OWNERS];
};
static struct model_block model[MODEL_BLOCKS];
static unsigned model_stamp;

static uint64_t offset_after(uint64_t owner, uint64_t offset, uint64_t i)
{
	return owner == OWNER(OWNER_QUARANTINE) ? 0 : offset + i;
}

static struct model_owner *model_find(blkno_t block, uint64_t owner, uint64_t offset)
{
	for (unsigned i = 0; i < model[block].count; i++) {
		struct model_owner *at = &model[block].owners[i];

		if (at->owner == owner && at->offset == offset)
			return at;
	}
	return NULL;
}

static bool model_has(const struct rmap_record *record, uint64_t i)
{
	return model_find(record->start + i, record->owner,
			  offset_after(record->owner, record->offset, i));
}

static int model_insert(const struct rmap_record *record)
{
	for (uint64_t i = 0; i < record->count; i++) {
		if (model_has(record, i))
			return -EEXIST;
	}
	for (uint64_t i = 0; i < record->count; i++) {
		struct model_block *block = &model[record->start + i];

		block->owners[block->count++] = (struct model_owner){
		    .owner = record->owner,
		    .offset = offset_after(record->owner, record->offset, i),
		    .flags = record->flags,
		};
	}
	return 0;
}

static int model_require(const struct rmap_record *record)
{
	for (uint64_t i = 0; i < record->count; i++) {
		if (!model_has(record, i))
			return -ENOENT;
	}
	return 0;
}

static int model_remove(const struct rmap_record *record)
{
	int error = model_require(record);

	for (uint64_t i = 0; i < record->count && error == 0; i++) {
		struct model_block *block = &model[record->start + i];
		struct model_owner *at = model_find(record->start + i, record->owner,
						    offset_after(record->owner, record->offset, i));

		*at = block->owners[--block->count];
	}
	return error;
}

static int model_set_flags(const struct rmap_record *record, uint8_t flags)
{
	int error = model_require(record);

	for (uint64_t i = 0; i < record->count && error == 0; i++)
		model_find(record->start + i, record->owner,
			   offset_after(record->owner, record->offset, i))
		    ->flags = flags;
	return error;
}

/* Is each block of the answer an owner in the model, not seen before in this answer? Adds up how
 * many. */
static bool answer_agrees(const struct rmap_record *record, blkno_t start, uint64_t count,
			  uint64_t *seen)
{
	if (record->start < start || record->start + record->count > start + count ||
	    record->count == 0)
		return false;
	for (uint64_t i = 0; i < record->count; i++) {
		struct model_owner *at = model_find(record->start + i, record->owner,
						    offset_after(record->owner, record->offset, i));

		if (!at || at->flags != record->flags || at->stamp == model_stamp)
			return false;
		at->stamp = model_stamp;
		++*seen;
	}
	return true;
}

static bool answers_agree(const struct answers *got, blkno_t start, uint64_t count)
{
	uint64_t seen = 0, want = 0;

	model_stamp++;
	for (unsigned i = 0; i < got->count; i++) {
		/* By start, then owner: clipping levels what began before the range. */
		if (i > 0 && got->record[i].start < got->record[i - 1].start)
			return false;
		if (!answer_agrees(&got->record[i], start, count, &seen))
			return false;
	}
	for (uint64_t i = 0; i < count; i++)
		want += model[start + i].count;
	return seen == want;
}

static bool block_is_shared(blkno_t block, uint64_t owner, uint64_t offset)
{
	return model[block].count > (model_find(block, owner, offset) ? 1 : 0);
}

static void compare_shared_run(struct fixture *f, const struct rmap_record *record)
{
	bool shared, want = block_is_shared(record->start, record->owner, record->offset), owned;
	uint64_t run, i = 1, owners = 0;

	while (i < record->count &&
	       block_is_shared(record->start + i, record->owner,
			       offset_after(record->owner, record->offset, i)) == want)
		i++;
	expect_equal(rmap_shared_run(&f->rmap, record->start, record->count, record->owner,
				     record->offset, &shared, &run),
		     0);
	expect_equal(shared, want);
	expect_equal(run, i);
	for (i = 0; i < record->count; i++)
		owners += model[record->start + i].count;
	expect_equal(rmap_is_owned(&f->rmap, record->start, record->count, &owned), 0);
	expect_equal(owned, owners > 0);
}

/* --- random steps --- */

static struct rmap_record random_record(struct random *random)
{
	struct rmap_record record = {.start = random_below(random, MODEL_BLOCKS),
				     .owner = 1 + random_below(random, 6)};

	record.count = 1 + random_below(random, random_below(random, 20) ? 24 : 300);
	record.count = min_u64(record.count, MODEL_BLOCKS - record.start);
	/* Few relations between block and offset, so that pieces meet and merge. */
	record.offset = record.start + random_below(random, 3) * 7;
	record.flags = random_below(random, 3) ? 0 : EXTENT_UNWRITTEN;
	if (random_below(random, 15) == 0)
		record =
		    (struct rmap_record){record.start, record.count, OWNER(OWNER_QUARANTINE), 0, 0};
	return record;
}

/* Some run that one owner has, at times a little more than it has. */
static struct rmap_record random_owned(struct random *random)
{
	struct rmap_record record = random_record(random);
	const struct model_block *block = &model[record.start];
	uint64_t most = record.count;

	if (block->count == 0)
		return record;
	record.owner = block->owners[random_below(random, block->count)].owner;
	record.offset = block->owners[0].offset;
	for (unsigned i = 0; i < block->count; i++) {
		if (block->owners[i].owner == record.owner)
			record.offset = block->owners[i].offset;
	}
	record.flags = 0;
	if (random_below(random, 10) == 0)
		return record;
	for (record.count = 1; record.count < most && model_has(&record, record.count);
	     record.count++)
		;
	return record;
}

static void random_step(struct fixture *f, struct random *random, unsigned step)
{
	struct rmap_record record;
	uint8_t flags = (uint8_t)random_below(random, 2);
	uint64_t dice = random_below(random, 100), inserts = step / 5000 % 2 ? 25 : 45;

	if (dice < inserts) {
		record = random_record(random);
		expect_equal(insert(f, record), model_insert(&record));
		return;
	}
	record = random_owned(random);
	if (dice < inserts + 15 && owner_is_inode(record.owner))
		expect_equal(set_flags(f, record, flags), model_set_flags(&record, flags));
	else
		expect_equal(take_away(f, record), model_remove(&record));
}

static bool records_could_merge(const struct rmap_record *a, const struct rmap_record *b)
{
	return a->owner == b->owner && a->flags == b->flags && a->start + a->count == b->start &&
	       offset_after(a->owner, a->offset, a->count) == b->offset;
}

/* Everything at once: the tree is whole, and no two records are what could be one. */
static void compare_all(struct fixture *f)
{
	const struct answers *got = ask(f, 0, MODEL_BLOCKS);
	uint64_t records;

	expect(answers_agree(got, 0, MODEL_BLOCKS));
	expect_equal(btree_check(&f->rmap.tree, &records), 0);
	expect_equal(records, got->count);
	for (unsigned i = 0; i < got->count; i++) {
		for (unsigned k = i + 1;
		     k < got->count &&
		     got->record[k].start <= got->record[i].start + got->record[i].count;
		     k++)
			expect(!records_could_merge(&got->record[i], &got->record[k]));
	}
}

static void model_run(struct fixture *f, struct random *random, unsigned steps)
{
	memset(model, 0, sizeof(model));
	for (unsigned step = 0; step < steps; step++) {
		struct rmap_record asked = random_record(random);

		random_step(f, random, step);
		expect(answers_agree(ask(f, asked.start, asked.count), asked.start, asked.count));
		if (step % 3 == 0)
			asked = random_owned(random);
		compare_shared_run(f, &asked);
		if (step % 2000 == 0)
			compare_all(f);
	}
	compare_all(f);
}

START_TEST(random_extents_and_sharers_agree_with_the_model)
{
	struct random random = random_start("rmap model");
	struct fixture f;

	fixture_open(&f);
	model_run(&f, &random, 120000);
	fixture_close(&f);
}
END_TEST

/* --- broken twins: the comparison must notice --- */

static blkno_t most_shared_block(void)
{
	blkno_t most = 0;

	for (blkno_t block = 0; block < MODEL_BLOCKS; block++) {
		if (model[block].count > model[most].count)
			most = block;
	}
	return most;
}

START_TEST(broken_twin_a_dropped_owner_is_noticed)
{
	struct random random = random_start("rmap twin");
	struct fixture f;
	blkno_t block;

	fixture_open(&f);
	model_run(&f, &random, 3000);
	block = most_shared_block();
	for (unsigned drop = 0; drop < model[block].count; drop++) {
		expect(answers_agree(ask(&f, block, 1), block, 1));
		memmove(&answers.record[drop], &answers.record[drop + 1],
			(answers.count - drop - 1) * sizeof(answers.record[0]));
		answers.count--;
		ck_assert(!answers_agree(&answers, block, 1));
	}
	fixture_close(&f);
}
END_TEST

START_TEST(broken_twin_one_block_off_is_noticed)
{
	struct random random = random_start("rmap twin");
	struct fixture f;
	const struct answers *got;

	fixture_open(&f);
	model_run(&f, &random, 3000);
	got = ask(&f, 10, MODEL_BLOCKS - 20);
	ck_assert_uint_gt(got->count, 0);
	for (unsigned i = 0; i < got->count; i++) {
		(void)ask(&f, 10, MODEL_BLOCKS - 20);
		answers.record[i].start++;
		ck_assert(!answers_agree(&answers, 10, MODEL_BLOCKS - 20));
		answers.record[i].start--;
		answers.record[i].count++;
		ck_assert(!answers_agree(&answers, 10, MODEL_BLOCKS - 20));
	}
	fixture_close(&f);
}
END_TEST

START_TEST(insert_merges_with_what_the_owners_map_says)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 10, 7, 0, 0}), 0);
	ck_assert_int_eq(insert_beside(&f, (struct rmap_record){110, 5, 7, 10, 0}, (struct rmap_beside){.has_left = true, .left = 100}), 0);
	ck_assert_int_eq(insert(&f, (struct rmap_record){120, 5, 7, 20, 0}), 0);
	ck_assert_int_eq(insert_beside(&f, (struct rmap_record){115, 5, 7, 15, 0}, (struct rmap_beside){true, true, 100}), 0);
	ck_assert_int_eq(insert_beside(&f, (struct rmap_record){90, 10, 8, 0, 0}, (struct rmap_beside){.has_left = false}), 0);
	ck_assert_int_eq(insert(&f, (struct rmap_record){60, 5, 8, 100, 0}), 0);
	ck_assert_int_eq(insert_beside(&f, (struct rmap_record){50, 10, 8, 90, 0}, (struct rmap_beside){.has_right = true}), 0);
	assert_records(&f, RECORDS({50, 15, 8, 90, 0}, {90, 10, 8, 0, 0}, {100, 25, 7, 0, 0}));
	fixture_close(&f);
}
END_TEST

START_TEST(a_hint_that_is_wrong_is_looked_into)
{
	struct fixture f;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 10, 7, 0, 0}), 0);
	ck_assert_int_eq(insert_beside(&f, (struct rmap_record){110, 5, 7, 10, 0}, (struct rmap_beside){.has_left = true, .left = 105}), 0);
	ck_assert_int_eq(insert_beside(&f, (struct rmap_record){115, 5, 7, 15, 0}, (struct rmap_beside){true, true, 100}), 0);
	ck_assert_int_eq(insert_beside(&f, (struct rmap_record){120, 5, 7, 20, EXTENT_UNWRITTEN}, (struct rmap_beside){.has_left = true, .left = 100}), 0);
	assert_records(&f, RECORDS({100, 20, 7, 0, 0}, {120, 5, 7, 20, EXTENT_UNWRITTEN}));
	ck_assert_int_eq(take_within(&f, (struct rmap_record){105, 5, 7, 5, 0}, 103), 0);
	ck_assert_int_eq(take_within(&f, (struct rmap_record){105, 5, 7, 5, 0}, 100), -ENOENT);
	assert_records(&f, RECORDS({100, 5, 7, 0, 0}, {110, 10, 7, 10, 0}, {120, 5, 7, 20, EXTENT_UNWRITTEN}));
	fixture_close(&f);
}
END_TEST

/* What an operation costs does not depend on how many share the blocks, nor those beside them. */
START_TEST(among_many_sharers_one_comes_and_goes_by_few_nodes)
{
	enum { SHARERS = 20000 };
	struct fixture f;
	uint64_t before;

	fixture_open(&f);
	for (uint64_t i = 0; i < SHARERS; i++) {
		expect_equal(insert_beside(&f, (struct rmap_record){100, 10, 1000 + i, 0, 0}, (struct rmap_beside){.has_left = false}), 0);
		expect_equal(insert_beside(&f, (struct rmap_record){90, 10, 1000 + i, 50, 0}, (struct rmap_beside){.has_left = false}), 0);
	}
	before = fake_gets(f.journal);
	expect_equal(insert_beside(&f, (struct rmap_record){100, 5, 7, 0, 0}, (struct rmap_beside){.has_left = false}), 0);
	expect_equal(insert_beside(&f, (struct rmap_record){105, 5, 7, 5, 0}, (struct rmap_beside){.has_left = true, .left = 100}), 0);
	expect_equal(take_within(&f, (struct rmap_record){103, 2, 7, 3, 0}, 100), 0);
	ck_assert_uint_lt(fake_gets(f.journal) - before, 60);
	before = fake_gets(f.journal);
	expect_equal(insert(&f, (struct rmap_record){103, 2, 7, 3, 0}), 0);
	ck_assert_uint_gt(fake_gets(f.journal) - before, 100); /* without the owner's map: through all of them */
	fixture_close(&f);
}
END_TEST

/* Blocks of one owner each, `alone` of them before a block that many share; then another one. */
static blkno_t fill_beside_sharers(struct fixture *f, unsigned alone, unsigned sharers)
{
	blkno_t block = 10;

	for (unsigned i = 0; i < alone; i++, block++)
		expect_equal(insert_beside(f, (struct rmap_record){block, 1, 1000 + block, 0, 0}, (struct rmap_beside){.has_left = false}), 0);
	for (unsigned i = 0; i < sharers; i++)
		expect_equal(insert_beside(f, (struct rmap_record){block, 1, 100000 + i, 0, 0}, (struct rmap_beside){.has_left = false}), 0);
	expect_equal(insert_beside(f, (struct rmap_record){block + 1, 1, 7, 0, 0}, (struct rmap_beside){.has_left = false}), 0);
	return block + 1;
}

static uint64_t count_looked_at(struct fixture *f, blkno_t block)
{
	uint64_t before = fake_gets(f->journal);
	bool owned;

	expect_equal(rmap_is_owned(&f->rmap, block, 1, &owned), 0);
	expect(owned);
	return fake_gets(f->journal) - before;
}

/* The ends that inner nodes tell are rounded: a look for owners may go into leaves in vain, but few. */
START_TEST(owners_are_found_by_few_nodes_whoever_shares_the_block_before)
{
	struct fixture f;
	uint64_t records, most = 0;
	blkno_t block;

	fixture_open(&f);
	block = fill_beside_sharers(&f, 5000, 20000);
	ck_assert_uint_lt(count_looked_at(&f, block), 10);
	for (blkno_t at = 10; at < 5010; at++)
		most = max_u64(most, count_looked_at(&f, at));
	ck_assert_uint_lt(most, 8);
	ck_assert_int_eq(btree_check(&f.rmap.tree, &records), 0);
	fixture_close(&f);
}
END_TEST

/* The record of this block is alone in its leaf from then on: others were met there. */
static void put_apart(struct fixture *f, const struct rmap_record *record)
{
	maddr_t root;
	unsigned level;
	struct tx *tx;

	root_tree_get(f->journal, FORMAT_TREE_RMAP, &root, &level);
	ck_assert_uint_eq(level, 0);
	expect_equal(tx_begin(f->journal, TX_NORMAL, &tx), 0);
	tx_set_crowded(tx, root);
	expect_equal(rmap_insert(&f->rmap, tx, record), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	root_tree_get(f->journal, FORMAT_TREE_RMAP, &root, &level);
	ck_assert_uint_eq(level, 1);
}

/* Times that more than the leaf was changed while a file grew by 4096 blocks, each one in a transaction of its own. */
static unsigned count_inner_changes(uint32_t version, bool apart)
{
	struct fixture f;
	unsigned changes = 0;
	uint64_t records;

	fixture_open(&f);
	journal_set_version(f.journal, version);
	fill_beside_sharers(&f, apart ? 20 : 1000, 0);
	expect_equal(insert(&f, (struct rmap_record){1999, 1, 7, 0, 0}), 0);
	if (apart)
		put_apart(&f, &(struct rmap_record){2000, 1, 7, 1, 0});
	else
		expect_equal(insert(&f, (struct rmap_record){2000, 1, 7, 1, 0}), 0);
	for (unsigned i = 1; i < 4096; i++) {
		expect_equal(insert(&f, (struct rmap_record){2000 + i, 1, 7, 1 + i, 0}), 0);
		changes += fake_last_joined(f.journal) > 1;
	}
	expect_equal(btree_check(&f.rmap.tree, &records), 0);
	fixture_close(&f);
	return changes;
}

START_TEST(an_append_seldom_changes_what_inner_nodes_say)
{
	ck_assert_uint_eq(count_inner_changes(FORMAT_VERSION_ROUNDED, _i), 64);
	ck_assert_uint_eq(count_inner_changes(FORMAT_VERSION_ROUNDED - 1, _i), 4095);
}
END_TEST

/* A leaf of one record is told of rounded, of one block's sharers only exactly: also as they come and go. */
START_TEST(what_is_said_of_a_leaf_follows_its_sharers)
{
	struct fixture f;
	uint64_t records;

	fixture_open(&f);
	fill_beside_sharers(&f, 20, 0);
	expect_equal(insert(&f, (struct rmap_record){1999, 1, 7, 0, 0}), 0);
	put_apart(&f, &(struct rmap_record){2000, 1, 7, 1, 0});
	for (unsigned i = 0; i < 4; i++) {
		expect_equal(insert(&f, (struct rmap_record){1999, 1 + i, 100 + i, 0, 0}), 0);
		expect_equal(btree_check(&f.rmap.tree, &records), 0);
	}
	expect_equal(insert(&f, (struct rmap_record){2010, 1, 9, 0, 0}), 0);
	expect_equal(btree_check(&f.rmap.tree, &records), 0);
	expect_equal(take_away(&f, (struct rmap_record){2010, 1, 9, 0, 0}), 0);
	for (unsigned i = 0; i < 4; i++) {
		expect_equal(btree_check(&f.rmap.tree, &records), 0);
		expect_equal(take_away(&f, (struct rmap_record){1999, 1 + i, 100 + i, 0, 0}), 0);
	}
	expect_equal(btree_check(&f.rmap.tree, &records), 0);
	fixture_close(&f);
}
END_TEST

START_TEST(a_record_that_cannot_be_is_refused_when_read)
{
	struct fixture f;
	struct buf *buf;

	fixture_open(&f);
	ck_assert_int_eq(insert(&f, (struct rmap_record){100, 10, 7, 0, 0}), 0);
	buf = fake_block(f.journal, 0);
	memset(buf->data + BLOCK_BYTES - 8, 0, 8); /* length 0 */
	fake_forget_verified(f.journal);
	ck_assert_int_eq(rmap_query(&f.rmap, 0, 1000, answers_add, NULL), -EUCLEAN);
	fixture_close(&f);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("rmap");
	TCase *sentences = tcase_create("sentences"), *naive = tcase_create("model");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(sentences, insert_merges_with_left_neighbour);
	tcase_add_test(sentences, insert_merges_with_right_neighbour);
	tcase_add_test(sentences, insert_between_two_joins_them);
	tcase_add_test(sentences, insert_keeps_apart_what_differs);
	tcase_add_test(sentences, insert_refuses_what_the_owner_has_already);
	tcase_add_test(sentences, insert_refuses_what_cannot_be);
	tcase_add_test(sentences, remove_splits_the_record_around_the_range);
	tcase_add_test(sentences, remove_leaves_other_owners_alone);
	tcase_add_test(sentences, remove_of_what_is_not_there_says_so);
	tcase_add_test(sentences, written_blocks_join_their_written_neighbours);
	tcase_add_test(sentences, quarantined_blocks_merge_whatever_their_offset);
	tcase_add_test(sentences, query_clips_to_the_range);
	tcase_add_test(sentences, a_shared_run_ends_where_sharing_does);
	tcase_add_test(sentences, insert_merges_with_what_the_owners_map_says);
	tcase_add_test(sentences, a_hint_that_is_wrong_is_looked_into);
	tcase_add_test(sentences, among_many_sharers_one_comes_and_goes_by_few_nodes);
	tcase_add_test(sentences, owners_are_found_by_few_nodes_whoever_shares_the_block_before);
	tcase_add_loop_test(sentences, an_append_seldom_changes_what_inner_nodes_say, 0, 2);
	tcase_add_test(sentences, what_is_said_of_a_leaf_follows_its_sharers);
	tcase_add_test(sentences, a_record_that_cannot_be_is_refused_when_read);
	tcase_set_timeout(naive, 240);
	tcase_add_test(naive, random_extents_and_sharers_agree_with_the_model);
	tcase_add_test(naive, broken_twin_a_dropped_owner_is_noticed);
	tcase_add_test(naive, broken_twin_one_block_off_is_noticed);
	suite_add_tcase(suite, sentences);
	suite_add_tcase(suite, naive);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
