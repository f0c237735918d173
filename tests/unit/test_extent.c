/* Extents: how a file's map is written, merged, split and taken away. */
#include "tests/support/files.h"

#include <errno.h>

#include "fs/data.h"

static struct fsfix fix;
static inum_t ino;

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, FSFIX_USUAL_BYTES), 0);
	ino = files_new(&fix, "file");
}

static void teardown(void)
{
	files_check(&fix);
	fsfix_destroy(&fix);
}

START_TEST(insert_merges_with_both_neighbours)
{
	struct files_map map;

	files_write(&fix, ino, 1, 0, 3 * BLOCK_BYTES);
	files_map(&fix, ino, &map);
	expect_equal(map.count, 1);
	expect_equal(map.extents[0].length_bytes, 3 * BLOCK_BYTES);
}
END_TEST

START_TEST(appends_make_one_extent_record)
{
	struct files_map map;
	uint8_t bytes[1000];
	size_t done;

	for (unsigned i = 0; i < 200; i++) {
		files_fill(bytes, 1, i * sizeof(bytes), sizeof(bytes));
		expect_equal(fs_append(fix.fs, ino, bytes, sizeof(bytes), &done), 0);
		expect_equal(done, sizeof(bytes));
	}
	files_map(&fix, ino, &map);
	expect_equal(map.count, 1);
	expect_equal(files_size(&fix, ino), 200 * sizeof(bytes));
	files_expect(&fix, ino, 1, 0, 200 * sizeof(bytes));
}
END_TEST

START_TEST(unmap_of_the_middle_splits_the_extent)
{
	struct files_map map;

	files_write(&fix, ino, 1, 0, 8 * BLOCK_BYTES);
	expect_equal(fs_fallocate(fix.fs, ino, 3 /* PUNCH_HOLE | KEEP_SIZE */, 3 * BLOCK_BYTES,
				  2 * BLOCK_BYTES),
		     0);
	files_map(&fix, ino, &map);
	expect_equal(map.count, 2);
	expect_equal(map.extents[0].length_bytes, 3 * BLOCK_BYTES);
	expect_equal(map.extents[1].pos, 5 * BLOCK_BYTES);
	files_expect(&fix, ino, 0, 3 * BLOCK_BYTES, 2 * BLOCK_BYTES);
	files_expect(&fix, ino, 1, 5 * BLOCK_BYTES, 3 * BLOCK_BYTES);
	expect_equal(files_record(&fix, ino).count_blocks, 6);
}
END_TEST

START_TEST(a_written_part_of_unwritten_space_becomes_its_own_extent)
{
	struct files_map map;

	expect_equal(fs_fallocate(fix.fs, ino, 0, 0, 10 * BLOCK_BYTES), 0);
	files_expect(&fix, ino, 0, 0, 10 * BLOCK_BYTES);
	files_write(&fix, ino, 1, 4 * BLOCK_BYTES + 100, 200);
	files_map(&fix, ino, &map);
	expect_equal(map.count, 3);
	expect(!map.extents[0].written && map.extents[1].written && !map.extents[2].written);
	expect_equal(map.extents[1].length_bytes, BLOCK_BYTES);
	files_expect(&fix, ino, 0, 0, 4 * BLOCK_BYTES + 100);
	files_expect(&fix, ino, 1, 4 * BLOCK_BYTES + 100, 200);
	files_expect(&fix, ino, 0, 4 * BLOCK_BYTES + 300, BLOCK_BYTES);
	files_write(&fix, ino, 1, 0, 10 * BLOCK_BYTES);
	files_map(&fix, ino, &map);
	expect_equal(map.count, 1);
	expect_equal(files_record(&fix, ino).count_blocks, 10);
}
END_TEST

START_TEST(lookup_clips_to_where_it_was_asked)
{
	struct extent e;

	files_write(&fix, ino, 1, 2 * BLOCK_BYTES, 4 * BLOCK_BYTES);
	journal_read_begin(fix.fs->journal);
	expect_equal(extent_lookup(fix.fs, ino, 0, &e), 0);
	expect_equal(e.file_block, 2);
	expect_equal(e.count_blocks, 4);
	expect_equal(extent_lookup(fix.fs, ino, 4, &e), 0);
	expect_equal(e.file_block, 4);
	expect_equal(e.count_blocks, 2);
	expect_equal(extent_lookup(fix.fs, ino, 6, &e), -ENOENT);
	journal_read_end(fix.fs->journal);
}
END_TEST

START_TEST(insert_over_a_mapping_is_refused)
{
	struct extent e;
	struct tx *tx;

	files_write(&fix, ino, 1, 0, 4 * BLOCK_BYTES);
	expect_equal(fs_tx_begin(fix.fs, TX_NORMAL, &tx), 0);
	expect_equal(extent_lookup(fix.fs, ino, 0, &e), 0);
	e.file_block = 3;
	expect_equal(extent_insert(fix.fs, tx, ino, &e), -EEXIST);
	tx_abort(tx);
}
END_TEST

START_TEST(a_large_file_begins_on_two_mib)
{
	files_write(&fix, ino, 1, 0, 1u << 20);
	expect_equal(files_device_offset(&fix, ino, 0) % HUGE_BYTES, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("extent");
	TCase *tests = tcase_create("extent");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, insert_merges_with_both_neighbours);
	tcase_add_test(tests, appends_make_one_extent_record);
	tcase_add_test(tests, unmap_of_the_middle_splits_the_extent);
	tcase_add_test(tests, a_written_part_of_unwritten_space_becomes_its_own_extent);
	tcase_add_test(tests, lookup_clips_to_where_it_was_asked);
	tcase_add_test(tests, insert_over_a_mapping_is_refused);
	tcase_add_test(tests, a_large_file_begins_on_two_mib);
	suite_add_tcase(suite, tests);
	return files_run(suite);
}
