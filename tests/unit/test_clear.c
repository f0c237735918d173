/* Clearing poison of a device whose firmware is played here: libpmem2's calls end in this file. */
#include <check.h>
#include <errno.h>
#include <libpmem2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "media/media_types.h"
#include "tests/support/image.h"

#define IMAGE_BYTES (1u << 20)
#define AT (64u * BLOCK_BYTES)

struct pmem2_badblock_context {
	bool is_told;
};

/* One bad range, and what is done when somebody wants it cleared. */
static struct {
	devoff_t start, end;
	uint64_t unit;	       /* what is not whole units is refused */
	uint64_t bytes_at_most; /* beyond it nothing is cleared, and success is told */
	int answer;
	unsigned calls;
} firmware;

static struct media *media;
static char path[256];

int __wrap_pmem2_badblock_context_new(struct pmem2_badblock_context **out, struct pmem2_source *source);
int __wrap_pmem2_badblock_next(struct pmem2_badblock_context *context, struct pmem2_badblock *out);
int __wrap_pmem2_badblock_clear(struct pmem2_badblock_context *context, const struct pmem2_badblock *block);
void __wrap_pmem2_badblock_context_delete(struct pmem2_badblock_context **context);

int __wrap_pmem2_badblock_context_new(struct pmem2_badblock_context **out, struct pmem2_source *source)
{
	(void)source;
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : -ENOMEM;
}

void __wrap_pmem2_badblock_context_delete(struct pmem2_badblock_context **context)
{
	free(*context);
	*context = NULL;
}

int __wrap_pmem2_badblock_next(struct pmem2_badblock_context *context, struct pmem2_badblock *out)
{
	if (context->is_told || firmware.start == firmware.end)
		return PMEM2_E_NO_BAD_BLOCK_FOUND;
	context->is_told = true;
	*out = (struct pmem2_badblock){.offset = firmware.start, .length = firmware.end - firmware.start};
	return 0;
}

int __wrap_pmem2_badblock_clear(struct pmem2_badblock_context *context, const struct pmem2_badblock *block)
{
	const devoff_t end = block->offset + block->length;

	(void)context;
	firmware.calls++;
	if (firmware.answer)
		return firmware.answer;
	if (block->offset % firmware.unit || block->length % firmware.unit)
		return -EINVAL;
	if (block->offset <= firmware.start && end > firmware.start)
		firmware.start = min_u64(firmware.end, min_u64(end, firmware.start + firmware.bytes_at_most));
	return 0;
}

static void setup(void)
{
	struct media_options options = {.create_bytes = IMAGE_BYTES};
	struct why why;

	image_name(path, sizeof(path), "clear", 0);
	ck_assert_int_eq(media_open(path, &options, &why, &media), 0);
	media->is_device = true;
	memset(&firmware, 0, sizeof(firmware));
	firmware.start = AT;
	firmware.end = AT + SECTOR_BYTES;
	firmware.unit = 256;
	firmware.bytes_at_most = UINT32_MAX;
	ck_assert_int_eq(media_bad_add(media, AT, SECTOR_BYTES), 0);
}

static void teardown(void)
{
	media->is_device = false;
	media_close(media);
	image_remove(path);
}

static bool is_known_bad(void)
{
	devoff_t bad;
	uint64_t length;

	return media_bad_find(media, AT, BLOCK_BYTES, &bad, &length);
}

START_TEST(what_was_cleared_is_no_longer_known_to_be_bad)
{
	ck_assert_int_eq(media_clear(media, AT, BLOCK_BYTES), 0);
	ck_assert_uint_eq(firmware.start, firmware.end);
	ck_assert(!is_known_bad());
}
END_TEST

START_TEST(a_bus_that_cannot_clear_is_told_from_one_that_failed)
{
	firmware.answer = -ENXIO;
	ck_assert_int_eq(media_clear(media, AT, BLOCK_BYTES), -ENOTSUP);
	firmware.answer = -EIO;
	ck_assert_int_eq(media_clear(media, AT, BLOCK_BYTES), -EIO);
	ck_assert(is_known_bad());
	ck_assert_uint_eq(firmware.calls, 2);
}
END_TEST

START_TEST(success_is_believed_only_when_the_list_agrees)
{
	firmware.bytes_at_most = 0;
	ck_assert_int_eq(media_clear(media, AT, BLOCK_BYTES), -EIO);
	ck_assert(is_known_bad());
	firmware.end = AT + 2 * SECTOR_BYTES;
	firmware.bytes_at_most = SECTOR_BYTES;
	ck_assert_int_eq(media_clear(media, AT, BLOCK_BYTES), -EIO);
	ck_assert(is_known_bad());
}
END_TEST

START_TEST(what_is_bad_beside_the_range_is_no_reason_to_doubt)
{
	firmware.end = AT + 2 * BLOCK_BYTES;
	firmware.bytes_at_most = BLOCK_BYTES;
	ck_assert_int_eq(media_clear(media, AT, BLOCK_BYTES), 0);
	ck_assert(!is_known_bad());
	ck_assert_uint_eq(firmware.start, AT + BLOCK_BYTES);
}
END_TEST

START_TEST(a_unit_larger_than_a_block_is_never_cleared_with_its_neighbours)
{
	firmware.unit = BLOCK_BYTES;
	ck_assert_int_eq(media_clear(media, AT, BLOCK_BYTES), 0);
	firmware.unit = 2 * BLOCK_BYTES;
	firmware.start = AT;
	ck_assert_int_eq(media_bad_add(media, AT, SECTOR_BYTES), 0);
	ck_assert_int_eq(media_clear(media, AT, BLOCK_BYTES), -EIO);
	ck_assert(is_known_bad());
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("clear");
	TCase *tests = tcase_create("device");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, what_was_cleared_is_no_longer_known_to_be_bad);
	tcase_add_test(tests, a_bus_that_cannot_clear_is_told_from_one_that_failed);
	tcase_add_test(tests, success_is_believed_only_when_the_list_agrees);
	tcase_add_test(tests, what_is_bad_beside_the_range_is_no_reason_to_doubt);
	tcase_add_test(tests, a_unit_larger_than_a_block_is_never_cleared_with_its_neighbours);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
