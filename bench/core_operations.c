/* Each operation alone, one thread: a series of them, round after round; medians. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/core.h"
#include "bench/measure.h"
#include "fs/orphan.h"

#define FILE_BLOCKS 16384ull
#define MANY 20000ull

struct series {
	struct fs *fs;
	inum_t dir, data, log;
	inum_t *inos; /* of the files that `create` made, and later the directories; as by a kernel, what was made stays looked up until it is removed */
	uint64_t count;
	uint8_t block[BLOCK_BYTES];
};
typedef int operation_fn(struct series *series, uint64_t i);

static struct fs_who who;

static const char *name_of(char name[32], const char *prefix, uint64_t i)
{
	snprintf(name, 32, "%s-%06llu", prefix, (unsigned long long)i);
	return name;
}

/* Spread over 0 .. count - 1. */
static uint64_t scattered(uint64_t i, uint64_t count)
{
	return i * 11400714819323198485ull % count;
}

static int make(struct series *series, inum_t dir, const char *prefix, uint64_t i, mode_t mode, inum_t *ino)
{
	struct fs_attr attr;
	char name[32];
	int error = fs_create(series->fs, &who, dir, name_of(name, prefix, i), mode, 0, &attr);

	if (!error)
		*ino = attr.ino;
	return error;
}

static int op_create(struct series *series, uint64_t i)
{
	return make(series, series->dir, "file", i, S_IFREG | 0644, &series->inos[i]);
}

static int op_lookup(struct series *series, uint64_t i)
{
	struct fs_attr attr;
	char name[32];
	int error = fs_lookup(series->fs, series->dir, name_of(name, "file", scattered(i, series->count)), &attr);

	if (!error)
		fs_forget(series->fs, attr.ino, 1);
	return error;
}

static int op_stat(struct series *series, uint64_t i)
{
	struct fs_attr attr;

	return fs_getattr(series->fs, series->inos[scattered(i, series->count)], &attr);
}

static int op_read(struct series *series, uint64_t i)
{
	size_t done;

	return fs_read(series->fs, series->data, scattered(i, FILE_BLOCKS) * BLOCK_BYTES, series->block, BLOCK_BYTES, &done);
}

static int op_write(struct series *series, uint64_t i)
{
	size_t done;

	return fs_write(series->fs, series->data, scattered(i, FILE_BLOCKS) * BLOCK_BYTES, series->block, BLOCK_BYTES, &done);
}

static int op_append(struct series *series, uint64_t i)
{
	size_t done;

	return fs_append(series->fs, series->log, series->block, BLOCK_BYTES, &done);
}

static int op_first_write(struct series *series, uint64_t i)
{
	size_t done;

	return fs_write(series->fs, series->inos[i], 0, series->block, BLOCK_BYTES, &done);
}

static int op_rename(struct series *series, uint64_t i)
{
	char from[32], to[32];

	return fs_rename(series->fs, &who, series->dir, name_of(from, "file", i), series->dir, name_of(to, "name", i), 0);
}

static int op_clone(struct series *series, uint64_t i)
{
	return fs_clone(series->fs, series->inos[0], series->inos[i + 1]);
}

static int op_unlink(struct series *series, uint64_t i)
{
	char name[32];
	int error = fs_unlink(series->fs, series->dir, name_of(name, "name", i));

	if (!error)
		fs_forget(series->fs, series->inos[i], 1);
	return error;
}

static int op_mkdir(struct series *series, uint64_t i)
{
	return make(series, series->dir, "dir", i, S_IFDIR | 0755, &series->inos[i]);
}

static int op_rmdir(struct series *series, uint64_t i)
{
	char name[32];
	int error = fs_rmdir(series->fs, series->dir, name_of(name, "dir", i));

	if (!error)
		fs_forget(series->fs, series->inos[i], 1);
	return error;
}

static int op_setxattr(struct series *series, uint64_t i)
{
	return fs_setxattr(series->fs, &who, series->inos[i], "user.bench", "value of sixteen", 16, 0);
}

static int op_getxattr(struct series *series, uint64_t i)
{
	size_t length;

	return fs_getxattr(series->fs, &who, series->inos[scattered(i, series->count)], "user.bench", series->block, BLOCK_BYTES, &length);
}

static int op_fsync(struct series *series, uint64_t i)
{
	return fs_fsync(series->fs, series->data);
}

/* In this order: each finds what the ones before left. divisor: of the usual count. */
static const struct operation {
	const char *name;
	operation_fn *run;
	unsigned divisor;
} operations[] = {
	{"create", op_create, 1}, {"lookup", op_lookup, 1}, {"stat", op_stat, 1}, {"read 4 KiB", op_read, 1},
	{"write 4 KiB in place", op_write, 1}, {"fsync", op_fsync, 1}, {"append 4 KiB", op_append, 1}, {"first write 4 KiB", op_first_write, 4},
	{"setxattr", op_setxattr, 1}, {"getxattr", op_getxattr, 1}, {"clone (one extent)", op_clone, 8}, {"rename", op_rename, 1}, {"unlink", op_unlink, 1}, {"mkdir", op_mkdir, 4}, {"rmdir", op_rmdir, 4},
};
static double samples[ARRAY_SIZE(operations)][FIGURES][CORE_ROUNDS_MAX];

static int fill_data(struct series *series)
{
	uint8_t *bytes = calloc(1, 1 << 20);
	size_t done;
	int error = bytes ? 0 : -ENOMEM;

	for (uint64_t pos = 0; pos < FILE_BLOCKS * BLOCK_BYTES && !error; pos += 1 << 20)
		error = fs_write(series->fs, series->data, pos, bytes, 1 << 20, &done);
	free(bytes);
	return error;
}

static int measure_operation(struct series *series, const struct operation *operation, uint64_t count, double figures[FIGURES])
{
	struct measure measure;
	int error = 0;

	measure_begin(&measure, series->fs);
	for (uint64_t i = 0; i < count && !error; i++)
		error = operation->run(series, i);
	measure_stop(&measure);
	orphan_reclaim_queued(series->fs);
	measure_end(&measure, count, figures);
	return error ? core_fail(error, operation->name) : 0;
}

static int truncate_log(struct series *series)
{
	struct inode_record values = {.size_bytes = 0};
	struct fs_attr attr;

	return fs_setattr(series->fs, series->log, FS_SET_SIZE, &values, &attr);
}

static int run_series(struct series *series, unsigned round)
{
	int error = 0;

	for (unsigned k = 0; k < ARRAY_SIZE(operations) && !error; k++) {
		double figures[FIGURES];

		error = measure_operation(series, &operations[k], series->count / operations[k].divisor, figures);
		for (unsigned f = 0; f < FIGURES && !error; f++)
			samples[k][f][round] = figures[f];
	}
	return error ? error : truncate_log(series);
}

static int prepare(struct series *series)
{
	int error = make(series, FS_ROOT_INO, "names", 0, S_IFDIR | 0755, &series->dir);

	if (!error)
		error = make(series, FS_ROOT_INO, "data", 0, S_IFREG | 0644, &series->data);
	if (!error)
		error = make(series, FS_ROOT_INO, "log", 0, S_IFREG | 0644, &series->log);
	return error ? error : fill_data(series);
}

static void print_row(const struct core_options *options, unsigned k)
{
	printf(options->json ? "%s\n{\"operation\": \"%s\"" : "%s%-22s", options->json ? k ? "," : "[" : "", operations[k].name);
	for (unsigned f = 0; f < FIGURES; f++) {
		double value = measure_median(samples[k][f], options->rounds);

		if (options->json && value >= 0)
			printf(", \"%s\": %.3f", figure_names[f], value);
		else if (!options->json && value >= 0)
			printf(value < 100 ? " %13.2f" : " %13.0f", value);
		else if (!options->json)
			printf(" %13s", "-");
	}
	printf(options->json ? "}" : "\n");
}

static void print_all(const struct core_options *options)
{
	if (!options->json) {
		printf("%-22s", "one thread, per call");
		for (unsigned f = 0; f < FIGURES; f++)
			printf(" %13s", figure_names[f]);
		printf("\n");
	}
	for (unsigned k = 0; k < ARRAY_SIZE(operations); k++)
		print_row(options, k);
	printf(options->json ? "]" : "\n");
}

int core_operations(const struct core_options *options)
{
	static struct series series;
	int error, closed;

	who = core_who();
	series.count = core_scaled(options, MANY);
	series.inos = calloc(series.count, sizeof(*series.inos));
	error = series.inos ? core_open(options, 2ull << 30, &series.fs) : -ENOMEM;
	if (error)
		return error;
	error = prepare(&series);
	for (unsigned round = 0; round < options->rounds && !error; round++)
		error = run_series(&series, round);
	closed = core_close(series.fs);
	free(series.inos);
	if (error || closed)
		return error ? error : closed;
	print_all(options);
	return 0;
}
