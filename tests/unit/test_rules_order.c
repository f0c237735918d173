/* Rules about what must be durable before what: read off the stores, drains and syncs that reach
 * the medium. */
#include "tests/support/files.h"
#include "tests/support/trace.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "fs/inode.h"
#include "journal/journal.h"
#include "notify/poison_log.h"

static struct fsfix fix;
static inum_t ino;

/* The linker sends these of this program here: a medium that cannot clear; a look at the medium
 * when the log is told that a range is good. */
int __real_media_clear(struct media *media, devoff_t offset, uint64_t length);
int __wrap_media_clear(struct media *media, devoff_t offset, uint64_t length);
int __real_poison_log_append(struct poison_log *log, struct poison_entry *entry);
int __wrap_poison_log_append(struct poison_log *log, struct poison_entry *entry);
static atomic_bool cannot_clear;
static _Atomic devoff_t watched[2]; /* copies of one block; 0: nobody watches */
static atomic_uint called_good, called_good_too_early;

int __wrap_media_clear(struct media *media, devoff_t offset, uint64_t length)
{
	return cannot_clear ? -ENOTSUP : __real_media_clear(media, offset, length);
}

static void read_file(devoff_t offset, void *bytes, size_t length)
{
	FILE *file = fopen(fix.path, "re");

	expect(file && !fseeko(file, (off_t)offset, SEEK_SET) &&
	       fread(bytes, 1, length, file) == length);
	fclose(file);
}

static bool copies_are_equal(void)
{
	uint8_t copy[2][BLOCK_BYTES];

	for (unsigned k = 0; k < 2; k++)
		read_file(watched[k], copy[k], BLOCK_BYTES);
	return !memcmp(copy[0], copy[1], BLOCK_BYTES);
}

int __wrap_poison_log_append(struct poison_log *log, struct poison_entry *entry)
{
	if (watched[0] && entry->state == BADBLOCK_CLEARED && entry->offset <= watched[0] &&
	    entry->offset + entry->length_bytes > watched[0]) {
		called_good++;
		called_good_too_early += !copies_are_equal();
	}
	return __real_poison_log_append(log, entry);
}

static void setup(void)
{
	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	expect_equal(fsfix_create_mounted(&fix, FSFIX_SMALL_BYTES), 0);
	ino = files_new(&fix, "file");
}

static void setup_paged(void)
{
	expect_equal(fsfix_create_mounted(&fix, FSFIX_SMALL_BYTES), 0);
	ino = files_new(&fix, "file");
}

static void teardown(void)
{
	cannot_clear = false;
	watched[0] = called_good = called_good_too_early = 0;
	fsfix_destroy(&fix);
	unsetenv("PMEM2_FORCE_GRANULARITY");
}

/* --- the journal's areas --- */

static unsigned first_store_in_ring(unsigned from)
{
	const struct area *area = &fs_super(fix.fs)->areas[AREA_JOURNAL];
	unsigned first = trace.count;

	for (unsigned k = 0; k < 2; k++) {
		unsigned at = trace_first_store(from, area->copy[k] + BLOCK_BYTES,
						area->length_bytes - BLOCK_BYTES);

		first = at < first ? at : first;
	}
	return first;
}

static unsigned first_store_in_heads(void)
{
	const struct area *area = &fs_super(fix.fs)->areas[AREA_JOURNAL];
	unsigned a = trace_first_store(0, area->copy[0], BLOCK_BYTES),
		 b = trace_first_store(0, area->copy[1], BLOCK_BYTES);

	return a < b ? a : b;
}

/* The range was stored, drained, and only then a record went to the log. */
static void expect_durable_before_its_record(devoff_t offset, uint64_t length)
{
	unsigned stored = trace_last_store(offset, length);
	unsigned drained = trace_first_kind(stored, TRACE_DRAIN);
	unsigned logged = first_store_in_ring(stored);

	ck_assert_msg(stored < trace.count, "it was not stored");
	ck_assert_msg(logged < trace.count, "no record followed");
	ck_assert_msg(drained < logged, "step %u: the record was begun before the drain (%u)",
		      logged, drained);
}

static void expect_file_durable_before_its_record(uint64_t pos, uint64_t length)
{
	trace_end();
	for (; length; pos += BLOCK_BYTES, length -= BLOCK_BYTES)
		expect_durable_before_its_record(files_device_offset(&fix, ino, pos), BLOCK_BYTES);
}

/* --- new data before the commit that names it --- */

START_TEST(new_data_are_drained_before_the_record_that_names_them)
{
	trace_begin();
	files_write(&fix, ino, 1, 0, 3 * BLOCK_BYTES);
	expect_file_durable_before_its_record(0, 3 * BLOCK_BYTES);
}
END_TEST

START_TEST(a_write_to_shared_blocks_is_drained_before_the_record_that_names_it)
{
	inum_t other = files_new(&fix, "other");

	files_write(&fix, ino, 1, 0, 3 * BLOCK_BYTES);
	expect_equal(fs_clone(fix.fs, ino, other), 0);
	trace_begin();
	files_write(&fix, ino, 2, 100, BLOCK_BYTES);
	expect_file_durable_before_its_record(0, 2 * BLOCK_BYTES);
	files_expect(&fix, other, 1, 0, 3 * BLOCK_BYTES);
}
END_TEST

START_TEST(a_write_to_space_set_aside_is_drained_before_the_record_that_shows_it)
{
	expect_equal(fs_fallocate(fix.fs, ino, 0, 0, 4 * BLOCK_BYTES), 0);
	trace_begin();
	files_write(&fix, ino, 1, BLOCK_BYTES + 7, BLOCK_BYTES);
	expect_file_durable_before_its_record(BLOCK_BYTES, 2 * BLOCK_BYTES);
}
END_TEST

START_TEST(copied_bytes_are_drained_before_the_record_that_names_them)
{
	inum_t source = files_new(&fix, "source");
	uint64_t done = 0;

	files_write(&fix, source, 1, 0, 4 * BLOCK_BYTES);
	trace_begin();
	expect_equal(fs_copy_range(fix.fs, source, 1, ino, 0, 2 * BLOCK_BYTES, &done), 0);
	expect_equal(done, 2 * BLOCK_BYTES);
	expect_file_durable_before_its_record(0, 2 * BLOCK_BYTES);
}
END_TEST

/* A plain file: the record is in the mapping at once, but counts on another boot only by a mark,
 * which follows the sync of the data. */
START_TEST(on_a_plain_file_data_are_synced_before_the_mark_that_makes_their_record_count)
{
	unsigned stored, synced, marked;

	trace_begin();
	files_write(&fix, ino, 1, 0, BLOCK_BYTES);
	expect_equal(fs_fsync(fix.fs, ino), 0);
	trace_end();
	stored = trace_last_store(files_device_offset(&fix, ino, 0), BLOCK_BYTES);
	synced = trace_first_kind(stored, TRACE_SYNC);
	marked = first_store_in_ring(synced);
	ck_assert_uint_lt(stored, trace.count);
	ck_assert_uint_lt(synced, trace.count);
	ck_assert_uint_lt(marked, trace.count);
	ck_assert_uint_lt(trace_first_kind(marked, TRACE_SYNC), trace.count);
}
END_TEST

/* --- bytes past the end --- */

#define OLD_END 100u

static int raise_by_truncate(void)
{
	files_truncate(&fix, ino, 3 * BLOCK_BYTES);
	return 0;
}

static int raise_by_write(void)
{
	files_write(&fix, ino, 2, 5 * BLOCK_BYTES, 10);
	return 0;
}

static int raise_by_fallocate(void)
{
	return fs_fallocate(fix.fs, ino, 0, 0, 2 * BLOCK_BYTES);
}

static int raise_by_copy(void)
{
	inum_t source = 0;
	uint64_t done = 0;
	struct fs_attr attr;

	expect_equal(fsfix_lookup(&fix, FS_ROOT_INO, "source", &attr), 0);
	source = attr.ino;
	return fs_copy_range(fix.fs, source, 0, ino, 2 * BLOCK_BYTES, BLOCK_BYTES, &done);
}

static int (*const raise[])(void) = {raise_by_truncate, raise_by_write, raise_by_fallocate,
				     raise_by_copy};

/* One way to raise the size a run. */
START_TEST(what_lies_past_the_end_is_zeroed_and_drained_before_the_size_is_raised)
{
	uint8_t bytes[BLOCK_BYTES];
	devoff_t place;

	files_write(&fix, files_new(&fix, "source"), 3, 0, BLOCK_BYTES);
	files_write(&fix, ino, 1, 0, BLOCK_BYTES);
	files_truncate(&fix, ino, OLD_END);
	place = files_device_offset(&fix, ino, 0);
	read_file(place + OLD_END, bytes, BLOCK_BYTES - OLD_END);
	ck_assert_msg(bytes[5] == files_byte(1, OLD_END + 5),
		      "nothing to zero: the test shows nothing");
	trace_begin();
	expect_equal(raise[_i](), 0);
	trace_end();
	expect_durable_before_its_record(place + OLD_END, BLOCK_BYTES - OLD_END);
	files_expect(&fix, ino, 1, 0, OLD_END);
	files_expect(&fix, ino, 0, OLD_END, BLOCK_BYTES - OLD_END);
}
END_TEST

/* --- a copy that could not be written --- */

static int find_block(void *arg, const struct fs_owner *owner)
{
	struct fs_owner *found = arg;

	if (owner->kind != FS_OWNER_METADATA || !owner->live || owner->copy != 0 || !owner->tree ||
	    strcmp(owner->tree, "inodes"))
		return 0;
	*found = *owner;
	return 1;
}

static void forget_poison_file(void)
{
	char path[300];

	snprintf(path, sizeof(path), "%s.poison", fix.path);
	unlink(path);
}

/* The block of inodes changes, its primary turns out to be bad, and the medium cannot clear: the
 * tail moves all the same. */
static void write_back_without_primary(void)
{
	struct fs_owner block = {0};

	expect_equal(journal_checkpoint(fix.fs->journal), 0);
	fs_owners(fix.fs, 0, FSFIX_SMALL_BYTES, find_block, &block);
	expect(block.has_peer);
	watched[0] = block.device_offset;
	watched[1] = block.peer_offset;
	files_truncate(&fix, ino, 12345);
	cannot_clear = true;
	expect_equal(media_poison_arm(fs_media(fix.fs), watched[0], BLOCK_BYTES, true), 0);
	trace_begin();
	expect_equal(journal_checkpoint(fix.fs->journal), 0);
	trace_end();
}

START_TEST(a_copy_that_cannot_be_written_is_in_the_poison_log_before_the_tail_moves)
{
	const struct area *log = &fs_super(fix.fs)->areas[AREA_POISON_LOG];
	unsigned tried, entered, drained, moved;

	write_back_without_primary();
	tried = trace_first_store(0, watched[0], BLOCK_BYTES);
	entered = trace_first_store(tried, log->copy[0], log->length_bytes);
	drained = trace_first_kind(entered, TRACE_DRAIN);
	moved = first_store_in_heads();
	ck_assert_uint_lt(tried, entered);
	ck_assert_uint_lt(entered, drained);
	ck_assert_uint_lt(drained, moved);
	ck_assert_uint_lt(moved, trace.count);
}
END_TEST

/* As if the medium could be read again: the old content there is whole, and must not be taken for
 * the block's. */
START_TEST(a_copy_that_is_behind_is_not_read_until_it_was_rewritten_and_only_then_called_good)
{
	struct fs_summary summary;

	write_back_without_primary();
	expect_equal(fs_notify_wait(fix.fs, 10000), 0);
	expect_equal(fsfix_crash(&fix), 0);
	forget_poison_file();
	expect(!copies_are_equal());
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fs_notify_wait(fix.fs, 10000), 0);
	expect_equal(files_size(&fix, ino), 12345);
	expect_equal(fs_summary(fix.fs, &summary), 0);
	ck_assert_uint_gt(summary.badblock_bytes, 0);
	ck_assert_uint_eq(called_good, 0);
	expect_equal(fsfix_unmount(&fix), 0);
	cannot_clear = false; /* a medium that can: the repair of the next mount succeeds */
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fs_notify_wait(fix.fs, 10000), 0);
	expect_equal(fs_summary(fix.fs, &summary), 0);
	ck_assert_uint_eq(summary.badblock_bytes, 0);
	ck_assert_uint_gt(called_good, 0);
	ck_assert_uint_eq(called_good_too_early, 0);
	expect(copies_are_equal());
	files_check(&fix);
}
END_TEST

/* --- reads that began before --- */

/* A read stands still in the middle: where it meets poison that nobody knows of, and the one it
 * tells takes its time. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_inside, may_go_on;
} slow = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void stand_still(void *arg, const struct media_fault *fault)
{
	pthread_mutex_lock(&slow.lock);
	slow.is_inside = true;
	pthread_cond_broadcast(&slow.changed);
	while (!slow.may_go_on)
		pthread_cond_wait(&slow.changed, &slow.lock);
	pthread_mutex_unlock(&slow.lock);
}

static void *slow_reader(void *arg)
{
	size_t done;

	expect_equal(files_read_error(&fix, ino, 0, 8 * BLOCK_BYTES, &done), -EIO);
	return NULL;
}

static int free_by_truncate(void)
{
	files_truncate(&fix, ino, 0);
	return 0;
}

static int free_by_punch(void)
{
	return fs_fallocate(fix.fs, ino, 3, 0, 8 * BLOCK_BYTES);
}

static int free_by_unlink(void)
{
	int error = fs_unlink(fix.fs, FS_ROOT_INO, "file");

	fs_make_space(fix.fs); /* reclaims it, if nobody has it */
	return error;
}

static int free_by_clone_over_it(void)
{
	struct fs_attr attr;

	expect_equal(fsfix_lookup(&fix, FS_ROOT_INO, "source", &attr), 0);
	return fs_clone(fix.fs, attr.ino, ino);
}

static int (*const frees[])(void) = {free_by_truncate, free_by_punch, free_by_unlink,
				     free_by_clone_over_it};

static void *freer(void *arg)
{
	int (*const *way)(void) = arg;

	expect_equal((*way)(), 0);
	return NULL;
}

static int is_free(void *arg, const struct fs_owner *owner)
{
	*(bool *)arg |= owner->kind == FS_OWNER_FREE;
	return 0;
}

/* One way to free a run. */
START_TEST(blocks_are_not_freed_under_a_read_that_began_before)
{
	pthread_t reader, other;
	bool any_free = false;
	devoff_t place;

	files_write(&fix, files_new(&fix, "source"), 3, 0, BLOCK_BYTES);
	files_write(&fix, ino, 1, 0, 8 * BLOCK_BYTES);
	place = files_device_offset(&fix, ino, 0);
	expect_equal(media_poison_arm(fs_media(fix.fs), place + 4 * BLOCK_BYTES, 64, true), 0);
	media_set_fault_handler(fs_media(fix.fs), stand_still, NULL);
	expect_equal(pthread_create(&reader, NULL, slow_reader, NULL), 0);
	pthread_mutex_lock(&slow.lock);
	while (!slow.is_inside)
		pthread_cond_wait(&slow.changed, &slow.lock);
	pthread_mutex_unlock(&slow.lock);
	expect_equal(pthread_create(&other, NULL, freer, (void *)(uintptr_t)&frees[_i]), 0);
	usleep(100000);
	fs_owners(fix.fs, place, 4 * BLOCK_BYTES, is_free, &any_free);
	pthread_mutex_lock(&slow.lock);
	slow.may_go_on = true;
	pthread_cond_broadcast(&slow.changed);
	pthread_mutex_unlock(&slow.lock);
	pthread_join(reader, NULL);
	pthread_join(other, NULL);
	ck_assert_msg(!any_free, "blocks are free while a read of them goes on");
	media_set_fault_handler(fs_media(fix.fs), NULL, NULL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("rules_order");
	TCase *tests = tcase_create("order"), *paged = tcase_create("paged");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, new_data_are_drained_before_the_record_that_names_them);
	tcase_add_test(tests, a_write_to_shared_blocks_is_drained_before_the_record_that_names_it);
	tcase_add_test(tests,
		       a_write_to_space_set_aside_is_drained_before_the_record_that_shows_it);
	tcase_add_test(tests, copied_bytes_are_drained_before_the_record_that_names_them);
	tcase_add_loop_test(tests,
			    what_lies_past_the_end_is_zeroed_and_drained_before_the_size_is_raised,
			    0, ARRAY_SIZE(raise));
	tcase_add_test(tests,
		       a_copy_that_cannot_be_written_is_in_the_poison_log_before_the_tail_moves);
	tcase_add_test(
	    tests,
	    a_copy_that_is_behind_is_not_read_until_it_was_rewritten_and_only_then_called_good);
	tcase_add_loop_test(tests, blocks_are_not_freed_under_a_read_that_began_before, 0,
			    ARRAY_SIZE(frees));
	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(paged, setup_paged, teardown);
	tcase_add_test(
	    paged, on_a_plain_file_data_are_synced_before_the_mark_that_makes_their_record_count);
	suite_add_tcase(suite, paged);
	return files_run(suite);
}
