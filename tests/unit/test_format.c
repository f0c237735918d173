/* fs/format: the trees of a new filesystem agree with each other, whatever was bad before. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/fs.h"
#include "fs/query.h"
#include "journal/journal.h"
#include "notify/poison_log.h"
#include "tests/support/expect.h"
#include "tests/support/random.h"

#define SIZE_BYTES (256ull << 20)
#define JOURNAL_BYTES (JOURNAL_RING_MIN + BLOCK_BYTES)
#define TIME_NS 1700000000000000123ull

/* Where this test's fixed places lie; bad ranges stay out of them, as mkfs's plan does. */
static const struct iset_range fixed[] = {
	{0x1000, 0x200000, 0}, {0x201000, 0x270000, 0}, {0x2000000, 0x2200000, 0}, {0x2201000, 0x2270000, 0},
};

struct image {
	char path[64];
	struct super super;
	struct media_poison *bad;
	size_t count_bad;
};

static void image_init(struct image *image, unsigned copies)
{
	struct super super = {
		.version = FORMAT_VERSION,
		.update = 1,
		.size_bytes = SIZE_BYTES,
		.copies = (uint8_t)copies,
		.chunk_shift = 18,
		.slots = 0xff,
		.device_count = 1,
		.mkfs_time_ns = TIME_NS,
		.areas = {
			[AREA_JOURNAL] = {{0x10000, 0x2010000}, JOURNAL_BYTES},
			[AREA_FIXED] = {{0x201000, 0x2201000}, 0x10000},
			[AREA_POISON_LOG] = {{0x211000, 0x2211000}, POISON_LOG_BYTES},
		},
	};
	int fd;

	memset(super.meta_uuid, 7, 16);
	memset(super.uuid, 8, 16);
	if (copies == 1)
		super.areas[AREA_FIXED].copy[1] = 0;
	memset(image, 0, sizeof(*image));
	image->super = super;
	snprintf(image->path, sizeof(image->path), "%s/mendfs-test-XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	fd = mkstemp(image->path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, SIZE_BYTES), 0);
	close(fd);
}

static void image_fini(struct image *image)
{
	char beside[80];

	unlink(image->path);
	snprintf(beside, sizeof(beside), "%s.poison", image->path);
	unlink(beside);
	free(image->bad);
}

static void image_set_bad(struct image *image, const struct iset *bad)
{
	image->count_bad = bad->count;
	image->bad = calloc(bad->count + 1, sizeof(*image->bad));
	for (size_t i = 0; i < bad->count; i++) {
		image->bad[i].offset = bad->ranges[i].start;
		image->bad[i].length = bad->ranges[i].end - bad->ranges[i].start;
	}
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
		if (iset_overlaps(bad, super_slot_offset(slot), super_slot_offset(slot) + BLOCK_BYTES))
			image->super.slots &= ~(1u << slot);
}

static int image_format_media(struct image *image, struct media *media, struct why *why)
{
	struct fs_format_options options = {
		.bad = image->bad,
		.count_bad = image->count_bad,
		.chunk = {0x230000, image->super.copies == 2 ? 0x2230000 : 0},
		.uid = 12,
		.gid = 34,
		.time_ns = TIME_NS,
		.bad_source = FAILURE_KERNEL,
	};
	struct format_super raw;
	int error = 0;

	for (size_t i = 0; i < image->count_bad && !error; i++)
		error = media_bad_add(media, image->bad[i].offset, image->bad[i].length);
	if (!error)
		error = journal_format(media, &image->super, options.chunk);
	if (!error)
		error = poison_log_format(media, &image->super);
	if (!error)
		error = fs_format(media, &image->super, &options, why);
	format_super_pack(&raw, &image->super);
	for (unsigned slot = 0; slot < SUPER_SLOTS && !error; slot++)
		if (image->super.slots >> slot & 1)
			error = media_write(media, super_slot_offset(slot), &raw, sizeof(raw), NULL);
	return error;
}

static int image_format(struct image *image, struct why *why)
{
	const struct media_options options = {0};
	struct media *media;
	int error = media_open(image->path, &options, why, &media), closed;

	if (error)
		return error;
	error = image_format_media(image, media, why);
	closed = media_close(media);
	return error ? error : closed;
}

static void say(void *arg, const char *line)
{
	fprintf(stderr, "check: %s\n", line);
}

static struct fs *image_mount(struct image *image)
{
	/* Read-only: a writable mount would begin to repair what it knows to be bad. */
	const struct fs_options options = {.tools = true, .readonly = true, .commit_seconds = 1};
	struct fs_check_totals totals;
	struct why why = {""};
	struct fs *fs;

	ck_assert_msg(fs_mount(image->path, &options, &why, &fs) == 0, "%s", why.text);
	ck_assert_int_eq(fs_check(fs, say, NULL, &totals), 0);
	ck_assert_uint_eq(totals.findings, 0);
	return fs;
}

static struct fs *image_make(struct image *image)
{
	struct why why = {""};

	ck_assert_msg(image_format(image, &why) == 0, "%s", why.text);
	return image_mount(image);
}

START_TEST(new_filesystem_checks_clean)
{
	for (unsigned copies = 1; copies <= 2; copies++) {
		struct fs_summary summary;
		struct image image;
		struct fs *fs;

		image_init(&image, copies);
		fs = image_make(&image);
		ck_assert_int_eq(fs_summary(fs, &summary), 0);
		ck_assert_uint_eq(summary.badblock_bytes, 0);
		ck_assert_uint_eq(summary.quarantined_bytes, 0);
		ck_assert_uint_gt(summary.free_bytes, SIZE_BYTES * 8 / 10);
		ck_assert_int_eq(fs_unmount(fs), 0);
		image_fini(&image);
	}
}
END_TEST

START_TEST(root_directory_is_as_asked_for)
{
	struct fs_attr attr;
	struct image image;
	struct fs *fs;

	image_init(&image, 2);
	fs = image_make(&image);
	ck_assert_int_eq(fs_getattr(fs, FS_ROOT_INO, &attr), 0);
	ck_assert_uint_eq(attr.record.mode, 040755);
	ck_assert_uint_eq(attr.record.nlink, 2);
	ck_assert_uint_eq(attr.record.uid, 12);
	ck_assert_uint_eq(attr.record.gid, 34);
	ck_assert_uint_eq(attr.record.parent, FS_ROOT_INO);
	ck_assert_int_eq(attr.record.mtime.sec, 1700000000);
	ck_assert_uint_eq(attr.record.mtime.nsec, 123);
	ck_assert_int_eq(fs_unmount(fs), 0);
	image_fini(&image);
}
END_TEST

struct owner_count {
	uint64_t bytes[8];
	uint64_t end;
};

static int owner_count(void *arg, const struct fs_owner *owner)
{
	struct owner_count *count = arg;

	expect_equal(owner->device_offset, count->end);
	count->bytes[owner->kind] += owner->length_bytes;
	count->end += owner->length_bytes;
	return 0;
}

static void count_owners(struct fs *fs, struct owner_count *count)
{
	memset(count, 0, sizeof(*count));
	ck_assert_int_eq(fs_owners(fs, 0, SIZE_BYTES, owner_count, count), 0);
	ck_assert_uint_eq(count->end, SIZE_BYTES);
}

START_TEST(every_byte_has_an_owner)
{
	struct owner_count count;
	struct fs_summary summary;
	struct image image;
	struct fs *fs;

	image_init(&image, 2);
	fs = image_make(&image);
	count_owners(fs, &count);
	ck_assert_int_eq(fs_summary(fs, &summary), 0);
	ck_assert_uint_eq(count.bytes[FS_OWNER_SUPERBLOCK], 8 * 4096);
	ck_assert_uint_eq(count.bytes[FS_OWNER_JOURNAL], 2 * JOURNAL_BYTES);
	ck_assert_uint_eq(count.bytes[FS_OWNER_FREE], summary.free_bytes);
	ck_assert_uint_eq(count.bytes[FS_OWNER_DATA], 0);
	ck_assert_uint_eq(count.bytes[FS_OWNER_QUARANTINE], 0);
	ck_assert_int_eq(fs_unmount(fs), 0);
	image_fini(&image);
}
END_TEST

static bool is_fixed(uint64_t start, uint64_t end)
{
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		if (start < fixed[i].end && fixed[i].start < end)
			return true;
	return false;
}

static void bad_random(struct iset *bad, unsigned count)
{
	struct random random = random_start("bad_random");

	iset_init(bad);
	while (bad->count < count) {
		uint64_t start = random_below(&random, SIZE_BYTES / 512) * 512;
		uint64_t end = min_u64(start + 512 * (1 + random_below(&random, 12)), SIZE_BYTES);

		if (!is_fixed(start, end))
			expect_equal(iset_add(bad, start, end, 0), 0);
	}
}

/* Whole blocks around the ranges, superblock slots not among them. */
static uint64_t bad_block_bytes(const struct iset *bad)
{
	struct iset blocks;
	uint64_t bytes;

	iset_init(&blocks);
	for (size_t i = 0; i < bad->count; i++)
		iset_add(&blocks, round_down_u64(bad->ranges[i].start, BLOCK_BYTES),
			 round_up_u64(bad->ranges[i].end, BLOCK_BYTES), 0);
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
		iset_remove(&blocks, super_slot_offset(slot), super_slot_offset(slot) + BLOCK_BYTES);
	bytes = iset_bytes(&blocks);
	iset_fini(&blocks);
	return bytes;
}

static int badblock_match(void *arg, const struct badblock_record *record)
{
	struct iset *bad = arg;

	expect_equal(record->source, FAILURE_KERNEL);
	expect(record->state == BADBLOCK_BAD || record->state == BADBLOCK_QUARANTINED);
	expect(iset_covers(bad, record->offset, record->offset + record->length_bytes));
	return iset_remove(bad, record->offset, record->offset + record->length_bytes);
}

static void check_bad(unsigned copies, struct iset *bad)
{
	uint64_t badblock_bytes = iset_bytes(bad), quarantined = bad_block_bytes(bad);
	struct owner_count count;
	struct fs_summary summary;
	struct image image;
	struct fs *fs;

	image_init(&image, copies);
	image_set_bad(&image, bad);
	fs = image_make(&image);
	ck_assert_int_eq(fs_summary(fs, &summary), 0);
	ck_assert_uint_eq(summary.badblock_bytes, badblock_bytes);
	ck_assert_uint_eq(summary.quarantined_bytes, quarantined);
	ck_assert_uint_eq(summary.damaged_files, 0);
	count_owners(fs, &count);
	ck_assert_uint_eq(count.bytes[FS_OWNER_QUARANTINE], quarantined);
	ck_assert_uint_eq(count.bytes[FS_OWNER_FREE], summary.free_bytes);
	ck_assert_int_eq(fs_badblocks(fs, badblock_match, bad), 0);
	ck_assert_uint_eq(bad->count, 0);
	ck_assert_int_eq(fs_unmount(fs), 0);
	image_fini(&image);
	iset_fini(bad);
}

START_TEST(poison_known_before_is_quarantined_and_in_the_ledger)
{
	struct iset bad;

	bad_random(&bad, 10);
	check_bad(2, &bad);
}
END_TEST

START_TEST(thousands_of_bad_ranges_are_entered_in_bounded_steps)
{
	struct iset bad;

	bad_random(&bad, 4000);
	check_bad(2, &bad);
	bad_random(&bad, 4000);
	check_bad(1, &bad);
}
END_TEST

START_TEST(superblock_slot_under_poison_stays_a_slot)
{
	struct iset bad;

	iset_init(&bad);
	iset_add(&bad, super_slot_offset(3) + 512, super_slot_offset(3) + 8192, 0);
	iset_add(&bad, SIZE_BYTES - 512, SIZE_BYTES, 0);
	check_bad(2, &bad);
}
END_TEST

START_TEST(no_room_for_the_metadata_of_the_poison_is_said)
{
	struct image image;
	struct why why = {""};
	struct iset bad;

	iset_init(&bad);
	for (uint64_t at = 0; at < SIZE_BYTES; at += 8192)
		if (!is_fixed(at, at + 512))
			ck_assert_int_eq(iset_add(&bad, at, at + 512, 0), 0);
	image_init(&image, 2);
	image_set_bad(&image, &bad);
	ck_assert_int_eq(image_format(&image, &why), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(why.text, "known poison"));
	image_fini(&image);
	iset_fini(&bad);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("format");
	TCase *tcase = tcase_create("format");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, new_filesystem_checks_clean);
	tcase_add_test(tcase, root_directory_is_as_asked_for);
	tcase_add_test(tcase, every_byte_has_an_owner);
	tcase_add_test(tcase, poison_known_before_is_quarantined_and_in_the_ledger);
	tcase_add_test(tcase, thousands_of_bad_ranges_are_entered_in_bounded_steps);
	tcase_add_test(tcase, superblock_slot_under_poison_stays_a_slot);
	tcase_add_test(tcase, no_room_for_the_metadata_of_the_poison_is_said);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
