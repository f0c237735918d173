#include <check.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>

#include "fs/query.h"
#include "mendctl/options.h"

START_TEST(sizes_are_plain_or_in_powers_of_1024)
{
	static const struct {
		const char *text;
		uint64_t value;
	} good[] = {{"0", 0},
		    {"512", 512},
		    {"4K", 4096},
		    {"4k", 4096},
		    {"2M", 2 << 20},
		    {"1G", 1 << 30},
		    {"1T", 1ull << 40},
		    {"4KiB", 4096},
		    {"4KB", 4096},
		    {"18446744073709551615", UINT64_MAX},
		    {"17179869183G", 17179869183ull << 30}};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		uint64_t value;

		ck_assert_msg(options_parse_size(good[i].text, &value) == 0, "%s", good[i].text);
		ck_assert_uint_eq(value, good[i].value);
	}
}
END_TEST

START_TEST(what_is_no_size_is_refused)
{
	static const char *bad[] = {"",  "-1",  "+1",   " 1",   "1 ", "1X",
				    "K", "1KK", "1.5G", "0x10", "1Kx"};
	uint64_t value;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(options_parse_size(bad[i], &value) == -EINVAL, "%s", bad[i]);
	ck_assert_int_eq(options_parse_size("18446744073709551616", &value), -ERANGE);
	ck_assert_int_eq(options_parse_size("17179869184G", &value), -ERANGE);
}
END_TEST

static int parse(char **argv, struct options *options)
{
	struct why why;
	int argc = 0;

	while (argv[argc])
		argc++;
	optind = 0;
	return options_parse(argc, argv, options, &why);
}

START_TEST(options_are_taken_before_and_after_the_words)
{
	char *argv[] = {"mendctl",  "--json", "owners",       "/mnt",
			"--offset", "4K",     "--length=512", NULL};
	struct options options;

	ck_assert_int_eq(parse(argv, &options), 0);
	ck_assert_str_eq(options.command, "owners");
	ck_assert_int_eq(options.count_words, 1);
	ck_assert_str_eq(options.words[0], "/mnt");
	ck_assert_uint_eq(options.offset, 4096);
	ck_assert_uint_eq(options.length, 512);
	ck_assert(options.json);
	ck_assert_uint_eq(options.given, OPTION_OFFSET | OPTION_LENGTH);
	ck_assert_int_eq(options.kind, -1);
}
END_TEST

START_TEST(letters_and_kinds_are_known)
{
	char *argv[] = {"mendctl", "owners", "-h", "-V", "-f", "--kind", "metadata", NULL};
	struct options options;

	ck_assert_int_eq(parse(argv, &options), 0);
	ck_assert(options.help && options.version);
	ck_assert_uint_eq(options.given, OPTION_FORCE | OPTION_KIND);
	ck_assert_int_eq(options.kind, FS_OWNER_METADATA);
}
END_TEST

START_TEST(mistakes_on_the_command_line_are_refused)
{
	char *unknown[] = {"mendctl", "list", "--nothing", NULL},
	     *letter[] = {"mendctl", "list", "-z", NULL};
	char *value[] = {"mendctl", "owners", "--offset", NULL},
	     *number[] = {"mendctl", "owners", "--offset", "x", NULL};
	char *kind[] = {"mendctl", "owners", "--kind", "x", NULL};
	char **all[] = {unknown, letter, value, number, kind};
	struct options options;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		ck_assert_int_eq(parse(all[i], &options), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("options");
	TCase *tcase = tcase_create("options");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, sizes_are_plain_or_in_powers_of_1024);
	tcase_add_test(tcase, what_is_no_size_is_refused);
	tcase_add_test(tcase, options_are_taken_before_and_after_the_words);
	tcase_add_test(tcase, letters_and_kinds_are_known);
	tcase_add_test(tcase, mistakes_on_the_command_line_are_refused);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
