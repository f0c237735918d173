/* Transactions beside each other that take and give blocks, in two threads that do what this one tells them. */
#include "alloc/alloc.h"

#include <errno.h>
#include <stdatomic.h>

#include "alloc/internal.h"
#include "tests/support/expect.h"
#include "tests/support/journalfix.h"
#include "tests/support/other_thread.h"
#include "tests/support/random.h"

/*
 * From FIRST on runs of 2 free blocks and 2 in use alternate, so that there are many leaves; at either end lies a long free run, so that what happens
 * next to it does not change what the tree's inner nodes say.
 */
#define FIRST ((blkno_t)FIX_SPACE / BLOCK_BYTES)
#define LAST (FIX_IMAGE_BYTES / BLOCK_BYTES)
#define LONG 100u
#define RUNS ((LAST - FIRST - 2 * LONG) / 4)
#define FREE_BLOCKS (2 * LONG + 2 * RUNS)
#define RESERVE 64u /* of so small a device */

static struct journalfix fix;
static struct alloc *alloc;
static struct other_thread left_thread, right_thread;

static blkno_t free_run(uint64_t i)
{
	return FIRST + LONG + 4 * i;
}

static blkno_t used_run(uint64_t i)
{
	return free_run(i) + 2;
}

static void fill(void)
{
	struct tx *tx = fix_begin(&fix);

	expect_equal(alloc_give(alloc, tx, FIRST, LONG), 0);
	for (uint64_t i = 0; i < RUNS; i++)
		expect_equal(alloc_give(alloc, tx, free_run(i), 2), 0);
	expect_equal(alloc_give(alloc, tx, LAST - LONG, LONG), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	expect_equal(journal_sync(fix.journal), 0);
}

static void setup(void)
{
	fix_create_open(&fix, 2);
	expect_equal(alloc_create(fix.journal, &alloc), 0);
	fill();
	other_start(&left_thread);
	other_start(&right_thread);
}

static void teardown(void)
{
	other_stop(&left_thread);
	other_stop(&right_thread);
	alloc_destroy(alloc);
	fix_destroy(&fix);
}

static void setup_persistent(void)
{
	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	setup();
}

static void teardown_persistent(void)
{
	teardown();
	unsetenv("PMEM2_FORCE_GRANULARITY");
}

/* --- one side --- */

struct side {
	struct other_thread *thread;
	struct tx *tx;
	blkno_t take, give, hold; /* two blocks each, taken as set aside; 0: none */
	struct alloc_request request;
	blkno_t start;
	uint64_t count;
	bool commits;
	int error; /* of the last step */
};

static void step_begin(void *arg)
{
	struct side *side = arg;

	side->error = tx_begin_beside(fix.journal, TX_NORMAL, &side->tx);
}

static void step_change(void *arg)
{
	struct side *side = arg;

	if (!side->error && side->take)
		side->error = alloc_take_exact(alloc, side->tx, side->take, 2);
	if (!side->error && side->give)
		side->error = alloc_give(alloc, side->tx, side->give, 2);
	if (!side->error && side->hold)
		side->error = alloc_hold(alloc, side->tx, side->hold, 2);
}

static void step_take(void *arg)
{
	struct side *side = arg;

	side->error = alloc_take(alloc, side->tx, &side->request, &side->start, &side->count);
}

static void step_reserve(void *arg)
{
	struct side *side = arg;

	side->error = alloc_reserve(alloc, &side->request, &side->start, &side->count);
}

static void step_end(void *arg)
{
	struct side *side = arg;

	side->error = tx_end(side->tx, side->commits ? 0 : -ECANCELED, NULL);
	if (!side->commits && side->error == -ECANCELED)
		side->error = 0;
}

static int try(other_step_fn *step, struct side *side)
{
	other_do(side->thread, step, side);
	return side->error;
}

static void must(other_step_fn *step, struct side *side)
{
	ck_assert_int_eq(try(step, side), 0);
}

/* --- what is so --- */

static int add_free(void *arg, blkno_t start, uint64_t count)
{
	*(uint64_t *)arg += count;
	return 0;
}

static uint64_t count_free(blkno_t start, uint64_t count)
{
	uint64_t blocks = 0;

	journal_read_begin(fix.journal);
	ck_assert_int_eq(alloc_walk(alloc, start, count, add_free, &blocks), 0);
	journal_read_end(fix.journal);
	return blocks;
}

static uint64_t free_counter(void)
{
	uint64_t blocks;

	journal_read_begin(fix.journal);
	blocks = alloc_free_blocks(alloc);
	journal_read_end(fix.journal);
	return blocks;
}

static bool is_held(blkno_t start)
{
	uint64_t run;
	bool held = alloc_is_held(alloc, start, 2, &run);

	ck_assert_uint_eq(run, 2);
	return held;
}

static bool is_reserved(blkno_t start)
{
	bool reserved = false;

	for (unsigned slot = 0; slot < SLOT_COUNT; slot++)
		reserved |= iset_covers(&alloc->shares[slot].reserved, start, start + 2);
	return reserved;
}

static void reserve_exactly(blkno_t start)
{
	struct side side = {.request = {.goal = start, .want_blocks = 2}};

	step_reserve(&side);
	ck_assert_int_eq(side.error, 0);
	ck_assert_uint_eq(side.start, start);
	ck_assert_uint_eq(side.count, 2);
}

/* Whatever ends, `open` is as it was. */
static void expect_open(const struct side *open)
{
	ck_assert(is_reserved(open->take));
	ck_assert(is_held(open->give) && is_held(open->hold));
	ck_assert_uint_eq(count_free(open->take, 2), 2);
	ck_assert_uint_eq(count_free(open->give, 2), 0);
}

static void expect_ended(const struct side *side)
{
	bool waits = side->commits && !tx_is_durable(fix.journal, UINT64_MAX);

	ck_assert_int_eq(is_reserved(side->take), !side->commits);
	ck_assert_int_eq(is_held(side->give), waits);
	ck_assert_int_eq(is_held(side->hold), waits);
	ck_assert_uint_eq(count_free(side->take, 2), side->commits ? 0 : 2);
	ck_assert_uint_eq(count_free(side->give, 2), side->commits ? 2 : 0);
}

static struct side left_side(bool commits)
{
	return (struct side){.thread = &left_thread, .take = free_run(3), .give = used_run(8), .hold = used_run(12), .commits = commits};
}

static struct side right_side(bool commits)
{
	return (struct side){.thread = &right_thread, .take = free_run(RUNS - 3), .give = used_run(RUNS - 8), .hold = used_run(RUNS - 12), .commits = commits};
}

static void expect_nothing_open(void)
{
	for (unsigned slot = 0; slot < SLOT_COUNT; slot++)
		ck_assert(!alloc->shares[slot].is_open);
}

static void expect_none_open(uint64_t free_blocks)
{
	expect_nothing_open();
	ck_assert_uint_eq(free_counter(), free_blocks);
	ck_assert_uint_eq(count_free(FIRST, LAST - FIRST), free_blocks);
	ck_assert_int_eq(journal_sync(fix.journal), 0);
	ck_assert(!alloc_has_busy(alloc));
}

/* --- sentences --- */

/* Bits of the loop: does left commit, does right, does right end first? */
START_TEST(two_take_give_and_hold_and_end_in_any_order)
{
	struct side left = left_side(_i & 1), right = right_side(_i & 2);
	struct side *first = _i & 4 ? &right : &left, *second = _i & 4 ? &left : &right;

	reserve_exactly(left.take);
	reserve_exactly(right.take);
	must(step_begin, &left);
	must(step_begin, &right);
	must(step_change, &left);
	must(step_change, &right);
	expect_open(&left);
	expect_open(&right);
	must(step_end, first);
	expect_ended(first);
	expect_open(second);
	must(step_end, second);
	expect_ended(first);
	expect_ended(second);
	expect_none_open(FREE_BLOCKS);
}
END_TEST

/* Both hold the same blocks for a moment: right may have them as soon as left's changes are shown. */
START_TEST(what_two_hold_stays_held_until_both_have_ended)
{
	struct side left = {.thread = &left_thread, .hold = used_run(3), .commits = _i & 1},
		    right = {.thread = &right_thread, .hold = used_run(3), .commits = _i & 2};

	must(step_begin, &left);
	must(step_begin, &right);
	must(step_change, &left);
	must(step_change, &right);
	must(step_end, &left);
	ck_assert(is_held(left.hold));
	must(step_end, &right);
	expect_nothing_open();
}
END_TEST

/* Right would have to change the leaf that left is changing. */
START_TEST(what_one_takes_nobody_else_gets)
{
	struct side left = {.thread = &left_thread, .request = {.goal = free_run(3), .want_blocks = 2}, .commits = _i & 1};
	struct side right = {.thread = &right_thread, .request = left.request}, reader = {.request = left.request};

	must(step_begin, &left);
	must(step_begin, &right);
	must(step_take, &left);
	ck_assert_uint_eq(left.start, free_run(3));
	ck_assert_int_eq(try(step_take, &right), -EDEADLK);
	step_reserve(&reader);
	ck_assert_int_eq(reader.error, 0);
	ck_assert_uint_ne(reader.start, free_run(3));
	must(step_end, &right);
	must(step_end, &left);
	ck_assert_uint_eq(count_free(left.start, 2), left.commits ? 0 : 2);
	alloc_unreserve(alloc, reader.start, reader.count);
	expect_none_open(FREE_BLOCKS - (left.commits ? 2 : 0));
}
END_TEST

START_TEST(two_together_never_take_more_than_there_is)
{
	struct side left = {.thread = &left_thread, .request = {.goal = FIRST, .want_blocks = LONG, .least_blocks = LONG}, .commits = true};
	struct side right = {.thread = &right_thread, .request = {.not_before = LAST - LONG, .want_blocks = LONG, .least_blocks = LONG}};
	struct side reader = {.request = {.not_before = LAST - LONG, .want_blocks = LONG}};

	/* All but the two long runs, and of these 64 are kept for others. */
	for (uint64_t i = 0; i < RUNS; i++)
		reserve_exactly(free_run(i));
	must(step_begin, &left);
	must(step_begin, &right);
	must(step_take, &left);
	ck_assert_int_eq(try(step_take, &right), -EAGAIN); /* it may be that left's are counted twice */
	must(step_end, &right);
	step_reserve(&reader);
	ck_assert_int_eq(reader.error, 0);
	ck_assert_uint_eq(reader.count, LONG - RESERVE);
	must(step_end, &left);
	ck_assert_int_eq(tx_begin(fix.journal, TX_NORMAL, &right.tx), 0);
	right.request.least_blocks = 1;
	step_take(&right);
	ck_assert_int_eq(right.error, -ENOSPC);
	tx_abort(right.tx);
	alloc_unreserve(alloc, FIRST, LAST - FIRST);
	expect_none_open(FREE_BLOCKS - LONG);
}
END_TEST

/* Left, which has all that is left, is about to end: what the reader gets is certain. */
START_TEST(who_sets_aside_and_finds_too_little_waits_for_those_who_may_give_it_back)
{
	struct side left = {.thread = &left_thread, .request = {.goal = FIRST, .want_blocks = LONG}, .commits = _i};
	struct side right = {.thread = &right_thread, .request = {.goal = FIRST, .want_blocks = LONG, .least_blocks = LONG}};

	for (uint64_t i = 0; i < RUNS; i++)
		reserve_exactly(free_run(i));
	must(step_begin, &left);
	must(step_take, &left);
	other_begin(right.thread, step_reserve, &right);
	must(step_end, &left);
	other_wait(right.thread);
	ck_assert_int_eq(right.error, left.commits ? -ENOSPC : 0);
	if (!right.error)
		ck_assert_uint_eq(right.start, FIRST);
}
END_TEST

START_TEST(a_refusal_beside_others_is_not_certain)
{
	struct side left = left_side(false);

	must(step_begin, &left);
	left.take = used_run(3);
	ck_assert_int_eq(try(step_change, &left), -EAGAIN);
	must(step_end, &left);
	left = left_side(false);
	must(step_begin, &left);
	left.give = free_run(9);
	ck_assert_int_eq(try(step_change, &left), -EAGAIN);
	must(step_end, &left);
	expect_none_open(FREE_BLOCKS);
}
END_TEST

static bool is_durable(void *arg, uint64_t sequence)
{
	return sequence <= *(uint64_t *)arg;
}

START_TEST(a_generation_ends_with_the_highest_of_its_transactions)
{
	struct iset one, two;
	struct busy busy;
	uint64_t durable = 5;

	iset_init(&one);
	iset_init(&two);
	expect_equal(iset_add(&one, 10, 20, 0), 0);
	expect_equal(iset_add(&two, 30, 40, 0), 0);
	busy_init(&busy);
	expect_equal(busy_reserve(&busy, 2), 0);
	busy_commit(&busy, &one, 6);
	busy_commit(&busy, &two, 5);
	for (unsigned i = 0; i < 2; i++) {
		busy_expire(&busy, is_durable, &durable);
		ck_assert(busy_find(&busy, 10, 11));
		ck_assert(busy_find(&busy, 30, 31));
	}
	durable = 6;
	busy_expire(&busy, is_durable, &durable);
	ck_assert(!busy_find(&busy, 0, 100));
	busy_fini(&busy);
	iset_fini(&one);
	iset_fini(&two);
}
END_TEST

/* --- threads that go their own ways --- */

#define THREADS 4
#define PIECES 16
#define ROUNDS 400

static _Atomic unsigned owner[LAST]; /* thread + 1: whose it is, or is set aside for */

struct worker {
	struct random random;
	unsigned number;
	struct run pieces[PIECES];
	unsigned count;
	unsigned beside;
};

static void own(const struct run *run, unsigned from, unsigned to)
{
	for (blkno_t block = run->start; block < run_end(run); block++) {
		unsigned was = from;

		expect(atomic_compare_exchange_strong(&owner[block], &was, to));
	}
}

/* Set one piece aside. Does it come? */
static bool worker_reserve(struct worker *worker, struct run *fresh)
{
	struct alloc_request request = {.want_blocks = 1 + random_below(&worker->random, 6), .use_reserve = random_below(&worker->random, 4) == 0};
	int error;

	if (random_below(&worker->random, 2))
		request.goal = FIRST + random_below(&worker->random, LAST - FIRST);
	error = alloc_reserve(alloc, &request, &fresh->start, &fresh->count);
	expect(!error || error == -ENOSPC);
	if (error)
		expect_equal(journal_sync(fix.journal), 0);
	else
		own(fresh, 0, worker->number);
	return !error;
}

static int worker_change(struct worker *worker, struct tx *tx, const struct run *fresh, const struct run *old)
{
	int error = alloc_take_exact(alloc, tx, fresh->start, fresh->count);

	if (!error && old->count)
		error = alloc_give(alloc, tx, old->start, old->count);
	if (!error && !random_below(&worker->random, 8))
		error = -ECANCELED;
	return error;
}

/* Beside others, or alone where that is refused. */
static int worker_transact(struct worker *worker, const struct run *fresh, const struct run *old)
{
	struct tx *tx;
	int error = tx_begin_beside(fix.journal, TX_NORMAL, &tx);

	if (!error)
		error = tx_end(tx, worker_change(worker, tx, fresh, old), NULL);
	worker->beside += !error;
	if (error != -EAGAIN && error != -EDEADLK)
		return error;
	error = tx_begin(fix.journal, TX_NORMAL, &tx);
	expect_equal(error, 0);
	return tx_end(tx, worker_change(worker, tx, fresh, old), NULL);
}

/* What is given back belongs to nobody as soon as others may have it, which is before this thread knows. */
static void worker_round(struct worker *worker)
{
	struct run fresh, old = {0};
	unsigned which = (unsigned)random_below(&worker->random, PIECES);
	int error;

	if (!worker_reserve(worker, &fresh))
		return;
	if (which < worker->count)
		old = worker->pieces[which];
	own(&old, worker->number, 0);
	error = worker_transact(worker, &fresh, &old);
	expect(!error || error == -ECANCELED);
	if (error) {
		own(&old, 0, worker->number);
		own(&fresh, worker->number, 0);
		alloc_unreserve(alloc, fresh.start, fresh.count);
	} else if (old.count) {
		worker->pieces[which] = fresh;
	} else if (worker->count < PIECES) {
		worker->pieces[worker->count++] = fresh;
	}
}

static void *worker_main(void *arg)
{
	for (unsigned round = 0; round < ROUNDS; round++)
		worker_round(arg);
	return NULL;
}

static int expect_unowned(void *arg, blkno_t start, uint64_t count)
{
	own(&(struct run){start, count}, 0, THREADS + 1);
	return 0;
}

START_TEST(threads_never_get_the_same_block)
{
	struct random random = random_start("alloc threads");
	struct worker workers[THREADS];
	pthread_t threads[THREADS];
	unsigned beside = 0;
	uint64_t records;

	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){.random = {random_next(&random)}, .number = i + 1};
		ck_assert_int_eq(pthread_create(&threads[i], NULL, worker_main, &workers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		beside += workers[i].beside;
	}
	ck_assert_uint_gt(beside, 0);
	ck_assert(!reserved_any(alloc));
	expect_nothing_open();
	journal_read_begin(fix.journal);
	ck_assert_int_eq(btree_check(alloc_tree(alloc), &records), 0);
	ck_assert_int_eq(alloc_walk(alloc, 0, LAST, expect_unowned, NULL), 0);
	journal_read_end(fix.journal);
	ck_assert_uint_eq(free_counter(), count_free(0, LAST));
}
END_TEST

static TCase *make_tests(const char *name, void (*up)(void), void (*down)(void))
{
	TCase *tests = tcase_create(name);

	tcase_add_checked_fixture(tests, up, down);
	tcase_set_timeout(tests, 300);
	tcase_add_loop_test(tests, two_take_give_and_hold_and_end_in_any_order, 0, 8);
	tcase_add_loop_test(tests, what_two_hold_stays_held_until_both_have_ended, 0, 4);
	tcase_add_loop_test(tests, what_one_takes_nobody_else_gets, 0, 2);
	tcase_add_test(tests, two_together_never_take_more_than_there_is);
	tcase_add_loop_test(tests, who_sets_aside_and_finds_too_little_waits_for_those_who_may_give_it_back, 0, 2);
	tcase_add_test(tests, a_refusal_beside_others_is_not_certain);
	tcase_add_test(tests, threads_never_get_the_same_block);
	return tests;
}

int main(void)
{
	Suite *suite = suite_create("alloc beside");
	TCase *busy = tcase_create("busy");

	tcase_add_test(busy, a_generation_ends_with_the_highest_of_its_transactions);
	suite_add_tcase(suite, busy);
	suite_add_tcase(suite, make_tests("paged", setup, teardown));
	suite_add_tcase(suite, make_tests("persistent", setup_persistent, teardown_persistent));
	return fix_run(suite);
}
