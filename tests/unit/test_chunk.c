#include "tests/support/journalfix.h"

#include <errno.h>

static struct journalfix fix;
static uint64_t spaces;

static void setup(void)
{
	spaces = 0;
	fix_create_open(&fix, 2);
}

static void teardown(void)
{
	fix_destroy(&fix);
}

static uint64_t add_chunk(struct tx *tx)
{
	devoff_t copy[2] = { FIX_SPACE + spaces * 131072, FIX_SPACE + spaces * 131072 + 65536 };
	uint64_t chunk = UINT64_MAX;

	spaces++;
	ck_assert_int_eq(chunk_add(tx, copy, CHUNK_SHIFT_MIN, &chunk), 0);
	return chunk;
}

static uint64_t add_chunks(unsigned count)
{
	uint64_t chunk = 0;

	while (count--) {
		struct tx *tx = NULL;

		ck_assert_int_eq(tx_begin(fix.journal, TX_RESERVE, &tx), 0);
		chunk = add_chunk(tx);
		ck_assert_int_eq(tx_commit(tx, NULL), 0);
	}
	return chunk;
}

/* Take blocks one by one until it is refused; how many. */
static unsigned take_all(enum tx_kind kind, int *error)
{
	unsigned count = 0;
	struct buf *buf;
	struct tx *tx;

	for (*error = 0; !*error; count++) {
		ck_assert_int_eq(tx_begin(fix.journal, kind, &tx), 0);
		*error = buf_create(tx, FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf);
		if (*error) {
			tx_abort(tx);
			break;
		}
		fix_fill(buf, buf->address);
		buf_put(buf);
		ck_assert_int_eq(tx_commit(tx, NULL), 0);
	}
	return count;
}

START_TEST(only_the_reserve_kind_takes_the_last_blocks)
{
	int error;

	ck_assert_uint_eq(chunk_free_blocks(fix.journal), 255 - METADATA_RESERVE_BLOCKS);
	ck_assert_uint_eq(take_all(TX_NORMAL, &error), 255 - METADATA_RESERVE_BLOCKS);
	ck_assert_int_eq(error, -ENOSPC);
	ck_assert_uint_eq(chunk_free_blocks(fix.journal), 0);
	ck_assert_uint_eq(take_all(TX_RESERVE, &error), METADATA_RESERVE_BLOCKS);
	ck_assert_int_eq(error, -ENOSPC);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_META_FREE), 0);
	for (unsigned i = 1; i < 256; i++)
		ck_assert_uint_eq(fix_word(&fix, maddr_of_chunk(0, i), 7), maddr_of_chunk(0, i));
}
END_TEST

START_TEST(blocks_map_to_both_copies_of_their_chunk)
{
	uint64_t chunk = add_chunks(1);
	devoff_t offset[2];

	journal_read_begin(fix.journal);
	ck_assert_int_eq(chunk_map(fix.journal, maddr_of_chunk(chunk, 3), offset), 0);
	ck_assert_uint_eq(offset[0], FIX_SPACE + 3 * 4096);
	ck_assert_uint_eq(offset[1], FIX_SPACE + 65536 + 3 * 4096);
	ck_assert_int_eq(chunk_map(fix.journal, maddr_of_chunk(chunk, 16), offset), -EUCLEAN);
	ck_assert_int_eq(chunk_map(fix.journal, maddr_of_chunk(chunk + 1, 0), offset), -EUCLEAN);
	ck_assert_int_eq(chunk_map(fix.journal, UINT64_MAX, offset), -EUCLEAN);
	ck_assert_int_eq(chunk_map(fix.journal, MADDR_ROOT, offset), 0);
	ck_assert_uint_eq(offset[1], fix.super.areas[AREA_FIXED].copy[1]);
	journal_read_end(fix.journal);
}
END_TEST

START_TEST(the_table_grows_over_its_blocks_and_survives_a_kill)
{
	struct chunk_entry entry;

	ck_assert_uint_eq(add_chunks(100), 100);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_META_BLOCKS), 256 + 100 * 16);
	fix_crash(&fix);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_CHUNKS), 101);
	journal_read_begin(fix.journal);
	for (uint64_t c = 1; c <= 100; c++) {
		ck_assert_int_eq(chunk_entry(fix.journal, c, &entry), 0);
		ck_assert_uint_eq(entry.copy[0], FIX_SPACE + (c - 1) * 131072);
		ck_assert_uint_eq(entry.generation, 1);
	}
	ck_assert_int_eq(chunk_entry(fix.journal, 101, &entry), -ENOENT);
	journal_read_end(fix.journal);
}
END_TEST

START_TEST(an_aborted_chunk_leaves_no_trace_even_when_the_table_had_grown)
{
	struct tx *tx;

	add_chunks(30); /* the first table block is full */
	for (unsigned i = 0; i < 2; i++) {
		tx = fix_begin(&fix);
		ck_assert_uint_eq(add_chunk(tx), 31);
		tx_abort(tx);
		ck_assert_uint_eq(root_get(fix.journal, ROOT_CHUNKS), 31);
	}
	ck_assert_uint_eq(add_chunks(1), 31);
	ck_assert_int_eq(fix_close(&fix), 0);
	ck_assert_int_eq(fix_open(&fix), 0);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_CHUNKS), 32);
}
END_TEST

START_TEST(the_header_of_a_chunk_says_where_it_lies_in_both_copies)
{
	struct format_chunk_header header;
	const char *field;

	add_chunks(2);
	for (unsigned k = 0; k < 2; k++) {
		fix_read_file(&fix, FIX_SPACE + 131072 + k * 65536, &header, sizeof(header));
		ck_assert_int_eq(format_block_verify(&header, fix.super.meta_uuid, maddr_of_chunk(2, 0), &field), 0);
		ck_assert_uint_eq(le64_get(header.chunk), 2);
		ck_assert_uint_eq(le64_get(header.copy[1]), FIX_SPACE + 131072 + 65536);
	}
}
END_TEST

START_TEST(an_empty_chunk_goes_only_after_a_checkpoint_and_its_number_is_used_again)
{
	struct chunk_entry entry;
	uint64_t chunk, found = 0;
	struct tx *tx;

	add_chunks(20);
	ck_assert_int_eq(chunk_find_empty(fix.journal, &chunk), 0);
	ck_assert_uint_eq(chunk, 20);
	tx = fix_begin(&fix);
	ck_assert_int_eq(chunk_retire(tx, 7), 0);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_META_FREE), 255 + 19 * 15);
	ck_assert_int_eq(chunk_next_freeing(fix.journal, &found, &entry), 0);
	ck_assert_uint_eq(found, 7);
	tx = fix_begin(&fix);
	ck_assert_int_eq(chunk_remove(tx, 7), -EBUSY);
	tx_abort(tx);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	tx = fix_begin(&fix);
	ck_assert_int_eq(chunk_remove(tx, 7), 0);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	ck_assert_int_eq(chunk_next_freeing(fix.journal, &found, &entry), -ENOENT);
	ck_assert_uint_eq(add_chunks(1), 7);
	ck_assert_int_eq(chunk_entry(fix.journal, 7, &entry), 0);
	ck_assert_uint_eq(entry.generation, 2);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_CHUNKS_FREEING), 0);
}
END_TEST

START_TEST(a_chunk_in_use_is_not_retired_and_the_reserve_is_never_offered)
{
	uint64_t chunk;
	struct tx *tx;

	ck_assert_int_eq(chunk_find_empty(fix.journal, &chunk), -ENOENT);
	fix_new_block(&fix, 1);
	tx = fix_begin(&fix);
	ck_assert_int_eq(chunk_retire(tx, 0), -EBUSY);
	tx_abort(tx);
}
END_TEST

START_TEST(a_moved_copy_is_read_and_written_at_its_new_place)
{
	uint64_t chunk = add_chunks(1);
	devoff_t elsewhere = FIX_SPACE + 4 * FIX_MIB, offset[2];
	static uint8_t copy[65536];
	maddr_t address = 0;
	struct tx *tx;
	int error;

	take_all(TX_NORMAL, &error);
	address = maddr_of_chunk(0, 1);
	for (unsigned i = 0; i < 40; i++) { /* the first chunk's blocks go, the new chunk's are used */
		tx = fix_begin(&fix);
		fix_destroy_block(tx, address + i);
		ck_assert_int_eq(tx_commit(tx, NULL), 0);
	}
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	fix_read_file(&fix, FIX_SPACE, copy, sizeof(copy));
	ck_assert_int_eq(media_write(fix.media, elsewhere, copy, sizeof(copy), NULL), 0);
	tx = fix_begin(&fix);
	ck_assert_int_eq(chunk_move_copy(tx, chunk, 0, elsewhere), 0);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	journal_read_begin(fix.journal);
	ck_assert_int_eq(chunk_map(fix.journal, maddr_of_chunk(chunk, 0), offset), 0);
	journal_read_end(fix.journal);
	ck_assert_uint_eq(offset[0], elsewhere);
	ck_assert_int_eq(fix_close(&fix), 0);
	ck_assert_int_eq(fix_open(&fix), 0);
	fix_read_file(&fix, elsewhere, copy, 4096);
	ck_assert_uint_eq(le64_get(((struct format_chunk_header *)copy)->copy[0]), elsewhere);
}
END_TEST

START_TEST(places_known_to_be_bad_are_not_given_out_while_there_are_others)
{
	maddr_t address;

	ck_assert_int_eq(media_bad_add(fix.media, fix.first[0] + 4096, 512), 0);
	ck_assert_int_eq(media_bad_add(fix.media, fix.first[1] + 2 * 4096 + 512, 512), 0);
	address = fix_new_block(&fix, 1);
	ck_assert_uint_eq(maddr_index(address), 3);
}
END_TEST

START_TEST(freed_blocks_are_found_again_at_once)
{
	unsigned count;
	struct tx *tx;
	int error;

	add_chunks(5);
	count = take_all(TX_NORMAL, &error);
	for (unsigned i = 1; i < 100; i += 7) {
		tx = fix_begin(&fix);
		fix_destroy_block(tx, maddr_of_chunk(0, i));
		ck_assert_int_eq(tx_commit(tx, NULL), 0);
		ck_assert_uint_eq(fix_new_block(&fix, 1), maddr_of_chunk(0, i));
	}
	ck_assert_uint_eq(count, 255 + 5 * 15 - METADATA_RESERVE_BLOCKS);
}
END_TEST

START_TEST(an_address_that_is_not_in_use_is_refused)
{
	struct buf *buf;

	journal_read_begin(fix.journal);
	ck_assert_int_eq(buf_get_any(fix.journal, maddr_of_chunk(0, 5), &buf), -EUCLEAN);
	ck_assert_int_eq(buf_get_any(fix.journal, maddr_of_chunk(9, 5), &buf), -EUCLEAN);
	ck_assert_int_eq(buf_get_any(fix.journal, MADDR_TABLE + 1, &buf), -EUCLEAN);
	ck_assert_int_eq(buf_get_any(fix.journal, UINT64_MAX - 5, &buf), -EUCLEAN);
	ck_assert_int_eq(buf_get_any(fix.journal, MADDR_CHUNK_BASE - 1, &buf), -EUCLEAN);
	ck_assert_int_eq(buf_get_any(fix.journal, maddr_of_chunk(0, 0), &buf), 0);
	buf_put(buf);
	journal_read_end(fix.journal);
}
END_TEST

START_TEST(the_fixed_area_bounds_the_table)
{
	devoff_t copy[2] = { FIX_SPACE, FIX_SPACE + 65536 };
	struct tx *tx;
	uint64_t chunk;
	int error = 0;

	for (unsigned i = 0; i < 2000 && !error; i++) {
		tx = fix_begin(&fix);
		error = chunk_add(tx, copy, CHUNK_SHIFT_MIN, &chunk);
		if (error)
			tx_abort(tx);
		else
			ck_assert_int_eq(tx_commit(tx, NULL), 0);
	}
	ck_assert_int_eq(error, -ENOSPC);
	ck_assert_uint_eq(root_get(fix.journal, ROOT_CHUNKS), (FIX_FIXED_BYTES / BLOCK_BYTES - 1) * CHUNK_ENTRIES_PER_BLOCK);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("chunk");
	TCase *tests = tcase_create("chunk");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, only_the_reserve_kind_takes_the_last_blocks);
	tcase_add_test(tests, blocks_map_to_both_copies_of_their_chunk);
	tcase_add_test(tests, the_table_grows_over_its_blocks_and_survives_a_kill);
	tcase_add_test(tests, an_aborted_chunk_leaves_no_trace_even_when_the_table_had_grown);
	tcase_add_test(tests, the_header_of_a_chunk_says_where_it_lies_in_both_copies);
	tcase_add_test(tests, an_empty_chunk_goes_only_after_a_checkpoint_and_its_number_is_used_again);
	tcase_add_test(tests, a_chunk_in_use_is_not_retired_and_the_reserve_is_never_offered);
	tcase_add_test(tests, a_moved_copy_is_read_and_written_at_its_new_place);
	tcase_add_test(tests, places_known_to_be_bad_are_not_given_out_while_there_are_others);
	tcase_add_test(tests, freed_blocks_are_found_again_at_once);
	tcase_add_test(tests, an_address_that_is_not_in_use_is_refused);
	tcase_add_test(tests, the_fixed_area_bounds_the_table);
	suite_add_tcase(suite, tests);
	return fix_run(suite);
}
