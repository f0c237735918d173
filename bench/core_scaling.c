/*
 * One thread and two, each in a directory and file of its own, beside a loop that only computes: what two threads reach against one is given as a
 * share of what the loop reached in the same round, because two CPUs of a shared machine are seldom two.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/core.h"
#include "bench/measure.h"
#include "fs/orphan.h"

#define SEGMENT_NS 60e6
#define FILE_BLOCKS 2048ull
#define FILES 256u
#define OLD_FILES 24000u /* that unlink takes away; more than two segments do */
#define BETWEEN_LOOKS 16u

struct runner {
	pthread_t thread;
	pthread_barrier_t *start;
	struct fs *fs;
	inum_t dir, data;
	inum_t grown; /* what append grows; empty again after each round */
	uint64_t number; /* of the next name */
	uint64_t first;	 /* name that is still there */
	inum_t *old;	 /* files that are there before a round of unlink, and stay looked up, as by a kernel */
	uint64_t renamed;
	uint64_t old_first, old_count, old_written, old_forgotten, old_wanted;
	double rate;
	int error;
	int (*run)(struct runner *runner, uint64_t i);
	double segment_ns;
	bool done; /* there is no more to do */
	uint64_t count;
	uint64_t sum; /* of the loop, so that it is not left out */
	uint8_t block[BLOCK_BYTES];
} __attribute__((aligned(128)));

static struct runner runners[2];

static int run_loop(struct runner *runner, uint64_t i)
{
	uint64_t x = i | 1;

	for (unsigned k = 0; k < 1000; k++)
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
	runner->sum += x;
	return 0;
}

static int run_create(struct runner *runner, uint64_t i)
{
	struct fs_who who = core_who();
	struct fs_attr attr;
	char name[32];
	int error;

	snprintf(name, sizeof(name), "new-%llu", (unsigned long long)runner->number++);
	error = fs_create(runner->fs, &who, runner->dir, name, S_IFREG | 0644, 0, &attr);
	if (!error)
		fs_forget(runner->fs, attr.ino, 1);
	return error;
}

static int run_lookup(struct runner *runner, uint64_t i)
{
	struct fs_attr attr;
	char name[32];
	int error;

	snprintf(name, sizeof(name), "file-%u", (unsigned)(i * 7 % FILES));
	error = fs_lookup(runner->fs, runner->dir, name, &attr);
	if (!error)
		fs_forget(runner->fs, attr.ino, 1);
	return error;
}

static int run_read(struct runner *runner, uint64_t i)
{
	size_t done;

	return fs_read(runner->fs, runner->data, i * 617 % FILE_BLOCKS * BLOCK_BYTES, runner->block, BLOCK_BYTES, &done);
}

static int run_write(struct runner *runner, uint64_t i)
{
	size_t done;

	return fs_write(runner->fs, runner->data, i * 617 % FILE_BLOCKS * BLOCK_BYTES, runner->block, BLOCK_BYTES, &done);
}

/* Of what is known, as by a kernel. */
static int run_chmod(struct runner *runner, uint64_t i)
{
	const struct inode_record values = {.mode = 0700 + i % 64};
	struct fs_attr attr;

	return fs_setattr(runner->fs, runner->dir, FS_SET_MODE, &values, &attr);
}

static int run_append(struct runner *runner, uint64_t i)
{
	size_t done;

	return fs_append(runner->fs, runner->grown, runner->block, BLOCK_BYTES, &done);
}

static const char *name_old(char name[32], uint64_t i)
{
	snprintf(name, 32, "old-%llu", (unsigned long long)i);
	return name;
}

/* By the thread that unlinks them: it has numbers of its own. */
static int run_fill(struct runner *runner, uint64_t i)
{
	struct fs_who who = core_who();
	struct fs_attr attr;
	char name[32];
	int error;

	runner->done = runner->old_count == runner->old_wanted;
	if (runner->done)
		return 0;
	error = fs_create(runner->fs, &who, runner->dir, name_old(name, runner->old_count), S_IFREG | 0644, 0, &attr);
	if (!error)
		runner->old[runner->old_count++] = attr.ino;
	return error;
}

static int run_unlink(struct runner *runner, uint64_t i)
{
	char name[32];

	runner->done = runner->old_first == runner->old_count;
	return runner->done ? 0 : fs_unlink(runner->fs, runner->dir, name_old(name, runner->old_first++));
}

/* The first block of a file that is empty. */
static int run_first_write(struct runner *runner, uint64_t i)
{
	size_t done;

	runner->done = runner->old_written == runner->old_count;
	return runner->done ? 0 : fs_write(runner->fs, runner->old[runner->old_written++], 0, runner->block, BLOCK_BYTES, &done);
}

/* One name of a file that is known, to and fro. */
static int run_rename(struct runner *runner, uint64_t i)
{
	struct fs_who who = core_who();
	unsigned file = (unsigned)(runner->renamed / 2 % FILES);
	char names[2][32];
	bool back = runner->renamed++ % 2;

	snprintf(names[0], sizeof(names[0]), "file-%u", file);
	snprintf(names[1], sizeof(names[1]), "renamed-%u", file);
	return fs_rename(runner->fs, &who, runner->dir, names[back], runner->dir, names[!back], 0);
}

/* The kernel forgets it at once: the background ends the inode meanwhile. */
static int run_unlink_forget(struct runner *runner, uint64_t i)
{
	int error = run_unlink(runner, i);

	while (!error && runner->old_forgotten < runner->old_first)
		fs_forget(runner->fs, runner->old[runner->old_forgotten++], 1);
	return error;
}

static const struct {
	const char *name;
	int (*run)(struct runner *runner, uint64_t i);
	bool takes_old;
} works[] = {{"create", run_create, false},    {"lookup", run_lookup, false},  {"read 4 KiB", run_read, false},
	     {"write 4 KiB", run_write, false}, {"unlink", run_unlink, true}, {"unlink and forget", run_unlink_forget, true},
	     {"rename within", run_rename, false},
	     {"chmod", run_chmod, false},
	     {"append 4 KiB", run_append, false},
	     {"first write", run_first_write, true}};
static double ratios[ARRAY_SIZE(works)][CORE_ROUNDS_MAX], contended[ARRAY_SIZE(works)][CORE_ROUNDS_MAX], controls[ARRAY_SIZE(works)][CORE_ROUNDS_MAX];

static void *runner_main(void *arg)
{
	struct runner *runner = arg;
	double begin, end;

	pthread_barrier_wait(runner->start);
	begin = end = measure_now_ns();
	runner->done = false;
	for (runner->count = 0; end - begin < runner->segment_ns && !runner->error && !runner->done; end = measure_now_ns())
		for (unsigned k = 0; k < BETWEEN_LOOKS && !runner->error && !runner->done; k++)
			runner->error = runner->run(runner, runner->count++);
	runner->rate = (double)runner->count / (end - begin);
	return NULL;
}

/* Calls per ns of all threads together; negative errno. *locks: contended per call. */
static double run_segment(const struct core_options *options, unsigned threads, int (*run)(struct runner *, uint64_t), double *locks)
{
	struct measure_locks before = measure_locks();
	pthread_barrier_t start;
	double rate = 0;
	uint64_t count = 0;
	int error = 0;

	pthread_barrier_init(&start, NULL, threads);
	for (unsigned t = 0; t < threads; t++) {
		runners[t].start = &start;
		runners[t].run = run;
		runners[t].segment_ns = run == run_fill ? INFINITY : options->smoke ? SEGMENT_NS / 20 : SEGMENT_NS;
		if (pthread_create(&runners[t].thread, NULL, runner_main, &runners[t]))
			exit(1);
	}
	for (unsigned t = 0; t < threads; t++) {
		pthread_join(runners[t].thread, NULL);
		rate += runners[t].rate;
		count += runners[t].count;
		error = error ? error : runners[t].error;
	}
	pthread_barrier_destroy(&start);
	*locks = (double)(measure_locks().contended - before.contended) / (double)(count ? count : 1);
	return error ? error : rate;
}

/* What create made goes again, unmeasured, so that rounds are alike. */
static int remove_new(struct runner *runner)
{
	static const struct inode_record empty;
	struct fs_attr attr;
	char name[32];
	int error = 0;

	for (; runner->first < runner->number && !error; runner->first++) {
		snprintf(name, sizeof(name), "new-%llu", (unsigned long long)runner->first);
		error = fs_unlink(runner->fs, runner->dir, name);
	}
	while (runner->old_first < runner->old_count && !error)
		error = run_unlink(runner, 0);
	while (runner->old_forgotten < runner->old_first)
		fs_forget(runner->fs, runner->old[runner->old_forgotten++], 1);
	runner->old_first = runner->old_count = runner->old_written = runner->old_forgotten = 0;
	if (!error)
		error = fs_setattr(runner->fs, runner->grown, FS_SET_SIZE, &empty, &attr);
	orphan_reclaim_queued(runner->fs);
	return error;
}

static int run_round(const struct core_options *options, unsigned w, unsigned round)
{
	double ignored, control[2], work[2];
	int error = 0;

	if (works[w].takes_old && run_segment(options, 2, run_fill, &ignored) < 0)
		return core_fail(-EIO, "filling");
	control[0] = run_segment(options, 1, run_loop, &ignored);
	work[0] = run_segment(options, 1, works[w].run, &ignored);
	work[1] = run_segment(options, 2, works[w].run, &contended[w][round]);
	control[1] = run_segment(options, 2, run_loop, &ignored);
	if (work[0] < 0 || work[1] < 0)
		return core_fail(work[0] < 0 ? (int)work[0] : (int)work[1], works[w].name);
	controls[w][round] = control[1] / control[0];
	ratios[w][round] = work[1] / work[0] / controls[w][round];
	for (unsigned t = 0; t < 2 && !error; t++)
		error = remove_new(&runners[t]);
	return error;
}

static int make(struct fs *fs, inum_t dir, const char *name, mode_t mode, inum_t *ino)
{
	struct fs_who who = core_who();
	struct fs_attr attr;
	int error = fs_create(fs, &who, dir, name, mode, 0, &attr);

	if (error)
		return error;
	*ino = attr.ino;
	if (!S_ISDIR(mode)) /* the kernel, too, knows the directory that it works in */
		fs_forget(fs, attr.ino, 1);
	return 0;
}

static int prepare(const struct core_options *options, struct runner *runner, struct fs *fs, const char *name)
{
	char file[32];
	inum_t ignored;
	struct fs_attr attr;
	int error = make(fs, FS_ROOT_INO, name, S_IFDIR | 0755, &runner->dir);

	runner->fs = fs;
	runner->old_wanted = options->smoke ? OLD_FILES / 20 : OLD_FILES;
	runner->old = calloc(runner->old_wanted, sizeof(*runner->old));
	if (!runner->old)
		return -ENOMEM;
	if (!error)
		error = make(fs, runner->dir, "data", S_IFREG | 0644, &runner->data);
	if (!error)
		error = make(fs, runner->dir, "grown", S_IFREG | 0644, &runner->grown);
	if (!error)
		error = fs_lookup(fs, runner->dir, "grown", &attr); /* it is open */
	for (unsigned i = 0; i < FILES && !error; i++) {
		snprintf(file, sizeof(file), "file-%u", i);
		error = make(fs, runner->dir, file, S_IFREG | 0644, &ignored);
		if (!error)
			error = fs_lookup(fs, runner->dir, file, &attr); /* the kernel knows it */
	}
	for (uint64_t i = 0; i < FILE_BLOCKS && !error; i++)
		error = run_write(runner, i);
	return error;
}

/* Persistent memory is there from the start: a page of the image that nobody has touched yet costs more than what is measured, and both threads meet in the kernel. */
static int touch_all(struct fs *fs)
{
	static const uint8_t bytes[1u << 20];
	inum_t file;
	size_t done;
	int error = make(fs, FS_ROOT_INO, "all", S_IFREG | 0644, &file);

	for (uint64_t at = 0; !error; at += done)
		error = fs_write(fs, file, at, bytes, sizeof(bytes), &done);
	if (error == -ENOSPC)
		error = fs_unlink(fs, FS_ROOT_INO, "all");
	orphan_reclaim_queued(fs);
	return error;
}

static void print_all(const struct core_options *options)
{
	if (!options->json)
		printf("%-22s %13s %13s %13s\n", "two threads", "of control", "control", "contended");
	for (unsigned w = 0; w < ARRAY_SIZE(works); w++) {
		double ratio = measure_median(ratios[w], options->rounds), control = measure_median(controls[w], options->rounds);
		double locks = measure_median(contended[w], options->rounds);

		if (options->json)
			printf("%s\n{\"operation\": \"%s\", \"ratio_to_control\": %.3f, \"control\": %.3f, \"contended\": %.5f, \"least\": %.3f, \"greatest\": %.3f}",
			       w ? "," : "[", works[w].name, ratio, control, locks, ratios[w][0], ratios[w][options->rounds - 1]);
		else
			printf("%-22s %13.2f %13.2f %13.5f  [%.2f-%.2f]\n", works[w].name, ratio, control, locks, ratios[w][0],
			       ratios[w][options->rounds - 1]);
	}
	printf(options->json ? "]" : "\n");
}

int core_scaling(const struct core_options *options)
{
	struct fs *fs;
	int error = core_open(options, 1ull << 30, &fs), closed;

	if (error)
		return error;
	if (!options->smoke)
		error = touch_all(fs);
	if (!error)
		error = prepare(options, &runners[0], fs, "left");
	if (!error)
		error = prepare(options, &runners[1], fs, "right");
	for (unsigned round = 0; round < options->rounds && !error; round++)
		for (unsigned w = 0; w < ARRAY_SIZE(works) && !error; w++)
			error = run_round(options, w, round);
	for (unsigned t = 0; t < 2; t++)
		free(runners[t].old);
	closed = core_close(fs);
	if (error || closed)
		return error ? core_fail(error, "scaling") : closed;
	print_all(options);
	return 0;
}
