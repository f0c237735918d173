#include "dump/internal.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "dump/scramble.h"

static int compare_names(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* As many as a directory can hold of that length, or many. */
START_TEST(scrambled_names_are_all_different_and_valid)
{
	static const struct { size_t length, count; int beyond; } cases[] = {{1, 253, -EOVERFLOW}, {2, 254 * 254 - 1, -EOVERFLOW}, {3, 62 * 62 * 62, -EOVERFLOW}};
	size_t length = cases[_i].length, count = cases[_i].count;
	char *names = calloc(count + 1, 4);

	for (size_t i = 0; i < count; i++) {
		char *name = names + 4 * i;

		if (scramble_make_name(i, length, name) || strlen(name) != length || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
			ck_abort_msg("name %zu of length %zu is none", i, length);
	}
	ck_assert_int_eq(scramble_make_name(count, length, names + 4 * count), cases[_i].beyond);
	qsort(names, count, 4, compare_names);
	for (size_t i = 1; i < count; i++)
		if (!strcmp(names + 4 * i, names + 4 * (i - 1)))
			ck_abort_msg("\"%s\" twice", names + 4 * i);
	free(names);
}
END_TEST

START_TEST(times_beyond_64_bits_of_nanoseconds_are_shown_as_the_limit)
{
	struct inode_record record = {.mode = S_IFREG | 0600, .nlink = 1, .atime = {INT64_MAX, 5}, .mtime = {INT64_MIN, 5}, .ctime = {7, 5}};
	struct btree_key key = {{12}};
	struct format_inode bytes;
	struct json_object *element;

	format_inode_pack(&bytes, &record);
	element = dump_render_record(FORMAT_TREE_INODES, 0, &key, &bytes, sizeof(bytes), false);
	ck_assert(json_object_get_int64(json_object_object_get(element, "atime_ns")) == INT64_MAX);
	ck_assert(json_object_get_int64(json_object_object_get(element, "mtime_ns")) == INT64_MIN);
	ck_assert(json_object_get_int64(json_object_object_get(element, "ctime_ns")) == 7000000005);
	json_object_put(element);
}
END_TEST

START_TEST(a_value_that_does_not_verify_is_shown_in_hex)
{
	struct btree_key key = {{12}};

	for (unsigned tree = 1; tree < FORMAT_TREE_COUNT; tree++) {
		struct json_object *element;

		if (!dump_key_words(tree) || tree == FORMAT_TREE_XATTRS) /* a target may be anything */
			continue;
		element = dump_render_record(tree, 0, &key, "\xff", 1, false);
		ck_assert_msg(json_object_object_get(element, "wrong") != NULL, "tree %s", format_tree_name(tree));
		ck_assert_str_eq(json_object_get_string(json_object_object_get(element, "raw")), "ff");
		json_object_put(element);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("dump");
	TCase *tests = tcase_create("dump");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, scrambled_names_are_all_different_and_valid, 0, 3);
	tcase_add_test(tests, times_beyond_64_bits_of_nanoseconds_are_shown_as_the_limit);
	tcase_add_test(tests, a_value_that_does_not_verify_is_shown_in_hex);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
