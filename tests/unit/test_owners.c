/* Device ranges -> owners: a cover without gaps, and what it says about metadata. */
#include "tests/support/files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "util/lock.h"

static struct fsfix fix;

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, 64u << 20), 0);
}

static void teardown(void)
{
	files_check(&fix);
	fsfix_destroy(&fix);
}

struct cover {
	devoff_t end; /* covered up to here */
	struct fs_owner last;
	uint64_t count, data_bytes, free_bytes, live, primaries, replicas;
	struct fs_owner first_data;
	bool trees[FORMAT_TREE_COUNT];
};

static int cover_add(void *arg, const struct fs_owner *o)
{
	struct cover *c = arg;

	expect(o->length_bytes > 0);
	expect(o->device_offset <= c->end);
	if (c->count && o->device_offset == c->last.device_offset)
		expect(o->ino > c->last.ino || (o->ino == c->last.ino && o->pos > c->last.pos));
	else if (c->count)
		expect(o->device_offset > c->last.device_offset);
	c->end = max_u64(c->end, o->device_offset + o->length_bytes);
	c->last = *o;
	if (o->kind == FS_OWNER_DATA && !c->data_bytes)
		c->first_data = *o;
	c->count++;
	c->data_bytes += o->kind == FS_OWNER_DATA ? o->length_bytes : 0;
	c->free_bytes += o->kind == FS_OWNER_FREE ? o->length_bytes : 0;
	if (o->kind == FS_OWNER_METADATA && o->live) {
		c->live++;
		c->primaries += o->copy == 0;
		c->replicas += o->copy == 1;
		expect(o->has_peer && o->tree);
		for (unsigned tree = 1; tree < FORMAT_TREE_COUNT; tree++)
			c->trees[tree] |= strcmp(o->tree, format_tree_name(tree)) == 0;
	}
	return 0;
}

static void cover(struct cover *c, devoff_t offset, uint64_t length)
{
	memset(c, 0, sizeof(*c));
	c->end = offset;
	expect_equal(fs_owners(fix.fs, offset, length, cover_add, c), 0);
	expect_equal(c->end, offset + length);
}

START_TEST(the_whole_device_is_covered)
{
	struct fs_statfs s;
	struct cover c;
	inum_t ino = files_new(&fix, "file");

	files_write(&fix, ino, 1, 0, 100 * BLOCK_BYTES);
	cover(&c, 0, media_size(fs_media(fix.fs)));
	fs_statfs(fix.fs, &s);
	expect_equal(c.data_bytes, 100 * BLOCK_BYTES);
	expect(c.free_bytes / BLOCK_BYTES >= s.free_blocks);
	expect_equal(c.primaries, c.replicas);
	expect(c.trees[FORMAT_TREE_INODES] && c.trees[FORMAT_TREE_DIRENTS] &&
	       c.trees[FORMAT_TREE_EXTENTS] && c.trees[FORMAT_TREE_RMAP] &&
	       c.trees[FORMAT_TREE_FREE]);
}
END_TEST

START_TEST(random_ranges_are_covered_to_the_byte)
{
	uint64_t size = media_size(fs_media(fix.fs)), state = 12345;
	struct cover c;
	inum_t ino = files_new(&fix, "file");

	for (unsigned i = 0; i < 50; i++)
		files_write(&fix, ino, 1, 3 * i * BLOCK_BYTES, BLOCK_BYTES);
	for (unsigned i = 0; i < 2000; i++) {
		state = state * 6364136223846793005ull + 1442695040888963407ull;
		uint64_t offset = (state >> 20) % size;
		uint64_t length =
		    1 + (state >> 7) % min_u64(size - offset, i % 2 ? 10000 : 10000000);

		cover(&c, offset, length);
	}
}
END_TEST

START_TEST(every_sharer_is_its_own_element)
{
	struct cover c;
	inum_t one = files_new(&fix, "one"), two = files_new(&fix, "two");
	devoff_t at;
	uint64_t done;

	files_write(&fix, one, 1, 0, 10 * BLOCK_BYTES);
	expect_equal(fs_copy_range(fix.fs, one, 2 * BLOCK_BYTES, two, 0, 4 * BLOCK_BYTES, &done),
		     0);
	expect_equal(
	    fs_copy_range(fix.fs, one, 4 * BLOCK_BYTES, one, 20 * BLOCK_BYTES, BLOCK_BYTES, &done),
	    0);
	at = files_device_offset(&fix, one, 4 * BLOCK_BYTES);
	cover(&c, at + 100, 200);
	expect_equal(c.count, 3);
	expect_equal(c.data_bytes, 600);
	expect_equal(c.first_data.ino, one);
	expect_equal(c.first_data.pos, 4 * BLOCK_BYTES + 100);
	expect_equal(c.last.ino, two);
	expect_equal(c.last.pos, 2 * BLOCK_BYTES + 100);
}
END_TEST

#define MANY 2000u

static atomic_bool stop;

static void share_block(inum_t from, inum_t to, uint64_t block)
{
	uint64_t done;

	expect_equal(fs_copy_range(fix.fs, from, 0, to, block * BLOCK_BYTES, BLOCK_BYTES, &done), 0);
	expect_equal(done, BLOCK_BYTES);
}

/* Other sharers of the block come and go, and mappings beside it join and part. */
static void *come_and_go(void *arg)
{
	const inum_t *files = arg;

	for (uint64_t i = 0; !atomic_load(&stop); i++) {
		share_block(files[0], files[1], i % 50);
		expect_equal(fs_fallocate(fix.fs, files[1], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, i % 50 * BLOCK_BYTES, BLOCK_BYTES), 0);
		if (i % 16 == 0)
			files_write(&fix, files[1], 2, 100 * BLOCK_BYTES + i % 64 * BLOCK_BYTES, BLOCK_BYTES);
	}
	return NULL;
}

struct told {
	inum_t steady;
	uint64_t count, last;
};

static int told_add(void *arg, const struct fs_owner *owner)
{
	struct told *told = arg;

	if (owner->kind != FS_OWNER_DATA || owner->ino != told->steady)
		return 0;
	expect(!told->count || owner->pos > told->last);
	told->last = owner->pos;
	told->count++;
	return 0;
}

START_TEST(many_sharers_are_told_in_slices_while_others_change)
{
	inum_t files[2] = {files_new(&fix, "steady"), files_new(&fix, "other")};
	struct lock_counts before, after;
	struct told told;
	pthread_t thread;
	devoff_t at;

	files_write(&fix, files[0], 1, 0, BLOCK_BYTES);
	for (uint64_t i = 1; i < MANY; i++)
		share_block(files[0], files[0], 2 * i);
	at = files_device_offset(&fix, files[0], 0);
	lock_counts(&before);
	told = (struct told){.steady = files[0]};
	expect_equal(fs_owners(fix.fs, at, BLOCK_BYTES, told_add, &told), 0);
	lock_counts(&after);
	expect_equal(told.count, MANY);
	expect(after.taken[LOCK_GATE_SHARED] - before.taken[LOCK_GATE_SHARED] >= 2 * MANY / 512);
	atomic_store(&stop, false);
	pthread_create(&thread, NULL, come_and_go, files);
	for (unsigned i = 0; i < 50; i++) {
		told = (struct told){.steady = files[0]};
		expect_equal(fs_owners(fix.fs, at, BLOCK_BYTES, told_add, &told), 0);
		expect_equal(told.count, MANY);
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
}
END_TEST

START_TEST(beyond_the_end_is_refused)
{
	uint64_t size = media_size(fs_media(fix.fs));
	struct cover c = {0};

	expect_equal(fs_owners(fix.fs, size, 1, cover_add, &c), -ERANGE);
	expect_equal(fs_owners(fix.fs, size - 1, 2, cover_add, &c), -ERANGE);
	expect_equal(fs_owners(fix.fs, UINT64_MAX, UINT64_MAX, cover_add, &c), -ERANGE);
	expect_equal(fs_owners(fix.fs, 0, 0, cover_add, &c), -ERANGE);
}
END_TEST

START_TEST(superblock_journal_and_quarantine_have_their_kinds)
{
	const struct super *super = fs_super(fix.fs);
	struct cover c;

	cover(&c, 0, BLOCK_BYTES);
	expect(c.last.kind == FS_OWNER_SUPERBLOCK && c.last.live);
	cover(&c, super->areas[AREA_JOURNAL].copy[1] + BLOCK_BYTES, BLOCK_BYTES);
	expect(c.last.kind == FS_OWNER_JOURNAL && c.last.live);
	expect_equal(c.last.copy, 1);
	expect_equal(c.last.peer_offset, super->areas[AREA_JOURNAL].copy[0] + BLOCK_BYTES);
	cover(&c, super->areas[AREA_POISON_LOG].copy[0], BLOCK_BYTES);
	expect(strcmp(c.last.tree, "poison_log") == 0 && c.last.live);
	cover(&c, super->areas[AREA_FIXED].copy[0], BLOCK_BYTES);
	expect(strcmp(c.last.tree, "root") == 0 && c.last.live);
	expect_equal(fs_inject(fix.fs, (40u << 20) + 5, 1, false), 0);
	expect_equal(fs_notify_wait(fix.fs, 5000), 0);
	cover(&c, 40u << 20, BLOCK_BYTES);
	expect_equal(c.last.kind, FS_OWNER_QUARANTINE);
}
END_TEST

static int stop_at_once(void *arg, const struct fs_owner *owner)
{
	return 7;
}

START_TEST(a_visitor_can_stop)
{
	expect_equal(fs_owners(fix.fs, 0, 64u << 20, stop_at_once, NULL), 7);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("owners");
	TCase *tests = tcase_create("owners");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, the_whole_device_is_covered);
	tcase_add_test(tests, random_ranges_are_covered_to_the_byte);
	tcase_add_test(tests, every_sharer_is_its_own_element);
	tcase_add_test(tests, many_sharers_are_told_in_slices_while_others_change);
	tcase_add_test(tests, beyond_the_end_is_refused);
	tcase_add_test(tests, superblock_journal_and_quarantine_have_their_kinds);
	tcase_add_test(tests, a_visitor_can_stop);
	suite_add_tcase(suite, tests);
	return files_run(suite);
}
