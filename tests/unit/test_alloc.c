#include "alloc/alloc.h"

#include <check.h>
#include <errno.h>
#include <string.h>

#include "alloc/internal.h"
#include "tests/support/expect.h"
#include "tests/support/fake_journal.h"
#include "tests/support/other_thread.h"
#include "tests/support/random.h"

#define BLOCKS 4096u
#define RESERVE 64u /* of so small a device */

struct fixture {
	struct journal *journal;
	struct alloc *alloc;
	struct tx *tx;
};

static void begin(struct fixture *f)
{
	expect_equal(tx_begin(f->journal, TX_NORMAL, &f->tx), 0);
}

static int end(struct fixture *f, int error)
{
	if (error < 0)
		tx_abort(f->tx);
	else
		expect_equal(tx_commit(f->tx, NULL), 0);
	return error;
}

static int give(struct fixture *f, blkno_t start, uint64_t count)
{
	begin(f);
	return end(f, alloc_give(f->alloc, f->tx, start, count));
}

static int take_exact(struct fixture *f, blkno_t start, uint64_t count)
{
	begin(f);
	return end(f, alloc_take_exact(f->alloc, f->tx, start, count));
}

static int take(struct fixture *f, const struct alloc_request *request, blkno_t *start,
		uint64_t *count)
{
	begin(f);
	return end(f, alloc_take(f->alloc, f->tx, request, start, count));
}

static void fixture_open(struct fixture *f, uint64_t blocks)
{
	f->journal = fake_create(blocks * BLOCK_BYTES);
	expect_equal(alloc_create(f->journal, &f->alloc), 0);
	expect_equal(give(f, 0, blocks), 0);
}

static void fixture_close(struct fixture *f)
{
	expect_equal(fake_references(f->journal), 0);
	alloc_destroy(f->alloc);
	fake_destroy(f->journal);
}

static void assert_taken(struct fixture *f, struct alloc_request request, blkno_t want_start,
			 uint64_t want_count)
{
	uint64_t count;
	blkno_t start;

	ck_assert_int_eq(take(f, &request, &start, &count), 0);
	ck_assert_uint_eq(start, want_start);
	ck_assert_uint_eq(count, want_count);
}

static void assert_refused(struct fixture *f, struct alloc_request request)
{
	uint64_t count;
	blkno_t start;

	ck_assert_int_eq(take(f, &request, &start, &count), -ENOSPC);
}

/* --- sentences --- */

START_TEST(the_goal_is_taken_first)
{
	struct fixture f;

	fixture_open(&f, BLOCKS);
	assert_taken(&f, (struct alloc_request){.goal = 1000, .want_blocks = 10}, 1000, 10);
	assert_taken(&f, (struct alloc_request){.goal = 1010, .want_blocks = 10}, 1010, 10);
	ck_assert_uint_eq(alloc_free_blocks(f.alloc), BLOCKS - 20);
	fixture_close(&f);
}
END_TEST

START_TEST(without_a_goal_a_cursor_rolls)
{
	struct fixture f;

	fixture_open(&f, BLOCKS);
	assert_taken(&f, (struct alloc_request){.want_blocks = 10}, 0, 10);
	ck_assert_int_eq(give(&f, 0, 5), 0);
	assert_taken(&f, (struct alloc_request){.want_blocks = 5}, 10, 5);
	assert_taken(&f, (struct alloc_request){.want_blocks = BLOCKS, .use_reserve = true}, 15,
		     BLOCKS - 15);
	assert_taken(&f, (struct alloc_request){.want_blocks = 1, .use_reserve = true}, 0, 1);
	fixture_close(&f);
}
END_TEST

START_TEST(aligned_runs_are_found_when_they_exist)
{
	struct fixture f;

	fixture_open(&f, BLOCKS);
	ck_assert_int_eq(take_exact(&f, 0, BLOCKS), 0);
	ck_assert_int_eq(give(&f, 100, 600), 0); /* long, but with no aligned 512 in it */
	ck_assert_int_eq(give(&f, 1024, 512), 0);
	ck_assert_int_eq(give(&f, 2000, 700), 0); /* 2048 .. 2560 */
	assert_taken(&f, (struct alloc_request){.want_blocks = 512, .align_blocks = 512}, 1024,
		     512);
	assert_taken(&f, (struct alloc_request){.want_blocks = 512, .align_blocks = 512}, 2048,
		     512);
	assert_taken(
	    &f,
	    (struct alloc_request){.want_blocks = 512, .align_blocks = 512, .use_reserve = true},
	    100, 512);
	fixture_close(&f);
}
END_TEST

START_TEST(want_of_too_much_gets_the_longest_run)
{
	struct fixture f;

	fixture_open(&f, BLOCKS);
	ck_assert_int_eq(take_exact(&f, 0, BLOCKS), 0);
	ck_assert_int_eq(give(&f, 10, 20), 0);
	ck_assert_int_eq(give(&f, 1000, 300), 0);
	ck_assert_int_eq(give(&f, 3000, 100), 0);
	ck_assert_uint_eq(alloc_longest(f.alloc), 300);
	assert_taken(&f, (struct alloc_request){.want_blocks = 2000, .use_reserve = true}, 1000,
		     300);
	assert_refused(&f, (struct alloc_request){
			       .want_blocks = 2000, .least_blocks = 101, .use_reserve = true});
	assert_taken(
	    &f,
	    (struct alloc_request){.want_blocks = 2000, .least_blocks = 100, .use_reserve = true},
	    3000, 100);
	fixture_close(&f);
}
END_TEST

START_TEST(not_before_looks_there_first)
{
	struct fixture f;

	fixture_open(&f, BLOCKS);
	assert_taken(&f, (struct alloc_request){.want_blocks = 16, .not_before = 3000}, 3000, 16);
	assert_taken(&f, (struct alloc_request){.want_blocks = 16, .not_before = 3000}, 3016, 16);
	assert_taken(
	    &f,
	    (struct alloc_request){.want_blocks = 2000, .least_blocks = 2000, .not_before = 3000},
	    0, 2000);
	fixture_close(&f);
}
END_TEST

START_TEST(data_leave_the_reserve_alone)
{
	struct fixture f;

	fixture_open(&f, BLOCKS);
	ck_assert_uint_eq(alloc_reserve_blocks(f.alloc), RESERVE);
	assert_taken(&f, (struct alloc_request){.want_blocks = BLOCKS}, 0, BLOCKS - RESERVE);
	assert_refused(&f, (struct alloc_request){.want_blocks = 1});
	assert_taken(&f, (struct alloc_request){.want_blocks = 1, .use_reserve = true},
		     BLOCKS - RESERVE, 1);
	fixture_close(&f);
	fixture_open(&f, 1u << 20);
	ck_assert_uint_eq(alloc_reserve_blocks(f.alloc), 2048);
	fixture_close(&f);
}
END_TEST

START_TEST(freed_space_is_busy_until_durable)
{
	struct fixture f;

	fixture_open(&f, BLOCKS);
	ck_assert(!alloc_has_busy(f.alloc));
	ck_assert_int_eq(take_exact(&f, 0, BLOCKS), 0);
	fake_set_lazy(f.journal, true);
	ck_assert_int_eq(give(&f, 100, 200), 0);
	ck_assert(alloc_has_busy(f.alloc));
	ck_assert_uint_eq(alloc_free_blocks(f.alloc), 200);
	assert_refused(&f, (struct alloc_request){.want_blocks = 1, .use_reserve = true});
	fake_make_durable(f.journal);
	ck_assert(!alloc_has_busy(f.alloc));
	assert_taken(&f, (struct alloc_request){.want_blocks = 300, .use_reserve = true}, 100, 200);
	fixture_close(&f);
}
END_TEST

START_TEST(blocks_that_an_owner_left_are_held_until_durable)
{
	struct fixture f;
	uint64_t run;

	fixture_open(&f, BLOCKS);
	ck_assert_int_eq(take_exact(&f, 0, BLOCKS), 0);
	fake_set_lazy(f.journal, true);
	begin(&f);
	ck_assert_int_eq(end(&f, alloc_hold(f.alloc, f.tx, 100, 50)), 0);
	ck_assert(!alloc_is_held(f.alloc, 90, 20, &run));
	ck_assert_uint_eq(run, 10);
	ck_assert(alloc_is_held(f.alloc, 120, 100, &run));
	ck_assert_uint_eq(run, 30);
	ck_assert_uint_eq(alloc_free_blocks(f.alloc), 0);
	fake_make_durable(f.journal);
	ck_assert(!alloc_is_held(f.alloc, 120, 100, &run));
	ck_assert_uint_eq(run, 100);
	fixture_close(&f);
}
END_TEST

START_TEST(what_one_transaction_frees_it_may_not_use)
{
	struct alloc_request any = {.want_blocks = 1, .use_reserve = true};
	struct fixture f;
	uint64_t count;
	blkno_t start;

	fixture_open(&f, BLOCKS);
	ck_assert_int_eq(take_exact(&f, 0, BLOCKS), 0);
	begin(&f);
	ck_assert_int_eq(alloc_give(f.alloc, f.tx, 100, 200), 0);
	ck_assert_int_eq(alloc_take(f.alloc, f.tx, &any, &start, &count), -ENOSPC);
	tx_abort(f.tx);
	ck_assert(!alloc_has_busy(f.alloc));
	ck_assert_uint_eq(alloc_free_blocks(f.alloc), 0);
	fixture_close(&f);
}
END_TEST

START_TEST(an_aborted_free_of_busy_space_keeps_it_busy)
{
	struct fixture f;

	fixture_open(&f, BLOCKS);
	ck_assert_int_eq(take_exact(&f, 0, BLOCKS), 0);
	fake_set_lazy(f.journal, true);
	ck_assert_int_eq(give(&f, 100, 10), 0);
	begin(&f);
	ck_assert_int_eq(alloc_take_exact(f.alloc, f.tx, 100, 10), 0);
	ck_assert_int_eq(alloc_give(f.alloc, f.tx, 100, 10), 0);
	tx_abort(f.tx);
	ck_assert(alloc_has_busy(f.alloc));
	assert_refused(&f, (struct alloc_request){.want_blocks = 1, .use_reserve = true});
	fake_make_durable(f.journal);
	assert_taken(&f, (struct alloc_request){.want_blocks = 10, .use_reserve = true}, 100, 10);
	fixture_close(&f);
}
END_TEST

START_TEST(a_reservation_ends_at_commit_and_comes_back_at_abort)
{
	struct alloc_request request = {.want_blocks = 100};
	struct fixture f;
	uint64_t count;
	blkno_t start;

	fixture_open(&f, BLOCKS);
	ck_assert_int_eq(alloc_reserve(f.alloc, &request, &start, &count), 0);
	ck_assert_uint_eq(start, 0);
	ck_assert_uint_eq(alloc_free_blocks(f.alloc), BLOCKS);
	begin(&f);
	ck_assert_int_eq(alloc_take_exact(f.alloc, f.tx, 0, 60), 0);
	tx_abort(f.tx);
	assert_taken(&f, (struct alloc_request){.goal = 10, .want_blocks = 1}, 100, 1);
	ck_assert_int_eq(take_exact(&f, 0, 60), 0);
	ck_assert_int_eq(take_exact(&f, 50, 20), -EEXIST);
	alloc_unreserve(f.alloc, 60, 40);
	ck_assert_int_eq(give(&f, 0, 60), 0);
	assert_taken(&f, (struct alloc_request){.goal = 10, .want_blocks = 1}, 10, 1);
	fixture_close(&f);
}
END_TEST

START_TEST(a_reservation_being_taken_is_not_counted_twice)
{
	struct alloc_request request = {.want_blocks = 100}, rest = {.want_blocks = BLOCKS};
	struct fixture f;
	uint64_t count;
	blkno_t start;

	fixture_open(&f, BLOCKS);
	ck_assert_int_eq(alloc_reserve(f.alloc, &request, &start, &count), 0);
	begin(&f);
	ck_assert_int_eq(alloc_take_exact(f.alloc, f.tx, start, count), 0);
	ck_assert_int_eq(alloc_take(f.alloc, f.tx, &rest, &start, &count), 0);
	ck_assert_uint_eq(count, BLOCKS - 100 - RESERVE);
	end(&f, 0);
	fixture_close(&f);
}
END_TEST

START_TEST(give_refuses_what_is_free_or_outside)
{
	struct fixture f;

	fixture_open(&f, BLOCKS);
	ck_assert_int_eq(take_exact(&f, 100, 100), 0);
	ck_assert_int_eq(give(&f, 90, 20), -EUCLEAN);
	ck_assert_int_eq(give(&f, 190, 20), -EUCLEAN);
	ck_assert_int_eq(give(&f, 10, 1), -EUCLEAN);
	ck_assert_int_eq(give(&f, 100, 0), -EUCLEAN);
	ck_assert_int_eq(give(&f, BLOCKS, 1), -EUCLEAN);
	ck_assert_int_eq(give(&f, 1, UINT64_MAX), -EUCLEAN);
	ck_assert_int_eq(take_exact(&f, 1, UINT64_MAX), -EUCLEAN);
	ck_assert_int_eq(give(&f, 100, 100), 0);
	ck_assert_uint_eq(alloc_longest(f.alloc), BLOCKS);
	fixture_close(&f);
}
END_TEST

/* `count` runs of this length, each with a block between. */
static void fixture_open_pieces(struct fixture *f, unsigned count, uint64_t length)
{
	f->journal = fake_create((count * (length + 1) + 4000) * BLOCK_BYTES);
	expect_equal(alloc_create(f->journal, &f->alloc), 0);
	for (unsigned i = 0; i < count; i++)
		expect_equal(give(f, 10 + i * (length + 1), length), 0);
}

static uint64_t count_looked_at(struct fixture *f, struct alloc_request request, int expect)
{
	uint64_t before = fake_gets(f->journal), count;
	blkno_t start;

	expect_equal(take(f, &request, &start, &count), expect);
	return fake_gets(f->journal) - before;
}

/* What inner nodes say is rounded up, by less than a quarter; chunks want powers of two. */
START_TEST(a_run_is_found_or_not_by_few_nodes_though_lengths_are_rounded)
{
	static const uint64_t lengths[] = {1, 7, 9, 15, 63, 64, 65, 511, 512, 600};
	struct alloc_request rest = {.use_reserve = true};

	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		uint64_t power = 1ull << (64 - __builtin_clzll(lengths[i]));
		struct fixture f;

		fixture_open_pieces(&f, 3000, lengths[i]);
		rest.want_blocks = rest.least_blocks = power;
		ck_assert_uint_lt(count_looked_at(&f, rest, -ENOSPC), 8);
		rest.want_blocks = lengths[i] + 1;
		rest.least_blocks = 1;
		ck_assert_uint_lt(count_looked_at(&f, rest, 0), 60);
		ck_assert_int_eq(give(&f, 10 + 3000 * (lengths[i] + 1), power), 0);
		rest.want_blocks = rest.least_blocks = power;
		ck_assert_uint_lt(count_looked_at(&f, rest, 0), 30);
		/* What lies between two lengths that inner nodes tell apart is found too, if there is one. */
		ck_assert_int_eq(give(&f, 10 + 3000 * (lengths[i] + 1), lengths[i] + 1), 0);
		rest.want_blocks = rest.least_blocks = lengths[i] + 1;
		expect_equal(take(&f, &rest, &(blkno_t){0}, &(uint64_t){0}), 0);
		rest.least_blocks = lengths[i] + 2;
		rest.want_blocks = rest.least_blocks;
		expect_equal(take(&f, &rest, &(blkno_t){0}, &(uint64_t){0}), -ENOSPC);
		fixture_close(&f);
	}
}
END_TEST

START_TEST(a_run_that_shrinks_seldom_changes_what_inner_nodes_say)
{
	unsigned changes = 0;
	struct fixture f;

	fixture_open_pieces(&f, 3000, 1);
	ck_assert_int_eq(give(&f, 8000, 900), 0);
	for (unsigned i = 1; i < 900; i++) { /* from its end, so that its record stays */
		ck_assert_int_eq(take_exact(&f, 8900 - i, 1), 0);
		changes += fake_last_joined(f.journal) > 2; /* its leaf, and the counter in the root block */
	}
	ck_assert_uint_lt(changes, 40);
	fixture_close(&f);
}
END_TEST

START_TEST(runs_beyond_the_device_are_refused)
{
	struct fixture f;
	struct buf *buf;

	fixture_open(&f, BLOCKS);
	buf = fake_block(f.journal, 0);
	buf->data[BLOCK_BYTES - 5] = 1; /* the length of the only run */
	fake_forget_verified(f.journal);
	ck_assert_int_eq(take_exact(&f, 0, 1), -EUCLEAN);
	begin(&f);
	tx_abort(f.tx);
	fixture_close(&f);
}
END_TEST

/* --- windows: what is set aside for a thread's requests to come --- */

#define MANY (1u << 20)
#define WINDOW 256u /* of so large a device */

struct file {
	struct fixture *f;
	blkno_t end; /* 0: it has no block yet */
	unsigned extents;
};

/* As a write at the end of the file. */
static void append(struct file *file, uint64_t blocks)
{
	while (blocks > 0) {
		struct alloc_request request = {.goal = file->end, .want_blocks = blocks};
		uint64_t count;
		blkno_t start;

		expect_equal(alloc_reserve(file->f->alloc, &request, &start, &count), 0);
		begin(file->f);
		expect_equal(end(file->f, alloc_take_exact(file->f->alloc, file->f->tx, start, count)), 0);
		file->extents += start != file->end || file->extents == 0;
		file->end = start + count;
		blocks -= count;
	}
}

static void append_one(void *arg)
{
	append(arg, 1);
}

START_TEST(a_file_that_grows_lies_in_one_run)
{
	static const uint64_t sizes[] = {1, 2, 3, 32, 250, WINDOW, 1000};
	struct fixture f;
	struct file file = {.f = &f};

	fixture_open(&f, MANY);
	for (unsigned i = 0; i < 3000; i++)
		append(&file, sizes[i % ARRAY_SIZE(sizes)]);
	ck_assert_uint_eq(file.extents, 1);
	fixture_close(&f);
}
END_TEST

/* Blocks alternate as they always did where files begin one behind the other; where there is room behind both, each goes on there. */
START_TEST(files_that_one_thread_appends_to_in_turn_lie_no_worse_than_without_windows)
{
	struct fixture f;
	struct file a = {.f = &f}, b = {.f = &f}, c = {.f = &f, .end = 5000}, d = {.f = &f, .end = 9000};

	fixture_open(&f, MANY);
	for (unsigned i = 0; i < 1000; i++) {
		append(&a, 1);
		append(&b, 1);
		append(&c, 1);
		append(&d, 1);
	}
	ck_assert_uint_le(a.extents, 1000);
	ck_assert_uint_le(b.extents, 1000);
	ck_assert_uint_le(a.end, 2001);
	ck_assert_uint_le(b.end, 2001);
	ck_assert_uint_eq(c.end, 6000);
	ck_assert_uint_eq(d.end, 10000);
	fixture_close(&f);
}
END_TEST

START_TEST(files_of_two_threads_lie_apart_each_in_one_run)
{
	struct other_thread other;
	struct fixture f;
	struct file a = {.f = &f}, b = {.f = &f};

	fixture_open(&f, MANY);
	other_start(&other);
	for (unsigned i = 0; i < 1000; i++) {
		append_one(&a);
		other_do(&other, append_one, &b);
	}
	other_stop(&other);
	ck_assert_uint_eq(a.extents, 1);
	ck_assert_uint_eq(b.extents, 1);
	ck_assert_uint_gt(max_u64(a.end, b.end) - min_u64(a.end, b.end), MANY / 64);
	fixture_close(&f);
}
END_TEST

START_TEST(a_file_that_threads_append_to_in_turn_lies_in_one_run)
{
	struct other_thread other;
	struct fixture f;
	struct file a = {.f = &f}, b = {.f = &f};

	fixture_open(&f, MANY);
	other_start(&other);
	for (unsigned i = 0; i < 1000; i++) {
		append_one(i % 3 ? &a : &b);
		other_do(&other, append_one, i % 2 ? &a : &b);
	}
	other_stop(&other);
	ck_assert_uint_le(a.extents, 2); /* both began in one window */
	ck_assert_uint_le(b.extents, 2);
	fixture_close(&f);
}
END_TEST

static uint64_t space_locks(void)
{
	struct lock_counts counts;

	lock_counts(&counts);
	return counts.taken[LOCK_SPACE];
}

/* This thread has locked what another one has, for ever if it came to that. */
START_TEST(within_a_window_a_thread_takes_three_locks_of_its_own)
{
	struct other_thread other;
	struct fixture f;
	struct file a = {.f = &f}, b = {.f = &f};
	uint64_t before, run;

	fixture_open(&f, MANY);
	other_start(&other);
	other_do(&other, append_one, &b);
	append_one(&a);
	before = space_locks();
	for (unsigned slot = 1; slot < SLOT_COUNT; slot++)
		share_lock(&f.alloc->shares[slot]);
	for (unsigned i = 0; i < WINDOW - 1; i++)
		append_one(&a);
	ck_assert_uint_eq(space_locks() - before, SLOT_COUNT - 1 + 3 * (WINDOW - 1));
	ck_assert_int_eq(give(&f, a.end - 1, 1), 0);
	begin(&f);
	ck_assert_int_eq(end(&f, alloc_hold(f.alloc, f.tx, a.end - 2, 1)), 0);
	ck_assert(!alloc_is_held(f.alloc, a.end - 2, 1, &run));
	for (unsigned slot = 1; slot < SLOT_COUNT; slot++)
		share_unlock(&f.alloc->shares[slot]);
	other_stop(&other);
	fixture_close(&f);
}
END_TEST

struct reserving {
	struct fixture *f;
	struct alloc_request request;
	blkno_t start;
	uint64_t count;
	int error;
};

static void reserve(void *arg)
{
	struct reserving *r = arg;

	r->error = alloc_reserve(r->f->alloc, &r->request, &r->start, &r->count);
}

/* Two threads have windows. */
static void windows_open(struct fixture *f, struct other_thread *other, struct reserving *mine, struct reserving *theirs)
{
	*mine = *theirs = (struct reserving){.f = f, .request = {.want_blocks = 1}};
	reserve(mine);
	other_start(other);
	other_do(other, reserve, theirs);
	ck_assert_int_eq(mine->error, 0);
	ck_assert_int_eq(theirs->error, 0);
}

/* One goes through what is free faster than the other one, or comes around: it would take from the same records from then on. */
START_TEST(threads_that_come_near_each_other_go_apart_again)
{
	struct reserving mine, theirs;
	struct other_thread other;
	struct fixture f;

	fixture_open(&f, MANY);
	windows_open(&f, &other, &mine, &theirs);
	for (unsigned i = 1; i < WINDOW; i++)
		reserve(&mine);
	share_mine(f.alloc)->cursor = theirs.start + 2 * WINDOW;
	for (unsigned i = 0; i < 8 * WINDOW; i++) {
		reserve(&mine);
		other_do(&other, reserve, &theirs);
		ck_assert_int_eq(mine.error, 0);
		ck_assert_int_eq(theirs.error, 0);
		ck_assert_uint_ge(max_u64(mine.start, theirs.start) - min_u64(mine.start, theirs.start), DEVICE_UNIT_BLOCKS - 9 * WINDOW);
	}
	other_stop(&other);
	fixture_close(&f);
}
END_TEST

START_TEST(no_block_is_lost_to_windows)
{
	struct reserving mine, theirs, all = {.f = NULL};
	struct other_thread other;
	uint64_t sum = 2;
	struct fixture f;

	fixture_open(&f, MANY);
	windows_open(&f, &other, &mine, &theirs);
	all = (struct reserving){.f = &f, .request = {.want_blocks = MANY, .least_blocks = _i ? MANY / 2 : 1}};
	if (_i)
		all.request.want_blocks = all.request.least_blocks = max_u64(mine.start, theirs.start) - min_u64(mine.start, theirs.start) - 1;
	for (reserve(&all); !all.error; reserve(&all))
		sum += all.count;
	ck_assert_int_eq(all.error, -ENOSPC);
	if (!_i)
		ck_assert_uint_eq(sum, MANY - alloc_reserve_blocks(f.alloc));
	else
		ck_assert_uint_ge(sum, all.request.want_blocks);
	other_stop(&other);
	fixture_close(&f);
}
END_TEST

START_TEST(small_requests_get_every_block_too)
{
	struct reserving mine, theirs;
	struct other_thread other;
	uint64_t sum = 0;
	struct fixture f;

	fixture_open(&f, 16384);
	windows_open(&f, &other, &mine, &theirs);
	while (!mine.error || !theirs.error) {
		sum += (mine.error ? 0 : mine.count) + (theirs.error ? 0 : theirs.count);
		mine.request.goal = mine.start + mine.count;
		reserve(&mine);
		other_do(&other, reserve, &theirs);
	}
	ck_assert_int_eq(mine.error, -ENOSPC);
	ck_assert_int_eq(theirs.error, -ENOSPC);
	ck_assert_uint_eq(sum, 16384 - alloc_reserve_blocks(f.alloc));
	other_stop(&other);
	fixture_close(&f);
}
END_TEST

/* Deletes and metadata get what is in windows as well. */
START_TEST(windows_give_way_to_who_may_have_the_reserve)
{
	struct alloc_request rest = {.want_blocks = MANY, .least_blocks = 1, .use_reserve = true};
	struct reserving mine, theirs;
	struct other_thread other;
	uint64_t count, sum = 2;
	struct fixture f;
	blkno_t start;

	fixture_open(&f, MANY);
	windows_open(&f, &other, &mine, &theirs);
	while (!take(&f, &rest, &start, &count))
		sum += count;
	ck_assert_uint_eq(sum, MANY);
	other_stop(&other);
	fixture_close(&f);
}
END_TEST

/* As much of it as a window has, and all of what is behind. */
START_TEST(what_begins_in_anothers_window_goes_on_behind_it)
{
	struct reserving mine, theirs;
	struct other_thread other;
	struct fixture f;

	fixture_open(&f, MANY);
	windows_open(&f, &other, &mine, &theirs);
	mine.request = (struct alloc_request){.goal = theirs.start + 1, .want_blocks = 4 * WINDOW};
	reserve(&mine);
	ck_assert_int_eq(mine.error, 0);
	ck_assert_uint_eq(mine.start, theirs.start + 1);
	ck_assert_uint_eq(mine.count, 4 * WINDOW);
	other_do(&other, reserve, &theirs);
	ck_assert_uint_eq(theirs.start, mine.start + mine.count);
	mine.request = (struct alloc_request){.goal = theirs.start + 8, .want_blocks = 8}; /* in the middle of a window */
	reserve(&mine);
	ck_assert_uint_eq(mine.start, theirs.start + 8);
	ck_assert_uint_eq(mine.count, 8);
	other_stop(&other);
	fixture_close(&f);
}
END_TEST

START_TEST(what_somebody_takes_exactly_leaves_the_window)
{
	struct reserving mine, theirs;
	struct other_thread other;
	struct fixture f;

	fixture_open(&f, MANY);
	windows_open(&f, &other, &mine, &theirs);
	ck_assert_int_eq(take_exact(&f, theirs.start + 1, 20), 0);
	ck_assert_int_eq(take_exact(&f, mine.start + 1, 20), 0);
	reserve(&mine);
	ck_assert_uint_eq(mine.start, mine.count + 20);
	theirs.request.goal = theirs.start + 1;
	other_do(&other, reserve, &theirs);
	ck_assert(theirs.start < theirs.request.goal || theirs.start >= theirs.request.goal + 20);
	other_stop(&other);
	fixture_close(&f);
}
END_TEST

START_TEST(a_search_of_what_is_free_finds_what_is_in_windows)
{
	struct alloc_search search = {.end = MANY, .least_blocks = 1, .most_blocks = MANY, .align_blocks = 1};
	struct reserving mine, theirs;
	struct other_thread other;
	uint64_t count, sum = 0;
	struct fixture f;
	blkno_t start;

	fixture_open(&f, MANY);
	windows_open(&f, &other, &mine, &theirs);
	while (!alloc_reserve_next(f.alloc, &search, &start, &count))
		sum += count;
	ck_assert_uint_eq(sum, MANY - 2);
	reserve(&mine);
	ck_assert_int_eq(mine.error, -ENOSPC);
	other_stop(&other);
	fixture_close(&f);
}
END_TEST

START_TEST(a_reservation_may_be_given_up_or_taken_by_another_thread)
{
	struct reserving mine, theirs;
	struct other_thread other;
	struct fixture f;

	fixture_open(&f, MANY);
	windows_open(&f, &other, &mine, &theirs);
	ck_assert_int_eq(take_exact(&f, theirs.start, 1), 0);
	ck_assert_int_eq(give(&f, theirs.start, 1), 0);
	mine.request.goal = theirs.start;
	reserve(&mine);
	ck_assert_uint_eq(mine.start, theirs.start);
	other_do(&other, reserve, &theirs);
	alloc_unreserve(f.alloc, theirs.start, 1);
	mine.request.goal = theirs.start;
	reserve(&mine);
	ck_assert_uint_eq(mine.start, theirs.start);
	other_stop(&other);
	fixture_close(&f);
}
END_TEST

/* --- the model: a state per block --- */

#define HANDLES 24
struct handle { /* a reservation, or blocks in use */
	blkno_t start;
	uint64_t count;
};
struct model {
	bool is_free[BLOCKS];
	uint64_t busy_until[BLOCKS]; /* sequence */
	bool reserved[BLOCKS];
	struct handle handles[HANDLES];
	uint64_t durable, sequence; /* as the fake counts them */
};
static struct model model;

static bool model_usable(blkno_t block)
{
	return model.is_free[block] && model.busy_until[block] <= model.durable &&
	       !model.reserved[block];
}

static uint64_t model_longest_usable(void)
{
	uint64_t longest = 0, run = 0;

	for (blkno_t block = 0; block < BLOCKS; block++) {
		run = model_usable(block) ? run + 1 : 0;
		longest = max_u64(longest, run);
	}
	return longest;
}

static uint64_t model_count(const bool *flags)
{
	uint64_t count = 0;

	for (blkno_t block = 0; block < BLOCKS; block++)
		count += flags[block];
	return count;
}

static void model_check_answer(const struct alloc_request *request, int error, blkno_t start,
			       uint64_t count)
{
	uint64_t kept = model_count(model.reserved) + (request->use_reserve ? 0 : RESERVE),
		 all = model_count(model.is_free);
	uint64_t available = all > kept ? all - kept : 0, least = max_u64(request->least_blocks, 1);

	if (error < 0) {
		expect_equal(error, -ENOSPC);
		expect(min_u64(available, request->want_blocks) < least ||
		       model_longest_usable() < least);
		return;
	}
	expect(count >= least && count <= request->want_blocks && count <= available &&
	       start + count <= BLOCKS);
	for (uint64_t i = 0; i < count; i++)
		expect(model_usable(start + i));
	if (request->goal > 0 && request->goal < BLOCKS && model_usable(request->goal) &&
	    least == 1)
		expect_equal(start, request->goal);
}

static struct alloc_request random_request(struct random *random)
{
	static const uint64_t wants[] = {1, 1, 3, 16, 100, 512, 700, 5000};
	struct alloc_request request = {
	    .want_blocks = wants[random_below(random, ARRAY_SIZE(wants))], .align_blocks = 1};

	if (random_below(random, 2) == 0)
		request.goal = random_below(random, BLOCKS);
	if (random_below(random, 4) == 0)
		request.not_before = random_below(random, BLOCKS);
	if (random_below(random, 4) == 0)
		request.align_blocks = 512;
	if (random_below(random, 4) == 0)
		request.least_blocks = 1 + random_below(random, request.want_blocks);
	request.use_reserve = random_below(random, 3) == 0;
	return request;
}

static void step_take(struct fixture *f, struct random *random)
{
	struct alloc_request request = random_request(random);
	bool commit = random_below(random, 4) > 0;
	uint64_t count = 0;
	blkno_t start = 0;
	int error;

	begin(f);
	error = alloc_take(f->alloc, f->tx, &request, &start, &count);
	model_check_answer(&request, error, start, count);
	end(f, error == 0 && commit ? 0 : -1);
	if (error < 0 || !commit)
		return;
	model.sequence++;
	memset(&model.is_free[start], 0, count);
}

static void step_reserve(struct fixture *f, struct random *random)
{
	struct alloc_request request = random_request(random);
	struct handle *handle = &model.handles[random_below(random, HANDLES)];
	int error;

	if (handle->count > 0)
		return;
	error = alloc_reserve(f->alloc, &request, &handle->start, &handle->count);
	model_check_answer(&request, error, handle->start, handle->count);
	if (error == 0)
		memset(&model.reserved[handle->start], 1, handle->count);
}

/* Use some reservation from its front, or let go of it. */
static void step_settle(struct fixture *f, struct random *random)
{
	struct handle *handle = &model.handles[random_below(random, HANDLES)];
	uint64_t part = handle->count > 0 ? 1 + random_below(random, handle->count) : 0;
	bool commit = random_below(random, 4) > 0;

	if (handle->count == 0)
		return;
	if (random_below(random, 3) == 0) {
		alloc_unreserve(f->alloc, handle->start, part);
	} else {
		begin(f);
		expect_equal(alloc_take_exact(f->alloc, f->tx, handle->start, part), 0);
		end(f, commit ? 0 : -1);
		if (!commit)
			return;
		model.sequence++;
		memset(&model.is_free[handle->start], 0, part);
	}
	memset(&model.reserved[handle->start], 0, part);
	handle->start += part;
	handle->count -= part;
}

static bool range_is(const bool *flags, blkno_t start, uint64_t count, bool value)
{
	for (uint64_t i = 0; i < count; i++) {
		if (flags[start + i] != value)
			return false;
	}
	return true;
}

/* Free a few ranges in one transaction, some of them impossible. */
static void step_give(struct fixture *f, struct random *random)
{
	struct handle given[4];
	unsigned count = 0;
	int error = 0;

	begin(f);
	for (unsigned i = 0; i < 4 && error == 0; i++) {
		blkno_t start = random_below(random, BLOCKS);
		uint64_t length = min_u64(1 + random_below(random, 120), BLOCKS - start), used = 0;

		while (used < length && !model.is_free[start + used])
			used++;
		if (used == 0 || random_below(random, 40) > 0)
			length = used;
		if (length == 0)
			continue;
		error = alloc_give(f->alloc, f->tx, start, length);
		expect_equal(error, range_is(model.is_free, start, length, false) ? 0 : -EUCLEAN);
		if (error < 0)
			break;
		given[count++] = (struct handle){start, length};
		memset(&model.is_free[start], 1, length);
	}
	if (error == 0 && random_below(random, 4) == 0)
		error = -1;
	end(f, error);
	model.sequence += error == 0;
	for (unsigned i = 0; i < count; i++) {
		if (error < 0)
			memset(&model.is_free[given[i].start], 0, given[i].count);
		for (uint64_t k = 0; k < given[i].count && error == 0; k++)
			model.busy_until[given[i].start + k] = model.sequence;
	}
}

static void step_exact(struct fixture *f, struct random *random)
{
	blkno_t start = random_below(random, BLOCKS);
	uint64_t count = min_u64(1 + random_below(random, 40), BLOCKS - start);
	bool free_all = range_is(model.is_free, start, count, true);

	if (!range_is(model.reserved, start, count, false))
		return;
	expect_equal(take_exact(f, start, count), free_all ? 0 : -EEXIST);
	if (!free_all)
		return;
	model.sequence++;
	memset(&model.is_free[start], 0, count);
}

/* A remount: what lived in DRAM only is gone, and all that is found is durable. */
static void step_remount(struct fixture *f)
{
	alloc_destroy(f->alloc);
	expect_equal(alloc_create(f->journal, &f->alloc), 0);
	fake_make_durable(f->journal);
	model.durable = model.sequence;
	memset(model.reserved, 0, sizeof(model.reserved));
	memset(model.handles, 0, sizeof(model.handles));
}

/* The device fills and empties in turn. */
static void random_step(struct fixture *f, struct random *random, unsigned step)
{
	uint64_t dice = random_below(random, 1000), gives = step / 3000 % 2 ? 620 : 900;

	if (dice < 200) {
		step_take(f, random);
	} else if (dice < 400) {
		step_reserve(f, random);
	} else if (dice < 600) {
		step_settle(f, random);
	} else if (dice < gives) {
		step_give(f, random);
	} else if (dice < gives + 40) {
		step_exact(f, random);
	} else if (dice < 998) {
		fake_make_durable(f->journal);
		model.durable = model.sequence;
	} else {
		step_remount(f);
	}
}

static int mark_free(void *arg, blkno_t start, uint64_t count)
{
	bool *seen = arg;

	expect(count > 0 && start + count <= BLOCKS && range_is(seen, start, count, false));
	memset(seen + start, 1, count);
	return 0;
}

static void compare_all(struct fixture *f, struct random *random)
{
	bool seen[BLOCKS] = {false};
	blkno_t start = random_below(random, BLOCKS);
	uint64_t count = 1 + random_below(random, BLOCKS - start), records;

	expect_equal(btree_check(alloc_tree(f->alloc), &records), 0);
	expect_equal(alloc_free_blocks(f->alloc), model_count(model.is_free));
	expect_equal(alloc_walk(f->alloc, start, count, mark_free, seen), 0);
	expect(memcmp(seen + start, model.is_free + start, count) == 0);
	expect(range_is(seen, 0, start, false) &&
	       range_is(seen, start + count, BLOCKS - start - count, false));
}

START_TEST(random_requests_agree_with_a_bitmap)
{
	struct random random = random_start("alloc model");
	struct fixture f;

	fixture_open(&f, BLOCKS);
	fake_set_lazy(f.journal, true);
	fake_make_durable(f.journal);
	memset(&model, 0, sizeof(model));
	memset(model.is_free, 1, sizeof(model.is_free));
	for (unsigned step = 0; step < 100000; step++) {
		random_step(&f, &random, step);
		if (step % 50 == 0)
			compare_all(&f, &random);
	}
	compare_all(&f, &random);
	fixture_close(&f);
}
END_TEST

static TCase *make_window_tests(void)
{
	TCase *tests = tcase_create("windows");

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, a_file_that_grows_lies_in_one_run);
	tcase_add_test(tests, files_that_one_thread_appends_to_in_turn_lie_no_worse_than_without_windows);
	tcase_add_test(tests, files_of_two_threads_lie_apart_each_in_one_run);
	tcase_add_test(tests, a_file_that_threads_append_to_in_turn_lies_in_one_run);
	tcase_add_test(tests, within_a_window_a_thread_takes_three_locks_of_its_own);
	tcase_add_test(tests, threads_that_come_near_each_other_go_apart_again);
	tcase_add_loop_test(tests, no_block_is_lost_to_windows, 0, 2);
	tcase_add_test(tests, small_requests_get_every_block_too);
	tcase_add_test(tests, windows_give_way_to_who_may_have_the_reserve);
	tcase_add_test(tests, what_begins_in_anothers_window_goes_on_behind_it);
	tcase_add_test(tests, what_somebody_takes_exactly_leaves_the_window);
	tcase_add_test(tests, a_search_of_what_is_free_finds_what_is_in_windows);
	tcase_add_test(tests, a_reservation_may_be_given_up_or_taken_by_another_thread);
	return tests;
}

int main(void)
{
	Suite *suite = suite_create("alloc");
	TCase *sentences = tcase_create("sentences"), *bitmap = tcase_create("model");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(sentences, the_goal_is_taken_first);
	tcase_add_test(sentences, without_a_goal_a_cursor_rolls);
	tcase_add_test(sentences, aligned_runs_are_found_when_they_exist);
	tcase_add_test(sentences, want_of_too_much_gets_the_longest_run);
	tcase_add_test(sentences, not_before_looks_there_first);
	tcase_add_test(sentences, data_leave_the_reserve_alone);
	tcase_add_test(sentences, freed_space_is_busy_until_durable);
	tcase_add_test(sentences, blocks_that_an_owner_left_are_held_until_durable);
	tcase_add_test(sentences, what_one_transaction_frees_it_may_not_use);
	tcase_add_test(sentences, an_aborted_free_of_busy_space_keeps_it_busy);
	tcase_add_test(sentences, a_reservation_ends_at_commit_and_comes_back_at_abort);
	tcase_add_test(sentences, a_reservation_being_taken_is_not_counted_twice);
	tcase_add_test(sentences, a_reservation_being_taken_is_not_counted_twice);
	tcase_add_test(sentences, give_refuses_what_is_free_or_outside);
	tcase_add_test(sentences, runs_beyond_the_device_are_refused);
	tcase_add_test(sentences, a_run_is_found_or_not_by_few_nodes_though_lengths_are_rounded);
	tcase_add_test(sentences, a_run_that_shrinks_seldom_changes_what_inner_nodes_say);
	tcase_set_timeout(bitmap, 240);
	tcase_add_test(bitmap, random_requests_agree_with_a_bitmap);
	suite_add_tcase(suite, sentences);
	suite_add_tcase(suite, make_window_tests());
	suite_add_tcase(suite, bitmap);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
