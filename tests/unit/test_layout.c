/* mkfs/layout: nothing overlaps, nothing lies on poison, copies are apart. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/chunk_format.h"
#include "format/poison_format.h"
#include "mkfs/layout.h"
#include "mkfs/options.h"
#include "tests/support/expect.h"
#include "tests/support/random.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define TIB (1ull << 40)

static const uint64_t sizes[] = {16 * MIB, 17 * MIB, 64 * MIB, 100 * MIB, GIB, 3 * GIB, TIB, 1024 * TIB};

static bool ranges_overlap(devoff_t a, uint64_t a_length, devoff_t b, uint64_t b_length)
{
	return a < b + b_length && b < a + a_length;
}

static bool share_huge_page(devoff_t a, devoff_t b, uint64_t length)
{
	return ranges_overlap(a / HUGE_BYTES, (length + a % HUGE_BYTES - 1) / HUGE_BYTES + 1,
			      b / HUGE_BYTES, (length + b % HUGE_BYTES - 1) / HUGE_BYTES + 1);
}

static void expect_apart(devoff_t primary, devoff_t replica, uint64_t length, bool has_replica)
{
	expect(primary != 0 && (replica != 0) == has_replica);
	if (has_replica)
		expect(!share_huge_page(primary, replica, length));
}

static void expect_slots(const struct layout *layout, const struct iset *bad,
			 const struct layout_range *ranges, unsigned count)
{
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++) {
		devoff_t at = super_slot_offset(slot);
		unsigned users = 0;

		for (unsigned i = 0; i < count; i++)
			users += ranges_overlap(at, BLOCK_BYTES, ranges[i].offset,
						ranges[i].length_bytes);
		expect_equal(users, layout->slots >> slot & 1);
		expect_equal(layout->slots >> slot & 1, !iset_overlaps(bad, at, at + BLOCK_BYTES));
	}
}

/* Everything that is promised of a plan. */
static void expect_sound(const struct layout *layout, const struct iset *bad)
{
	struct layout_range ranges[LAYOUT_RANGES_MAX];
	unsigned count = layout_ranges(layout, ranges);
	bool dup = layout->copies == 2;
	const struct area *areas = layout->areas;

	for (unsigned i = 0; i < count; i++) {
		expect(ranges[i].offset % BLOCK_BYTES == 0);
		expect(ranges[i].offset + ranges[i].length_bytes <= layout->size_bytes);
		expect(!iset_overlaps(bad, ranges[i].offset,
				      ranges[i].offset + ranges[i].length_bytes));
		for (unsigned k = 0; k < i; k++)
			expect(!ranges_overlap(ranges[i].offset, ranges[i].length_bytes,
					       ranges[k].offset, ranges[k].length_bytes));
	}
	expect_slots(layout, bad, ranges, count);
	expect_apart(areas[AREA_JOURNAL].copy[0], areas[AREA_JOURNAL].copy[1],
		     areas[AREA_JOURNAL].length_bytes, true);
	expect_apart(areas[AREA_POISON_LOG].copy[0], areas[AREA_POISON_LOG].copy[1],
		     areas[AREA_POISON_LOG].length_bytes, true);
	expect_apart(areas[AREA_FIXED].copy[0], areas[AREA_FIXED].copy[1],
		     areas[AREA_FIXED].length_bytes, dup);
	expect_apart(layout->chunk[0], layout->chunk[1], 1ull << layout->chunk_shift, dup);
}

static int plan(uint64_t size_bytes, unsigned copies, const struct iset *bad, struct layout *out,
		struct why *why)
{
	const struct layout_request request = {size_bytes, copies, bad};

	return layout_plan(&request, out, why);
}

static void plan_sound(uint64_t size_bytes, unsigned copies, const struct iset *bad,
		       struct layout *out)
{
	struct why why = {""};

	ck_assert_msg(plan(size_bytes, copies, bad, out, &why) == 0, "%s", why.text);
	expect_sound(out, bad);
}

START_TEST(every_size_and_mode_has_a_sound_plan)
{
	struct iset none;

	iset_init(&none);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct layout layout;

		for (unsigned copies = 1; copies <= 2; copies++) {
			plan_sound(sizes[i], copies, &none, &layout);
			expect_equal(layout.slots, 0xff);
		}
	}
}
END_TEST

START_TEST(replicas_lie_in_the_second_half)
{
	struct layout layout;
	struct iset none;

	iset_init(&none);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		plan_sound(sizes[i], 2, &none, &layout);
		for (unsigned area = AREA_JOURNAL; area <= AREA_FIXED; area++) {
			ck_assert_uint_lt(layout.areas[area].copy[0], sizes[i] / 2);
			ck_assert_uint_ge(layout.areas[area].copy[1], sizes[i] / 2);
		}
		ck_assert_uint_ge(layout.chunk[1], sizes[i] / 2);
	}
}
END_TEST

START_TEST(sizes_of_areas_follow_the_device)
{
	struct layout layout;
	struct iset none;

	iset_init(&none);
	plan_sound(16 * MIB, 2, &none, &layout);
	ck_assert_uint_eq(layout.areas[AREA_JOURNAL].length_bytes, JOURNAL_RING_MIN + BLOCK_BYTES);
	ck_assert_uint_eq(layout.chunk_shift, 16);
	plan_sound(64 * MIB, 2, &none, &layout);
	ck_assert_uint_eq(layout.chunk_shift, 17);
	plan_sound(GIB, 2, &none, &layout);
	ck_assert_uint_eq(layout.areas[AREA_JOURNAL].length_bytes, 16 * MIB + BLOCK_BYTES);
	ck_assert_uint_eq(layout.chunk_shift, 21);
	plan_sound(1024 * TIB, 2, &none, &layout);
	ck_assert_uint_eq(layout.areas[AREA_JOURNAL].length_bytes, JOURNAL_RING_MAX + BLOCK_BYTES);
	ck_assert_uint_eq(layout.areas[AREA_FIXED].length_bytes, 64 * MIB);
}
END_TEST

START_TEST(chunk_table_describes_an_eighth_of_the_device)
{
	struct layout layout;
	struct iset none;

	iset_init(&none);
	for (size_t i = 0; i < ARRAY_SIZE(sizes) - 1; i++) {
		uint64_t entries;

		plan_sound(sizes[i], 2, &none, &layout);
		entries = (layout.areas[AREA_FIXED].length_bytes / BLOCK_BYTES - 1) *
			  CHUNK_ENTRIES_PER_BLOCK;
		ck_assert_uint_ge(entries, 1024);
		ck_assert_uint_ge(entries << layout.chunk_shift, sizes[i] / 8);
	}
}
END_TEST

START_TEST(too_small_is_refused_with_the_minimum)
{
	struct layout layout;
	struct why why;
	struct iset none;

	iset_init(&none);
	ck_assert_int_eq(plan(16 * MIB - 1, 2, &none, &layout, &why), -EINVAL);
	ck_assert_ptr_nonnull(strstr(why.text, "minimum is 16777216 bytes (16 MiB)"));
	ck_assert_int_eq(plan(UINT64_MAX, 2, &none, &layout, &why), -EINVAL);
}
END_TEST

START_TEST(each_fixed_place_is_moved_when_poisoned)
{
	struct layout_range ranges[LAYOUT_RANGES_MAX];
	struct layout layout, moved;
	struct iset bad;
	unsigned count;

	iset_init(&bad);
	plan_sound(64 * MIB, 2, &bad, &layout);
	count = layout_ranges(&layout, ranges);
	ck_assert_uint_eq(count, 16);
	for (unsigned i = 0; i < count; i++) {
		devoff_t hit = ranges[i].offset + ranges[i].length_bytes / 2;

		ck_assert_int_eq(iset_add(&bad, hit, hit + 512, 0), 0);
		plan_sound(64 * MIB, 2, &bad, &moved);
		iset_fini(&bad);
		iset_init(&bad);
	}
}
END_TEST

START_TEST(poison_in_every_place_in_turn_and_all_together)
{
	struct layout layout;
	struct iset bad;

	iset_init(&bad);
	for (unsigned round = 0; round < 20; round++) {
		struct layout_range ranges[LAYOUT_RANGES_MAX];
		unsigned count;

		plan_sound(256 * MIB, 2, &bad, &layout);
		count = layout_ranges(&layout, ranges);
		for (unsigned i = 0; i < count; i++)
			if (ranges[i].length_bytes > BLOCK_BYTES)
				ck_assert_int_eq(iset_add(&bad, ranges[i].offset,
							  ranges[i].offset + 512, 0), 0);
	}
	iset_fini(&bad);
}
END_TEST

START_TEST(two_healthy_superblock_slots_are_enough)
{
	struct layout layout;
	struct why why;
	struct iset bad;

	iset_init(&bad);
	for (unsigned slot = 0; slot < 6; slot++)
		iset_add(&bad, super_slot_offset(slot) + 4000, super_slot_offset(slot) + 4001, 0);
	plan_sound(64 * MIB, 2, &bad, &layout);
	ck_assert_uint_eq(layout.slots, 0xc0);
	iset_add(&bad, super_slot_offset(6), super_slot_offset(6) + 1, 0);
	ck_assert_int_eq(plan(64 * MIB, 2, &bad, &layout, &why), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(why.text, "superblock"));
	ck_assert_ptr_nonnull(strstr(why.text, "poison at 4000, 1 bytes long"));
	plan_sound(64 * MIB, 1, &bad, &layout);
	iset_fini(&bad);
}
END_TEST

START_TEST(no_place_left_names_what_and_why)
{
	struct layout layout;
	struct why why;
	struct iset bad;

	iset_init(&bad);
	/* All but the slots and some crumbs. */
	for (devoff_t at = 64 * 1024; at < 16 * MIB; at += 64 * 1024)
		if (at % HUGE_BYTES)
			iset_add(&bad, at, at + 512, 0);
	ck_assert_int_eq(plan(16 * MIB, 2, &bad, &layout, &why), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(why.text, "no place is left for the poison log"));
	ck_assert_ptr_nonnull(strstr(why.text, "poison at 65536, 512 bytes long, is in the way"));
	iset_fini(&bad);
}
END_TEST

START_TEST(random_poison_is_planned_around_or_refused_by_name)
{
	struct random random = random_start("random_poison_is_planned_around_or_refused_by_name");
	unsigned planned = 0, refused = 0;

	for (unsigned round = 0; round < 300; round++) {
		uint64_t size = sizes[random_below(&random, 5)];
		unsigned ranges = 1u << random_below(&random, 12);
		struct layout layout;
		struct why why = {""};
		struct iset bad;
		int error;

		iset_init(&bad);
		for (unsigned i = 0; i < ranges; i++) {
			uint64_t at = random_below(&random, size / 512) * 512;

			iset_add(&bad, at, min_u64(at + 512 * (1 + random_below(&random, 16)), size), 0);
		}
		error = plan(size, 1 + (unsigned)random_below(&random, 2), &bad, &layout, &why);
		if (error) {
			expect_equal(error, -ENOSPC);
			expect(strstr(why.text, "poison at") != NULL);
			refused++;
		} else {
			expect_sound(&layout, &bad);
			planned++;
		}
		iset_fini(&bad);
	}
	ck_assert_uint_gt(planned, 50);
	ck_assert_uint_gt(refused, 0);
}
END_TEST

START_TEST(sizes_are_parsed_with_binary_suffixes)
{
	static const char *const bad[] = {"", "-1", "+1", " 1", "1Q", "1KB", "K", "1.5G", "0x10", "1 G"};
	uint64_t size;

	ck_assert_int_eq(options_parse_size("512", &size), 0);
	ck_assert_uint_eq(size, 512);
	ck_assert_int_eq(options_parse_size("16M", &size), 0);
	ck_assert_uint_eq(size, 16 * MIB);
	ck_assert_int_eq(options_parse_size("2t", &size), 0);
	ck_assert_uint_eq(size, 2 * TIB);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(options_parse_size(bad[i], &size) == -EINVAL, "%s", bad[i]);
	ck_assert_int_eq(options_parse_size("8388608T", &size), -ERANGE);
	ck_assert_int_eq(options_parse_size("99999999999999999999", &size), -ERANGE);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("layout");
	TCase *tcase = tcase_create("layout");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, every_size_and_mode_has_a_sound_plan);
	tcase_add_test(tcase, replicas_lie_in_the_second_half);
	tcase_add_test(tcase, sizes_of_areas_follow_the_device);
	tcase_add_test(tcase, chunk_table_describes_an_eighth_of_the_device);
	tcase_add_test(tcase, too_small_is_refused_with_the_minimum);
	tcase_add_test(tcase, each_fixed_place_is_moved_when_poisoned);
	tcase_add_test(tcase, poison_in_every_place_in_turn_and_all_together);
	tcase_add_test(tcase, two_healthy_superblock_slots_are_enough);
	tcase_add_test(tcase, no_place_left_names_what_and_why);
	tcase_add_test(tcase, random_poison_is_planned_around_or_refused_by_name);
	tcase_add_test(tcase, sizes_are_parsed_with_binary_suffixes);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
