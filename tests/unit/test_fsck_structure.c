#include "fsck/fsck.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "format/journal_format.h"
#include "fs/inode.h"
#include "journal/chunk.h"
#include "journal/root.h"
#include "notify/ledger.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"
#include "tests/support/lab.h"
#include "tests/support/random.h"
#include "util/crc.h"
#include "util/log.h"

/*
 * Each kind of block, destroyed in each way: what no leaf held must come back whole, all records of all trees as they were. Two states of one filesystem are
 * kept, so that an older version of a block can be put back.
 */

#define LAB_BYTES (24u << 20)
#define FILES 1800u

/* A round takes several times as long there. */
#ifdef __SANITIZE_ADDRESS__
#define ROUNDS(n) ((n) / 3)
#else
#define ROUNDS(n) (n)
#endif

static struct lab *lab;
static uint8_t *old_image, *image;
static struct random rng;
static bool verbose;

/* --- the filesystem ---------------------------------------------------------------------------------------------------------- */

static struct fs *mount_lab(bool readonly)
{
	struct fs_options options = {.tools = true, .cache_bytes = 16u << 20, .readonly = readonly};
	struct why why = {0};
	struct fs *fs = NULL;
	int error;

	lab_reset(lab);
	error = fs_mount_media(lab_media(lab), &options, &why, &fs);
	if (error)
		ck_abort_msg("mount: %s", why.text);
	return fs;
}

static void make_file(struct fs *fs, inum_t dir, unsigned number, size_t bytes)
{
	static uint8_t data[3 * BLOCK_BYTES];
	const struct fs_who who = {.uid = 1000, .gid = 1000};
	struct fs_attr attr;
	char name[32];
	size_t done;

	memset(data, (int)number, sizeof(data));
	snprintf(name, sizeof(name), "file-%u", number);
	expect_equal(fs_create(fs, &who, dir, name, S_IFREG | 0644, 0, &attr), 0);
	expect_equal(fs_write(fs, attr.ino, (number % 3) * BLOCK_BYTES, data, bytes, &done), 0);
	fs_forget(fs, attr.ino, 1);
}

static void populate(struct fs *fs, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		make_file(fs, FS_ROOT_INO, i, i % 2 ? BLOCK_BYTES : 100);
}

static void depopulate(struct fs *fs, unsigned from, unsigned to, unsigned step)
{
	char name[32];

	for (unsigned i = from; i < to; i += step) {
		snprintf(name, sizeof(name), "file-%u", i);
		expect_equal(fs_unlink(fs, FS_ROOT_INO, name), 0);
	}
}

static void keep(uint8_t **to)
{
	*to = malloc(LAB_BYTES);
	memcpy(*to, lab_bytes(lab), LAB_BYTES);
}

static void build_images(void)
{
	struct fs *fs;

	expect_equal(lab_create(LAB_BYTES, MEDIA_CACHELINE, &lab), 0);
	expect_equal(fsfix_format_media(lab_media(lab)), 0);
	fs = mount_lab(false);
	populate(fs, 0, FILES * 2 / 3);
	expect_equal(fs_unmount(fs), 0);
	keep(&old_image);
	fs = mount_lab(false);
	depopulate(fs, 0, FILES / 3, 2);
	populate(fs, FILES * 2 / 3, FILES);
	expect_equal(fs_unmount(fs), 0);
	keep(&image);
}

static void restore(void)
{
	memcpy(lab_bytes(lab), image, LAB_BYTES);
	lab_heal_all(lab);
	lab_reset(lab);
}

/* --- what is in it ------------------------------------------------------------------------------------------------------------- */

struct sums {
	uint32_t tree[16];
	uint64_t records[16];
};

struct sum {
	struct sums *sums;
	unsigned tree;
};

static int sum_record(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct sum *sum = arg;
	uint32_t *crc = &sum->sums->tree[sum->tree];

	*crc = crc32c(*crc, key, sizeof(*key));
	*crc = crc32c(*crc, value, length);
	sum->sums->records[sum->tree]++;
	return 0;
}

static int sum_trees(struct fs *fs, struct sums *sums)
{
	const struct btree *trees[] = {&fs->inodes, &fs->dirents, &fs->parents, &fs->extents, &fs->xattrs, &fs->rmap.tree,
				       alloc_tree(fs->alloc), ledger_badblocks_tree(fs->notify), ledger_lost_tree(fs->notify),
				       &fs->damaged, &fs->orphans, &fs->intents};
	const struct btree_key first = {{0}}, last = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}};
	int error = 0;

	memset(sums, 0, sizeof(*sums));
	journal_read_begin(fs->journal);
	for (size_t i = 0; i < ARRAY_SIZE(trees) && !error; i++) {
		struct sum sum = {sums, trees[i]->ops->tree};

		error = btree_walk(trees[i], &first, &last, sum_record, &sum);
	}
	journal_read_end(fs->journal);
	return error;
}

static struct sums expected;

/* --- its blocks ----------------------------------------------------------------------------------------------------------------- */

struct victim {
	devoff_t copy[2];
	maddr_t address;
	uint8_t role, tree, level;
};
static struct victim victims[8192];
static size_t count_victims;

static void victim_add(struct fs *fs, maddr_t address)
{
	struct victim *victim = &victims[count_victims++];
	const struct format_node *node;
	struct buf *buf;

	expect(count_victims < ARRAY_SIZE(victims));
	victim->address = address;
	expect_equal(chunk_map(fs->journal, address, victim->copy), 0);
	expect_equal(buf_get_any(fs->journal, address, &buf), 0);
	node = (const struct format_node *)buf->data;
	victim->role = node->header.role;
	victim->tree = node->header.tree;
	victim->level = node->header.role == FORMAT_ROLE_NODE ? node->level : 0;
	buf_put(buf);
}

static void find_victims(void)
{
	struct fs *fs = mount_lab(true);
	struct chunk_entry entry;

	journal_read_begin(fs->journal);
	victim_add(fs, MADDR_ROOT);
	victim_add(fs, MADDR_TABLE);
	for (uint64_t c = 0; !chunk_entry(fs->journal, c, &entry); c++)
		for (unsigned i = 0; i < chunk_blocks(entry.shift); i++)
			if (entry.map[i / 64] >> i % 64 & 1)
				victim_add(fs, maddr_of_chunk(c, i));
	journal_read_end(fs->journal);
	expect_equal(sum_trees(fs, &expected), 0);
	expect_equal(fs_unmount(fs), 0);
}

static bool is_leaf(const struct victim *victim)
{
	return victim->role == FORMAT_ROLE_NODE && victim->level == 0;
}

/* --- destruction ----------------------------------------------------------------------------------------------------------------- */

enum kind { KIND_ZEROS, KIND_RANDOM, KIND_STALE, KIND_ELSEWHERE, KIND_POISON, KINDS };
static const char *const kind_names[] = {"zeros", "random", "stale", "elsewhere", "poison"};

static void fill_random(uint8_t *at)
{
	for (unsigned i = 0; i < BLOCK_BYTES; i += 8) {
		uint64_t word = random_next(&rng);

		memcpy(at + i, &word, 8);
	}
}

/* Does the older image have an older version of this very block there? */
static bool has_stale(const struct victim *victim, unsigned copy)
{
	const struct format_block_header *header = (const void *)(old_image + victim->copy[copy]);

	return le32_get(header->magic) == FORMAT_BLOCK_MAGIC && le64_get(header->address) == victim->address &&
	       memcmp(old_image + victim->copy[copy], image + victim->copy[copy], BLOCK_BYTES);
}

static bool destroy_copy(const struct victim *victim, unsigned copy, enum kind kind)
{
	uint8_t *at = lab_bytes(lab) + victim->copy[copy];
	const struct victim *other = &victims[random_below(&rng, count_victims)];

	switch (kind) {
	case KIND_ZEROS: memset(at, 0, BLOCK_BYTES); break;
	case KIND_RANDOM: fill_random(at); break;
	case KIND_STALE:
		if (!has_stale(victim, copy))
			return false;
		memcpy(at, old_image + victim->copy[copy], BLOCK_BYTES);
		break;
	case KIND_ELSEWHERE:
		if (other == victim)
			return false;
		memcpy(at, image + other->copy[copy], BLOCK_BYTES);
		break;
	default: expect_equal(lab_poison(lab, victim->copy[copy] + 64 * random_below(&rng, 64), 64), 0);
	}
	return true;
}

static bool destroy(const struct victim *victim, unsigned copies, enum kind kind)
{
	for (unsigned k = 0; k < 2; k++)
		if (copies & 1u << k && !destroy_copy(victim, k, kind))
			return false;
	return true;
}

/* --- repair ---------------------------------------------------------------------------------------------------------------------- */

static unsigned told_of_hole;

static unsigned told_notes;

static void tell(void *arg, enum fsck_grade grade, const char *line)
{
	told_notes += grade == FSCK_NOTE;
	told_of_hole += strstr(line, "behind the hole, changed: ") && strstr(line, "blocks, dirents");
	if (verbose)
		printf("  %d %s\n", grade, line);
}

static int run_fsck(bool write, struct fsck_report *report)
{
	struct fsck_options options = {.write = write, .force = true, .tell = tell};
	struct why why = {0};
	int error;

	lab_reset(lab);
	told_notes = 0;
	error = fsck_run(lab_media(lab), &options, report, &why);
	if (error)
		printf("fsck: %s\n", why.text);
	return error;
}

static void expect_same_records(const char *what)
{
	struct fs *fs = mount_lab(true);
	struct sums sums;

	expect_equal(sum_trees(fs, &sums), 0);
	for (unsigned i = 0; i < 16; i++)
		if (sums.tree[i] != expected.tree[i] || sums.records[i] != expected.records[i])
			ck_abort_msg("%s: tree %s: %llu records, %llu before", what, format_tree_name(i),
				     (unsigned long long)sums.records[i], (unsigned long long)expected.records[i]);
	expect_equal(fs_unmount(fs), 0);
}

static void expect_ends_well(const char *what, bool must_find)
{
	struct fsck_report report, again;
	int error = run_fsck(true, &report);

	if (error || report.left || report.losses || (must_find && !report.errors && !report.fixed))
		ck_abort_msg("%s: error %d, %llu errors, %llu fixed, %llu left, %llu lost", what, error,
			     (unsigned long long)report.errors, (unsigned long long)report.fixed, (unsigned long long)report.left,
			     (unsigned long long)report.losses);
	error = run_fsck(true, &again);
	if (error || again.errors || again.fixed || again.left)
		ck_abort_msg("%s: the second run: error %d, %llu errors", what, error, (unsigned long long)again.errors);
	expect_same_records(what);
}

static void expect_repaired(const char *what)
{
	expect_ends_well(what, true);
}

static const char *describe(char *to, size_t size, const struct victim *victim, unsigned copies, enum kind kind)
{
	snprintf(to, size, "%s level %u %#llx copies %u %s", format_block_name(victim->role, victim->tree), victim->level,
		 (unsigned long long)victim->address, copies, kind_names[kind]);
	return to;
}

static bool try_one(const struct victim *victim, unsigned copies, enum kind kind)
{
	char what[128];

	restore();
	if (!destroy(victim, copies, kind))
		return false;
	describe(what, sizeof(what), victim, copies, kind);
	if (verbose)
		printf("%s\n", what);
	expect_repaired(what);
	return true;
}

static void setup(void)
{
	log_set_level(LOG_LEVEL_SILENT);
	verbose = getenv("MENDFS_VERBOSE") != NULL;
	setvbuf(stdout, NULL, _IOLBF, 0);
	rng = random_start("fsck_structure");
	build_images();
	restore();
	find_victims();
}

static void teardown(void)
{
	lab_destroy(lab);
	free(old_image);
	free(image);
}

/* --- the tests -------------------------------------------------------------------------------------------------------------------- */

START_TEST(a_sound_filesystem_is_found_clean_and_keeps_its_records)
{
	struct fsck_report report;

	restore();
	expect_equal(run_fsck(true, &report), 0);
	expect_equal(report.errors + report.fixed + report.left + report.losses, 0);
	expect_same_records("sound");
}
END_TEST

static int preen(bool force, struct fsck_report *report)
{
	struct fsck_options options = {.write = true, .preen = true, .force = force, .tell = tell};
	struct why why;

	lab_reset(lab);
	return fsck_run(lab_media(lab), &options, report, &why);
}

START_TEST(preen_looks_briefly_after_a_clean_end_and_fully_when_forced)
{
	struct fsck_report report;

	restore();
	expect_equal(preen(false, &report), 0);
	expect(!report.changed && !report.totals.inodes && !report.left);
	expect_equal(memcmp(image, lab_bytes(lab), LAB_BYTES), 0);
	expect_equal(preen(true, &report), 0);
	expect(report.totals.inodes > 0 && !report.left);
}
END_TEST

static const struct victim *inner_of(unsigned tree)
{
	for (size_t i = 0; i < count_victims; i++)
		if (victims[i].tree == tree && victims[i].level > 0)
			return &victims[i];
	return NULL;
}

START_TEST(preen_repairs_copies_and_leaves_what_needs_judgement)
{
	struct fsck_report report;

	restore();
	destroy(inner_of(FORMAT_TREE_INODES), 2, KIND_RANDOM);
	expect_equal(preen(true, &report), 0);
	expect(report.fixed > 0 && !report.left);
	expect_same_records("preen");
	restore();
	destroy(inner_of(FORMAT_TREE_INODES), 3, KIND_RANDOM);
	expect_equal(preen(true, &report), 0);
	expect(report.left > 0);
	expect_repaired("after preen");
}
END_TEST

START_TEST(without_write_no_byte_changes)
{
	struct fsck_report report;
	uint8_t *before = NULL;

	restore();
	destroy(&victims[0], 3, KIND_ZEROS);
	destroy(&victims[3], 1, KIND_RANDOM);
	keep(&before);
	expect_equal(run_fsck(false, &report), 0);
	expect(report.errors > 0 && report.left > 0 && !report.changed);
	expect_equal(memcmp(before, lab_bytes(lab), LAB_BYTES), 0);
	free(before);
}
END_TEST

START_TEST(what_no_leaf_holds_comes_back_from_all_copies_gone)
{
	unsigned tried = 0;

	for (size_t i = 0; i < count_victims; i++)
		for (enum kind kind = 0; kind < KINDS && !is_leaf(&victims[i]); kind++)
			tried += try_one(&victims[i], 3, kind);
	printf("sample: %u blocks that are no leaf destroyed in both copies, nothing lost\n", tried);
	expect(tried > 50);
}
END_TEST

START_TEST(one_bad_copy_is_written_anew_from_the_other)
{
	unsigned tried = 0;

	for (size_t i = 0; i < count_victims; i++)
		for (enum kind kind = 0; kind < KINDS; kind++)
			if (!is_leaf(&victims[i]) || random_below(&rng, count_victims) < 12)
				tried += try_one(&victims[i], 1u + (unsigned)random_below(&rng, 2), kind);
	printf("sample: %u single copies destroyed, nothing lost\n", tried);
}
END_TEST

static size_t random_inner(void)
{
	size_t i;

	do
		i = (size_t)random_below(&rng, count_victims);
	while (is_leaf(&victims[i]));
	return i;
}

static bool destroy_told(const struct victim *victim, enum kind kind)
{
	char what[128];

	if (verbose)
		printf("  destroyed: %s\n", describe(what, sizeof(what), victim, 3, kind));
	return destroy(victim, 3, kind);
}

START_TEST(groups_of_blocks_come_back)
{
	unsigned tried = 0;

	for (unsigned round = 0; round < ROUNDS(60); round++) {
		unsigned count = 2 + (unsigned)random_below(&rng, 5);
		char what[64];

		restore();
		for (unsigned i = 0; i < count; i++) {
			enum kind kind = (enum kind)random_below(&rng, KINDS);

			if (kind != KIND_STALE && kind != KIND_ELSEWHERE)
				tried += destroy_told(&victims[random_inner()], kind);
		}
		tried += destroy_told(&victims[random_inner()], KIND_ZEROS);
		snprintf(what, sizeof(what), "round %u", round);
		expect_repaired(what);
	}
	printf("sample: %u blocks that are no leaf destroyed in groups, nothing lost\n", tried);
}
END_TEST

struct cut { /* the medium as the n-th drain leaves it */
	uint64_t drains, at;
	uint8_t *image;
};

static void cut_drain(void *arg)
{
	struct cut *cut = arg;

	if (++cut->drains == cut->at)
		memcpy(cut->image, lab_bytes(lab), LAB_BYTES);
}

/* Destroy the same once more, and end the run at drain `at`. */
static void run_cut(const struct victim *const *list, unsigned count, struct cut *cut)
{
	struct lab_listener listener = {.drain = cut_drain, .arg = cut};
	struct fsck_report report;

	restore();
	for (unsigned i = 0; i < count; i++)
		destroy(list[i], 3, KIND_ZEROS);
	cut->drains = 0;
	lab_listen(lab, &listener);
	expect_equal(run_fsck(true, &report), 0);
	lab_listen(lab, NULL);
}

START_TEST(a_killed_run_can_be_run_again)
{
	struct cut cut = {.image = malloc(LAB_BYTES)};
	unsigned tried = 0;

	for (unsigned round = 0; round < ROUNDS(12); round++) {
		const struct victim *list[3];
		uint64_t drains;
		char what[64];

		for (unsigned i = 0; i < 3; i++)
			list[i] = &victims[i == 0 && round % 3 == 0 ? 0 : i == 1 && round % 4 == 0 ? 1 : random_inner()];
		cut.at = 0;
		run_cut(list, 3, &cut);
		drains = cut.drains;
		for (unsigned i = 0; i < 8; i++, tried++) {
			cut.at = 1 + random_below(&rng, drains);
			run_cut(list, 3, &cut);
			memcpy(lab_bytes(lab), cut.image, LAB_BYTES);
			snprintf(what, sizeof(what), "round %u, cut at drain %llu of %llu", round, (unsigned long long)cut.at,
				 (unsigned long long)drains);
			if (verbose)
				printf("%s: %#llx %#llx %#llx\n", what, (unsigned long long)list[0]->address,
				       (unsigned long long)list[1]->address, (unsigned long long)list[2]->address);
			expect_ends_well(what, false);
		}
	}
	printf("sample: %u killed runs run again, nothing lost\n", tried);
	free(cut.image);
}
END_TEST

/* --- an older format ---------------------------------------------------------------------------------------------------------------- */

static void settle_tree(struct fs *fs, const struct btree *tree)
{
	struct btree_key from = {{0}};
	bool ended = false;

	while (!ended) {
		struct tx *tx;

		expect_equal(fs_tx_begin(fs, TX_NORMAL, &tx), 0);
		expect_equal(btree_settle_leaf(tree, tx, &from, &ended), 0);
		expect_equal(tx_commit(tx, NULL), 0);
	}
}

/* The image as version 3 had it: inner nodes tell exact aggregates. */
static void make_version_3(uint8_t **to)
{
	struct super super;
	struct fs *fs;

	restore();
	fs = mount_lab(false);
	super = *fs_super(fs);
	super.version = FORMAT_VERSION_ROUNDED - 1;
	journal_set_version(fs->journal, super.version);
	settle_tree(fs, &fs->rmap.tree);
	settle_tree(fs, alloc_tree(fs->alloc));
	expect_equal(fs_write_super(fs->media, &super), 0);
	expect_equal(fs_unmount(fs), 0);
	keep(to);
}

static void expect_version(uint32_t version)
{
	struct fs *fs = mount_lab(true);

	expect_equal(fs_super(fs)->version, version);
	expect_equal(fs_unmount(fs), 0);
}

START_TEST(version_3_is_sound_and_used_as_it_is_until_it_is_upgraded)
{
	struct fsck_report report;
	uint8_t *old = NULL;
	struct fs *fs;

	make_version_3(&old);
	fs = mount_lab(false);
	depopulate(fs, FILES / 3, FILES * 2 / 3, 3);
	populate(fs, FILES, FILES + 100);
	expect_equal(fs_unmount(fs), 0);
	expect_equal(run_fsck(false, &report), 0);
	expect_equal(report.errors + report.left + report.losses, 0);
	expect_version(FORMAT_VERSION_ROUNDED - 1);
	memcpy(lab_bytes(lab), old, LAB_BYTES);
	expect_equal(run_fsck(true, &report), 0);
	expect_equal(report.errors + report.left + report.losses, 0);
	expect_equal(report.fixed, 1);
	expect_version(FORMAT_VERSION);
	expect_equal(run_fsck(true, &report), 0);
	expect_equal(report.errors + report.fixed + report.left, 0);
	expect_same_records("upgraded");
	free(old);
}
END_TEST

static void upgrade_cut(const uint8_t *old, struct cut *cut)
{
	struct lab_listener listener = {.drain = cut_drain, .arg = cut};
	struct fsck_report report;

	memcpy(lab_bytes(lab), old, LAB_BYTES);
	lab_reset(lab);
	cut->drains = 0;
	lab_listen(lab, &listener);
	expect_equal(run_fsck(true, &report), 0);
	lab_listen(lab, NULL);
}

START_TEST(a_killed_upgrade_can_be_run_again)
{
	struct cut cut = {.image = malloc(LAB_BYTES)};
	uint8_t *old = NULL;
	uint64_t drains;
	char what[64];

	make_version_3(&old);
	upgrade_cut(old, &cut);
	drains = cut.drains;
	for (unsigned i = 0; i < ROUNDS(24); i++) {
		cut.at = 1 + random_below(&rng, drains);
		upgrade_cut(old, &cut);
		memcpy(lab_bytes(lab), cut.image, LAB_BYTES);
		snprintf(what, sizeof(what), "upgrade cut at drain %llu of %llu", (unsigned long long)cut.at, (unsigned long long)drains);
		expect_ends_well(what, false);
		expect_version(FORMAT_VERSION);
	}
	free(old);
	free(cut.image);
}
END_TEST

START_TEST(superblock_copies_are_written_anew_while_one_lives)
{
	struct victim super[SUPER_SLOTS];

	for (unsigned kind = KIND_ZEROS; kind < KINDS; kind++) {
		if (kind == KIND_STALE || kind == KIND_ELSEWHERE)
			continue;
		restore();
		for (unsigned slot = 0; slot < SUPER_SLOTS; slot++) {
			super[slot] = (struct victim){.copy = {super_slot_offset(slot)}};
			if (slot != 5)
				destroy(&super[slot], 1, kind);
		}
		expect_repaired(kind_names[kind]);
		for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
			expect_equal(memcmp(lab_bytes(lab) + super[slot].copy[0], image + super[5].copy[0], BLOCK_BYTES), 0);
	}
}
END_TEST

static int refuse_to_clear(struct media *media, devoff_t offset, uint64_t length)
{
	return -ENOTSUP;
}

START_TEST(what_the_medium_cannot_clear_is_not_called_repaired)
{
	const struct media_backend *before = lab_media(lab)->backend;
	struct media_backend backend = *before;
	struct fsck_report report;
	struct super super;
	struct why why;

	restore();
	expect_equal(fs_read_super(lab_media(lab), &super, &why), 0);
	expect_equal(lab_poison(lab, super.areas[AREA_POISON_LOG].copy[0] + 4096, 512), 0);
	expect_equal(lab_poison(lab, super_slot_offset(0), 512), 0);
	backend.clear = refuse_to_clear;
	lab_media(lab)->backend = &backend;
	for (unsigned i = 0; i < 2; i++) {
		expect_equal(run_fsck(true, &report), 0);
		expect_equal(report.errors, 2);
		expect_equal(report.fixed + report.left + report.losses, 0);
	}
	lab_media(lab)->backend = before;
	expect_equal(run_fsck(true, &report), 0);
	expect_equal(report.fixed, 2);
	expect_ends_well("cleared after all", false);
}
END_TEST

START_TEST(what_a_mount_ran_into_is_not_touched_by_fsck)
{
	const struct media_backend *before = lab_media(lab)->backend;
	struct media_backend backend = *before;
	struct media_counts counts, after;
	struct fsck_report report;
	struct super super;
	struct why why;
	struct fs *fs;

	restore();
	expect_equal(fs_read_super(lab_media(lab), &super, &why), 0);
	expect_equal(lab_poison(lab, super.areas[AREA_FIXED].copy[0], 64), 0);
	backend.clear = refuse_to_clear;
	lab_media(lab)->backend = &backend;
	fs = mount_lab(false);
	expect_equal(fs_notify_wait(fs, 20000), 0);
	expect_equal(fs_unmount(fs), 0);
	media_counts(lab_media(lab), &counts);
	expect_equal(run_fsck(false, &report), 0);
	media_counts(lab_media(lab), &after);
	lab_media(lab)->backend = before;
	expect_equal(after.sigbus, 0); /* lab_reset() begins to count anew */
	expect(counts.sigbus > 0);
	expect_equal(report.errors + report.left, 0);
	expect(told_notes > 0);
}
END_TEST

static const struct victim *some_leaf(unsigned tree, unsigned skip)
{
	for (const struct victim *victim = victims;; victim++)
		if (is_leaf(victim) && victim->tree == tree && skip-- == 0)
			return victim;
}

/* What a mount has met and could not mend is a note to who only looks; what nobody has met yet is an error, and so it is to who may write. */
START_TEST(bad_memory_that_is_recorded_is_no_error_where_nothing_is_written)
{
	const struct media_backend *before = lab_media(lab)->backend;
	struct media_backend backend = *before;
	struct fs_check_totals totals;
	struct fsck_report report;
	struct super super;
	struct why why;
	struct fs *fs;

	restore();
	expect_equal(fs_read_super(lab_media(lab), &super, &why), 0);
	expect_equal(lab_poison(lab, super.areas[AREA_POISON_LOG].copy[0] + 4096, 512), 0);
	expect_equal(lab_poison(lab, super_slot_offset(2), 512), 0);
	expect_equal(lab_poison(lab, some_leaf(FORMAT_TREE_EXTENTS, 0)->copy[1], 64), 0);
	expect_equal(run_fsck(false, &report), 0);
	expect_equal(report.errors, 3);
	expect(report.left > 0);
	backend.clear = refuse_to_clear;
	lab_media(lab)->backend = &backend;
	fs = mount_lab(false);
	expect_equal(fs_check(fs, NULL, NULL, &totals), 0);
	expect_equal(fs_notify_wait(fs, 20000), 0);
	expect_equal(fs_unmount(fs), 0);
	expect_equal(run_fsck(false, &report), 0);
	expect_equal(report.errors + report.left, 0);
	expect_equal(told_notes, 3);
	expect_equal(run_fsck(true, &report), 0);
	expect_equal(report.errors, 3);
	expect_equal(report.left + report.fixed + report.losses, 0);
	expect_equal(lab_poison(lab, some_leaf(FORMAT_TREE_EXTENTS, 1)->copy[0], 64), 0);
	expect_equal(run_fsck(false, &report), 0);
	expect_equal(report.errors, 1);
	expect(report.left > 0);
	lab_media(lab)->backend = before;
	expect_equal(run_fsck(true, &report), 0);
	expect(report.fixed > 0);
	/* What it has cleared is good to the next run, and out of the ledger at the next mount. */
	expect_equal(run_fsck(true, &report), 0);
	expect_equal(report.errors + report.fixed + report.left, 0);
	fs = mount_lab(false);
	expect_equal(fs_notify_wait(fs, 20000), 0);
	expect_equal(fs_unmount(fs), 0);
	expect_equal(run_fsck(false, &report), 0);
	expect_equal(report.errors + report.left + told_notes, 0);
	expect_same_records("cleared after all");
}
END_TEST

/* Both copies of it are known to be bad and stay so: it is made anew elsewhere, and nothing is stored there. */
START_TEST(a_leaf_that_no_medium_takes_any_more_is_made_anew_elsewhere)
{
	static const unsigned trees[] = {FORMAT_TREE_EXTENTS, FORMAT_TREE_RMAP, FORMAT_TREE_DIRENTS};
	const struct media_backend *before = lab_media(lab)->backend;
	struct media_backend backend = *before;

	backend.clear = refuse_to_clear;
	for (unsigned i = 0; i < ARRAY_SIZE(trees); i++) {
		struct victim *victim = victims;
		struct fsck_report report;

		while (!is_leaf(victim) || victim->tree != trees[i])
			victim++;
		restore();
		for (unsigned k = 0; k < 2; k++) {
			expect_equal(lab_poison(lab, victim->copy[k], 64), 0);
			expect_equal(media_bad_add(lab_media(lab), victim->copy[k], SECTOR_BYTES), 0);
		}
		lab_media(lab)->backend = &backend;
		expect_equal(run_fsck(true, &report), 0);
		expect_equal(report.left + report.losses, 0);
		expect_equal(run_fsck(true, &report), 0);
		expect_equal(report.left + report.losses + report.errors, 0);
		lab_media(lab)->backend = before;
		expect_same_records(format_tree_name(trees[i]));
	}
}
END_TEST

START_TEST(without_any_superblock_it_says_what_not_to_do)
{
	struct fsck_options options = {.write = true, .tell = tell};
	struct fsck_report report;
	struct why why;

	restore();
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
		memset(lab_bytes(lab) + super_slot_offset(slot), 0, BLOCK_BYTES);
	expect_equal(fsck_run(lab_media(lab), &options, &report, &why), -EUCLEAN);
	expect(strstr(why.text, "Do not run mkfs.mendfs"));
}
END_TEST

static struct victim journal_head(void)
{
	struct fs *fs = mount_lab(true);
	struct victim head = {.address = UINT64_MAX};

	for (unsigned k = 0; k < 2; k++)
		head.copy[k] = fs->super.areas[AREA_JOURNAL].copy[k];
	expect_equal(fs_unmount(fs), 0);
	return head;
}

static void destroy_head(const struct victim *head, unsigned copies, enum kind kind)
{
	for (unsigned k = 0; k < 2; k++)
		if (copies & 1u << k && kind == KIND_STALE)
			memcpy(lab_bytes(lab) + head->copy[k], old_image + head->copy[k], BLOCK_BYTES);
		else if (copies & 1u << k && kind == KIND_POISON)
			lab_poison(lab, head->copy[k], 64);
		else if (copies & 1u << k)
			destroy_copy(head, k, kind);
}

START_TEST(journal_heads_come_back_from_the_records)
{
	struct victim head;
	char what[64];

	restore();
	head = journal_head();
	for (unsigned kind = 0; kind < KINDS; kind++)
		for (unsigned copies = 1; copies <= 3; copies++) {
			if (kind == KIND_ELSEWHERE)
				continue;
			restore();
			destroy_head(&head, copies, kind);
			snprintf(what, sizeof(what), "head copies %u %s", copies, kind_names[kind]);
			if (verbose)
				printf("%s\n", what);
			expect_repaired(what);
		}
}
END_TEST

static void put_head_behind(const struct victim *head, unsigned copy, uint64_t updates)
{
	struct format_journal_head *stored = (struct format_journal_head *)(lab_bytes(lab) + head->copy[copy]);

	stored->update = le64_make(le64_get(stored->update) - updates);
	stored->crc32c = le32_make(0);
	stored->crc32c = le32_make(crc32c(0, stored, sizeof(*stored)));
}

START_TEST(a_head_one_update_behind_is_what_a_death_leaves_and_no_error)
{
	struct fsck_report report;
	struct victim head;

	restore();
	head = journal_head();
	for (unsigned copy = 0; copy < 2; copy++)
		for (unsigned behind = 1; behind <= 2; behind++) {
			restore();
			put_head_behind(&head, copy, behind);
			expect_equal(run_fsck(false, &report), 0);
			expect_equal(report.errors != 0, behind == 2);
			expect_ends_well("a head behind", behind == 2);
		}
}
END_TEST

/* Nothing is home: every change is in the journal only, and its heads are gone. */
START_TEST(a_journal_without_heads_is_replayed)
{
	struct victim head;
	struct sums after;
	struct fs *fs;

	restore();
	head = journal_head();
	fs = mount_lab(false);
	depopulate(fs, FILES / 2, FILES / 2 + 40, 1);
	expect_equal(sum_trees(fs, &after), 0);
	fs_abandon(fs);
	destroy_head(&head, 3, KIND_ZEROS);
	expected = after;
	expect_repaired("replay without heads");
}
END_TEST

/* The records of the newest epoch in copy 0 of the ring, in order of place. */
static unsigned find_records(const struct victim *head, devoff_t *places, unsigned capacity)
{
	const uint8_t *ring = lab_bytes(lab) + head->copy[0] + BLOCK_BYTES;
	const struct format_journal_head *at = (const void *)(lab_bytes(lab) + head->copy[0]);
	uint64_t bytes = le64_get(at->ring_bytes), tail = le64_get(at->tail_sequence);
	unsigned count = 0;

	for (uint64_t i = 0; i < bytes && count < capacity; i += LINE_BYTES) {
		const struct format_record_header *record = (const void *)(ring + i);

		if (le32_get(record->magic) == FORMAT_RECORD_MAGIC && le32_get(record->epoch) == le32_get(at->epoch) &&
		    le64_get(record->sequence) >= tail)
			places[count++] = i;
	}
	return count;
}

static void make_hole(const struct victim *head, devoff_t place)
{
	for (unsigned k = 0; k < 2; k++)
		memset(lab_bytes(lab) + head->copy[k] + BLOCK_BYTES + place, 0, LINE_BYTES);
}

/* What comes before the hole counts, what comes behind it is told as lost; nothing in between. */
START_TEST(a_hole_in_the_journal_ends_it)
{
	static devoff_t places[512];
	struct fsck_report report, again;
	struct victim head;
	unsigned count;
	struct fs *fs;

	for (unsigned granularity = MEDIA_CACHELINE; granularity <= MEDIA_PAGE; granularity++) {
		restore();
		lab_media(lab)->granularity = granularity;
		head = journal_head();
		fs = mount_lab(false);
		depopulate(fs, FILES / 2, FILES / 2 + 40, 1);
		fs_abandon(fs);
		count = find_records(&head, places, ARRAY_SIZE(places));
		expect(count > 20);
		make_hole(&head, places[count / 2]);
		expect_equal(run_fsck(false, &report), 0);
		expect(report.errors > 0 && report.left > 0);
		told_of_hole = 0;
		expect_equal(run_fsck(true, &report), 0);
		expect_equal(report.left, 0);
		expect_equal(told_of_hole, 1);
		expect_equal(report.losses, 1);
		expect_equal(run_fsck(true, &again), 0);
		expect_equal(again.errors + again.left + again.losses, 0);
	}
	lab_media(lab)->granularity = MEDIA_CACHELINE;
}
END_TEST

/* MENDFS_ROUND: only that one, of the seed that is given too. */
static bool round_is_wanted(unsigned round)
{
	const char *only = getenv("MENDFS_ROUND");

	return !only || strtoul(only, NULL, 10) == round;
}

/* Whatever the bytes are: it ends, and once more has nothing to make sound any more. */
START_TEST(many_destroyed_blocks_do_not_stop_it)
{
	struct fsck_report report;
	unsigned tried = 0;

	for (unsigned round = 0; round < ROUNDS(40); round++) {
		unsigned count = 1u << random_below(&rng, 9);

		restore();
		for (unsigned i = 0; i < count; i++)
			tried += destroy(&victims[random_below(&rng, count_victims)], 1 + (unsigned)random_below(&rng, 3),
					 (enum kind)random_below(&rng, KINDS));
		if (!round_is_wanted(round))
			continue;
		if (verbose)
			printf("round %u: %u blocks\n", round, count);
		expect_equal(run_fsck(false, &report), 0);
		expect_equal(run_fsck(true, &report), 0);
		expect_equal(run_fsck(true, &report), 0);
		ck_assert_msg(!report.errors && !report.left, "round %u, %u blocks: the second run: %llu errors, %llu left", round, count,
			      (unsigned long long)report.errors, (unsigned long long)report.left);
	}
	printf("sample: %u blocks of every kind destroyed in groups, every second run clean\n", tried);
}
END_TEST

static void add_tests(TCase *t)
{
	tcase_add_test(t, a_sound_filesystem_is_found_clean_and_keeps_its_records);
	tcase_add_test(t, preen_looks_briefly_after_a_clean_end_and_fully_when_forced);
	tcase_add_test(t, preen_repairs_copies_and_leaves_what_needs_judgement);
	tcase_add_test(t, without_write_no_byte_changes);
	tcase_add_test(t, what_no_leaf_holds_comes_back_from_all_copies_gone);
	tcase_add_test(t, one_bad_copy_is_written_anew_from_the_other);
	tcase_add_test(t, groups_of_blocks_come_back);
	tcase_add_test(t, a_killed_run_can_be_run_again);
	tcase_add_test(t, version_3_is_sound_and_used_as_it_is_until_it_is_upgraded);
	tcase_add_test(t, a_killed_upgrade_can_be_run_again);
	tcase_add_test(t, superblock_copies_are_written_anew_while_one_lives);
	tcase_add_test(t, without_any_superblock_it_says_what_not_to_do);
	tcase_add_test(t, journal_heads_come_back_from_the_records);
	tcase_add_test(t, a_hole_in_the_journal_ends_it);
	tcase_add_test(t, a_head_one_update_behind_is_what_a_death_leaves_and_no_error);
	tcase_add_test(t, a_journal_without_heads_is_replayed);
}

int main(void)
{
	Suite *suite = suite_create("fsck_structure");
	TCase *t = tcase_create("plain"), *groups = tcase_create("groups"), *stuck = tcase_create("stuck");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 500);
	add_tests(t);
	suite_add_tcase(suite, t);
	tcase_add_checked_fixture(groups, setup, teardown);
	tcase_set_timeout(groups, 500);
	tcase_add_test(groups, many_destroyed_blocks_do_not_stop_it);
	suite_add_tcase(suite, groups);
	tcase_add_checked_fixture(stuck, setup, teardown);
	tcase_set_timeout(stuck, 500);
	tcase_add_test(stuck, what_the_medium_cannot_clear_is_not_called_repaired);
	tcase_add_test(stuck, what_a_mount_ran_into_is_not_touched_by_fsck);
	tcase_add_test(stuck, bad_memory_that_is_recorded_is_no_error_where_nothing_is_written);
	tcase_add_test(stuck, a_leaf_that_no_medium_takes_any_more_is_made_anew_elsewhere);
	suite_add_tcase(suite, stuck);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
