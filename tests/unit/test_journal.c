#include "tests/support/journalfix.h"

#include <errno.h>
#include <pthread.h>

static struct journalfix fix;

/* The linker sends media_clear() and media_sync() of this program here: a medium that cannot clear, a host whose disk fails. */
int __real_media_clear(struct media *media, devoff_t offset, uint64_t length);
int __wrap_media_clear(struct media *media, devoff_t offset, uint64_t length);
int __real_media_sync(struct media *media);
int __wrap_media_sync(struct media *media);
static bool cannot_clear, cannot_sync;

int __wrap_media_clear(struct media *media, devoff_t offset, uint64_t length)
{
	return cannot_clear ? -ENOTSUP : __real_media_clear(media, offset, length);
}

int __wrap_media_sync(struct media *media)
{
	return cannot_sync ? -EIO : __real_media_sync(media);
}

static void teardown(void)
{
	cannot_clear = cannot_sync = false;
	fix_destroy(&fix);
	unsetenv("MENDFS_BOOT_ID");
	unsetenv("PMEM2_FORCE_GRANULARITY");
}

START_TEST(a_new_journal_opens_clean_and_counts_its_first_chunk)
{
	fix_create_open(&fix, 2);
	ck_assert(!journal_recovery(fix.journal)->hole);
	ck_assert_uint_eq(journal_recovery(fix.journal)->records, 0);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_META_BLOCKS), 256);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_META_FREE), 255);
	ck_assert_int_eq(fix_close(&fix), 0);
}
END_TEST

START_TEST(what_was_committed_is_there_after_close)
{
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 7);
	ck_assert_int_eq(fix_close(&fix), 0);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(journal_recovery(fix.journal)->records, 0);
	ck_assert_uint_eq(fix_word(&fix, address, 100), 7);
}
END_TEST

START_TEST(what_was_committed_is_there_after_a_kill)
{
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 7);
	fix_change(&fix, address, 3, 8);
	fix_crash(&fix);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(journal_recovery(fix.journal)->records, 2);
	ck_assert_uint_eq(fix_word(&fix, address, 3), 8);
	ck_assert_uint_eq(fix_word(&fix, address, 4), 7);
}
END_TEST


static void check_copies_equal(maddr_t address)
{
	uint8_t copy[2][4096];
	const char *field = "";

	for (unsigned k = 0; k < 2; k++) {
		ck_assert_int_eq(media_read(fix.media, fix_place(&fix, address, k), copy[k], 4096, NULL), 0);
		ck_assert_int_eq(format_block_verify(copy[k], fix.super.meta_uuid, address, &field), 0);
	}
	ck_assert_mem_eq(copy[0], copy[1], 4096);
}

/* --- write-back ------------------------------------------------------------------------------------------------------ */

static struct media_fault faults[64];
static unsigned fault_count;

static void note_fault(void *arg, const struct media_fault *fault)
{
	if (fault_count < 64)
		faults[fault_count++] = *fault;
}

/* Poison that nobody knows of tells when a place is first written. */
START_TEST(write_back_is_primaries_then_replicas_then_heads)
{
	devoff_t place[6];
	maddr_t a, b;

	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1); /* no sync reads or writes what is armed */
	fix_create_open(&fix, 2);
	a = fix_new_block(&fix, 1);
	b = fix_new_block(&fix, 1);
	for (unsigned k = 0; k < 2; k++) {
		place[2 * k] = fix_place(&fix, a, k);
		place[2 * k + 1] = fix_place(&fix, b, k);
		place[4 + k] = fix.super.areas[AREA_JOURNAL].copy[k];
	}
	for (unsigned i = 0; i < 6; i++)
		ck_assert_int_eq(media_poison_arm(fix.media, place[i], 4096, true), 0);
	fault_count = 0;
	media_set_fault_handler(fix.media, note_fault, NULL);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	media_set_fault_handler(fix.media, NULL, NULL);
	ck_assert_uint_eq(fault_count, 6);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert(faults[i].offset < fix.first[0] + FIX_MIB && faults[i].offset > fix.first[0]);
		ck_assert(faults[2 + i].offset < fix.first[1] + FIX_MIB && faults[2 + i].offset > fix.first[1]);
		ck_assert_uint_eq(faults[4 + i].offset, place[4 + i]);
	}
	ck_assert_int_eq(fix_close(&fix), 0);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(fix_word(&fix, a, 0), 1);
	ck_assert_uint_eq(fix_word(&fix, b, 0), 1);
	ck_assert_uint_eq(fix.reports, 0);
}
END_TEST

START_TEST(both_copies_are_equal_byte_for_byte_after_write_back)
{
	uint8_t copy[2][4096];
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	fix_change(&fix, address, 0, 2);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	for (unsigned k = 0; k < 2; k++)
		fix_read_file(&fix, fix_place(&fix, address, k), copy[k], 4096);
	ck_assert_mem_eq(copy[0], copy[1], 4096);
	for (unsigned k = 0; k < 2; k++)
		fix_read_file(&fix, fix_place(&fix, MADDR_ROOT, k), copy[k], 4096);
	ck_assert_mem_eq(copy[0], copy[1], 4096);
}
END_TEST

START_TEST(a_checkpoint_empties_the_log)
{
	struct journal_counts counts;
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	for (unsigned i = 0; !journal_wants_checkpoint(fix.journal); i++)
		fix_change(&fix, address, i % 500, i);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	ck_assert(!journal_wants_checkpoint(fix.journal));
	journal_counts(fix.journal, &counts);
	ck_assert_uint_eq(counts.ring_used, 0);
	fix_crash(&fix);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(journal_recovery(fix.journal)->records, 0);
}
END_TEST

START_TEST(a_block_whose_primary_cannot_be_written_goes_on_with_its_replica)
{
	unsigned repaired;
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	cannot_clear = true;
	ck_assert_int_eq(media_bad_add(fix.media, fix_place(&fix, address, 0), 4096), 0);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	ck_assert_uint_eq(fix.reports, 1);
	ck_assert_uint_eq(fix.report[0].copy, 0);
	ck_assert_str_eq(fix.report[0].reason, "could not be written");
	buf_drop_clean(fix.journal);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
	ck_assert_int_eq(journal_repair(fix.journal, address, &repaired), -ENOTSUP);
	fix_change(&fix, address, 0, 2);
	ck_assert_int_eq(fix_close(&fix), 0);
	cannot_clear = false;
	ck_assert_int_eq(fix_open(&fix), 0); /* the place reads again, with nothing of ours in it */
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
	ck_assert_uint_eq(fix.reports, 1);
	ck_assert_int_eq(journal_repair(fix.journal, address, &repaired), 0);
	ck_assert_uint_eq(repaired, 1);
	check_copies_equal(address);
}
END_TEST

START_TEST(the_lone_replica_is_in_the_log_before_it_is_overwritten)
{
	uint8_t heads[2][64];
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	for (unsigned k = 0; k < 2; k++)
		fix_read_file(&fix, fix.super.areas[AREA_JOURNAL].copy[k], heads[k], 64);
	fix_change(&fix, address, 0, 2); /* one line only: both copies are good */
	cannot_clear = true;
	ck_assert_int_eq(media_poison_arm(fix.media, fix_place(&fix, address, 0), 4096, true), 0);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	fix_crash(&fix);
	for (unsigned k = 0; k < 2; k++)
		fix_write_file(&fix, fix.super.areas[AREA_JOURNAL].copy[k], heads[k], 64);
	fix_spoil(&fix, fix_place(&fix, address, 0) + 2048, 64);
	fix_spoil(&fix, fix_place(&fix, address, 1) + 2048, 64); /* torn */
	cannot_clear = false;
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(journal_recovery(fix.journal)->lost, 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
	ck_assert_uint_eq(fix_word(&fix, address, 300), 1);
}
END_TEST

START_TEST(a_block_of_which_no_copy_can_be_written_stays_in_memory_and_log)
{
	struct journal_counts counts;
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	cannot_clear = true;
	for (unsigned k = 0; k < 2; k++)
		ck_assert_int_eq(media_bad_add(fix.media, fix_place(&fix, address, k), 4096), 0);
	fix_change(&fix, address, 0, 2);
	ck_assert_int_eq(journal_checkpoint(fix.journal), -EIO);
	buf_drop_clean(fix.journal);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
	journal_counts(fix.journal, &counts);
	ck_assert_uint_gt(counts.ring_used, 0);
	fix_change(&fix, address, 0, 3); /* while the ring has room */
	ck_assert_int_eq(fix_close(&fix), -EIO);
	cannot_clear = false;
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 3);
	ck_assert_uint_eq(fix_word(&fix, address, 300), 1);
}
END_TEST

START_TEST(a_full_ring_that_cannot_be_emptied_shuts_down_and_loses_nothing)
{
	maddr_t address;
	uint64_t value = 0;
	struct tx *tx;
	int error;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 0);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	cannot_clear = true;
	for (unsigned k = 0; k < 2; k++)
		ck_assert_int_eq(media_bad_add(fix.media, fix_place(&fix, address, k), 4096), 0);
	while (!(error = tx_begin(fix.journal, TX_NORMAL, &tx))) {
		fix_set_word(tx, address, 0, ++value);
		ck_assert_int_eq(tx_commit(tx, NULL), 0);
	}
	ck_assert_int_eq(error, -EIO);
	ck_assert(journal_is_readonly(fix.journal));
	ck_assert_uint_gt(value, 1000);
	fix_close(&fix);
	cannot_clear = false;
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), value);
}
END_TEST

/* --- sync --------------------------------------------------------------------------------------------------------------- */

START_TEST(sync_without_new_records_writes_no_mark)
{
	struct journal_counts before, after;

	fix_create_open(&fix, 2);
	fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_sync(fix.journal), 0);
	journal_counts(fix.journal, &before);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_int_eq(journal_sync(fix.journal), 0);
	journal_counts(fix.journal, &after);
	ck_assert_uint_eq(after.records, before.records);
}
END_TEST

START_TEST(after_a_failed_sync_nothing_is_acknowledged_any_more)
{
	maddr_t address;
	struct tx *tx;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	cannot_sync = true;
	ck_assert_int_eq(journal_sync(fix.journal), -EIO);
	cannot_sync = false;
	ck_assert_int_eq(journal_sync(fix.journal), -EIO);
	ck_assert_int_eq(journal_checkpoint(fix.journal), -EIO);
	ck_assert_int_eq(tx_begin(fix.journal, TX_NORMAL, &tx), -EIO);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
	ck_assert_int_eq(fix_close(&fix), -EIO);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
}
END_TEST

#define SYNCERS 8
static maddr_t sync_address[SYNCERS];
static _Atomic unsigned sync_failures;

static void *commit_and_sync(void *arg)
{
	unsigned number = (unsigned)(uintptr_t)arg;
	uint64_t sequence;
	struct tx *tx;

	for (unsigned i = 1; i <= 40; i++) {
		if (tx_begin(fix.journal, TX_NORMAL, &tx)) {
			sync_failures++;
			return NULL;
		}
		fix_set_word(tx, sync_address[number], 0, i);
		if (tx_commit(tx, &sequence) || journal_sync(fix.journal) || !tx_is_durable(fix.journal, sequence))
			sync_failures++;
	}
	return NULL;
}

START_TEST(concurrent_syncs_share_rounds_and_each_covers_its_caller)
{
	struct media_counts before, after;
	pthread_t thread[SYNCERS];

	setenv("MENDFS_BOOT_ID", "a", 1);
	fix_create_open(&fix, 2);
	for (unsigned i = 0; i < SYNCERS; i++)
		sync_address[i] = fix_new_block(&fix, 0);
	media_counts(fix.media, &before);
	for (uintptr_t i = 0; i < SYNCERS; i++)
		pthread_create(&thread[i], NULL, commit_and_sync, (void *)i);
	for (unsigned i = 0; i < SYNCERS; i++)
		pthread_join(thread[i], NULL);
	media_counts(fix.media, &after);
	ck_assert_uint_eq(sync_failures, 0);
	ck_assert_uint_le(after.syncs - before.syncs, 2 * SYNCERS * 40);
	fix_crash(&fix);
	setenv("MENDFS_BOOT_ID", "b", 1); /* all was synced, so all is there after a crash of the host */
	ck_assert_int_eq(fix_open(&fix), 0);
	for (unsigned i = 0; i < SYNCERS; i++)
		ck_assert_uint_eq(fix_word(&fix, sync_address[i], 0), 40);
}
END_TEST

static _Atomic bool asking;

/* As the background thread and `mendctl stats` ask: without a lock. */
static void *ask_how_full(void *arg)
{
	struct journal_counts counts;
	uint64_t too_full = 0;

	while (asking) {
		(void)journal_wants_checkpoint(fix.journal);
		journal_counts(fix.journal, &counts);
		too_full += counts.ring_used > counts.ring_bytes;
	}
	return (void *)(uintptr_t)too_full;
}

START_TEST(how_full_the_log_is_may_be_asked_while_its_tail_moves)
{
	pthread_t thread;
	void *too_full;
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 0);
	asking = true;
	ck_assert_int_eq(pthread_create(&thread, NULL, ask_how_full, NULL), 0);
	for (uint64_t i = 1; i <= 200; i++) {
		struct tx *tx;

		ck_assert_int_eq(tx_begin(fix.journal, TX_NORMAL, &tx), 0);
		fix_set_word(tx, address, 0, i);
		ck_assert_int_eq(tx_commit(tx, NULL), 0);
		ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	}
	asking = false;
	pthread_join(thread, &too_full);
	ck_assert_ptr_null(too_full);
}
END_TEST

/* --- repair --------------------------------------------------------------------------------------------------------------- */

START_TEST(repair_rewrites_a_poisoned_copy_and_says_which)
{
	unsigned repaired;
	maddr_t address;

	for (unsigned k = 0; k < 2; k++) {
		fix_create_open(&fix, 2);
		address = fix_new_block(&fix, 1);
		ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
		buf_drop_clean(fix.journal);
		ck_assert_int_eq(media_poison_arm(fix.media, fix_place(&fix, address, k) + 64, 64, false), 0);
		ck_assert_int_eq(media_bad_add(fix.media, fix_place(&fix, address, k), 512), 0);
		ck_assert_int_eq(journal_repair(fix.journal, address, &repaired), 0);
		ck_assert_uint_eq(repaired, 1u << k);
		ck_assert(!media_bad_any(fix.media));
		check_copies_equal(address);
		ck_assert_int_eq(journal_repair(fix.journal, address, &repaired), 0);
		ck_assert_uint_eq(repaired, 0);
		fix_destroy(&fix);
	}
}
END_TEST

START_TEST(repair_of_a_block_newer_than_home_writes_both_copies)
{
	unsigned repaired;
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	fix_change(&fix, address, 0, 2);
	ck_assert_int_eq(media_poison_arm(fix.media, fix_place(&fix, address, 0), 4096, true), 0);
	ck_assert_int_eq(media_poison_arm(fix.media, fix_place(&fix, address, 1), 4096, true), 0);
	ck_assert_int_eq(journal_repair(fix.journal, address, &repaired), 0);
	ck_assert_uint_eq(repaired, 3);
	check_copies_equal(address);
	buf_drop_clean(fix.journal);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
}
END_TEST

START_TEST(repair_of_what_is_gone_or_not_in_use_says_so)
{
	unsigned repaired = 7;
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	buf_drop_clean(fix.journal);
	ck_assert_int_eq(journal_repair(fix.journal, maddr_of_chunk(0, 200), &repaired), 0);
	ck_assert_uint_eq(repaired, 0);
	for (unsigned k = 0; k < 2; k++)
		ck_assert_int_eq(media_poison_arm(fix.media, fix_place(&fix, address, k), 1, true), 0);
	ck_assert_int_eq(journal_repair(fix.journal, address, &repaired), -EIO);
}
END_TEST

START_TEST(root_table_and_chunk_header_are_repaired_too)
{
	maddr_t address[] = { MADDR_ROOT, MADDR_TABLE, maddr_of_chunk(0, 0) };
	unsigned repaired;

	fix_create_open(&fix, 2);
	fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(media_poison_arm(fix.media, fix_place(&fix, address[i], i % 2), 64, true), 0);
		buf_drop_clean(fix.journal);
		ck_assert_int_eq(journal_repair(fix.journal, address[i], &repaired), 0);
		ck_assert_uint_eq(repaired, 1u << i % 2);
		check_copies_equal(address[i]);
	}
}
END_TEST

START_TEST(a_chunk_header_of_which_both_copies_are_gone_is_made_anew)
{
	maddr_t address = maddr_of_chunk(0, 0);
	struct format_chunk_header header;
	unsigned repaired;

	fix_create_open(&fix, 2);
	for (unsigned k = 0; k < 2; k++)
		ck_assert_int_eq(media_poison_arm(fix.media, fix_place(&fix, address, k), 64, true), 0);
	ck_assert_int_eq(journal_repair(fix.journal, address, &repaired), 0);
	ck_assert_uint_eq(repaired, 3);
	check_copies_equal(address);
	ck_assert_int_eq(media_read(fix.media, fix.first[1], &header, sizeof(header), NULL), 0);
	ck_assert_uint_eq(le64_get(header.copy[0]), fix.first[0]);
}
END_TEST

START_TEST(a_block_with_one_copy_left_survives_a_torn_write_back)
{
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	ck_assert_int_eq(media_bad_add(fix.media, fix_place(&fix, address, 0), 4096), 0);
	fix_change(&fix, address, 0, 2); /* the log has all of it now */
	fix_crash(&fix);
	fix_spoil(&fix, fix_place(&fix, address, 0) + 1024, 64);
	fix_spoil(&fix, fix_place(&fix, address, 1) + 2048, 64);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
	ck_assert_uint_eq(fix_word(&fix, address, 300), 1);
}
END_TEST

START_TEST(a_single_copy_filesystem_works_and_recovers)
{
	maddr_t address;

	fix_create_open(&fix, 1);
	address = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	fix_change(&fix, address, 0, 2);
	fix_crash(&fix);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
	ck_assert_int_eq(fix_close(&fix), 0);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
}
END_TEST

START_TEST(fixed_areas_are_formatted_around_a_bad_copy)
{
	struct journalfix *f = &fix;

	fix_create(f, 2);
	ck_assert_int_eq(fix_media_open(f), 0);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(media_bad_add(f->media, f->super.areas[i ? AREA_FIXED : AREA_JOURNAL].copy[i], 4096), 0);
		ck_assert_int_eq(media_bad_add(f->media, f->first[1], 4096), 0);
	}
	ck_assert_int_eq(journal_format(f->media, &f->super, f->first), 0);
	ck_assert_int_eq(media_close(f->media), 0);
	ck_assert_int_eq(fix_open(f), 0);
	fix_new_block(f, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("journal");
	TCase *tests = tcase_create("journal");

	tcase_add_checked_fixture(tests, NULL, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, a_new_journal_opens_clean_and_counts_its_first_chunk);
	tcase_add_test(tests, what_was_committed_is_there_after_close);
	tcase_add_test(tests, what_was_committed_is_there_after_a_kill);
	tcase_add_test(tests, write_back_is_primaries_then_replicas_then_heads);
	tcase_add_test(tests, both_copies_are_equal_byte_for_byte_after_write_back);
	tcase_add_test(tests, a_checkpoint_empties_the_log);
	tcase_add_test(tests, a_block_whose_primary_cannot_be_written_goes_on_with_its_replica);
	tcase_add_test(tests, the_lone_replica_is_in_the_log_before_it_is_overwritten);
	tcase_add_test(tests, a_block_of_which_no_copy_can_be_written_stays_in_memory_and_log);
	tcase_add_test(tests, a_full_ring_that_cannot_be_emptied_shuts_down_and_loses_nothing);
	tcase_add_test(tests, after_a_failed_sync_nothing_is_acknowledged_any_more);
	tcase_add_test(tests, sync_without_new_records_writes_no_mark);
	tcase_add_test(tests, concurrent_syncs_share_rounds_and_each_covers_its_caller);
	tcase_add_test(tests, how_full_the_log_is_may_be_asked_while_its_tail_moves);
	tcase_add_test(tests, repair_rewrites_a_poisoned_copy_and_says_which);
	tcase_add_test(tests, repair_of_a_block_newer_than_home_writes_both_copies);
	tcase_add_test(tests, repair_of_what_is_gone_or_not_in_use_says_so);
	tcase_add_test(tests, root_table_and_chunk_header_are_repaired_too);
	tcase_add_test(tests, a_chunk_header_of_which_both_copies_are_gone_is_made_anew);
	tcase_add_test(tests, a_block_with_one_copy_left_survives_a_torn_write_back);
	tcase_add_test(tests, a_single_copy_filesystem_works_and_recovers);
	tcase_add_test(tests, fixed_areas_are_formatted_around_a_bad_copy);
	suite_add_tcase(suite, tests);
	return fix_run(suite);
}
