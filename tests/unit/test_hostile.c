/*
 * Metadata that lies: bytes of valid blocks are changed on both copies and sealed again with a right checksum, then the image is mounted, walked,
 * checked, changed and unmounted. Any answer is right but a crash, a hang, or a sanitizer's complaint.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/root_format.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"
#include "tests/support/random.h"
#include "util/log.h"

#define ROUNDS_DEFAULT 60
#define WALK_ENTRIES_MAX 3000

static struct fsfix fix;
static const struct fs_who who = {.uid = 1000, .gid = 1000};
static uint8_t *pristine, *image;

static void fill(void)
{
	char name[32], data[9000];
	struct fs_attr attr;
	inum_t dir, ino;
	uint64_t copied;
	size_t done;

	memset(data, 'h', sizeof(data));
	data[sizeof(data) - 1] = '\0';
	for (unsigned d = 0; d < 6; d++) {
		snprintf(name, sizeof(name), "dir%u", d);
		expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, name, &dir), 0);
		for (unsigned i = 0; i < 40; i++) {
			snprintf(name, sizeof(name), "file%u", i);
			expect_equal(fsfix_mkfile(&fix, dir, name, &ino), 0);
			expect_equal(fs_write(fix.fs, ino, i * 4096u, data, sizeof(data), &done), 0);
		}
		expect_equal(fs_symlink(fix.fs, &who, dir, "link", data + 6000, &attr), 0);
		fs_forget(fix.fs, attr.ino, 1);
		expect_equal(fsfix_mkfile(&fix, dir, "clone", &attr.ino), 0);
		expect_equal(fs_copy_range(fix.fs, ino, 0, attr.ino, 0, 8192, &copied), 0);
		snprintf(name, sizeof(name), "hard%u", d);
		expect_equal(fs_link(fix.fs, ino, FS_ROOT_INO, name, &attr), 0);
		fs_forget(fix.fs, ino, 1);
	}
}

static void image_io(bool save, uint8_t *bytes)
{
	int fd = open(fix.path, O_RDWR);
	ssize_t done = 0;

	expect(fd >= 0);
	for (size_t at = 0; at < FSFIX_SMALL_BYTES; at += (size_t)done) {
		done = save ? pwrite(fd, bytes + at, FSFIX_SMALL_BYTES - at, (off_t)at)
			    : pread(fd, bytes + at, FSFIX_SMALL_BYTES - at, (off_t)at);
		expect(done > 0);
	}
	close(fd);
}

static void setup(void)
{
	log_set_level(LOG_LEVEL_ERROR - 1);
	pristine = malloc(FSFIX_SMALL_BYTES);
	image = malloc(FSFIX_SMALL_BYTES);
	expect(pristine && image);
	expect_equal(fsfix_create_mounted(&fix, FSFIX_SMALL_BYTES), 0);
	fill();
	expect_equal(fsfix_unmount(&fix), 0);
	image_io(false, pristine);
}

static void teardown(void)
{
	fsfix_destroy(&fix);
	free(pristine);
	free(image);
}

/* --- damage --------------------------------------------------------------------------------------------------------------- */

static const struct format_block_header *header_at(size_t at)
{
	return (const struct format_block_header *)(image + at);
}

static bool is_sealed_block(size_t at)
{
	const struct format_block_header *header = header_at(at);
	const char *field;

	return le32_get(header->magic) == FORMAT_BLOCK_MAGIC &&
	       format_block_verify(image + at, header->meta_uuid, le64_get(header->address), &field) == 0;
}

static size_t any_sealed_block(struct random *random)
{
	for (;;) {
		size_t at = random_below(random, FSFIX_SMALL_BYTES / BLOCK_BYTES) * BLOCK_BYTES;

		if (is_sealed_block(at))
			return at;
	}
}

/* Small changes in the used part of a node hurt most: counts, slots, keys, lengths. */
static void damage_bytes(uint8_t *block, struct random *random)
{
	unsigned changes = 1 + (unsigned)random_below(random, 3);

	for (unsigned i = 0; i < changes; i++) {
		size_t at = sizeof(struct format_block_header) +
			    random_below(random, BLOCK_BYTES - sizeof(struct format_block_header));

		if (random_below(random, 3) == 0)
			at = sizeof(struct format_block_header) + random_below(random, 48);
		else if (!block[at])
			at = BLOCK_BYTES - 1 - random_below(random, 600);
		switch (random_below(random, 4)) {
		case 0:
			block[at] ^= (uint8_t)(1u << random_below(random, 8));
			break;
		case 1:
			block[at] = 0xff;
			break;
		case 2:
			block[at] = 0;
			break;
		default:
			block[at]++;
			break;
		}
	}
}

static void damage_block(struct random *random)
{
	size_t at = any_sealed_block(random);
	uint64_t address = le64_get(header_at(at)->address), sequence = le64_get(header_at(at)->sequence);
	uint8_t old[BLOCK_BYTES], changed[BLOCK_BYTES];

	memcpy(old, image + at, BLOCK_BYTES);
	memcpy(changed, old, BLOCK_BYTES);
	damage_bytes(changed, random);
	format_block_seal(changed, sequence);
	for (size_t copy = 0; copy < FSFIX_SMALL_BYTES; copy += BLOCK_BYTES)
		if (le64_get(header_at(copy)->address) == address && memcmp(image + copy, old, BLOCK_BYTES) == 0)
			memcpy(image + copy, changed, BLOCK_BYTES);
}

/* --- use ------------------------------------------------------------------------------------------------------------------ */

struct walk {
	inum_t inos[WALK_ENTRIES_MAX];
	unsigned count;
};

static int walk_visit(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next_cookie,
		      const struct fs_attr *attr)
{
	struct walk *walk = arg;

	if (attr)
		fs_forget(fix.fs, ino, 1);
	if (next_cookie < 3)
		return 0;
	if (walk->count == WALK_ENTRIES_MAX)
		return 1;
	walk->inos[walk->count++] = ino;
	return 0;
}

static void use_inode(inum_t ino)
{
	static char buffer[64 << 10];
	struct inode_record values = {.size_bytes = 5000, .mode = 0644};
	struct fs_attr attr;
	uint32_t generation;
	char **paths;
	size_t count;

	if (fs_getattr(fix.fs, ino, &attr))
		return;
	fs_readlink(fix.fs, ino, buffer, sizeof(buffer));
	fs_read(fix.fs, ino, 0, buffer, sizeof(buffer), &count);
	fs_write(fix.fs, ino, 3000, buffer, 6000, &count);
	fs_setattr(fix.fs, ino, FS_SET_SIZE | FS_SET_MODE, &values, &attr);
	if (fs_paths(fix.fs, ino, &generation, &paths, &count) == 0)
		fs_paths_free(paths, count);
}

static void use_dir(inum_t dir)
{
	struct fs_attr attr;
	char name[32];

	for (unsigned i = 0; i < 40; i += 3) {
		snprintf(name, sizeof(name), "file%u", i);
		if (fs_lookup(fix.fs, dir, name, &attr) == 0)
			fs_forget(fix.fs, attr.ino, 1);
		if (i % 2)
			fs_unlink(fix.fs, dir, name);
		else
			fs_rename(fix.fs, &who, dir, name, FS_ROOT_INO, "moved", 0);
	}
	if (fs_create(fix.fs, &who, dir, "new", S_IFREG | 0600, 0, &attr) == 0)
		fs_forget(fix.fs, attr.ino, 1);
	fs_rmdir(fix.fs, FS_ROOT_INO, "dir1");
}

static int ignore_owner(void *arg, const struct fs_owner *owner)
{
	return 0;
}

static int ignore_damage(void *arg, const struct fs_damage *damage)
{
	return 0;
}

static void use_everything(void)
{
	static struct walk walk;
	struct fs_check_totals totals;
	struct fs_statfs st;

	walk.count = 0;
	fs_statfs(fix.fs, &st);
	fs_readdir(fix.fs, FS_ROOT_INO, 0, true, walk_visit, &walk);
	for (unsigned i = 0, roots = walk.count; i < roots; i++)
		fs_readdir(fix.fs, walk.inos[i], 0, i % 2, walk_visit, &walk);
	fs_check(fix.fs, NULL, NULL, &totals);
	fs_owners(fix.fs, 0, FSFIX_SMALL_BYTES, ignore_owner, NULL);
	fs_damaged(fix.fs, ignore_damage, NULL);
	for (unsigned i = 0; i < walk.count; i += 2)
		use_inode(walk.inos[i]);
	for (unsigned i = 0; i < 6 && i < walk.count; i++)
		use_dir(walk.inos[i]);
	fs_check(fix.fs, NULL, NULL, &totals);
}

static void rounds(bool readonly)
{
	const char *given = getenv("MENDFS_ROUNDS");
	unsigned count = given ? (unsigned)strtoul(given, NULL, 0) : ROUNDS_DEFAULT, mounted = 0;
	struct random random = random_start("hostile");

	for (unsigned round = 0; round < count; round++) {
		struct random replay = random;
		struct why why = {0};

		memcpy(image, pristine, FSFIX_SMALL_BYTES);
		for (unsigned i = 0, blocks = 1 + (unsigned)random_below(&random, 3); i < blocks; i++)
			damage_block(&random);
		image_io(true, image);
		if (given)
			fprintf(stderr, "round %u: MENDFS_SEED=%llu\n", round, (unsigned long long)replay.state);
		fix.options.readonly = readonly;
		if (fs_mount(fix.path, &fix.options, &why, &fix.fs)) {
			fix.fs = NULL;
			expect(why.text[0] != '\0');
			continue;
		}
		mounted++;
		use_everything();
		fs_unmount(fix.fs);
		fix.fs = NULL;
	}
	printf("%u of %u mounted\n", mounted, count);
}

START_TEST(lies_in_metadata_never_crash_a_mount)
{
	rounds(false);
}
END_TEST

START_TEST(lies_in_metadata_never_crash_a_readonly_mount)
{
	rounds(true);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("hostile");
	TCase *t = tcase_create("plain");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 300);
	tcase_add_test(t, lies_in_metadata_never_crash_a_mount);
	tcase_add_test(t, lies_in_metadata_never_crash_a_readonly_mount);
	suite_add_tcase(suite, t);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
