#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "btree/node.h"
#include "fs/inode.h"
#include "tests/support/files.h"

#define BLK 4096ull

static struct fsfix fix;
static struct event_subscriber *sub;

static void subscribe(void)
{
	ck_assert_int_eq(event_subscribe(fs_events(fix.fs), 4096, &sub), 0);
}

static void unsubscribe(void)
{
	event_unsubscribe(sub);
	sub = NULL;
}

static void setup(void)
{
	ck_assert_int_eq(fsfix_create_mounted(&fix, FSFIX_USUAL_BYTES), 0);
	subscribe();
}

static void teardown(void)
{
	unsubscribe();
	fsfix_destroy(&fix);
}

static void remount(void)
{
	unsubscribe();
	ck_assert_int_eq(fsfix_remount(&fix), 0);
	subscribe();
	ck_assert_int_eq(fs_notify_wait(fix.fs, 20000), 0);
}

static void settle(void)
{
	ck_assert_int_eq(fs_notify_wait(fix.fs, 20000), 0);
}

static void inject(devoff_t offset, uint64_t length, bool latent)
{
	ck_assert_int_eq(fs_inject(fix.fs, offset, length, latent), 0);
	settle();
}

static struct event *next_event(enum event_type type)
{
	struct event *event;

	while ((event = event_take(sub)) && event->type != type)
		event_free(event);
	return event;
}

static unsigned count_events(enum event_type type)
{
	struct event *event;
	unsigned count = 0;

	while ((event = event_take(sub))) {
		count += event->type == type;
		event_free(event);
	}
	return count;
}

static bool event_has_path(const struct event *event, const char *path)
{
	for (size_t i = 0; i < event->count_paths; i++)
		if (strcmp(event->paths[i], path) == 0)
			return true;
	return false;
}

static void expect_bad_block(inum_t ino, uint64_t pos, uint64_t size, unsigned tag)
{
	size_t done = 0;

	if (pos)
		files_expect(&fix, ino, tag, 0, pos);
	ck_assert_int_eq(files_read_error(&fix, ino, pos, BLK, &done), -EIO);
	ck_assert_uint_eq(done, 0);
	if (pos + BLK < size)
		files_expect(&fix, ino, tag, pos + BLK, size - pos - BLK);
}

struct damages {
	struct fs_damage list[64];
	size_t count;
};

static int add_damage(void *arg, const struct fs_damage *damage)
{
	struct damages *all = arg;

	ck_assert_uint_lt(all->count, ARRAY_SIZE(all->list));
	all->list[all->count++] = *damage;
	return 0;
}

static size_t count_damages(void)
{
	struct damages all = {.count = 0};

	ck_assert_int_eq(fs_damaged(fix.fs, add_damage, &all), 0);
	return all.count;
}

static struct fs_summary summary(void)
{
	struct fs_summary s;

	ck_assert_int_eq(fs_summary(fix.fs, &s), 0);
	return s;
}

static inum_t lookup(inum_t dir, const char *name)
{
	struct fs_attr attr;

	ck_assert_int_eq(fsfix_lookup(&fix, dir, name, &attr), 0);
	return attr.ino;
}

/* --- data --- */

/* a, and under dir/link; clone b whole; c has two blocks of it at 64 KiB. */
static void make_family(inum_t ino[3])
{
	struct fs_attr attr;
	uint64_t done;
	inum_t dir;

	ino[0] = files_new(&fix, "a");
	ino[1] = files_new(&fix, "b");
	ino[2] = files_new(&fix, "c");
	files_write(&fix, ino[0], 1, 0, 10 * BLK);
	ck_assert_int_eq(fsfix_mkdir(&fix, FS_ROOT_INO, "dir", &dir), 0);
	ck_assert_int_eq(fs_link(fix.fs, ino[0], dir, "link", &attr), 0);
	fs_forget(fix.fs, ino[0], 1);
	ck_assert_int_eq(fs_clone(fix.fs, ino[0], ino[1]), 0);
	ck_assert_int_eq(fs_copy_range(fix.fs, ino[0], 2 * BLK, ino[2], 16 * BLK, 2 * BLK, &done),
			 0);
	ck_assert_uint_eq(done, 2 * BLK);
}

static void expect_family_events(const inum_t ino[3])
{
	struct event *media = next_event(EVENT_MEDIA_FAILURE);

	ck_assert_ptr_nonnull(media);
	for (unsigned i = 0; i < 3; i++) {
		struct event *file = next_event(EVENT_FILE_DAMAGED);

		ck_assert_ptr_nonnull(file);
		ck_assert_uint_eq(file->inumber, ino[i]);
		ck_assert_uint_eq(file->cause_id, media->cause_id);
		ck_assert_uint_eq(file->sharers, 3);
		ck_assert_uint_eq(file->pos, i == 2 ? 17 * BLK : 3 * BLK);
		ck_assert_uint_eq(file->len, BLK);
		ck_assert_uint_eq(file->count_paths, i == 0 ? 2 : 1);
		ck_assert(event_has_path(file, i == 0 ? "/dir/link" : i == 1 ? "/b" : "/c"));
		event_free(file);
	}
	event_free(media);
	ck_assert_uint_eq(count_events(EVENT_FILE_DAMAGED), 0);
}

static void expect_family_damage(const inum_t ino[3])
{
	size_t done;

	expect_bad_block(ino[0], 3 * BLK, 10 * BLK, 1);
	expect_bad_block(ino[1], 3 * BLK, 10 * BLK, 1);
	ck_assert_int_eq(files_read_error(&fix, ino[2], 17 * BLK, BLK, &done), -EIO);
	ck_assert_uint_eq(count_damages(), 3);
	ck_assert_uint_eq(summary().damaged_files, 3);
	ck_assert_uint_eq(fsfix_check(&fix), 0);
}

START_TEST(all_sharers_are_named_with_every_path_and_fail_in_that_block_only)
{
	inum_t ino[3];

	make_family(ino);
	inject(files_device_offset(&fix, ino[0], 3 * BLK) + 1000, 1, false);
	expect_family_events(ino);
	expect_family_damage(ino);
}
END_TEST

START_TEST(cold_inodes_are_found_after_dropping_caches)
{
	devoff_t offset;
	inum_t ino[3];

	make_family(ino);
	offset = files_device_offset(&fix, ino[0], 3 * BLK);
	fs_drop_caches(fix.fs);
	inject(offset, 1, false);
	expect_family_events(ino);
}
END_TEST

START_TEST(cold_inodes_are_found_after_a_remount_before_any_lookup)
{
	devoff_t offset;
	inum_t ino[3];

	make_family(ino);
	offset = files_device_offset(&fix, ino[0], 3 * BLK);
	remount();
	inject(offset, 1, false);
	expect_family_events(ino);
	expect_family_damage(ino);
	ck_assert_uint_eq(lookup(FS_ROOT_INO, "b"), ino[1]);
}
END_TEST

START_TEST(damage_is_durable_and_never_touched_again)
{
	inum_t ino[3];
	size_t done;

	make_family(ino);
	inject(files_device_offset(&fix, ino[0], 3 * BLK), 10, true);
	ck_assert_int_eq(files_read_error(&fix, ino[1], 3 * BLK, BLK, &done), -EIO);
	settle();
	expect_family_events(ino);
	ck_assert_uint_eq(summary().sigbus_count, 1);
	for (unsigned i = 0; i < 2; i++) {
		remount();
		ck_assert_uint_eq(count_events(EVENT_FILE_DAMAGED), 0);
		expect_family_damage(ino);
		ck_assert_uint_eq(summary().sigbus_count, 1);
	}
}
END_TEST

START_TEST(a_crash_after_the_injection_forgets_nothing)
{
	inum_t ino[3];

	make_family(ino);
	inject(files_device_offset(&fix, ino[0], 3 * BLK), 10, false);
	unsubscribe();
	ck_assert_int_eq(fsfix_crash(&fix), 0);
	ck_assert_int_eq(fsfix_mount(&fix), 0);
	subscribe();
	settle();
	expect_family_damage(ino);
	ck_assert_uint_eq(summary().sigbus_count, 0);
}
END_TEST

START_TEST(the_last_range_is_clipped_to_the_end_of_file)
{
	inum_t ino = files_new(&fix, "f");
	struct event *file;

	files_write(&fix, ino, 1, 0, BLK + 904);
	inject(files_device_offset(&fix, ino, BLK), 1, false);
	file = next_event(EVENT_FILE_DAMAGED);
	ck_assert_uint_eq(file->pos, BLK);
	ck_assert_uint_eq(file->len, 904);
	ck_assert_uint_eq(file->bytes_lost, 512);
	ck_assert_str_eq(file->action, "eio");
	ck_assert_int_eq(file->error, EIO);
	event_free(file);
}
END_TEST

START_TEST(a_file_without_a_name_is_told_of_without_paths)
{
	inum_t ino = files_new(&fix, "f");
	struct fs_attr attr;
	struct event *file;
	devoff_t offset;

	files_write(&fix, ino, 1, 0, 4 * BLK);
	offset = files_device_offset(&fix, ino, 0);
	ck_assert_int_eq(fs_lookup(fix.fs, FS_ROOT_INO, "f", &attr), 0);
	ck_assert_int_eq(fs_unlink(fix.fs, FS_ROOT_INO, "f"), 0);
	inject(offset, 1, false);
	file = next_event(EVENT_FILE_DAMAGED);
	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(file->inumber, ino);
	ck_assert_uint_eq(file->count_paths, 0);
	event_free(file);
	fs_forget(fix.fs, ino, 1);
}
END_TEST

START_TEST(overwriting_whole_blocks_heals_for_good)
{
	const uint64_t free_before = summary().free_bytes;
	inum_t ino = files_new(&fix, "f");

	files_write(&fix, ino, 1, 0, 10 * BLK);
	inject(files_device_offset(&fix, ino, 3 * BLK), 2 * BLK, false);
	ck_assert_uint_eq(count_damages(), 1);
	files_write(&fix, ino, 1, 3 * BLK, 2 * BLK);
	settle();
	files_expect(&fix, ino, 1, 0, 10 * BLK);
	ck_assert_uint_eq(count_damages(), 0);
	ck_assert_uint_eq(summary().badblock_bytes, 0);
	ck_assert_int_eq(fsfix_check(&fix), 0);
	remount();
	files_expect(&fix, ino, 1, 0, 10 * BLK);
	ck_assert_uint_eq(count_damages(), 0);
	ck_assert_uint_lt(summary().free_bytes, free_before);
}
END_TEST

START_TEST(overwriting_one_sharer_heals_only_that_one)
{
	inum_t ino[3];
	size_t done;

	make_family(ino);
	inject(files_device_offset(&fix, ino[0], 3 * BLK), 10, false);
	files_write(&fix, ino[1], 7, 3 * BLK, BLK);
	settle();
	files_expect(&fix, ino[1], 7, 3 * BLK, BLK);
	ck_assert_int_eq(files_read_error(&fix, ino[0], 3 * BLK, BLK, &done), -EIO);
	ck_assert_uint_eq(count_damages(), 2);
	ck_assert_int_eq(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(truncated_and_deleted_damage_becomes_quarantine_that_uninject_gives_back)
{
	inum_t ino = files_new(&fix, "f"), gone = files_new(&fix, "g");
	devoff_t first, second;
	uint64_t removed;

	files_write(&fix, ino, 1, 0, 10 * BLK);
	files_write(&fix, gone, 2, 0, 10 * BLK);
	first = files_device_offset(&fix, ino, 8 * BLK);
	second = files_device_offset(&fix, gone, 5 * BLK);
	inject(first, 1, false);
	inject(second, 1, false);
	ck_assert_uint_eq(count_damages(), 2);
	files_truncate(&fix, ino, 4 * BLK);
	ck_assert_int_eq(fs_unlink(fix.fs, FS_ROOT_INO, "g"), 0);
	remount();
	for (int i = 0; i < 500 && count_damages(); i++)
		usleep(10000);
	ck_assert_uint_eq(count_damages(), 0);
	ck_assert_uint_eq(summary().quarantined_bytes, 2 * BLK);
	ck_assert_int_eq(fsfix_check(&fix), 0);
	ck_assert_int_eq(fs_uninject(fix.fs, first, 1, &removed), 0);
	ck_assert_int_eq(fs_uninject(fix.fs, second, 1, &removed), 0);
	ck_assert_uint_eq(summary().quarantined_bytes, 0);
	ck_assert_uint_eq(summary().badblock_bytes, 0);
	ck_assert_int_eq(fsfix_check(&fix), 0);
}
END_TEST

struct invalidations {
	pthread_mutex_t lock;
	inum_t ino[16];
	uint64_t pos[16];
	size_t count;
};

static void note_invalidation(void *arg, inum_t ino, uint64_t pos, uint64_t length)
{
	struct invalidations *all = arg;

	pthread_mutex_lock(&all->lock);
	if (all->count < 16 && length == BLK) {
		all->ino[all->count] = ino;
		all->pos[all->count++] = pos;
	}
	pthread_mutex_unlock(&all->lock);
}

START_TEST(the_kernels_pages_of_every_sharer_are_dropped)
{
	struct invalidations all = {.lock = PTHREAD_MUTEX_INITIALIZER};
	inum_t ino[3];

	make_family(ino);
	fs_set_invalidate(fix.fs, note_invalidation, &all);
	inject(files_device_offset(&fix, ino[0], 3 * BLK), 1, false);
	fs_set_invalidate(fix.fs, NULL, NULL);
	ck_assert_uint_eq(all.count, 3);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_uint_eq(all.ino[i], ino[i]);
		ck_assert_uint_eq(all.pos[i], i == 2 ? 17 * BLK : 3 * BLK);
	}
}
END_TEST

/* --- metadata --- */

struct node_find {
	const char *tree;
	unsigned skip;
	struct fs_owner found;
	bool is_found;
};

static int find_node(void *arg, const struct fs_owner *owner)
{
	struct node_find *find = arg;

	if (owner->kind != FS_OWNER_METADATA || !owner->live || owner->copy != 0 || !owner->tree ||
	    strcmp(owner->tree, find->tree))
		return 0;
	if (find->skip-- > 0)
		return 0;
	find->found = *owner;
	find->is_found = true;
	return 1;
}

static struct fs_owner metadata_of(const char *tree)
{
	struct node_find find = {.tree = tree};

	fs_owners(fix.fs, 0, FSFIX_USUAL_BYTES, find_node, &find);
	ck_assert_msg(find.is_found, "no live block of tree %s", tree);
	ck_assert(find.found.has_peer);
	return find.found;
}

static int keep_owner(void *arg, const struct fs_owner *owner)
{
	*(struct fs_owner *)arg = *owner;
	return 1;
}

static struct fs_owner metadata_at(devoff_t offset)
{
	struct fs_owner found = {.kind = FS_OWNER_FREE};

	ck_assert_int_eq(fs_owners(fix.fs, offset, BLK, keep_owner, &found), 1);
	ck_assert_int_eq(found.kind, FS_OWNER_METADATA);
	return found;
}

static void make_tree(unsigned files)
{
	char name[32];

	for (unsigned i = 0; i < files; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		files_write(&fix, files_new(&fix, name), i + 1, 0, 3 * BLK);
	}
}

static void expect_tree(unsigned files)
{
	char name[32];

	for (unsigned i = 0; i < files; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		files_expect(&fix, lookup(FS_ROOT_INO, name), i + 1, 0, 3 * BLK);
	}
}

static void expect_repaired_from(devoff_t bad, devoff_t peer, const char *tree)
{
	uint8_t a[BLK], b[BLK];
	struct event *event;

	/* Nobody may have met it yet: whoever asks for all of it does. */
	ck_assert_int_eq(fsfix_check(&fix), 0);
	settle();
	event = next_event(EVENT_METADATA_REPAIRED);
	ck_assert_ptr_nonnull(event);
	ck_assert_uint_eq(event->device_offset, bad);
	ck_assert_str_eq(event->tree, tree);
	ck_assert_str_eq(event->action, "rewritten");
	event_free(event);
	ck_assert_int_eq(media_read(fs_media(fix.fs), bad, a, BLK, NULL), 0);
	ck_assert_int_eq(media_read(fs_media(fix.fs), peer, b, BLK, NULL), 0);
	ck_assert_int_eq(memcmp(a, b, BLK), 0);
	ck_assert_uint_eq(summary().badblock_bytes, 0);
}

static const char *const trees[] = {"inodes", "dirents", "parents", "extents", "rmap", "free"};

START_TEST(poisoned_metadata_is_repaired_from_its_other_copy)
{
	struct fs_owner node;

	make_tree(200);
	remount();
	node = metadata_of(trees[_i]);
	inject(node.device_offset, BLK, true);
	remount();
	expect_tree(200);
	expect_repaired_from(node.device_offset, node.peer_offset, trees[_i]);
	remount();
	node = metadata_of(trees[_i]);
	inject(node.peer_offset, BLK, false);
	expect_tree(200);
	expect_repaired_from(node.peer_offset, node.device_offset, trees[_i]);
	remount();
	ck_assert_uint_eq(count_events(EVENT_METADATA_REPAIRED), 0);
	expect_tree(200);
}
END_TEST

START_TEST(metadata_poisoned_while_unmounted_is_repaired_by_the_mount)
{
	struct media_options options = {.readonly = false};
	struct why why = {""};
	struct fs_owner node;
	struct media *media;

	make_tree(20);
	node = metadata_of("inodes");
	unsubscribe();
	ck_assert_int_eq(fsfix_unmount(&fix), 0);
	ck_assert_int_eq(media_open(fix.path, &options, &why, &media), 0);
	ck_assert_int_eq(media_poison_load(media, NULL, &why), 0);
	ck_assert_int_eq(media_poison_arm(media, node.device_offset, BLK, false), 0);
	ck_assert_int_eq(media_close(media), 0);
	ck_assert_int_eq(fsfix_mount(&fix), 0);
	subscribe();
	settle();
	ck_assert_uint_eq(summary().badblock_bytes, 0);
	ck_assert_uint_eq(summary().sigbus_count, 0);
	expect_tree(20);
	ck_assert_int_eq(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(both_copies_of_a_block_lost_leaves_the_rest_readable_and_read_only)
{
	inum_t dir, other = files_new(&fix, "other");
	struct fs_owner node;
	unsigned readable = 0;
	struct fs_attr attr;
	char name[32];

	files_write(&fix, other, 9, 0, 4 * BLK);
	ck_assert_int_eq(fsfix_mkdir(&fix, FS_ROOT_INO, "d", &dir), 0);
	make_tree(400);
	remount();
	node = metadata_of("extents");
	inject(node.device_offset, BLK, true);
	inject(node.peer_offset, BLK, true);
	remount();
	for (unsigned i = 0; i < 400; i++) {
		size_t done;

		snprintf(name, sizeof(name), "file%u", i);
		readable += files_read_error(&fix, lookup(FS_ROOT_INO, name), 0, BLK, &done) == 0;
	}
	settle();
	ck_assert_uint_ge(count_events(EVENT_METADATA_LOST), 1);
	ck_assert_uint_lt(readable, 400);
	ck_assert(fs_is_readonly(fix.fs));
	ck_assert_str_eq(summary().state, "readonly");
	ck_assert_int_eq(fs_unlink(fix.fs, FS_ROOT_INO, "other"), -EROFS);
	ck_assert_int_eq(fsfix_lookup(&fix, FS_ROOT_INO, "other", &attr), 0);
	remount();
	ck_assert(fs_is_readonly(fix.fs));
	ck_assert_int_eq(fsfix_lookup(&fix, FS_ROOT_INO, "d", &attr), 0);
}
END_TEST

/* --- what a lost block had --- */

/* The oracle: a block as it was, and what its files are called. */
struct victim {
	struct fs_owner place;
	unsigned level, count;
	inum_t inos[256]; /* of its records, each once, ascending; a leaf's */
	char path[64];	  /* of the first one */
};

/* Directories with files, symlinks and attributes among them. */
static void make_directories(void)
{
	static const uint8_t value[300];
	struct fs_who root = {.uid = 0};
	struct fs_attr attr;
	char name[64];
	inum_t dir, ino;

	for (unsigned d = 0; d < 12; d++) {
		snprintf(name, sizeof(name), "d%u", d);
		ck_assert_int_eq(fsfix_mkdir(&fix, FS_ROOT_INO, name, &dir), 0);
		for (unsigned f = 0; f < 40; f++) {
			snprintf(name, sizeof(name), "file%u", f);
			ck_assert_int_eq(fsfix_mkfile(&fix, dir, name, &ino), 0);
			files_write(&fix, ino, f, 0, 2 * BLK);
			ck_assert_int_eq(fs_setxattr(fix.fs, &root, ino, "user.a", value, sizeof(value), 0), 0);
		}
		ck_assert_int_eq(fs_symlink(fix.fs, &root, dir, "link", "file0", &attr), 0);
		fs_forget(fix.fs, attr.ino, 1);
	}
}

static void victim_read(struct victim *victim)
{
	uint8_t block[BLK];
	const struct format_node *node = (const struct format_node *)block;
	struct btree_key key;

	ck_assert_int_eq(media_read(fs_media(fix.fs), victim->place.device_offset, block, BLK, NULL), 0);
	victim->level = node->level;
	victim->count = 0;
	for (unsigned i = 0; i < node_count(node); i++) {
		node_key(node, i, &key);
		if (!victim->count || victim->inos[victim->count - 1] != key.word[0])
			victim->inos[victim->count++] = key.word[0];
		ck_assert_uint_lt(victim->count, ARRAY_SIZE(victim->inos));
	}
}

/* A node of this tree and level, not the first of them if there are several. */
static struct victim victim_find(const char *tree, unsigned level)
{
	struct victim found = {.level = UINT32_MAX};

	remount();
	for (unsigned skip = 0, seen = 0; skip < 200 && seen < 3; skip++) {
		struct node_find find = {.tree = tree, .skip = skip};
		struct victim victim = {.level = UINT32_MAX};

		fs_owners(fix.fs, 0, FSFIX_USUAL_BYTES, find_node, &find);
		if (!find.is_found)
			break;
		victim.place = find.found;
		victim_read(&victim);
		if (victim.level == level) {
			found = victim;
			seen++;
		}
	}
	ck_assert_uint_eq(found.level, level);
	return found;
}

static void victim_kill(const struct victim *victim)
{
	inject(victim->place.device_offset, BLK, true);
	inject(victim->place.peer_offset, BLK, true);
	remount();
}

/* Whoever asks for everything meets it. */
static struct event *meet_loss(void)
{
	struct fs_check_totals totals;
	struct event *event;

	ck_assert_int_eq(fs_check(fix.fs, NULL, NULL, &totals), 0);
	settle();
	event = next_event(EVENT_METADATA_LOST);
	ck_assert_ptr_nonnull(event);
	ck_assert_ptr_nonnull(event->report);
	return event;
}

static bool report_has(const struct loss_report *report, inum_t ino)
{
	for (size_t i = 0; i < report->count_files; i++)
		if (report->files[i].ino == ino)
			return true;
	return false;
}

static void expect_listed(const struct loss_report *report)
{
	struct fs_summary s = summary();

	ck_assert_str_eq(s.state, "readonly");
	ck_assert_str_eq(s.state_reason, "metadata_lost");
	ck_assert_uint_eq(s.lost_blocks, 1);
	ck_assert_uint_eq(s.count_losses, 1);
	ck_assert_str_eq(s.losses[0].tree, report->loss.tree);
	ck_assert_uint_eq(s.losses[0].device_offset, report->loss.device_offset);
	ck_assert_uint_eq(s.losses[0].level, report->loss.level);
	ck_assert_uint_eq(s.losses[0].first_ino, report->loss.first_ino);
	ck_assert_uint_eq(s.losses[0].last_ino, report->loss.last_ino);
	ck_assert_uint_eq(s.losses[0].count_files, report->loss.count_files);
}

static const struct loss_case {
	const char *tree;
	unsigned level;
	bool has_files, has_paths;
	unsigned beside; /* so many that have nothing in it may be counted as well */
	const char *gone; /* said of it */
} loss_cases[] = {
    {"inodes", 0, true, true, 0, "owners, modes and times do not"},
    {"dirents", 0, true, true, 1, "all of it comes back"},
    {"parents", 0, true, false, 1, "all of it comes back"},
    {"extents", 0, true, true, 1, "all of it comes back"},
    {"extents", 1, true, true, 1, "all of it comes back"},
    {"xattrs", 0, true, true, 3, "do not come back"},
    {"rmap", 0, false, false, 0, "all of it comes back"},
    {"free", 0, false, false, 0, "all of it comes back"},
};

static void expect_files(const struct loss_case *of, const struct victim *victim, const struct loss_report *report)
{
	const struct meta_loss *loss = &report->loss;

	ck_assert(loss->has_inodes);
	ck_assert(!loss->has_more_files);
	ck_assert_uint_le(loss->first_ino, max_u64(victim->inos[0], 1));
	ck_assert_uint_ge(loss->last_ino, victim->inos[victim->count - 1]);
	ck_assert_uint_ge(loss->count_files, victim->count);
	if (of->level == 0)
		ck_assert_uint_le(loss->count_files, victim->count + of->beside);
	else
		ck_assert_uint_eq(loss->count_files, 12 * 40);
	ck_assert_uint_eq(report->count_files, min_u64(loss->count_files, LOSS_FILES_MAX));
	for (unsigned i = 0; of->level == 0 && i < min_u64(victim->count, LOSS_FILES_MAX - of->beside); i++)
		ck_assert(report_has(report, victim->inos[i]));
	for (size_t i = 0; i < report->count_files; i++) {
		ck_assert_uint_eq(report->files[i].count_paths, of->has_paths ? 1 : 0);
		if (of->has_paths && victim->path[0] && report->files[i].ino == victim->inos[0])
			ck_assert_str_eq(report->files[i].paths[0], victim->path);
	}
}

START_TEST(of_a_lost_block_the_tree_the_keys_and_the_files_are_told)
{
	const struct loss_case *of = &loss_cases[_i];
	struct victim victim;
	struct event *event;
	char **paths;
	size_t count;

	make_directories();
	victim = victim_find(of->tree, of->level);
	if (of->has_files && of->level == 0) {
		ck_assert_int_eq(fs_paths(fix.fs, victim.inos[0], NULL, &paths, &count), 0);
		snprintf(victim.path, sizeof(victim.path), "%s", count ? paths[0] : "");
		fs_paths_free(paths, count);
	}
	victim_kill(&victim);
	event = meet_loss();
	ck_assert_str_eq(event->tree, of->tree);
	ck_assert(event->report->loss.is_node);
	ck_assert_uint_eq(event->report->loss.level, of->level);
	ck_assert_uint_eq(event->report->loss.device_offset, victim.place.device_offset);
	ck_assert_ptr_nonnull(strstr(event->report->loss.advice, of->gone));
	ck_assert_uint_eq(event->report->loss.has_files, of->has_files);
	if (of->has_files)
		expect_files(of, &victim, event->report);
	else
		ck_assert_uint_gt(event->report->loss.covers_bytes, 0);
	expect_listed(event->report);
	remount();
	expect_listed(event->report);
	event_free(event);
}
END_TEST

/* No poison, only bytes that are not what was written. */
static void victim_spoil(const struct victim *victim)
{
	static const uint8_t garbage[BLK] = {0x55, 0xaa};

	ck_assert_int_eq(media_write(fs_media(fix.fs), victim->place.device_offset, garbage, BLK, NULL), 0);
	ck_assert_int_eq(media_write(fs_media(fix.fs), victim->place.peer_offset, garbage, BLK, NULL), 0);
	remount();
}

START_TEST(a_block_with_two_damaged_copies_is_as_lost_as_with_two_poisoned_ones)
{
	struct victim victim, other;
	struct event *event;

	make_directories();
	victim = victim_find("extents", 0);
	other = victim_find("dirents", 0);
	victim_spoil(&victim);
	event = meet_loss();
	ck_assert_uint_eq(event->cause_id, 0);
	ck_assert_str_eq(event->tree, "extents");
	ck_assert_uint_ge(event->report->loss.count_files, victim.count);
	expect_listed(event->report);
	event_free(event);
	ck_assert_int_eq(fs_unlink(fix.fs, FS_ROOT_INO, "d0"), -EROFS);
	/* Told once, however often it is met. */
	for (unsigned i = 0; i < 3; i++) {
		struct fs_check_totals totals;

		fs_drop_caches(fix.fs);
		ck_assert_int_eq(fs_check(fix.fs, NULL, NULL, &totals), 0);
		settle();
	}
	ck_assert_uint_eq(count_events(EVENT_METADATA_LOST), 0);
	/* So is one that is spoilt afterwards. */
	victim_spoil(&other);
	event = meet_loss();
	event_free(event);
	ck_assert_uint_eq(count_events(EVENT_METADATA_LOST), 1);
	ck_assert(fs_is_readonly(fix.fs));
}
END_TEST

START_TEST(owners_name_the_tree_of_a_block_that_is_lost)
{
	struct victim victim;
	struct fs_owner now;

	make_directories();
	victim = victim_find("extents", 0);
	victim_kill(&victim);
	event_free(meet_loss());
	ck_assert_str_eq(summary().state, "readonly");
	now = metadata_at(victim.place.device_offset);
	ck_assert_str_eq(now.tree, "extents");
	ck_assert_uint_eq(now.peer_offset, victim.place.peer_offset);
}
END_TEST

struct unused_find {
	devoff_t offset;
	bool is_found;
};

static int find_unused(void *arg, const struct fs_owner *owner)
{
	struct unused_find *find = arg;

	if (owner->kind != FS_OWNER_METADATA || owner->live || owner->copy != 0 ||
	    owner->length_bytes < 8 * BLK)
		return 0;
	find->offset = owner->device_offset + 4 * BLK;
	find->is_found = true;
	return 1;
}

START_TEST(an_unused_metadata_block_is_made_usable_again)
{
	struct unused_find find = {.is_found = false};
	struct event *event;

	fs_owners(fix.fs, 0, FSFIX_USUAL_BYTES, find_unused, &find);
	ck_assert(find.is_found);
	inject(find.offset + 100, 1, false);
	event = next_event(EVENT_METADATA_REPAIRED);
	ck_assert_ptr_nonnull(event);
	ck_assert_str_eq(event->action, "cleared");
	event_free(event);
	ck_assert_uint_eq(summary().badblock_bytes, 0);
	make_tree(300);
	ck_assert_int_eq(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(a_superblock_slot_is_written_anew)
{
	struct super super;
	struct why why = {""};
	struct event *event;

	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++) {
		inject(super_slot_offset(slot), BLK, false);
		event = next_event(EVENT_METADATA_REPAIRED);
		ck_assert_ptr_nonnull(event);
		ck_assert_str_eq(event->tree, "superblock");
		ck_assert_str_eq(event->action, "rewritten");
		event_free(event);
	}
	ck_assert_uint_eq(summary().badblock_bytes, 0);
	ck_assert_int_eq(fs_read_super(fs_media(fix.fs), &super, &why), 0);
	ck_assert_int_eq(memcmp(&super, fs_super(fix.fs), sizeof(super)), 0);
	remount();
	ck_assert_int_eq(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(a_readonly_mount_answers_eio_and_writes_nothing)
{
	char copy[300], command[700];
	inum_t ino[3];

	make_family(ino);
	inject(files_device_offset(&fix, ino[0], 3 * BLK), 1, false);
	unsubscribe();
	ck_assert_int_eq(fsfix_unmount(&fix), 0);
	snprintf(copy, sizeof(copy), "%s.before", fix.path);
	ck_assert_int_eq(fsfix_copy_file(fix.path, copy), 0);
	fix.options.readonly = true;
	ck_assert_int_eq(fsfix_mount(&fix), 0);
	subscribe();
	inject(files_device_offset(&fix, ino[0], 5 * BLK), 1, false);
	ck_assert_uint_eq(count_events(EVENT_FILE_DAMAGED), 2);
	expect_bad_block(ino[0], 3 * BLK, 5 * BLK, 1);
	ck_assert_uint_eq(count_damages(), 5);
	unsubscribe();
	ck_assert_int_eq(fsfix_unmount(&fix), 0);
	snprintf(command, sizeof(command), "cmp '%s' '%s'", fix.path, copy);
	ck_assert_int_eq(system(command), 0);
	unlink(copy);
	fix.options.readonly = false;
	ck_assert_int_eq(fsfix_mount(&fix), 0);
	subscribe();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("failure");
	TCase *data = tcase_create("data"), *metadata = tcase_create("metadata");
	SRunner *runner;
	int failed;

	tcase_set_timeout(data, 120);
	tcase_add_checked_fixture(data, setup, teardown);
	tcase_add_test(data, all_sharers_are_named_with_every_path_and_fail_in_that_block_only);
	tcase_add_test(data, cold_inodes_are_found_after_dropping_caches);
	tcase_add_test(data, cold_inodes_are_found_after_a_remount_before_any_lookup);
	tcase_add_test(data, damage_is_durable_and_never_touched_again);
	tcase_add_test(data, a_crash_after_the_injection_forgets_nothing);
	tcase_add_test(data, the_last_range_is_clipped_to_the_end_of_file);
	tcase_add_test(data, a_file_without_a_name_is_told_of_without_paths);
	tcase_add_test(data, overwriting_whole_blocks_heals_for_good);
	tcase_add_test(data, overwriting_one_sharer_heals_only_that_one);
	tcase_add_test(data,
		       truncated_and_deleted_damage_becomes_quarantine_that_uninject_gives_back);
	tcase_add_test(data, the_kernels_pages_of_every_sharer_are_dropped);
	tcase_add_test(data, a_readonly_mount_answers_eio_and_writes_nothing);
	suite_add_tcase(suite, data);
	tcase_set_timeout(metadata, 120);
	tcase_add_checked_fixture(metadata, setup, teardown);
	tcase_add_loop_test(metadata, poisoned_metadata_is_repaired_from_its_other_copy, 0,
			    ARRAY_SIZE(trees));
	tcase_add_test(metadata, metadata_poisoned_while_unmounted_is_repaired_by_the_mount);
	tcase_add_test(metadata,
		       both_copies_of_a_block_lost_leaves_the_rest_readable_and_read_only);
	tcase_add_loop_test(metadata, of_a_lost_block_the_tree_the_keys_and_the_files_are_told, 0, ARRAY_SIZE(loss_cases));
	tcase_add_test(metadata, a_block_with_two_damaged_copies_is_as_lost_as_with_two_poisoned_ones);
	tcase_add_test(metadata, owners_name_the_tree_of_a_block_that_is_lost);
	tcase_add_test(metadata, an_unused_metadata_block_is_made_usable_again);
	tcase_add_test(metadata, a_superblock_slot_is_written_anew);
	suite_add_tcase(suite, metadata);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
