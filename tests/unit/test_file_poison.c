/*
 * Poison against a model of blocks: files, partial copies and clones share blocks, poison hits
 * blocks, overwrites heal, copy-on-write parts the sharers, remounts change nothing. The model
 * knows which 4 KiB of which file must fail, and what every other byte is; it never asks the
 * filesystem.
 */
#include "tests/support/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "tests/support/random.h"

#define FILES 5
#define BLOCKS 24
#define FILE_MAX (BLOCKS * BLOCK_BYTES)

/* Physical blocks of the model: an id is what files share. */
struct physical {
	unsigned references;
	bool bad;
};

struct model_file {
	inum_t ino;
	uint64_t size;
	unsigned id[BLOCKS]; /* 0: a hole */
	uint8_t bytes[FILE_MAX];
};

static struct {
	struct fsfix fix;
	struct random random;
	struct model_file files[FILES];
	struct physical *physical;
	unsigned count, capacity;
	uint64_t step, failures_expected;
} model;

/*
 * How the medium takes a clear: as it should, not at all, or (a liar) with success but without
 * effect.
 */
enum clear_mode { CLEAR_WORKS, CLEAR_NOT_SUPPORTED, CLEAR_LIES, CLEAR_MODES };
static enum clear_mode clear_mode;

int __real_media_clear(struct media *media, devoff_t offset, uint64_t length);
int __wrap_media_clear(struct media *media, devoff_t offset, uint64_t length);

int __wrap_media_clear(struct media *media, devoff_t offset, uint64_t length)
{
	if (clear_mode == CLEAR_NOT_SUPPORTED)
		return -ENOTSUP;
	if (clear_mode == CLEAR_LIES)
		return media_bad_remove(media, offset, length);
	return __real_media_clear(media, offset, length);
}

static uint64_t pick(uint64_t below)
{
	return random_below(&model.random, below);
}

static unsigned id_new(void)
{
	if (model.count == model.capacity) {
		model.capacity = model.capacity ? model.capacity * 2 : 1024;
		model.physical = realloc(model.physical, model.capacity * sizeof(*model.physical));
	}
	if (!model.count)
		model.count = 1;
	model.physical[model.count] = (struct physical){.references = 1};
	return model.count++;
}

static void id_set(struct model_file *f, unsigned block, unsigned id)
{
	if (f->id[block])
		model.physical[f->id[block]].references--;
	f->id[block] = id;
}

static bool is_bad(const struct model_file *f, unsigned block)
{
	return f->id[block] && model.physical[f->id[block]].bad;
}

static void model_zero(struct model_file *f, uint64_t from, uint64_t to)
{
	memset(f->bytes + from, 0, to - from);
}

/*
 * A write that replaces all of what the file has in a block heals it or goes elsewhere; a partial
 * one copies a shared block.
 */
static void model_write_block(struct model_file *f, unsigned block)
{
	unsigned id = f->id[block];

	if (id && model.physical[id].references == 1)
		model.physical[id].bad = false;
	else
		id_set(f, block, id_new());
}

static bool covers(const struct model_file *f, unsigned block, uint64_t pos, uint64_t end)
{
	uint64_t start = block * BLOCK_BYTES;

	return pos <= start && (end >= start + BLOCK_BYTES || end >= f->size);
}

/*
 * Raising the size zeros the tail of the last block: a partial write of it. false: it is bad, the
 * raise fails.
 */
static bool model_raise(struct model_file *f, uint64_t pos)
{
	unsigned last = (unsigned)(f->size / BLOCK_BYTES);

	if (pos <= f->size || f->size % BLOCK_BYTES == 0 || !f->id[last])
		return true;
	if (is_bad(f, last))
		return false;
	model_write_block(f, last);
	return true;
}

/* How many bytes of the write succeed. */
static uint64_t model_write(struct model_file *f, uint64_t pos, const uint8_t *bytes,
			    uint64_t length)
{
	uint64_t end = pos + length, at = pos;

	if (!length)
		return 0;
	if (!model_raise(f, pos))
		return 0;
	while (at < end) {
		unsigned block = (unsigned)(at / BLOCK_BYTES);
		uint64_t stop = min_u64(end, (block + 1) * (uint64_t)BLOCK_BYTES);

		if (is_bad(f, block) && !covers(f, block, pos, end))
			break;
		model_write_block(f, block);
		memcpy(f->bytes + at, bytes + (at - pos), stop - at);
		f->size = max_u64(f->size, stop);
		at = stop;
	}
	return at - pos;
}

static void step_write(struct model_file *f)
{
	static uint8_t bytes[FILE_MAX];
	uint64_t pos = pick(3) ? pick(BLOCKS) * BLOCK_BYTES : pick(FILE_MAX - 1);
	uint64_t length = pick(2) ? (1 + pick(6)) * BLOCK_BYTES : 1 + pick(9000);
	uint64_t expected;
	size_t done;
	int error;

	length = min_u64(length, FILE_MAX - pos);
	for (uint64_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)random_next(&model.random);
	error = fs_write(model.fix.fs, f->ino, pos, bytes, length, &done);
	expected = model_write(f, pos, bytes, length);
	expect_equal(done, expected);
	expect_equal(error, expected < length ? -EIO : 0);
	model.failures_expected += error != 0;
}

static void step_truncate(struct model_file *f)
{
	struct inode_record values = {.size_bytes =
					  pick(2) ? pick(BLOCKS) * BLOCK_BYTES : pick(FILE_MAX)};
	struct fs_attr attr;
	bool fine = model_raise(f, values.size_bytes);

	expect_equal(fs_setattr(model.fix.fs, f->ino, FS_SET_SIZE, &values, &attr),
		     fine ? 0 : -EIO);
	if (!fine)
		return;
	if (values.size_bytes < f->size)
		model_zero(f, values.size_bytes, f->size);
	for (uint64_t block = (values.size_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES; block < BLOCKS;
	     block++)
		id_set(f, (unsigned)block, 0);
	f->size = values.size_bytes;
}

static void step_punch(struct model_file *f)
{
	unsigned from = (unsigned)pick(BLOCKS), count = 1 + (unsigned)pick(BLOCKS - from);

	expect_equal(fs_fallocate(model.fix.fs, f->ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  from * BLOCK_BYTES, count * (uint64_t)BLOCK_BYTES),
		     0);
	for (unsigned i = from; i < from + count; i++)
		id_set(f, i, 0);
	model_zero(f, from * BLOCK_BYTES, (from + count) * (uint64_t)BLOCK_BYTES);
}

static void model_share(struct model_file *from, unsigned from_block, struct model_file *to,
			unsigned to_block)
{
	unsigned id = from->id[from_block];

	if (id)
		model.physical[id].references++;
	id_set(to, to_block, id);
	memcpy(to->bytes + to_block * BLOCK_BYTES, from->bytes + from_block * BLOCK_BYTES,
	       BLOCK_BYTES);
}

static void step_clone(struct model_file *from, struct model_file *to)
{
	if (from == to)
		return;
	expect_equal(fs_clone(model.fix.fs, from->ino, to->ino), 0);
	for (unsigned i = 0; i < BLOCKS; i++)
		model_share(from, i, to, i);
	to->size = from->size;
}

/* Whole blocks from within the source. */
static void step_copy(struct model_file *from, struct model_file *to)
{
	unsigned have = (unsigned)(from->size / BLOCK_BYTES), at, to_at, count;
	uint64_t done;
	int error;

	if (!have || from == to)
		return;
	at = (unsigned)pick(have);
	to_at = (unsigned)pick(BLOCKS);
	count = 1 + (unsigned)pick(min_u64(have - at, BLOCKS - to_at));
	error = fs_copy_range(model.fix.fs, from->ino, at * BLOCK_BYTES, to->ino,
			      to_at * BLOCK_BYTES, count * (uint64_t)BLOCK_BYTES, &done);
	if (!model_raise(to, to_at * BLOCK_BYTES)) {
		expect_equal(error, -EIO);
		return;
	}
	expect_equal(error, 0);
	expect_equal(done, count * (uint64_t)BLOCK_BYTES);
	for (unsigned i = 0; i < count; i++)
		model_share(from, at + i, to, to_at + i);
	to->size = max_u64(to->size, (to_at + count) * (uint64_t)BLOCK_BYTES);
}

static void step_poison(struct model_file *f)
{
	unsigned block = (unsigned)pick(BLOCKS);
	uint64_t within = pick(BLOCK_BYTES - 64);
	bool latent = pick(3) == 0;
	size_t done;

	if (!f->id[block] || block * BLOCK_BYTES >= f->size)
		return;
	/* Below the end of this file, so that a read meets it. */
	within = min_u64(within, f->size - block * BLOCK_BYTES - 1);
	files_poison(&model.fix, f->ino, block * BLOCK_BYTES + within, 1 + pick(64), latent);
	model.physical[f->id[block]].bad = true;
	if (latent) {
		files_read_error(&model.fix, f->ino, block * BLOCK_BYTES, BLOCK_BYTES, &done);
		expect_equal(fs_notify_wait(model.fix.fs, 5000), 0);
	}
}

static void step_unlink(struct model_file *f)
{
	char name[16];

	snprintf(name, sizeof(name), "file%u", (unsigned)(f - model.files));
	expect_equal(fs_unlink(model.fix.fs, FS_ROOT_INO, name), 0);
	expect_equal(fsfix_mkfile(&model.fix, FS_ROOT_INO, name, &f->ino), 0);
	for (unsigned i = 0; i < BLOCKS; i++)
		id_set(f, i, 0);
	model_zero(f, 0, FILE_MAX);
	f->size = 0;
}

static void expect_file(const struct model_file *f)
{
	uint8_t bytes[BLOCK_BYTES];
	size_t done;

	expect_equal(files_size(&model.fix, f->ino), f->size);
	for (unsigned block = 0; block * BLOCK_BYTES < f->size; block++) {
		uint64_t length = min_u64(BLOCK_BYTES, f->size - block * BLOCK_BYTES);
		int error =
		    fs_read(model.fix.fs, f->ino, block * BLOCK_BYTES, bytes, BLOCK_BYTES, &done);

		if (error != (is_bad(f, block) ? -EIO : 0))
			ck_abort_msg("step %llu: inode %llu block %u: %d, bad in the model: %d",
				     (unsigned long long)model.step, (unsigned long long)f->ino,
				     block, error, is_bad(f, block));
		expect_equal(done, error ? 0 : length);
		expect(error || memcmp(bytes, f->bytes + block * BLOCK_BYTES, length) == 0);
	}
}

struct damage_marks {
	bool bad[FILES][BLOCKS];
	size_t unknown;
};

static int mark_damage(void *arg, const struct fs_damage *damage)
{
	struct damage_marks *marks = arg;

	for (unsigned i = 0; i < FILES; i++) {
		if (model.files[i].ino != damage->ino)
			continue;
		expect_equal(damage->pos % BLOCK_BYTES, 0);
		expect(damage->pos + damage->length_bytes <= model.files[i].size);
		for (uint64_t pos = damage->pos; pos < damage->pos + damage->length_bytes;
		     pos += BLOCK_BYTES)
			marks->bad[i][pos / BLOCK_BYTES] = true;
		return 0;
	}
	marks->unknown++; /* an unlinked file not reclaimed yet */
	return 0;
}

static void expect_damage_list(void)
{
	struct damage_marks marks = {.unknown = 0};

	expect_equal(fs_damaged(model.fix.fs, mark_damage, &marks), 0);
	for (unsigned i = 0; i < FILES; i++)
		for (unsigned block = 0; block < BLOCKS; block++) {
			bool bad = is_bad(&model.files[i], block) &&
				   block * BLOCK_BYTES < model.files[i].size;

			if (marks.bad[i][block] != bad)
				ck_abort_msg(
				    "step %llu: damaged list, file %u block %u: %d, model %d",
				    (unsigned long long)model.step, i, block, marks.bad[i][block],
				    bad);
		}
}

static void step(void)
{
	struct model_file *f = &model.files[pick(FILES)];
	uint64_t what = pick(1000);

	if (what < 400)
		step_write(f);
	else if (what < 480)
		step_truncate(f);
	else if (what < 540)
		step_punch(f);
	else if (what < 640)
		step_clone(f, &model.files[pick(FILES)]);
	else if (what < 760)
		step_copy(f, &model.files[pick(FILES)]);
	else if (what < 880)
		step_poison(f);
	else if (what < 900)
		step_unlink(f);
	else if (what < 903)
		expect_equal(fsfix_remount(&model.fix), 0);
	else if (what < 930)
		expect_damage_list();
	else
		expect_file(f);
}

START_TEST(exactly_the_poisoned_blocks_fail)
{
	const char *given = getenv("MENDFS_STEPS");
	uint64_t steps = given ? strtoull(given, NULL, 0) : 4000;

	model.random = random_start("file_poison");
	clear_mode = (enum clear_mode)_i;
	expect_equal(fsfix_create_mounted(&model.fix, 32u << 20), 0);
	for (unsigned i = 0; i < FILES; i++) {
		char name[16];

		snprintf(name, sizeof(name), "file%u", i);
		expect_equal(fsfix_mkfile(&model.fix, FS_ROOT_INO, name, &model.files[i].ino), 0);
	}
	for (model.step = 0; model.step < steps; model.step++) {
		step();
		if (model.step % 1000 == 999)
			files_check(&model.fix);
	}
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < FILES; i++)
			expect_file(&model.files[i]);
		expect_damage_list();
		files_check(&model.fix);
		expect_equal(fsfix_remount(&model.fix), 0);
	}
	expect(steps < 1000 || model.failures_expected > 0);
	fsfix_destroy(&model.fix);
	free(model.physical);
}
END_TEST

START_TEST(what_cannot_be_cleared_is_replaced_and_quarantined)
{
	struct fs_summary summary;
	devoff_t before;
	inum_t ino;

	expect_equal(fsfix_create_mounted(&model.fix, 32u << 20), 0);
	clear_mode = (enum clear_mode)_i;
	ino = files_new(&model.fix, "file");
	files_write(&model.fix, ino, 1, 0, 8 * BLOCK_BYTES);
	before = files_device_offset(&model.fix, ino, 3 * BLOCK_BYTES);
	files_poison(&model.fix, ino, 3 * BLOCK_BYTES + 1000, 64, false);
	files_write(&model.fix, ino, 1, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES);
	expect_equal(fs_notify_wait(model.fix.fs, 5000), 0);
	files_expect(&model.fix, ino, 1, 0, 8 * BLOCK_BYTES);
	expect(files_device_offset(&model.fix, ino, 3 * BLOCK_BYTES) != before);
	expect_equal(fs_summary(model.fix.fs, &summary), 0);
	expect_equal(summary.quarantined_bytes, BLOCK_BYTES);
	expect_equal(summary.damaged_files, 0);
	files_check(&model.fix);
	fsfix_destroy(&model.fix);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("file_poison");
	TCase *tests = tcase_create("file_poison");

	tcase_set_timeout(tests, 300);
	tcase_add_loop_test(tests, exactly_the_poisoned_blocks_fail, 0, CLEAR_MODES);
	tcase_add_loop_test(tests, what_cannot_be_cleared_is_replaced_and_quarantined,
			    CLEAR_NOT_SUPPORTED, CLEAR_MODES);
	suite_add_tcase(suite, tests);
	return files_run(suite);
}
