/* fs/super: which superblock counts, and what is said when none does. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/fs.h"
#include "util/crc.h"

#define SIZE_BYTES (64ull << 20)

static char path[64];
static struct media *media;

static struct super super_make(uint8_t id)
{
	struct super super = {
		.version = FORMAT_VERSION,
		.update = 1,
		.size_bytes = SIZE_BYTES,
		.copies = 2,
		.chunk_shift = 17,
		.slots = 0xff,
		.device_count = 1,
		.mkfs_time_ns = 1000 + id,
		.areas = {
			[AREA_JOURNAL] = {{0x10000, 0x2010000}, JOURNAL_RING_MIN + BLOCK_BYTES},
			[AREA_FIXED] = {{0x201000, 0x2201000}, 0x10000},
			[AREA_POISON_LOG] = {{0x211000, 0x2211000}, 65536},
		},
	};

	memset(super.meta_uuid, id, 16);
	memset(super.uuid, id, 16);
	return super;
}

static void open_media(void)
{
	const struct media_options options = {0};
	struct why why = {""};

	ck_assert_msg(media_open(path, &options, &why, &media) == 0, "%s", why.text);
}

static void setup(void)
{
	int fd;

	snprintf(path, sizeof(path), "%s/mendfs-test-XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, SIZE_BYTES), 0);
	close(fd);
	open_media();
}

static void teardown(void)
{
	char beside[80];

	media_close(media);
	unlink(path);
	snprintf(beside, sizeof(beside), "%s.poison", path);
	unlink(beside);
}

static void put_raw(unsigned slot, const struct format_super *raw)
{
	ck_assert_int_eq(media_write(media, super_slot_offset(slot), raw, sizeof(*raw), NULL), 0);
}

static void put(unsigned slot, const struct super *super)
{
	struct format_super raw;

	format_super_pack(&raw, super);
	put_raw(slot, &raw);
}

static void put_all(const struct super *super)
{
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
		put(slot, super);
}

static void expect_error(int error, const char *line)
{
	struct why why = {""};
	struct super super;

	ck_assert_int_eq(fs_read_super(media, &super, &why), error);
	ck_assert_msg(strstr(why.text, line) != NULL, "'%s' lacks '%s'", why.text, line);
	ck_assert_ptr_null(strchr(why.text, '\n'));
}

static struct super expect_found(void)
{
	struct why why = {""};
	struct super super;

	ck_assert_msg(fs_read_super(media, &super, &why) == 0, "%s", why.text);
	return super;
}

START_TEST(zeros_and_noise_are_not_mendfs)
{
	uint8_t noise[BLOCK_BYTES];

	expect_error(-EUCLEAN, "not a mendfs filesystem; make one with mkfs.mendfs");
	memset(noise, 0xa7, sizeof(noise));
	put_raw(0, (void *)noise);
	expect_error(-EUCLEAN, "not a mendfs filesystem; make one with mkfs.mendfs");
}
END_TEST

START_TEST(any_one_copy_is_enough)
{
	struct super super = super_make(1);

	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++) {
		static const struct format_super zero;

		put(slot, &super);
		ck_assert_uint_eq(expect_found().uuid[0], 1);
		put_raw(slot, &zero);
	}
}
END_TEST

START_TEST(highest_update_wins)
{
	struct super super = super_make(1);

	put_all(&super);
	super.update = 2;
	strcpy(super.label, "new");
	put(3, &super);
	ck_assert_str_eq(expect_found().label, "new");
	ck_assert_uint_eq(expect_found().update, 2);
}
END_TEST

START_TEST(copies_of_an_earlier_mkfs_are_outvoted)
{
	struct super old = super_make(9), new = super_make(1);

	old.update = 50; /* newer in every way but number */
	put_all(&old);
	for (unsigned slot = 0; slot < 5; slot++)
		put(slot, &new);
	ck_assert_uint_eq(expect_found().uuid[0], 1);
	put(4, &old);
	ck_assert_uint_eq(expect_found().uuid[0], 9); /* a tie: the later mkfs */
}
END_TEST

START_TEST(copy_in_a_slot_that_is_not_its_own_does_not_count)
{
	struct super old = super_make(9), new = super_make(1);

	old.slots = 0x01;
	put_all(&old);
	new.slots = 0x06;
	put(1, &new);
	put(2, &new);
	ck_assert_uint_eq(expect_found().uuid[0], 1);
	put(0, &new);
	put(1, &old);
	put(2, &old);
	expect_error(-EUCLEAN, "not a mendfs filesystem");
}
END_TEST

START_TEST(poisoned_slots_are_skipped)
{
	struct super super = super_make(1);
	struct media_counts before, after;

	put_all(&super);
	for (unsigned slot = 0; slot < 7; slot++)
		ck_assert_int_eq(media_bad_add(media, super_slot_offset(slot) + 1024, 512), 0);
	media_counts(media, &before);
	ck_assert_uint_eq(expect_found().uuid[0], 1);
	media_counts(media, &after);
	ck_assert_uint_eq(after.sigbus, before.sigbus);
	ck_assert_int_eq(media_bad_add(media, super_slot_offset(7), 512), 0);
	expect_error(-EIO, "8 of its 8 places are poisoned");
}
END_TEST

START_TEST(latent_poison_is_met_and_passed_over)
{
	struct super super = super_make(1);
	struct media_counts counts;

	put_all(&super);
	ck_assert_int_eq(media_poison_arm(media, super_slot_offset(0) + 100, 1, true), 0);
	ck_assert_int_eq(media_poison_arm(media, super_slot_offset(1) + 4095, 1, true), 0);
	ck_assert_uint_eq(expect_found().uuid[0], 1);
	media_counts(media, &counts);
	ck_assert_uint_eq(counts.sigbus, 2);
	ck_assert_uint_eq(expect_found().uuid[0], 1);
	media_counts(media, &counts);
	ck_assert_uint_eq(counts.sigbus, 2);
}
END_TEST

START_TEST(damaged_copies_say_which_field)
{
	struct super super = super_make(1);
	struct format_super raw;

	format_super_pack(&raw, &super);
	raw.label[0] = 'x';
	put_raw(0, &raw);
	expect_error(-EUCLEAN, "wrong checksum");
	put(5, &super);
	ck_assert_uint_eq(expect_found().uuid[0], 1);
}
END_TEST

START_TEST(truncated_device_is_refused_with_both_sizes)
{
	struct super super = super_make(1);

	put_all(&super);
	media_close(media);
	ck_assert_int_eq(truncate(path, 32 << 20), 0);
	open_media();
	expect_error(-EUCLEAN, "truncated: the filesystem has 67108864 bytes, the file only 33554432");
	media_close(media);
	ck_assert_int_eq(truncate(path, 1 << 20), 0);
	open_media();
	expect_error(-EUCLEAN, "truncated");
	media_close(media);
	ck_assert_int_eq(truncate(path, 128 << 20), 0);
	open_media();
	ck_assert_uint_eq(expect_found().size_bytes, SIZE_BYTES);
}
END_TEST

START_TEST(unknown_incompatible_features_refuse_by_name)
{
	struct super super = super_make(1);

	super.compat = 1 << 5;
	super.ro_compat = 1 << 6;
	put_all(&super);
	ck_assert_uint_eq(expect_found().ro_compat, 1 << 6);
	super.incompat = 1 << 7;
	put_all(&super);
	expect_error(-ENOTSUP, "incompat bit 7");
}
END_TEST

START_TEST(newer_version_is_said)
{
	struct super super = super_make(1);
	struct format_super raw;

	format_super_pack(&raw, &super);
	raw.version = le32_make(FORMAT_VERSION + 1);
	raw.crc32c = le32_make(0);
	raw.crc32c = le32_make(crc32c(0, &raw, sizeof(raw)));
	put_raw(0, &raw);
	expect_error(-ENOTSUP, "use a newer mendfs");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("super");
	TCase *tcase = tcase_create("super");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, zeros_and_noise_are_not_mendfs);
	tcase_add_test(tcase, any_one_copy_is_enough);
	tcase_add_test(tcase, highest_update_wins);
	tcase_add_test(tcase, copies_of_an_earlier_mkfs_are_outvoted);
	tcase_add_test(tcase, copy_in_a_slot_that_is_not_its_own_does_not_count);
	tcase_add_test(tcase, poisoned_slots_are_skipped);
	tcase_add_test(tcase, latent_poison_is_met_and_passed_over);
	tcase_add_test(tcase, damaged_copies_say_which_field);
	tcase_add_test(tcase, truncated_device_is_refused_with_both_sizes);
	tcase_add_test(tcase, unknown_incompatible_features_refuse_by_name);
	tcase_add_test(tcase, newer_version_is_said);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
