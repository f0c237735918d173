#include "tests/support/journalfix.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>

static struct journalfix fix;

static void setup(void)
{
	fix_create_open(&fix, 2);
}

static void teardown(void)
{
	fix_destroy(&fix);
	unsetenv("PMEM2_FORCE_GRANULARITY");
}

static void use_persistent_memory(void)
{
	fix_destroy(&fix);
	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	fix_create_open(&fix, 2);
}

static uint64_t count_records(void)
{
	struct journal_counts counts;

	journal_counts(fix.journal, &counts);
	return counts.records;
}

START_TEST(abort_puts_every_block_back)
{
	maddr_t old = fix_new_block(&fix, 1), gone = fix_new_block(&fix, 2), fresh;
	uint64_t free_blocks = root_get(fix.journal, ROOT_META_FREE), records = count_records();
	struct buf *buf;
	struct tx *tx = fix_begin(&fix);

	fix_set_word(tx, old, 5, 99);
	fix_destroy_block(tx, gone);
	fresh = fix_create_block(tx, 3);
	ck_assert_uint_eq(fresh, gone);
	fresh = fix_create_block(tx, 3);
	ck_assert_int_eq(root_add(tx, ROOT_INODES, 5), 0);
	tx_abort(tx);
	ck_assert_uint_eq(fix_word(&fix, old, 5), 1);
	ck_assert_uint_eq(fix_word(&fix, gone, 5), 2);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_INODES), 0);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_META_FREE), free_blocks);
	ck_assert_uint_eq(count_records(), records);
	journal_read_begin(fix.journal);
	ck_assert_int_eq(buf_get_any(fix.journal, fresh, &buf), -EUCLEAN);
	journal_read_end(fix.journal);
}
END_TEST

struct seen {
	maddr_t address;
	uint64_t word, inodes;
};

static void *look(void *arg)
{
	struct seen *seen = arg;

	seen->word = fix_word(&fix, seen->address, 5);
	journal_read_begin(fix.journal);
	seen->inodes = root_get(fix.journal, ROOT_INODES);
	journal_read_end(fix.journal);
	return NULL;
}

static void expect_seen(maddr_t address, uint64_t word, uint64_t inodes)
{
	struct seen seen = { .address = address };
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, look, &seen), 0);
	pthread_join(thread, NULL);
	ck_assert_uint_eq(seen.word, word);
	ck_assert_uint_eq(seen.inodes, inodes);
}

START_TEST(readers_do_not_wait_for_a_transaction_and_see_what_was_committed)
{
	maddr_t address = fix_new_block(&fix, 1);
	struct tx *tx = fix_begin(&fix);

	fix_set_word(tx, address, 5, 99);
	ck_assert_int_eq(root_add(tx, ROOT_INODES, 3), 0);
	expect_seen(address, 1, 0);
	fix_destroy_block(tx, address);
	expect_seen(address, 1, 0);
	tx_abort(tx);
	expect_seen(address, 1, 0);
	tx = fix_begin(&fix);
	fix_set_word(tx, address, 5, 99);
	ck_assert_int_eq(root_add(tx, ROOT_INODES, 3), 0);
	expect_seen(address, 1, 0);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	expect_seen(address, 99, 3);
}
END_TEST

START_TEST(a_transaction_that_changes_nothing_makes_no_record)
{
	maddr_t address = fix_new_block(&fix, 1);
	uint64_t records = count_records(), sequence = 12345;
	struct tx *tx = fix_begin(&fix);

	fix_set_word(tx, address, 5, 2);
	fix_set_word(tx, address, 5, 1);
	ck_assert_int_eq(tx_commit(tx, &sequence), 0);
	ck_assert_uint_eq(count_records(), records);
	ck_assert_int_eq(journal_sync(fix.journal), 0);
	ck_assert(tx_is_durable(fix.journal, sequence));
}
END_TEST

START_TEST(only_lines_that_differ_are_logged)
{
	maddr_t address = fix_new_block(&fix, 1);
	struct journal_counts before, after;

	journal_counts(fix.journal, &before);
	fix_change(&fix, address, 0, 7);
	journal_counts(fix.journal, &after);
	ck_assert_uint_eq(after.record_bytes - before.record_bytes, 64 + 64 + 64); /* header, items, one line */
}
END_TEST

START_TEST(with_one_copy_the_first_change_after_a_write_back_logs_all_of_the_block)
{
	struct journal_counts before, after;
	maddr_t address;

	fix_destroy(&fix);
	fix_create_open(&fix, 1);
	address = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	journal_counts(fix.journal, &before);
	fix_change(&fix, address, 0, 7);
	fix_change(&fix, address, 0, 8);
	journal_counts(fix.journal, &after);
	ck_assert_uint_eq(after.record_bytes - before.record_bytes, 64 + 64 + 4096 + 192);
	fix_crash(&fix);
	fix_spoil(&fix, fix_place(&fix, address, 0) + 2048, 64); /* the next write-back was torn */
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 8);
	ck_assert_uint_eq(fix_word(&fix, address, 300), 1);
}
END_TEST

START_TEST(a_block_freed_and_reused_in_one_transaction_has_its_new_content)
{
	maddr_t address = fix_new_block(&fix, 1), again;
	struct tx *tx = fix_begin(&fix);

	fix_set_word(tx, address, 5, 2);
	fix_destroy_block(tx, address);
	again = fix_create_block(tx, 4);
	ck_assert_uint_eq(again, address);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	ck_assert_uint_eq(fix_word(&fix, address, 5), 4);
	fix_crash(&fix);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(fix_word(&fix, address, 5), 4);
}
END_TEST

START_TEST(a_block_created_and_destroyed_in_one_transaction_leaves_nothing)
{
	uint64_t free_blocks = root_get(fix.journal, ROOT_META_FREE);
	struct tx *tx = fix_begin(&fix);
	maddr_t address = fix_create_block(tx, 1);

	fix_destroy_block(tx, address);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_META_FREE), free_blocks);
	journal_read_begin(fix.journal);
	ck_assert(!chunk_block_is_live(fix.journal, address));
	journal_read_end(fix.journal);
}
END_TEST

START_TEST(a_destroyed_block_is_gone_at_once_within_its_transaction)
{
	maddr_t address = fix_new_block(&fix, 1);
	struct tx *tx = fix_begin(&fix);
	struct buf *buf;

	fix_destroy_block(tx, address);
	ck_assert_int_eq(buf_get_any(fix.journal, address, &buf), -EUCLEAN);
	tx_abort(tx);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
}
END_TEST

START_TEST(a_dirty_block_that_was_freed_is_not_written_home)
{
	uint8_t before[4096], after[4096];
	maddr_t address = fix_new_block(&fix, 1);
	struct tx *tx;

	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	fix_read_file(&fix, fix_place(&fix, address, 0), before, sizeof(before));
	fix_change(&fix, address, 0, 2);
	tx = fix_begin(&fix);
	fix_destroy_block(tx, address);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	fix_read_file(&fix, fix_place(&fix, address, 0), after, sizeof(after));
	ck_assert_mem_eq(before, after, sizeof(before));
}
END_TEST

START_TEST(more_blocks_than_a_record_holds_are_refused_and_room_says_so_before)
{
	struct tx *tx = fix_begin(&fix);
	unsigned room = tx_room(tx), made = 0;
	struct buf *buf;
	int error;

	ck_assert_uint_ge(room, 40);
	for (; made < room; made++) {
		ck_assert_int_eq(buf_create(tx, FORMAT_ROLE_NODE, 1, &buf), 0);
		buf_put(buf);
	}
	do {
		error = buf_create(tx, FORMAT_ROLE_NODE, 1, &buf);
		if (!error)
			buf_put(buf);
	} while (!error && made++ < 2 * room);
	ck_assert_int_eq(error, -EFBIG);
	tx_abort(tx);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_META_FREE), 255);
	fix_new_block(&fix, 1);
}
END_TEST

START_TEST(a_full_transaction_of_whole_blocks_commits_and_replays)
{
	struct tx *tx = fix_begin(&fix);
	maddr_t address[512];
	unsigned room = tx_room(tx);

	for (unsigned i = 0; i < room; i++)
		address[i] = fix_create_block(tx, i + 1);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	fix_crash(&fix);
	ck_assert_int_eq(fix_open(&fix), 0);
	for (unsigned i = 0; i < room; i++)
		ck_assert_uint_eq(fix_word(&fix, address[i], 503), i + 1);
}
END_TEST

static unsigned hook_calls[8], hook_count;
static uint64_t hook_sequence;
static bool hook_committed;

static void hook(void *arg, bool committed, uint64_t sequence)
{
	hook_calls[hook_count++] = (unsigned)(uintptr_t)arg;
	hook_committed = committed;
	hook_sequence = sequence;
}

START_TEST(hooks_run_in_order_with_the_outcome)
{
	maddr_t address = fix_new_block(&fix, 1);
	struct tx *tx = fix_begin(&fix);
	uint64_t sequence;

	hook_count = 0;
	fix_set_word(tx, address, 0, 2);
	for (uintptr_t i = 1; i <= 3; i++)
		ck_assert_int_eq(tx_add_hook(tx, hook, (void *)i), 0);
	ck_assert_int_eq(tx_commit(tx, &sequence), 0);
	ck_assert_uint_eq(hook_count, 3);
	ck_assert_uint_eq(hook_calls[0], 1);
	ck_assert_uint_eq(hook_calls[2], 3);
	ck_assert(hook_committed);
	ck_assert_uint_eq(hook_sequence, sequence);
	tx = fix_begin(&fix);
	ck_assert_int_eq(tx_add_hook(tx, hook, (void *)4), 0);
	tx_abort(tx);
	ck_assert_uint_eq(hook_count, 4);
	ck_assert(!hook_committed);
}
END_TEST

START_TEST(a_commit_on_persistent_memory_is_durable_with_one_drain)
{
	struct media_counts before, after;
	maddr_t address;
	uint64_t sequence;

	use_persistent_memory();
	address = fix_new_block(&fix, 1);
	media_counts(fix.media, &before);
	sequence = fix_change(&fix, address, 0, 2);
	media_counts(fix.media, &after);
	ck_assert_uint_eq(after.drains - before.drains, 1);
	ck_assert_uint_eq(after.syncs - before.syncs, 0);
	ck_assert(tx_is_durable(fix.journal, sequence));
}
END_TEST

START_TEST(a_commit_on_a_plain_file_syncs_nothing_and_is_durable_after_sync)
{
	struct media_counts before, after;
	maddr_t address = fix_new_block(&fix, 1);
	uint64_t sequence;

	media_counts(fix.media, &before);
	sequence = fix_change(&fix, address, 0, 2);
	media_counts(fix.media, &after);
	ck_assert_uint_eq(after.syncs - before.syncs, 0);
	ck_assert(!tx_is_durable(fix.journal, sequence));
	ck_assert_int_eq(journal_sync(fix.journal), 0);
	ck_assert(tx_is_durable(fix.journal, sequence));
}
END_TEST

START_TEST(a_poisoned_copy_of_the_log_does_not_fail_a_commit)
{
	maddr_t address = fix_new_block(&fix, 1);

	ck_assert_int_eq(media_poison_arm(fix.media, fix_ring(&fix, 0), 512 << 10, true), 0);
	fix_change(&fix, address, 0, 2);
	fix_change(&fix, address, 0, 3);
	fix_crash(&fix);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 3);
}
END_TEST

START_TEST(a_commit_that_cannot_be_logged_is_a_clean_error_and_a_checkpoint_goes_around)
{
	struct journal_counts counts;
	uint64_t offset;
	maddr_t address;
	struct tx *tx;

	use_persistent_memory();
	address = fix_new_block(&fix, 1);
	journal_counts(fix.journal, &counts);
	offset = round_down_u64(counts.ring_used, 4096);
	for (unsigned k = 0; k < 2; k++) /* where the next record must go, in both copies, known to nobody */
		ck_assert_int_eq(media_poison_arm(fix.media, fix_ring(&fix, k) + offset, 8192, true), 0);
	tx = fix_begin(&fix);
	fix_set_word(tx, address, 0, 2);
	ck_assert_int_eq(tx_commit(tx, NULL), -EIO);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
	ck_assert(!journal_is_readonly(fix.journal));
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	fix_change(&fix, address, 0, 3);
	fix_crash(&fix);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert(!journal_recovery(fix.journal)->hole);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 3);
}
END_TEST

/* A tmpfs of this size that nobody else sees; false where that is not permitted. */
static bool mount_small(char *dir, const char *options)
{
	strcpy(dir, "/tmp/mendfs-small-XXXXXX");
	if (!mkdtemp(dir))
		return false;
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("none", dir, "tmpfs", 0, options)) {
		printf("skipped: mounting a small tmpfs: %s\n", strerror(errno));
		rmdir(dir);
		return false;
	}
	return true;
}

static void fill_file(const char *path, size_t length)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(posix_fallocate(fd, 0, (off_t)length), 0);
	close(fd);
}

/* Returns the commit's error and in *value what was committed last. */
static int change_until_refused(maddr_t address, uint64_t *value)
{
	struct tx *tx;
	int error = 0;

	for (unsigned i = 0; i < 20000 && !error; i++) {
		error = tx_begin(fix.journal, TX_NORMAL, &tx);
		if (error)
			return error;
		fix_set_word(tx, address, 0, *value + 1);
		error = tx_commit(tx, NULL);
		if (!error)
			(*value)++;
	}
	return error;
}

START_TEST(a_full_host_filesystem_is_a_clean_error_that_passes)
{
	char dir[64], filler[80];
	uint64_t value = 0;
	maddr_t address;

	fix_destroy(&fix);
	if (!mount_small(dir, "size=2m"))
		return;
	snprintf(filler, sizeof(filler), "%s/filler", dir);
	fill_file(filler, FIX_MIB);
	setenv("TMPDIR", dir, 1);
	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 0);
	ck_assert_int_eq(change_until_refused(address, &value), -ENOSPC);
	ck_assert_uint_gt(value, 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), value);
	ck_assert(!journal_is_readonly(fix.journal));
	ck_assert_int_eq(unlink(filler), 0);
	fix_change(&fix, address, 0, ++value);
	ck_assert_int_eq(fix_close(&fix), 0);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), value);
	fix_destroy(&fix);
	unsetenv("TMPDIR");
	umount2(dir, MNT_DETACH);
	rmdir(dir);
}
END_TEST

START_TEST(after_a_shutdown_nothing_commits_and_reads_go_on)
{
	maddr_t address = fix_new_block(&fix, 1);
	struct tx *tx = fix_begin(&fix), *other;

	fix_set_word(tx, address, 0, 2);
	journal_shutdown(fix.journal);
	ck_assert_int_eq(tx_commit(tx, NULL), -EROFS);
	ck_assert_int_eq(tx_begin(fix.journal, TX_NORMAL, &other), -EROFS);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
	ck_assert_int_eq(journal_sync(fix.journal), 0);
	ck_assert_int_eq(fix_close(&fix), 0);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
}
END_TEST

START_TEST(a_counter_does_not_go_below_zero)
{
	struct tx *tx = fix_begin(&fix);

	ck_assert_int_eq(root_add(tx, ROOT_INODES, 2), 0);
	ck_assert_int_eq(root_add(tx, ROOT_INODES, -3), -EUCLEAN);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_INODES), 2);
	tx_abort(tx);
}
END_TEST

START_TEST(tree_roots_are_part_of_the_transaction)
{
	struct tx *tx = fix_begin(&fix);
	maddr_t address;
	unsigned level;

	ck_assert_int_eq(root_tree_set(tx, FORMAT_TREE_RMAP, 77, 2), 0);
	tx_abort(tx);
	root_tree_get(fix.journal, FORMAT_TREE_RMAP, &address, &level);
	ck_assert_uint_eq(address, 0);
	tx = fix_begin(&fix);
	ck_assert_int_eq(root_tree_set(tx, FORMAT_TREE_RMAP, 77, 2), 0);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	fix_crash(&fix);
	ck_assert_int_eq(fix_open(&fix), 0);
	root_tree_get(fix.journal, FORMAT_TREE_RMAP, &address, &level);
	ck_assert_uint_eq(address, 77);
	ck_assert_uint_eq(level, 2);
}
END_TEST

static void add_tests(TCase *tests)
{
	tcase_add_test(tests, abort_puts_every_block_back);
	tcase_add_test(tests, readers_do_not_wait_for_a_transaction_and_see_what_was_committed);
	tcase_add_test(tests, a_transaction_that_changes_nothing_makes_no_record);
	tcase_add_test(tests, only_lines_that_differ_are_logged);
	tcase_add_test(tests, with_one_copy_the_first_change_after_a_write_back_logs_all_of_the_block);
	tcase_add_test(tests, a_block_freed_and_reused_in_one_transaction_has_its_new_content);
	tcase_add_test(tests, a_block_created_and_destroyed_in_one_transaction_leaves_nothing);
	tcase_add_test(tests, a_destroyed_block_is_gone_at_once_within_its_transaction);
	tcase_add_test(tests, a_dirty_block_that_was_freed_is_not_written_home);
	tcase_add_test(tests, more_blocks_than_a_record_holds_are_refused_and_room_says_so_before);
	tcase_add_test(tests, a_full_transaction_of_whole_blocks_commits_and_replays);
	tcase_add_test(tests, hooks_run_in_order_with_the_outcome);
	tcase_add_test(tests, a_commit_on_persistent_memory_is_durable_with_one_drain);
	tcase_add_test(tests, a_commit_on_a_plain_file_syncs_nothing_and_is_durable_after_sync);
	tcase_add_test(tests, a_poisoned_copy_of_the_log_does_not_fail_a_commit);
	tcase_add_test(tests, a_commit_that_cannot_be_logged_is_a_clean_error_and_a_checkpoint_goes_around);
	tcase_add_test(tests, a_full_host_filesystem_is_a_clean_error_that_passes);
	tcase_add_test(tests, after_a_shutdown_nothing_commits_and_reads_go_on);
	tcase_add_test(tests, a_counter_does_not_go_below_zero);
	tcase_add_test(tests, tree_roots_are_part_of_the_transaction);
}

int main(void)
{
	Suite *suite = suite_create("tx");
	TCase *tests = tcase_create("tx");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	add_tests(tests);
	suite_add_tcase(suite, tests);
	return fix_run(suite);
}
