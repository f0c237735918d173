/*
 * Where chunks of metadata lie, when the chunk table does not say it any more, or not the truth. A chunk that is put where it is not makes fsck write over what is
 * there: each test offers a wrong place, and nothing may be lost by it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "format/chunk_format.h"
#include "fs/inode.h"
#include "fsck/fsck.h"
#include "journal/chunk.h"
#include "rmap/rmap.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"
#include "tests/support/lab.h"
#include "util/log.h"

#define LAB_BYTES (24u << 20)
#define FILES 1200u

static struct lab *lab;
static uint8_t *image;
static struct fs_check_totals expected;
static struct super super;
static struct chunk_entry chunks[8];
static unsigned count_chunks;
static bool is_verbose;

/* --- a filesystem ------------------------------------------------------------------------------------------------------------ */

static struct fs *mount_as(bool readonly, bool repair)
{
	struct fs_options options = {.tools = true, .cache_bytes = 16u << 20, .readonly = readonly, .repair = repair};
	struct why why = {0};
	struct fs *fs = NULL;
	int error;

	lab_reset(lab);
	error = fs_mount_media(lab_media(lab), &options, &why, &fs);
	if (error)
		ck_abort_msg("mount: %s", why.text);
	return fs;
}

static void populate(struct fs *fs)
{
	const struct fs_who who = {.uid = 1000, .gid = 1000};
	struct fs_attr attr;
	char name[32];
	size_t done;

	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		expect_equal(fs_create(fs, &who, FS_ROOT_INO, name, S_IFREG | 0644, 0, &attr), 0);
		expect_equal(fs_write(fs, attr.ino, i % 3 * BLOCK_BYTES, name, sizeof(name), &done), 0);
		fs_forget(fs, attr.ino, 1);
	}
}

static void tell_finding(void *arg, const char *line)
{
	printf("finding: %s\n", line);
}

static void look(struct fs_check_totals *totals)
{
	struct fs *fs = mount_as(true, false);

	expect_equal(fs_check(fs, tell_finding, NULL, totals), 0);
	super = *fs_super(fs);
	journal_read_begin(fs->journal);
	for (count_chunks = 0; !chunk_entry(fs->journal, count_chunks, &chunks[count_chunks]); count_chunks++)
		expect(count_chunks + 1 < ARRAY_SIZE(chunks));
	journal_read_end(fs->journal);
	expect_equal(fs_unmount(fs), 0);
}

static void setup(void)
{
	struct fs *fs;

	log_set_level(LOG_LEVEL_SILENT);
	is_verbose = getenv("MENDFS_VERBOSE") != NULL;
	expect_equal(lab_create(LAB_BYTES, MEDIA_CACHELINE, &lab), 0);
	expect_equal(fsfix_format_media(lab_media(lab)), 0);
	fs = mount_as(false, false);
	populate(fs);
	expect_equal(fs_unmount(fs), 0);
	look(&expected);
	expect_equal(expected.findings, 0);
	expect(count_chunks >= 2);
	image = malloc(LAB_BYTES);
	memcpy(image, lab_bytes(lab), LAB_BYTES);
}

static void teardown(void)
{
	lab_destroy(lab);
	free(image);
}

/* --- what is done to it ------------------------------------------------------------------------------------------------------ */

static uint8_t *at(devoff_t place)
{
	return lab_bytes(lab) + place;
}

static void zero(devoff_t place)
{
	memset(at(place), 0, BLOCK_BYTES);
}

static devoff_t table_copy(unsigned copy)
{
	return super.areas[AREA_FIXED].copy[copy] + MADDR_TABLE * BLOCK_BYTES;
}

static void lose_table(void)
{
	zero(table_copy(0));
	zero(table_copy(1));
}

static void lose_headers(unsigned chunk)
{
	zero(chunks[chunk].copy[0]);
	zero(chunks[chunk].copy[1]);
}

static bool block_is_used(unsigned chunk, unsigned index)
{
	return chunks[chunk].map[index / 64] >> index % 64 & 1;
}

/* --- and what becomes of it -------------------------------------------------------------------------------------------------- */

static void tell(void *arg, enum fsck_grade grade, const char *line)
{
	if (is_verbose)
		printf("  %d %s\n", (int)grade, line);
}

static struct fsck_report repair(void)
{
	struct fsck_options options = {.write = true, .force = true, .tell = tell};
	struct fsck_report report;
	struct why why = {0};
	int error;

	lab_reset(lab);
	error = fsck_run(lab_media(lab), &options, &report, &why);
	if (error)
		ck_abort_msg("fsck: %s", why.text);
	return report;
}

static void expect_nothing_lost(void)
{
	struct fsck_report report = repair();
	struct fs_check_totals totals;

	expect(report.errors > 0);
	expect_equal(report.left, 0);
	expect_equal(report.losses, 0);
	report = repair();
	expect_equal(report.errors + report.fixed + report.left, 0);
	look(&totals);
	expect_equal(totals.findings, 0);
	expect_equal(totals.inodes, expected.inodes);
	expect_equal(totals.extents, expected.extents);
}

/* --- the tests --------------------------------------------------------------------------------------------------------------- */

START_TEST(one_block_elsewhere_is_outvoted_however_many_there_are)
{
	unsigned moved = 0;

	lose_table();
	lose_headers(0);
	/* Each further off than the one before, so each tells of another beginning; all before the chunk's second copy. */
	for (unsigned i = 1; 2 * i < chunk_blocks(chunks[0].shift) && moved < 8; i++) {
		if (!block_is_used(0, i) || !block_is_used(1, 2 * i))
			continue;
		memcpy(at(chunks[1].copy[0] + 2 * i * BLOCK_BYTES), image + chunks[0].copy[0] + i * BLOCK_BYTES, BLOCK_BYTES);
		moved++;
	}
	expect(moved > 3);
	expect_nothing_lost();
}
END_TEST

/* Of the second copy nothing is left, and one block that lies where it does not belong tells of another. */
START_TEST(no_chunk_is_found_over_a_fixed_area)
{
	unsigned index;

	lose_table();
	lose_headers(1);
	for (unsigned i = 0; i < chunk_blocks(chunks[1].shift); i++)
		zero(chunks[1].copy[1] + i * BLOCK_BYTES);
	for (index = 1; index < chunk_blocks(chunks[1].shift) - 1 && !block_is_used(1, index); index++)
		;
	for (unsigned i = 0; i < chunk_blocks(chunks[0].shift); i++) {
		struct format_block_header *header = (void *)at(chunks[0].copy[0] + i * BLOCK_BYTES);

		if (i && !block_is_used(0, i) && le32_get(header->magic) != FORMAT_BLOCK_MAGIC)
			memcpy(header, image + chunks[1].copy[0] + index * BLOCK_BYTES, BLOCK_BYTES);
	}
	expect_nothing_lost();
}
END_TEST

/* A header of the number's earlier life, whole, where by now a file's data may lie; those of this life are lost. */
static void leave_old_header(devoff_t other_copy)
{
	devoff_t place = LAB_BYTES - (1u << 20);
	struct format_chunk_header *header = (void *)at(place);

	memcpy(header, image + chunks[1].copy[0], BLOCK_BYTES);
	header->copy[0] = le64_make(place);
	header->copy[1] = le64_make(other_copy);
	format_block_seal(header, 1);
	lose_table();
	lose_headers(1);
}

START_TEST(a_header_of_an_earlier_life_is_not_believed)
{
	leave_old_header(LAB_BYTES - (512u << 10));
	expect_nothing_lost();
}
END_TEST

typedef int rmap_fn(const struct rmap *rmap, struct tx *tx, const struct rmap_record *record);

/* As copies of chunk `number`: so many blocks, so far into those of chunk `from`. */
static void change_rmap(rmap_fn *change, unsigned number, unsigned from, uint64_t skip, uint64_t count)
{
	struct fs *fs = mount_as(false, true);
	struct tx *tx;

	expect_equal(fs_tx_begin(fs, TX_RESERVE, &tx), 0);
	for (unsigned copy = 0; copy < 2; copy++) {
		const struct rmap_record record = {
			.start = chunks[from].copy[copy] / BLOCK_BYTES + skip, .count = count, .owner = OWNER(OWNER_CHUNK),
			.offset = (number * 2ull + copy) * CHUNK_SLOTS,
		};

		expect_equal(change(&fs->rmap, tx, &record), 0);
	}
	expect_equal(tx_commit(tx, NULL), 0);
	expect_equal(fs_unmount(fs), 0);
}

/* The leaf that would deny it is lost too. */
START_TEST(a_header_whose_place_is_taken_gives_way_to_other_witnesses)
{
	change_rmap(rmap_remove, 1, 1, 0, chunk_blocks(chunks[1].shift));
	leave_old_header(chunks[0].copy[1]);
	expect_nothing_lost();
}
END_TEST

START_TEST(a_replica_that_nothing_tells_of_is_made_anew)
{
	struct fs *fs;
	struct chunk_entry entry;

	change_rmap(rmap_remove, 1, 1, 0, chunk_blocks(chunks[1].shift));
	lose_table();
	lose_headers(1);
	for (unsigned i = 0; i < chunk_blocks(chunks[1].shift); i++)
		zero(chunks[1].copy[1] + i * BLOCK_BYTES);
	expect_nothing_lost();
	fs = mount_as(true, false);
	journal_read_begin(fs->journal);
	expect_equal(chunk_entry(fs->journal, 1, &entry), 0);
	journal_read_end(fs->journal);
	expect_equal(entry.copy[0], chunks[1].copy[0]);
	expect(entry.copy[1] != 0);
	expect_equal(fs_unmount(fs), 0);
}
END_TEST

START_TEST(two_entries_with_one_place_are_both_made_anew)
{
	for (unsigned copy = 0; copy < 2; copy++) {
		struct format_chunk_table_block *block = (void *)at(table_copy(copy));

		memcpy(block->entries[1].copy, block->entries[0].copy, sizeof(block->entries[0].copy));
		format_block_seal(block, le64_get(block->header.sequence));
	}
	expect_nothing_lost();
}
END_TEST

START_TEST(an_entry_over_a_fixed_area_is_made_anew)
{
	for (unsigned copy = 0; copy < 2; copy++) {
		struct format_chunk_table_block *block = (void *)at(table_copy(copy));

		block->entries[1].copy[1] = le64_make(super.areas[AREA_JOURNAL].copy[1]);
		format_block_seal(block, le64_get(block->header.sequence));
	}
	expect_nothing_lost();
}
END_TEST

/* A record of the reverse map that is out of date, of a chunk that the table does not have. */
START_TEST(the_reverse_map_puts_no_chunk_where_another_is)
{
	change_rmap(rmap_insert, count_chunks, 0, 16, 32);
	lose_table();
	expect_nothing_lost();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fsck_table");
	TCase *t = tcase_create("plain");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, one_block_elsewhere_is_outvoted_however_many_there_are);
	tcase_add_test(t, no_chunk_is_found_over_a_fixed_area);
	tcase_add_test(t, a_header_of_an_earlier_life_is_not_believed);
	tcase_add_test(t, a_header_whose_place_is_taken_gives_way_to_other_witnesses);
	tcase_add_test(t, a_replica_that_nothing_tells_of_is_made_anew);
	tcase_add_test(t, two_entries_with_one_place_are_both_made_anew);
	tcase_add_test(t, an_entry_over_a_fixed_area_is_made_anew);
	tcase_add_test(t, the_reverse_map_puts_no_chunk_where_another_is);
	suite_add_tcase(suite, t);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
