/* The index of mendctl dedupe: what it remembers, and that it stays within its memory. */
#include "mendctl/dedupe_index.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

static struct dedupe_index dedupe_index;

static void setup(void)
{
	ck_assert_int_eq(index_init(&dedupe_index, INDEX_MEMORY_LEAST), 0);
}

static void teardown(void)
{
	index_fini(&dedupe_index);
}

START_TEST(what_was_put_is_found_by_hash_and_length)
{
	uint32_t file = index_add_file(&dedupe_index, 17, "dir/name");
	struct index_place place;

	ck_assert_uint_ne(file, 0);
	ck_assert_str_eq(index_file(&dedupe_index, file)->path, "dir/name");
	ck_assert_uint_eq(index_file(&dedupe_index, file)->ino, 17);
	index_put(&dedupe_index, 99, 4096, &(struct index_place){file, 8192});
	ck_assert(index_find(&dedupe_index, 99, 4096, &place));
	ck_assert(place.file == file && place.pos == 8192);
	ck_assert(!index_find(&dedupe_index, 99, 4095, &place));
	ck_assert(!index_find(&dedupe_index, 98, 4096, &place));
}
END_TEST

START_TEST(the_oldest_of_one_place_makes_way)
{
	uint32_t file = index_add_file(&dedupe_index, 1, "f");
	struct index_place place;

	for (uint64_t i = 1; i <= 5; i++)
		index_put(&dedupe_index, i << 40, 1, &(struct index_place){file, i});
	ck_assert(!index_find(&dedupe_index, 1ull << 40, 1, &place));
	for (uint64_t i = 2; i <= 5; i++)
		ck_assert(index_find(&dedupe_index, i << 40, 1, &place) && place.pos == i);
}
END_TEST

START_TEST(names_without_room_are_refused)
{
	char name[200];
	unsigned count = 0;
	uint32_t first = 0, file;

	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = 0;
	while ((file = index_add_file(&dedupe_index, count, name)) && ++count < 100000)
		first = first ? first : file;
	ck_assert_uint_gt(count, 1000);
	ck_assert_uint_lt(count, INDEX_MEMORY_LEAST / sizeof(name));
	ck_assert_str_eq(index_file(&dedupe_index, first)->path, name);
	ck_assert_uint_eq(index_file(&dedupe_index, first)->ino, 0);
}
END_TEST

START_TEST(a_million_pieces_change_no_size)
{
	uint32_t file = index_add_file(&dedupe_index, 1, "f");
	struct index_place place;
	unsigned found = 0;

	for (uint64_t i = 0; i < 1000000; i++)
		index_put(&dedupe_index, i * 0x9e3779b97f4a7c15ull, 4096, &(struct index_place){file, i});
	for (uint64_t i = 0; i < 1000000; i++)
		found += index_find(&dedupe_index, i * 0x9e3779b97f4a7c15ull, 4096, &place) && place.pos == i;
	ck_assert_uint_gt(found, 10000);
	ck_assert_uint_le(found, dedupe_index.count_slots);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("dedupe_index");
	TCase *tests = tcase_create("index");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, what_was_put_is_found_by_hash_and_length);
	tcase_add_test(tests, the_oldest_of_one_place_makes_way);
	tcase_add_test(tests, names_without_room_are_refused);
	tcase_add_test(tests, a_million_pieces_change_no_size);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
