/* SipHash against the values that its authors publish. */
#include <check.h>

#include "util/siphash.h"

/* Key 00 01 .. 0f, input 00 01 .. of this length. */
START_TEST(it_gives_the_published_values)
{
	static const struct {
		size_t count_words;
		uint64_t value;
	} known[] = {{0, 0x726fdb47dd0e0e31ull}, {1, 0x93f5f5799a932462ull}, {2, 0x3f2acc7f57c29bdbull}};
	const struct siphash_key key = {{0x0706050403020100ull, 0x0f0e0d0c0b0a0908ull}};
	const uint64_t words[] = {0x0706050403020100ull, 0x0f0e0d0c0b0a0908ull};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		ck_assert_uint_eq(siphash(&key, words, known[i].count_words), known[i].value);
}
END_TEST

START_TEST(every_bit_of_key_and_input_counts)
{
	const struct siphash_key key = {{1, 2}};
	const uint64_t words[3] = {3, 4, 5};
	uint64_t value = siphash(&key, words, 3);

	for (unsigned bit = 0; bit < 192; bit++) {
		uint64_t other[3] = {3, 4, 5};
		struct siphash_key other_key = key;

		other[bit / 64] ^= 1ull << bit % 64;
		other_key.word[bit / 64 % 2] ^= 1ull << bit % 64;
		ck_assert_uint_ne(siphash(&key, other, 3), value);
		ck_assert_uint_ne(siphash(&other_key, words, 3), value);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("siphash");
	TCase *tests = tcase_create("values");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tests, it_gives_the_published_values);
	tcase_add_test(tests, every_bit_of_key_and_input_counts);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
