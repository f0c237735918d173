/*
 * What one tree has lost is put back from what the others say: records are taken out of trees behind the filesystem's back, single ones, whole leaves and
 * whole trees, and everything that can be seen through the filesystem must be what it was.
 */
#include "fsck/records.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "btree/path.h"
#include "fs/dir.h"
#include "journal/root.h"
#include "notify/ledger_copy.h"
#include "notify/span.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"
#include "tests/support/lab.h"
#include "tests/support/random.h"
#include "util/crc.h"
#include "util/log.h"

#define LAB_BYTES (64ull << 20)
#define ROUNDS 40

static struct lab *lab;
static struct fs *fs;
static struct random rng;
static struct fsck_report report;
static bool is_verbose;

/* --- mounting ------------------------------------------------------------------------------------------------------------------------------- */

static void mount_as(bool repair)
{
	const struct fs_options options = {.tools = true, .repair = repair, .cache_bytes = 8u << 20};
	struct why why = {0};
	int error;

	lab_reset(lab);
	error = fs_mount_media(lab_media(lab), &options, &why, &fs);
	if (error)
		ck_abort_msg("mount: %s", why.text);
}

static void unmount(void)
{
	expect_equal(fs_unmount(fs), 0);
	fs = NULL;
}

static void tell(void *arg, enum fsck_grade grade, const char *line)
{
	if (is_verbose)
		printf("  %d %s\n", (int)grade, line);
}

static void tell_finding(void *arg, const char *line)
{
	printf("finding: %s\n", line);
}

static uint64_t check(void)
{
	struct fs_check_totals totals;

	expect_equal(fs_check(fs, tell_finding, NULL, &totals), 0);
	return totals.findings;
}

static void run_records(void)
{
	const struct fsck_options options = {.write = true, .tell = tell};
	struct why why = {0};
	struct repair repair = {.media = lab_media(lab), .options = &options, .report = &report, .super = fs->super, .fs = fs};
	int error;

	memset(&report, 0, sizeof(report));
	error = repair_records(&repair, &why);
	if (error)
		ck_abort_msg("repair: %s", why.text);
}

/* Repaired, consistent, and nothing left for a second run. The filesystem is mounted for repair before and after. */
static void repair_all(void)
{
	struct fsck_report first;

	run_records();
	first = report;
	expect_equal(check(), 0);
	unmount();
	mount_as(true);
	run_records();
	if (report.fixed + report.losses)
		is_verbose = true;
	expect_equal(report.fixed, 0);
	expect_equal(report.losses, 0);
	report = first;
}

/* --- a filesystem with some of everything ------------------------------------------------------------------------------------------------------ */

static const struct fs_who who = {.uid = 1000, .gid = 1000};
static inum_t dirs[64], files[512];
static unsigned count_dirs, count_files;

static inum_t make(inum_t dir, const char *name, mode_t mode)
{
	struct fs_attr attr;

	expect_equal(fs_create(fs, &who, dir, name, mode, 0, &attr), 0);
	fs_forget(fs, attr.ino, 1);
	return attr.ino;
}

static inum_t any_dir(void)
{
	return dirs[random_below(&rng, count_dirs)];
}

static inum_t any_file(void)
{
	return files[random_below(&rng, count_files)];
}

static void put(inum_t ino, uint64_t block, size_t bytes)
{
	static uint8_t data[64 << 10];
	size_t done;

	for (size_t i = 0; i < bytes; i += 64)
		data[i] = (uint8_t)random_next(&rng);
	expect_equal(fs_write(fs, ino, block * BLOCK_BYTES, data, bytes, &done), 0);
}

static void populate_names(void)
{
	char name[80], target[3000];
	struct fs_attr attr;

	dirs[count_dirs++] = FS_ROOT_INO;
	for (unsigned i = 0; i < 30; i++) {
		snprintf(name, sizeof(name), "dir%u", i);
		dirs[count_dirs] = make(any_dir(), name, S_IFDIR | 0755);
		count_dirs++;
	}
	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "file-with-a-name-of-some-length-%u", i);
		files[count_files] = make(any_dir(), name, S_IFREG | 0644);
		count_files++;
	}
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "link%u", i);
		expect_equal(fs_link(fs, any_file(), any_dir(), name, &attr), 0);
		fs_forget(fs, attr.ino, 1);
		snprintf(name, sizeof(name), "symlink%u", i);
		memset(target, 'a' + (int)(i % 26), sizeof(target));
		target[random_below(&rng, 2900) + 1] = 0;
		expect_equal(fs_symlink(fs, &who, any_dir(), name, target, &attr), 0);
		fs_forget(fs, attr.ino, 1);
	}
	make(any_dir(), "fifo", S_IFIFO | 0600);
}

static void populate_data(void)
{
	uint64_t copied;

	for (unsigned i = 0; i < 1500; i++)
		put(any_file(), random_below(&rng, 20) * 2, 1 + random_below(&rng, 3 * BLOCK_BYTES));
	for (unsigned i = 0; i < 30; i++) {
		expect_equal(fs_fallocate(fs, any_file(), i % 2 ? FALLOC_FL_KEEP_SIZE : 0, random_below(&rng, 40) * BLOCK_BYTES, 5 * BLOCK_BYTES), 0);
		fs_copy_range(fs, any_file(), 0, any_file(), 0, 10 * BLOCK_BYTES, &copied);
	}
	for (unsigned i = 0; i < 40; i++)
		expect_equal(fs_fallocate(fs, any_file(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, random_below(&rng, 10) * BLOCK_BYTES,
					  2 * BLOCK_BYTES), 0);
}

/* Bad places in files, in free space, and one that only `damaged` tells of. */
static void populate_ledger(void)
{
	struct format_damaged damaged;
	const struct damaged_record record = {.length_bytes = 4096, .cause_id = 1};
	struct btree_key key = {{files[3], 8192}};
	struct tx *tx;

	for (unsigned i = 0; i < 60; i++)
		expect_equal(notify_report(fs->notify, (24u << 20) + random_below(&rng, (8u << 20) / 512) * 512, 512 * (1 + random_below(&rng, 9)),
					   FAILURE_CONTROL), 0);
	expect_equal(fs_notify_wait(fs, 5000), 0);
	expect_equal(fs_tx_begin(fs, TX_RESERVE, &tx), 0);
	format_damaged_pack(&damaged, &record);
	expect_equal(btree_insert(&fs->damaged, tx, &key, &damaged, sizeof(damaged)), 0);
	expect_equal(ledger_copy_put(&fs->damaged, tx, &key, &damaged, sizeof(damaged)), 0);
	expect_equal(tx_commit(tx, NULL), 0);
}

/* --- what can be seen ------------------------------------------------------------------------------------------------------------------------------ */

struct view {
	char *text;
	size_t size;
	FILE *out;
	inum_t without; /* an inode that is left out, and what is in it */
};

static void view_file(struct view *view, const struct fs_attr *attr)
{
	static uint8_t data[256 << 10];
	uint32_t crc = 0;
	size_t done;

	for (uint64_t at = 0; at < attr->record.size_bytes; at += BLOCK_BYTES) {
		int error = fs_read(fs, attr->ino, at, data, BLOCK_BYTES, &done);

		crc = crc32c(crc, error ? "bad" : (const char *)data, error ? 3 : done);
	}
	fprintf(view->out, " size %llu blocks %llu crc %08x", (unsigned long long)attr->record.size_bytes,
		(unsigned long long)attr->record.count_blocks, crc);
}

static void view_dir(struct view *view, inum_t dir, const char *path);

static void view_entry(struct view *view, inum_t dir, const char *path, const char *name)
{
	char full[1024], target[4200];
	struct fs_attr attr;

	expect_equal(fs_lookup(fs, dir, name, &attr), 0);
	fs_forget(fs, attr.ino, 1);
	snprintf(full, sizeof(full), "%s/%s", path, name);
	if (attr.ino == view->without)
		return;
	fprintf(view->out, "%s ino %llu mode %o uid %u links %u gen %u flags %llx", full, (unsigned long long)attr.ino, attr.record.mode, attr.record.uid,
		attr.record.nlink, attr.record.generation, (unsigned long long)attr.record.flags);
	if (S_ISREG(attr.record.mode))
		view_file(view, &attr);
	if (S_ISLNK(attr.record.mode)) {
		expect_equal(fs_readlink(fs, attr.ino, target, sizeof(target)), 0);
		fprintf(view->out, " -> %zu %c", strlen(target), target[0]);
	}
	fprintf(view->out, "\n");
	if (S_ISDIR(attr.record.mode))
		view_dir(view, attr.ino, full);
}

struct names {
	char list[700][80];
	unsigned count;
};

static int name_take(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next_cookie, const struct fs_attr *attr)
{
	struct names *names = arg;

	if (strcmp(name, ".") && strcmp(name, ".."))
		snprintf(names->list[names->count++], sizeof(names->list[0]), "%s", name);
	return 0;
}

static void view_dir(struct view *view, inum_t dir, const char *path)
{
	struct names *names = calloc(1, sizeof(*names));

	expect_equal(fs_readdir(fs, dir, 0, false, name_take, names), 0);
	qsort(names->list, names->count, sizeof(names->list[0]), (int (*)(const void *, const void *))strcmp);
	for (unsigned i = 0; i < names->count; i++)
		view_entry(view, dir, path, names->list[i]);
	free(names);
}

static int view_badblock(void *arg, const struct badblock_record *record)
{
	fprintf(arg, "bad %llu %llu cause %llu state %x\n", (unsigned long long)record->offset, (unsigned long long)record->length_bytes,
		(unsigned long long)record->cause_id, record->state);
	return 0;
}

static int view_lost(void *arg, const struct lost_record *record)
{
	fprintf(arg, "lost %llu %llu cause %llu\n", (unsigned long long)record->offset, (unsigned long long)record->length_bytes,
		(unsigned long long)record->cause_id);
	return 0;
}

static int view_damage(void *arg, const struct fs_damage *damage)
{
	fprintf(arg, "damage %llu %llu %llu\n", (unsigned long long)damage->ino, (unsigned long long)damage->pos,
		(unsigned long long)damage->length_bytes);
	return 0;
}

static char *view_without(inum_t without)
{
	struct view view = {.without = without};
	struct fs_statfs statfs;

	view.out = open_memstream(&view.text, &view.size);
	view_dir(&view, FS_ROOT_INO, "");
	expect_equal(ledger_walk_badblocks(fs->notify, view_badblock, view.out), 0);
	expect_equal(ledger_walk_lost(fs->notify, view_lost, view.out), 0);
	expect_equal(fs_damaged(fs, view_damage, view.out), 0);
	fs_statfs(fs, &statfs);
	fprintf(view.out, "inodes %llu\n", (unsigned long long)statfs.inodes);
	fclose(view.out);
	return view.text;
}

static char *view_all(void)
{
	return view_without(0);
}

/* Both are given back. */
static void expect_same(char *before, char *after)
{
	size_t i = 0;

	while (before[i] && before[i] == after[i])
		i++;
	if (before[i] != after[i]) {
		while (i > 0 && before[i - 1] != '\n')
			i--;
		ck_abort_msg("was: %.200s\n  is: %.200s", before + i, after + i);
	}
	free(before);
	free(after);
}

static uint8_t *image; /* of the populated filesystem */

static void setup(void)
{
	rng = random_start("fsck_records");
	is_verbose = getenv("VERBOSE") != NULL;
	if (!is_verbose)
		log_set_level(LOG_LEVEL_SILENT);
	expect_equal(lab_create(LAB_BYTES, MEDIA_CACHELINE, &lab), 0);
	expect_equal(fsfix_format_media(lab_media(lab)), 0);
	mount_as(false);
	count_dirs = count_files = 0;
	populate_names();
	populate_data();
	populate_ledger();
	expect_equal(check(), 0);
	unmount();
	image = malloc(LAB_BYTES);
	memcpy(image, lab_bytes(lab), LAB_BYTES);
	mount_as(true);
}

static void teardown(void)
{
	if (fs)
		unmount();
	lab_destroy(lab);
	free(image);
}

/* --- damage ------------------------------------------------------------------------------------------------------------------------------------------ */

static struct btree tree_of(unsigned number)
{
	struct btree tree = {0};

	switch (number) {
	case FORMAT_TREE_INODES: return fs->inodes;
	case FORMAT_TREE_DIRENTS: return fs->dirents;
	case FORMAT_TREE_PARENTS: return fs->parents;
	case FORMAT_TREE_EXTENTS: return fs->extents;
	case FORMAT_TREE_XATTRS: return fs->xattrs;
	case FORMAT_TREE_RMAP: return fs->rmap.tree;
	case FORMAT_TREE_FREE: return *alloc_tree(fs->alloc);
	case FORMAT_TREE_BADBLOCKS: btree_init(&tree, fs->journal, &badblocks_ops); break;
	case FORMAT_TREE_LOST: btree_init(&tree, fs->journal, &lost_ops); break;
	case FORMAT_TREE_DAMAGED: return fs->damaged;
	case FORMAT_TREE_ORPHANS: return fs->orphans;
	case FORMAT_TREE_LEDGER_COPY: btree_init(&tree, fs->journal, &ledger_copy_ops); break;
	}
	return tree;
}

static struct tx *begin(void)
{
	struct tx *tx = NULL;

	expect_equal(tx_begin(fs->journal, TX_RESERVE, &tx), 0);
	return tx;
}

/* The record that `skip` others come before. */
struct nth {
	uint64_t skip;
	struct btree_key key;
};

static int nth_visit(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct nth *nth = arg;

	nth->key = *key;
	return nth->skip-- == 0;
}

static bool tree_pick(const struct btree *tree, struct btree_key *out)
{
	struct btree_key first = {{0}}, last = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}};
	uint64_t records = 0;
	struct nth nth;
	int found;

	journal_read_begin(fs->journal);
	expect_equal(btree_check(tree, &records), 0);
	nth.skip = records ? random_below(&rng, records) : 0;
	found = records ? btree_walk(tree, &first, &last, nth_visit, &nth) : 0;
	journal_read_end(fs->journal);
	*out = nth.key;
	return found == 1;
}

static void tree_lose_record(const struct btree *tree)
{
	struct btree_key key;
	struct tx *tx;

	if (!tree_pick(tree, &key))
		return;
	tx = begin();
	expect_equal(btree_remove(tree, tx, &key), 0);
	expect_equal(tx_commit(tx, NULL), 0);
}

static void tree_lose_all(const struct btree *tree)
{
	struct btree_key key = {{0}};
	struct btree_record found;
	int error = 0;

	while (!error) {
		struct tx *tx = begin();

		while (!error && tx_room(tx) > 30) {
			error = btree_lookup_ge(tree, &key, &found);
			if (!error)
				expect_equal(btree_remove(tree, tx, &found.key), 0);
		}
		expect_equal(tx_commit(tx, NULL), 0);
	}
	expect_equal(error, -ENOENT);
}

/* Down to the leaf's parent at random; false: the root is a leaf, or too narrow. */
static bool path_pick(struct btree_path *path, const struct btree *tree)
{
	if (path_begin(path, tree))
		return false;
	for (;;) {
		struct btree_step *step = path_last(path);

		if (path_at_leaf(path) || (path->depth == 1 && node_count(step_node(step)) < 3)) {
			path_end(path);
			return false;
		}
		step->index = (unsigned)random_below(&rng, node_count(step_node(step)));
		if (step_node(step)->level == 1)
			return true;
		expect_equal(path_down(path), 0);
	}
}

static void path_settle_aggregates(struct btree_path *path, struct tx *tx)
{
	for (unsigned d = path->depth - 1; d > 0; d--) {
		expect_equal(tx_join(tx, path->step[d - 1].buf), 0);
		node_set_aggregate(step_node(&path->step[d - 1]), path->step[d - 1].index, node_aggregate(step_node(&path->step[d]), path->tree->ops));
	}
}

/* As when all copies of a leaf are gone: its parent forgets it, its neighbours know nothing. */
static void tree_lose_leaf(const struct btree *tree)
{
	struct tx *tx = begin();
	struct btree_path path;
	struct btree_step leaf, *parent;

	if (!path_pick(&path, tree)) {
		tx_abort(tx);
		tree_lose_record(tree);
		return;
	}
	parent = path_last(&path);
	if (node_count(step_node(parent)) > 1) {
		expect_equal(path_open_child(&path, parent, parent->index, &leaf), 0);
		expect_equal(tx_join(tx, parent->buf), 0);
		node_remove(step_node(parent), parent->index);
		expect_equal(buf_destroy(tx, leaf.buf), 0);
		path_settle_aggregates(&path, tx);
	}
	path_end(&path);
	expect_equal(tx_commit(tx, NULL), 0);
}

static void tree_damage(unsigned number, unsigned way)
{
	struct btree tree = tree_of(number);
	unsigned count = 1 + (unsigned)random_below(&rng, 4);

	if (is_verbose)
		printf("  damage: %s way %u\n", format_tree_name(number), way);
	if (way == 2)
		tree_lose_all(&tree);
	for (unsigned i = 0; i < count && way == 1; i++)
		tree_lose_leaf(&tree);
	for (unsigned i = 0; i < count && way == 0; i++)
		tree_lose_record(&tree);
	expect_equal(fs_unmount(fs), 0);
	mount_as(true);
}

/* The damaged filesystem is what it was. */
static void restore_image(void)
{
	unmount();
	memcpy(lab_bytes(lab), image, LAB_BYTES);
	mount_as(true);
}

/* --- tests -------------------------------------------------------------------------------------------------------------------------------------------------- */

START_TEST(a_whole_filesystem_is_left_alone)
{
	char *before = view_all();

	run_records();
	if (report.fixed + report.losses)
		ck_abort_msg("%llu repairs", (unsigned long long)report.fixed);
	expect_same(before, view_all());
}
END_TEST

static const unsigned derivable[] = {FORMAT_TREE_DIRENTS, FORMAT_TREE_PARENTS, FORMAT_TREE_EXTENTS, FORMAT_TREE_RMAP, FORMAT_TREE_FREE,
				     FORMAT_TREE_BADBLOCKS, FORMAT_TREE_LOST, FORMAT_TREE_DAMAGED, FORMAT_TREE_LEDGER_COPY, FORMAT_TREE_ORPHANS};

/* One tree, one way, per turn of the loop test. */
START_TEST(a_tree_that_others_tell_of_loses_nothing)
{
	for (unsigned way = 0; way < 3; way++) {
		char *before = view_all();

		tree_damage(derivable[_i], way);
		repair_all();
		expect_equal(report.losses, 0);
		expect_same(before, view_all());
		restore_image();
	}
}
END_TEST

/* One tree of each pair at a time. */
START_TEST(losses_in_several_trees_at_once_lose_nothing)
{
	static const unsigned pairs[][2] = {{FORMAT_TREE_DIRENTS, FORMAT_TREE_PARENTS}, {FORMAT_TREE_EXTENTS, FORMAT_TREE_RMAP},
					    {FORMAT_TREE_FREE, FORMAT_TREE_ORPHANS}, {FORMAT_TREE_BADBLOCKS, FORMAT_TREE_LEDGER_COPY}};

	for (unsigned round = 0; round < ROUNDS; round++) {
		char *before = view_all();

		for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++)
			if (random_below(&rng, 3))
				tree_damage(pairs[i][random_below(&rng, 2)], random_below(&rng, 8) ? (unsigned)random_below(&rng, 2) : 2);
		repair_all();
		expect_equal(report.losses, 0);
		expect_same(before, view_all());
		restore_image();
	}
	printf("sample: fsck_records: %u random combinations of lost records, leaves and trees\n", ROUNDS);
}
END_TEST

static void add_tests(TCase *t)
{
	tcase_add_test(t, a_whole_filesystem_is_left_alone);
	tcase_add_loop_test(t, a_tree_that_others_tell_of_loses_nothing, 0, (int)ARRAY_SIZE(derivable));
	tcase_add_test(t, losses_in_several_trees_at_once_lose_nothing);
}

int main(void)
{
	Suite *suite = suite_create("fsck_records");
	TCase *t = tcase_create("plain");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 600);
	add_tests(t);
	suite_add_tcase(suite, t);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
