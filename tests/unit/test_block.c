/* On a loop device, which goes away by itself (autoclear) with the process that made it. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "media/claim.h"
#include "media/media.h"
#include "media/media_types.h"

#define DEVICE_BYTES (8u << 20)

static char backing[300], device[64];
static int loop_fd = -1;
static struct media *media;
static struct why why;

static struct {
	int count;
	struct media_fault last;
} seen;

static void record_fault(void *arg, const struct media_fault *fault)
{
	seen.count++;
	seen.last = *fault;
}

/* 0 or -errno. */
static int loop_attach(uint32_t flags)
{
	struct loop_config config = {.block_size = 512, .info.lo_flags = LO_FLAGS_AUTOCLEAR | flags};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), error = -EBUSY;

	config.fd = (uint32_t)open(backing, (flags & LO_FLAGS_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (control < 0 || (int)config.fd < 0)
		return -errno;
	/* Somebody else may get the free one first. */
	for (int i = 0; i < 20 && error == -EBUSY; i++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);

		snprintf(device, sizeof(device), "/dev/loop%d", number);
		loop_fd = number < 0 ? -1 : open(device, (flags & LO_FLAGS_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC);
		error = loop_fd < 0 || ioctl(loop_fd, LOOP_CONFIGURE, &config) < 0 ? -errno : 0;
		if (error && loop_fd >= 0)
			close(loop_fd);
	}
	close((int)config.fd);
	close(control);
	return error;
}

static int open_device(bool readonly)
{
	struct media_options options = {.readonly = readonly, .claim = true};

	return media_open(device, &options, &why, &media);
}

static bool make_backing(void)
{
	const char *base = getenv("TMPDIR");
	int fd;

	if (!base)
		base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	snprintf(backing, sizeof(backing), "%s/mendfs-block-XXXXXX", base);
	fd = mkstemp(backing);
	if (fd < 0 || ftruncate(fd, DEVICE_BYTES) < 0)
		return false;
	close(fd);
	return true;
}

static void setup(void)
{
	ck_assert(make_backing());
	ck_assert_int_eq(loop_attach(0), 0);
	memset(&seen, 0, sizeof(seen));
	ck_assert_msg(open_device(false) == 0, "%s", why.text);
	media_set_fault_handler(media, record_fault, NULL);
}

static void teardown(void)
{
	if (media)
		media_close(media);
	media = NULL;
	close(loop_fd);
	unlink(backing);
}

static void read_backing(off_t at, void *to, size_t length)
{
	int fd = open(backing, O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, to, length, at), (ssize_t)length);
	close(fd);
}

START_TEST(what_was_synced_is_on_the_device_and_what_it_is_is_said)
{
	char bytes[] = "through the mapping", found[sizeof(bytes)];

	ck_assert(media_is_block(media) && !media_is_device(media));
	ck_assert_uint_eq(media_size(media), DEVICE_BYTES);
	ck_assert_uint_eq(media_alignment(media), BLOCK_BYTES);
	ck_assert_int_eq(media_granularity(media), MEDIA_PAGE);
	ck_assert_int_eq(media_write(media, 3 * BLOCK_BYTES + 5, bytes, sizeof(bytes), NULL), 0);
	ck_assert_int_eq(media_zero(media, 5 * BLOCK_BYTES, BLOCK_BYTES, NULL), 0);
	ck_assert_int_eq(media_sync(media), 0);
	read_backing(3 * BLOCK_BYTES + 5, found, sizeof(found));
	ck_assert_str_eq(found, bytes);
	memset(found, 0, sizeof(found));
	ck_assert_int_eq(media_read(media, 3 * BLOCK_BYTES + 5, found, sizeof(found), NULL), 0);
	ck_assert_str_eq(found, bytes);
	ck_assert_int_eq(media_read(media, DEVICE_BYTES - 4, found, 5, NULL), -ERANGE);
	ck_assert_int_eq(media_discard(media, 0, BLOCK_BYTES), -ENOTSUP);
}
END_TEST

START_TEST(the_kernel_keeps_others_away_until_it_is_handed_over)
{
	int fd = open(device, O_RDONLY | O_EXCL | O_CLOEXEC);

	ck_assert(fd < 0 && errno == EBUSY);
	media_hand_over(media);
	fd = open(device, O_RDONLY | O_EXCL | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	close(fd);
}
END_TEST

START_TEST(what_the_kernel_uses_is_refused)
{
	int fd;

	media_close(media);
	media = NULL;
	fd = open(device, O_RDONLY | O_EXCL | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(open_device(false), -EBUSY);
	ck_assert_ptr_nonnull(strstr(why.text, "in use by the kernel"));
	ck_assert_int_eq(open_device(true), -EBUSY);
	close(fd);
	ck_assert_int_eq(open_device(true), 0);
}
END_TEST

START_TEST(a_second_node_of_the_device_is_the_same_device)
{
	struct media_options options = {.claim = true};
	struct media *second;
	char node[320];
	struct stat st;

	ck_assert_int_eq(stat(device, &st), 0);
	snprintf(node, sizeof(node), "%s.node", backing);
	ck_assert_int_eq(mknod(node, S_IFBLK | 0600, st.st_rdev), 0);
	ck_assert_int_eq(media_open(node, &options, &why, &second), -EBUSY);
	ck_assert_ptr_nonnull(strstr(why.text, "in use by process"));
	unlink(node);
}
END_TEST

/* Behind the end of its file a loop device reads with EIO and writes as before. */
START_TEST(an_io_error_is_poison_of_its_page_and_an_overwrite_heals)
{
	static char block[BLOCK_BYTES], found[2 * BLOCK_BYTES];
	const devoff_t at = DEVICE_BYTES / 2;
	devoff_t bad = 0;

	memset(block, 'x', sizeof(block));
	ck_assert_int_eq(truncate(backing, DEVICE_BYTES / 2), 0);
	ck_assert_int_eq(media_read(media, at - BLOCK_BYTES, found, sizeof(found), &bad), -EIO);
	ck_assert_uint_eq(bad, at);
	ck_assert_int_eq(seen.count, 1);
	ck_assert_int_eq(seen.last.kind, MEDIA_FAULT_POISON);
	ck_assert_uint_eq(seen.last.offset, at);
	ck_assert_uint_eq(seen.last.length, BLOCK_BYTES);
	ck_assert_int_eq(media_write(media, at, block, sizeof(block), &bad), -EIO);
	ck_assert_int_eq(media_clear(media, at, BLOCK_BYTES), 0);
	ck_assert_int_eq(media_write(media, at, block, sizeof(block), &bad), 0);
	ck_assert_int_eq(media_sync(media), 0);
	read_backing((off_t)at, found, BLOCK_BYTES);
	ck_assert_int_eq(memcmp(found, block, BLOCK_BYTES), 0);
	ck_assert_int_eq(seen.count, 1);
}
END_TEST

START_TEST(injected_poison_is_kept_nowhere_and_lasts_as_long_as_the_mapping)
{
	char name[80], byte;
	devoff_t bad = 0;
	uint64_t removed;

	ck_assert_int_eq(media_write(media, 70000, "z", 1, NULL), 0);
	ck_assert_int_eq(media_poison_arm(media, 70000, 1, true), 0);
	ck_assert_int_eq(media_poison_tie(media, (const uint8_t *)"0123456789abcdef", &why), 0);
	ck_assert_int_eq(media_poison_load(media, NULL, &why), 0);
	snprintf(name, sizeof(name), "%s.poison", device);
	ck_assert_int_ne(access(name, F_OK), 0);
	ck_assert_int_eq(media_read(media, 70001, &byte, 1, &bad), 0);
	ck_assert_int_eq(media_read(media, 70000, &byte, 1, &bad), -EIO);
	ck_assert_uint_eq(bad, 70000);
	ck_assert_int_eq(media_poison_disarm(media, 70000, 1, &removed), 0);
	ck_assert_int_eq(media_bad_remove(media, round_down_u64(70000, 512), 512), 0);
	ck_assert_int_eq(media_read(media, 70000, &byte, 1, &bad), 0);
	ck_assert_int_eq(byte, 'z');
	ck_assert_int_eq(media_sync(media), 0);
	read_backing(70000, &byte, 1);
	ck_assert_int_eq(byte, 'z');
}
END_TEST

START_TEST(a_device_that_was_made_larger_is_used_further)
{
	char byte = 'g';

	ck_assert_int_eq(media_grow(media, 2 * DEVICE_BYTES, &why), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(why.text, "losetup -c"));
	ck_assert_int_eq(truncate(backing, 2 * DEVICE_BYTES + 1000), 0);
	ck_assert_int_eq(ioctl(loop_fd, LOOP_SET_CAPACITY, 0), 0);
	ck_assert_int_eq(media_write(media, 2 * DEVICE_BYTES - 1, &byte, 1, NULL), -ERANGE);
	ck_assert_int_eq(media_grow(media, 0, &why), 0);
	ck_assert_uint_eq(media_size(media), 2 * DEVICE_BYTES);
	ck_assert_int_eq(media_write(media, 2 * DEVICE_BYTES - 1, &byte, 1, NULL), 0);
	ck_assert_int_eq(media_sync(media), 0);
	byte = 0;
	read_backing(2 * DEVICE_BYTES - 1, &byte, 1);
	ck_assert_int_eq(byte, 'g');
	ck_assert_int_eq(media_grow(media, DEVICE_BYTES, &why), -EINVAL);
}
END_TEST

START_TEST(a_readonly_device_is_read_only)
{
	char byte = 1;

	media_close(media);
	media = NULL;
	close(loop_fd);
	ck_assert_int_eq(loop_attach(LO_FLAGS_READ_ONLY), 0);
	ck_assert_int_eq(open_device(false), -EROFS);
	ck_assert_ptr_nonnull(strstr(why.text, "-o ro"));
	ck_assert_int_eq(open_device(true), 0);
	ck_assert_int_eq(media_read(media, 0, &byte, 1, NULL), 0);
	ck_assert_int_eq(media_write(media, 0, &byte, 1, NULL), -EROFS);
	ck_assert_int_eq(media_sync(media), 0);
}
END_TEST

START_TEST(each_attachment_is_told_from_the_others)
{
	uint64_t first = media_attachment(media);

	ck_assert_uint_ne(first, 0);
	media_close(media);
	ck_assert_int_eq(open_device(false), 0);
	ck_assert_uint_eq(media_attachment(media), first);
	media_close(media);
	media = NULL;
	close(loop_fd);
	ck_assert_int_eq(loop_attach(0), 0);
	ck_assert_int_eq(open_device(false), 0);
	ck_assert_uint_ne(media_attachment(media), first);
}
END_TEST

static bool can_loop(void)
{
	int error = geteuid() ? -EPERM : make_backing() ? loop_attach(0) : -ENOENT;

	if (error)
		printf("SKIP: no loop device can be made here: %s\n", strerror(-error));
	else
		close(loop_fd);
	if (backing[0])
		unlink(backing);
	return error == 0;
}

int main(void)
{
	TCase *tc = tcase_create("block");
	Suite *suite = suite_create("block");
	SRunner *runner;
	int failed;

	if (!can_loop())
		return 77;
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, what_was_synced_is_on_the_device_and_what_it_is_is_said);
	tcase_add_test(tc, the_kernel_keeps_others_away_until_it_is_handed_over);
	tcase_add_test(tc, what_the_kernel_uses_is_refused);
	tcase_add_test(tc, a_second_node_of_the_device_is_the_same_device);
	tcase_add_test(tc, an_io_error_is_poison_of_its_page_and_an_overwrite_heals);
	tcase_add_test(tc, injected_poison_is_kept_nowhere_and_lasts_as_long_as_the_mapping);
	tcase_add_test(tc, a_device_that_was_made_larger_is_used_further);
	tcase_add_test(tc, a_readonly_device_is_read_only);
	tcase_add_test(tc, each_attachment_is_told_from_the_others);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
