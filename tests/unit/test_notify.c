#include <check.h>
#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>

#include "media/media_types.h"
#include "notify/scrub.h"
#include "tests/support/notifyfix.h"

static struct notifyfix fix;
static struct nfix_records all;

static void setup(void)
{
	nfix_create(&fix);
	nfix_count_events(&fix);
}

static void teardown(void)
{
	nfix_destroy(&fix);
}

static void expect_events(unsigned media, unsigned file, unsigned repaired)
{
	const struct nfix_counts counts = nfix_count_events(&fix);

	ck_assert_uint_eq(counts.media, media);
	ck_assert_uint_eq(counts.file, file);
	ck_assert_uint_eq(counts.repaired, repaired);
}

static void expect_event(enum event_type type)
{
	struct event *event = nfix_event(&fix, type);

	ck_assert_ptr_nonnull(event);
	event_free(event);
}

/* --- data --- */

START_TEST(every_sharer_of_a_failed_block_is_told)
{
	struct event *media, *file;

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 8);
	nfix_share(&fix, 200, 0, NFIX_DATA_BLOCK, 8);
	nfix_share(&fix, 300, 50, NFIX_DATA_BLOCK + 2, 4);
	nfix_report(&fix, nfix_block(3) + 100, 10);
	nfix_settle(&fix);
	media = nfix_event(&fix, EVENT_MEDIA_FAILURE);
	ck_assert_uint_eq(media->device_offset, nfix_block(3));
	ck_assert_uint_eq(media->len, SECTOR_BYTES);
	for (unsigned i = 0; i < 3; i++) {
		file = nfix_event(&fix, EVENT_FILE_DAMAGED);
		ck_assert_ptr_nonnull(file);
		ck_assert_uint_eq(file->inumber, (i + 1) * 100);
		ck_assert_uint_eq(file->pos, i < 2 ? 3 * BLOCK_BYTES : 51 * BLOCK_BYTES);
		ck_assert_uint_eq(file->len, BLOCK_BYTES);
		ck_assert_uint_eq(file->bytes_lost, SECTOR_BYTES);
		ck_assert_uint_eq(file->sharers, 3);
		ck_assert_uint_eq(file->cause_id, media->cause_id);
		event_free(file);
	}
	event_free(media);
	expect_events(0, 0, 0);
	ck_assert_uint_eq(atomic_load(&fix.causes_done), 1);
	nfix_check_counters(&fix);
}
END_TEST

START_TEST(pieces_that_continue_each_other_in_the_file_are_one_event)
{
	struct event *file;

	/* The file's blocks 0..3 and 4..7 lie in the other order on the device; 20..21 follows on
	 * the device only. */
	nfix_file(&fix, 100, NFIX_DATA_BLOCK + 4, 4);
	nfix_map(&fix, 100, 4, NFIX_DATA_BLOCK, 4, 0, true);
	nfix_map(&fix, 100, 20, NFIX_DATA_BLOCK + 8, 2, 0, true);
	nfix_report(&fix, nfix_block(0), 10 * BLOCK_BYTES);
	nfix_settle(&fix);
	file = nfix_event(&fix, EVENT_FILE_DAMAGED);
	ck_assert_uint_eq(file->pos, 0);
	ck_assert_uint_eq(file->len, 8 * BLOCK_BYTES);
	ck_assert_uint_eq(file->device_offset, nfix_block(4));
	ck_assert_uint_eq(file->sharers, 1);
	event_free(file);
	file = nfix_event(&fix, EVENT_FILE_DAMAGED);
	ck_assert_uint_eq(file->pos, 20 * BLOCK_BYTES);
	ck_assert_uint_eq(file->len, 2 * BLOCK_BYTES);
	event_free(file);
	expect_events(0, 0, 0);
}
END_TEST

START_TEST(what_is_known_makes_no_second_event)
{
	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 8);
	nfix_report(&fix, nfix_block(1), BLOCK_BYTES);
	nfix_settle(&fix);
	expect_events(1, 1, 0);
	nfix_report(&fix, nfix_block(1), BLOCK_BYTES);
	nfix_report(&fix, nfix_block(1) + 512, 512);
	nfix_settle(&fix);
	expect_events(0, 0, 0);
	nfix_report(&fix, nfix_block(0), 3 * BLOCK_BYTES);
	nfix_settle(&fix);
	expect_events(2, 2, 0);
	nfix_badblocks(&fix, &all);
	ck_assert_uint_eq(all.bytes, 3 * BLOCK_BYTES);
	nfix_check_counters(&fix);
}
END_TEST

START_TEST(a_storm_of_small_reports_is_one_event_when_the_thread_gets_to_it)
{
	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 1);
	nfix_file(&fix, 200, NFIX_DATA_BLOCK + 10, 2000);
	atomic_store(&fix.gate_is_closed, true);
	nfix_report(&fix, nfix_block(0), 512);
	nfix_wait_at_gate(&fix);
	for (uint64_t sector = 0; sector < 2000 * 8; sector++)
		nfix_report(&fix, nfix_block(10) + sector * 512, 512);
	nfix_open_gate(&fix);
	nfix_settle(&fix);
	expect_events(2, 2, 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 512 + 2000 * BLOCK_BYTES);
	nfix_check_counters(&fix);
}
END_TEST

START_TEST(a_scattered_storm_beyond_the_queue_loses_nothing)
{
	const unsigned sectors = QUEUE_RANGES_MAX + QUEUE_RANGES_MAX / 2;

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 1);
	nfix_file(&fix, 200, NFIX_DATA_BLOCK + 10, 2 * sectors / 8);
	atomic_store(&fix.gate_is_closed, true);
	nfix_report(&fix, nfix_block(0), 512);
	nfix_wait_at_gate(&fix);
	for (uint64_t i = 0; i < sectors; i++)
		nfix_report(&fix, nfix_block(10) + i * 1024, 512);
	nfix_open_gate(&fix);
	for (int i = 0; i < 20; i++)
		nfix_settle(&fix);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), (1 + sectors) * 512ull);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_LOST_BYTES), (1 + sectors) * 512ull);
	expect_events(1 + sectors, 1 + sectors, 0);
	nfix_remount(&fix);
	expect_events(0, 0, 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), (1 + sectors) * 512ull);
}
END_TEST

START_TEST(unwritten_blocks_have_no_content_to_lose)
{
	nfix_map(&fix, 100, 0, NFIX_DATA_BLOCK, 4, EXTENT_UNWRITTEN, true);
	nfix_report(&fix, nfix_block(0), 4 * BLOCK_BYTES);
	nfix_settle(&fix);
	expect_events(1, 0, 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_LOST_BYTES), 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 4 * BLOCK_BYTES);
	nfix_check_counters(&fix);
}
END_TEST

START_TEST(ranges_beyond_the_device_are_clipped_or_refused)
{
	ck_assert_int_eq(notify_report(fix.notify, NFIX_IMAGE_BYTES, 1, FAILURE_CONTROL), -ERANGE);
	ck_assert_int_eq(notify_report(fix.notify, 0, 0, FAILURE_CONTROL), -ERANGE);
	nfix_report(&fix, NFIX_IMAGE_BYTES - 512, UINT64_MAX / 2);
	nfix_settle(&fix);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 512);
	ck_assert_int_eq(notify_inject(fix.notify, NFIX_IMAGE_BYTES - 1, 2, false), -ERANGE);
	ck_assert_int_eq(notify_inject(fix.notify, 0, 0, false), -EINVAL);
}
END_TEST

/* --- space --- */

START_TEST(a_free_space_hit_is_quarantined_by_whole_blocks)
{
	const uint64_t free_before = nfix_root(&fix, ROOT_FREE_BLOCKS);

	nfix_report(&fix, nfix_block(2) + 4000, 200);
	nfix_settle(&fix);
	expect_events(1, 0, 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_QUARANTINED_BLOCKS), 2);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_FREE_BLOCKS), free_before - 2);
	ck_assert_uint_eq(nfix_owned(&fix, OWNER(OWNER_QUARANTINE), NFIX_DATA_BLOCK, 10), 2);
	nfix_badblocks(&fix, &all);
	ck_assert_uint_eq(all.count, 1);
	ck_assert_int_eq(all.records[0].state, BADBLOCK_QUARANTINED);
	ck_assert_uint_eq(all.bytes, 1024);
	nfix_check_counters(&fix);
}
END_TEST

START_TEST(uninject_gives_the_quarantine_back)
{
	const uint64_t free_before = nfix_root(&fix, ROOT_FREE_BLOCKS);
	uint64_t removed = 0;

	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(2) + 10, 10000, false), 0);
	nfix_settle(&fix);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_QUARANTINED_BLOCKS), 3);
	ck_assert_int_eq(notify_uninject(fix.notify, nfix_block(2) + 10, 10000, &removed), 0);
	ck_assert_uint_eq(removed, 10000);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_QUARANTINED_BLOCKS), 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_FREE_BLOCKS), free_before);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 0);
	ck_assert(!nfix_is_known(&fix, nfix_block(2), 4 * BLOCK_BYTES));
	expect_event(EVENT_UNINJECTED);
	nfix_check_counters(&fix);
	nfix_remount(&fix);
	ck_assert(!nfix_is_known(&fix, 0, NFIX_IMAGE_BYTES));
}
END_TEST

START_TEST(a_block_stays_in_quarantine_while_any_sector_of_it_is_bad)
{
	uint64_t removed;

	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(2), 512, false), 0);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(2) + 2048, 512, false), 0);
	nfix_settle(&fix);
	ck_assert_int_eq(notify_uninject(fix.notify, nfix_block(2), 512, &removed), 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_QUARANTINED_BLOCKS), 1);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 512);
	nfix_check_counters(&fix);
	ck_assert_int_eq(notify_uninject(fix.notify, nfix_block(2) + 2048, 512, &removed), 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_QUARANTINED_BLOCKS), 0);
	nfix_check_counters(&fix);
}
END_TEST

START_TEST(a_sector_that_is_still_armed_in_part_stays_bad)
{
	uint64_t removed;

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 4);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(0), 1000, false), 0);
	nfix_settle(&fix);
	ck_assert_int_eq(notify_uninject(fix.notify, nfix_block(0), 600, &removed), 0);
	ck_assert_uint_eq(removed, 600);
	ck_assert(!nfix_is_known(&fix, nfix_block(0), 512));
	ck_assert(nfix_is_known(&fix, nfix_block(0) + 512, 512));
	ck_assert_uint_eq(nfix_root(&fix, ROOT_LOST_BYTES), 512);
	nfix_check_counters(&fix);
}
END_TEST

/* As on a disk or a device, where not all that is bad was injected. */
START_TEST(latent_poison_that_was_touched_is_taken_back_and_real_poison_stays)
{
	char bytes[BLOCK_BYTES];
	uint64_t removed;

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 4);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(1) + 700, 10, true), 0);
	ck_assert_int_eq(media_read(fix.media, nfix_block(1), bytes, sizeof(bytes), NULL), -EIO);
	ck_assert_int_eq(notify_report(fix.notify, nfix_block(1) + 2048, SECTOR_BYTES, FAILURE_KERNEL), 0);
	ck_assert_int_eq(notify_report(fix.notify, nfix_block(2), SECTOR_BYTES, FAILURE_SIGBUS), 0);
	nfix_settle(&fix);
	expect_events(3, 3, 0);
	fix.media->is_block = true;
	ck_assert_int_eq(notify_uninject(fix.notify, nfix_block(0), 4 * BLOCK_BYTES, &removed), 0);
	fix.media->is_block = false;
	ck_assert_uint_eq(removed, 10);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 2 * SECTOR_BYTES);
	ck_assert(!nfix_is_known(&fix, nfix_block(1) + 512, SECTOR_BYTES));
	ck_assert(nfix_is_known(&fix, nfix_block(1) + 2048, SECTOR_BYTES));
	ck_assert(nfix_is_known(&fix, nfix_block(2), SECTOR_BYTES));
	ck_assert_int_eq(media_read(fix.media, nfix_block(1), bytes, 2048, NULL), 0);
}
END_TEST

START_TEST(uninjecting_what_a_file_owns_ends_its_loss)
{
	char byte;
	uint64_t removed;

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 4);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(1), BLOCK_BYTES, false), 0);
	nfix_settle(&fix);
	ck_assert_int_eq(media_read(fix.media, nfix_block(1), &byte, 1, NULL), -EIO);
	ck_assert_int_eq(notify_uninject(fix.notify, nfix_block(1), BLOCK_BYTES, &removed), 0);
	ck_assert_int_eq(media_read(fix.media, nfix_block(1), &byte, 1, NULL), 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_LOST_BYTES), 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_SIGBUS), 0);
	nfix_check_counters(&fix);
}
END_TEST

START_TEST(a_large_range_over_free_and_owned_blocks_is_entered_exactly)
{
	for (unsigned i = 0; i < 300; i++)
		nfix_file(&fix, 100 + i % 7, NFIX_DATA_BLOCK + 3 * i, 1 + i % 2);
	nfix_report(&fix, nfix_block(0), 1000 * BLOCK_BYTES);
	nfix_settle(&fix);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 1000 * BLOCK_BYTES);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_LOST_BYTES), 450 * BLOCK_BYTES);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_QUARANTINED_BLOCKS), 550);
	nfix_check_counters(&fix);
}
END_TEST

/* --- latent, sources --- */

START_TEST(latent_poison_is_silent_until_it_is_touched)
{
	struct event *media;
	char bytes[100];

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 4);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(1) + 50, 10, true), 0);
	nfix_settle(&fix);
	expect_events(0, 0, 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 0);
	ck_assert_int_eq(media_read(fix.media, nfix_block(1), bytes, sizeof(bytes), NULL), -EIO);
	ck_assert_int_eq(media_read(fix.media, nfix_block(1), bytes, sizeof(bytes), NULL), -EIO);
	nfix_settle(&fix);
	media = nfix_event(&fix, EVENT_MEDIA_FAILURE);
	ck_assert_uint_eq(media->source, FAILURE_SIGBUS);
	event_free(media);
	expect_events(0, 1, 0);
	ck_assert_uint_eq(ledger_sigbus_count(fix.notify), 1);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_SIGBUS), 1);
	nfix_remount(&fix);
	ck_assert_uint_eq(ledger_sigbus_count(fix.notify), 1);
}
END_TEST

static _Thread_local bool is_client;

/* The kernel lists it between a client's touch and the signal. */
static size_t load_that_is_listed_first(struct media *media, devoff_t offset, void *to, size_t length, struct guard_fault *fault)
{
	const size_t done = media_backend_mapped.load(media, offset, to, length, fault);

	if (done < length && is_client)
		ck_assert_int_eq(notify_report(fix.notify, nfix_block(1), SECTOR_BYTES, FAILURE_KERNEL), 0);
	return done;
}

START_TEST(a_list_that_is_faster_than_the_signal_hides_no_consumption)
{
	struct media_backend backend = media_backend_mapped;
	struct media_counts counts;
	char bytes[BLOCK_BYTES];
	struct event *media;

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 4);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(1) + 50, 10, true), 0);
	backend.load = load_that_is_listed_first;
	/* The notify thread reads through the backend too: it is changed while that one waits. */
	nfix_settle(&fix);
	fix.media->backend = &backend;
	is_client = true;
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(media_read(fix.media, nfix_block(1), bytes, sizeof(bytes), NULL), -EIO);
	is_client = false;
	nfix_settle(&fix);
	fix.media->backend = &media_backend_mapped;
	media = nfix_event(&fix, EVENT_MEDIA_FAILURE);
	ck_assert_uint_eq(media->source, FAILURE_KERNEL);
	event_free(media);
	expect_events(0, 1, 0);
	ck_assert_uint_eq(ledger_sigbus_count(fix.notify), 1);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_SIGBUS), 1);
	media_counts(fix.media, &counts);
	ck_assert_uint_eq(counts.sigbus, 1);
}
END_TEST

START_TEST(a_coarse_notice_is_narrowed_to_what_is_bad)
{
	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 16);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(3) + 600, 1, true), 0);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(3) + 2048, 1, true), 0);
	ck_assert_int_eq(media_bad_add(fix.media, nfix_block(0), 16 * BLOCK_BYTES), 0);
	pthread_mutex_lock(&fix.notify->lock);
	notify_enter(fix.notify, nfix_block(0), nfix_block(16), BADBLOCK_SUSPECT, FAILURE_SIGBUS);
	pthread_mutex_unlock(&fix.notify->lock);
	nfix_settle(&fix);
	nfix_settle(&fix);
	expect_events(2, 2, 0);
	nfix_badblocks(&fix, &all);
	ck_assert_uint_eq(all.count, 2);
	ck_assert_uint_eq(all.records[0].offset, nfix_block(3) + 512);
	ck_assert_uint_eq(all.bytes, 1024);
	ck_assert(!nfix_is_known(&fix, nfix_block(0), 3 * BLOCK_BYTES + 512));
	ck_assert(!nfix_is_known(&fix, nfix_block(4), 12 * BLOCK_BYTES));
	nfix_crash(&fix);
	nfix_mount(&fix);
	ck_assert(!nfix_is_known(&fix, nfix_block(4), 12 * BLOCK_BYTES));
	nfix_check_counters(&fix);
}
END_TEST

START_TEST(a_coarse_notice_leaves_alone_what_is_bad_for_another_reason)
{
	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 16);
	ck_assert_int_eq(notify_report(fix.notify, nfix_block(5), 512, FAILURE_KERNEL), 0);
	nfix_settle(&fix);
	ck_assert_int_eq(media_bad_add(fix.media, nfix_block(0), 16 * BLOCK_BYTES), 0);
	pthread_mutex_lock(&fix.notify->lock);
	notify_enter(fix.notify, nfix_block(0), nfix_block(16), BADBLOCK_SUSPECT, FAILURE_SIGBUS);
	pthread_mutex_unlock(&fix.notify->lock);
	nfix_settle(&fix);
	for (int i = 0; i < 2; i++) {
		nfix_badblocks(&fix, &all);
		ck_assert_uint_eq(all.count, 1);
		ck_assert_uint_eq(all.bytes, 512);
		ck_assert(nfix_is_known(&fix, nfix_block(5), 512));
		ck_assert(!nfix_is_known(&fix, nfix_block(0), 5 * BLOCK_BYTES));
		ck_assert(!nfix_is_known(&fix, nfix_block(5) + 512, 11 * BLOCK_BYTES - 512));
		nfix_crash(&fix);
		nfix_mount(&fix);
	}
	nfix_check_counters(&fix);
}
END_TEST

/* As the kernel does for memory that nobody touched. */
static void send_signal(int fd, int code, devoff_t offset, unsigned lsb)
{
	const struct signalfd_siginfo info = {
	    .ssi_signo = SIGBUS,
	    .ssi_code = code,
	    .ssi_addr = (uintptr_t)fix.media->map.base + offset,
	    .ssi_addr_lsb = (uint16_t)lsb,
	};

	ck_assert_int_eq(write(fd, &info, sizeof(info)), sizeof(info));
}

static void wait_for_badblocks(size_t count)
{
	for (int i = 0; i < 20000; i++) {
		nfix_settle(&fix);
		nfix_badblocks(&fix, &all);
		if (all.count == count)
			return;
		usleep(1000);
	}
	ck_abort_msg("%zu bad blocks, not %zu", all.count, count);
}

/* What is known is recorded first, and told then. */
static void wait_for_events(unsigned media, unsigned file)
{
	struct nfix_counts told = {0};

	for (int i = 0; i < 20000 && (told.media < media || told.file < file); i++) {
		const struct nfix_counts more = nfix_count_events(&fix);

		told.media += more.media;
		told.file += more.file;
		usleep(1000);
	}
	ck_assert_uint_eq(told.media, media);
	ck_assert_uint_eq(told.file, file);
}

START_TEST(an_error_that_nobody_touched_is_heard_of_once)
{
	int ends[2];

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 16);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(3) + 600, 1, true), 0);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(8), 1, true), 0);
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(watch_open(fix.notify, ends[0], -1), 0);
	send_signal(ends[1], BUS_MCEERR_AR, nfix_block(8), 12);
	send_signal(ends[1], BUS_MCEERR_AO, media_size(fix.media) + 4096, 12);
	send_signal(ends[1], BUS_MCEERR_AO, nfix_block(3), 12);
	wait_for_badblocks(1);
	ck_assert_uint_eq(all.records[0].offset, nfix_block(3) + 512);
	ck_assert_uint_eq(all.bytes, 512);
	wait_for_events(1, 1);
	/* Again, and for a larger page in which something else is bad. */
	send_signal(ends[1], BUS_MCEERR_AO, nfix_block(3), 12);
	send_signal(ends[1], BUS_MCEERR_AO, nfix_block(3), 21);
	wait_for_badblocks(2);
	wait_for_events(1, 1);
	ck_assert(!nfix_is_known(&fix, nfix_block(3) + 1024, 5 * BLOCK_BYTES - 1024));
	nfix_crash(&fix);
	close(ends[1]);
	nfix_mount(&fix);
	ck_assert(nfix_is_known(&fix, nfix_block(3) + 512, 512));
}
END_TEST

/* --- the kernel's list, as this test says it is --- */

static struct source_badblock on_list[4];
static size_t count_on_list;
static enum source_state list_state = SOURCE_NONE;
static struct scrub_state bus_scrub;
static int bus_answer = -ENOTSUP;

int __wrap_source_badblocks(struct media *media, struct source_list *out);
int __wrap_scrub_ask(struct media *media, struct scrub_state *out, struct why *why);

int __wrap_source_badblocks(struct media *media, struct source_list *out)
{
	*out = (struct source_list){.state = list_state};
	for (size_t i = 0; i < count_on_list; i++)
		ck_assert_int_eq(source_list_add(out, on_list[i].offset, on_list[i].length), 0);
	return 0;
}

int __wrap_scrub_ask(struct media *media, struct scrub_state *out, struct why *why)
{
	*out = bus_scrub;
	return bus_answer;
}

static void list_is(enum source_state state, size_t count, devoff_t offset, uint64_t length)
{
	list_state = state;
	count_on_list = count;
	on_list[0] = (struct source_badblock){offset, length};
	notify_refresh(fix.notify);
	/* What it reports is the next round's. */
	nfix_settle(&fix);
	nfix_settle(&fix);
}

static void expect_quarantine(uint64_t bytes, enum badblock_state state)
{
	nfix_badblocks(&fix, &all);
	ck_assert_uint_eq(all.bytes, bytes);
	for (size_t i = 0; i < all.count; i++)
		ck_assert_int_eq(all.records[i].state, state);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_QUARANTINED_BLOCKS), (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES);
	ck_assert_uint_eq(nfix_is_known(&fix, nfix_block(3), BLOCK_BYTES), bytes > 0);
	ck_assert_uint_eq(nfix_free(&fix, NFIX_DATA_BLOCK + 3, 1), bytes == 0);
	nfix_check_counters(&fix);
}

START_TEST(quarantine_ends_when_the_kernels_list_gives_a_block_up)
{
	list_is(SOURCE_KNOWN, 1, nfix_block(3) + 512, 1024);
	expect_quarantine(1024, BADBLOCK_QUARANTINED);
	expect_events(1, 0, 0);
	list_is(SOURCE_KNOWN, 1, nfix_block(3) + 512, 1024);
	expect_quarantine(1024, BADBLOCK_QUARANTINED);
	list_is(SOURCE_KNOWN, 1, nfix_block(3) + 512, 512);
	nfix_badblocks(&fix, &all);
	ck_assert_uint_eq(all.bytes, 512);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_QUARANTINED_BLOCKS), 1);
	list_is(SOURCE_KNOWN, 0, 0, 0);
	expect_quarantine(0, BADBLOCK_QUARANTINED);
	ck_assert_uint_eq(ledger_sigbus_count(fix.notify), 0);
	nfix_remount(&fix);
	expect_quarantine(0, BADBLOCK_QUARANTINED);
	expect_events(0, 0, 0);
	/* It may fail again. */
	list_is(SOURCE_KNOWN, 1, nfix_block(3), 512);
	expect_quarantine(512, BADBLOCK_QUARANTINED);
	expect_events(1, 0, 0);
}
END_TEST

START_TEST(a_list_that_is_unknown_or_never_had_a_block_gives_nothing_back)
{
	nfix_report(&fix, nfix_block(3), 512);
	list_is(SOURCE_KNOWN, 0, 0, 0);
	expect_quarantine(512, BADBLOCK_QUARANTINED);
	list_is(SOURCE_KNOWN, 1, nfix_block(3), 512);
	list_is(SOURCE_UNKNOWN, 0, 0, 0);
	list_is(SOURCE_NONE, 0, 0, 0);
	expect_quarantine(512, BADBLOCK_QUARANTINED);
	/* The kernel has been booted anew: nobody has looked at the memory since. */
	nfix_remount(&fix);
	list_is(SOURCE_KNOWN, 0, 0, 0);
	expect_quarantine(512, BADBLOCK_QUARANTINED);
	ck_assert_uint_eq(ledger_sigbus_count(fix.notify), 0);
}
END_TEST

START_TEST(a_bus_that_has_scrubbed_vouches_for_its_list)
{
	nfix_report(&fix, nfix_block(3), 512);
	nfix_remount(&fix);
	bus_answer = 0;
	list_is(SOURCE_KNOWN, 0, 0, 0);
	expect_quarantine(512, BADBLOCK_QUARANTINED);
	bus_scrub = (struct scrub_state){.count_finished = 1, .is_running = true};
	list_is(SOURCE_KNOWN, 0, 0, 0);
	expect_quarantine(512, BADBLOCK_QUARANTINED);
	bus_scrub.is_running = false;
	list_is(SOURCE_KNOWN, 0, 0, 0);
	expect_quarantine(0, BADBLOCK_QUARANTINED);
}
END_TEST

START_TEST(what_is_bad_all_the_same_is_touched_once_ever)
{
	ck_assert_int_eq(media_poison_arm(fix.media, nfix_block(3) + 700, 1, true), 0);
	list_is(SOURCE_KNOWN, 1, nfix_block(3), BLOCK_BYTES);
	expect_quarantine(BLOCK_BYTES, BADBLOCK_QUARANTINED);
	expect_events(1, 0, 0);
	list_is(SOURCE_KNOWN, 0, 0, 0);
	expect_quarantine(BLOCK_BYTES, BADBLOCK_RETIRED);
	ck_assert_uint_eq(ledger_sigbus_count(fix.notify), 1);
	expect_events(0, 0, 0);
	list_is(SOURCE_KNOWN, 1, nfix_block(3), BLOCK_BYTES);
	list_is(SOURCE_KNOWN, 0, 0, 0);
	nfix_crash(&fix);
	nfix_mount(&fix);
	bus_answer = 0;
	bus_scrub = (struct scrub_state){.count_finished = 1};
	list_is(SOURCE_KNOWN, 0, 0, 0);
	expect_quarantine(BLOCK_BYTES, BADBLOCK_RETIRED);
	ck_assert_uint_eq(ledger_sigbus_count(fix.notify), 1);
}
END_TEST

START_TEST(what_a_file_has_lost_is_not_touched_when_the_medium_is_taken_back)
{
	nfix_file(&fix, 100, NFIX_DATA_BLOCK + 3, 1);
	ck_assert_int_eq(media_poison_arm(fix.media, nfix_block(3), 1, true), 0);
	list_is(SOURCE_KNOWN, 1, nfix_block(3), 512);
	list_is(SOURCE_KNOWN, 0, 0, 0);
	ck_assert(nfix_is_known(&fix, nfix_block(3), 512));
	ck_assert_uint_eq(nfix_lost_bytes(&fix), 512);
	ck_assert_uint_eq(ledger_sigbus_count(fix.notify), 0);
	expect_events(1, 1, 0);
	/* Deleted, it is in quarantine, and the list has long given it up. */
	ck_assert_int_eq(media_poison_disarm(fix.media, nfix_block(3), 1, &(uint64_t){0}), 0);
	nfix_unmap_free(&fix, 100, 0, NFIX_DATA_BLOCK + 3, 1);
	list_is(SOURCE_KNOWN, 0, 0, 0);
	expect_quarantine(0, BADBLOCK_QUARANTINED);
}
END_TEST

START_TEST(injected_poison_is_on_no_list_and_stays)
{
	bus_answer = 0;
	bus_scrub = (struct scrub_state){.count_finished = 1};
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(3), 512, false), 0);
	nfix_settle(&fix);
	list_is(SOURCE_KNOWN, 0, 0, 0);
	expect_quarantine(512, BADBLOCK_QUARANTINED);
	ck_assert_uint_eq(ledger_sigbus_count(fix.notify), 0);
}
END_TEST

/* Wherever the power goes, the block is either bad to everybody or free. */
START_TEST(a_crash_while_quarantine_ends_leaves_it_bad_or_good)
{
	unsigned steps;
	char name[16];

	list_is(SOURCE_KNOWN, 1, nfix_block(3), 512);
	fix.steps = 0;
	atomic_store(&fix.save_steps, true);
	list_is(SOURCE_KNOWN, 0, 0, 0);
	atomic_store(&fix.save_steps, false);
	expect_quarantine(0, BADBLOCK_QUARANTINED);
	steps = fix.steps;
	ck_assert_uint_ge(steps, 2);
	nfix_unmount(&fix);
	list_state = SOURCE_NONE;
	for (unsigned i = 0; i < steps; i++) {
		snprintf(name, sizeof(name), "step%u", i);
		nfix_load_crash(&fix, name);
		nfix_mount(&fix);
		nfix_badblocks(&fix, &all);
		/* Before the log says so it is bad; afterwards the mount ends it. */
		expect_quarantine(all.bytes, all.count ? all.records[0].state : BADBLOCK_QUARANTINED);
		ck_assert_uint_eq(all.bytes, i < 1 ? 512 : 0);
		if (i + 1 < steps)
			nfix_unmount(&fix);
	}
}
END_TEST

/* --- DIMMs, as this test says they are --- */

static struct dimm_health dimms[2];
static int dimms_answer = -ENOTSUP;

int __real_health_read(struct media *media, struct dimm_health *out, size_t max);
int __wrap_health_read(struct media *media, struct dimm_health *out, size_t max);

int __wrap_health_read(struct media *media, struct dimm_health *out, size_t max)
{
	for (int i = 0; i < dimms_answer; i++)
		out[i] = dimms[i];
	return dimms_answer;
}

static void expect_dimm(const char *name, enum dimm_state state, unsigned alarms)
{
	struct event *event = nfix_event(&fix, EVENT_DIMM_HEALTH);

	ck_assert_ptr_nonnull(event);
	ck_assert_str_eq(event->dimm.name, name);
	ck_assert_int_eq(event->dimm.state, state);
	ck_assert_uint_eq(event->dimm.alarms, alarms);
	event_free(event);
}

static void dimms_notify(void)
{
	notify_enter_health(fix.notify);
	nfix_settle(&fix);
}

START_TEST(a_dimm_is_told_of_when_it_ails_or_is_well_again_and_only_then)
{
	dimms[0] = (struct dimm_health){.name = "nmem0", .known = DIMM_STATE | DIMM_ALARMS};
	dimms[1] = (struct dimm_health){.name = "nmem1", .known = DIMM_STATE | DIMM_ALARMS};
	dimms_answer = 2;
	dimms_notify();
	ck_assert_ptr_null(nfix_event(&fix, EVENT_DIMM_HEALTH));
	dimms[1].state = DIMM_NON_CRITICAL;
	dimms[1].alarms = DIMM_ALARM_SPARES;
	dimms_notify();
	expect_dimm("nmem1", DIMM_NON_CRITICAL, DIMM_ALARM_SPARES);
	dimms[1].spares_percent = 2; /* drifts */
	dimms_notify();
	dimms_answer = -EACCES;
	dimms_notify();
	ck_assert_ptr_null(nfix_event(&fix, EVENT_DIMM_HEALTH));
	dimms_answer = 2;
	dimms[0].state = DIMM_FATAL;
	dimms[1].state = DIMM_OK;
	dimms[1].alarms = 0;
	dimms_notify();
	expect_dimm("nmem0", DIMM_FATAL, 0);
	expect_dimm("nmem1", DIMM_OK, 0);
	dimms_notify();
	ck_assert_ptr_null(nfix_event(&fix, EVENT_DIMM_HEALTH));
	expect_events(0, 0, 0);
}
END_TEST

START_TEST(poison_armed_while_unmounted_is_announced_once_ever)
{
	struct event *media;

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 4);
	nfix_unmount(&fix);
	nfix_open_media(&fix);
	ck_assert_int_eq(media_poison_arm(fix.media, nfix_block(1), 512, false), 0);
	ck_assert_int_eq(media_close(fix.media), 0);
	nfix_mount(&fix);
	media = nfix_event(&fix, EVENT_MEDIA_FAILURE);
	ck_assert_ptr_nonnull(media);
	ck_assert_uint_eq(media->source, FAILURE_INJECTED);
	event_free(media);
	expect_events(0, 1, 0);
	nfix_remount(&fix);
	expect_events(0, 0, 0);
	ck_assert(nfix_is_known(&fix, nfix_block(1), 512));
}
END_TEST

START_TEST(what_was_met_by_reading_before_the_pipeline_existed_is_announced)
{
	char byte;

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 4);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(1), 512, true), 0);
	nfix_unmount(&fix);
	nfix_open_media(&fix);
	ck_assert_int_eq(media_read(fix.media, nfix_block(1), &byte, 1, NULL), -EIO);
	ck_assert_int_eq(event_bus_create(&fix.events), 0);
	ck_assert_int_eq(event_subscribe(fix.events, 100, &fix.subscriber), 0);
	nfix_open_journal(&fix);
	nfix_start(&fix, NULL, 0);
	nfix_settle(&fix);
	expect_events(1, 1, 0);
}
END_TEST

START_TEST(the_loss_of_the_device_is_one_call)
{
	struct event *shutdown;

	ck_assert_int_eq(notify_report(fix.notify, 0, UINT64_MAX, FAILURE_KERNEL), 0);
	ck_assert_int_eq(notify_report(fix.notify, 0, UINT64_MAX, FAILURE_KERNEL), 0);
	nfix_settle(&fix);
	shutdown = nfix_event(&fix, EVENT_SHUTDOWN);
	ck_assert_str_eq(shutdown->reasons, "device_removed");
	event_free(shutdown);
	ck_assert_ptr_null(nfix_event(&fix, EVENT_SHUTDOWN));
	ck_assert_uint_eq(atomic_load(&fix.shutdowns), 1);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 0);
}
END_TEST

START_TEST(a_readonly_mount_knows_in_memory_only_and_still_tells)
{
	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 4);
	nfix_unmount(&fix);
	fix.readonly = true;
	nfix_mount(&fix);
	nfix_report(&fix, nfix_block(1), 512);
	nfix_report(&fix, nfix_block(3), 512);
	nfix_settle(&fix);
	expect_events(2, 2, 0);
	nfix_report(&fix, nfix_block(1), 512);
	nfix_settle(&fix);
	expect_events(0, 0, 0);
	nfix_badblocks(&fix, &all);
	ck_assert_uint_eq(all.count, 2);
	ck_assert_uint_eq(all.records[0].offset, nfix_block(1));
	ck_assert_uint_ne(all.records[0].cause_id, all.records[1].cause_id);
	nfix_unmount(&fix);
	fix.readonly = false;
	nfix_mount(&fix);
	nfix_badblocks(&fix, &all);
	ck_assert_uint_eq(all.count, 0);
}
END_TEST

/* --- metadata --- */

/* A node of a tree that the pipeline itself does not read, both copies at home, nothing cached. */
static maddr_t make_node(devoff_t place[2])
{
	struct buf *buf;
	maddr_t address;
	struct tx *tx;

	ck_assert_int_eq(tx_begin(fix.journal, TX_NORMAL, &tx), 0);
	ck_assert_int_eq(buf_create(tx, FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf), 0);
	address = buf->address;
	memset(buf->data + 64, 0x77, 100);
	buf_put(buf);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
	buf_drop_clean(fix.journal);
	journal_read_begin(fix.journal);
	ck_assert_int_eq(chunk_map(fix.journal, address, place), 0);
	journal_read_end(fix.journal);
	return address;
}

static int read_node(maddr_t address)
{
	struct buf *buf;
	int rc;

	journal_read_begin(fix.journal);
	rc = buf_get(fix.journal, address, FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf);
	if (rc == 0) {
		if (buf->data[64] != 0x77)
			rc = -EUCLEAN;
		buf_put(buf);
	}
	journal_read_end(fix.journal);
	return rc;
}

static void expect_equal_copies(const devoff_t place[2])
{
	char a[BLOCK_BYTES], b[BLOCK_BYTES];

	ck_assert_int_eq(media_read(fix.media, place[0], a, sizeof(a), NULL), 0);
	ck_assert_int_eq(media_read(fix.media, place[1], b, sizeof(b), NULL), 0);
	ck_assert_int_eq(memcmp(a, b, sizeof(a)), 0);
}

static void check_copy_is_repaired(unsigned copy, bool latent)
{
	struct event *repaired;
	devoff_t place[2];
	maddr_t address = make_node(place);

	ck_assert_int_eq(notify_inject(fix.notify, place[copy], BLOCK_BYTES, latent), 0);
	nfix_settle(&fix);
	buf_drop_clean(fix.journal);
	ck_assert_int_eq(read_node(address), 0);
	nfix_settle(&fix);
	repaired = nfix_event(&fix, EVENT_METADATA_REPAIRED);
	ck_assert_ptr_nonnull(repaired);
	ck_assert_uint_eq(repaired->device_offset, place[copy]);
	ck_assert_str_eq(repaired->copy, copy ? "replica" : "primary");
	ck_assert_str_eq(repaired->action, "rewritten");
	ck_assert_uint_ne(repaired->cause_id, 0);
	event_free(repaired);
	expect_equal_copies(place);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 0);
	ck_assert(!nfix_is_known(&fix, place[copy], BLOCK_BYTES));
	nfix_check_counters(&fix);
	nfix_remount(&fix);
	expect_events(0, 0, 0);
	ck_assert_int_eq(read_node(address), 0);
}

START_TEST(a_poisoned_primary_is_rewritten_from_the_replica)
{
	check_copy_is_repaired(0, false);
}
END_TEST

START_TEST(a_poisoned_replica_is_rewritten_from_the_primary)
{
	check_copy_is_repaired(1, false);
}
END_TEST

START_TEST(latent_poison_in_metadata_is_repaired_when_a_read_meets_it)
{
	check_copy_is_repaired(0, true);
	ck_assert_uint_eq(ledger_sigbus_count(fix.notify), 1);
}
END_TEST

START_TEST(both_copies_poisoned_is_lost_and_read_only_and_the_rest_is_served)
{
	devoff_t place[2], other[2];
	maddr_t address = make_node(place), whole = make_node(other);

	ck_assert_int_eq(notify_inject(fix.notify, place[0], BLOCK_BYTES, true), 0);
	ck_assert_int_eq(notify_inject(fix.notify, place[1], BLOCK_BYTES, true), 0);
	ck_assert_int_eq(read_node(address), -EIO);
	nfix_settle(&fix);
	expect_event(EVENT_METADATA_LOST);
	ck_assert_uint_ge(atomic_load(&fix.shutdowns), 1);
	ck_assert(journal_is_readonly(fix.journal));
	buf_drop_clean(fix.journal);
	ck_assert_int_eq(read_node(whole), 0);
	ck_assert_int_eq(read_node(address), -EIO);
}
END_TEST

START_TEST(a_wrong_checksum_is_repaired_without_a_badblock)
{
	const uint8_t garbage[BLOCK_BYTES] = {1, 2, 3};
	struct event *repaired;
	devoff_t place[2];
	maddr_t address = make_node(place);

	ck_assert_int_eq(media_write(fix.media, place[0], garbage, sizeof(garbage), NULL), 0);
	ck_assert_int_eq(read_node(address), 0);
	nfix_settle(&fix);
	repaired = nfix_event(&fix, EVENT_METADATA_REPAIRED);
	ck_assert_ptr_nonnull(repaired);
	ck_assert_uint_eq(repaired->source, FAILURE_CHECKSUM);
	ck_assert_uint_eq(repaired->cause_id, 0);
	event_free(repaired);
	expect_equal_copies(place);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 0);
}
END_TEST

START_TEST(the_pipelines_own_trees_are_repaired_too)
{
	static const unsigned trees[] = {FORMAT_TREE_RMAP, FORMAT_TREE_FREE, FORMAT_TREE_BADBLOCKS,
					 FORMAT_TREE_LOST};

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 4);
	nfix_report(&fix, nfix_block(0), 512);
	nfix_settle(&fix);
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(trees); i++) {
		devoff_t place[2];
		maddr_t address;
		unsigned level;

		ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
		journal_read_begin(fix.journal);
		root_tree_get(fix.journal, trees[i / 2], &address, &level);
		ck_assert_int_eq(chunk_map(fix.journal, address, place), 0);
		journal_read_end(fix.journal);
		buf_drop_clean(fix.journal);
		nfix_count_events(&fix);
		ck_assert_int_eq(notify_inject(fix.notify, place[i % 2], BLOCK_BYTES, i & 1), 0);
		buf_drop_clean(fix.journal);
		/* Reading the trees meets the latent ones. */
		nfix_free(&fix, 0, NFIX_IMAGE_BYTES >> BLOCK_SHIFT);
		nfix_owned(&fix, 100, 0, NFIX_IMAGE_BYTES >> BLOCK_SHIFT);
		nfix_badblocks(&fix, &all);
		nfix_lost_bytes(&fix);
		nfix_settle(&fix);
		nfix_check_counters(&fix);
		expect_events(1, 0, 1);
		ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 512);
		expect_equal_copies(place);
	}
}
END_TEST

START_TEST(root_block_and_chunk_table_are_repaired)
{
	for (unsigned address = 0; address < 2; address++)
		for (unsigned copy = 0; copy < 2; copy++) {
			const devoff_t place =
			    fix.super.areas[AREA_FIXED].copy[copy] + address * BLOCK_BYTES;

			nfix_count_events(&fix);
			ck_assert_int_eq(notify_inject(fix.notify, place, 64, false), 0);
			nfix_settle(&fix);
			expect_events(1, 0, 1);
			ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 0);
		}
	nfix_remount(&fix);
	expect_events(0, 0, 0);
}
END_TEST

START_TEST(the_poison_log_is_repaired_where_it_can_be)
{
	struct event *event;

	ck_assert_int_eq(
	    notify_inject(fix.notify, fix.super.areas[AREA_JOURNAL].copy[1] + 8192, 100, false), 0);
	nfix_settle(&fix); /* one round has its ranges in the order of the device */
	ck_assert_int_eq(
	    notify_inject(fix.notify, fix.super.areas[AREA_POISON_LOG].copy[0], 4096, false), 0);
	nfix_settle(&fix);
	event = nfix_event(&fix, EVENT_METADATA_REPAIRED);
	ck_assert_str_eq(event->tree, "journal");
	ck_assert_str_eq(event->action, "skipped");
	event_free(event);
	event = nfix_event(&fix, EVENT_METADATA_REPAIRED);
	ck_assert_str_eq(event->tree, "poison_log");
	ck_assert_str_eq(event->action, "rewritten");
	event_free(event);
	nfix_badblocks(&fix, &all);
	ck_assert_uint_eq(all.count, 1);
	nfix_remount(&fix);
	nfix_badblocks(&fix, &all);
	ck_assert_uint_eq(all.count, 1);
}
END_TEST

static int refuse_to_clear(struct media *media, devoff_t offset, uint64_t length)
{
	return -ENOTSUP;
}

START_TEST(areas_that_pass_over_bad_places_say_so)
{
	struct media_backend backend = media_backend_mapped;
	struct event *event;

	backend.clear = refuse_to_clear;
	nfix_settle(&fix);
	fix.media->backend = &backend;
	ck_assert_int_eq(
	    notify_inject(fix.notify, fix.super.areas[AREA_JOURNAL].copy[1] + 8192, 100, false), 0);
	nfix_settle(&fix); /* one round has its ranges in the order of the device */
	ck_assert_int_eq(
	    notify_inject(fix.notify, fix.super.areas[AREA_POISON_LOG].copy[0], 4096, false), 0);
	nfix_settle(&fix);
	event = nfix_event(&fix, EVENT_METADATA_REPAIRED);
	ck_assert_str_eq(event->action, "skipped");
	event_free(event);
	event = nfix_event(&fix, EVENT_METADATA_REPAIRED);
	ck_assert_str_eq(event->action, "skipped");
	event_free(event);
	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 4);
	nfix_report(&fix, nfix_block(0), 512);
	nfix_settle(&fix);
	nfix_badblocks(&fix, &all);
	ck_assert_uint_eq(all.count, 3);
	/* A mount that can clear does so. */
	nfix_remount(&fix);
	ck_assert(nfix_is_known(&fix, nfix_block(0), 512));
	nfix_settle(&fix);
	nfix_badblocks(&fix, &all);
	ck_assert_uint_eq(all.count, 2);
}
END_TEST

START_TEST(a_superblock_slot_is_handed_to_the_holder)
{
	ck_assert_int_eq(notify_inject(fix.notify, super_slot_offset(3), 100, false), 0);
	nfix_settle(&fix);
	ck_assert_uint_eq(atomic_load(&fix.super_failures), 1);
	expect_events(1, 0, 1);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 0);
}
END_TEST

/* --- crashes --- */

/* Is it known to the next mount before that reads anything but the poison log? */
static void expect_known_before_the_first_read(devoff_t offset)
{
	nfix_open_media(&fix);
	ck_assert_int_eq(poison_log_open(fix.media, &fix.super, &fix.log), 0);
	ck_assert(nfix_is_known(&fix, offset, 512));
	poison_log_close(fix.log);
	ck_assert_int_eq(media_close(fix.media), 0);
}

START_TEST(a_crash_right_after_the_report_leaves_it_known_and_announced_by_the_next_mount)
{
	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 1);
	nfix_file(&fix, 200, NFIX_DATA_BLOCK + 10, 4);
	atomic_store(&fix.gate_is_closed, true);
	nfix_report(&fix, nfix_block(0), 512);
	nfix_wait_at_gate(&fix);
	nfix_report(&fix, nfix_block(11), 512);
	nfix_save_crash(&fix, "crash");
	nfix_open_gate(&fix);
	nfix_unmount(&fix);
	nfix_load_crash(&fix, "crash");
	expect_known_before_the_first_read(nfix_block(11));
	nfix_mount(&fix);
	expect_events(1, 1, 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 1024);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_LOST_BYTES), 1024);
	nfix_check_counters(&fix);
	nfix_remount(&fix);
	expect_events(0, 0, 0);
}
END_TEST

/* The twin that must forget: the same crash without what the poison log had. */
START_TEST(without_the_poison_log_the_same_crash_forgets)
{
	const uint8_t zeros[BLOCK_BYTES] = {0};

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 1);
	nfix_file(&fix, 200, NFIX_DATA_BLOCK + 10, 4);
	atomic_store(&fix.gate_is_closed, true);
	nfix_report(&fix, nfix_block(0), 512);
	nfix_wait_at_gate(&fix);
	nfix_report(&fix, nfix_block(11), 512);
	nfix_save_crash(&fix, "crash");
	nfix_open_gate(&fix);
	nfix_unmount(&fix);
	nfix_load_crash(&fix, "crash");
	nfix_open_media(&fix);
	for (unsigned copy = 0; copy < 2; copy++)
		ck_assert_int_eq(media_write(fix.media, fix.super.areas[AREA_POISON_LOG].copy[copy],
					     zeros, sizeof(zeros), NULL),
				 0);
	ck_assert_int_eq(media_close(fix.media), 0);
	nfix_mount(&fix);
	ck_assert(!nfix_is_known(&fix, nfix_block(11), 512));
	ck_assert(nfix_is_known(&fix, nfix_block(0), 512));
}
END_TEST

START_TEST(a_crash_between_trees_and_tail_makes_no_second_event)
{
	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 1);
	atomic_store(&fix.gate_is_closed, true);
	nfix_report(&fix, nfix_block(0), 512);
	nfix_wait_at_gate(&fix);
	nfix_save_crash(&fix, "crash");
	nfix_open_gate(&fix);
	nfix_unmount(&fix);
	nfix_load_crash(&fix, "crash");
	expect_known_before_the_first_read(nfix_block(0));
	nfix_mount(&fix);
	expect_events(0, 0, 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 512);
	nfix_check_counters(&fix);
}
END_TEST

START_TEST(a_crash_after_everything_leaves_it_known)
{
	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 1);
	nfix_report(&fix, nfix_block(0), 512);
	nfix_settle(&fix);
	nfix_crash(&fix);
	expect_known_before_the_first_read(nfix_block(0));
	nfix_mount(&fix);
	expect_events(0, 0, 0);
	ck_assert(nfix_is_known(&fix, nfix_block(0), 512));
	nfix_check_counters(&fix);
}
END_TEST

/* The file's owner writes the block anew: clear, write, drain, then the transaction. */
static void heal_block(const char *before_commit, const char *after_commit)
{
	const uint8_t content[BLOCK_BYTES] = {0x44};
	struct tx *tx;

	ck_assert_int_eq(media_clear(fix.media, nfix_block(0), BLOCK_BYTES), 0);
	ck_assert_int_eq(media_write(fix.media, nfix_block(0), content, sizeof(content), NULL), 0);
	media_drain(fix.media);
	ck_assert_int_eq(tx_begin(fix.journal, TX_NORMAL, &tx), 0);
	ck_assert_int_eq(ledger_cleared(fix.notify, tx, nfix_block(0), BLOCK_BYTES), 0);
	if (before_commit)
		nfix_save_crash(&fix, before_commit);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	if (after_commit)
		nfix_save_crash(&fix, after_commit);
	nfix_settle(&fix);
}

static void expect_healed(void)
{
	char byte = 0;

	ck_assert(!nfix_is_known(&fix, nfix_block(0), BLOCK_BYTES));
	ck_assert_int_eq(media_read(fix.media, nfix_block(0), &byte, 1, NULL), 0);
	ck_assert_int_eq(byte, 0x44);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_LOST_BYTES), 0);
	nfix_check_counters(&fix);
	expect_events(0, 0, 0);
}

START_TEST(a_crash_while_healing_neither_resurrects_nor_forgets)
{
	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 1);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(0), BLOCK_BYTES, false), 0);
	nfix_settle(&fix);
	nfix_count_events(&fix);
	heal_block("before", "after");
	expect_healed();
	nfix_unmount(&fix);
	nfix_load_crash(&fix, "before");
	nfix_mount(&fix);
	expect_healed();
	nfix_unmount(&fix);
	nfix_load_crash(&fix, "after");
	nfix_mount(&fix);
	expect_healed();
	nfix_remount(&fix);
	expect_healed();
}
END_TEST

START_TEST(healing_overtakes_a_report_that_is_still_queued)
{
	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 1);
	nfix_file(&fix, 200, NFIX_DATA_BLOCK + 10, 1);
	atomic_store(&fix.gate_is_closed, true);
	nfix_report(&fix, nfix_block(10), 512);
	nfix_wait_at_gate(&fix);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(0), BLOCK_BYTES, false), 0);
	nfix_open_gate(&fix);
	heal_block(NULL, NULL);
	nfix_settle(&fix);
	ck_assert(!nfix_is_known(&fix, nfix_block(0), BLOCK_BYTES));
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 512);
	nfix_check_counters(&fix);
}
END_TEST

START_TEST(an_aborted_healing_is_still_the_truth_about_the_medium)
{
	const uint8_t content[BLOCK_BYTES] = {0x44};
	struct tx *tx;

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 1);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(0), BLOCK_BYTES, false), 0);
	nfix_settle(&fix);
	nfix_count_events(&fix);
	ck_assert_int_eq(media_clear(fix.media, nfix_block(0), BLOCK_BYTES), 0);
	ck_assert_int_eq(media_write(fix.media, nfix_block(0), content, sizeof(content), NULL), 0);
	media_drain(fix.media);
	ck_assert_int_eq(tx_begin(fix.journal, TX_NORMAL, &tx), 0);
	ck_assert_int_eq(ledger_cleared(fix.notify, tx, nfix_block(0), BLOCK_BYTES), 0);
	tx_abort(tx);
	nfix_settle(&fix);
	expect_healed();
}
END_TEST

START_TEST(what_fails_again_after_healing_is_news)
{
	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 1);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(0), BLOCK_BYTES, false), 0);
	nfix_settle(&fix);
	nfix_count_events(&fix);
	heal_block(NULL, NULL);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(0), 10, false), 0);
	nfix_settle(&fix);
	expect_events(1, 1, 0);
	nfix_crash(&fix);
	expect_known_before_the_first_read(nfix_block(0));
	nfix_mount(&fix);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 512);
	expect_events(0, 0, 0);
}
END_TEST

/* Every other block of the range is free: entered in more than one step. */
#define CROWD_BLOCKS 600ull

static void make_crowd(void)
{
	for (unsigned i = 0; i < CROWD_BLOCKS / 2; i++)
		nfix_file(&fix, 100 + i, NFIX_DATA_BLOCK + 2 * i, 1);
	ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
}

/* Run `act` with the image kept before every transaction of the thread; then mount each of them. */
static void crash_at_every_step(void (*act)(void), void (*expect_after_mount)(void))
{
	char name[32];
	unsigned steps;

	fix.steps = 0;
	atomic_store(&fix.save_steps, true);
	act();
	nfix_settle(&fix);
	atomic_store(&fix.save_steps, false);
	steps = fix.steps;
	ck_assert_uint_ge(steps, 2);
	expect_after_mount();
	for (unsigned i = 0; i < steps; i++) {
		nfix_unmount(&fix);
		snprintf(name, sizeof(name), "step%u", i);
		nfix_load_crash(&fix, name);
		nfix_mount(&fix);
		expect_after_mount();
		nfix_remount(&fix);
		expect_after_mount();
	}
}

static void inject_crowd(void)
{
	const devoff_t root = fix.super.areas[AREA_FIXED].copy[1];

	ck_assert_int_eq(
	    notify_inject(fix.notify, nfix_block(0), CROWD_BLOCKS * BLOCK_BYTES, false), 0);
	ck_assert_int_eq(notify_inject(fix.notify, root, BLOCK_BYTES, false), 0);
}

static void expect_crowd_is_bad(void)
{
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), CROWD_BLOCKS * BLOCK_BYTES);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_LOST_BYTES), CROWD_BLOCKS / 2 * BLOCK_BYTES);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_QUARANTINED_BLOCKS), CROWD_BLOCKS / 2);
	for (unsigned i = 0; i < CROWD_BLOCKS; i++)
		expect(nfix_is_known(&fix, nfix_block(i), BLOCK_BYTES));
	ck_assert(!nfix_is_known(&fix, fix.super.areas[AREA_FIXED].copy[1], BLOCK_BYTES));
	ck_assert_uint_eq(ledger_sigbus_count(fix.notify), 0);
	nfix_check_counters(&fix);
}

START_TEST(a_crash_between_any_two_steps_of_a_failure_loses_nothing)
{
	make_crowd();
	crash_at_every_step(inject_crowd, expect_crowd_is_bad);
}
END_TEST

static void uninject_crowd(void)
{
	uint64_t removed;

	ck_assert_int_eq(
	    notify_uninject(fix.notify, nfix_block(0), CROWD_BLOCKS * BLOCK_BYTES, &removed), 0);
}

static void expect_crowd_is_good(void)
{
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_LOST_BYTES), 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_QUARANTINED_BLOCKS), 0);
	ck_assert(!nfix_is_known(&fix, 0, NFIX_IMAGE_BYTES));
	nfix_check_counters(&fix);
}

START_TEST(a_crash_between_any_two_steps_of_uninject_leaves_it_good)
{
	make_crowd();
	inject_crowd();
	nfix_settle(&fix);
	crash_at_every_step(uninject_crowd, expect_crowd_is_good);
}
END_TEST

START_TEST(the_smallest_journal_carries_a_crowded_failure_in_more_steps)
{
	nfix_destroy(&fix);
	nfix_create_with_ring(&fix, JOURNAL_RING_MIN);
	make_crowd();
	crash_at_every_step(inject_crowd, expect_crowd_is_bad);
	uninject_crowd();
	expect_crowd_is_good();
}
END_TEST

/* --- freeing --- */

START_TEST(freed_blocks_go_to_free_space_but_for_the_bad_ones)
{
	const uint64_t free_before = nfix_root(&fix, ROOT_FREE_BLOCKS);
	uint64_t removed;

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 100);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(10) + 4095, 2, false), 0);
	ck_assert_int_eq(notify_inject(fix.notify, nfix_block(99), 1, false), 0);
	nfix_settle(&fix);
	nfix_unmap_free(&fix, 100, 0, NFIX_DATA_BLOCK, 100);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_LOST_BYTES), 0);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_QUARANTINED_BLOCKS), 3);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_FREE_BLOCKS), free_before - 3);
	nfix_badblocks(&fix, &all);
	for (size_t i = 0; i < all.count; i++)
		ck_assert_int_eq(all.records[i].state, BADBLOCK_QUARANTINED);
	nfix_check_counters(&fix);
	ck_assert_int_eq(notify_uninject(fix.notify, nfix_block(0), 100 * BLOCK_BYTES, &removed),
			 0);
	ck_assert_uint_eq(removed, 3);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_FREE_BLOCKS), free_before);
	nfix_check_counters(&fix);
}
END_TEST

/* --- threads --- */

#define REPORTERS 3

static void *report_pages(void *arg)
{
	const uint64_t first = *(const uint64_t *)arg;

	for (uint64_t i = 0; i < 300; i++)
		notify_report(fix.notify, nfix_block(first + i), 512, FAILURE_CONTROL);
	return NULL;
}

START_TEST(reports_from_many_threads_are_all_entered_once)
{
	static uint64_t first[REPORTERS] = {0, 150, 300};
	pthread_t threads[REPORTERS];

	nfix_file(&fix, 100, NFIX_DATA_BLOCK, 600);
	for (int i = 0; i < REPORTERS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, report_pages, &first[i]), 0);
	for (int i = 0; i < REPORTERS; i++)
		pthread_join(threads[i], NULL);
	nfix_settle(&fix);
	ck_assert_uint_eq(nfix_root(&fix, ROOT_BADBLOCK_BYTES), 600 * 512);
	expect_events(600, 600, 0);
	nfix_check_counters(&fix);
}
END_TEST

static void add_data(Suite *suite)
{
	TCase *tcase = tcase_create("data");

	tcase_set_timeout(tcase, 120);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, every_sharer_of_a_failed_block_is_told);
	tcase_add_test(tcase, pieces_that_continue_each_other_in_the_file_are_one_event);
	tcase_add_test(tcase, what_is_known_makes_no_second_event);
	tcase_add_test(tcase, a_storm_of_small_reports_is_one_event_when_the_thread_gets_to_it);
	tcase_add_test(tcase, a_scattered_storm_beyond_the_queue_loses_nothing);
	tcase_add_test(tcase, unwritten_blocks_have_no_content_to_lose);
	tcase_add_test(tcase, ranges_beyond_the_device_are_clipped_or_refused);
	tcase_add_test(tcase, a_free_space_hit_is_quarantined_by_whole_blocks);
	tcase_add_test(tcase, uninject_gives_the_quarantine_back);
	tcase_add_test(tcase, a_block_stays_in_quarantine_while_any_sector_of_it_is_bad);
	tcase_add_test(tcase, a_sector_that_is_still_armed_in_part_stays_bad);
	tcase_add_test(tcase, latent_poison_that_was_touched_is_taken_back_and_real_poison_stays);
	tcase_add_test(tcase, uninjecting_what_a_file_owns_ends_its_loss);
	tcase_add_test(tcase, a_large_range_over_free_and_owned_blocks_is_entered_exactly);
	tcase_add_test(tcase, freed_blocks_go_to_free_space_but_for_the_bad_ones);
	tcase_add_test(tcase, latent_poison_is_silent_until_it_is_touched);
	tcase_add_test(tcase, a_list_that_is_faster_than_the_signal_hides_no_consumption);
	tcase_add_test(tcase, a_coarse_notice_is_narrowed_to_what_is_bad);
	tcase_add_test(tcase, a_coarse_notice_leaves_alone_what_is_bad_for_another_reason);
	tcase_add_test(tcase, an_error_that_nobody_touched_is_heard_of_once);
	tcase_add_test(tcase, quarantine_ends_when_the_kernels_list_gives_a_block_up);
	tcase_add_test(tcase, a_list_that_is_unknown_or_never_had_a_block_gives_nothing_back);
	tcase_add_test(tcase, a_bus_that_has_scrubbed_vouches_for_its_list);
	tcase_add_test(tcase, what_is_bad_all_the_same_is_touched_once_ever);
	tcase_add_test(tcase, what_a_file_has_lost_is_not_touched_when_the_medium_is_taken_back);
	tcase_add_test(tcase, injected_poison_is_on_no_list_and_stays);
	tcase_add_test(tcase, a_crash_while_quarantine_ends_leaves_it_bad_or_good);
	tcase_add_test(tcase, a_dimm_is_told_of_when_it_ails_or_is_well_again_and_only_then);
	tcase_add_test(tcase, poison_armed_while_unmounted_is_announced_once_ever);
	tcase_add_test(tcase, what_was_met_by_reading_before_the_pipeline_existed_is_announced);
	tcase_add_test(tcase, the_loss_of_the_device_is_one_call);
	tcase_add_test(tcase, a_readonly_mount_knows_in_memory_only_and_still_tells);
	tcase_add_test(tcase, reports_from_many_threads_are_all_entered_once);
	suite_add_tcase(suite, tcase);
}

static void add_metadata(Suite *suite)
{
	TCase *tcase = tcase_create("metadata");

	tcase_set_timeout(tcase, 120);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_poisoned_primary_is_rewritten_from_the_replica);
	tcase_add_test(tcase, a_poisoned_replica_is_rewritten_from_the_primary);
	tcase_add_test(tcase, latent_poison_in_metadata_is_repaired_when_a_read_meets_it);
	tcase_add_test(tcase, both_copies_poisoned_is_lost_and_read_only_and_the_rest_is_served);
	tcase_add_test(tcase, a_wrong_checksum_is_repaired_without_a_badblock);
	tcase_add_test(tcase, the_pipelines_own_trees_are_repaired_too);
	tcase_add_test(tcase, root_block_and_chunk_table_are_repaired);
	tcase_add_test(tcase, the_poison_log_is_repaired_where_it_can_be);
	tcase_add_test(tcase, areas_that_pass_over_bad_places_say_so);
	tcase_add_test(tcase, a_superblock_slot_is_handed_to_the_holder);
	suite_add_tcase(suite, tcase);
}

static void add_crashes(Suite *suite)
{
	TCase *tcase = tcase_create("crashes");

	tcase_set_timeout(tcase, 120);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(
	    tcase, a_crash_right_after_the_report_leaves_it_known_and_announced_by_the_next_mount);
	tcase_add_test(tcase, without_the_poison_log_the_same_crash_forgets);
	tcase_add_test(tcase, a_crash_between_trees_and_tail_makes_no_second_event);
	tcase_add_test(tcase, a_crash_after_everything_leaves_it_known);
	tcase_add_test(tcase, a_crash_while_healing_neither_resurrects_nor_forgets);
	tcase_add_test(tcase, healing_overtakes_a_report_that_is_still_queued);
	tcase_add_test(tcase, an_aborted_healing_is_still_the_truth_about_the_medium);
	tcase_add_test(tcase, what_fails_again_after_healing_is_news);
	tcase_add_test(tcase, a_crash_between_any_two_steps_of_a_failure_loses_nothing);
	tcase_add_test(tcase, a_crash_between_any_two_steps_of_uninject_leaves_it_good);
	tcase_add_test(tcase, the_smallest_journal_carries_a_crowded_failure_in_more_steps);
	suite_add_tcase(suite, tcase);
}

int main(void)
{
	Suite *suite = suite_create("notify");
	SRunner *runner;
	int failed;

	add_data(suite);
	add_metadata(suite);
	add_crashes(suite);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
