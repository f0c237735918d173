#include "fs/check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "journal/chunk.h"
#include "journal/root.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"

/* Each test damages one thing through a transaction and wants it found: a check that finds nothing proves nothing. */

static struct fsfix fix;
static inum_t dir, file, copied_file;

static void setup(void)
{
	char data[40000];
	struct fs_attr attr;
	uint64_t copied;
	size_t done;

	memset(data, 'x', sizeof(data));
	expect_equal(fsfix_create_mounted(&fix, 64u << 20), 0);
	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "dir", &dir), 0);
	expect_equal(fsfix_mkfile(&fix, dir, "file", &file), 0);
	expect_equal(fsfix_mkfile(&fix, dir, "clone", &copied_file), 0);
	expect_equal(fs_write(fix.fs, file, 0, data, sizeof(data), &done), 0);
	expect_equal(fs_copy_range(fix.fs, file, 0, copied_file, 0, sizeof(data), &copied), 0);
	expect_equal(fs_link(fix.fs, file, FS_ROOT_INO, "link", &attr), 0);
	fs_forget(fix.fs, file, 1);
	expect_equal(fsfix_check(&fix), 0);
}

static void teardown(void)
{
	fsfix_destroy(&fix);
}

static struct tx *begin(void)
{
	struct tx *tx = NULL;

	expect_equal(fs_tx_begin(fix.fs, TX_RESERVE, &tx), 0);
	return tx;
}

static void commit_and_expect_findings(struct tx *tx)
{
	expect_equal(tx_commit(tx, NULL), 0);
	expect(fsfix_check(&fix) > 0);
}

static void change_inode(inum_t ino, void (*change)(struct inode_record *record))
{
	struct tx *tx = begin();
	struct inode_record record;
	struct inode *inode;

	expect_equal(inode_get_tx(fix.fs, tx, ino, &inode), 0);
	record = inode->record;
	change(&record);
	expect_equal(inode_update(inode, tx, &record), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	inode_put(inode);
	expect(fsfix_check(&fix) > 0);
}

static struct extent first_extent(inum_t ino)
{
	struct extent extent;

	journal_read_begin(fix.fs->journal);
	expect_equal(extent_lookup(fix.fs, ino, 0, &extent), 0);
	journal_read_end(fix.fs->journal);
	return extent;
}

START_TEST(a_lost_reverse_mapping_is_found)
{
	struct extent extent = first_extent(file);
	struct rmap_record record = {.start = extent.block + 1, .count = 1, .owner = file, .offset = 1};
	struct tx *tx = begin();

	expect_equal(rmap_remove(&fix.fs->rmap, tx, &record), 0);
	commit_and_expect_findings(tx);
}
END_TEST

START_TEST(a_reverse_mapping_one_block_off_is_found)
{
	struct extent extent = first_extent(copied_file);
	struct rmap_record record = {
		.start = extent.block, .count = extent.count_blocks, .owner = copied_file, .offset = 0,
	};
	struct tx *tx = begin();

	expect_equal(rmap_remove(&fix.fs->rmap, tx, &record), 0);
	record.offset = 1;
	expect_equal(rmap_insert(&fix.fs->rmap, tx, &record), 0);
	commit_and_expect_findings(tx);
}
END_TEST

START_TEST(a_lost_extent_is_found)
{
	struct btree_key key = {{file, 0}};
	struct tx *tx = begin();

	expect_equal(btree_remove(&fix.fs->extents, tx, &key), 0);
	commit_and_expect_findings(tx);
}
END_TEST

START_TEST(a_block_both_free_and_owned_is_found)
{
	struct extent extent = first_extent(file);
	struct tx *tx = begin();

	expect_equal(alloc_give(fix.fs->alloc, tx, extent.block, 1), 0);
	commit_and_expect_findings(tx);
}
END_TEST

START_TEST(a_block_neither_free_nor_owned_is_found)
{
	struct alloc_request request = {.want_blocks = 3, .least_blocks = 1, .align_blocks = 1};
	struct tx *tx = begin();
	uint64_t count;
	blkno_t start;

	expect_equal(alloc_take(fix.fs->alloc, tx, &request, &start, &count), 0);
	commit_and_expect_findings(tx);
}
END_TEST

static void drop_share_flag(struct inode_record *record)
{
	record->flags &= ~INODE_MAY_SHARE;
}

START_TEST(a_sharer_without_its_flag_is_found)
{
	change_inode(file, drop_share_flag);
}
END_TEST

static void add_link(struct inode_record *record)
{
	record->nlink++;
}

START_TEST(a_wrong_link_count_is_found)
{
	change_inode(file, add_link);
}
END_TEST

START_TEST(a_wrong_link_count_of_a_directory_is_found)
{
	change_inode(dir, add_link);
}
END_TEST

static void add_entry(struct inode_record *record)
{
	record->entries++;
}

START_TEST(a_wrong_count_of_entries_is_found)
{
	change_inode(dir, add_entry);
}
END_TEST

static void add_block(struct inode_record *record)
{
	record->count_blocks++;
}

START_TEST(a_wrong_count_of_blocks_is_found)
{
	change_inode(file, add_block);
}
END_TEST

static void own_parent(struct inode_record *record)
{
	record->parent = dir;
}

START_TEST(a_directory_above_itself_is_found)
{
	change_inode(dir, own_parent);
}
END_TEST

/* The first record of a tree at or after the key. */
static struct btree_key key_at(const struct btree *tree, inum_t ino)
{
	struct btree_key key = {{ino}};
	struct btree_record found;

	journal_read_begin(fix.fs->journal);
	expect_equal(btree_lookup_ge(tree, &key, &found), 0);
	journal_read_end(fix.fs->journal);
	return found.key;
}

START_TEST(a_lost_parent_record_is_found)
{
	struct btree_key key = key_at(&fix.fs->parents, file);
	struct tx *tx = begin();

	expect_equal(btree_remove(&fix.fs->parents, tx, &key), 0);
	commit_and_expect_findings(tx);
}
END_TEST

START_TEST(a_lost_directory_entry_is_found)
{
	struct btree_key key = key_at(&fix.fs->dirents, dir);
	struct tx *tx = begin();

	expect_equal(btree_remove(&fix.fs->dirents, tx, &key), 0);
	commit_and_expect_findings(tx);
}
END_TEST

START_TEST(an_entry_under_a_foreign_hash_is_found)
{
	struct btree_key key = key_at(&fix.fs->dirents, dir), parent;
	struct btree_record found;
	struct dirent_record record;
	struct tx *tx = begin();

	expect_equal(btree_lookup(&fix.fs->dirents, &key, &found), 0);
	expect_equal(format_dirent_unpack(&record, found.value, found.length), 0);
	expect_equal(btree_remove(&fix.fs->dirents, tx, &key), 0);
	parent = (struct btree_key){{record.ino, dir, key.word[1]}};
	expect_equal(btree_remove(&fix.fs->parents, tx, &parent), 0);
	key.word[1] ^= 1ull << 40;
	parent.word[2] = key.word[1];
	expect_equal(btree_insert(&fix.fs->dirents, tx, &key, found.value, found.length), 0);
	expect_equal(btree_insert(&fix.fs->parents, tx, &parent, NULL, 0), 0);
	commit_and_expect_findings(tx);
}
END_TEST

START_TEST(a_lost_inode_is_found)
{
	struct btree_key key = {{file}};
	struct tx *tx = begin();

	expect_equal(btree_remove(&fix.fs->inodes, tx, &key), 0);
	commit_and_expect_findings(tx);
}
END_TEST

START_TEST(an_orphan_record_of_a_named_inode_is_found)
{
	struct btree_key key = {{file}};
	struct tx *tx = begin();

	expect_equal(btree_insert(&fix.fs->orphans, tx, &key, NULL, 0), 0);
	expect_equal(root_add(tx, ROOT_ORPHANS, 1), 0);
	commit_and_expect_findings(tx);
}
END_TEST

START_TEST(wrong_counters_are_found)
{
	static const enum root_counter counters[] = {ROOT_INODES, ROOT_FREE_BLOCKS, ROOT_ORPHANS, ROOT_INTENTS,
						     ROOT_QUARANTINED_BLOCKS};

	for (unsigned i = 0; i < ARRAY_SIZE(counters); i++) {
		struct tx *tx = begin();

		expect_equal(root_add(tx, counters[i], 1), 0);
		commit_and_expect_findings(tx);
		tx = begin();
		expect_equal(root_add(tx, counters[i], -1), 0);
		expect_equal(tx_commit(tx, NULL), 0);
		expect_equal(fsfix_check(&fix), 0);
	}
}
END_TEST

/* Without the background thread, which would have it gone before anybody looks. */
START_TEST(a_metadata_chunk_on_its_way_back_is_no_finding)
{
	struct tx *tx;
	uint64_t chunk;
	char name[16];
	inum_t ino;

	expect_equal(fsfix_unmount(&fix), 0);
	fix.options.tools = true;
	expect_equal(fsfix_mount(&fix), 0);
	for (int i = 0; i < 4000; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		expect_equal(fsfix_mkfile(&fix, dir, name, &ino), 0);
	}
	for (int i = 0; i < 4000; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		expect_equal(fs_unlink(fix.fs, dir, name), 0);
	}
	tx = begin();
	expect_equal(chunk_find_empty(fix.fs->journal, &chunk), 0);
	expect_equal(chunk_retire(tx, chunk), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(totals_say_what_was_compared)
{
	struct fs_check_totals totals;

	expect_equal(fs_check(fix.fs, NULL, NULL, &totals), 0);
	expect_equal(totals.inodes, 4);
	expect(totals.extents >= 2);
	expect(totals.rmap_records >= 2);
	expect_equal(totals.blocks_compared, 4 * 10);
}
END_TEST

static void add_tests(TCase *t)
{
	tcase_add_test(t, a_lost_reverse_mapping_is_found);
	tcase_add_test(t, a_reverse_mapping_one_block_off_is_found);
	tcase_add_test(t, a_lost_extent_is_found);
	tcase_add_test(t, a_block_both_free_and_owned_is_found);
	tcase_add_test(t, a_block_neither_free_nor_owned_is_found);
	tcase_add_test(t, a_sharer_without_its_flag_is_found);
	tcase_add_test(t, a_wrong_link_count_is_found);
	tcase_add_test(t, a_wrong_link_count_of_a_directory_is_found);
	tcase_add_test(t, a_wrong_count_of_entries_is_found);
	tcase_add_test(t, a_wrong_count_of_blocks_is_found);
	tcase_add_test(t, a_directory_above_itself_is_found);
	tcase_add_test(t, a_lost_parent_record_is_found);
	tcase_add_test(t, a_lost_directory_entry_is_found);
	tcase_add_test(t, an_entry_under_a_foreign_hash_is_found);
	tcase_add_test(t, a_lost_inode_is_found);
	tcase_add_test(t, an_orphan_record_of_a_named_inode_is_found);
	tcase_add_test(t, wrong_counters_are_found);
	tcase_add_test(t, a_metadata_chunk_on_its_way_back_is_no_finding);
	tcase_add_test(t, totals_say_what_was_compared);
}

int main(void)
{
	Suite *suite = suite_create("check");
	TCase *t = tcase_create("plain");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	add_tests(t);
	suite_add_tcase(suite, t);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
