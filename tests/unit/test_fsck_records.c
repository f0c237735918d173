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
#include "fs/acl.h"
#include "fs/dir.h"
#include "journal/chunk.h"
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

static void set_attribute(inum_t ino, unsigned number, size_t size)
{
	static const struct fs_who root = {.uid = 0};
	static uint8_t value[65536];
	char name[40];

	snprintf(name, sizeof(name), "user.attribute-%u", number);
	memset(value, (int)(ino + number + random_below(&rng, 3)), size);
	expect_equal(fs_setxattr(fs, &root, ino, name, value, size, 0), 0);
}

static void set_acl(inum_t ino, const char *name, uint16_t mask)
{
	static const struct fs_who root = {.uid = 0};
	const struct acl acl = {
		.count = 5,
		.entries = {{ACL_TAG_USER_OBJ, 6, 0}, {ACL_TAG_USER, 7, 5}, {ACL_TAG_GROUP_OBJ, 7, 0}, {ACL_TAG_MASK, mask, 0}, {ACL_TAG_OTHER, 4, 0}},
	};
	uint8_t blob[ACL_BLOB_MAX];

	expect_equal(fs_setxattr(fs, &root, ino, name, blob, format_acl_pack(blob, &acl), 0), 0);
}

static void populate_attributes(void)
{
	for (unsigned i = 0; i < 150; i++)
		set_attribute(i % 4 ? any_file() : any_dir(), (unsigned)random_below(&rng, 3), random_below(&rng, i % 5 ? 200 : 4000));
	set_attribute(files[1], 9, 60000);
	for (unsigned i = 0; i < 20; i++) {
		set_acl(any_file(), XATTR_NAME_ACCESS, (uint16_t)random_below(&rng, 8));
		set_acl(any_dir(), XATTR_NAME_DEFAULT, 5);
	}
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
	bool is_coarse; /* only what survives the loss of inode records: places, types, contents up to the last byte that is not zero */
	bool hides_content; /* of symlinks; with is_coarse: of files too */
};

static void view_file(struct view *view, const struct fs_attr *attr)
{
	static const uint8_t zeros[BLOCK_BYTES];
	static uint8_t data[BLOCK_BYTES];
	uint32_t crc = 0, until_data = 0;
	size_t done;

	for (uint64_t at = 0; at < attr->record.size_bytes; at += BLOCK_BYTES) {
		int error = fs_read(fs, attr->ino, at, data, BLOCK_BYTES, &done);

		memset(data + done, 0, BLOCK_BYTES - done);
		crc = crc32c(crc, error ? "bad" : (const char *)data, error ? 3 : BLOCK_BYTES);
		if (error || memcmp(data, zeros, BLOCK_BYTES))
			until_data = crc;
	}
	fprintf(view->out, " crc %08x", until_data);
	if (!view->is_coarse)
		fprintf(view->out, " size %llu blocks %llu", (unsigned long long)attr->record.size_bytes,
			(unsigned long long)attr->record.count_blocks);
}

/* ACLs follow a mode that is made up. */
static void view_attributes(struct view *view, inum_t ino)
{
	static const struct fs_who root = {.uid = 0};
	static uint8_t value[65536];
	static char names[65536];
	size_t used, length;

	expect_equal(fs_listxattr(fs, &root, ino, names, sizeof(names), &used), 0);
	for (size_t at = 0; at < used; at += strlen(names + at) + 1) {
		if (view->is_coarse && !strncmp(names + at, "system", 6))
			continue;
		expect_equal(fs_getxattr(fs, &root, ino, names + at, value, sizeof(value), &length), 0);
		fprintf(view->out, " %s %zu %08x", names + at, length, crc32c(0, value, length));
	}
}

static void view_dir(struct view *view, inum_t dir, const char *path);

static void view_entry(struct view *view, inum_t dir, const char *path, const char *name)
{
	char full[1024], target[4200];
	struct fs_attr attr;

	expect_equal(fs_lookup(fs, dir, name, &attr), 0);
	fs_forget(fs, attr.ino, 1);
	snprintf(full, sizeof(full), "%s/%s", path, name);
	if (view->is_coarse && dir == FS_ROOT_INO && !strcmp(name, "lost+found"))
		return;
	fprintf(view->out, "%s ino %llu type %o", full, (unsigned long long)attr.ino, attr.record.mode & S_IFMT);
	if (!view->is_coarse)
		fprintf(view->out, " mode %o uid %u links %u gen %u flags %llx", attr.record.mode, attr.record.uid, attr.record.nlink,
			attr.record.generation, (unsigned long long)attr.record.flags);
	if (S_ISREG(attr.record.mode) && !(view->is_coarse && view->hides_content))
		view_file(view, &attr);
	if (S_ISLNK(attr.record.mode) && !view->hides_content) {
		expect_equal(fs_readlink(fs, attr.ino, target, sizeof(target)), 0);
		fprintf(view->out, " -> %zu %c", strlen(target), target[0]);
	}
	if (!view->hides_content)
		view_attributes(view, attr.ino);
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

static char *view_as(bool is_coarse, bool hides_content)
{
	struct view view = {.is_coarse = is_coarse, .hides_content = hides_content};
	struct fs_statfs statfs;

	view.out = open_memstream(&view.text, &view.size);
	view_dir(&view, FS_ROOT_INO, "");
	expect_equal(ledger_walk_badblocks(fs->notify, view_badblock, view.out), 0);
	expect_equal(ledger_walk_lost(fs->notify, view_lost, view.out), 0);
	if (!is_coarse)
		expect_equal(fs_damaged(fs, view_damage, view.out), 0);
	fs_statfs(fs, &statfs);
	if (!is_coarse)
		fprintf(view.out, "inodes %llu\n", (unsigned long long)statfs.inodes);
	fclose(view.out);
	return view.text;
}

static char *view_all(void)
{
	return view_as(false, false);
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
	populate_attributes();
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
		node_set_aggregate(step_node(&path->step[d - 1]), path->step[d - 1].index, btree_node_aggregate(path->tree, step_node(&path->step[d])));
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

/* --- inodes --- */

static uint64_t count_lost_inodes(const uint8_t *was)
{
	uint64_t lost = 0;

	for (inum_t ino = 1; ino < 1000; ino++) {
		struct btree_key key = {{ino}};
		struct btree_record found;

		journal_read_begin(fs->journal);
		lost += was[ino] && btree_lookup(&fs->inodes, &key, &found) == -ENOENT;
		journal_read_end(fs->journal);
	}
	return lost;
}

static void find_inodes(uint8_t *out)
{
	memset(out, 0, 1000);
	for (inum_t ino = 1; ino < 1000; ino++) {
		struct btree_key key = {{ino}};
		struct btree_record found;

		journal_read_begin(fs->journal);
		out[ino] = btree_lookup(&fs->inodes, &key, &found) == 0;
		journal_read_end(fs->journal);
	}
}

/* A regular file whose record was lost can be had by its number too. */
static void expect_in_lost_found(const uint8_t *was_lost)
{
	struct fs_attr dir, attr, file;
	char name[32];

	for (unsigned i = 0; i < count_files; i++) {
		if (!was_lost[files[i]])
			continue;
		expect_equal(fs_lookup(fs, FS_ROOT_INO, "lost+found", &dir), 0);
		snprintf(name, sizeof(name), "%llu", (unsigned long long)files[i]);
		expect_equal(fs_lookup(fs, dir.ino, name, &attr), 0);
		expect_equal(attr.ino, files[i]);
		expect_equal(fs_getattr(fs, files[i], &file), 0);
		expect_equal(attr.record.mode, S_IFREG | 0600);
		fs_forget(fs, attr.ino, 1);
		fs_forget(fs, dir.ino, 1);
	}
}

static void lose_inodes(unsigned way)
{
	char *before = view_as(true, false);
	uint8_t was[1000], is[1000];
	uint64_t lost;

	find_inodes(was);
	tree_damage(FORMAT_TREE_INODES, way);
	find_inodes(is);
	lost = count_lost_inodes(was);
	for (unsigned i = 0; i < 1000; i++)
		was[i] = was[i] && !is[i];
	repair_all();
	expect_equal(report.losses, lost);
	expect_same(before, view_as(true, false));
	expect_in_lost_found(was);
	restore_image();
}

START_TEST(lost_inodes_keep_their_names_and_data)
{
	for (unsigned i = 0; i < 6; i++)
		lose_inodes(i % 3);
}
END_TEST

static int count_target(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	*(unsigned *)arg += key->word[1] == 0;
	return 0;
}

static unsigned count_parts_of_targets(void)
{
	const struct btree_key first = {{0}}, last = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}};
	struct btree tree = tree_of(FORMAT_TREE_XATTRS);
	unsigned count = 0;

	journal_read_begin(fs->journal);
	expect_equal(btree_walk(&tree, &first, &last, count_target, &count), 0);
	journal_read_end(fs->journal);
	return count;
}

/* An attribute of one part that is gone is missed by nobody. */
START_TEST(lost_targets_of_symlinks_lose_nothing_else)
{
	for (unsigned way = 0; way < 3; way++) {
		char *before = view_as(false, true);
		unsigned had = count_parts_of_targets(), left;

		tree_damage(FORMAT_TREE_XATTRS, way);
		left = count_parts_of_targets();
		repair_all();
		expect(left <= had && (report.losses > 0 || left == had));
		expect_same(before, view_as(false, true));
		restore_image();
	}
}
END_TEST

/* Inodes and one tree of each pair: what others tell of is there nevertheless. */
START_TEST(lost_inodes_and_other_trees_lose_no_more_than_inodes)
{
	static const unsigned others[] = {FORMAT_TREE_DIRENTS, FORMAT_TREE_PARENTS, FORMAT_TREE_EXTENTS, FORMAT_TREE_RMAP, FORMAT_TREE_FREE};

	for (unsigned round = 0; round < 2 * ARRAY_SIZE(others); round++) {
		char *before = view_as(true, false);

		tree_damage(FORMAT_TREE_INODES, 1);
		tree_damage(others[round % ARRAY_SIZE(others)], round < ARRAY_SIZE(others) ? 1 : 2);
		repair_all();
		expect_same(before, view_as(true, false));
		restore_image();
	}
}
END_TEST

/* With neither dirents nor parents nothing has a name: everything is in lost+found under its number. */
START_TEST(without_any_names_all_is_in_lost_found)
{
	struct fs_attr dir, attr;
	char name[32];

	tree_damage(FORMAT_TREE_DIRENTS, 2);
	tree_damage(FORMAT_TREE_PARENTS, 2);
	repair_all();
	expect_equal(report.losses, 0);
	expect_equal(fs_lookup(fs, FS_ROOT_INO, "lost+found", &dir), 0);
	for (unsigned i = 0; i < count_files; i++) {
		snprintf(name, sizeof(name), "%llu", (unsigned long long)files[i]);
		expect_equal(fs_lookup(fs, dir.ino, name, &attr), 0);
		fs_forget(fs, attr.ino, 1);
	}
	fs_forget(fs, dir.ino, 1);
}
END_TEST

/* --- wrong values --- */

static void change_inode(inum_t ino, void (*change)(struct inode_record *record))
{
	struct btree_key key = {{ino}};
	struct inode_record record;
	struct format_inode packed;
	struct btree_record found;
	struct tx *tx = begin();

	expect_equal(btree_lookup(&fs->inodes, &key, &found), 0);
	expect_equal(format_inode_unpack(&record, found.value, found.length), 0);
	change(&record);
	format_inode_pack(&packed, &record);
	expect_equal(btree_update(&fs->inodes, tx, &key, &packed, sizeof(packed)), 0);
	expect_equal(tx_commit(tx, NULL), 0);
}

static void spoil(struct inode_record *record)
{
	record->nlink += 3;
	record->entries += 5;
	record->count_blocks += 7;
	if (S_ISDIR(record->mode))
		record->parent = dirs[4];
}

START_TEST(wrong_counts_of_inodes_are_corrected)
{
	char *before = view_all();

	for (unsigned i = 0; i < count_files; i += 3)
		change_inode(files[i], spoil);
	for (unsigned i = 0; i < count_dirs; i += 2)
		change_inode(dirs[i], spoil);
	unmount();
	mount_as(true);
	repair_all();
	expect_equal(report.losses, 0);
	expect_same(before, view_all());
}
END_TEST

static void drop_share_flag(struct inode_record *record)
{
	record->flags &= ~INODE_MAY_SHARE;
}

START_TEST(who_shares_is_flagged)
{
	for (unsigned i = 0; i < count_files; i++)
		change_inode(files[i], drop_share_flag);
	unmount();
	mount_as(true);
	expect(check() > 0);
	repair_all();
}
END_TEST

static void cut_size(struct inode_record *record)
{
	record->size_bytes = 0;
}

/* As an inode record is that is older than what was written: the data must be reachable. */
START_TEST(a_size_below_what_is_written_is_raised)
{
	char *before = view_as(true, false);

	for (unsigned i = 0; i < count_files; i += 3)
		change_inode(files[i], cut_size);
	unmount();
	mount_as(true);
	repair_all();
	expect_same(before, view_as(true, false));
}
END_TEST

/* Two directories below each other. */
START_TEST(a_loop_of_directories_is_cut)
{
	inum_t a, b, c;
	struct fs_attr attr;

	unmount();
	mount_as(false);
	a = make(FS_ROOT_INO, "loop-a", S_IFDIR | 0755);
	b = make(a, "loop-b", S_IFDIR | 0755);
	c = make(b, "loop-c", S_IFDIR | 0755);
	unmount();
	mount_as(true);
	{
		struct dir_entry entry;
		struct tx *tx = begin();

		expect_equal(dir_lookup_entry(fs, FS_ROOT_INO, "loop-a", &entry), 0);
		expect_equal(dir_remove_entry(fs, tx, FS_ROOT_INO, &entry), 0);
		expect_equal(dir_insert_entry(fs, tx, c, &entry), 0);
		expect_equal(tx_commit(tx, NULL), 0);
	}
	repair_all();
	expect_equal(report.lost_found, 1);
	expect_equal(fs_lookup(fs, FS_ROOT_INO, "lost+found", &attr), 0);
}
END_TEST

START_TEST(blocks_both_free_and_owned_are_owned)
{
	char *before = view_all();
	struct extent extent;
	struct tx *tx;

	journal_read_begin(fs->journal);
	for (unsigned i = 0; i < count_files; i++)
		if (!extent_lookup(fs, files[i], 0, &extent))
			break;
	journal_read_end(fs->journal);
	tx = begin();
	expect_equal(alloc_give(fs->alloc, tx, extent.block, 1), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	unmount();
	mount_as(true);
	repair_all();
	expect_same(before, view_all());
}
END_TEST

/* A block of the journal as data of a file, and one of a file as quarantined. */
START_TEST(areas_belong_to_no_file_and_files_are_not_quarantined)
{
	struct extent extent = {.file_block = 100000, .block = fs->super.areas[AREA_JOURNAL].copy[1] / BLOCK_BYTES, .count_blocks = 3};
	char *before = view_as(true, false);
	struct rmap_record record = {.count = 1, .owner = OWNER(OWNER_QUARANTINE)};
	struct extent used;
	struct tx *tx = begin();

	expect_equal(extent_insert(fs, tx, files[0], &extent), 0);
	for (unsigned i = 0; i < count_files; i++)
		if (!extent_lookup(fs, files[i], 0, &used))
			break;
	record.start = used.block;
	expect_equal(rmap_insert(&fs->rmap, tx, &record), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	unmount();
	mount_as(true);
	expect(check() > 0);
	repair_all();
	expect_same(before, view_as(true, false));
}
END_TEST

START_TEST(ranges_of_damage_that_overlap_become_one_after_the_other)
{
	const struct damaged_record record = {.length_bytes = 9000, .cause_id = 1};
	struct btree_key key = {{files[3], 8192 + 100}};
	struct format_damaged damaged;
	struct tx *tx = begin();

	format_damaged_pack(&damaged, &record);
	expect_equal(btree_insert(&fs->damaged, tx, &key, &damaged, sizeof(damaged)), 0);
	expect_equal(ledger_copy_put(&fs->damaged, tx, &key, &damaged, sizeof(damaged)), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	expect(check() > 0);
	repair_all();
}
END_TEST

/* All free space is taken by a file: what fsck needs is in the reserve. */
START_TEST(a_full_filesystem_can_be_repaired)
{
	static uint8_t data[1 << 20];
	inum_t ino;
	size_t done;
	char *before;

	unmount();
	mount_as(false);
	ino = make(FS_ROOT_INO, "big", S_IFREG | 0644);
	for (uint64_t at = 0; !fs_write(fs, ino, at, data, sizeof(data), &done); at += done)
		;
	unmount();
	mount_as(true);
	before = view_as(true, false);
	tree_damage(FORMAT_TREE_INODES, 2);
	tree_damage(FORMAT_TREE_DIRENTS, 1);
	tree_damage(FORMAT_TREE_RMAP, 2);
	repair_all();
	expect_same(before, view_as(true, false));
}
END_TEST

/* --- leaves of an older state --- */

struct leaf {
	maddr_t address;
	devoff_t copy[2];
};
struct leaves {
	struct leaf list[4096];
	unsigned count;
};

static int leaf_visit(void *arg, maddr_t address, unsigned level, int error)
{
	struct leaves *leaves = arg;

	expect_equal(error, 0);
	if (level == 0) {
		leaves->list[leaves->count].address = address;
		expect_equal(chunk_map(fs->journal, address, leaves->list[leaves->count].copy), 0);
		leaves->count++;
	}
	return 0;
}

static void leaves_find(unsigned number, struct leaves *leaves)
{
	struct btree tree = tree_of(number);

	leaves->count = 0;
	journal_read_begin(fs->journal);
	expect_equal(btree_walk_nodes(&tree, leaf_visit, leaves), 0);
	journal_read_end(fs->journal);
}

/* Is the block at this place of the older image a leaf of the same tree, at the same address, and another one than now? */
static bool leaf_is_older(const uint8_t *old, const struct leaf *leaf, unsigned number)
{
	const struct format_node *node = (const struct format_node *)(old + leaf->copy[0]);

	return le64_get(node->header.address) == leaf->address && node->header.role == FORMAT_ROLE_NODE && node->header.tree == number &&
	       node->level == 0 && le16_get(node->count) > 0 && memcmp(node, lab_bytes(lab) + leaf->copy[0], BLOCK_BYTES);
}

/* Aggregates of inner nodes, which are the structure's, not the records'. -EUCLEAN: a leaf has keys that are not its own any more. */
static int settle_aggregates(const struct btree *tree)
{
	struct btree_path path;
	struct tx *tx = begin();
	int error = path_begin(&path, tree);

	while (!error && path.depth > 0) {
		struct btree_step *step = path_last(&path);

		if (!path_at_leaf(&path) && step->index < node_count(step_node(step))) {
			error = path_down(&path);
			continue;
		}
		if (path.depth > 1) {
			struct btree_step *parent = step - 1;

			expect_equal(tx_join(tx, parent->buf), 0);
			node_set_aggregate(step_node(parent), parent->index, btree_node_aggregate(tree, step_node(step)));
		}
		path_up(&path);
		if (path.depth > 0)
			path_last(&path)->index++;
	}
	path_end(&path);
	expect_equal(tx_commit(tx, NULL), 0);
	return error;
}

/* Put leaves of the older image in place of today's; false: none would do. The filesystem is mounted before and after. */
static bool tree_grow_old(unsigned number, const uint8_t *old, unsigned want)
{
	static struct leaves leaves;
	static uint8_t saved[2][BLOCK_BYTES];
	unsigned done = 0;

	leaves_find(number, &leaves);
	for (unsigned i = 0; i < 4 * want && done < want && leaves.count; i++) {
		const struct leaf *leaf = &leaves.list[random_below(&rng, leaves.count)];
		struct btree tree;

		unmount();
		if (leaf_is_older(old, leaf, number)) {
			for (unsigned k = 0; k < 2; k++) {
				memcpy(saved[k], lab_bytes(lab) + leaf->copy[k], BLOCK_BYTES);
				memcpy(lab_bytes(lab) + leaf->copy[k], old + leaf->copy[0], BLOCK_BYTES);
			}
			done++;
			mount_as(true);
			tree = tree_of(number);
			if (!settle_aggregates(&tree))
				continue;
			done--;
			fs_abandon(fs);
			for (unsigned k = 0; k < 2; k++)
				memcpy(lab_bytes(lab) + leaf->copy[k], saved[k], BLOCK_BYTES);
		}
		mount_as(true);
	}
	return done > 0;
}

/* Names and data come, go and move. */
static void live_on(unsigned turns)
{
	char name[80];
	struct fs_attr attr;

	unmount();
	mount_as(false);
	for (unsigned i = 0; i < turns; i++) {
		unsigned which = (unsigned)random_below(&rng, count_files);
		struct names *names = calloc(1, sizeof(*names));
		inum_t dir = any_dir();

		set_attribute(any_file(), (unsigned)random_below(&rng, 3), random_below(&rng, 3000));
		set_acl(any_file(), XATTR_NAME_ACCESS, (uint16_t)random_below(&rng, 8));
		put(files[which], random_below(&rng, 20) * 2, 1 + random_below(&rng, 3 * BLOCK_BYTES));
		fs_fallocate(fs, any_file(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, random_below(&rng, 20) * BLOCK_BYTES, 2 * BLOCK_BYTES);
		snprintf(name, sizeof(name), "later-%u-%llu", i, (unsigned long long)random_below(&rng, 1000000));
		if (!fs_link(fs, any_file(), any_dir(), name, &attr))
			fs_forget(fs, attr.ino, 1);
		expect_equal(fs_readdir(fs, dir, 0, false, name_take, names), 0);
		for (unsigned j = 0; j < names->count; j += 7) {
			if (fs_lookup(fs, dir, names->list[j], &attr))
				continue;
			fs_forget(fs, attr.ino, 1);
			if (S_ISREG(attr.record.mode) && attr.record.nlink > 1)
				expect_equal(fs_unlink(fs, dir, names->list[j]), 0);
			snprintf(name, sizeof(name), "moved-%u-%u", i, j);
			if (S_ISREG(attr.record.mode) && attr.record.nlink == 1)
				fs_rename(fs, &who, dir, names->list[j], any_dir(), name, 0);
		}
		free(names);
		snprintf(name, sizeof(name), "new-%u", i);
		files[which] = make(any_dir(), name, S_IFREG | 0640);
	}
	expect_equal(check(), 0);
	unmount();
	mount_as(true);
}

/* Rounds of older leaves of one tree, with lost ones of another in a pair. */
struct ageing {
	const unsigned *trees;
	unsigned count_trees, rounds;
	bool is_coarse, is_pair;
};

static void age_and_repair(const struct ageing *ageing)
{
	uint8_t *now = malloc(LAB_BYTES);
	unsigned tried = 0;
	char *before;

	live_on(25);
	/* A size that is too small by less than a block hides the rest of the block: nothing else tells of it. */
	before = view_as(ageing->is_coarse, ageing->is_coarse);
	unmount();
	memcpy(now, lab_bytes(lab), LAB_BYTES);
	mount_as(true);
	for (unsigned round = 0; round < ageing->rounds; round++) {
		unsigned tree = ageing->trees[round % ageing->count_trees];

		if (is_verbose)
			printf("  older leaves of %s\n", format_tree_name(tree));
		tried += tree_grow_old(tree, image, 1 + round % 3);
		if (ageing->is_pair)
			tree_damage(ageing->trees[random_below(&rng, ageing->count_trees)], 1);
		repair_all();
		if (!ageing->is_coarse)
			expect_equal(report.losses, 0);
		if (!ageing->is_pair)
			expect_same(strdup(before), view_as(ageing->is_coarse, ageing->is_coarse));
		unmount();
		memcpy(lab_bytes(lab), now, LAB_BYTES);
		mount_as(true);
	}
	expect(tried > ageing->count_trees);
	printf("sample: fsck_records: %u sets of leaves of an older state\n", tried);
	free(before);
	free(now);
}

START_TEST(leaves_of_an_older_state_lose_nothing)
{
	static const unsigned trees[] = {FORMAT_TREE_EXTENTS, FORMAT_TREE_RMAP, FORMAT_TREE_FREE, FORMAT_TREE_DIRENTS, FORMAT_TREE_PARENTS};
	const struct ageing ageing = {.trees = trees, .count_trees = ARRAY_SIZE(trees), .rounds = 30};

	age_and_repair(&ageing);
}
END_TEST

/* Attributes may be older ones; what was made since is where it was, what was deleted since may be there again. */
START_TEST(inodes_of_an_older_state_end_consistent)
{
	static const unsigned trees[] = {FORMAT_TREE_INODES};
	const struct ageing ageing = {.trees = trees, .count_trees = ARRAY_SIZE(trees), .rounds = 8, .is_coarse = true};

	age_and_repair(&ageing);
}
END_TEST

/* Each is as it was once, or gone. */
START_TEST(attributes_of_an_older_state_end_consistent)
{
	static const unsigned trees[] = {FORMAT_TREE_XATTRS};
	const struct ageing ageing = {.trees = trees, .count_trees = ARRAY_SIZE(trees), .rounds = 12, .is_coarse = true};

	age_and_repair(&ageing);
}
END_TEST

/* Whatever is hit besides: the end is consistent. */
START_TEST(older_and_lost_leaves_together_end_consistent)
{
	static const unsigned trees[] = {FORMAT_TREE_EXTENTS, FORMAT_TREE_RMAP, FORMAT_TREE_FREE, FORMAT_TREE_DIRENTS, FORMAT_TREE_PARENTS,
					 FORMAT_TREE_INODES, FORMAT_TREE_XATTRS};
	const struct ageing ageing = {.trees = trees, .count_trees = ARRAY_SIZE(trees), .rounds = 36, .is_coarse = true, .is_pair = true};

	age_and_repair(&ageing);
}
END_TEST

static void add_tests(TCase *t)
{
	tcase_add_test(t, lost_inodes_keep_their_names_and_data);
	tcase_add_test(t, lost_targets_of_symlinks_lose_nothing_else);
	tcase_add_test(t, lost_inodes_and_other_trees_lose_no_more_than_inodes);
	tcase_add_test(t, without_any_names_all_is_in_lost_found);
	tcase_add_test(t, wrong_counts_of_inodes_are_corrected);
	tcase_add_test(t, who_shares_is_flagged);
	tcase_add_test(t, a_size_below_what_is_written_is_raised);
	tcase_add_test(t, a_loop_of_directories_is_cut);
	tcase_add_test(t, blocks_both_free_and_owned_are_owned);
	tcase_add_test(t, areas_belong_to_no_file_and_files_are_not_quarantined);
	tcase_add_test(t, ranges_of_damage_that_overlap_become_one_after_the_other);
	tcase_add_test(t, a_full_filesystem_can_be_repaired);
	tcase_add_test(t, leaves_of_an_older_state_lose_nothing);
	tcase_add_test(t, inodes_of_an_older_state_end_consistent);
	tcase_add_test(t, attributes_of_an_older_state_end_consistent);
	tcase_add_test(t, older_and_lost_leaves_together_end_consistent);
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
