/* Transactions beside each other: one in this thread, one in another that does what it is told, step by step. */
#include "tests/support/journalfix.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "format/journal_format.h"
#include "journal/internal.h"
#include "tests/support/random.h"
#include "util/slot.h"

#define TAKEN 12

static struct journalfix fix;

/* --- stores that fail, are kept back, are written down --- */

static bool stores_fail;
static atomic_uint stores_left = UINT32_MAX; /* then power is lost */
static void (*_Atomic interlude)(void); /* runs before the next store */

#define STORES_MAX 4
static struct {
	bool is_on;
	unsigned count;
	struct {
		devoff_t offset;
		size_t length;
		uint8_t bytes[16384];
	} stores[STORES_MAX];
} kept;

static void keep(devoff_t offset, const void *from, size_t length)
{
	ck_assert(kept.count < STORES_MAX && length <= sizeof(kept.stores[0].bytes));
	kept.stores[kept.count].offset = offset;
	kept.stores[kept.count].length = length;
	memcpy(kept.stores[kept.count++].bytes, from, length);
}

int __real_media_write(struct media *media, devoff_t offset, const void *from, size_t length, devoff_t *failed);
int __wrap_media_write(struct media *media, devoff_t offset, const void *from, size_t length, devoff_t *failed);
int __wrap_media_write(struct media *media, devoff_t offset, const void *from, size_t length, devoff_t *failed)
{
	void (*now)(void) = atomic_exchange(&interlude, NULL);

	if (now)
		now();
	if (kept.is_on)
		keep(offset, from, length);
	if (atomic_load(&stores_left) != UINT32_MAX && atomic_fetch_sub(&stores_left, 1) == 0)
		stores_left = 0;
	if (!atomic_load(&stores_left))
		return 0;
	return stores_fail ? -ENOSPC : __real_media_write(media, offset, from, length, failed);
}

/* --- the other thread --- */

struct side {
	struct tx *tx;
	maddr_t read, write; /* 0: none */
	uint64_t value;
	int error; /* of the last step */
};

static struct {
	pthread_t thread;
	sem_t begin, done;
	void (*step)(struct side *side);
	struct side *side;
} other;

static void *other_main(void *arg)
{
	for (;;) {
		sem_wait(&other.begin);
		if (!other.step)
			return NULL;
		other.step(other.side);
		sem_post(&other.done);
	}
}

static void there(void (*step)(struct side *), struct side *side)
{
	other.step = step;
	other.side = side;
	sem_post(&other.begin);
	if (step)
		sem_wait(&other.done);
}

/* Threads of different slots look for free blocks in different words of a map: with these between, the two of a test look in the same one of its four. */
#define IDLE 3
static pthread_t idle[IDLE];
static sem_t idle_has_slot, idle_end;

static void *idle_main(void *arg)
{
	slot_mine();
	sem_post(&idle_has_slot);
	sem_wait(&idle_end);
	return NULL;
}

static void idle_begin(void)
{
	sem_init(&idle_has_slot, 0, 0);
	sem_init(&idle_end, 0, 0);
	slot_mine();
	for (unsigned i = 0; i < IDLE; i++) {
		ck_assert_int_eq(pthread_create(&idle[i], NULL, idle_main, NULL), 0);
		sem_wait(&idle_has_slot);
	}
}

static void setup(void)
{
	idle_begin();
	fix_create_open(&fix, 2);
	stores_fail = kept.is_on = false;
	stores_left = UINT32_MAX;
	kept.count = 0;
	interlude = NULL;
	sem_init(&other.begin, 0, 0);
	sem_init(&other.done, 0, 0);
	ck_assert_int_eq(pthread_create(&other.thread, NULL, other_main, NULL), 0);
}

static void teardown(void)
{
	there(NULL, NULL);
	pthread_join(other.thread, NULL);
	for (unsigned i = 0; i < IDLE; i++)
		sem_post(&idle_end);
	for (unsigned i = 0; i < IDLE; i++)
		pthread_join(idle[i], NULL);
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

/* --- steps --- */

static void step_begin(struct side *side)
{
	side->error = tx_begin_beside(fix.journal, TX_NORMAL, &side->tx);
}

static int get(struct side *side, maddr_t address, struct buf **out)
{
	return buf_get(tx_journal(side->tx), address, FORMAT_ROLE_NODE, FORMAT_TREE_INODES, out);
}

static void step_read(struct side *side)
{
	struct buf *buf;

	side->error = get(side, side->read, &buf);
	if (side->error)
		return;
	side->value = ((uint64_t *)(buf->data + 64))[5];
	buf_rely(buf);
	buf_put(buf);
}

static void step_write(struct side *side)
{
	struct buf *buf;

	side->error = get(side, side->write, &buf);
	if (side->error)
		return;
	side->error = tx_join(side->tx, buf);
	if (!side->error)
		((uint64_t *)(buf->data + 64))[5] = side->value;
	buf_put(buf);
}

static void step_create(struct side *side)
{
	struct buf *buf;

	side->error = buf_create(side->tx, FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf);
	if (side->error)
		return;
	fix_fill(buf, side->value);
	side->write = buf->address;
	buf_put(buf);
}

static void step_count(struct side *side)
{
	side->error = root_add(side->tx, ROOT_INODES, (int64_t)side->value);
}

static void step_commit(struct side *side)
{
	side->error = tx_commit(side->tx, NULL);
}

static void step_abort(struct side *side)
{
	tx_abort(side->tx);
	side->error = 0;
}

static uint64_t inodes(void)
{
	uint64_t value;

	journal_read_begin(fix.journal);
	value = root_get(fix.journal, ROOT_INODES);
	journal_read_end(fix.journal);
	return value;
}

static void step_look(struct side *side)
{
	side->value = inodes();
}

static void here(void (*step)(struct side *), struct side *side)
{
	step(side);
}

#define must(where, step, side)                                                                                                  \
	do {                                                                                                                     \
		where(step_##step, side);                                                                                        \
		ck_assert_int_eq((side)->error, 0);                                                                              \
	} while (0)

/* What a crash leaves, replayed. */
static void crash(void)
{
	fix_crash(&fix);
	ck_assert_msg(!fix_open(&fix), "%s", fix.why.text);
	ck_assert(!journal_recovery(fix.journal)->hole);
}

/* --- tests --- */

START_TEST(two_that_change_different_blocks_both_commit_in_any_order)
{
	struct side left = {.write = fix_new_block(&fix, 1), .value = 11}, right = {.write = fix_new_block(&fix, 2), .value = 22}, seen = {0};

	must(here, begin, &left);
	must(there, begin, &right);
	must(here, write, &left);
	must(there, write, &right);
	must(here, count, &left);
	must(there, count, &right);
	must(there, commit, &right);
	there(step_look, &seen);
	ck_assert_uint_eq(seen.value, 22);
	must(here, commit, &left);
	ck_assert_uint_eq(inodes(), 33);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_uint_eq(fix_word(&fix, left.write, 5), 11);
		ck_assert_uint_eq(fix_word(&fix, left.write, 6), 1);
		ck_assert_uint_eq(fix_word(&fix, right.write, 5), 22);
		ck_assert_uint_eq(inodes(), 33);
		crash();
	}
}
END_TEST

START_TEST(a_block_that_another_has_is_refused_until_it_is_done)
{
	struct side left = {.write = fix_new_block(&fix, 1), .value = 11}, right = {.write = left.write, .value = 22};

	must(here, begin, &left);
	must(here, write, &left);
	must(there, begin, &right);
	there(step_write, &right);
	ck_assert_int_eq(right.error, -EDEADLK);
	must(there, abort, &right);
	must(here, commit, &left);
	must(there, begin, &right);
	must(there, write, &right);
	must(there, commit, &right);
	ck_assert_uint_eq(fix_word(&fix, left.write, 5), 22);
}
END_TEST

START_TEST(what_was_relied_on_and_has_changed_refuses_the_commit)
{
	struct side left = {.read = fix_new_block(&fix, 1), .write = fix_new_block(&fix, 2), .value = 11};
	struct side right = {.write = left.read, .value = 22};

	must(here, begin, &left);
	must(here, read, &left);
	must(here, write, &left);
	must(there, begin, &right);
	must(there, write, &right);
	must(there, commit, &right);
	here(step_commit, &left);
	ck_assert_int_eq(left.error, -EDEADLK);
	ck_assert_uint_eq(fix_word(&fix, left.write, 5), 2);
	ck_assert_uint_eq(fix_word(&fix, left.read, 5), 22);
}
END_TEST

START_TEST(what_is_joined_after_another_has_changed_it_is_refused)
{
	struct side left = {.read = fix_new_block(&fix, 1), .value = 11}, right = {.write = left.read, .value = 22};

	left.write = left.read;
	must(here, begin, &left);
	must(here, read, &left);
	must(there, begin, &right);
	must(there, write, &right);
	must(there, commit, &right);
	here(step_write, &left);
	ck_assert_int_eq(left.error, -EDEADLK);
	must(here, abort, &left);
	ck_assert_uint_eq(fix_word(&fix, left.read, 5), 22);
}
END_TEST

/* Either alone would be right; both at once would come of no order of the two. */
START_TEST(of_two_that_read_what_the_other_changes_not_both_commit)
{
	struct side left = {.read = fix_new_block(&fix, 1), .write = fix_new_block(&fix, 2)}, right = {.read = left.write, .write = left.read};

	must(here, begin, &left);
	must(there, begin, &right);
	must(here, read, &left);
	must(there, read, &right);
	must(here, write, &left);
	must(there, write, &right);
	here(step_commit, &left);
	ck_assert_int_eq(left.error, -EDEADLK);
	must(there, commit, &right);
	ck_assert_uint_eq(fix_word(&fix, right.write, 5), 2);
	ck_assert_uint_eq(fix_word(&fix, right.read, 5), 2);
}
END_TEST

START_TEST(an_abort_shows_nothing_and_gives_everything_back)
{
	struct side left = {.write = fix_new_block(&fix, 1), .value = 11}, right = {.write = left.write, .value = 22}, fresh = {0};
	uint64_t free_blocks = root_get(fix.journal, ROOT_META_FREE);

	must(here, begin, &left);
	must(here, write, &left);
	must(here, count, &left);
	fresh.tx = left.tx;
	must(here, create, &fresh);
	must(here, abort, &left);
	ck_assert_uint_eq(fix_word(&fix, left.write, 5), 1);
	ck_assert_uint_eq(inodes(), 0);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_META_FREE), free_blocks);
	ck_assert(!chunk_block_is_live(fix.journal, fresh.write));
	must(there, begin, &right);
	must(there, write, &right);
	must(there, commit, &right);
	ck_assert_uint_eq(fix_word(&fix, left.write, 5), 22);
}
END_TEST

START_TEST(blocks_that_are_taken_side_by_side_differ_and_outlive_a_crash)
{
	struct side side[2] = {{.value = 0}, {.value = 0}};
	maddr_t taken[2][TAKEN];
	uint64_t free_blocks;

	fix_new_block(&fix, 1); /* the table is in memory */
	free_blocks = root_get(fix.journal, ROOT_META_FREE);
	for (unsigned i = 0; i < TAKEN; i++) {
		must(here, begin, &side[0]);
		must(there, begin, &side[1]);
		for (unsigned k = 0; k < 2; k++)
			side[k].value = 100 * i + k;
		must(here, create, &side[0]);
		must(there, create, &side[1]);
		ck_assert_uint_ne(side[0].write, side[1].write);
		if (i % 2) {
			must(here, commit, &side[0]);
			must(there, commit, &side[1]);
		} else {
			must(there, commit, &side[1]);
			must(here, commit, &side[0]);
		}
		for (unsigned k = 0; k < 2; k++)
			taken[k][i] = side[k].write;
	}
	for (unsigned round = 0; round < 2; round++, crash()) {
		struct chunk_entry entry; /* verifies that its count and its map agree */

		journal_read_begin(fix.journal);
		ck_assert_int_eq(chunk_entry(fix.journal, 0, &entry), 0);
		ck_assert_uint_eq(root_get(fix.journal, ROOT_META_FREE), free_blocks - 2 * TAKEN);
		ck_assert_uint_eq(entry.free_blocks, free_blocks - 2 * TAKEN);
		journal_read_end(fix.journal);
		for (unsigned i = 0; i < TAKEN; i++)
			for (unsigned k = 0; k < 2; k++)
				ck_assert_uint_eq(fix_word(&fix, taken[k][i], 9), 100 * i + k);
	}
}
END_TEST

START_TEST(a_record_that_is_refused_takes_nothing_else_with_it)
{
	struct side left = {.write = fix_new_block(&fix, 1), .value = 11}, right = {.write = fix_new_block(&fix, 2), .value = 22}, fresh = {0};
	uint64_t free_blocks = root_get(fix.journal, ROOT_META_FREE);

	must(here, begin, &left);
	must(there, begin, &right);
	must(here, write, &left);
	must(here, count, &left);
	fresh.tx = left.tx;
	must(here, create, &fresh);
	must(there, write, &right);
	must(there, count, &right);
	stores_fail = true;
	here(step_commit, &left);
	stores_fail = false;
	ck_assert_int_eq(left.error, -ENOSPC);
	must(there, commit, &right);
	for (unsigned round = 0; round < 2; round++, crash()) {
		ck_assert_uint_eq(fix_word(&fix, left.write, 5), 1);
		ck_assert_uint_eq(fix_word(&fix, right.write, 5), 22);
		ck_assert_uint_eq(inodes(), 22);
		ck_assert_uint_eq(root_get(fix.journal, ROOT_META_FREE), free_blocks);
	}
}
END_TEST

static void step_destroy(struct side *side)
{
	struct buf *buf;

	side->error = get(side, side->write, &buf);
	if (!side->error)
		side->error = buf_destroy(side->tx, buf);
}

static void expect_free(uint64_t free_blocks)
{
	struct chunk_entry entry; /* verifies that its count and its map agree */

	journal_read_begin(fix.journal);
	ck_assert_int_eq(chunk_entry(fix.journal, 0, &entry), 0);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_META_FREE), free_blocks);
	ck_assert_uint_eq(entry.free_blocks, free_blocks);
	journal_read_end(fix.journal);
}

static void step_expect_free(struct side *side)
{
	expect_free(side->value);
}

/* Each gives back two and takes one, of the same words of the map. */
START_TEST(blocks_that_are_given_back_side_by_side_are_free_and_stay_so)
{
	struct side side[2][3] = {{{0}}}, seen;
	uint64_t free_blocks;

	for (unsigned k = 0; k < 2; k++)
		for (unsigned i = 0; i < 2; i++)
			side[k][i].write = fix_new_block(&fix, 10 * k + i);
	free_blocks = root_get(fix.journal, ROOT_META_FREE);
	must(here, begin, &side[0][0]);
	must(there, begin, &side[1][0]);
	for (unsigned k = 0; k < 2; k++)
		side[k][1].tx = side[k][2].tx = side[k][0].tx;
	for (unsigned i = 0; i < 2; i++) {
		must(here, destroy, &side[0][i]);
		must(there, destroy, &side[1][i]);
	}
	side[0][2].value = side[1][2].value = 99;
	must(here, create, &side[0][2]);
	must(there, create, &side[1][2]);
	must(there, commit, &side[1][0]);
	seen.value = free_blocks + 1;
	there(step_expect_free, &seen);
	must(here, commit, &side[0][0]);
	for (unsigned round = 0; round < 2; round++, crash()) {
		expect_free(free_blocks + 2);
		for (unsigned k = 0; k < 2; k++)
			for (unsigned i = 0; i < 3; i++)
				ck_assert_int_eq(chunk_block_is_live(fix.journal, side[k][i].write), i == 2);
		ck_assert_uint_eq(fix_word(&fix, side[0][2].write, 9), 99);
		ck_assert_uint_eq(fix_word(&fix, side[1][2].write, 9), 99);
	}
}
END_TEST

START_TEST(a_block_that_is_given_back_is_nobody_elses_until_that_shows)
{
	struct side left = {.write = fix_new_block(&fix, 1)}, right = {.read = left.write, .write = left.write, .value = 22};
	struct side reader = {.read = left.write, .write = fix_new_block(&fix, 2), .value = 22};
	uint64_t free_blocks = root_get(fix.journal, ROOT_META_FREE);

	must(here, begin, &left);
	must(here, destroy, &left);
	must(there, begin, &right);
	there(step_write, &right);
	ck_assert_int_eq(right.error, -EDEADLK);
	must(there, abort, &right);
	must(there, begin, &reader);
	must(there, read, &reader);
	must(there, write, &reader);
	there(step_commit, &reader); /* it relied on a block that is somebody's */
	ck_assert_int_eq(reader.error, -EDEADLK);
	must(there, begin, &reader);
	must(there, read, &reader);
	must(there, write, &reader);
	must(here, commit, &left);
	there(step_commit, &reader);
	ck_assert_int_eq(reader.error, -EDEADLK);
	must(there, begin, &right);
	there(step_read, &right);
	ck_assert_int_eq(right.error, -EAGAIN); /* it is no more */
	must(there, abort, &right);
	for (unsigned round = 0; round < 2; round++, crash())
		expect_free(free_blocks + 1);
}
END_TEST

START_TEST(an_abort_gives_nothing_back)
{
	struct side left = {.write = fix_new_block(&fix, 1)}, right = {.write = left.write, .value = 22};
	uint64_t free_blocks = root_get(fix.journal, ROOT_META_FREE);

	must(here, begin, &left);
	must(here, destroy, &left);
	must(here, abort, &left);
	expect_free(free_blocks);
	must(there, begin, &right);
	must(there, write, &right);
	must(there, commit, &right);
	for (unsigned round = 0; round < 2; round++, crash()) {
		expect_free(free_blocks);
		ck_assert_uint_eq(fix_word(&fix, left.write, 5), 22);
	}
}
END_TEST

/* What it was is not found again when the block is used anew, also not by the journal. */
START_TEST(a_block_that_was_given_back_is_used_again)
{
	struct side left = {.write = fix_new_block(&fix, 1), .value = 11}, fresh = {.value = 33};
	maddr_t first = left.write;
	bool again = false;

	must(here, begin, &left);
	must(here, write, &left);
	must(here, commit, &left);
	must(here, begin, &left);
	must(here, destroy, &left);
	must(here, commit, &left);
	for (unsigned i = 0; i < 1000 && !again; i++) {
		must(here, begin, &fresh);
		must(here, create, &fresh);
		must(here, commit, &fresh);
		again = fresh.write == first;
	}
	ck_assert(again);
	for (unsigned round = 0; round < 2; round++, crash())
		for (unsigned word = 5; word < 10; word++)
			ck_assert_uint_eq(fix_word(&fix, first, word), 33);
}
END_TEST

/* A check compares what it counted while nothing changed, and lets others in between. */
START_TEST(what_changes_is_counted_when_it_can_be_seen)
{
	struct side theirs = {.write = fix_new_block(&fix, 1), .value = 11};
	uint64_t before;

	must(there, begin, &theirs);
	must(there, write, &theirs);
	journal_read_begin(fix.journal);
	before = journal_changes(fix.journal);
	other.step = step_commit;
	other.side = &theirs;
	sem_post(&other.begin);
	usleep(20000);
	ck_assert_uint_le(journal_changes(fix.journal), before + 1); /* it is in the log */
	journal_read_end(fix.journal);
	sem_wait(&other.done);
	ck_assert_int_eq(theirs.error, 0);
	ck_assert_uint_eq(journal_changes(fix.journal), before + 2);
}
END_TEST

static atomic_bool alone;

static void step_alone(struct side *side)
{
	struct tx *tx = fix_begin(&fix);

	alone = true;
	fix_set_word(tx, side->write, 5, side->value);
	side->error = tx_commit(tx, NULL);
}

START_TEST(one_that_runs_alone_waits_for_those_beside_each_other)
{
	struct side left = {.write = fix_new_block(&fix, 1), .value = 11}, right = {.write = left.write, .value = 22};

	must(here, begin, &left);
	must(here, write, &left);
	alone = false;
	other.step = step_alone;
	other.side = &right;
	sem_post(&other.begin);
	usleep(20000);
	ck_assert(!alone);
	must(here, commit, &left);
	sem_wait(&other.done);
	ck_assert_int_eq(right.error, 0);
	ck_assert_uint_eq(fix_word(&fix, left.write, 5), 22);
}
END_TEST

START_TEST(what_only_one_at_a_time_may_do_is_refused)
{
	struct side left = {.write = fix_new_block(&fix, 1)};
	struct buf *buf;

	must(here, begin, &left);
	ck_assert_int_eq(root_set(left.tx, ROOT_NEXT_INO, 5), -EAGAIN);
	ck_assert_int_eq(root_tree_set(left.tx, FORMAT_TREE_INODES, left.write, 0), -EAGAIN);
	must(here, create, &left);
	ck_assert_int_eq(get(&left, left.write, &buf), 0);
	ck_assert_int_eq(buf_destroy(left.tx, buf), -EAGAIN);
	must(here, abort, &left);
	journal_shutdown(fix.journal);
	here(step_begin, &left);
	ck_assert_int_eq(left.error, -EAGAIN);
}
END_TEST

/* --- on persistent memory: records that are stored at the same time --- */

static struct side left, right, fresh_left, fresh_right;
static uint64_t free_before;

/* Each changes a block, takes one and counts; nothing of it is stored yet. */
static void prepare_both(void)
{
	left = (struct side){.write = fix_new_block(&fix, 1), .value = 11};
	right = (struct side){.write = fix_new_block(&fix, 2), .value = 22};
	free_before = root_get(fix.journal, ROOT_META_FREE);
	must(here, begin, &left);
	must(there, begin, &right);
	must(here, write, &left);
	must(there, write, &right);
	must(here, count, &left);
	must(there, count, &right);
	fresh_left = (struct side){.tx = left.tx};
	fresh_right = (struct side){.tx = right.tx};
	must(here, create, &fresh_left);
	must(there, create, &fresh_right);
}

static void commit_right(void)
{
	must(there, commit, &right);
}

/* Left has its number and place, right comes after it, and is done before anything of left is stored. */
static void commit_right_within_left(void)
{
	interlude = commit_right;
	must(here, commit, &left);
	ck_assert(!interlude);
}

static void expect_state(bool has_left, bool has_right)
{
	struct chunk_entry entry;

	ck_assert(!journal_recovery(fix.journal)->hole);
	ck_assert_uint_eq(fix_word(&fix, left.write, 5), has_left ? 11 : 1);
	ck_assert_uint_eq(fix_word(&fix, right.write, 5), has_right ? 22 : 2);
	ck_assert_uint_eq(inodes(), 11u * has_left + 22u * has_right);
	journal_read_begin(fix.journal);
	ck_assert_int_eq(chunk_entry(fix.journal, 0, &entry), 0); /* verifies that its count and its map agree */
	ck_assert_uint_eq(entry.free_blocks, free_before - has_left - has_right);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_META_FREE), free_before - has_left - has_right);
	journal_read_end(fix.journal);
	ck_assert_int_eq(chunk_block_is_live(fix.journal, fresh_left.write), has_left);
	ck_assert_int_eq(chunk_block_is_live(fix.journal, fresh_right.write), has_right);
}

START_TEST(records_are_stored_at_the_same_time_and_both_count)
{
	prepare_both();
	commit_right_within_left();
	for (unsigned round = 0; round < 2; round++, crash())
		expect_state(true, true);
}
END_TEST

/* --- every way in which power may be lost while both are stored --- */

static char before_path[300];

/* Right's two copies come first, as it ends first. */
static void keep_both(void)
{
	prepare_both();
	snprintf(before_path, sizeof(before_path), "%s.before", fix.path);
	fix_copy_file(fix.path, before_path);
	kept.is_on = true;
	commit_right_within_left();
	kept.is_on = false;
	ck_assert_uint_eq(kept.count, 4);
	fix_close(&fix);
}

/* The words of one store that have arrived: bit i of word i / 64. */
struct arrived {
	uint64_t words[16384 / 8 / 64];
};

static void arrive_prefix(struct arrived *arrived, size_t words)
{
	memset(arrived, 0, sizeof(*arrived));
	for (size_t i = 0; i < words; i++)
		arrived->words[i / 64] |= 1ull << i % 64;
}

/* Is the copy whole then? Words that are as they were are there without having arrived. */
static bool put_store(unsigned store, const struct arrived *arrived)
{
	size_t length = kept.stores[store].length;
	uint8_t bytes[sizeof(kept.stores[0].bytes)];

	fix_read_file(&fix, kept.stores[store].offset, bytes, length);
	for (size_t i = 0; i < length / 8; i++)
		if (arrived->words[i / 64] >> i % 64 & 1)
			memcpy(bytes + 8 * i, kept.stores[store].bytes + 8 * i, 8);
	fix_write_file(&fix, kept.stores[store].offset, bytes, length);
	return !memcmp(bytes, kept.stores[store].bytes, length);
}

static void lose_power(const struct arrived arrived[4])
{
	static unsigned images;
	bool has_right, has_left;

	fix_copy_file(before_path, fix.path);
	has_right = put_store(0, &arrived[0]);
	has_right |= put_store(1, &arrived[1]);
	has_left = put_store(2, &arrived[2]);
	has_left |= put_store(3, &arrived[3]);
	fix.options.readonly = true;
	ck_assert_msg(!fix_open(&fix), "%s", fix.why.text);
	expect_state(has_left, has_right);
	fix_close(&fix);
	fix.options.readonly = false;
	ck_assert_msg(!fix_open(&fix), "%s", fix.why.text);
	expect_state(has_left, has_right);
	if (++images % 8 == 0) { /* it goes on */
		fix_change(&fix, left.write, 7, 77);
		crash();
		expect_state(has_left, has_right);
		ck_assert_uint_eq(fix_word(&fix, left.write, 7), 77);
	}
	fix_close(&fix);
}

static void end_losing(void)
{
	unlink(before_path);
	ck_assert_msg(!fix_open(&fix), "%s", fix.why.text);
}

static size_t words_of(unsigned store)
{
	return kept.stores[store].length / 8;
}

/* One is whole, of the other any prefix of either copy has arrived. */
START_TEST(power_lost_while_one_of_two_is_stored_takes_that_one_alone)
{
	struct arrived arrived[4];
	unsigned whole = 2 * (unsigned)_i, torn = 2 - whole;

	keep_both();
	for (size_t words = 0; words <= words_of(torn); words++)
		for (unsigned kind = 0; kind < 3; kind++) {
			arrive_prefix(&arrived[whole], words_of(whole));
			arrive_prefix(&arrived[whole + 1], kind == 1 ? 0 : words_of(whole));
			arrive_prefix(&arrived[torn], kind == 2 ? 0 : words);
			arrive_prefix(&arrived[torn + 1], kind == 0 ? 0 : words);
			lose_power(arrived);
		}
	end_losing();
}
END_TEST

/* Any words of either copy of both. */
START_TEST(power_lost_while_both_are_stored_leaves_each_whole_or_not_there)
{
	struct random random = {.state = 20 + (uint64_t)_i};
	struct arrived arrived[4];

	keep_both();
	for (unsigned round = 0; round < 200; round++) {
		for (unsigned store = 0; store < 4; store++) {
			arrive_prefix(&arrived[store], random_below(&random, 4) ? words_of(store) : 0);
			for (unsigned spare = (unsigned)random_below(&random, 4); spare--;) {
				size_t word = (size_t)random_below(&random, words_of(store));

				arrived[store].words[word / 64] ^= 1ull << word % 64;
			}
		}
		lose_power(arrived);
	}
	end_losing();
}
END_TEST

/* What the records add is added once, also when power is lost again at any store of the write-back that follows. */
START_TEST(what_is_added_up_is_added_once)
{
	struct arrived arrived;
	bool ended = false;

	keep_both();
	for (unsigned stores = 1; !ended; stores++) {
		fix_copy_file(before_path, fix.path);
		arrive_prefix(&arrived, words_of(0));
		put_store(0, &arrived);
		put_store(1, &arrived);
		stores_left = stores;
		ck_assert_msg(!fix_open(&fix), "%s", fix.why.text);
		ended = atomic_load(&stores_left);
		stores_left = UINT32_MAX;
		crash();
		expect_state(false, true);
		fix_close(&fix);
	}
	end_losing();
}
END_TEST

static void step_fill(struct side *side)
{
	struct buf *buf;

	side->error = get(side, side->write, &buf);
	if (!side->error)
		side->error = tx_join(side->tx, buf);
	if (!side->error)
		fix_fill(buf, side->value);
}

static void commit_right_then_lose_power(void)
{
	commit_right();
	stores_left = 0;
}

static bool ring_has_jump(void)
{
	static uint8_t ring[FIX_LOG_BYTES - BLOCK_BYTES];

	fix_read_file(&fix, fix_ring(&fix, 0), ring, sizeof(ring));
	for (size_t at = 0; at < sizeof(ring); at += LINE_BYTES) {
		const struct format_record_header *header = (const struct format_record_header *)(ring + at);

		if (le32_get(header->magic) == FORMAT_RECORD_MAGIC && le16_get(header->type) == FORMAT_RECORD_JUMP)
			return true;
	}
	return false;
}

/* Three times around the ring: also where one of the two jumps from its end to its start. In every third round power is lost before left is stored. */
START_TEST(wherever_in_the_ring_power_is_lost_the_one_under_way_is_lost_alone)
{
	const unsigned rounds = 3 * FIX_LOG_BYTES / BLOCK_BYTES / 2;
	uint64_t left_value = 1, lost;

	left.write = fix_new_block(&fix, 1);
	right.write = fix_new_block(&fix, 2);
	for (unsigned round = 0; round < rounds; round++) {
		lost = round % 3 == 0;
		left.value = 1000 + round;
		right.value = 2000 + round;
		must(here, begin, &left);
		must(there, begin, &right);
		must(here, fill, &left);
		must(there, fill, &right);
		interlude = lost ? commit_right_then_lose_power : commit_right;
		must(here, commit, &left);
		left_value = lost ? left_value : left.value;
		fix_crash(&fix);
		stores_left = UINT32_MAX;
		ck_assert_msg(!fix_open(&fix), "%s", fix.why.text);
		ck_assert(!journal_recovery(fix.journal)->hole);
		ck_assert_uint_eq(fix_word(&fix, left.write, 400), left_value);
		ck_assert_uint_eq(fix_word(&fix, right.write, 400), right.value);
	}
	ck_assert(ring_has_jump());
}
END_TEST

/* --- numbers and places --- */

#define CLAIMERS 4u
#define CLAIMS 2000u
#define CLAIM_LINES_MAX 2u

static struct log_claim claims[CLAIMERS][CLAIMS];
static atomic_uint claims_failed;
static pthread_barrier_t claimers_are_there;

static size_t claim_bytes(unsigned number)
{
	return (1 + number % CLAIM_LINES_MAX) * LINE_BYTES;
}

/* Each of a length that its index tells. */
static void *claimer_main(void *arg)
{
	struct log_claim *mine = arg;
	struct log_ring *ring = &fix.journal->log;
	uint8_t record[CLAIM_LINES_MAX * LINE_BYTES] __attribute__((aligned(64))) = {0};

	pthread_barrier_wait(&claimers_are_there);
	for (unsigned i = 0; i < CLAIMS; i++) {
		int error;

		while ((error = log_claim(ring, claim_bytes(i), &mine[i])) == -EAGAIN)
			sched_yield(); /* those before are not done */
		if (error || log_store_claimed(ring, record, claim_bytes(i), 0, &mine[i]))
			claims_failed++;
	}
	return NULL;
}

struct claimed {
	uint64_t sequence, offset, bytes;
};

static int claimed_compare(const void *a, const void *b)
{
	const struct claimed *first = a, *second = b;

	return first->sequence < second->sequence ? -1 : first->sequence > second->sequence;
}

static void expect_each_its_own(struct log_place first)
{
	static struct claimed all[CLAIMERS * CLAIMS];
	struct log_place end = log_next(&fix.journal->log);

	for (unsigned k = 0; k < CLAIMERS; k++)
		for (unsigned i = 0; i < CLAIMS; i++) {
			all[k * CLAIMS + i] = (struct claimed){claims[k][i].sequence, claims[k][i].offset, claim_bytes(i)};
			ck_assert(!claims[k][i].jumps);
			ck_assert_uint_lt(claims[k][i].durable, claims[k][i].sequence);
			ck_assert_uint_le(claims[k][i].sequence - claims[k][i].durable, LOG_CLAIMS_MAX);
			/* One's own are done before one asks for the next. */
			if (i)
				ck_assert_uint_ge(claims[k][i].durable, claims[k][i - 1].sequence);
		}
	qsort(all, CLAIMERS * CLAIMS, sizeof(all[0]), claimed_compare);
	for (unsigned i = 0; i < CLAIMERS * CLAIMS; i++) {
		ck_assert_uint_eq(all[i].sequence, first.sequence + i);
		ck_assert_uint_eq(all[i].offset, first.offset);
		first.offset += all[i].bytes;
	}
	ck_assert_uint_eq(end.sequence, first.sequence + CLAIMERS * CLAIMS);
	ck_assert_uint_eq(end.offset, first.offset);
}

/* Also where the bits of the number that a place has room for are used up. */
START_TEST(numbers_and_places_that_many_take_at_once_are_each_ones_own)
{
	static const uint64_t starts[] = {64, (1ull << (64 - LOG_LINE_BITS)) - CLAIMS, (5ull << (64 - LOG_LINE_BITS)) - CLAIMS};
	struct log_place first = log_next(&fix.journal->log);
	pthread_t thread[CLAIMERS];

	first.sequence += starts[_i];
	first.offset = 0;
	fix.journal->log.tail_offset = fix.journal->log.ring_bytes - LINE_BYTES;
	pthread_barrier_init(&claimers_are_there, NULL, CLAIMERS);
	log_set_next(&fix.journal->log, first.sequence, first.offset);
	ck_assert_uint_eq(log_next_sequence(&fix.journal->log), first.sequence);
	for (unsigned k = 0; k < CLAIMERS; k++)
		ck_assert_int_eq(pthread_create(&thread[k], NULL, claimer_main, claims[k]), 0);
	for (unsigned k = 0; k < CLAIMERS; k++)
		pthread_join(thread[k], NULL);
	ck_assert_uint_eq(claims_failed, 0);
	expect_each_its_own(first);
}
END_TEST

/* --- what a record says was durable --- */

static struct side third;

static void commit_third_too_early(void)
{
	commit_right();
	third = (struct side){.write = right.write, .value = 33};
	must(there, begin, &third);
	must(there, write, &third);
	there(step_commit, &third);
	ck_assert_int_eq(third.error, -EAGAIN); /* it could not say that right's record must be there without saying so of left's */
}

START_TEST(nothing_is_built_on_a_record_before_which_one_is_not_durable)
{
	prepare_both();
	interlude = commit_third_too_early;
	must(here, commit, &left);
	must(there, begin, &third);
	must(there, write, &third);
	must(there, commit, &third);
	for (unsigned round = 0; round < 2; round++, crash())
		ck_assert_uint_eq(fix_word(&fix, right.write, 5), 33);
}
END_TEST

static void commit_right_then_fail(void)
{
	commit_right();
	stores_fail = true;
}

START_TEST(a_record_that_cannot_be_stored_is_left_out_and_the_tail_moves)
{
	struct tx *tx;

	prepare_both();
	interlude = commit_right_then_fail;
	here(step_commit, &left);
	stores_fail = false;
	ck_assert_int_eq(left.error, -EAGAIN);
	crash();
	expect_state(false, true);

	must(here, begin, &left);
	must(there, begin, &right);
	left.value = right.value = 44;
	must(here, write, &left);
	must(there, write, &right);
	stores_fail = true;
	here(step_commit, &left);
	stores_fail = false;
	ck_assert_int_eq(left.error, -EAGAIN);
	there(step_commit, &right);
	ck_assert_int_eq(right.error, -EAGAIN); /* who runs alone moves the tail first */
	tx = fix_begin(&fix);
	fix_set_word(tx, left.write, 5, 55);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	must(there, begin, &right);
	must(there, write, &right);
	must(there, commit, &right);
	for (unsigned round = 0; round < 2; round++, crash()) {
		ck_assert_uint_eq(fix_word(&fix, left.write, 5), 55);
		ck_assert_uint_eq(fix_word(&fix, right.write, 5), 44);
	}
}
END_TEST

START_TEST(a_filesystem_of_version_2_gets_no_such_records)
{
	struct side side = {0};

	fix_close(&fix);
	fix.super.version = FORMAT_VERSION_BESIDE - 1;
	ck_assert_msg(!fix_open(&fix), "%s", fix.why.text);
	here(step_begin, &side);
	ck_assert_int_eq(side.error, -EAGAIN);
}
END_TEST

static void add_giving_tests(TCase *tests)
{
	tcase_add_test(tests, blocks_that_are_given_back_side_by_side_are_free_and_stay_so);
	tcase_add_test(tests, a_block_that_is_given_back_is_nobody_elses_until_that_shows);
	tcase_add_test(tests, an_abort_gives_nothing_back);
	tcase_add_test(tests, a_block_that_was_given_back_is_used_again);
}

static TCase *make_persistent_tests(void)
{
	TCase *tests = tcase_create("persistent");

	tcase_add_checked_fixture(tests, setup_persistent, teardown_persistent);
	tcase_set_timeout(tests, 300);
	tcase_add_test(tests, two_that_change_different_blocks_both_commit_in_any_order);
	tcase_add_test(tests, of_two_that_read_what_the_other_changes_not_both_commit);
	tcase_add_test(tests, an_abort_shows_nothing_and_gives_everything_back);
	tcase_add_test(tests, blocks_that_are_taken_side_by_side_differ_and_outlive_a_crash);
	add_giving_tests(tests);
	tcase_add_test(tests, what_changes_is_counted_when_it_can_be_seen);
	tcase_add_test(tests, one_that_runs_alone_waits_for_those_beside_each_other);
	tcase_add_test(tests, records_are_stored_at_the_same_time_and_both_count);
	tcase_add_loop_test(tests, power_lost_while_one_of_two_is_stored_takes_that_one_alone, 0, 2);
	tcase_add_loop_test(tests, power_lost_while_both_are_stored_leaves_each_whole_or_not_there, 0, 2);
	tcase_add_test(tests, wherever_in_the_ring_power_is_lost_the_one_under_way_is_lost_alone);
	tcase_add_test(tests, what_is_added_up_is_added_once);
	tcase_add_loop_test(tests, numbers_and_places_that_many_take_at_once_are_each_ones_own, 0, 3);
	tcase_add_test(tests, nothing_is_built_on_a_record_before_which_one_is_not_durable);
	tcase_add_test(tests, a_record_that_cannot_be_stored_is_left_out_and_the_tail_moves);
	tcase_add_test(tests, a_filesystem_of_version_2_gets_no_such_records);
	return tests;
}

int main(void)
{
	Suite *suite = suite_create("beside");
	TCase *tests = tcase_create("beside");

	suite_add_tcase(suite, make_persistent_tests());
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, two_that_change_different_blocks_both_commit_in_any_order);
	tcase_add_test(tests, a_block_that_another_has_is_refused_until_it_is_done);
	tcase_add_test(tests, what_was_relied_on_and_has_changed_refuses_the_commit);
	tcase_add_test(tests, what_is_joined_after_another_has_changed_it_is_refused);
	tcase_add_test(tests, of_two_that_read_what_the_other_changes_not_both_commit);
	tcase_add_test(tests, an_abort_shows_nothing_and_gives_everything_back);
	tcase_add_test(tests, blocks_that_are_taken_side_by_side_differ_and_outlive_a_crash);
	add_giving_tests(tests);
	tcase_add_test(tests, a_record_that_is_refused_takes_nothing_else_with_it);
	tcase_add_test(tests, one_that_runs_alone_waits_for_those_beside_each_other);
	tcase_add_test(tests, what_only_one_at_a_time_may_do_is_refused);
	suite_add_tcase(suite, tests);
	return fix_run(suite);
}
