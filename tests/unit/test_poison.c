#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "media/media.h"
#include "media/poison_file.h"

#define IMAGE_BYTES (4u << 20)

static char directory[256];
static char image[300];
static char list_file[320];
static struct media *media;
static struct why why;
static unsigned char content[IMAGE_BYTES];

static const uint8_t uuid_a[16] = {0xaa, 1, 2, 3};
static const uint8_t uuid_b[16] = {0xbb, 1, 2, 3};
#define UUID_A_TEXT "aa010203-0000-0000-0000-000000000000"

static struct {
	atomic_int count;
	pthread_mutex_t lock;
	struct media_fault last;
} seen = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void record_fault(void *arg, const struct media_fault *fault)
{
	pthread_mutex_lock(&seen.lock);
	seen.last = *fault;
	pthread_mutex_unlock(&seen.lock);
	atomic_fetch_add(&seen.count, 1);
}

static void open_image(void)
{
	struct media_options options = {.create_bytes = IMAGE_BYTES};

	ck_assert_int_eq(media_open(image, &options, &why, &media), 0);
	media_set_fault_handler(media, record_fault, NULL);
}

static void reopen(void)
{
	ck_assert_int_eq(media_close(media), 0);
	open_image();
}

static void setup(void)
{
	const char *base = getenv("TMPDIR");
	unsigned seed = 1;

	if (!base)
		base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	snprintf(directory, sizeof(directory), "%s/mendfs-poison-XXXXXX", base);
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(image, sizeof(image), "%s/image", directory);
	snprintf(list_file, sizeof(list_file), "%s/image.poison", directory);
	atomic_store(&seen.count, 0);
	open_image();
	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (unsigned char)(rand_r(&seed) >> 5);
	ck_assert_int_eq(media_write(media, 0, content, sizeof(content), NULL), 0);
}

static void teardown(void)
{
	media_close(media);
	unlink(image);
	unlink(list_file);
	ck_assert_int_eq(rmdir(directory), 0);
}

static uint64_t sigbus_count(void)
{
	struct media_counts counts;

	media_counts(media, &counts);
	return counts.sigbus;
}

static void expect_content(devoff_t offset, size_t length)
{
	static unsigned char out[IMAGE_BYTES];

	memset(out, 0, length);
	ck_assert_int_eq(media_read(media, offset, out, length, NULL), 0);
	ck_assert_int_eq(memcmp(out, content + offset, length), 0);
}

static void expect_bad(devoff_t offset, size_t length, devoff_t expected)
{
	static unsigned char out[IMAGE_BYTES];
	devoff_t bad = 0;

	memset(out, 0xee, length);
	ck_assert_int_eq(media_read(media, offset, out, length, &bad), -EIO);
	ck_assert_uint_eq(bad, expected);
	ck_assert_int_eq(memcmp(out, content + offset, expected - offset), 0);
}

START_TEST(one_armed_byte_fails_at_exactly_that_byte)
{
	const devoff_t byte = 3 * 4096 + 2049;

	ck_assert_int_eq(media_poison_arm(media, byte, 1, false), 0);
	/* Good bytes of the same page, on both sides and up to the very neighbours. */
	expect_content(3 * 4096, 2049);
	expect_content(byte + 1, 4096 - 2050);
	expect_content(2 * 4096 + 17, 4096 + 2049 - 17);
	ck_assert_uint_eq(sigbus_count(), 0);
	ck_assert_int_eq(atomic_load(&seen.count), 0);
	expect_bad(0, sizeof(content), byte);
	ck_assert_uint_eq(sigbus_count(), 1);
	ck_assert_int_eq(atomic_load(&seen.count), 1);
	ck_assert_int_eq(seen.last.kind, MEDIA_FAULT_POISON);
	ck_assert_uint_eq(seen.last.offset, 3 * 4096 + 2048);
	ck_assert_uint_eq(seen.last.length, 512);
}
END_TEST

START_TEST(known_poison_is_not_touched_a_second_time)
{
	ck_assert_int_eq(media_poison_arm(media, 8192, 512, false), 0);
	expect_bad(8000, 1000, 8192);
	for (int i = 0; i < 100; i++)
		expect_bad(8000, 1000, 8192);
	ck_assert_uint_eq(sigbus_count(), 1);
	ck_assert_int_eq(atomic_load(&seen.count), 1);
	/* The rest of the sector is known with it; the next sector is good. */
	expect_bad(8703, 10, 8703);
	expect_content(8704, 4096 - 512);
}
END_TEST

START_TEST(an_armed_page_is_consumed_sector_by_sector)
{
	ck_assert_int_eq(media_poison_arm(media, 16384, 4096, false), 0);
	for (devoff_t at = 16384; at < 16384 + 4096; at += 512)
		expect_bad(at, 512, at);
	ck_assert_uint_eq(sigbus_count(), 8);
	expect_bad(0, sizeof(content), 16384);
	ck_assert_uint_eq(sigbus_count(), 8);
}
END_TEST

START_TEST(a_store_to_an_armed_byte_fails_and_beside_it_succeeds)
{
	unsigned char in[100];
	devoff_t bad = 0;

	memset(in, 0x33, sizeof(in));
	ck_assert_int_eq(media_poison_arm(media, 5000, 10, false), 0);
	ck_assert_int_eq(media_write(media, 4900, in, 100, &bad), 0);
	memcpy(content + 4900, in, 100);
	ck_assert_int_eq(media_zero(media, 5010, 90, &bad), 0);
	memset(content + 5010, 0, 90);
	ck_assert_int_eq(media_write_line(media, 4096, in, &bad), 0);
	memcpy(content + 4096, in, 64);
	expect_content(4096, 5000 - 4096);
	expect_content(5010, 8192 - 5010);
	ck_assert_int_eq(media_sync(media), 0);
	ck_assert_uint_eq(sigbus_count(), 0);
	ck_assert_int_eq(media_write(media, 4950, in, 100, &bad), -EIO);
	ck_assert_uint_eq(bad, 5000);
	ck_assert_uint_eq(sigbus_count(), 1);
}
END_TEST

START_TEST(disarming_gives_the_content_back)
{
	uint64_t removed = 0;

	ck_assert_int_eq(media_poison_arm(media, 10000, 20000, false), 0);
	expect_bad(0, sizeof(content), 10000);
	ck_assert_int_eq(media_poison_disarm(media, 0, IMAGE_BYTES, &removed), 0);
	ck_assert_uint_eq(removed, 20000);
	ck_assert_int_eq(media_bad_remove(media, 0, IMAGE_BYTES), 0);
	expect_content(0, sizeof(content));
	ck_assert_int_eq(access(list_file, F_OK), -1);
	ck_assert_int_eq(media_poison_disarm(media, 0, IMAGE_BYTES, &removed), 0);
	ck_assert_uint_eq(removed, 0);
}
END_TEST

START_TEST(disarming_part_of_a_page_leaves_the_rest_armed)
{
	uint64_t removed = 0;

	ck_assert_int_eq(media_poison_arm(media, 4096, 3 * 4096, false), 0);
	ck_assert_int_eq(media_poison_disarm(media, 4096 + 100, 2 * 4096, &removed), 0);
	ck_assert_uint_eq(removed, 2 * 4096);
	expect_content(4096 + 100, 2 * 4096);
	expect_bad(4000, 200, 4096);
	expect_bad(3 * 4096, 4096, 3 * 4096 + 100);
}
END_TEST

START_TEST(latent_and_notified_ranges_are_told_apart)
{
	struct media_poison *list;
	size_t count;

	ck_assert_int_eq(media_poison_arm(media, 100, 50, true), 0);
	ck_assert_int_eq(media_poison_arm(media, 150, 50, false), 0);
	ck_assert_int_eq(media_poison_arm(media, 200, 50, false), 0);
	ck_assert_int_eq(media_poison_list(media, &list, &count), 0);
	ck_assert_uint_eq(count, 2);
	ck_assert_uint_eq(list[0].offset, 100);
	ck_assert_uint_eq(list[0].length, 50);
	ck_assert(list[0].latent);
	ck_assert_uint_eq(list[1].offset, 150);
	ck_assert_uint_eq(list[1].length, 100);
	ck_assert(!list[1].latent);
	free(list);
	ck_assert(!media_bad_any(media));
	ck_assert_int_eq(media_poison_arm(media, 100, 50, false), 0);
	ck_assert_int_eq(media_poison_list(media, &list, &count), 0);
	ck_assert_uint_eq(count, 1);
	free(list);
}
END_TEST

START_TEST(arming_checks_its_range)
{
	uint64_t removed;

	ck_assert_int_eq(media_poison_arm(media, 0, 0, false), -EINVAL);
	ck_assert_int_eq(media_poison_arm(media, IMAGE_BYTES, 1, false), -ERANGE);
	ck_assert_int_eq(media_poison_arm(media, 1, UINT64_MAX, false), -ERANGE);
	ck_assert_int_eq(media_poison_disarm(media, 1, IMAGE_BYTES, &removed), -ERANGE);
	ck_assert_int_eq(media_clear(media, 1, 512), -EINVAL);
	ck_assert_int_eq(media_clear(media, IMAGE_BYTES, 512), -ERANGE);
}
END_TEST

START_TEST(clearing_makes_the_range_writable_again)
{
	unsigned char in[512];

	memset(in, 0x77, sizeof(in));
	ck_assert_int_eq(media_poison_arm(media, 1024, 512, false), 0);
	expect_bad(1024, 512, 1024);
	ck_assert_int_eq(media_clear(media, 1024, 512), 0);
	ck_assert(!media_bad_any(media));
	ck_assert_int_eq(media_write(media, 1024, in, 512, NULL), 0);
	memcpy(content + 1024, in, 512);
	expect_content(0, 8192);
	ck_assert_uint_eq(sigbus_count(), 1);
}
END_TEST

START_TEST(what_is_armed_is_there_at_the_next_open)
{
	struct media_poison *list;
	size_t count;

	ck_assert_int_eq(media_poison_load(media, uuid_a, &why), 0);
	ck_assert_int_eq(media_poison_arm(media, 5000, 7, false), 0);
	ck_assert_int_eq(media_poison_arm(media, 90000, 4096, true), 0);
	reopen();
	expect_content(0, sizeof(content));
	ck_assert_int_eq(media_poison_load(media, uuid_a, &why), 0);
	ck_assert_int_eq(media_poison_list(media, &list, &count), 0);
	ck_assert_uint_eq(count, 2);
	ck_assert(list[1].latent);
	free(list);
	expect_bad(0, sizeof(content), 5000);
	expect_bad(89000, 5000, 90000);
}
END_TEST

START_TEST(poison_of_another_filesystem_is_ignored)
{
	ck_assert_int_eq(media_poison_load(media, uuid_a, &why), 0);
	ck_assert_int_eq(media_poison_arm(media, 5000, 7, false), 0);
	reopen();
	ck_assert_int_eq(media_poison_load(media, uuid_b, &why), 0);
	expect_content(0, sizeof(content));
	reopen();
	ck_assert_int_eq(media_poison_load(media, NULL, &why), 0);
	expect_bad(0, 8192, 5000);
	ck_assert_int_eq(media_poison_tie(media, uuid_b, &why), 0);
	reopen();
	ck_assert_int_eq(media_poison_load(media, uuid_b, &why), 0);
	expect_bad(0, 8192, 5000);
}
END_TEST

static void write_list(const char *text, size_t length)
{
	int fd = open(list_file, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, length), (ssize_t)length);
	close(fd);
}

static void expect_damaged(const char *text, size_t length, const char *word)
{
	struct media_poison *list;
	size_t count;

	write_list(text, length);
	ck_assert_msg(media_poison_load(media, uuid_a, &why) == -EUCLEAN, "\"%s\" was taken", text);
	ck_assert_msg(strstr(why.text, word) != NULL, "\"%s\" lacks \"%s\"", why.text, word);
	ck_assert_ptr_null(strchr(why.text, '\n'));
	ck_assert_int_eq(media_poison_list(media, &list, &count), 0);
	ck_assert_uint_eq(count, 0);
	free(list);
}

#define TITLE "# mendfs poison for " UUID_A_TEXT "\n"

START_TEST(a_hostile_list_is_refused_with_the_line)
{
	static const struct {
		const char *text;
		const char *word;
	} cases[] = {
	    {"", "line 1"},
	    {"garbage\n", "line 1"},
	    {"# mendfs poison for somebody\n", "line 1"},
	    {"100 5\n", "line 1"},
	    {TITLE "100\n", "line 2"},
	    {TITLE "100 5 6\n", "line 2"},
	    {TITLE "100 5 latently\n", "line 2"},
	    {TITLE "\n# fine\n-1 5\n", "line 4"},
	    {TITLE "+1 5\n", "line 2"},
	    {TITLE "0x10 5\n", "line 2"},
	    {TITLE "1e3 5\n", "line 2"},
	    {TITLE "100 0\n", "length 0"},
	    {TITLE "99999999999999999999999 5\n", "line 2"},
	    {TITLE "18446744073709551615 18446744073709551615\n", "beyond the end"},
	    {TITLE "1 18446744073709551615\n", "beyond the end"},
	    {TITLE "100 5\n4194304 1\n", "line 3"},
	    {TITLE "100 5 latent\n4194303 2\n", "line 3"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		expect_damaged(cases[i].text, strlen(cases[i].text), cases[i].word);
	expect_damaged(TITLE "100 5\0 7\n", sizeof(TITLE "100 5\0 7\n") - 1, "zero byte");
}
END_TEST

START_TEST(a_list_without_a_last_newline_and_with_overlaps_is_taken)
{
	const char *text = TITLE "# note\n\n300 100\n100 300 latent\n50 10";
	struct media_poison *list;
	size_t count;

	write_list(text, strlen(text));
	ck_assert_int_eq(media_poison_load(media, uuid_a, &why), 0);
	ck_assert_int_eq(media_poison_list(media, &list, &count), 0);
	ck_assert_uint_ge(count, 2);
	ck_assert_uint_eq(list[0].offset, 50);
	free(list);
	expect_bad(40, 100, 50);
}
END_TEST

START_TEST(endless_lists_and_odd_files_are_refused)
{
	FILE *stream = fopen(list_file, "w");

	fprintf(stream, TITLE);
	for (unsigned i = 0; i <= POISON_FILE_RANGES; i++)
		fprintf(stream, "%u 1\n", 2 * (POISON_FILE_RANGES - i));
	fclose(stream);
	ck_assert_int_eq(media_poison_load(media, uuid_a, &why), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(why.text, "too many"));
	ck_assert_int_eq(truncate(list_file, INT64_C(1) << 40), 0);
	ck_assert_int_eq(media_poison_load(media, uuid_a, &why), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(why.text, "too long"));
	unlink(list_file);
	ck_assert_int_eq(mkfifo(list_file, 0600), 0);
	ck_assert_int_eq(media_poison_load(media, uuid_a, &why), -EUCLEAN);
	unlink(list_file);
	ck_assert_int_eq(symlink("/etc/passwd", list_file), 0);
	ck_assert_int_lt(media_poison_load(media, uuid_a, &why), 0);
	expect_content(0, sizeof(content));
}
END_TEST

START_TEST(a_list_that_cannot_be_written_arms_nothing)
{
	char blocker[340];

	snprintf(blocker, sizeof(blocker), "%s.tmp", list_file);
	ck_assert_int_eq(mkdir(blocker, 0700), 0);
	ck_assert_int_lt(media_poison_arm(media, 100, 5, false), 0);
	expect_content(0, sizeof(content));
	ck_assert_int_eq(rmdir(blocker), 0);
	ck_assert_int_eq(media_poison_arm(media, 100, 5, false), 0);
	expect_bad(0, 1000, 100);
}
END_TEST

START_TEST(a_readonly_mapping_can_be_armed)
{
	struct media_options options = {.readonly = true};

	media_close(media);
	ck_assert_int_eq(media_open(image, &options, &why, &media), 0);
	media_set_fault_handler(media, record_fault, NULL);
	ck_assert_int_eq(media_poison_arm(media, 9000, 1, true), 0);
	expect_content(8192, 9000 - 8192);
	expect_bad(0, sizeof(content), 9000);
}
END_TEST

START_TEST(bytes_stored_before_arming_are_durable_with_the_next_sync)
{
	unsigned char byte = 0x42, out = 0;
	int fd;

	ck_assert_int_eq(media_write(media, 70000, &byte, 1, NULL), 0);
	ck_assert_int_eq(media_poison_arm(media, 70001, 1, false), 0);
	ck_assert_int_eq(media_write(media, 70002, &byte, 1, NULL), 0);
	ck_assert_int_eq(media_sync(media), 0);
	fd = open(image, O_RDONLY);
	ck_assert_int_eq(pread(fd, &out, 1, 70000), 1);
	ck_assert_uint_eq(out, 0x42);
	ck_assert_int_eq(pread(fd, &out, 1, 70002), 1);
	ck_assert_uint_eq(out, 0x42);
	close(fd);
}
END_TEST

START_TEST(random_arming_agrees_with_a_byte_map)
{
	static unsigned char armed[65536], out[65536];
	unsigned seed = 99;
	uint64_t removed;

	for (int step = 0; step < 400; step++) {
		devoff_t a = (unsigned)rand_r(&seed) % 65535, bad = 0;
		uint64_t n = 1 + (unsigned)rand_r(&seed) % (step % 2 ? 40 : 9000);
		uint64_t first = 0;
		int error;

		n = min_u64(n, 65536 - a);
		if (rand_r(&seed) % 3) {
			ck_assert_int_eq(media_poison_arm(media, a, n, step % 5 == 0), 0);
			memset(armed + a, 1, n);
		} else {
			ck_assert_int_eq(media_poison_disarm(media, 0, 65536, &removed), 0);
			memset(armed, 0, sizeof(armed));
		}
		a = (unsigned)rand_r(&seed) % 65536;
		for (first = a; first < 65536 && !armed[first];)
			first++;
		error = media_read(media, a, out, 65536 - a, &bad);
		ck_assert_int_eq(error, first < 65536 ? -EIO : 0);
		if (error)
			ck_assert_uint_eq(bad, first);
		ck_assert_int_eq(memcmp(out, content + a, first - a), 0);
		ck_assert_int_eq(media_bad_remove(media, 0, 65536), 0);
	}
}
END_TEST

static atomic_bool stop;

static void *read_all_the_time(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	unsigned char out[8192];
	uintptr_t wrong = 0;

	while (!atomic_load(&stop)) {
		devoff_t at = (unsigned)rand_r(&seed) % (256 << 10), bad = at + sizeof(out);

		if (media_read(media, at, out, sizeof(out), &bad) == 0)
			bad = at + sizeof(out);
		wrong += memcmp(out, content + at, bad - at) != 0;
	}
	return (void *)wrong;
}

START_TEST(readers_race_with_arming_and_see_either)
{
	pthread_t threads[3];
	unsigned seed = 4;
	uint64_t removed;
	void *wrong;

	for (uintptr_t i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, read_all_the_time, (void *)(i + 1));
	for (int i = 0; i < 300; i++) {
		devoff_t at = (unsigned)rand_r(&seed) % (250 << 10);

		ck_assert_int_eq(media_poison_arm(media, at, 1 + (unsigned)i % 5000, i % 2), 0);
		usleep(200);
		ck_assert_int_eq(media_poison_disarm(media, 0, IMAGE_BYTES, &removed), 0);
		ck_assert_int_eq(media_bad_remove(media, 0, IMAGE_BYTES), 0);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 3; i++) {
		pthread_join(threads[i], &wrong);
		ck_assert_ptr_null(wrong);
	}
	/* A reader may have learned of poison after it was lifted. */
	ck_assert_int_eq(media_bad_remove(media, 0, IMAGE_BYTES), 0);
	expect_content(0, sizeof(content));
}
END_TEST

static void *read_one_place(void *arg)
{
	unsigned char out[512];
	devoff_t bad;

	return (void *)(uintptr_t)(media_read(media, 12288, out, sizeof(out), &bad) == -EIO);
}

START_TEST(many_readers_of_one_bad_unit_report_it_once)
{
	pthread_t threads[8];
	void *failed;

	ck_assert_int_eq(media_poison_arm(media, 12288, 512, true), 0);
	for (int i = 0; i < 8; i++)
		pthread_create(&threads[i], NULL, read_one_place, NULL);
	for (int i = 0; i < 8; i++) {
		pthread_join(threads[i], &failed);
		ck_assert_ptr_nonnull(failed);
	}
	ck_assert_int_eq(atomic_load(&seen.count), 1);
	ck_assert_uint_eq(sigbus_count(), 1);
}
END_TEST

static void add_tests(TCase *tc)
{
	tcase_add_test(tc, one_armed_byte_fails_at_exactly_that_byte);
	tcase_add_test(tc, known_poison_is_not_touched_a_second_time);
	tcase_add_test(tc, an_armed_page_is_consumed_sector_by_sector);
	tcase_add_test(tc, a_store_to_an_armed_byte_fails_and_beside_it_succeeds);
	tcase_add_test(tc, disarming_gives_the_content_back);
	tcase_add_test(tc, disarming_part_of_a_page_leaves_the_rest_armed);
	tcase_add_test(tc, latent_and_notified_ranges_are_told_apart);
	tcase_add_test(tc, arming_checks_its_range);
	tcase_add_test(tc, clearing_makes_the_range_writable_again);
	tcase_add_test(tc, what_is_armed_is_there_at_the_next_open);
	tcase_add_test(tc, poison_of_another_filesystem_is_ignored);
	tcase_add_test(tc, a_hostile_list_is_refused_with_the_line);
	tcase_add_test(tc, a_list_without_a_last_newline_and_with_overlaps_is_taken);
	tcase_add_test(tc, endless_lists_and_odd_files_are_refused);
	tcase_add_test(tc, a_list_that_cannot_be_written_arms_nothing);
	tcase_add_test(tc, a_readonly_mapping_can_be_armed);
	tcase_add_test(tc, bytes_stored_before_arming_are_durable_with_the_next_sync);
	tcase_add_test(tc, random_arming_agrees_with_a_byte_map);
	tcase_add_test(tc, readers_race_with_arming_and_see_either);
	tcase_add_test(tc, many_readers_of_one_bad_unit_report_it_once);
}

int main(void)
{
	Suite *suite = suite_create("poison");
	TCase *tc = tcase_create("poison");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	add_tests(tc);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
