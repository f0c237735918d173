#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "media/device.h"
#include "media/guard.h"
#include "media/media.h"
#include "media/media_types.h"
#include "tests/support/image.h"

#define IMAGE_BYTES (8u << 20)

static char directory[256];
static char image[300];
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

static bool make_directory(void)
{
	const char *base = getenv("TMPDIR");

	if (!base)
		base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	snprintf(directory, sizeof(directory), "%s/mendfs-media-XXXXXX", base);
	if (!mkdtemp(directory))
		return false;
	snprintf(image, sizeof(image), "%s/image", directory);
	return true;
}

static int open_with(bool readonly, uint64_t create_bytes, bool resize)
{
	struct media_options options = {
	    .readonly = readonly, .create_bytes = create_bytes, .resize = resize};

	return media_open(image, &options, &why, &media);
}

static void setup(void)
{
	ck_assert(make_directory());
	memset(&seen, 0, sizeof(seen));
	ck_assert_int_eq(open_with(false, IMAGE_BYTES, false), 0);
	media_set_fault_handler(media, record_fault, NULL);
}

static void teardown(void)
{
	if (media)
		media_close(media);
	media = NULL;
	image_remove(image);
	rmdir(directory);
}

static void fill(unsigned char *buffer, size_t length, unsigned seed)
{
	for (size_t i = 0; i < length; i++)
		buffer[i] = (unsigned char)(rand_r(&seed) >> 4);
}

static long resident_kib(void)
{
	char line[256];
	long kib = -1;
	FILE *file = fopen("/proc/self/smaps_rollup", "r");

	ck_assert_ptr_nonnull(file);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "Rss: %ld", &kib) == 1)
			break;
	fclose(file);
	return kib;
}

START_TEST(letting_go_keeps_content_and_gives_memory_back)
{
	uint8_t block[BLOCK_BYTES];
	long before;

	memset(block, 0x5a, sizeof(block));
	for (devoff_t at = 0; at < IMAGE_BYTES; at += sizeof(block))
		ck_assert_int_eq(media_write(media, at, block, sizeof(block), NULL), 0);
	before = resident_kib();
	media_let_go(media);
	ck_assert_int_le(resident_kib(), before - (long)(IMAGE_BYTES >> 11));
	ck_assert_int_eq(media_read(media, IMAGE_BYTES - sizeof(block), block, sizeof(block), NULL), 0);
	for (size_t i = 0; i < sizeof(block); i++)
		ck_assert_int_eq(block[i], 0x5a);
}
END_TEST

START_TEST(what_is_written_at_any_offset_is_read_back)
{
	static unsigned char model[1 << 20], out[1 << 20], in[70000];
	unsigned seed = 7;

	fill(model, sizeof(model), 1);
	ck_assert_int_eq(media_write(media, 4096, model, sizeof(model), NULL), 0);
	for (int i = 0; i < 3000; i++) {
		size_t length = (size_t)rand_r(&seed) % (i % 2 ? 200 : sizeof(in));
		size_t offset = (size_t)rand_r(&seed) % (sizeof(model) - length);

		fill(in, length, (unsigned)i);
		ck_assert_int_eq(media_write(media, 4096 + offset, in, length, NULL), 0);
		memcpy(model + offset, in, length);
		ck_assert_int_eq(media_read(media, 4096 + offset, out, length, NULL), 0);
		ck_assert_int_eq(memcmp(out, in, length), 0);
	}
	ck_assert_int_eq(media_read(media, 4096, out, sizeof(out), NULL), 0);
	ck_assert_int_eq(memcmp(out, model, sizeof(out)), 0);
}
END_TEST

static void *store_elsewhere(void *arg)
{
	int *errors = arg;

	errors[0] = media_write(media, 0, "b", 1, NULL);
	errors[1] = media_zero(media, 4096, 4096, NULL);
	errors[2] = media_clear(media, 8192, 512);
	errors[3] = media_discard(media, 8192, 4096);
	return NULL;
}

static void expect_stores_elsewhere(int error)
{
	int errors[4];
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, store_elsewhere, errors), 0);
	pthread_join(thread, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(errors); i++)
		ck_assert_int_eq(errors[i], error);
}

START_TEST(who_holds_the_medium_stores_alone_and_a_stop_is_for_all)
{
	char byte;

	expect_stores_elsewhere(0);
	media_hold(media);
	expect_stores_elsewhere(-EIO);
	ck_assert_int_eq(media_write(media, 1, "a", 1, NULL), 0);
	ck_assert_int_eq(media_sync(media), 0);
	media_stop(media);
	expect_stores_elsewhere(-EIO);
	ck_assert_int_eq(media_write(media, 1, "c", 1, NULL), -EIO);
	ck_assert_int_eq(media_sync(media), -EIO);
	ck_assert_int_eq(media_grow(media, 2 * IMAGE_BYTES, &why), -EROFS);
	ck_assert_int_eq(media_read(media, 1, &byte, 1, NULL), 0);
	ck_assert_int_eq(byte, 'a');
}
END_TEST

static struct {
	sem_t entered;
	atomic_bool stopped;
	bool saw_the_stop; /* while its store was under way */
} slow;

/* Is under way until the stop is through, or long enough for one that does not wait. */
static size_t slow_store(struct media *m, devoff_t offset, const void *from, size_t length, struct guard_fault *fault)
{
	sem_post(&slow.entered);
	for (unsigned ms = 0; ms < 500 && !slow.saw_the_stop; ms++) {
		usleep(1000);
		slow.saw_the_stop = atomic_load(&slow.stopped);
	}
	return media_backend_mapped.store(m, offset, from, length, fault);
}

static void *store_slowly(void *arg)
{
	*(int *)arg = media_write(media, 0, "a", 1, NULL);
	return NULL;
}

START_TEST(a_stop_waits_for_stores_under_way)
{
	struct media_backend slowly = media_backend_mapped;
	pthread_t thread;
	int stored = -1;
	char byte;

	slowly.store = slow_store;
	media->backend = &slowly;
	sem_init(&slow.entered, 0, 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, store_slowly, &stored), 0);
	while (sem_wait(&slow.entered))
		;
	media_stop(media);
	atomic_store(&slow.stopped, true);
	pthread_join(thread, NULL);
	ck_assert_int_eq(stored, 0);
	ck_assert(!slow.saw_the_stop);
	ck_assert_int_eq(media_read(media, 0, &byte, 1, NULL), 0);
	ck_assert_int_eq(byte, 'a');
	media->backend = &media_backend_mapped;
}
END_TEST

START_TEST(zero_clears_exactly_the_range)
{
	static unsigned char out[600000];

	memset(out, 0xff, sizeof(out));
	ck_assert_int_eq(media_write(media, 0, out, sizeof(out), NULL), 0);
	ck_assert_int_eq(media_zero(media, 777, 500001, NULL), 0);
	ck_assert_int_eq(media_read(media, 0, out, sizeof(out), NULL), 0);
	for (size_t i = 0; i < sizeof(out); i++)
		ck_assert_uint_eq(out[i], i >= 777 && i < 777 + 500001 ? 0 : 0xff);
}
END_TEST

START_TEST(a_line_is_stored_whole_and_only_aligned)
{
	unsigned char line[64], out[192];

	fill(line, sizeof(line), 3);
	ck_assert_int_eq(media_write_line(media, 64, line, NULL), 0);
	ck_assert_int_eq(media_read(media, 0, out, sizeof(out), NULL), 0);
	ck_assert_int_eq(memcmp(out + 64, line, 64), 0);
	ck_assert_uint_eq(out[63], 0);
	ck_assert_uint_eq(out[128], 0);
	ck_assert_int_eq(media_write_line(media, 8, line, NULL), -EINVAL);
}
END_TEST

START_TEST(ranges_past_the_end_are_refused)
{
	unsigned char byte = 1;

	ck_assert_int_eq(media_read(media, IMAGE_BYTES, &byte, 1, NULL), -ERANGE);
	ck_assert_int_eq(media_write(media, IMAGE_BYTES - 1, "ab", 2, NULL), -ERANGE);
	ck_assert_int_eq(media_zero(media, 4096, UINT64_MAX, NULL), -ERANGE);
	ck_assert_int_eq(media_read(media, UINT64_MAX, &byte, 1, NULL), -ERANGE);
	ck_assert_int_eq(media_read(media, IMAGE_BYTES, &byte, 0, NULL), 0);
}
END_TEST

START_TEST(synced_bytes_are_in_the_file_after_a_close)
{
	char text[] = "here to stay", out[sizeof(text)];
	int fd;

	ck_assert_int_eq(media_write(media, IMAGE_BYTES - sizeof(text), text, sizeof(text), NULL),
			 0);
	media_drain(media);
	ck_assert_int_eq(media_sync(media), 0);
	ck_assert_int_eq(media_close(media), 0);
	media = NULL;
	fd = open(image, O_RDONLY);
	ck_assert_int_eq(pread(fd, out, sizeof(out), IMAGE_BYTES - sizeof(text)), sizeof(out));
	close(fd);
	ck_assert_str_eq(out, text);
}
END_TEST

START_TEST(a_readonly_mapping_reads_and_refuses_writes)
{
	unsigned char byte = 9;

	ck_assert_int_eq(media_write(media, 5, &byte, 1, NULL), 0);
	ck_assert_int_eq(media_close(media), 0);
	ck_assert_int_eq(open_with(true, 0, false), 0);
	byte = 0;
	ck_assert_int_eq(media_read(media, 5, &byte, 1, NULL), 0);
	ck_assert_uint_eq(byte, 9);
	ck_assert_int_eq(media_write(media, 5, &byte, 1, NULL), -EROFS);
	ck_assert_int_eq(media_zero(media, 5, 1, NULL), -EROFS);
	ck_assert_int_eq(media_write_line(media, 64, &byte, NULL), -EROFS);
	ck_assert_int_eq(media_clear(media, 0, 512), -EROFS);
	ck_assert_int_eq(media_sync(media), 0);
}
END_TEST

START_TEST(a_known_bad_range_is_never_touched_and_ends_the_read)
{
	unsigned char out[4096], in[4096];
	uint64_t bad_length;
	devoff_t bad = 0;

	fill(in, sizeof(in), 5);
	ck_assert_int_eq(media_write(media, 0, in, sizeof(in), NULL), 0);
	ck_assert(!media_bad_any(media));
	ck_assert_int_eq(media_bad_add(media, 1025, 1), 0);
	ck_assert(media_bad_any(media));
	ck_assert(media_bad_find(media, 0, 4096, &bad, &bad_length));
	ck_assert_uint_eq(bad, 1024);
	ck_assert_uint_eq(bad_length, 512);
	memset(out, 0, sizeof(out));
	ck_assert_int_eq(media_read(media, 1, out, 4000, &bad), -EIO);
	ck_assert_uint_eq(bad, 1024);
	ck_assert_int_eq(memcmp(out, in + 1, 1023), 0);
	ck_assert_uint_eq(out[1023], 0);
	ck_assert_int_eq(media_read(media, 1536, out, 2560, NULL), 0);
	ck_assert_int_eq(media_write(media, 1100, in, 1, &bad), -EIO);
	ck_assert_uint_eq(bad, 1100);
	ck_assert_int_eq(media_bad_remove(media, 1024, 512), 0);
	ck_assert(!media_bad_any(media));
	ck_assert_int_eq(media_read(media, 0, out, 4096, NULL), 0);
	ck_assert_int_eq(memcmp(out, in, 4096), 0);
	ck_assert_int_eq(seen.count, 0);
}
END_TEST

START_TEST(a_shrunk_file_loses_what_is_missing_and_says_so_once)
{
	unsigned char out[8192];
	devoff_t bad = 0;
	struct media_counts counts;

	ck_assert_int_eq(truncate(image, 1 << 20), 0);
	ck_assert_int_eq(media_read(media, (1 << 20) - 4096, out, 8192, &bad), -EIO);
	ck_assert_uint_eq(bad, 1 << 20);
	ck_assert_int_eq(seen.count, 1);
	ck_assert_int_eq(seen.last.kind, MEDIA_FAULT_MISSING);
	ck_assert_uint_eq(seen.last.offset, 1 << 20);
	ck_assert_uint_eq(seen.last.length, IMAGE_BYTES - (1 << 20));
	ck_assert_int_eq(media_write(media, IMAGE_BYTES - 10, out, 10, &bad), -EIO);
	ck_assert_int_eq(seen.count, 1);
	media_counts(media, &counts);
	ck_assert_uint_eq(counts.sigbus, 0);
	ck_assert_int_eq(media_read(media, 0, out, 8192, NULL), 0);
}
END_TEST

START_TEST(counts_add_up)
{
	unsigned char buffer[100] = {0};
	struct media_counts counts;

	ck_assert_int_eq(media_write(media, 0, buffer, 100, NULL), 0);
	ck_assert_int_eq(media_zero(media, 0, 50, NULL), 0);
	ck_assert_int_eq(media_read(media, 0, buffer, 10, NULL), 0);
	media_drain(media);
	ck_assert_int_eq(media_sync(media), 0);
	media_counts(media, &counts);
	ck_assert_uint_eq(counts.writes, 2);
	ck_assert_uint_eq(counts.write_bytes, 150);
	ck_assert_uint_eq(counts.reads, 1);
	ck_assert_uint_eq(counts.read_bytes, 10);
	ck_assert_uint_eq(counts.drains, 1);
	ck_assert_uint_eq(counts.syncs, 1);
}
END_TEST

static unsigned fdatasyncs;
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

int __wrap_fdatasync(int fd)
{
	fdatasyncs++;
	return __real_fdatasync(fd);
}

/* A daemon that was killed leaves dirty pages to the host: what the next one acknowledges as durable may rely on them. */
START_TEST(the_first_sync_reaches_what_an_earlier_process_stored)
{
	fdatasyncs = 0;
	ck_assert_int_eq(media_sync(media), 0);
	ck_assert_uint_eq(fdatasyncs, 1);
	ck_assert_int_eq(media_sync(media), 0);
	ck_assert_uint_eq(fdatasyncs, 1);
}
END_TEST

START_TEST(a_failed_msync_is_remembered)
{
	unsigned char byte = 1;

	/* An address that is no longer mapped is the failure that can be had without a broken disk.
	 */
	ck_assert_int_eq(media_write(media, 0, &byte, 1, NULL), 0);
	ck_assert_int_eq(munmap(media->map.base, 4096), 0);
	ck_assert_int_eq(media_sync(media), -ENOMEM);
	ck_assert_ptr_ne(mmap(media->map.base, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			      media->fd, 0),
			 MAP_FAILED);
	ck_assert_int_eq(media_sync(media), -ENOMEM);
	ck_assert_int_eq(media_close(media), -ENOMEM);
	media = NULL;
}
END_TEST

START_TEST(forced_cacheline_granularity_stores_and_drains)
{
	static unsigned char in[300000], out[300000];

	media_close(media);
	setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	ck_assert_int_eq(open_with(false, 0, false), 0);
	unsetenv("PMEM2_FORCE_GRANULARITY");
	ck_assert_int_eq(media_granularity(media), MEDIA_CACHELINE);
	ck_assert_str_eq(media_granularity_name(MEDIA_CACHELINE), "cacheline");
	fill(in, sizeof(in), 8);
	ck_assert_int_eq(media_write(media, 13, in, sizeof(in), NULL), 0);
	media_drain(media);
	ck_assert_int_eq(media_read(media, 13, out, sizeof(out), NULL), 0);
	ck_assert_int_eq(memcmp(in, out, sizeof(in)), 0);
	ck_assert_int_eq(media_sync(media), 0);
}
END_TEST

START_TEST(an_existing_image_keeps_its_size_unless_resize_is_asked)
{
	media_close(media);
	ck_assert_int_eq(open_with(false, 2 * IMAGE_BYTES, false), 0);
	ck_assert_uint_eq(media_size(media), IMAGE_BYTES);
	media_close(media);
	ck_assert_int_eq(open_with(false, 2 * IMAGE_BYTES, true), 0);
	ck_assert_uint_eq(media_size(media), 2 * IMAGE_BYTES);
	ck_assert_uint_eq(media_alignment(media) % 4096, 0);
	ck_assert(!media_is_device(media));
	ck_assert_str_eq(media_path(media), image);
}
END_TEST

START_TEST(the_real_path_survives_a_change_of_directory)
{
	struct media_options options = {0};

	media_close(media);
	ck_assert_int_eq(chdir(directory), 0);
	ck_assert_int_eq(media_open("image", &options, &why, &media), 0);
	ck_assert_int_eq(chdir("/"), 0);
	ck_assert_str_eq(media_path(media), "image");
	ck_assert_int_eq(access(media_real_path(media), F_OK), 0);
}
END_TEST

static void expect_refusal(const char *path, uint64_t create_bytes, int error, const char *word)
{
	struct media_options options = {.create_bytes = create_bytes};
	struct media *none = NULL;

	ck_assert_int_eq(media_open(path, &options, &why, &none), error);
	ck_assert_ptr_null(none);
	ck_assert_msg(strstr(why.text, word) != NULL, "\"%s\" lacks \"%s\"", why.text, word);
	ck_assert_ptr_null(strchr(why.text, '\n'));
}

START_TEST(what_cannot_be_used_is_refused_with_a_reason)
{
	char path[320];

	expect_refusal(directory, 0, -ENOTSUP, "directory");
	expect_refusal("/dev/null", 0, -ENOTSUP, "device-dax");
	snprintf(path, sizeof(path), "%s/none", directory);
	expect_refusal(path, 0, -ENOENT, "No such file");
	expect_refusal(path, 100, -EINVAL, "size");
	ck_assert_int_eq(access(path, F_OK), -1);
	expect_refusal(path, INT64_MAX, -EFBIG, "none"); /* by us or by the host */
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	expect_refusal(path, 0, -ENOTSUP, "neither");
	unlink(path);
	ck_assert_int_eq(close(creat(path, 0600)), 0);
	expect_refusal(path, 0, -EINVAL, "less than one block");
	unlink(path);
}
END_TEST

/* ThreadSanitizer leaves a process too little address space for more. */
#ifdef __SANITIZE_THREAD__
#define VAST_BYTES (UINT64_C(1) << 36)
#else
#define VAST_BYTES (UINT64_C(1) << 40)
#endif

START_TEST(a_tebibyte_of_nothing_opens_at_once)
{
	unsigned char byte = 7;

	media_close(media);
	unlink(image);
	ck_assert_int_eq(open_with(false, VAST_BYTES, false), 0);
	ck_assert_int_eq(media_write(media, VAST_BYTES - 1, &byte, 1, NULL), 0);
	ck_assert_int_eq(media_sync(media), 0);
}
END_TEST

START_TEST(a_file_grows_while_it_is_mapped)
{
	const uint64_t before = media_size(media), sizes[] = {before + BLOCK_BYTES, before + (5 << 20), UINT64_C(3) << 40};
	unsigned char bytes[BLOCK_BYTES], got[BLOCK_BYTES];
	struct stat st;

	memset(bytes, 0x5c, sizeof(bytes));
	ck_assert_int_eq(media_write(media, before, bytes, 1, NULL), -ERANGE);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(media_grow(media, sizes[i], &why), 0);
		ck_assert_uint_eq(media_size(media), sizes[i]);
		/* Across the seam of two mappings. */
		ck_assert_int_eq(media_write(media, sizes[i] - BLOCK_BYTES - 100, bytes, sizeof(bytes), NULL), 0);
		ck_assert_int_eq(media_read(media, sizes[i] - BLOCK_BYTES - 100, got, sizeof(got), NULL), 0);
		ck_assert_mem_eq(bytes, got, sizeof(got));
	}
	ck_assert_int_eq(media_sync(media), 0);
	ck_assert_int_eq(media_grow(media, before, &why), -EINVAL);
	ck_assert_int_eq(media_grow(media, sizes[1] + 1, &why), -EINVAL);
	ck_assert_int_eq(media_grow(media, sizes[2], &why), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(why.text, "mount it again"));
	ck_assert_uint_eq(media_size(media), sizes[1]);
	media_close(media);
	/* It is longer now; a sanitizer may not have as much address space. */
	ck_assert_int_eq(stat(image, &st), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, sizes[2]);
	ck_assert_int_eq(truncate(image, (off_t)sizes[1]), 0);
	ck_assert_int_eq(open_with(false, 0, false), 0);
	ck_assert_int_eq(media_read(media, sizes[1] - BLOCK_BYTES - 100, got, sizeof(got), NULL), 0);
	ck_assert_mem_eq(bytes, got, sizeof(got));
}
END_TEST

START_TEST(a_file_made_longer_by_somebody_is_used_to_its_end)
{
	const uint64_t before = media_size(media);
	unsigned char byte = 1;

	ck_assert_int_eq(truncate(image, (off_t)before + 10000), 0);
	ck_assert_int_eq(media_grow(media, 0, &why), 0);
	ck_assert_uint_eq(media_size(media), before + 2 * BLOCK_BYTES);
	ck_assert_int_eq(media_poison_arm(media, before + 5000, 1, false), 0);
	ck_assert_int_eq(media_read(media, before + 5000, &byte, 1, NULL), -EIO);
	ck_assert_int_eq(media_read(media, before + 4607, &byte, 1, NULL), 0);
}
END_TEST

/* A /sys of our own, of one dax device. */
static void fake_sysfs(const char *driver, const char *size)
{
	char command[2048];

	snprintf(command, sizeof(command),
		 "cd %s && mkdir -p sys/dev/char sys/bus/dax/devices sys/devices/dax0.0 "
		 "sys/class/dax && "
		 "ln -sfn ../../devices/dax0.0 sys/dev/char/%u:%u && "
		 "ln -sfn ../../../devices/dax0.0 sys/bus/dax/devices/dax0.0 && "
		 "ln -sfn ../../class/dax sys/devices/dax0.0/subsystem && "
		 "ln -sfn ../../bus/dax/drivers/%s sys/devices/dax0.0/driver && "
		 "printf '%s\\n' > sys/devices/dax0.0/size",
		 directory, major(makedev(252, 5)), minor(makedev(252, 5)), driver, size);
	ck_assert_int_eq(system(command), 0);
}

static void remove_sysfs(void)
{
	char command[512];

	snprintf(command, sizeof(command), "rm -rf %s/sys", directory);
	ck_assert_int_eq(system(command), 0);
}

START_TEST(a_dax_device_is_known_by_sysfs_and_system_ram_is_refused)
{
	struct stat st = {.st_mode = S_IFCHR, .st_rdev = makedev(252, 5)};
	enum device_kind kind = DEVICE_FILE;
	char sysfs[300];
	uint64_t size;

	snprintf(sysfs, sizeof(sysfs), "%s/sys", directory);
	fake_sysfs("device_dax", "526385152");
	ck_assert_int_eq(device_check(sysfs, "/dev/dax0.0", &st, &why, &kind), 0);
	ck_assert_int_eq(kind, DEVICE_DAX);
	ck_assert_int_eq(device_size(sysfs, &st, &why, &size), 0);
	ck_assert_uint_eq(size, 526385152);
	fake_sysfs("kmem", "lots");
	ck_assert_int_eq(device_check(sysfs, "/dev/dax0.0", &st, &why, &kind), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(why.text, "daxctl reconfigure-device"));
	ck_assert_int_eq(device_explain_missing(sysfs, "/dev/dax0.0", -ENOENT, &why), -ENOTSUP);
	ck_assert_int_eq(device_size(sysfs, &st, &why, &size), -EIO);
	st.st_mode = S_IFBLK;
	ck_assert_int_eq(device_check(sysfs, "/dev/sda", &st, &why, &kind), 0);
	ck_assert_int_eq(kind, DEVICE_BLOCK);
	st.st_mode = S_IFSOCK;
	ck_assert_int_eq(device_check(sysfs, "/dev/log", &st, &why, &kind), -ENOTSUP);
	remove_sysfs();
}
END_TEST

static volatile sig_atomic_t previous_called;
static sigjmp_buf previous_jump;

static void previous_handler(int signal_number)
{
	previous_called++;
	siglongjmp(previous_jump, 1);
}

/* In a child, where no handler of ours is installed yet. */
static int run_previous_handler_child(void)
{
	struct media_options options = {0};
	struct media *m;
	int fd = memfd_create("empty", 0);
	volatile char *trap = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	char buffer[10];

	signal(SIGBUS, previous_handler);
	if (media_open(image, &options, &why, &m) < 0)
		return 1;
	if (sigsetjmp(previous_jump, 1) == 0)
		(void)trap[0];
	if (previous_called != 1)
		return 2;
	/* A fault on the caller's own buffer inside the copy is none of ours either. */
	if (sigsetjmp(previous_jump, 1) == 0)
		media_write(m, 0, (const char *)trap, 10, NULL);
	if (previous_called != 2)
		return 3;
	if (media_read(m, 0, buffer, sizeof(buffer), NULL) < 0)
		return 4;
	return media_close(m) == 0 ? 0 : 5;
}

START_TEST(a_sigbus_elsewhere_goes_to_the_previous_handler)
{
	struct media_options options = {0};
	pid_t pid;
	int status;

	/* guard_install() is once per process: exec a fresh one. */
	media_close(media);
	media = NULL;
	pid = fork();
	if (pid == 0) {
		execl("/proc/self/exe", "test_media", "--previous-handler", image, (char *)NULL);
		_exit(99);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
	ck_assert_int_eq(media_open(image, &options, &why, &media), 0);
}
END_TEST

#define FULL_BYTES (256u << 20)

/* In a mount namespace of this process, so that a test that dies leaves nothing mounted. */
static bool mount_small_tmpfs(void)
{
	return unshare(CLONE_NEWNS) == 0 &&
	       mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("none", directory, "tmpfs", 0, "size=64m") == 0;
}

static bool can_mount_tmpfs(void)
{
	bool can = make_directory();

	can = can && mount_small_tmpfs() && umount2(directory, MNT_DETACH) == 0;
	rmdir(directory);
	return can;
}

static devoff_t fill_until_refused(void)
{
	static unsigned char chunk[65536];
	devoff_t offset = 0, bad;
	int error = 0;

	memset(chunk, 0x5a, sizeof(chunk));
	while (offset < FULL_BYTES) {
		error = media_write(media, offset, chunk, sizeof(chunk), &bad);
		if (error)
			break;
		offset += sizeof(chunk);
	}
	ck_assert_int_eq(error, -ENOSPC);
	return offset;
}

START_TEST(a_sparse_image_on_a_full_host_refuses_and_recovers)
{
	unsigned char out[4096];
	struct media_counts counts;
	devoff_t reached;

	media_close(media);
	media = NULL;
	unlink(image);
	ck_assert(mount_small_tmpfs());
	ck_assert_int_eq(open_with(false, FULL_BYTES, false), 0);
	media_set_fault_handler(media, record_fault, NULL);
	reached = fill_until_refused();
	ck_assert_uint_gt(reached, 32u << 20);
	ck_assert_int_eq(seen.count, 1);
	ck_assert_int_eq(seen.last.kind, MEDIA_FAULT_HOST_FULL);
	/* Again: no second event. A load of a hole there, which tmpfs cannot back either, reads
	 * zeros. */
	ck_assert_int_eq(media_write(media, 200u << 20, out, 4096, NULL), -ENOSPC);
	ck_assert_int_eq(media_zero(media, 200u << 20, 4096, NULL), -ENOSPC);
	ck_assert_int_eq(media_write_line(media, 200u << 20, out, NULL), -ENOSPC);
	ck_assert_int_eq(seen.count, 1);
	ck_assert_int_eq(media_read(media, 210u << 20, out, 4096, NULL), 0);
	ck_assert_uint_eq(out[100], 0);
	ck_assert(!media_bad_any(media));
	media_counts(media, &counts);
	ck_assert_uint_eq(counts.sigbus, 0);
	/* Freed and used again. */
	ck_assert_int_eq(
	    fallocate(media_fd(media), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 16 << 20), 0);
	ck_assert_int_eq(media_write(media, 200u << 20, out, 4096, NULL), 0);
	fill_until_refused();
	ck_assert_int_eq(seen.count, 2);
	ck_assert_int_eq(media_read(media, reached - 4096, out, 4096, NULL), 0);
	ck_assert_uint_eq(out[4095], 0x5a);
	ck_assert_int_eq(media_sync(media), 0);
	media_close(media);
	media = NULL;
	ck_assert_int_eq(umount2(directory, MNT_DETACH), 0);
}
END_TEST

static int forged_code;

/* Runs under the guard, where libpmem2's flush would: a machine check as the kernel would deliver
 * it. */
static void flush_with_machine_check(const void *ptr, size_t length)
{
	siginfo_t info = {.si_signo = SIGBUS, .si_code = forged_code};

	if (!forged_code)
		return;
	forged_code = 0;
	info.si_addr = media->map.base; /* as coarse as a 2 MiB mapping makes it */
	info.si_addr_lsb = 21;
	syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGBUS, &info);
}

static void forge_machine_checks(void)
{
	media->granularity = MEDIA_CACHELINE;
	media->flush = flush_with_machine_check;
}

START_TEST(a_machine_check_is_placed_by_the_cursor_not_by_its_address)
{
	unsigned char buffer[100] = {0};
	struct media_counts counts;
	devoff_t bad = 0;

	forge_machine_checks();
	forged_code = BUS_MCEERR_AR;
	ck_assert_int_eq(media_write(media, 50000, buffer, 30, &bad), -EIO);
	ck_assert_uint_eq(bad, 50000);
	ck_assert_int_eq(seen.count, 1);
	ck_assert_int_eq(seen.last.kind, MEDIA_FAULT_POISON);
	ck_assert_uint_eq(seen.last.offset, 49664);
	ck_assert_uint_eq(seen.last.length, 512);
	media_counts(media, &counts);
	ck_assert_uint_eq(counts.sigbus, 1);
	ck_assert_int_eq(media_read(media, 49664, buffer, 1, &bad), -EIO);
	ck_assert_int_eq(media_read(media, 49600, buffer, 64, &bad), 0);
}
END_TEST

START_TEST(a_machine_check_below_a_file_on_persistent_memory_is_one_failure_of_its_block)
{
	unsigned char buffer[100] = {0};
	struct media_counts counts;
	devoff_t bad = 0;

	forge_machine_checks();
	media->is_fsdax = true;
	forged_code = BUS_MCEERR_AR;
	ck_assert_int_eq(media_write(media, 50000, buffer, 30, &bad), -EIO);
	ck_assert_uint_eq(bad, 50000);
	ck_assert_int_eq(seen.count, 1);
	ck_assert_uint_eq(seen.last.offset, 49152);
	ck_assert_uint_eq(seen.last.length, 4096);
	media_counts(media, &counts);
	ck_assert_uint_eq(counts.sigbus, 1);
	ck_assert_int_eq(media_read(media, 53247, buffer, 1, &bad), -EIO);
	ck_assert_int_eq(media_read(media, 53248, buffer, 1, &bad), 0);
	ck_assert_int_eq(seen.count, 1);
}
END_TEST

START_TEST(a_coarse_notice_during_a_copy_makes_its_range_suspect)
{
	unsigned char buffer[100] = {0};
	struct media_counts counts;
	devoff_t bad = 0;

	forge_machine_checks();
	forged_code = BUS_MCEERR_AO;
	ck_assert_int_eq(media_write(media, (3 << 20) + 10, buffer, 30, &bad), 0);
	ck_assert_int_eq(seen.count, 1);
	ck_assert_int_eq(seen.last.kind, MEDIA_FAULT_SUSPECT);
	ck_assert_uint_eq(seen.last.offset, 0);
	ck_assert_uint_eq(seen.last.length, 2 << 20);
	media_counts(media, &counts);
	ck_assert_uint_eq(counts.sigbus, 0);
	ck_assert_int_eq(media_read(media, 5000, buffer, 1, &bad), -EIO);
	ck_assert_int_eq(media_read(media, 2 << 20, buffer, 1, &bad), 0);
}
END_TEST

static size_t recorded_bytes;

static size_t recording_store(struct media *m, devoff_t offset, const void *from, size_t length,
			      struct guard_fault *fault)
{
	recorded_bytes += length;
	return media_backend_mapped.store(m, offset, from, length, fault);
}

START_TEST(a_backend_in_between_sees_every_store)
{
	struct media_backend recording = media_backend_mapped;
	unsigned char buffer[1000] = {0};

	recording.store = recording_store;
	media->backend = &recording;
	ck_assert_int_eq(media_write(media, 4000, buffer, sizeof(buffer), NULL), 0);
	ck_assert_uint_eq(recorded_bytes, sizeof(buffer));
	media->backend = &media_backend_mapped;
}
END_TEST

static void *write_and_sync(void *arg)
{
	unsigned char buffer[4096];
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (int i = 0; i < 2000; i++) {
		devoff_t offset = (unsigned)rand_r(&seed) % (IMAGE_BYTES - 4096);

		memset(buffer, i, sizeof(buffer));
		media_write(media, offset, buffer, (unsigned)rand_r(&seed) % 4096, NULL);
		media_read(media, offset, buffer, sizeof(buffer), NULL);
		if (i % 100 == 0)
			media_sync(media);
		media_drain(media);
	}
	return NULL;
}

START_TEST(threads_write_read_and_sync_side_by_side)
{
	struct media_counts counts;
	pthread_t threads[4];

	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, write_and_sync, (void *)(i + 1));
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	media_counts(media, &counts);
	ck_assert_uint_eq(counts.writes, 8000);
	ck_assert_uint_eq(counts.reads, 8000);
}
END_TEST

static void *write_own_bytes(void *arg)
{
	uintptr_t which = (uintptr_t)arg;
	unsigned char byte;

	/* Every line is shared by both threads, byte by byte. */
	for (unsigned round = 0; round < 20; round++)
		for (devoff_t at = which; at < 8192; at += 2) {
			byte = (unsigned char)(round + at);
			media_write(media, at, &byte, 1, NULL);
		}
	return NULL;
}

START_TEST(neighbours_in_one_line_do_not_lose_each_others_bytes)
{
	unsigned char out[8192];
	pthread_t threads[2];

	for (uintptr_t i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, write_own_bytes, (void *)i);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(media_read(media, 0, out, sizeof(out), NULL), 0);
	for (unsigned i = 0; i < sizeof(out); i++)
		ck_assert_uint_eq(out[i], (unsigned char)(19 + i));
}
END_TEST

static void add_tests(TCase *tc)
{
	tcase_add_test(tc, letting_go_keeps_content_and_gives_memory_back);
	tcase_add_test(tc, what_is_written_at_any_offset_is_read_back);
	tcase_add_test(tc, zero_clears_exactly_the_range);
	tcase_add_test(tc, a_line_is_stored_whole_and_only_aligned);
	tcase_add_test(tc, ranges_past_the_end_are_refused);
	tcase_add_test(tc, synced_bytes_are_in_the_file_after_a_close);
	tcase_add_test(tc, a_readonly_mapping_reads_and_refuses_writes);
	tcase_add_test(tc, a_known_bad_range_is_never_touched_and_ends_the_read);
	tcase_add_test(tc, a_shrunk_file_loses_what_is_missing_and_says_so_once);
	tcase_add_test(tc, counts_add_up);
	tcase_add_test(tc, the_first_sync_reaches_what_an_earlier_process_stored);
	tcase_add_test(tc, a_failed_msync_is_remembered);
	tcase_add_test(tc, forced_cacheline_granularity_stores_and_drains);
	tcase_add_test(tc, an_existing_image_keeps_its_size_unless_resize_is_asked);
	tcase_add_test(tc, the_real_path_survives_a_change_of_directory);
	tcase_add_test(tc, what_cannot_be_used_is_refused_with_a_reason);
	tcase_add_test(tc, a_tebibyte_of_nothing_opens_at_once);
	tcase_add_test(tc, a_file_grows_while_it_is_mapped);
	tcase_add_test(tc, a_file_made_longer_by_somebody_is_used_to_its_end);
	tcase_add_test(tc, a_dax_device_is_known_by_sysfs_and_system_ram_is_refused);
	tcase_add_test(tc, a_sigbus_elsewhere_goes_to_the_previous_handler);
	tcase_add_test(tc, a_machine_check_is_placed_by_the_cursor_not_by_its_address);
	tcase_add_test(tc, a_machine_check_below_a_file_on_persistent_memory_is_one_failure_of_its_block);
	tcase_add_test(tc, a_coarse_notice_during_a_copy_makes_its_range_suspect);
	tcase_add_test(tc, a_backend_in_between_sees_every_store);
	tcase_add_test(tc, who_holds_the_medium_stores_alone_and_a_stop_is_for_all);
	tcase_add_test(tc, a_stop_waits_for_stores_under_way);
	tcase_add_test(tc, threads_write_read_and_sync_side_by_side);
	tcase_add_test(tc, neighbours_in_one_line_do_not_lose_each_others_bytes);
}

int main(int argc, char **argv)
{
	Suite *suite;
	TCase *tc;
	SRunner *runner;
	int failed;
	bool full;

	if (argc == 3 && strcmp(argv[1], "--previous-handler") == 0) {
		snprintf(image, sizeof(image), "%s", argv[2]);
		return run_previous_handler_child();
	}
	suite = suite_create("media");
	tc = tcase_create("media");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	add_tests(tc);
	full = can_mount_tmpfs();
	if (full)
		tcase_add_test(tc, a_sparse_image_on_a_full_host_refuses_and_recovers);
	else
		printf("SKIP: a full host: mounting a small tmpfs needs root\n");
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	if (failed)
		return 1;
	return full ? 0 : 77;
}
