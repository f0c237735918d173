#include "tests/support/journalfix.h"

static struct journalfix fix;

static void teardown(void)
{
	fix_destroy(&fix);
	unsetenv("MENDFS_BOOT_ID");
}

START_TEST(a_new_journal_opens_clean_and_counts_its_first_chunk)
{
	fix_create_open(&fix, 2);
	ck_assert(!journal_recovery(fix.journal)->hole);
	ck_assert_uint_eq(journal_recovery(fix.journal)->records, 0);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_META_BLOCKS), 256);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_META_FREE), 255);
	ck_assert_int_eq(fix_close(&fix), 0);
}
END_TEST

START_TEST(what_was_committed_is_there_after_close)
{
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 7);
	ck_assert_int_eq(fix_close(&fix), 0);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(journal_recovery(fix.journal)->records, 0);
	ck_assert_uint_eq(fix_word(&fix, address, 100), 7);
}
END_TEST

START_TEST(what_was_committed_is_there_after_a_kill)
{
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 7);
	fix_change(&fix, address, 3, 8);
	fix_crash(&fix);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(journal_recovery(fix.journal)->records, 2);
	ck_assert_uint_eq(fix_word(&fix, address, 3), 8);
	ck_assert_uint_eq(fix_word(&fix, address, 4), 7);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("journal");
	TCase *tests = tcase_create("journal");

	tcase_add_checked_fixture(tests, NULL, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, a_new_journal_opens_clean_and_counts_its_first_chunk);
	tcase_add_test(tests, what_was_committed_is_there_after_close);
	tcase_add_test(tests, what_was_committed_is_there_after_a_kill);
	suite_add_tcase(suite, tests);
	return fix_run(suite);
}
