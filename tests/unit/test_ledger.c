#include <check.h>

#include "tests/support/notifyfix.h"
#include "tests/support/random.h"

static struct notifyfix fix;
static struct nfix_records all;

static void setup(void)
{
	nfix_create(&fix);
}

static void teardown(void)
{
	nfix_destroy(&fix);
}

static struct tx *begin(void)
{
	struct tx *tx = NULL;

	ck_assert_int_eq(tx_begin(fix.journal, TX_RESERVE, &tx), 0);
	return tx;
}

static struct span_tree *badblocks(void)
{
	return &fix.notify->ledger.badblocks;
}

/* Offsets are from a place that nobody owns. */
#define BASE nfix_block(0)

static int insert(devoff_t start, devoff_t end, uint64_t cause_id)
{
	const struct span span = {
	    .start = BASE + start,
	    .end = BASE + end,
	    .cause_id = cause_id,
	    .since_ns = 7,
	    .count = 1,
	    .state = BADBLOCK_BAD,
	    .source = FAILURE_SIGBUS,
	};
	struct tx *tx = begin();
	int rc = span_insert(badblocks(), tx, &span);

	if (rc)
		tx_abort(tx);
	else
		ck_assert_int_eq(tx_commit(tx, NULL), 0);
	return rc;
}

static void remove_range(devoff_t start, devoff_t end)
{
	struct tx *tx = begin();

	ck_assert_int_eq(span_remove(badblocks(), tx, BASE + start, BASE + end), 0);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
}

static void expect_record(size_t index, devoff_t start, devoff_t end, uint64_t cause_id)
{
	nfix_badblocks(&fix, &all);
	ck_assert_uint_lt(index, all.count);
	ck_assert_uint_eq(all.records[index].offset, BASE + start);
	ck_assert_uint_eq(all.records[index].length_bytes, end - start);
	ck_assert_uint_eq(all.records[index].cause_id, cause_id);
}

static void expect_count(size_t count)
{
	nfix_badblocks(&fix, &all);
	ck_assert_uint_eq(all.count, count);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), all.bytes);
}

START_TEST(touching_ranges_of_one_cause_are_one_record)
{
	ck_assert_int_eq(insert(4096, 8192, 1), 0);
	ck_assert_int_eq(insert(12288, 16384, 1), 0);
	expect_count(2);
	ck_assert_int_eq(insert(8192, 12288, 1), 0);
	expect_count(1);
	expect_record(0, 4096, 16384, 1);
}
END_TEST

START_TEST(ranges_of_different_causes_stay_apart)
{
	ck_assert_int_eq(insert(4096, 8192, 1), 0);
	ck_assert_int_eq(insert(8192, 12288, 2), 0);
	ck_assert_int_eq(insert(0, 4096, 3), 0);
	expect_count(3);
	expect_record(1, 4096, 8192, 1);
}
END_TEST

START_TEST(overlapping_inserts_are_refused)
{
	ck_assert_int_eq(insert(4096, 8192, 1), 0);
	ck_assert_int_eq(insert(4096, 8192, 1), -EEXIST);
	ck_assert_int_eq(insert(7680, 9216, 2), -EEXIST);
	ck_assert_int_eq(insert(0, 4608, 2), -EEXIST);
	ck_assert_int_eq(insert(0, 65536, 2), -EEXIST);
	expect_count(1);
}
END_TEST

START_TEST(removing_the_middle_leaves_both_ends)
{
	ck_assert_int_eq(insert(0, 65536, 1), 0);
	remove_range(4096, 8192);
	expect_count(2);
	expect_record(0, 0, 4096, 1);
	expect_record(1, 8192, 65536, 1);
	remove_range(0, 512);
	expect_record(0, 512, 4096, 1);
	remove_range(2048, 16384);
	expect_record(0, 512, 2048, 1);
	expect_record(1, 16384, 65536, 1);
	remove_range(0, 1 << 20);
	expect_count(0);
}
END_TEST

START_TEST(changing_the_state_splits_and_merges)
{
	struct tx *tx;

	ck_assert_int_eq(insert(0, 65536, 1), 0);
	tx = begin();
	ck_assert_int_eq(
	    span_set_state(badblocks(), tx, BASE + 4096, BASE + 8192, BADBLOCK_QUARANTINED), 0);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	expect_count(3);
	ck_assert_int_eq(all.records[1].state, BADBLOCK_QUARANTINED);
	tx = begin();
	ck_assert_int_eq(span_set_state(badblocks(), tx, BASE, BASE + 65536, BADBLOCK_BAD), 0);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	expect_count(1);
	expect_record(0, 0, 65536, 1);
}
END_TEST

START_TEST(gaps_are_found_between_spans)
{
	devoff_t gap, gap_end;

	ck_assert_int_eq(insert(4096, 8192, 1), 0);
	ck_assert_int_eq(insert(8192, 12288, 2), 0);
	journal_read_begin(fix.journal);
	ck_assert_int_eq(span_gap(badblocks(), BASE + 0, BASE + 65536, &gap, &gap_end), 0);
	ck_assert_uint_eq(gap, BASE + 0);
	ck_assert_uint_eq(gap_end, BASE + 4096);
	ck_assert_int_eq(span_gap(badblocks(), BASE + 4608, BASE + 65536, &gap, &gap_end), 0);
	ck_assert_uint_eq(gap, BASE + 12288);
	ck_assert_uint_eq(gap_end, BASE + 65536);
	ck_assert_int_eq(span_gap(badblocks(), BASE + 4096, BASE + 12288, &gap, &gap_end), -ENOENT);
	journal_read_end(fix.journal);
}
END_TEST

static int verify_badblock(uint64_t offset, uint64_t length)
{
	const struct btree_key key = {{offset}};
	const struct badblock_record record = {
	    .length_bytes = length,
	    .count = 1,
	    .cause_id = 1,
	    .state = BADBLOCK_BAD,
	    .source = FAILURE_SIGBUS,
	};
	struct format_badblock stored;

	format_badblock_pack(&stored, &record);
	return badblocks_ops.verify(&key, &stored, sizeof(stored));
}

START_TEST(records_that_cannot_be_are_refused_when_read)
{
	ck_assert_int_eq(verify_badblock(4096, 512), 0);
	ck_assert_int_eq(verify_badblock(4097, 512), -EUCLEAN);
	ck_assert_int_eq(verify_badblock(4096, 511), -EUCLEAN);
	ck_assert_int_eq(verify_badblock(4096, 0), -EUCLEAN);
	ck_assert_int_eq(verify_badblock(UINT64_MAX - 511, 4096), -EUCLEAN);
	ck_assert_int_eq(verify_badblock(4096, UINT64_MAX - 511), -EUCLEAN);
}
END_TEST

START_TEST(a_range_too_crowded_for_one_transaction_is_entered_in_several)
{
	struct span failure = {
	    .start = nfix_block(0),
	    .cause_id = 5,
	    .count = 1,
	    .state = BADBLOCK_BAD,
	    .source = FAILURE_CONTROL,
	};
	const unsigned files = 1500;
	unsigned transactions = 0;
	struct tx *tx = begin();

	for (unsigned i = 0; i < files; i++) {
		const struct rmap_record record = {
		    .start = NFIX_DATA_BLOCK + 2 * i, .count = 1, .owner = 100 + i};

		if (tx_room(tx) < LEDGER_ROOM) {
			ck_assert_int_eq(tx_commit(tx, NULL), 0);
			tx = begin();
		}
		ck_assert_int_eq(alloc_take_exact(fix.alloc, tx, record.start, 1), 0);
		ck_assert_int_eq(rmap_insert(&fix.rmap, tx, &record), 0);
	}
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	failure.end = nfix_block(2 * files);
	while (failure.start < failure.end) {
		devoff_t next = 0;

		tx = begin();
		/* As if the transaction were nearly full: one step at a time at worst. */
		ck_assert_int_eq(
		    ledger_record(&fix.notify->ledger, tx, &failure, LEDGER_STEPS_MAX, &next), 0);
		ck_assert_uint_gt(next, failure.start);
		failure.start = next;
		ck_assert_int_eq(tx_commit(tx, NULL), 0);
		transactions++;
	}
	ck_assert_uint_ge(transactions, 1);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 2ull * files * BLOCK_BYTES);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_LOST_BYTES), 1ull * files * BLOCK_BYTES);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_QUARANTINED_BLOCKS), files);
	nfix_check_counters(&fix);
}
END_TEST

/* --- against a model --- */

#define MODEL_BLOCKS 64u
#define PER_BLOCK 8u
#define MODEL_SECTORS (MODEL_BLOCKS * PER_BLOCK)
#define MODEL_STEPS 1200

enum place { PLACE_FREE, PLACE_FILE, PLACE_QUARANTINE };

static struct {
	bool bad[MODEL_SECTORS], lost[MODEL_SECTORS];
	enum place place[MODEL_BLOCKS];
} model;

static bool model_block_is_bad(unsigned block)
{
	for (unsigned i = 0; i < PER_BLOCK; i++)
		if (model.bad[block * PER_BLOCK + i])
			return true;
	return false;
}

static void model_inject(unsigned first, unsigned count)
{
	for (unsigned s = first; s < first + count; s++) {
		if (model.bad[s])
			continue;
		model.bad[s] = true;
		if (model.place[s / PER_BLOCK] == PLACE_FILE)
			model.lost[s] = true;
		else
			model.place[s / PER_BLOCK] = PLACE_QUARANTINE;
	}
}

static void model_clear(unsigned first, unsigned count)
{
	for (unsigned s = first; s < first + count; s++)
		model.bad[s] = model.lost[s] = false;
	for (unsigned s = first; s < first + count; s++)
		if (model.place[s / PER_BLOCK] == PLACE_QUARANTINE &&
		    !model_block_is_bad(s / PER_BLOCK))
			model.place[s / PER_BLOCK] = PLACE_FREE;
}

static void model_check(unsigned step)
{
	static bool bad[MODEL_SECTORS];
	const uint64_t first = nfix_block(0) / SECTOR_BYTES;
	uint64_t lost = 0;

	memset(bad, 0, sizeof(bad));
	nfix_badblocks(&fix, &all);
	for (size_t i = 0; i < all.count; i++)
		for (uint64_t s = 0; s < all.records[i].length_bytes / SECTOR_BYTES; s++)
			bad[all.records[i].offset / SECTOR_BYTES + s - first] = true;
	for (unsigned s = 0; s < MODEL_SECTORS; s++) {
		if (bad[s] != model.bad[s] ||
		    nfix_is_known(&fix, (first + s) * SECTOR_BYTES, 1) != model.bad[s])
			ck_abort_msg("step %u: sector %u is %d in the ledger, %d in the model",
				     step, s, bad[s], model.bad[s]);
		lost += model.lost[s];
	}
	ck_assert_uint_eq(nfix_root(&fix, ROOT_LOST_BYTES), lost * SECTOR_BYTES);
	for (unsigned b = 0; b < MODEL_BLOCKS; b++)
		if (nfix_owned(&fix, OWNER(OWNER_QUARANTINE), NFIX_DATA_BLOCK + b, 1) !=
			(model.place[b] == PLACE_QUARANTINE) ||
		    nfix_free(&fix, NFIX_DATA_BLOCK + b, 1) != (model.place[b] == PLACE_FREE))
			ck_abort_msg("step %u: block %u is not %d", step, b, model.place[b]);
	nfix_check_counters(&fix);
}

static void step_inject(unsigned first, unsigned count)
{
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(0) + first * SECTOR_BYTES,
				       count * SECTOR_BYTES, false),
			 0);
	nfix_settle(&fix);
	model_inject(first, count);
}

static void step_uninject(unsigned first, unsigned count)
{
	uint64_t removed;

	ck_assert_int_eq(notify_uninject(fix.notify, nfix_block(0) + first * SECTOR_BYTES,
					 count * SECTOR_BYTES, &removed),
			 0);
	model_clear(first, count);
}

/* Whole blocks of a file are written anew, or the file gives them up. */
static void step_file(unsigned block, bool heal)
{
	struct tx *tx;

	if (model.place[block] == PLACE_FREE) {
		nfix_map(&fix, 100, block, NFIX_DATA_BLOCK + block, 1, 0, true);
		model.place[block] = PLACE_FILE;
	} else if (model.place[block] == PLACE_FILE && heal) {
		ck_assert_int_eq(media_clear(fix.media, nfix_block(block), BLOCK_BYTES), 0);
		tx = begin();
		ck_assert_int_eq(ledger_cleared(fix.notify, tx, nfix_block(block), BLOCK_BYTES), 0);
		ck_assert_int_eq(tx_commit(tx, NULL), 0);
		nfix_settle(&fix);
		model_clear(block * PER_BLOCK, PER_BLOCK);
	} else if (model.place[block] == PLACE_FILE) {
		nfix_unmap_free(&fix, 100, block, NFIX_DATA_BLOCK + block, 1);
		memset(&model.lost[block * PER_BLOCK], 0, PER_BLOCK * sizeof(model.lost[0]));
		model.place[block] = model_block_is_bad(block) ? PLACE_QUARANTINE : PLACE_FREE;
	}
}

static void step_random(struct random *random)
{
	const unsigned first = (unsigned)random_below(random, MODEL_SECTORS);
	unsigned count = 1 + (unsigned)random_below(random, 20);
	const unsigned what = (unsigned)random_below(random, 100);

	if (count > MODEL_SECTORS - first)
		count = MODEL_SECTORS - first;
	if (what < 30) {
		step_inject(first, count);
	} else if (what < 50) {
		step_uninject(first, count);
	} else if (what < 98) {
		step_file(first / PER_BLOCK, what % 2);
	} else if (what == 98) {
		nfix_remount(&fix);
	} else {
		nfix_crash(&fix);
		nfix_mount(&fix);
	}
}

START_TEST(random_failures_healing_and_freeing_agree_with_a_model)
{
	struct random random = random_start("ledger model");

	memset(&model, 0, sizeof(model));
	for (unsigned step = 0; step < MODEL_STEPS; step++) {
		step_random(&random);
		model_check(step);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ledger");
	TCase *tcase = tcase_create("ledger");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 300);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, touching_ranges_of_one_cause_are_one_record);
	tcase_add_test(tcase, ranges_of_different_causes_stay_apart);
	tcase_add_test(tcase, overlapping_inserts_are_refused);
	tcase_add_test(tcase, removing_the_middle_leaves_both_ends);
	tcase_add_test(tcase, changing_the_state_splits_and_merges);
	tcase_add_test(tcase, gaps_are_found_between_spans);
	tcase_add_test(tcase, records_that_cannot_be_are_refused_when_read);
	tcase_add_test(tcase, a_range_too_crowded_for_one_transaction_is_entered_in_several);
	tcase_add_test(tcase, random_failures_healing_and_freeing_agree_with_a_model);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
