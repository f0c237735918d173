/*
 * Each place that makes stores durable, seen from the medium: what must be durable before what. The crash harness (tests/crash) finds most of the same by its images;
 * these tests say which order it is, and reach places that need poison, a full host or another program. tests/twins/ leaves out each barrier in turn.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/inode.h"
#include "fsck/fsck.h"
#include "journal/chunk.h"
#include "mkfs/build.h"
#include "tests/support/fsfix.h"
#include "tests/support/lab.h"
#include "util/log.h"

#define STEPS 65536

/* --- what reached the medium ------------------------------------------------------------------------------------------------- */

struct step {
	devoff_t offset;
	size_t length; /* 0: a barrier */
	uint8_t role;  /* of a metadata block stored whole */
};

static struct {
	pthread_mutex_t lock;
	bool is_on;
	unsigned count;
	struct step steps[STEPS];
} trace = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct lab *lab;
static struct fs *fs;
static struct why why;

static void trace_add(struct step step)
{
	pthread_mutex_lock(&trace.lock);
	ck_assert_uint_lt(trace.count, STEPS);
	if (trace.is_on)
		trace.steps[trace.count++] = step;
	pthread_mutex_unlock(&trace.lock);
}

static void on_store(void *arg, devoff_t offset, const void *from, size_t length)
{
	const struct format_block_header *header = from;
	struct step step = {.offset = offset, .length = length};

	if (from && length == BLOCK_BYTES && le32_get(header->magic) == FORMAT_BLOCK_MAGIC)
		step.role = header->role;
	trace_add(step);
}

static void on_barrier(void *arg)
{
	trace_add((struct step){0});
}

static void on_sync(void *arg, devoff_t start, devoff_t end)
{
	on_barrier(arg);
}

static void trace_begin(void)
{
	trace.count = 0;
	trace.is_on = true;
}

static void trace_end(void)
{
	pthread_mutex_lock(&trace.lock);
	trace.is_on = false;
	pthread_mutex_unlock(&trace.lock);
}

/* --- places ------------------------------------------------------------------------------------------------------------------ */

typedef bool place_fn(const struct step *step, uint64_t which);

static bool is_in(const struct step *step, devoff_t offset, uint64_t length)
{
	return step->length && step->offset < offset + length && offset < step->offset + step->length;
}

static const struct area *area_of(unsigned area)
{
	return &fs_super(fs)->areas[area];
}

static bool in_area(const struct step *step, uint64_t which)
{
	const struct area *area = area_of((unsigned)(which >> 1));

	return is_in(step, area->copy[which & 1], area->length_bytes);
}

#define AREA(area, copy) in_area, (area) << 1 | (copy)

static bool in_head(const struct step *step, uint64_t copy)
{
	return is_in(step, area_of(AREA_JOURNAL)->copy[copy], BLOCK_BYTES);
}

static bool in_either_head(const struct step *step, uint64_t ignored)
{
	return in_head(step, 0) || in_head(step, 1);
}

static bool in_ring(const struct step *step, uint64_t copy)
{
	const struct area *area = area_of(AREA_JOURNAL);

	return is_in(step, area->copy[copy] + BLOCK_BYTES, area->length_bytes - BLOCK_BYTES);
}

static bool in_poison_log(const struct step *step, uint64_t ignored)
{
	return in_area(step, AREA_POISON_LOG << 1) || in_area(step, AREA_POISON_LOG << 1 | 1);
}

static bool elsewhere_than_poison_log(const struct step *step, uint64_t ignored)
{
	return step->length && !in_poison_log(step, 0);
}

static bool in_slot(const struct step *step, uint64_t slot)
{
	return is_in(step, super_slot_offset((unsigned)slot), BLOCK_BYTES);
}

static bool in_any_slot(const struct step *step, uint64_t ignored)
{
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
		if (in_slot(step, slot))
			return true;
	return false;
}

static bool in_another_slot(const struct step *step, uint64_t slot)
{
	return in_any_slot(step, 0) && !in_slot(step, slot);
}

static bool elsewhere_than_slots(const struct step *step, uint64_t ignored)
{
	return step->length && !in_any_slot(step, 0);
}

static bool is_chunk_header(const struct step *step, uint64_t ignored)
{
	return step->role == FORMAT_ROLE_CHUNK_HEADER;
}

static bool in_block(const struct step *step, uint64_t offset)
{
	return is_in(step, offset, BLOCK_BYTES);
}

static bool nowhere(const struct step *step, uint64_t ignored)
{
	return false;
}

/*
 * Whatever is stored in the first place is durable before anything is stored in the second, and at the end. There must have been stores in the first, and (but
 * for `nowhere`) in the second after one in the first.
 */
static void expect_barrier(place_fn *first, uint64_t which_first, place_fn *second, uint64_t which_second)
{
	bool pending = false, seen = false, followed = second == nowhere;

	for (unsigned i = 0; i < trace.count; i++) {
		const struct step *step = &trace.steps[i];

		if (!step->length)
			pending = false;
		else if (first(step, which_first))
			pending = seen = true;
		else if (second(step, which_second)) {
			ck_assert_msg(!pending, "a store at %llu before the one ahead of it was durable", (unsigned long long)step->offset);
			followed |= seen;
		}
	}
	ck_assert_msg(seen, "nothing was stored in the first place");
	ck_assert_msg(followed, "nothing was stored in the second place");
	ck_assert_msg(!pending, "the last store was never made durable");
}

/* --- life -------------------------------------------------------------------------------------------------------------------- */

static void mount_lab(void)
{
	const struct fs_options options = {.tools = true, .cache_bytes = 8u << 20};

	ck_assert_msg(!fs_mount_media(lab_media(lab), &options, &why, &fs), "%s", why.text);
}

static void make_lab(enum media_granularity granularity)
{
	const struct lab_listener listener = {.store = on_store, .drain = on_barrier, .sync = on_sync};

	ck_assert_int_eq(lab_create(FSFIX_SMALL_BYTES, granularity, &lab), 0);
	lab_listen(lab, &listener);
}

static void setup(void)
{
	make_lab(MEDIA_CACHELINE);
	ck_assert_int_eq(fsfix_format_media(lab_media(lab)), 0);
	lab_reset(lab);
	mount_lab();
}

static void setup_bare(void)
{
	make_lab(MEDIA_CACHELINE);
}

static void teardown(void)
{
	trace_end();
	if (fs)
		fs_abandon(fs);
	fs = NULL;
	lab_destroy(lab);
}

static void make_files(unsigned from, unsigned to)
{
	const struct fs_who who = {0};

	for (unsigned i = from; i < to; i++) {
		struct fs_attr attr;
		char name[64];

		snprintf(name, sizeof(name), "a-name-of-some-length-so-that-blocks-fill-%u", i);
		ck_assert_int_eq(fs_create(fs, &who, FS_ROOT_INO, name, S_IFREG | 0644, 0, &attr), 0);
		fs_forget(fs, attr.ino, 1);
	}
}

/* The place of a block of chunk 0. */
static devoff_t chunk_place(unsigned index, unsigned copy)
{
	struct chunk_entry entry;

	journal_read_begin(fs->journal);
	ck_assert_int_eq(chunk_entry(fs->journal, 0, &entry), 0);
	journal_read_end(fs->journal);
	return entry.copy[copy] + index * BLOCK_BYTES;
}

/* A block of chunk 0 in use, or not, the last such one. */
static unsigned chunk_index(bool in_use)
{
	struct chunk_entry entry;
	unsigned found = 0;

	journal_read_begin(fs->journal);
	ck_assert_int_eq(chunk_entry(fs->journal, 0, &entry), 0);
	for (unsigned i = 1; i < chunk_blocks(entry.shift); i++)
		if ((entry.map[i / 64] >> i % 64 & 1) == in_use)
			found = i;
	journal_read_end(fs->journal);
	ck_assert_uint_gt(found, 0);
	return found;
}

/* --- the journal ------------------------------------------------------------------------------------------------------------- */

START_TEST(a_checkpoint_is_primaries_then_replicas_then_heads)
{
	make_files(0, 20);
	trace_begin();
	fs_drop_caches(fs);
	expect_barrier(AREA(AREA_FIXED, 0), AREA(AREA_FIXED, 1));
	expect_barrier(AREA(AREA_FIXED, 1), in_either_head, 0);
	expect_barrier(in_head, 0, in_head, 1);
}
END_TEST

START_TEST(the_header_of_a_new_chunk_is_durable_before_the_entry_is_logged)
{
	trace_begin();
	make_files(0, 2500);
	expect_barrier(is_chunk_header, 0, in_ring, 0);
}
END_TEST

static bool refuse_second_ring;
int __real_media_write(struct media *media, devoff_t offset, const void *buffer, size_t length, devoff_t *bad);
int __wrap_media_write(struct media *media, devoff_t offset, const void *buffer, size_t length, devoff_t *bad);

/* A host that is full under the second copy of the ring. */
int __wrap_media_write(struct media *media, devoff_t offset, const void *buffer, size_t length, devoff_t *bad)
{
	const struct step step = {.offset = offset, .length = length};

	if (refuse_second_ring && in_ring(&step, 1))
		return -ENOSPC;
	return __real_media_write(media, offset, buffer, length, bad);
}

START_TEST(a_record_that_must_not_count_is_gone_before_the_error_is_told)
{
	const struct fs_who who = {0};
	struct fs_attr attr;

	trace_begin();
	refuse_second_ring = true;
	ck_assert_int_eq(fs_create(fs, &who, FS_ROOT_INO, "file", S_IFREG | 0644, 0, &attr), -ENOSPC);
	refuse_second_ring = false;
	expect_barrier(in_ring, 0, nowhere, 0);
}
END_TEST

START_TEST(copies_of_the_log_are_alike_before_recovery_relies_on_it)
{
	devoff_t ring = area_of(AREA_JOURNAL)->copy[1] + BLOCK_BYTES;

	make_files(0, 5);
	fs_abandon(fs);
	lab_reset(lab);
	memset(lab_bytes(lab) + ring, 0x5a, 64u << 10);
	trace_begin();
	mount_lab();
	expect_barrier(in_ring, 1, AREA(AREA_FIXED, 0));
}
END_TEST

/* --- failures ---------------------------------------------------------------------------------------------------------------- */

static void meet_poison(devoff_t place)
{
	uint8_t byte;

	lab_poison(lab, place, 1);
	trace_begin();
	ck_assert_int_eq(media_read(lab_media(lab), place, &byte, 1, NULL), -EIO);
	ck_assert_int_eq(fs_notify_wait(fs, 10000), 0);
	trace_end();
}

START_TEST(a_failure_is_in_the_poison_log_before_anything_else_is_stored)
{
	make_files(0, 5);
	fs_drop_caches(fs);
	meet_poison(chunk_place(chunk_index(true), 1));
	expect_barrier(in_poison_log, 0, elsewhere_than_poison_log, 0);
}
END_TEST

START_TEST(a_copy_is_rewritten_before_it_is_called_good)
{
	devoff_t place;

	make_files(0, 5);
	fs_drop_caches(fs);
	place = chunk_place(chunk_index(true), _i);
	meet_poison(place);
	expect_barrier(in_block, place, in_poison_log, 0);
}
END_TEST

START_TEST(an_unused_block_is_rewritten_before_it_is_called_good)
{
	devoff_t place = chunk_place(chunk_index(false), _i);

	meet_poison(place);
	expect_barrier(in_block, place, in_poison_log, 0);
}
END_TEST

/* --- superblocks ------------------------------------------------------------------------------------------------------------- */

START_TEST(superblocks_are_updated_one_at_a_time)
{
	trace_begin();
	ck_assert_int_eq(fs_set_label(fs, "new", &why), 0);
	for (unsigned slot = 0; slot + 1 < SUPER_SLOTS; slot++)
		expect_barrier(in_slot, slot, in_another_slot, slot);
	expect_barrier(in_slot, SUPER_SLOTS - 1, nowhere, 0);
}
END_TEST

/* --- fsck -------------------------------------------------------------------------------------------------------------------- */

static void tell_nobody(void *arg, enum fsck_grade grade, const char *line)
{
}

static void run_fsck(void)
{
	const struct fsck_options options = {.write = true, .force = true, .tell = tell_nobody};
	struct fsck_report report;

	trace_begin();
	ck_assert_msg(!fsck_run(lab_media(lab), &options, &report, &why), "%s", why.text);
	trace_end();
	ck_assert_uint_gt(report.fixed, 0);
	ck_assert_uint_eq(report.left, 0);
}

/* A clean image, not mounted; `fs` stays for its geometry. */
static void leave_clean(void)
{
	make_files(0, 5);
	ck_assert_int_eq(fs_syncfs(fs), 0);
	fs_drop_caches(fs);
}

START_TEST(fsck_writes_superblocks_one_at_a_time)
{
	lab_media(lab)->granularity = _i ? MEDIA_PAGE : MEDIA_CACHELINE;
	leave_clean();
	for (unsigned slot = 2; slot < 6; slot++)
		memset(lab_bytes(lab) + super_slot_offset(slot), 0, BLOCK_BYTES);
	run_fsck();
	for (unsigned slot = 2; slot < 5; slot++)
		expect_barrier(in_slot, slot, in_another_slot, slot);
	expect_barrier(in_slot, 5, elsewhere_than_slots, 0);
}
END_TEST

START_TEST(fsck_has_the_poison_log_durable_before_it_goes_on)
{
	lab_media(lab)->granularity = _i ? MEDIA_PAGE : MEDIA_CACHELINE;
	leave_clean();
	memset(lab_bytes(lab) + area_of(AREA_POISON_LOG)->copy[0] + 640, 0x77, 64);
	memset(lab_bytes(lab) + area_of(AREA_POISON_LOG)->copy[1] + 640, 0x77, 64);
	memset(lab_bytes(lab) + area_of(AREA_FIXED)->copy[1], 0, BLOCK_BYTES); /* something to go on with */
	run_fsck();
	expect_barrier(in_poison_log, 0, elsewhere_than_poison_log, 0);
}
END_TEST

/* --- mkfs -------------------------------------------------------------------------------------------------------------------- */

static void run_mkfs(void)
{
	struct mkfs_options options = {.target = "lab", .copies = 2};
	struct build build = {.options = &options};

	ck_assert_msg(!build_plan(&build, lab_media(lab), &why), "%s", why.text);
	trace_begin();
	ck_assert_msg(!build_write(&build, lab_media(lab), &why), "%s", why.text);
	trace_end();
	build_fini(&build);
}

START_TEST(mkfs_forgets_the_old_filesystem_first_and_makes_the_new_one_last)
{
	run_mkfs();
	expect_barrier(in_any_slot, 0, elsewhere_than_slots, 0);
	expect_barrier(elsewhere_than_slots, 0, in_any_slot, 0);
}
END_TEST

static void add_journal(Suite *suite)
{
	TCase *tests = tcase_create("journal");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, a_checkpoint_is_primaries_then_replicas_then_heads);
	tcase_add_test(tests, the_header_of_a_new_chunk_is_durable_before_the_entry_is_logged);
	tcase_add_test(tests, a_record_that_must_not_count_is_gone_before_the_error_is_told);
	tcase_add_test(tests, copies_of_the_log_are_alike_before_recovery_relies_on_it);
	tcase_add_test(tests, a_failure_is_in_the_poison_log_before_anything_else_is_stored);
	tcase_add_loop_test(tests, a_copy_is_rewritten_before_it_is_called_good, 0, 2);
	tcase_add_loop_test(tests, an_unused_block_is_rewritten_before_it_is_called_good, 0, 2);
	tcase_add_test(tests, superblocks_are_updated_one_at_a_time);
	tcase_add_loop_test(tests, fsck_writes_superblocks_one_at_a_time, 0, 2);
	tcase_add_loop_test(tests, fsck_has_the_poison_log_durable_before_it_goes_on, 0, 2);
	suite_add_tcase(suite, tests);
}

static void add_mkfs(Suite *suite)
{
	TCase *tests = tcase_create("mkfs");

	tcase_add_checked_fixture(tests, setup_bare, teardown);
	tcase_add_test(tests, mkfs_forgets_the_old_filesystem_first_and_makes_the_new_one_last);
	suite_add_tcase(suite, tests);
}

int main(void)
{
	Suite *suite = suite_create("barriers");
	SRunner *runner = srunner_create(suite);
	int failed;

	log_set_level(LOG_LEVEL_SILENT);
	add_journal(suite);
	add_mkfs(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
