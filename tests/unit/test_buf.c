#include "tests/support/journalfix.h"

#include <errno.h>
#include <pthread.h>

static struct journalfix fix;

static void setup(void)
{
	fix_create_open(&fix, 2);
}

static void teardown(void)
{
	fix_destroy(&fix);
}

static void reopen(void)
{
	ck_assert_int_eq(fix_close(&fix), 0);
	ck_assert_msg(!fix_open(&fix), "%s", fix.why.text);
}

/* A block at home in two versions: `old` as the file had it before. */
static maddr_t make_block(uint8_t old[BLOCK_BYTES])
{
	maddr_t address = fix_new_block(&fix, 1);

	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	fix_read_file(&fix, fix_place(&fix, address, 0), old, BLOCK_BYTES);
	fix_change(&fix, address, 0, 2);
	ck_assert_int_eq(fix_close(&fix), 0);
	return address;
}

static void open_again(void)
{
	ck_assert_msg(!fix_open(&fix), "%s", fix.why.text);
}

static struct media_counts count_media(void)
{
	struct media_counts counts;

	media_counts(fix.media, &counts);
	return counts;
}

START_TEST(a_damaged_copy_is_answered_from_the_other_and_reported)
{
	uint8_t old[BLOCK_BYTES];
	maddr_t address = make_block(old);

	for (unsigned copy = 0; copy < 2; copy++) {
		fix_spoil(&fix, fix_place(&fix, address, copy) + 24, 8); /* own address: seen in the header alone */
		open_again();
		ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
		ck_assert_uint_eq(fix.reports, 1);
		ck_assert_uint_eq(fix.report[0].copy, copy);
		ck_assert_uint_eq(fix.report[0].address, address);
		ck_assert_int_eq(fix_close(&fix), 0);
		fix_spoil(&fix, fix_place(&fix, address, copy) + 24, 8);
	}
}
END_TEST

START_TEST(damage_anywhere_in_the_primary_is_seen_on_a_miss)
{
	uint8_t old[BLOCK_BYTES];
	maddr_t address = make_block(old);

	fix_spoil(&fix, fix_place(&fix, address, 0) + 4000, 1);
	open_again();
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
	ck_assert_uint_eq(fix.reports, 1);
	ck_assert_str_eq(fix.report[0].reason, "crc32c");
}
END_TEST

START_TEST(the_copy_with_the_higher_sequence_wins_and_the_other_is_reported)
{
	uint8_t old[BLOCK_BYTES], now[BLOCK_BYTES];
	maddr_t address = make_block(old);

	fix_read_file(&fix, fix_place(&fix, address, 0), now, sizeof(now));
	for (unsigned copy = 0; copy < 2; copy++) {
		fix_write_file(&fix, fix_place(&fix, address, copy), old, sizeof(old));
		open_again();
		ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
		ck_assert_uint_eq(fix.reports, 1);
		ck_assert_uint_eq(fix.report[0].copy, copy);
		ck_assert_str_eq(fix.report[0].reason, "older sequence");
		ck_assert_int_eq(fix_close(&fix), 0);
		fix_write_file(&fix, fix_place(&fix, address, copy), now, sizeof(now));
	}
}
END_TEST

START_TEST(a_header_that_lies_about_its_sequence_does_not_win)
{
	uint8_t old[BLOCK_BYTES];
	maddr_t address = make_block(old);
	struct le64 sequence = le64_make(4);

	fix_write_file(&fix, fix_place(&fix, address, 1) + offsetof(struct format_block_header, sequence), &sequence, 8);
	open_again();
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
	ck_assert_uint_eq(fix.reports, 1);
	ck_assert_uint_eq(fix.report[0].copy, 1);
}
END_TEST

START_TEST(a_sequence_that_the_log_has_not_reached_is_refused)
{
	uint8_t old[BLOCK_BYTES] __attribute__((aligned(64)));
	maddr_t address = make_block(old);

	format_block_seal(old, 1ull << 50); /* whole, but from nowhere */
	fix_write_file(&fix, fix_place(&fix, address, 1), old, sizeof(old));
	open_again();
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
	ck_assert_uint_eq(fix.reports, 1);
}
END_TEST

START_TEST(a_poisoned_primary_is_answered_from_the_replica_and_touched_once)
{
	uint8_t old[BLOCK_BYTES];
	maddr_t address = make_block(old);

	open_again();
	ck_assert_int_eq(media_poison_arm(fix.media, fix_place(&fix, address, 0), BLOCK_BYTES, true), 0);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
	ck_assert_uint_eq(count_media().sigbus, 1);
	ck_assert_uint_eq(fix.reports, 0); /* media/ tells of poison itself */
	buf_drop_clean(fix.journal);
	ck_assert_uint_eq(fix_word(&fix, address, 0), 2);
	ck_assert_uint_eq(count_media().sigbus, 1);
}
END_TEST

START_TEST(with_both_copies_poisoned_the_answer_is_eio_and_nothing_else_suffers)
{
	uint8_t old[BLOCK_BYTES];
	maddr_t address = make_block(old), other;
	uint64_t value;

	open_again();
	other = fix_new_block(&fix, 5);
	for (unsigned k = 0; k < 2; k++)
		ck_assert_int_eq(media_poison_arm(fix.media, fix_place(&fix, address, k) + 100, 1, true), 0);
	ck_assert_int_eq(fix_get_word(&fix, address, 0, &value), -EIO);
	ck_assert_int_eq(fix_get_word(&fix, address, 0, &value), -EIO);
	ck_assert_uint_eq(fix_word(&fix, other, 0), 5);
}
END_TEST

START_TEST(with_both_copies_damaged_the_answer_is_euclean)
{
	uint8_t old[BLOCK_BYTES];
	maddr_t address = make_block(old);
	uint64_t value;

	for (unsigned k = 0; k < 2; k++)
		fix_spoil(&fix, fix_place(&fix, address, k) + 200, 1);
	open_again();
	ck_assert_int_eq(fix_get_word(&fix, address, 0, &value), -EUCLEAN);
}
END_TEST

START_TEST(another_role_or_tree_is_refused)
{
	maddr_t address = fix_new_block(&fix, 1);
	struct buf *buf;

	journal_read_begin(fix.journal);
	ck_assert_int_eq(buf_get(fix.journal, address, FORMAT_ROLE_NODE, FORMAT_TREE_RMAP, &buf), -EUCLEAN);
	ck_assert_int_eq(buf_get(fix.journal, address, FORMAT_ROLE_CHUNK_HEADER, FORMAT_TREE_INODES, &buf), -EUCLEAN);
	ck_assert_int_eq(buf_get_any(fix.journal, address, &buf), 0);
	buf_put(buf);
	journal_read_end(fix.journal);
}
END_TEST

START_TEST(a_whole_block_at_the_wrong_place_is_refused)
{
	uint8_t block[BLOCK_BYTES];
	maddr_t a = fix_new_block(&fix, 1), b = fix_new_block(&fix, 2);
	uint64_t value;

	ck_assert_int_eq(fix_close(&fix), 0);
	fix_read_file(&fix, fix_place(&fix, a, 0), block, sizeof(block));
	for (unsigned k = 0; k < 2; k++)
		fix_write_file(&fix, fix_place(&fix, b, k), block, sizeof(block));
	open_again();
	ck_assert_int_eq(fix_get_word(&fix, b, 0, &value), -EUCLEAN);
	ck_assert_uint_eq(fix_word(&fix, a, 0), 1);
}
END_TEST

START_TEST(a_word_of_the_layer_above_is_zero_on_load_and_create)
{
	maddr_t address = fix_new_block(&fix, 1);
	struct buf *buf;
	struct tx *tx;

	reopen();
	journal_read_begin(fix.journal);
	ck_assert_int_eq(buf_get_any(fix.journal, address, &buf), 0);
	ck_assert_uint_eq(buf->verified, 0);
	buf->verified = 1;
	buf_put(buf);
	ck_assert_int_eq(buf_get_any(fix.journal, address, &buf), 0);
	ck_assert_uint_eq(buf->verified, 1);
	buf_put(buf);
	journal_read_end(fix.journal);
	tx = fix_begin(&fix);
	fix_destroy_block(tx, address);
	ck_assert_int_eq(buf_create(tx, FORMAT_ROLE_NODE, 1, &buf), 0);
	ck_assert_uint_eq(buf->address, address);
	ck_assert_uint_eq(buf->verified, 0);
	buf_put(buf);
	tx_abort(tx);
}
END_TEST

/* --- the cache ------------------------------------------------------------------------------------------------------------ */

static uint64_t count_cache_bytes(void)
{
	struct journal_counts counts;

	journal_counts(fix.journal, &counts);
	return counts.cache_bytes;
}

/* Many small chunks full of blocks. */
static unsigned fill_many(maddr_t *address, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		devoff_t copy[2] = { FIX_SPACE + i / 8 * 131072, FIX_SPACE + i / 8 * 131072 + 65536 };
		struct tx *tx = fix_begin(&fix);
		uint64_t chunk;

		if (i % 8 == 0)
			ck_assert_int_eq(chunk_add(tx, copy, CHUNK_SHIFT_MIN, &chunk), 0);
		address[i] = fix_create_block(tx, i);
		ck_assert_int_eq(tx_commit(tx, NULL), 0);
	}
	return count;
}

#define MANY 800

START_TEST(the_cache_stays_within_its_bytes_and_dirty_blocks_within_the_cache)
{
	static maddr_t address[MANY];
	unsigned count = fill_many(address, MANY);

	fix.options.cache_bytes = 1; /* the least there is */
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < count; i++)
			ck_assert_uint_eq(fix_word(&fix, address[i], 3), i);
		ck_assert_uint_le(count_cache_bytes(), 5 * FIX_MIB);
	}
	reopen();
	for (unsigned i = 0; i < count; i++)
		fix_change(&fix, address[i], 9, i);
	for (unsigned i = 0; i < count; i++)
		ck_assert_uint_eq(fix_word(&fix, address[i], 9), i);
}
END_TEST

START_TEST(clean_blocks_are_dropped_when_asked_and_dirty_or_joined_ones_stay)
{
	maddr_t dirty, held = fix_new_block(&fix, 1);
	uint64_t reads;
	struct buf *buf;
	struct tx *tx;

	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	dirty = fix_new_block(&fix, 2);
	ck_assert_int_eq(tx_begin(fix.journal, TX_NORMAL, &tx), 0);
	ck_assert_int_eq(buf_get_any(fix.journal, held, &buf), 0);
	ck_assert_int_eq(tx_join(tx, buf), 0);
	buf_put(buf);
	buf_drop_clean(fix.journal);
	reads = count_media().reads;
	ck_assert_int_eq(buf_get_any(fix.journal, held, &buf), 0);
	buf_put(buf);
	tx_abort(tx);
	ck_assert_uint_eq(fix_word(&fix, dirty, 0), 2);
	ck_assert_uint_eq(count_media().reads, reads);
	buf_drop_clean(fix.journal);
	ck_assert_uint_eq(fix_word(&fix, held, 0), 1);
	ck_assert_uint_gt(count_media().reads, reads);
}
END_TEST

START_TEST(what_a_reader_looks_at_stays_until_it_leaves_though_it_is_dropped)
{
	maddr_t address = fix_new_block(&fix, 7);
	struct buf *buf, *again;

	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	journal_read_begin(fix.journal);
	ck_assert_int_eq(buf_get_any(fix.journal, address, &buf), 0);
	buf_drop_clean(fix.journal);
	ck_assert_int_eq(buf_get_any(fix.journal, address, &again), 0);
	ck_assert_ptr_ne(again, buf);
	ck_assert_mem_eq(again->data + 64, buf->data + 64, BLOCK_BYTES - 64); /* the header is sealed at home only */
	buf_put(again);
	buf_put(buf);
	journal_read_end(fix.journal);
}
END_TEST

static maddr_t shared_address[MANY];
static _Atomic bool stop;

static void *read_all(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (!stop)
		for (unsigned n = 0; n < 200; n++) {
			unsigned i = (unsigned)rand_r(&seed) % MANY;
			struct buf *buf;
			uint64_t value = UINT64_MAX, last = 0;
			int error;

			journal_read_begin(fix.journal);
			error = buf_get(fix.journal, shared_address[i], FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf);
			if (!error) {
				value = ((uint64_t *)(buf->data + 64))[0];
				last = ((uint64_t *)(buf->data + 64))[503];
				buf_put(buf);
			}
			journal_read_end(fix.journal);
			if (error || value != last) /* both are changed in one transaction */
				return (void *)1;
		}
	return NULL;
}

START_TEST(many_readers_and_a_writer_agree_while_blocks_come_and_go)
{
	pthread_t reader[3];
	unsigned wrong = 0;
	void *result;

	fill_many(shared_address, MANY);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	stop = false;
	for (uintptr_t i = 0; i < 3; i++)
		pthread_create(&reader[i], NULL, read_all, (void *)(i + 1));
	for (unsigned i = 0; i < 1500; i++) {
		struct tx *tx = fix_begin(&fix);

		fix_set_word(tx, shared_address[i * 7 % MANY], 0, i);
		fix_set_word(tx, shared_address[i * 7 % MANY], 503, i);
		if (i % 5 == 0)
			tx_abort(tx);
		else
			ck_assert_int_eq(tx_commit(tx, NULL), 0);
		if (i % 100 == 0)
			buf_drop_clean(fix.journal);
		if (i % 300 == 0)
			ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	}
	stop = true;
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(reader[i], &result);
		wrong += result != NULL;
	}
	ck_assert_uint_eq(wrong, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("buf");
	TCase *tests = tcase_create("buf");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, a_damaged_copy_is_answered_from_the_other_and_reported);
	tcase_add_test(tests, damage_anywhere_in_the_primary_is_seen_on_a_miss);
	tcase_add_test(tests, the_copy_with_the_higher_sequence_wins_and_the_other_is_reported);
	tcase_add_test(tests, a_header_that_lies_about_its_sequence_does_not_win);
	tcase_add_test(tests, a_sequence_that_the_log_has_not_reached_is_refused);
	tcase_add_test(tests, a_poisoned_primary_is_answered_from_the_replica_and_touched_once);
	tcase_add_test(tests, with_both_copies_poisoned_the_answer_is_eio_and_nothing_else_suffers);
	tcase_add_test(tests, with_both_copies_damaged_the_answer_is_euclean);
	tcase_add_test(tests, another_role_or_tree_is_refused);
	tcase_add_test(tests, a_whole_block_at_the_wrong_place_is_refused);
	tcase_add_test(tests, a_word_of_the_layer_above_is_zero_on_load_and_create);
	tcase_add_test(tests, the_cache_stays_within_its_bytes_and_dirty_blocks_within_the_cache);
	tcase_add_test(tests, clean_blocks_are_dropped_when_asked_and_dirty_or_joined_ones_stay);
	tcase_add_test(tests, what_a_reader_looks_at_stays_until_it_leaves_though_it_is_dropped);
	tcase_add_test(tests, many_readers_and_a_writer_agree_while_blocks_come_and_go);
	suite_add_tcase(suite, tests);
	return fix_run(suite);
}
