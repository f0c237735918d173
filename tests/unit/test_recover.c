#include "tests/support/journalfix.h"

#include <errno.h>

#include "format/journal_format.h"
#include "util/crc.h"

static struct journalfix fix;

static void teardown(void)
{
	fix_destroy(&fix);
	unsetenv("MENDFS_BOOT_ID");
	unsetenv("PMEM2_FORCE_GRANULARITY");
}

static void reopen(void)
{
	ck_assert_msg(!fix_open(&fix), "%s", fix.why.text);
}

static void read_head(unsigned copy, struct format_journal_head *head)
{
	fix_read_file(&fix, fix.super.areas[AREA_JOURNAL].copy[copy], head, sizeof(*head));
}

/* Where in the ring the record with this sequence lies (the file must show it in copy 0). */
static uint64_t find_record(uint64_t sequence, uint32_t *length)
{
	struct format_record_header header;

	for (uint64_t offset = 0; offset < FIX_LOG_BYTES - BLOCK_BYTES; offset += LINE_BYTES) {
		fix_read_file(&fix, fix_ring(&fix, 0) + offset, &header, sizeof(header));
		if (le32_get(header.magic) == FORMAT_RECORD_MAGIC && le64_get(header.sequence) == sequence &&
		    !memcmp(header.meta_uuid, fix.super.meta_uuid, FORMAT_UUID_BYTES)) {
			*length = le32_get(header.length);
			return offset;
		}
	}
	ck_abort_msg("no record %llu", (unsigned long long)sequence);
	return 0;
}

/* copies: bits of the copies to spoil */
static void spoil_record(uint64_t sequence, unsigned copies)
{
	uint32_t length;
	uint64_t offset = find_record(sequence, &length);

	for (unsigned k = 0; k < 2; k++)
		if (copies & 1u << k)
			fix_spoil(&fix, fix_ring(&fix, k) + offset + length - 16, 16);
}

static uint32_t file_sum(void)
{
	uint8_t bytes[65536];
	uint32_t sum = 1;
	int fd = open(fix.path, O_RDONLY);
	ssize_t got;

	while ((got = read(fd, bytes, sizeof(bytes))) > 0)
		for (ssize_t i = 0; i < got; i++)
			sum = sum * 31 + bytes[i];
	close(fd);
	return sum;
}

/* --- the end of the log ----------------------------------------------------------------------------------------------- */

START_TEST(a_record_torn_in_both_copies_is_the_end)
{
	uint64_t last;
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	last = fix_change(&fix, address, 0, 2);
	fix_crash(&fix);
	spoil_record(last, 3);
	reopen();
	ck_assert(!journal_recovery(fix.journal)->hole);
	ck_assert(!journal_is_readonly(fix.journal));
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
}
END_TEST

START_TEST(a_record_counts_if_either_copy_has_it_and_both_have_it_afterwards)
{
	uint8_t a[4096], b[4096];
	uint64_t sequence, offset;
	uint32_t length;
	maddr_t address;

	for (unsigned copies = 1; copies <= 2; copies++) {
		fix_create_open(&fix, 2);
		address = fix_new_block(&fix, 1);
		sequence = fix_change(&fix, address, 0, 2);
		fix_crash(&fix);
		offset = find_record(sequence, &length);
		spoil_record(sequence, copies);
		reopen();
		ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
		fix_close(&fix);
		fix_read_file(&fix, fix_ring(&fix, 0) + offset, a, length);
		fix_read_file(&fix, fix_ring(&fix, 1) + offset, b, length);
		ck_assert_mem_eq(a, b, length);
		fix_destroy(&fix);
	}
}
END_TEST

START_TEST(a_hole_is_not_the_end_and_nothing_is_written)
{
	uint64_t middle;
	uint32_t sum;
	maddr_t address;
	struct tx *tx;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	middle = fix_change(&fix, address, 0, 2);
	fix_change(&fix, address, 1, 3);
	fix_crash(&fix);
	spoil_record(middle, 3);
	sum = file_sum();
	reopen();
	ck_assert(journal_recovery(fix.journal)->hole);
	ck_assert(journal_is_readonly(fix.journal));
	ck_assert_int_eq(tx_begin(fix.journal, TX_NORMAL, &tx), -EROFS);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
	ck_assert_uint_eq(fix_word(&fix, address, 1), 1);
	fix_close(&fix);
	ck_assert_uint_eq(file_sum(), sum);
}
END_TEST

START_TEST(after_a_host_crash_only_what_was_said_to_be_durable_counts)
{
	maddr_t address;

	setenv("MENDFS_BOOT_ID", "a", 1);
	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_sync(fix.journal), 0);
	fix_change(&fix, address, 0, 2);
	fix_change(&fix, address, 0, 3);
	fix_crash(&fix);
	setenv("MENDFS_BOOT_ID", "b", 1);
	reopen();
	ck_assert(!journal_recovery(fix.journal)->hole);
	ck_assert_uint_ge(journal_recovery(fix.journal)->discarded, 2);
	ck_assert_uint_eq(journal_recovery(fix.journal)->records, 1);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
	/* and it goes on from there */
	fix_change(&fix, address, 0, 4);
	fix_crash(&fix);
	reopen();
	ck_assert_uint_eq(fix_word(&fix, address, 0), 4);
}
END_TEST

START_TEST(after_a_kill_on_the_same_boot_everything_counts)
{
	maddr_t address;

	setenv("MENDFS_BOOT_ID", "a", 1);
	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_sync(fix.journal), 0);
	fix_change(&fix, address, 0, 2);
	fix_crash(&fix);
	reopen();
	ck_assert_uint_eq(journal_recovery(fix.journal)->discarded, 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
}
END_TEST

START_TEST(a_gap_beyond_what_was_durable_is_no_hole_after_a_host_crash)
{
	uint64_t gap;
	maddr_t address;

	setenv("MENDFS_BOOT_ID", "a", 1);
	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_sync(fix.journal), 0);
	gap = fix_change(&fix, address, 0, 2);
	fix_change(&fix, address, 0, 3);
	fix_crash(&fix);
	spoil_record(gap, 3);
	setenv("MENDFS_BOOT_ID", "b", 1);
	reopen();
	ck_assert(!journal_recovery(fix.journal)->hole);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
}
END_TEST

START_TEST(a_gap_in_what_was_durable_is_a_hole_on_any_boot)
{
	uint64_t gap;
	maddr_t address;

	setenv("MENDFS_BOOT_ID", "a", 1);
	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	gap = fix_change(&fix, address, 0, 2);
	ck_assert_int_eq(journal_sync(fix.journal), 0); /* its mark lies beyond the gap */
	fix_crash(&fix);
	spoil_record(gap, 3);
	setenv("MENDFS_BOOT_ID", "b", 1);
	reopen();
	ck_assert(journal_recovery(fix.journal)->hole);
}
END_TEST

/* Of these, each says that the one before was durable. */
START_TEST(a_gap_before_a_record_of_persistent_memory_that_was_built_on_it_is_a_hole)
{
	uint64_t gap;
	maddr_t address;

	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	gap = fix_change(&fix, address, 0, 2);
	fix_change(&fix, address, 1, 3);
	fix_crash(&fix);
	spoil_record(gap, 3);
	reopen();
	unsetenv("PMEM2_FORCE_GRANULARITY");
	ck_assert(journal_recovery(fix.journal)->hole);
	ck_assert(journal_is_readonly(fix.journal));
	ck_assert_uint_eq(fix_word(&fix, address, 1), 1);
}
END_TEST

START_TEST(records_made_on_persistent_memory_count_on_any_boot)
{
	maddr_t address;

	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	setenv("MENDFS_BOOT_ID", "a", 1);
	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 5);
	fix_crash(&fix);
	unsetenv("PMEM2_FORCE_GRANULARITY");
	setenv("MENDFS_BOOT_ID", "b", 1);
	reopen();
	ck_assert_uint_eq(journal_recovery(fix.journal)->discarded, 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 5);
}
END_TEST

/* --- what is not ours --------------------------------------------------------------------------------------------------- */

START_TEST(records_of_the_previous_mkfs_are_refused)
{
	fix_create_open(&fix, 2);
	fix_new_block(&fix, 1);
	fix_new_block(&fix, 2);
	fix_crash(&fix);
	fix_format(&fix, 2);
	for (unsigned i = 0; i < 3; i++) { /* an epoch each: one of them is that of the old records */
		reopen();
		ck_assert_uint_eq(journal_recovery(fix.journal)->records, 0);
		ck_assert(!journal_recovery(fix.journal)->hole);
		ck_assert_uint_eq(root_get(fix.journal, ROOT_META_FREE), 255);
		fix_crash(&fix);
	}
}
END_TEST

START_TEST(heads_of_the_previous_mkfs_are_refused)
{
	uint8_t old[4096];
	maddr_t address;

	fix_create_open(&fix, 2);
	for (unsigned i = 0; i < 5; i++) {
		fix_new_block(&fix, i);
		ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	}
	fix_close(&fix);
	fix_read_file(&fix, fix.super.areas[AREA_JOURNAL].copy[1], old, sizeof(old));
	fix_format(&fix, 2);
	reopen();
	address = fix_new_block(&fix, 7);
	fix_crash(&fix);
	fix_write_file(&fix, fix.super.areas[AREA_JOURNAL].copy[1], old, sizeof(old));
	reopen();
	ck_assert_uint_eq(journal_recovery(fix.journal)->records, 1);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 7);
}
END_TEST

START_TEST(blocks_of_the_previous_mkfs_are_refused)
{
	uint8_t old[4096];
	uint64_t value;
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	fix_close(&fix);
	fix_read_file(&fix, fix_place(&fix, address, 0), old, sizeof(old));
	fix_format(&fix, 2);
	reopen();
	ck_assert_uint_eq(fix_new_block(&fix, 2), address);
	fix_close(&fix);
	fix_write_file(&fix, fix_place(&fix, address, 0), old, sizeof(old));
	reopen();
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2); /* from the replica */
	ck_assert_uint_eq(fix.reports, 1);
	fix_close(&fix);
	fix_write_file(&fix, fix_place(&fix, address, 0), old, sizeof(old));
	fix_write_file(&fix, fix_place(&fix, address, 1), old, sizeof(old));
	reopen();
	ck_assert_int_eq(fix_get_word(&fix, address, 0, &value), -EUCLEAN);
}
END_TEST

START_TEST(a_record_of_an_earlier_epoch_is_not_replayed_although_its_sequence_fits)
{
	static uint8_t ring[2][65536];
	uint64_t last;
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	last = fix_change(&fix, address, 0, 2);
	fix_crash(&fix);
	for (unsigned k = 0; k < 2; k++)
		fix_read_file(&fix, fix_ring(&fix, k), ring[k], sizeof(ring[k]));
	spoil_record(last, 3);
	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	reopen(); /* replays the first; the next would be `last`, in a new epoch */
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
	fix_crash(&fix);
	for (unsigned k = 0; k < 2; k++)
		fix_write_file(&fix, fix_ring(&fix, k), ring[k], sizeof(ring[k]));
	reopen();
	ck_assert_uint_eq(journal_recovery(fix.journal)->records, 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
}
END_TEST

/* --- home ------------------------------------------------------------------------------------------------------------------ */

START_TEST(a_half_written_home_block_is_replaced_by_the_other_copy)
{
	maddr_t address;

	for (unsigned copy = 0; copy < 2; copy++) {
		fix_create_open(&fix, 2);
		address = fix_new_block(&fix, 1);
		ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
		fix_change(&fix, address, 0, 2);
		fix_crash(&fix);
		fix_spoil(&fix, fix_place(&fix, address, copy) + 2048, 64);
		reopen();
		ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
		ck_assert_uint_eq(fix_word(&fix, address, 300), 1);
		fix_destroy(&fix);
	}
}
END_TEST

START_TEST(a_new_block_needs_no_whole_copy_at_home)
{
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	fix_crash(&fix);
	fix_spoil(&fix, fix_place(&fix, address, 0), 64);
	fix_spoil(&fix, fix_place(&fix, address, 1), 64);
	reopen();
	ck_assert_uint_eq(fix_word(&fix, address, 300), 1);
}
END_TEST

START_TEST(a_block_without_base_is_lost_alone_and_the_log_is_kept)
{
	maddr_t lost, other;
	uint64_t value;
	uint32_t sum;

	fix_create_open(&fix, 2);
	lost = fix_new_block(&fix, 1);
	other = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	fix_change(&fix, lost, 0, 2);
	fix_change(&fix, other, 0, 3);
	fix_crash(&fix);
	for (unsigned k = 0; k < 2; k++)
		fix_spoil(&fix, fix_place(&fix, lost, k) + 1024, 64);
	sum = file_sum();
	reopen();
	ck_assert_uint_eq(journal_recovery(fix.journal)->lost, 1);
	ck_assert_int_eq(fix_get_word(&fix, lost, 0, &value), -EUCLEAN);
	ck_assert_uint_eq(fix_word(&fix, other, 0), 3);
	ck_assert(journal_is_readonly(fix.journal));
	fix_close(&fix);
	ck_assert_uint_eq(file_sum(), sum);
	/* readable again: nothing was given up */
	for (unsigned k = 0; k < 2; k++)
		fix_spoil(&fix, fix_place(&fix, lost, k) + 1024, 64);
	reopen();
	ck_assert_uint_eq(fix_word(&fix, lost, 0), 2);
}
END_TEST

START_TEST(freed_metadata_is_not_resurrected)
{
	maddr_t address;
	struct buf *buf;
	struct tx *tx;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	fix_change(&fix, address, 0, 2);
	tx = fix_begin(&fix);
	fix_destroy_block(tx, address);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	fix_crash(&fix);
	for (unsigned k = 0; k < 2; k++) /* by now anything may lie there */
		fix_spoil(&fix, fix_place(&fix, address, k), 4096);
	reopen();
	ck_assert_uint_eq(journal_recovery(fix.journal)->lost, 0);
	journal_read_begin(fix.journal);
	ck_assert(!chunk_block_is_live(fix.journal, address));
	ck_assert_int_eq(buf_get_any(fix.journal, address, &buf), -EUCLEAN);
	journal_read_end(fix.journal);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_META_FREE), 255);
}
END_TEST

START_TEST(a_block_freed_and_created_again_has_its_new_content_only)
{
	maddr_t address;
	struct tx *tx;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	fix_change(&fix, address, 0, 2);
	tx = fix_begin(&fix);
	fix_destroy_block(tx, address);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	tx = fix_begin(&fix);
	ck_assert_uint_eq(fix_create_block(tx, 0), address);
	fix_set_word(tx, address, 9, 9);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	fix_crash(&fix);
	reopen();
	ck_assert_uint_eq(fix_word(&fix, address, 0), 0);
	ck_assert_uint_eq(fix_word(&fix, address, 9), 9);
	ck_assert_uint_eq(fix_word(&fix, address, 300), 0);
}
END_TEST

/* A file's bytes that look like a newer version of a block must not be taken for its base. */
START_TEST(a_block_that_was_data_before_starts_from_zeros)
{
	uint8_t forged[4096] __attribute__((aligned(64)));
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	fix_crash(&fix);
	memset(forged, 0xff, sizeof(forged));
	format_block_header_init((struct format_block_header *)forged, fix.super.meta_uuid, address, FORMAT_ROLE_NODE,
				 FORMAT_TREE_INODES);
	format_block_seal(forged, 1ull << 40);
	for (unsigned k = 0; k < 2; k++)
		fix_write_file(&fix, fix_place(&fix, address, k), forged, sizeof(forged));
	reopen();
	ck_assert_uint_eq(fix_word(&fix, address, 5), 1);
}
END_TEST

/* --- replay interrupted at any step ------------------------------------------------------------------------------------------ */

#define STEP_BLOCKS 4

struct step_image {
	uint8_t home[2][STEP_BLOCKS + 2][BLOCK_BYTES];
};

static void read_home(struct step_image *image, const maddr_t *address)
{
	for (unsigned k = 0; k < 2; k++)
		for (unsigned i = 0; i < STEP_BLOCKS + 2; i++)
			fix_read_file(&fix, fix_place(&fix, address[i], k), image->home[k][i], BLOCK_BYTES);
}

/* The first `steps` home writes are done, the next one is torn in the middle. */
static void write_home(const struct step_image *before, const struct step_image *after, const maddr_t *address, unsigned steps)
{
	for (unsigned s = 0; s < 2 * (STEP_BLOCKS + 2); s++) {
		unsigned k = s / (STEP_BLOCKS + 2), i = s % (STEP_BLOCKS + 2);
		devoff_t place = fix_place(&fix, address[i], k);

		fix_write_file(&fix, place, s < steps ? after->home[k][i] : before->home[k][i], BLOCK_BYTES);
		if (s == steps)
			fix_write_file(&fix, place, after->home[k][i], BLOCK_BYTES / 2);
	}
}

static void check_steps(const maddr_t *address)
{
	ck_assert_uint_eq(journal_recovery(fix.journal)->lost, 0);
	for (unsigned i = 0; i < STEP_BLOCKS; i++) {
		ck_assert_uint_eq(fix_word(&fix, address[i + 2], i), 100 + i);
		ck_assert_uint_eq(fix_word(&fix, address[i + 2], 400), i == 1 ? 77 : 10);
	}
}

START_TEST(replay_is_the_same_when_it_was_interrupted_at_any_copy_step)
{
	static struct step_image before, after;
	maddr_t address[STEP_BLOCKS + 2] = { MADDR_ROOT, MADDR_TABLE };
	char saved[300];

	fix_create_open(&fix, 2);
	for (unsigned i = 0; i < STEP_BLOCKS - 1; i++)
		address[i + 2] = fix_new_block(&fix, 10);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	address[STEP_BLOCKS + 1] = fix_new_block(&fix, 10); /* one that is new */
	for (unsigned i = 0; i < STEP_BLOCKS; i++)
		fix_change(&fix, address[i + 2], i, 100 + i);
	fix_change(&fix, address[3], 400, 66);
	fix_change(&fix, address[3], 400, 77);
	fix_crash(&fix);
	snprintf(saved, sizeof(saved), "%s.saved", fix.path);
	fix_copy_file(fix.path, saved);
	read_home(&before, address);
	reopen();
	check_steps(address);
	fix_close(&fix);
	read_home(&after, address);
	for (unsigned steps = 0; steps <= 2 * (STEP_BLOCKS + 2); steps++) {
		fix_copy_file(saved, fix.path);
		write_home(&before, &after, address, steps);
		reopen();
		check_steps(address);
		fix_close(&fix);
		reopen(); /* and at home */
		check_steps(address);
		ck_assert_uint_eq(fix.reports, 0);
		fix_close(&fix);
	}
	unlink(saved);
}
END_TEST

/* The proof that the test before would see it: were replicas written before the primaries are whole, both could be torn. */
START_TEST(with_both_copies_torn_at_once_replay_does_fail)
{
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 10);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	fix_change(&fix, address, 0, 100);
	fix_crash(&fix);
	for (unsigned k = 0; k < 2; k++)
		fix_spoil(&fix, fix_place(&fix, address, k) + 2048, 64);
	reopen();
	ck_assert_uint_eq(journal_recovery(fix.journal)->lost, 1);
}
END_TEST

/* Home may be ahead of what a crash of the host left of the log, unless the log said durable before. */
START_TEST(home_never_gets_what_a_host_crash_could_take_from_the_log)
{
	struct format_journal_head head[2];
	maddr_t a, b;

	setenv("MENDFS_BOOT_ID", "a", 1);
	fix_create_open(&fix, 2);
	a = fix_new_block(&fix, 1);
	b = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	for (unsigned k = 0; k < 2; k++)
		read_head(k, &head[k]);
	fix_change(&fix, a, 0, 2);
	fix_change(&fix, b, 0, 2);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	fix_crash(&fix);
	for (unsigned k = 0; k < 2; k++) /* the crash came before the heads, and one home write was lost */
		fix_write_file(&fix, fix.super.areas[AREA_JOURNAL].copy[k], &head[k], sizeof(head[k]));
	fix_spoil(&fix, fix_place(&fix, b, 0) + 1024, 64);
	setenv("MENDFS_BOOT_ID", "b", 1);
	reopen();
	ck_assert_uint_eq(fix_word(&fix, a, 0), 2);
	ck_assert_uint_eq(fix_word(&fix, b, 0), 2);
	ck_assert_uint_eq(journal_recovery(fix.journal)->discarded, 0);
}
END_TEST

/* --- heads ------------------------------------------------------------------------------------------------------------------- */

START_TEST(one_whole_head_is_enough_and_the_newer_one_wins)
{
	struct format_journal_head old;
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	read_head(1, &old);
	fix_close(&fix);
	fix_write_file(&fix, fix.super.areas[AREA_JOURNAL].copy[1], &old, sizeof(old)); /* the crash came between the two */
	reopen();
	ck_assert_uint_eq(journal_recovery(fix.journal)->records, 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
	fix_close(&fix);
	fix_spoil(&fix, fix.super.areas[AREA_JOURNAL].copy[0], 64);
	reopen();
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
	fix_close(&fix);
}
END_TEST

START_TEST(without_a_whole_head_opening_is_refused_with_a_reason)
{
	fix_create_open(&fix, 2);
	fix_close(&fix);
	fix_spoil(&fix, fix.super.areas[AREA_JOURNAL].copy[0], 64);
	fix_spoil(&fix, fix.super.areas[AREA_JOURNAL].copy[1], 64);
	ck_assert_int_eq(fix_open(&fix), -EUCLEAN);
	ck_assert_uint_gt(strlen(fix.why.text), 10);
}
END_TEST

static void write_heads(void (*change)(struct format_journal_head *head))
{
	static const uint8_t zero[4];
	struct format_journal_head head;

	for (unsigned k = 0; k < 2; k++) {
		read_head(k, &head);
		change(&head);
		head.crc32c = le32_make(crc32c(crc32c(crc32c(0, &head, 4), zero, 4), (uint8_t *)&head + 8, sizeof(head) - 8));
		fix_write_file(&fix, fix.super.areas[AREA_JOURNAL].copy[k], &head, sizeof(head));
	}
}

static void wear(struct format_journal_head *head)
{
	head->update = le64_make(FORMAT_JOURNAL_COUNT_WORN - 1);
}

static void end(struct format_journal_head *head)
{
	head->update = le64_make(FORMAT_JOURNAL_COUNT_END);
}

START_TEST(counts_at_their_end_leave_what_was_committed_readable)
{
	maddr_t address;

	fix_create_open(&fix, 2);
	fix_close(&fix);
	write_heads(wear);
	reopen();
	ck_assert(!journal_is_readonly(fix.journal));
	address = fix_new_block(&fix, 1);
	fix_crash(&fix);
	for (unsigned i = 0; i < 2; i++) {
		reopen();
		ck_assert(journal_is_readonly(fix.journal));
		ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
		fix_close(&fix);
	}
	write_heads(end);
	ck_assert_int_eq(fix_open(&fix), -EUCLEAN);
}
END_TEST

START_TEST(without_a_root_block_opening_is_refused_with_a_reason)
{
	fix_create_open(&fix, 2);
	fix_close(&fix);
	fix_spoil(&fix, fix_place(&fix, MADDR_ROOT, 0), 64);
	reopen();
	fix_close(&fix);
	fix_spoil(&fix, fix_place(&fix, MADDR_ROOT, 0), 64);
	fix_spoil(&fix, fix_place(&fix, MADDR_ROOT, 1), 64);
	ck_assert_int_eq(fix_open(&fix), -EUCLEAN);
	ck_assert_uint_gt(strlen(fix.why.text), 10);
}
END_TEST

START_TEST(a_read_only_open_replays_into_memory_and_writes_nothing)
{
	maddr_t address;
	uint32_t sum;
	struct tx *tx;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	fix_change(&fix, address, 0, 2);
	fix_crash(&fix);
	sum = file_sum();
	fix.options.readonly = true;
	reopen();
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
	ck_assert_int_eq(tx_begin(fix.journal, TX_NORMAL, &tx), -EROFS);
	buf_drop_clean(fix.journal);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
	ck_assert_int_eq(fix_close(&fix), 0);
	ck_assert_uint_eq(file_sum(), sum);
	fix.options.readonly = false;
}
END_TEST

/* --- bad places in the ring ---------------------------------------------------------------------------------------------------- */

START_TEST(known_bad_places_of_the_ring_are_jumped_over)
{
	uint64_t ring_bytes = FIX_LOG_BYTES - BLOCK_BYTES;
	maddr_t address;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 1);
	for (unsigned i = 1; i < 16; i++) /* in one copy or the other, all along */
		ck_assert_int_eq(media_bad_add(fix.media, fix_ring(&fix, i % 2) + ring_bytes / 16 * i, 4096), 0);
	for (unsigned i = 0; i < 9000; i++)
		fix_change(&fix, address, i % 500, i);
	fix_crash(&fix);
	reopen();
	for (unsigned i = 8500; i < 9000; i++)
		ck_assert_uint_eq(fix_word(&fix, address, i % 500), i);
	fix_change(&fix, address, 0, 1);
	fix_crash(&fix);
	reopen();
	ck_assert_uint_eq(fix_word(&fix, address, 0), 1);
}
END_TEST

START_TEST(the_ring_wraps_and_a_kill_at_any_time_loses_nothing)
{
	maddr_t address;
	uint64_t value = 0;

	fix_create_open(&fix, 2);
	address = fix_new_block(&fix, 0);
	for (unsigned round = 0; round < 12; round++) {
		for (unsigned i = 0; i < 300 + 97 * round; i++) {
			value++;
			fix_change(&fix, address, (unsigned)((value - 1) % 100) * 5, value);
		}
		fix_crash(&fix);
		reopen();
		ck_assert(!journal_recovery(fix.journal)->hole);
		ck_assert_uint_eq(fix_word(&fix, address, (unsigned)((value - 1) % 100) * 5), value);
	}
}
END_TEST

/* --- hostile bytes -------------------------------------------------------------------------------------------------------------- */

/* Open if it can be opened, read every block there may be, go away. */
static void use_whatever_opens(void)
{
	struct buf *buf;
	uint64_t value;
	struct tx *tx;

	if (fix_open(&fix)) {
		ck_assert_uint_gt(strlen(fix.why.text), 0);
		return;
	}
	for (unsigned i = 0; i < 40; i++)
		fix_get_word(&fix, maddr_of_chunk(i / 20, i % 20), 0, &value);
	if (!tx_begin(fix.journal, TX_NORMAL, &tx)) {
		if (!buf_create(tx, FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf))
			buf_put(buf);
		tx_commit(tx, NULL);
	}
	fix_close(&fix);
}

static void make_victim(char *saved, size_t size)
{
	maddr_t address[10];
	struct tx *tx;

	fix_create_open(&fix, 2);
	for (unsigned i = 0; i < 10; i++)
		address[i] = fix_new_block(&fix, i);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	for (unsigned i = 0; i < 10; i++)
		fix_change(&fix, address[i], i, 5);
	tx = fix_begin(&fix);
	fix_destroy_block(tx, address[3]);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	fix_new_block(&fix, 9);
	fix_crash(&fix);
	snprintf(saved, size, "%s.saved", fix.path);
	fix_copy_file(fix.path, saved);
}

static devoff_t random_place(void)
{
	devoff_t place[] = { fix.super.areas[AREA_JOURNAL].copy[rand() % 2], fix_ring(&fix, rand() % 2),
			     fix_place(&fix, MADDR_ROOT, rand() % 2), fix_place(&fix, MADDR_TABLE, rand() % 2),
			     fix_place(&fix, maddr_of_chunk(0, 1 + (unsigned)rand() % 10), rand() % 2) };
	unsigned which = (unsigned)rand() % 5;

	return place[which] + (which == 1 ? (unsigned)rand() % 16384 : which == 0 ? (unsigned)rand() % 64 : (unsigned)rand() % 4095);
}

START_TEST(flipped_bytes_anywhere_never_crash)
{
	const char *seed = getenv("MENDFS_TEST_SEED");
	char saved[300];

	srand(seed ? (unsigned)atoi(seed) : 7);
	make_victim(saved, sizeof(saved));
	for (unsigned round = 0; round < 150; round++) {
		fix_copy_file(saved, fix.path);
		for (unsigned n = 1 + (unsigned)rand() % 12; n; n--)
			fix_spoil(&fix, random_place(), 1);
		use_whatever_opens();
	}
	unlink(saved);
}
END_TEST

/* A record that is whole by its checksum, with one of its fields changed. */
static void forge_record(uint64_t sequence)
{
	static const uint8_t zero[4];
	uint8_t bytes[8192];
	uint32_t length, crc;
	uint64_t offset = find_record(sequence, &length);
	struct le32 sum;

	fix_read_file(&fix, fix_ring(&fix, 0) + offset, bytes, length);
	for (unsigned n = 1 + (unsigned)rand() % 3; n; n--)
		bytes[24 + (unsigned)rand() % 128] = (uint8_t)(rand() % 3 ? rand() : 0xff);
	crc = crc32c(crc32c(crc32c(0, bytes, 4), zero, 4), bytes + 8, length - 8);
	sum = le32_make(crc);
	memcpy(bytes + 4, &sum, 4);
	for (unsigned k = 0; k < 2; k++)
		fix_write_file(&fix, fix_ring(&fix, k) + offset, bytes, length);
}

START_TEST(forged_records_never_crash)
{
	const char *seed = getenv("MENDFS_TEST_SEED");
	char saved[300];

	srand(seed ? (unsigned)atoi(seed) : 8);
	make_victim(saved, sizeof(saved));
	for (unsigned round = 0; round < 150; round++) {
		fix_copy_file(saved, fix.path);
		forge_record(12 + (unsigned)rand() % 10);
		use_whatever_opens();
	}
	unlink(saved);
}
END_TEST

/* --- against a model ------------------------------------------------------------------------------------------------------------- */

#define MODEL_BLOCKS 60

struct model {
	maddr_t address[MODEL_BLOCKS]; /* 0: not there */
	uint64_t words[MODEL_BLOCKS][8];
};

static void model_step(struct model *model, struct tx *tx)
{
	unsigned i = (unsigned)rand() % MODEL_BLOCKS, word = (unsigned)rand() % 8;

	if (!model->address[i]) {
		model->address[i] = fix_create_block(tx, i);
		for (unsigned w = 0; w < 8; w++)
			model->words[i][w] = i;
	} else if (rand() % 5 == 0) {
		fix_destroy_block(tx, model->address[i]);
		model->address[i] = 0;
	} else {
		model->words[i][word] = (uint64_t)rand();
		fix_set_word(tx, model->address[i], word * 60, model->words[i][word]);
	}
}

static void model_check(struct model *model)
{
	for (unsigned i = 0; i < MODEL_BLOCKS; i++)
		for (unsigned w = 0; model->address[i] && w < 8; w++)
			ck_assert_uint_eq(fix_word(&fix, model->address[i], w * 60), model->words[i][w]);
}

static void model_transaction(struct model *model)
{
	struct model changed = *model;
	struct tx *tx = fix_begin(&fix);

	for (unsigned n = 1 + (unsigned)rand() % 12; n; n--)
		model_step(&changed, tx);
	if (rand() % 8 == 0) {
		tx_abort(tx);
		return;
	}
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	*model = changed;
}

static void model_run(unsigned copies, unsigned seed, unsigned rounds)
{
	static struct model model;

	memset(&model, 0, sizeof(model));
	srand(seed);
	printf("model: %u copies, seed %u\n", copies, seed);
	fix_create_open(&fix, copies);
	for (unsigned round = 0; round < rounds; round++) {
		for (unsigned n = (unsigned)rand() % 200; n; n--) {
			model_transaction(&model);
			if (rand() % 40 == 0)
				ck_assert_int_eq(journal_sync(fix.journal), 0);
			if (rand() % 60 == 0)
				ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
			if (rand() % 50 == 0)
				buf_drop_clean(fix.journal);
		}
		if (rand() % 3)
			fix_crash(&fix);
		else
			ck_assert_int_eq(fix_close(&fix), 0);
		reopen();
		model_check(&model);
		ck_assert_uint_eq(fix.reports, 0);
	}
	fix_destroy(&fix);
}

START_TEST(random_transactions_and_kills_agree_with_a_model)
{
	const char *seed = getenv("MENDFS_TEST_SEED");
	unsigned first = seed ? (unsigned)atoi(seed) : 1;

	model_run(2, first, 12);
	model_run(1, first + 1, 8);
	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	model_run(2, first + 2, 12);
}
END_TEST

static void add_tests(TCase *tests)
{
	tcase_add_test(tests, a_record_torn_in_both_copies_is_the_end);
	tcase_add_test(tests, a_record_counts_if_either_copy_has_it_and_both_have_it_afterwards);
	tcase_add_test(tests, a_hole_is_not_the_end_and_nothing_is_written);
	tcase_add_test(tests, after_a_host_crash_only_what_was_said_to_be_durable_counts);
	tcase_add_test(tests, after_a_kill_on_the_same_boot_everything_counts);
	tcase_add_test(tests, a_gap_beyond_what_was_durable_is_no_hole_after_a_host_crash);
	tcase_add_test(tests, a_gap_in_what_was_durable_is_a_hole_on_any_boot);
	tcase_add_test(tests, a_gap_before_a_record_of_persistent_memory_that_was_built_on_it_is_a_hole);
	tcase_add_test(tests, records_made_on_persistent_memory_count_on_any_boot);
	tcase_add_test(tests, records_of_the_previous_mkfs_are_refused);
	tcase_add_test(tests, heads_of_the_previous_mkfs_are_refused);
	tcase_add_test(tests, blocks_of_the_previous_mkfs_are_refused);
	tcase_add_test(tests, a_record_of_an_earlier_epoch_is_not_replayed_although_its_sequence_fits);
	tcase_add_test(tests, a_half_written_home_block_is_replaced_by_the_other_copy);
	tcase_add_test(tests, a_new_block_needs_no_whole_copy_at_home);
	tcase_add_test(tests, a_block_without_base_is_lost_alone_and_the_log_is_kept);
	tcase_add_test(tests, freed_metadata_is_not_resurrected);
	tcase_add_test(tests, a_block_freed_and_created_again_has_its_new_content_only);
	tcase_add_test(tests, a_block_that_was_data_before_starts_from_zeros);
	tcase_add_test(tests, replay_is_the_same_when_it_was_interrupted_at_any_copy_step);
	tcase_add_test(tests, with_both_copies_torn_at_once_replay_does_fail);
	tcase_add_test(tests, home_never_gets_what_a_host_crash_could_take_from_the_log);
	tcase_add_test(tests, one_whole_head_is_enough_and_the_newer_one_wins);
	tcase_add_test(tests, without_a_whole_head_opening_is_refused_with_a_reason);
	tcase_add_test(tests, counts_at_their_end_leave_what_was_committed_readable);
	tcase_add_test(tests, without_a_root_block_opening_is_refused_with_a_reason);
	tcase_add_test(tests, a_read_only_open_replays_into_memory_and_writes_nothing);
	tcase_add_test(tests, known_bad_places_of_the_ring_are_jumped_over);
	tcase_add_test(tests, the_ring_wraps_and_a_kill_at_any_time_loses_nothing);
	tcase_add_test(tests, flipped_bytes_anywhere_never_crash);
	tcase_add_test(tests, forged_records_never_crash);
	tcase_add_test(tests, random_transactions_and_kills_agree_with_a_model);
}

int main(void)
{
	Suite *suite = suite_create("recover");
	TCase *tests = tcase_create("recover");

	tcase_add_checked_fixture(tests, NULL, teardown);
	tcase_set_timeout(tests, 300);
	add_tests(tests);
	suite_add_tcase(suite, tests);
	return fix_run(suite);
}
