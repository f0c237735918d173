/* Rules about what is remembered of a failure, and when. */
#include "tests/support/files.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "fs/inode.h"
#include "journal/journal.h"
#include "journal/root.h"
#include "notify/span.h"

static struct fsfix fix, late;
static inum_t ino;

/*
 * The linker sends these of this program here: what is on the medium right after the journal was
 * emptied, before anything else ran; a medium that cannot clear.
 */
int __real_journal_open(struct media *media, const struct super *super,
			const struct journal_options *options, struct why *why,
			struct journal **out);
int __wrap_journal_open(struct media *media, const struct super *super,
			const struct journal_options *options, struct why *why,
			struct journal **out);
int __real_media_clear(struct media *media, devoff_t offset, uint64_t length);
int __wrap_media_clear(struct media *media, devoff_t offset, uint64_t length);
static bool keeps_image;
static atomic_bool cannot_clear;

int __wrap_media_clear(struct media *media, devoff_t offset, uint64_t length)
{
	return cannot_clear ? -ENOTSUP : __real_media_clear(media, offset, length);
}

int __wrap_journal_open(struct media *media, const struct super *super,
			const struct journal_options *options, struct why *why,
			struct journal **out)
{
	int error = __real_journal_open(media, super, options, why, out);

	if (keeps_image)
		expect_equal(fsfix_copy_file(fix.path, late.path), 0);
	keeps_image = false;
	return error;
}

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, FSFIX_SMALL_BYTES), 0);
	ino = files_new(&fix, "file");
	files_write(&fix, ino, 1, 0, 8 * BLOCK_BYTES);
	late = fix;
	late.fs = NULL;
	snprintf(late.path, sizeof(late.path), "%.200s.late", fix.path);
}

static void teardown(void)
{
	cannot_clear = false;
	fsfix_destroy(&late);
	fsfix_destroy(&fix);
}

static void forget_poison_file(const struct fsfix *of)
{
	char path[300];

	snprintf(path, sizeof(path), "%s.poison", of->path);
	unlink(path);
}

/* For the next mount of fix, which is unmounted. */
static void arm_latent(const char *uuid, devoff_t place)
{
	char path[300];
	FILE *file;

	snprintf(path, sizeof(path), "%s.poison", fix.path);
	file = fopen(path, "we");
	expect(file);
	fprintf(file, "# mendfs poison for %s\n%llu 1 latent\n", uuid, (unsigned long long)place);
	expect(!fclose(file));
}

static void settle(struct fsfix *of)
{
	expect_equal(fs_notify_wait(of->fs, 10000), 0);
}

static struct fs_summary summary(struct fsfix *of)
{
	struct fs_summary all;

	expect_equal(fs_summary(of->fs, &all), 0);
	return all;
}

static void expect_bad_block(struct fsfix *of, inum_t file, uint64_t pos)
{
	size_t done;

	expect_equal(files_read_error(of, file, pos, BLOCK_BYTES, &done), -EIO);
	expect_equal(done, 0);
}

/* --- lost is not badblocks --- */

/* As when the module was replaced: whoever is asked says that all is good. */
static void replace_the_medium(void)
{
	expect_equal(fsfix_unmount(&fix), 0);
	forget_poison_file(&fix);
	expect_equal(fsfix_mount(&fix), 0);
	settle(&fix);
}

START_TEST(content_stays_lost_when_the_medium_is_good_again)
{
	struct files_damage damage;

	files_poison(&fix, ino, 4 * BLOCK_BYTES, 1, false);
	replace_the_medium();
	expect_bad_block(&fix, ino, 4 * BLOCK_BYTES);
	files_damaged(&fix, &damage);
	expect_equal(damage.count, 1);
	expect_equal(damage.ranges[0].ino, ino);
	expect_equal(damage.ranges[0].pos, 4 * BLOCK_BYTES);
	files_expect(&fix, ino, 1, 0, 4 * BLOCK_BYTES);
	files_expect(&fix, ino, 1, 5 * BLOCK_BYTES, 3 * BLOCK_BYTES);
}
END_TEST

/* What was entered long ago is in no log any more. */
static void forget_poison_log(const struct area *log)
{
	uint8_t *zeros = calloc(1, log->length_bytes);
	FILE *file = fopen(fix.path, "r+e");

	expect(file && zeros);
	for (unsigned copy = 0; copy < 2; copy++)
		expect(!fseeko(file, (off_t)log->copy[copy], SEEK_SET) &&
		       fwrite(zeros, 1, log->length_bytes, file) == log->length_bytes);
	expect(!fclose(file));
	free(zeros);
}

/* The tree of bad blocks loses its record; that the content is lost stands in a tree of its own. */
START_TEST(what_is_lost_is_known_without_any_bad_block)
{
	struct files_damage damage;
	devoff_t place = files_device_offset(&fix, ino, 4 * BLOCK_BYTES);
	struct btree_key key = {{place}};
	struct btree badblocks;
	struct area log;
	struct tx *tx;

	files_poison(&fix, ino, 4 * BLOCK_BYTES, 1, false);
	btree_init(&badblocks, fix.fs->journal, &badblocks_ops);
	expect_equal(fs_tx_begin(fix.fs, TX_NORMAL, &tx), 0);
	expect_equal(btree_remove(&badblocks, tx, &key), 0);
	expect_equal(root_add(tx, ROOT_BADBLOCK_BYTES, -512), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	log = fs_super(fix.fs)->areas[AREA_POISON_LOG];
	expect_equal(fsfix_unmount(&fix), 0);
	forget_poison_file(&fix);
	forget_poison_log(&log);
	expect_equal(fsfix_mount(&fix), 0);
	settle(&fix);
	expect_bad_block(&fix, ino, 4 * BLOCK_BYTES);
	files_damaged(&fix, &damage);
	expect_equal(damage.count, 1);
}
END_TEST

START_TEST(a_clone_inherits_what_is_lost_and_each_side_heals_by_its_own_write)
{
	inum_t clone = files_new(&fix, "clone");
	struct files_damage damage;

	files_poison(&fix, ino, 4 * BLOCK_BYTES, 1, false);
	replace_the_medium();
	expect_equal(fs_clone(fix.fs, ino, clone), 0);
	expect_bad_block(&fix, clone, 4 * BLOCK_BYTES);
	files_write(&fix, ino, 2, 4 * BLOCK_BYTES, BLOCK_BYTES);
	files_expect(&fix, ino, 2, 4 * BLOCK_BYTES, BLOCK_BYTES);
	expect_bad_block(&fix, clone, 4 * BLOCK_BYTES);
	files_damaged(&fix, &damage);
	expect_equal(damage.count, 1);
	expect_equal(damage.ranges[0].ino, clone);
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "clone"), 0);
	expect_equal(fsfix_remount(&fix), 0);
	settle(&fix);
	files_damaged(&fix, &damage);
	expect_equal(damage.count, 0);
	files_check(&fix);
}
END_TEST

/* --- the poison log --- */

/* Met with the metadata lock and a data lock held: it is on the medium when the access returns, and
 * no mount touches it again. */
START_TEST(a_failure_met_under_every_lock_is_remembered_at_once)
{
	devoff_t place = files_device_offset(&fix, ino, 4 * BLOCK_BYTES);
	struct inode *inode;
	uint8_t byte;
	struct tx *tx;

	expect_equal(journal_sync(fix.fs->journal), 0);
	expect_equal(fs_inject(fix.fs, place, 1, true), 0);
	expect_equal(inode_get(fix.fs, ino, &inode), 0);
	pthread_rwlock_wrlock(&inode->data_lock);
	expect_equal(tx_begin(fix.fs->journal, TX_NORMAL, &tx), 0);
	expect_equal(media_read(fs_media(fix.fs), place, &byte, 1, NULL), -EIO);
	expect_equal(fsfix_copy_file(fix.path, late.path), 0);
	tx_abort(tx);
	pthread_rwlock_unlock(&inode->data_lock);
	inode_put(inode);
	settle(&fix);
	expect_equal(fsfix_mount(&late), 0);
	settle(&late);
	expect_bad_block(&late, ino, 4 * BLOCK_BYTES);
	expect_equal(summary(&late).badblock_bytes, 512);
	expect_equal(summary(&late).sigbus_count, 0);
}
END_TEST

static int find_block(void *arg, const struct fs_owner *owner)
{
	struct fs_owner *found = arg;

	if (owner->kind != FS_OWNER_METADATA || !owner->live || owner->copy != 0 || !owner->tree ||
	    strcmp(owner->tree, "inodes"))
		return 0;
	*found = *owner;
	return 1;
}

/* The mount's own write-back meets it, before there is a pipeline to tell: a crash right after must
 * not forget it. */
START_TEST(a_failure_met_while_mounting_is_remembered_at_once)
{
	struct fs_owner block = {0};
	char uuid[40];

	uuid_unparse_lower(fs_super(fix.fs)->uuid, uuid);
	fs_owners(fix.fs, 0, FSFIX_SMALL_BYTES, find_block, &block);
	expect(block.has_peer);
	files_truncate(&fix, ino, 12345);
	expect_equal(fsfix_crash(&fix), 0);
	arm_latent(uuid, block.device_offset);
	keeps_image = cannot_clear = true;
	expect_equal(fsfix_mount(&fix), 0);
	settle(&fix);
	expect(!keeps_image);
	expect_equal(summary(&fix).badblock_bytes, 512);
	expect_equal(fsfix_mount(&late), 0);
	settle(&late);
	expect_equal(summary(&late).badblock_bytes, 512);
	expect_equal(files_size(&late, ino), 12345);
	files_check(&late);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("rules_failure");
	TCase *tests = tcase_create("failure");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, content_stays_lost_when_the_medium_is_good_again);
	tcase_add_test(tests, what_is_lost_is_known_without_any_bad_block);
	tcase_add_test(tests, a_clone_inherits_what_is_lost_and_each_side_heals_by_its_own_write);
	tcase_add_test(tests, a_failure_met_under_every_lock_is_remembered_at_once);
	tcase_add_test(tests, a_failure_met_while_mounting_is_remembered_at_once);
	suite_add_tcase(suite, tests);
	return files_run(suite);
}
