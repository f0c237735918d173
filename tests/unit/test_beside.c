/* Transactions beside each other: one in this thread, one in another that does what it is told, step by step. */
#include "tests/support/journalfix.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "util/slot.h"

#define TAKEN 12

static struct journalfix fix;

/* --- stores that fail --- */

static bool stores_fail;

int __real_media_write(struct media *media, devoff_t offset, const void *from, size_t length, devoff_t *failed);
int __wrap_media_write(struct media *media, devoff_t offset, const void *from, size_t length, devoff_t *failed);
int __wrap_media_write(struct media *media, devoff_t offset, const void *from, size_t length, devoff_t *failed)
{
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
	stores_fail = false;
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
	ck_assert_int_eq(get(&left, left.write, &buf), 0);
	ck_assert_int_eq(buf_destroy(left.tx, buf), -EAGAIN);
	must(here, abort, &left);
	journal_shutdown(fix.journal);
	here(step_begin, &left);
	ck_assert_int_eq(left.error, -EAGAIN);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("beside");
	TCase *tests = tcase_create("beside");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, two_that_change_different_blocks_both_commit_in_any_order);
	tcase_add_test(tests, a_block_that_another_has_is_refused_until_it_is_done);
	tcase_add_test(tests, what_was_relied_on_and_has_changed_refuses_the_commit);
	tcase_add_test(tests, what_is_joined_after_another_has_changed_it_is_refused);
	tcase_add_test(tests, of_two_that_read_what_the_other_changes_not_both_commit);
	tcase_add_test(tests, an_abort_shows_nothing_and_gives_everything_back);
	tcase_add_test(tests, blocks_that_are_taken_side_by_side_differ_and_outlive_a_crash);
	tcase_add_test(tests, a_record_that_is_refused_takes_nothing_else_with_it);
	tcase_add_test(tests, one_that_runs_alone_waits_for_those_beside_each_other);
	tcase_add_test(tests, what_only_one_at_a_time_may_do_is_refused);
	suite_add_tcase(suite, tests);
	return fix_run(suite);
}
