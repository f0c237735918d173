/*
 * Random operations on several files against copies in memory: every byte, every size; remounts,
 * copies of the image as a kill would leave it, and a full check now and then; and a process that
 * is killed at work. MENDFS_STEPS sets how many steps.
 */
#include "tests/support/files.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/random.h"

#define FILES 5
#define FILE_MAX (192u << 10)
#define KEEP FALLOC_FL_KEEP_SIZE

struct model_file {
	inum_t ino;
	uint8_t bytes[FILE_MAX];
	uint64_t size;
};

struct model {
	struct fsfix fix;
	struct random random;
	struct model_file files[FILES];
	uint64_t step;
	bool replays; /* in memory only: what a process did that was killed */
};

static struct model model;

static uint64_t pick(uint64_t below)
{
	return below ? random_below(&model.random, below) : 0;
}

/* Often on a block's edge, often small. */
static uint64_t pick_pos(uint64_t below)
{
	uint64_t pos = pick(below);

	return pick(3) ? pos : round_down_u64(pos, BLOCK_BYTES);
}

static uint64_t pick_length(uint64_t most)
{
	uint64_t length = pick(4) ? pick(min_u64(most, 20000)) : pick(most);

	return pick(3) ? length : round_down_u64(length, BLOCK_BYTES);
}

static void expect_file(struct fsfix *fix, const struct model_file *f, uint64_t pos,
			uint64_t length)
{
	static uint8_t buffer[FILE_MAX];
	size_t done;

	expect_equal(fs_read(fix->fs, f->ino, pos, buffer, length, &done), 0);
	expect_equal(done, pos < f->size ? min_u64(length, f->size - pos) : 0);
	for (size_t i = 0; i < done; i++)
		if (buffer[i] != f->bytes[pos + i])
			ck_abort_msg("step %llu: inode %llu byte %llu is %02x, not %02x",
				     (unsigned long long)model.step, (unsigned long long)f->ino,
				     (unsigned long long)(pos + i), buffer[i], f->bytes[pos + i]);
}

static void expect_all(struct fsfix *fix)
{
	for (unsigned i = 0; i < FILES; i++) {
		expect_equal(files_size(fix, model.files[i].ino), model.files[i].size);
		expect_file(fix, &model.files[i], 0, FILE_MAX);
	}
}

static void step_write(struct model_file *f)
{
	static uint8_t buffer[FILE_MAX];
	uint64_t pos = pick(4) ? pick_pos(f->size + 1) : pick_pos(FILE_MAX);
	uint64_t length = pick_length(FILE_MAX - pos);
	size_t done;

	for (uint64_t i = 0; i < length; i++)
		buffer[i] = (uint8_t)random_next(&model.random);
	if (!model.replays) {
		expect_equal(fs_write(model.fix.fs, f->ino, pos, buffer, length, &done), 0);
		expect_equal(done, length);
	}
	memcpy(f->bytes + pos, buffer, length);
	if (length)
		f->size = max_u64(f->size, pos + length);
}

static void step_append(struct model_file *f)
{
	uint8_t buffer[5000];
	uint64_t length = min_u64(pick(sizeof(buffer)), FILE_MAX - f->size);
	size_t done;

	memset(buffer, (int)model.step, length);
	if (!model.replays)
		expect_equal(fs_append(model.fix.fs, f->ino, buffer, length, &done), 0);
	memcpy(f->bytes + f->size, buffer, length);
	f->size += length;
}

static void step_truncate(struct model_file *f)
{
	uint64_t size = pick(3) ? pick_pos(f->size + 1) : pick_pos(FILE_MAX);

	if (!model.replays)
		files_truncate(&model.fix, f->ino, size);
	if (size < f->size)
		memset(f->bytes + size, 0, f->size - size);
	f->size = size;
}

static void step_fallocate(struct model_file *f)
{
	static const int modes[] = {0, KEEP, KEEP | FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE,
				    KEEP | FALLOC_FL_ZERO_RANGE};
	int mode = modes[pick(ARRAY_SIZE(modes))];
	uint64_t pos = pick_pos(FILE_MAX - 1), length = 1 + pick_length(FILE_MAX - pos - 1);

	if (!model.replays)
		expect_equal(fs_fallocate(model.fix.fs, f->ino, mode, pos, length), 0);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		memset(f->bytes + pos, 0, length);
	if (!(mode & KEEP))
		f->size = max_u64(f->size, pos + length);
}

static void step_copy(struct model_file *from, struct model_file *to)
{
	uint64_t from_pos = pick_pos(from->size + 1), to_pos = pick_pos(FILE_MAX);
	uint64_t length = pick_length(FILE_MAX - to_pos), done, whole;
	uint64_t gap = from_pos > to_pos ? from_pos - to_pos : to_pos - from_pos;
	bool overlaps;

	if (from_pos == 0 && pick(2))
		length = FILE_MAX - to_pos;
	whole = from_pos < from->size ? min_u64(length, from->size - from_pos) : 0;
	overlaps = from == to && gap < whole;
	if (!model.replays) {
		expect_equal(fs_copy_range(model.fix.fs, from->ino, from_pos, to->ino, to_pos,
					   length, &done),
			     overlaps ? -EINVAL : 0);
		expect_equal(done, overlaps ? 0 : whole);
	}
	if (overlaps)
		return;
	memmove(to->bytes + to_pos, from->bytes + from_pos, whole);
	if (whole)
		to->size = max_u64(to->size, to_pos + whole);
}

static void step_clone(struct model_file *from, struct model_file *to)
{
	if (from == to)
		return;
	if (!model.replays)
		expect_equal(fs_clone(model.fix.fs, from->ino, to->ino), 0);
	memcpy(to->bytes, from->bytes, FILE_MAX);
	to->size = from->size;
}

static void step_replace(struct model_file *f)
{
	char name[16];

	snprintf(name, sizeof(name), "file%u", (unsigned)(f - model.files));
	if (!model.replays) {
		expect_equal(fs_unlink(model.fix.fs, FS_ROOT_INO, name), 0);
		expect_equal(fsfix_mkfile(&model.fix, FS_ROOT_INO, name, &f->ino), 0);
	}
	memset(f->bytes, 0, FILE_MAX);
	f->size = 0;
}

/*
 * The image as it is now, mounted elsewhere: what kill -9 would leave. All that was acknowledged is
 * there.
 */
static void step_crash(void)
{
	struct fsfix copy = {.options = model.fix.options};

	if (!model.fix.options.tools)
		return;
	snprintf(copy.path, sizeof(copy.path), "%.200s.kill", model.fix.path);
	expect_equal(fsfix_copy_file(model.fix.path, copy.path), 0);
	expect_equal(fsfix_mount(&copy), 0);
	expect_all(&copy);
	files_check(&copy);
	fsfix_destroy(&copy);
}

/* What changes files. false: not one of these. */
static bool step_change(uint64_t what, struct model_file *f)
{
	if (what < 350)
		step_write(f);
	else if (what < 450)
		step_append(f);
	else if (what < 550)
		step_truncate(f);
	else if (what < 650)
		step_fallocate(f);
	else if (what < 800)
		step_copy(&model.files[pick(FILES)], f);
	else if (what < 840)
		step_clone(&model.files[pick(FILES)], f);
	else
		return false;
	return true;
}

static void step(void)
{
	struct model_file *f = &model.files[pick(FILES)];
	uint64_t what = pick(1000);

	if (step_change(what, f))
		return;
	if (what < 850)
		step_replace(f);
	else if (what < 997)
		expect_file(&model.fix, f, pick_pos(FILE_MAX), pick_length(FILE_MAX));
	else if (what < 999)
		step_crash();
	else
		expect_equal(fsfix_remount(&model.fix), 0);
}

static void make_files(void)
{
	for (unsigned i = 0; i < FILES; i++) {
		char name[16];

		snprintf(name, sizeof(name), "file%u", i);
		expect_equal(fsfix_mkfile(&model.fix, FS_ROOT_INO, name, &model.files[i].ino), 0);
	}
}

START_TEST(files_are_what_was_written_to_them)
{
	const char *given = getenv("MENDFS_STEPS");
	uint64_t steps = given ? strtoull(given, NULL, 0) : 20000;

	model.random = random_start("file_model");
	expect_equal(fsfix_create(&model.fix, 32u << 20), 0);
	/*
	 * Half of the runs without the background thread: a copy of the image is of one moment only
	 * then.
	 */
	model.fix.options.tools = pick(2);
	expect_equal(fsfix_mount(&model.fix), 0);
	make_files();
	for (model.step = 0; model.step < steps; model.step++) {
		step();
		if (model.step % 1000 == 999) {
			expect_all(&model.fix);
			files_check(&model.fix);
		}
	}
	expect_all(&model.fix);
	expect_equal(fsfix_remount(&model.fix), 0);
	expect_all(&model.fix);
	files_check(&model.fix);
	fsfix_destroy(&model.fix);
}
END_TEST

/* --- a process that is killed --------------------------------------------------------------- */

#define KILLS 12

static void step_kill(void)
{
	struct model_file *f = &model.files[pick(FILES)];

	step_change(pick(840), f);
	model.step++;
}

/*
 * Each byte is what it was before the step under way or what it is after it; sizes likewise, or
 * between.
 */
static void expect_between(const struct model_file *before, const struct model_file *after)
{
	static uint8_t buffer[FILE_MAX];
	uint64_t size = files_size(&model.fix, before->ino);
	size_t done;

	expect(size >= min_u64(before->size, after->size) &&
	       size <= max_u64(before->size, after->size));
	expect_equal(fs_read(model.fix.fs, before->ino, 0, buffer, FILE_MAX, &done), 0);
	expect_equal(done, size);
	for (size_t i = 0; i < done; i++)
		if (buffer[i] != before->bytes[i] && buffer[i] != after->bytes[i])
			ck_abort_msg(
			    "step %llu: inode %llu byte %zu is %02x, neither %02x nor %02x",
			    (unsigned long long)model.step, (unsigned long long)before->ino, i,
			    buffer[i], before->bytes[i], after->bytes[i]);
}

/* The child goes on from the model as it is; the parent then follows it in memory. */
static void run_and_kill(volatile uint64_t *acknowledged, uint64_t until, useconds_t more)
{
	pid_t child;

	*acknowledged = 0;
	fflush(NULL);
	child = fork();
	if (!child) {
		if (fsfix_mount(&model.fix))
			_exit(1);
		for (;; ++*acknowledged)
			step_kill();
	}
	while (*acknowledged < until && waitpid(child, NULL, WNOHANG) == 0)
		usleep(100);
	usleep(more);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	expect(*acknowledged >= until);
}

static void follow(uint64_t acknowledged)
{
	static struct model_file before[FILES];
	struct random random;

	model.replays = true;
	for (uint64_t i = 0; i < acknowledged; i++)
		step_kill();
	random = model.random;
	memcpy(before, model.files, sizeof(before));
	step_kill(); /* the one under way */
	model.replays = false;
	expect_equal(fsfix_mount(&model.fix), 0);
	for (unsigned i = 0; i < FILES; i++)
		expect_between(&before[i], &model.files[i]);
	files_check(&model.fix);
	model.random = random;
}

/* Whatever was under way is settled by overwriting: the model and the files agree again. */
static void settle(void)
{
	size_t done;

	for (unsigned i = 0; i < FILES; i++) {
		struct model_file *f = &model.files[i];

		files_truncate(&model.fix, f->ino, 0);
		expect_equal(fs_write(model.fix.fs, f->ino, 0, f->bytes, f->size, &done), 0);
		if (i)
			expect_equal(fs_clone(model.fix.fs, model.files[i - 1].ino, f->ino), 0);
		if (i) {
			memcpy(f->bytes, f[-1].bytes, FILE_MAX);
			f->size = f[-1].size;
		}
	}
}

START_TEST(a_kill_loses_nothing_that_was_acknowledged)
{
	volatile uint64_t *acknowledged =
	    mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct random delays = random_start("file_kill");

	model.random = delays;
	expect_equal(fsfix_create_mounted(&model.fix, 32u << 20), 0);
	make_files();
	for (unsigned round = 0; round < KILLS; round++) {
		settle();
		expect_equal(fsfix_unmount(&model.fix), 0);
		run_and_kill(acknowledged, random_below(&delays, 400),
			     (useconds_t)random_below(&delays, 2000));
		follow(*acknowledged);
	}
	fsfix_destroy(&model.fix);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("file_model");
	TCase *tests = tcase_create("file_model");

	tcase_set_timeout(tests, 600);
	tcase_add_test(tests, files_are_what_was_written_to_them);
	tcase_add_test(tests, a_kill_loses_nothing_that_was_acknowledged);
	suite_add_tcase(suite, tests);
	return files_run(suite);
}
