#include "fs/dir.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/table.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"

static struct fsfix fix;

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, FSFIX_USUAL_BYTES), 0);
}

static void setup_weak(void)
{
	expect_equal(fsfix_create(&fix, FSFIX_USUAL_BYTES), 0);
	fix.options.weak_hash = true;
	expect_equal(fsfix_mount(&fix), 0);
}

static void teardown(void)
{
	fsfix_destroy(&fix);
}

static void name_of(unsigned i, char name[32])
{
	snprintf(name, 32, "name-%u", i);
}

static inum_t make(inum_t dir, unsigned i)
{
	char name[32];
	inum_t ino = 0;

	name_of(i, name);
	expect_equal(fsfix_mkfile(&fix, dir, name, &ino), 0);
	return ino;
}

static void drop(inum_t dir, unsigned i)
{
	char name[32];

	name_of(i, name);
	expect_equal(fs_unlink(fix.fs, dir, name), 0);
}

struct listing {
	unsigned *seen; /* per number in "name-N" */
	uint64_t *cookies;
	unsigned size, count, dots, limit;
	uint64_t last_cookie;
	bool sorted;
};

static void listing_init(struct listing *l, unsigned size)
{
	*l = (struct listing){.size = size, .limit = UINT32_MAX, .sorted = true};
	l->seen = calloc(size, sizeof(*l->seen));
	l->cookies = calloc(size, sizeof(*l->cookies));
}

static void listing_fini(struct listing *l)
{
	free(l->seen);
	free(l->cookies);
}

static int listing_visit(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next_cookie,
			 const struct fs_attr *attr)
{
	struct listing *l = arg;
	unsigned i;

	if (l->limit == 0)
		return 1;
	l->limit--;
	if (next_cookie <= l->last_cookie)
		l->sorted = false;
	l->last_cookie = next_cookie;
	l->count++;
	if (name[0] == '.') {
		l->dots++;
	} else if (sscanf(name, "name-%u", &i) == 1 && i < l->size) {
		l->seen[i]++;
		l->cookies[i] = next_cookie;
	}
	return 0;
}

/* --- hash and cookies ----------------------------------------------------------------------------------------------------- */

START_TEST(cookies_are_positive_in_63_bits_and_never_those_of_the_dots)
{
	struct listing l;

	for (unsigned i = 0; i < 500; i++)
		make(FS_ROOT_INO, i);
	listing_init(&l, 500);
	expect_equal(fs_readdir(fix.fs, FS_ROOT_INO, 0, false, listing_visit, &l), 0);
	expect_equal(l.count, 502);
	expect_equal(l.dots, 2);
	expect(l.sorted);
	for (unsigned i = 0; i < 500; i++)
		expect(l.cookies[i] >= 256 && l.cookies[i] <= INT64_MAX);
	listing_fini(&l);
}
END_TEST

static void cookies_stay(unsigned count)
{
	struct listing before, after;

	for (unsigned i = 0; i < count; i++)
		make(FS_ROOT_INO, i);
	listing_init(&before, count * 2);
	listing_init(&after, count * 2);
	expect_equal(fs_readdir(fix.fs, FS_ROOT_INO, 0, false, listing_visit, &before), 0);
	for (unsigned i = 0; i < count; i += 2)
		drop(FS_ROOT_INO, i);
	for (unsigned i = count; i < count * 2; i++)
		make(FS_ROOT_INO, i);
	expect_equal(fsfix_remount(&fix), 0);
	expect_equal(fs_readdir(fix.fs, FS_ROOT_INO, 0, false, listing_visit, &after), 0);
	for (unsigned i = 1; i < count; i += 2) {
		expect_equal(after.seen[i], 1);
		expect(after.cookies[i] == before.cookies[i]);
	}
	expect_equal(fsfix_check(&fix), 0);
	listing_fini(&before);
	listing_fini(&after);
}

START_TEST(cookies_are_never_renumbered)
{
	cookies_stay(400);
}
END_TEST

START_TEST(cookies_are_never_renumbered_among_collisions)
{
	cookies_stay(400);
}
END_TEST

/* --- collisions ----------------------------------------------------------------------------------------------------------- */

START_TEST(a_thousand_names_on_one_hash_value_are_found_and_removed)
{
	struct fs_attr attr;
	struct listing l;
	char name[32];
	inum_t dir, inos[1000];

	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "d", &dir), 0);
	for (unsigned i = 0; i < 1000; i++)
		inos[i] = make(dir, i);
	for (unsigned i = 0; i < 1000; i++) {
		name_of(i, name);
		expect_equal(fsfix_lookup(&fix, dir, name, &attr), 0);
		expect_equal(attr.ino, inos[i]);
	}
	listing_init(&l, 1000);
	expect_equal(fs_readdir(fix.fs, dir, 0, false, listing_visit, &l), 0);
	expect_equal(l.count, 1002);
	listing_fini(&l);
	expect_equal(fsfix_check(&fix), 0);
	/* Holes in the first hash values do not hide what lies in the last. */
	for (unsigned i = 0; i < 900; i++)
		drop(dir, i);
	name_of(999, name);
	expect_equal(fsfix_lookup(&fix, dir, name, &attr), 0);
	expect_equal(fsfix_lookup(&fix, dir, "name-5", &attr), -ENOENT);
	expect_equal(fsfix_check(&fix), 0);
	for (unsigned i = 900; i < 1000; i++)
		drop(dir, i);
	expect_equal(fs_rmdir(fix.fs, FS_ROOT_INO, "d"), 0);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

/* --- listing -------------------------------------------------------------------------------------------------------------- */

START_TEST(listing_goes_on_after_any_cookie)
{
	struct listing l;
	uint64_t cookie = 0;

	for (unsigned i = 0; i < 300; i++)
		make(FS_ROOT_INO, i);
	listing_init(&l, 300);
	for (unsigned guard = 0; guard < 400; guard++) {
		unsigned before = l.count;

		l.limit = 7;
		expect_equal(fs_readdir(fix.fs, FS_ROOT_INO, cookie, false, listing_visit, &l), 0);
		cookie = l.last_cookie;
		if (l.count == before)
			break;
	}
	expect_equal(l.count, 302);
	for (unsigned i = 0; i < 300; i++)
		expect_equal(l.seen[i], 1);
	/* A cookie whose entry is gone. */
	for (unsigned i = 0; i < 300; i += 3)
		drop(FS_ROOT_INO, i);
	for (unsigned i = 0; i < 300; i += 3) {
		l.limit = UINT32_MAX;
		l.last_cookie = l.cookies[i];
		expect_equal(fs_readdir(fix.fs, FS_ROOT_INO, l.cookies[i], false, listing_visit, &l), 0);
		expect(l.sorted);
	}
	listing_fini(&l);
}
END_TEST

struct churn {
	unsigned from, to;
	unsigned rounds;
};

static void *churn_main(void *arg)
{
	struct churn *churn = arg;

	for (unsigned round = 0; round < churn->rounds; round++) {
		for (unsigned i = churn->from; i < churn->to; i++)
			make(FS_ROOT_INO, i);
		for (unsigned i = churn->from; i < churn->to; i++)
			drop(FS_ROOT_INO, i);
	}
	return NULL;
}

static void listing_is_stable(unsigned steady, unsigned rounds)
{
	struct churn churn[2] = {{steady, steady + 100, rounds}, {steady + 100, steady + 200, rounds}};
	pthread_t threads[2];

	for (unsigned i = 0; i < steady; i++)
		make(FS_ROOT_INO, i);
	for (unsigned i = 0; i < 2; i++)
		expect_equal(pthread_create(&threads[i], NULL, churn_main, &churn[i]), 0);
	for (unsigned round = 0; round < rounds * 2; round++) {
		struct listing l;
		uint64_t cookie = 0;
		unsigned before;

		listing_init(&l, steady);
		do {
			before = l.count;
			l.limit = 13 + round;
			expect_equal(fs_readdir(fix.fs, FS_ROOT_INO, cookie, round % 2, listing_visit, &l), 0);
			cookie = l.last_cookie;
		} while (l.count != before);
		for (unsigned i = 0; i < steady; i++)
			expect_equal(l.seen[i], 1);
		listing_fini(&l);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	expect_equal(fsfix_check(&fix), 0);
}

START_TEST(every_entry_that_stays_is_listed_once_whatever_comes_and_goes)
{
	listing_is_stable(500, 10);
}
END_TEST

START_TEST(every_entry_that_stays_is_listed_once_among_collisions)
{
	listing_is_stable(300, 3);
}
END_TEST

static int remove_visit(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next_cookie,
			const struct fs_attr *attr)
{
	unsigned *removed = arg;

	if (name[0] == '.')
		return 0;
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, name), 0); /* no lock is held while visiting */
	++*removed;
	return 0;
}

START_TEST(removing_while_listing_removes_all)
{
	unsigned removed = 0;

	for (unsigned i = 0; i < 1000; i++)
		make(FS_ROOT_INO, i);
	expect_equal(fs_readdir(fix.fs, FS_ROOT_INO, 0, false, remove_visit, &removed), 0);
	expect_equal(removed, 1000);
}
END_TEST

struct plus {
	inum_t taken[32];
	unsigned count, limit;
};

static int plus_visit(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next_cookie,
		      const struct fs_attr *attr)
{
	struct plus *plus = arg;

	if (name[0] == '.') {
		expect(attr == NULL);
		return 0;
	}
	expect(attr != NULL);
	expect_equal(attr->ino, ino);
	if (plus->count == plus->limit)
		return 1;
	plus->taken[plus->count++] = ino;
	return 0;
}

START_TEST(listing_with_attributes_gives_a_lookup_reference_for_what_was_taken)
{
	struct plus plus = {.limit = 10};

	for (unsigned i = 0; i < 20; i++)
		make(FS_ROOT_INO, i);
	expect_equal(fs_readdir(fix.fs, FS_ROOT_INO, 0, true, plus_visit, &plus), 0);
	expect_equal(plus.count, 10);
	for (unsigned i = 0; i < 10; i++)
		expect(inode_is_cached(fix.fs, plus.taken[i]));
	for (unsigned i = 0; i < 20; i++)
		drop(FS_ROOT_INO, i);
	for (unsigned i = 0; i < 10; i++) {
		struct fs_attr attr;

		expect_equal(fs_getattr(fix.fs, plus.taken[i], &attr), 0);
		expect_equal(attr.record.nlink, 0);
		fs_forget(fix.fs, plus.taken[i], 1);
	}
}
END_TEST

/* Of this thread's own: whoever else wants the CPU does not count. */
static double seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

#ifdef __SANITIZE_THREAD__
#define MANY 40000u /* there each takes a hundred times as long */
#else
#define MANY 200000u
#endif

/* O(log n): the last tenth may not cost several times the first. */
START_TEST(many_entries_cost_no_more_each_than_the_first)
{
	const unsigned count = MANY, tenth = count / 10;
	double start = seconds_now(), first, last;
	struct fs_attr attr;
	struct listing l;

	for (unsigned i = 0; i < tenth; i++)
		make(FS_ROOT_INO, i);
	first = seconds_now() - start;
	for (unsigned i = tenth; i < count - tenth; i++)
		make(FS_ROOT_INO, i);
	start = seconds_now();
	for (unsigned i = count - tenth; i < count; i++)
		make(FS_ROOT_INO, i);
	last = seconds_now() - start;
	printf("%u creates: first %.2f s, last %.2f s\n", tenth, first, last);
	expect(last < first * 5 + 1);
	expect_equal(fsfix_lookup(&fix, FS_ROOT_INO, "name-23456", &attr), 0);
	listing_init(&l, count);
	expect_equal(fs_readdir(fix.fs, FS_ROOT_INO, 0, false, listing_visit, &l), 0);
	expect_equal(l.count, count + 2);
	listing_fini(&l);
	expect_equal(fs_getattr(fix.fs, FS_ROOT_INO, &attr), 0);
	expect_equal(attr.record.entries, count);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(a_listing_ends_once_for_who_changes_names)
{
	struct listing l = {.limit = UINT32_MAX};
	struct fs_attr attr;

	expect(fs_listing_ends(fix.fs, FS_ROOT_INO)); /* not in memory: nobody knows */
	expect_equal(fs_lookup(fix.fs, FS_ROOT_INO, ".", &attr), 0);
	expect(!fs_listing_ends(fix.fs, FS_ROOT_INO));
	for (unsigned i = 0; i < 2; i++) {
		expect_equal(fs_readdir(fix.fs, FS_ROOT_INO, 0, false, listing_visit, &l), 0);
		expect(fs_listing_ends(fix.fs, FS_ROOT_INO));
		expect(!fs_listing_ends(fix.fs, FS_ROOT_INO));
	}
	listing_fini(&l);
	fs_forget(fix.fs, FS_ROOT_INO, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("dir");
	TCase *plain = tcase_create("plain"), *weak = tcase_create("weak hash"), *large = tcase_create("large");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(plain, setup, teardown);
	tcase_set_timeout(plain, 120);
	tcase_add_test(plain, cookies_are_positive_in_63_bits_and_never_those_of_the_dots);
	tcase_add_test(plain, cookies_are_never_renumbered);
	tcase_add_test(plain, listing_goes_on_after_any_cookie);
	tcase_add_test(plain, every_entry_that_stays_is_listed_once_whatever_comes_and_goes);
	tcase_add_test(plain, removing_while_listing_removes_all);
	tcase_add_test(plain, listing_with_attributes_gives_a_lookup_reference_for_what_was_taken);
	tcase_add_test(plain, a_listing_ends_once_for_who_changes_names);
	suite_add_tcase(suite, plain);
	tcase_add_checked_fixture(weak, setup_weak, teardown);
	tcase_set_timeout(weak, 120);
	tcase_add_test(weak, cookies_are_never_renumbered_among_collisions);
	tcase_add_test(weak, a_thousand_names_on_one_hash_value_are_found_and_removed);
	tcase_add_test(weak, every_entry_that_stays_is_listed_once_among_collisions);
	suite_add_tcase(suite, weak);
	tcase_add_checked_fixture(large, setup, teardown);
	tcase_set_timeout(large, 500);
	tcase_add_test(large, many_entries_cost_no_more_each_than_the_first);
	suite_add_tcase(suite, large);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
