/* SipHash against the values that its authors publish. */
#include <check.h>

#include "util/siphash.h"

static uint8_t key[16], message[24];

static void setup(void)
{
	for (unsigned i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)i;
	for (unsigned i = 0; i < sizeof(message); i++)
		message[i] = (uint8_t)i;
}

/* Key 00 01 .. 0f, message 00 01 .. of this length. */
START_TEST(it_gives_the_published_values)
{
	static const struct {
		size_t length;
		uint64_t value;
	} known[] = {{0, 0x726fdb47dd0e0e31ull}, {8, 0x93f5f5799a932462ull}, {15, 0xa129ca6149be45e5ull}, {16, 0x3f2acc7f57c29bdbull}};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		ck_assert_uint_eq(siphash(key, message, known[i].length), known[i].value);
}
END_TEST

static void expect_to_count(uint8_t *byte, uint64_t value)
{
	for (unsigned bit = 0; bit < 8; bit++) {
		*byte ^= (uint8_t)(1u << bit);
		ck_assert_uint_ne(siphash(key, message, sizeof(message)), value);
		*byte ^= (uint8_t)(1u << bit);
	}
}

START_TEST(every_bit_of_key_and_message_counts)
{
	uint64_t value = siphash(key, message, sizeof(message));

	for (size_t i = 0; i < sizeof(key); i++)
		expect_to_count(&key[i], value);
	for (size_t i = 0; i < sizeof(message); i++)
		expect_to_count(&message[i], value);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("siphash");
	TCase *tests = tcase_create("values");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_test(tests, it_gives_the_published_values);
	tcase_add_test(tests, every_bit_of_key_and_message_counts);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
