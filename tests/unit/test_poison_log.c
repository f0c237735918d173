#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "notify/poison_log.h"
#include "tests/support/image.h"

#define IMAGE_BYTES (16ull << 20)
#define SLOTS (POISON_LOG_BYTES / 64)
#define DATA (8ull << 20) /* where failures are said to be */

static char image[256], poison_file[300];
static struct media *media;
static struct super super;
static struct poison_log *log_;
static unsigned faults;

static void count_fault(void *arg, const struct media_fault *fault)
{
	(void)arg;
	(void)fault;
	faults++;
}

static void open_media(bool readonly)
{
	struct media_options options = {.readonly = readonly,
					.create_bytes = readonly ? 0 : IMAGE_BYTES};
	struct why why = {""};

	ck_assert_msg(media_open(image, &options, &why, &media) == 0, "%s", why.text);
	ck_assert_int_eq(media_poison_load(media, NULL, &why), 0);
	media_set_fault_handler(media, count_fault, NULL);
}

static void open_log(void)
{
	ck_assert_int_eq(poison_log_open(media, &super, &log_), 0);
}

static void close_all(void)
{
	poison_log_close(log_);
	log_ = NULL;
	ck_assert_int_eq(media_close(media), 0);
	media = NULL;
}

/* As after kill -9: nothing but the image remains. */
static void reopen(void)
{
	close_all();
	open_media(false);
	open_log();
}

static void setup(void)
{
	image_name(image, sizeof(image), "poison-log", 0);
	snprintf(poison_file, sizeof(poison_file), "%s.poison", image);
	memset(&super, 0, sizeof(super));
	memset(super.meta_uuid, 0x11, sizeof(super.meta_uuid));
	super.areas[AREA_POISON_LOG] = (struct area){{1 << 20, 5 << 20}, POISON_LOG_BYTES};
	faults = 0;
	open_media(false);
	ck_assert_int_eq(poison_log_format(media, &super), 0);
	open_log();
}

static void teardown(void)
{
	poison_log_close(log_);
	if (media)
		media_close(media);
	log_ = NULL;
	media = NULL;
	image_remove(image);
}

static int append_state(uint64_t offset, uint64_t length, uint8_t state)
{
	struct poison_entry entry = {.offset = offset,
				     .length_bytes = length,
				     .state = state,
				     .source = FAILURE_SIGBUS,
				     .time_ns = 1};

	return poison_log_append(log_, &entry);
}

static void append(uint64_t offset, uint64_t length)
{
	ck_assert_int_eq(append_state(offset, length, BADBLOCK_BAD), 0);
}

static bool is_known(uint64_t offset, uint64_t length)
{
	devoff_t bad;
	uint64_t bad_length;

	return media_bad_find(media, offset, length, &bad, &bad_length);
}

static int count_entry(void *arg, const struct poison_entry *entry)
{
	(void)entry;
	++*(unsigned *)arg;
	return 0;
}

static unsigned count_entries(void)
{
	unsigned count = 0;

	ck_assert_int_eq(poison_log_walk(log_, count_entry, &count), 0);
	return count;
}

static devoff_t slot_place(unsigned copy, unsigned slot)
{
	return super.areas[AREA_POISON_LOG].copy[copy] + slot * 64ull;
}

/* Damage the image behind the program's back. */
static void spoil(devoff_t offset, size_t length)
{
	char bytes[4096];
	int fd = open(image, O_RDWR);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, bytes, length, (off_t)offset), (ssize_t)length);
	for (size_t i = 0; i < length; i++)
		bytes[i] ^= 0x5a;
	ck_assert_int_eq(pwrite(fd, bytes, length, (off_t)offset), (ssize_t)length);
	close(fd);
}

START_TEST(entries_are_known_at_the_next_open)
{
	append(DATA, 4096);
	append(DATA + 65536, 512);
	ck_assert(!is_known(DATA, 4096));
	reopen();
	ck_assert_uint_eq(count_entries(), 2);
	ck_assert(is_known(DATA, 4096));
	ck_assert(is_known(DATA + 65536, 512));
	ck_assert(!is_known(DATA + 65536 + 512, 512));
	ck_assert_uint_eq(poison_log_next_sequence(log_), 2);
}
END_TEST

START_TEST(an_entry_torn_in_one_copy_is_read_from_the_other)
{
	append(DATA, 4096);
	append(DATA + 8192, 4096);
	close_all();
	spoil(slot_place(0, 0) + 16, 8);
	spoil(slot_place(1, 1) + 40, 1);
	open_media(false);
	open_log();
	ck_assert_uint_eq(count_entries(), 2);
	ck_assert(is_known(DATA, 1));
	ck_assert(is_known(DATA + 8192, 1));
}
END_TEST

START_TEST(an_entry_torn_in_both_copies_was_never_written)
{
	append(DATA, 4096);
	append(DATA + 8192, 4096);
	close_all();
	spoil(slot_place(0, 1) + 16, 8);
	spoil(slot_place(1, 1) + 16, 8);
	open_media(false);
	open_log();
	ck_assert_uint_eq(count_entries(), 1);
	ck_assert(is_known(DATA, 1));
	ck_assert(!is_known(DATA + 8192, 1));
}
END_TEST

START_TEST(entries_of_an_earlier_mkfs_are_refused)
{
	append(DATA, 4096);
	close_all();
	memset(super.meta_uuid, 0x22, sizeof(super.meta_uuid));
	open_media(false);
	open_log();
	ck_assert_uint_eq(count_entries(), 0);
	ck_assert(!is_known(DATA, 4096));
	ck_assert_uint_eq(poison_log_next_sequence(log_), 0);
}
END_TEST

START_TEST(an_entry_in_the_wrong_slot_is_refused)
{
	char raw[64];

	append(DATA, 4096);
	ck_assert_int_eq(media_read(media, slot_place(0, 0), raw, 64, NULL), 0);
	ck_assert_int_eq(media_write(media, slot_place(0, 7), raw, 64, NULL), 0);
	reopen();
	ck_assert_uint_eq(count_entries(), 1);
}
END_TEST

START_TEST(an_entry_beyond_the_device_is_refused)
{
	append(IMAGE_BYTES - 512, 4096);
	reopen();
	ck_assert_uint_eq(count_entries(), 0);
}
END_TEST

START_TEST(the_union_of_both_copies_counts)
{
	for (unsigned i = 0; i < 20; i++)
		append(DATA + i * 8192, 4096);
	close_all();
	for (unsigned i = 0; i < 20; i++)
		spoil(slot_place(i % 2, i) + 8, 1);
	open_media(false);
	open_log();
	ck_assert_uint_eq(count_entries(), 20);
}
END_TEST

START_TEST(a_poisoned_half_is_answered_from_the_other_with_one_fault_per_sector)
{
	for (unsigned i = 0; i < 20; i++)
		append(DATA + i * 8192, 4096);
	ck_assert_int_eq(media_poison_arm(media, slot_place(0, 0), 1024, true), 0);
	faults = 0;
	reopen();
	ck_assert_uint_eq(count_entries(), 20);
	ck_assert_uint_le(faults, 2);
	for (unsigned i = 0; i < 20; i++)
		ck_assert(is_known(DATA + i * 8192, 1));
}
END_TEST

START_TEST(a_poisoned_slot_is_written_in_the_other_copy)
{
	ck_assert_int_eq(media_poison_arm(media, slot_place(0, 0), 64, true), 0);
	append(DATA, 4096);
	append(DATA + 8192, 4096);
	reopen();
	ck_assert_uint_eq(count_entries(), 2);
	ck_assert(is_known(DATA, 1));
}
END_TEST

static void expect_equal_copies(void)
{
	char raw[2][POISON_LOG_BYTES];

	for (unsigned copy = 0; copy < 2; copy++)
		ck_assert_int_eq(media_read(media, slot_place(copy, 0), raw[copy], POISON_LOG_BYTES, NULL), 0);
	ck_assert_mem_eq(raw[0], raw[1], POISON_LOG_BYTES);
}

START_TEST(a_copy_that_lagged_behind_is_rewritten)
{
	append(DATA, 4096);
	ck_assert_int_eq(media_poison_arm(media, slot_place(0, 0), 64, false), 0);
	append(DATA + 8192, 4096);
	append(DATA + 16384, 4096);
	ck_assert_int_eq(poison_log_rewrite(log_, slot_place(0, 1), slot_place(0, 1) + 1), 0);
	ck_assert(!is_known(slot_place(0, 0), 512));
	expect_equal_copies();
	reopen();
	expect_equal_copies();
	ck_assert_uint_eq(count_entries(), 3);
}
END_TEST

START_TEST(what_a_kill_left_behind_is_caught_up_with)
{
	ck_assert_int_eq(media_poison_arm(media, slot_place(1, 0), 64, false), 0);
	for (unsigned i = 0; i < 20; i++)
		append(DATA + i * 8192, 4096);
	close_all();
	unlink(poison_file);
	open_media(false);
	open_log();
	poison_log_catch_up(log_);
	expect_equal_copies();
	ck_assert_uint_eq(count_entries(), 20);
}
END_TEST

START_TEST(what_cannot_be_read_is_not_caught_up_with)
{
	append(DATA, 4096);
	ck_assert_int_eq(media_poison_arm(media, slot_place(1, 0), 64, false), 0);
	poison_log_catch_up(log_);
	ck_assert(is_known(slot_place(1, 0), 64));
	close_all();
	open_media(true);
	open_log();
	ck_assert_int_eq(poison_log_rewrite(log_, slot_place(1, 0), slot_place(1, 8)), -EROFS);
	ck_assert_uint_eq(count_entries(), 1);
}
END_TEST

START_TEST(slots_that_are_bad_in_both_copies_are_passed_over)
{
	for (unsigned copy = 0; copy < 2; copy++)
		ck_assert_int_eq(media_poison_arm(media, slot_place(copy, 0), 1024, false), 0);
	for (unsigned i = 0; i < 10; i++)
		append(DATA + i * 8192, 4096);
	reopen();
	ck_assert_uint_eq(count_entries(), 10);
	for (unsigned i = 0; i < 10; i++)
		ck_assert(is_known(DATA + i * 8192, 1));
	ck_assert_uint_ge(poison_log_next_sequence(log_), 26);
}
END_TEST

START_TEST(cleared_takes_out_what_older_entries_said)
{
	append(DATA, 8192);
	ck_assert_int_eq(append_state(DATA, 4096, BADBLOCK_CLEARED), 0);
	reopen();
	ck_assert(!is_known(DATA, 4096));
	ck_assert(is_known(DATA + 4096, 4096));
	append(DATA, 4096);
	reopen();
	ck_assert(is_known(DATA, 4096));
}
END_TEST

START_TEST(cleared_does_not_take_out_what_a_source_says_today)
{
	append(DATA, 4096);
	ck_assert_int_eq(append_state(DATA, 4096, BADBLOCK_CLEARED), 0);
	close_all();
	open_media(false);
	ck_assert_int_eq(media_bad_add(media, DATA, 512), 0);
	open_log();
	ck_assert(is_known(DATA, 512));
	ck_assert(!is_known(DATA + 512, 512));
}
END_TEST

START_TEST(a_full_log_refuses_failures_and_still_takes_cleared)
{
	unsigned count = 0;

	while (append_state(DATA, 512, BADBLOCK_BAD) == 0)
		count++;
	ck_assert_uint_eq(count, SLOTS - SLOTS / 4);
	ck_assert(poison_log_wants_trim(log_));
	for (unsigned i = 0; i < SLOTS / 4; i++)
		ck_assert_int_eq(append_state(DATA, 512, BADBLOCK_CLEARED), 0);
	ck_assert_int_eq(append_state(DATA, 512, BADBLOCK_CLEARED), -ENOSPC);
	ck_assert_int_eq(append_state(DATA, 512, BADBLOCK_BAD), -ENOSPC);
}
END_TEST

START_TEST(trimmed_slots_are_used_again_and_the_log_goes_round)
{
	for (unsigned i = 0; i < 3 * SLOTS; i++) {
		append(DATA + (i % 1000) * 512, 512);
		if (i % 100 == 99)
			poison_log_trim(log_, poison_log_next_sequence(log_) - 1);
	}
	ck_assert_uint_le(count_entries(), 100);
	reopen();
	ck_assert_uint_eq(poison_log_next_sequence(log_), 3 * SLOTS);
	ck_assert_uint_eq(count_entries(), SLOTS);
	poison_log_trim(log_, 3 * SLOTS - 5);
	ck_assert_uint_eq(count_entries(), 5);
}
END_TEST

START_TEST(numbers_below_the_tail_are_never_given_out_again)
{
	poison_log_trim(log_, 500);
	append(DATA, 512);
	ck_assert_uint_eq(count_entries(), 1);
	ck_assert_uint_eq(poison_log_next_sequence(log_), 501);
}
END_TEST

START_TEST(readonly_media_are_read_and_not_written)
{
	append(DATA, 4096);
	close_all();
	open_media(true);
	open_log();
	ck_assert(is_known(DATA, 4096));
	ck_assert_int_eq(append_state(DATA, 512, BADBLOCK_BAD), -EROFS);
}
END_TEST

START_TEST(an_area_outside_the_device_is_refused)
{
	struct poison_log *other = NULL;
	struct super wrong = super;

	wrong.areas[AREA_POISON_LOG].copy[1] = IMAGE_BYTES - 4096;
	ck_assert_int_eq(poison_log_open(media, &wrong, &other), -EUCLEAN);
	wrong = super;
	wrong.areas[AREA_POISON_LOG].length_bytes = 100;
	ck_assert_int_eq(poison_log_open(media, &wrong, &other), -EUCLEAN);
	ck_assert_ptr_null(other);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("poison_log");
	TCase *tcase = tcase_create("poison_log");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, entries_are_known_at_the_next_open);
	tcase_add_test(tcase, an_entry_torn_in_one_copy_is_read_from_the_other);
	tcase_add_test(tcase, an_entry_torn_in_both_copies_was_never_written);
	tcase_add_test(tcase, entries_of_an_earlier_mkfs_are_refused);
	tcase_add_test(tcase, an_entry_in_the_wrong_slot_is_refused);
	tcase_add_test(tcase, an_entry_beyond_the_device_is_refused);
	tcase_add_test(tcase, the_union_of_both_copies_counts);
	tcase_add_test(tcase, a_poisoned_half_is_answered_from_the_other_with_one_fault_per_sector);
	tcase_add_test(tcase, a_poisoned_slot_is_written_in_the_other_copy);
	tcase_add_test(tcase, a_copy_that_lagged_behind_is_rewritten);
	tcase_add_test(tcase, what_a_kill_left_behind_is_caught_up_with);
	tcase_add_test(tcase, what_cannot_be_read_is_not_caught_up_with);
	tcase_add_test(tcase, slots_that_are_bad_in_both_copies_are_passed_over);
	tcase_add_test(tcase, cleared_takes_out_what_older_entries_said);
	tcase_add_test(tcase, cleared_does_not_take_out_what_a_source_says_today);
	tcase_add_test(tcase, a_full_log_refuses_failures_and_still_takes_cleared);
	tcase_add_test(tcase, trimmed_slots_are_used_again_and_the_log_goes_round);
	tcase_add_test(tcase, numbers_below_the_tail_are_never_given_out_again);
	tcase_add_test(tcase, readonly_media_are_read_and_not_written);
	tcase_add_test(tcase, an_area_outside_the_device_is_refused);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
