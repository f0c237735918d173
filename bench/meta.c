/*
 * bench-meta DIRECTORY THREADS DIRECTORIES SECONDS: rates of operations on names, one "operation=rate" a line. Each phase ends after SECONDS. With one
 * directory all threads share it; with more each thread has that many of its own. Rates are the sum of what each thread reached in its own time.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILES_MAX 20000
#define PAGE 4096

struct worker;
/* One operation on file i. How many it counts for, or -1 with errno. */
typedef long phase_fn(struct worker *worker, unsigned i);

struct phase {
	const char *name;
	phase_fn *run;
	bool once; /* each file at most once */
};

struct worker {
	pthread_t thread;
	unsigned index, count_files, count_written;
	bool renamed[FILES_MAX];
	const struct phase *phase;
	double rate;
	int error;
};

static struct {
	const char *directory;
	unsigned threads, dirs;
	double seconds;
} options;
static pthread_barrier_t start;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void dir_path(char *path, unsigned thread, unsigned dir)
{
	snprintf(path, PAGE, "%s/d%u.%u", options.directory, options.dirs == 1 ? 0 : thread, dir);
}

static const char *file_path(const struct worker *worker, char *path, unsigned i, bool renamed)
{
	size_t length;

	dir_path(path, worker->index, i % options.dirs);
	length = strlen(path);
	snprintf(path + length, PAGE - length, "/%s-%u-%u", renamed ? "renamed" : "file", worker->index, i);
	return path;
}

/* --- phases ------------------------------------------------------------------------------------------------------------- */

static long run_create(struct worker *worker, unsigned i)
{
	char path[PAGE];
	int fd = open(file_path(worker, path, i, false), O_CREAT | O_EXCL | O_WRONLY, 0644);

	if (fd < 0)
		return -1;
	worker->count_files++;
	return close(fd) ? -1 : 1;
}

static long run_io(struct worker *worker, unsigned i, bool write)
{
	static const char bytes[PAGE];
	char path[PAGE], buffer[PAGE];
	int fd = open(file_path(worker, path, i, false), write ? O_WRONLY : O_RDONLY);
	ssize_t done;

	if (fd < 0)
		return -1;
	done = write ? pwrite(fd, bytes, PAGE, 0) : pread(fd, buffer, PAGE, 0);
	return close(fd) || done < 0 ? -1 : 1;
}

static long run_write(struct worker *worker, unsigned i)
{
	worker->count_written = i + 1;
	return run_io(worker, i, true);
}

static long run_read(struct worker *worker, unsigned i)
{
	return run_io(worker, i, false);
}

static long run_stat(struct worker *worker, unsigned i)
{
	char path[PAGE];
	struct stat st;

	return stat(file_path(worker, path, i, false), &st) ? -1 : 1;
}

static long run_stat_written(struct worker *worker, unsigned i)
{
	return run_stat(worker, i);
}

static long run_readdir(struct worker *worker, unsigned i)
{
	char path[PAGE];
	long count = 0;
	DIR *dir;

	dir_path(path, worker->index, i % options.dirs);
	dir = opendir(path);
	if (!dir)
		return -1;
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static long run_rename(struct worker *worker, unsigned i)
{
	char from[PAGE], to[PAGE];

	file_path(worker, from, i, worker->renamed[i]);
	file_path(worker, to, i, !worker->renamed[i]);
	if (rename(from, to))
		return -1;
	worker->renamed[i] = !worker->renamed[i];
	return 1;
}

static long run_unlink(struct worker *worker, unsigned i)
{
	char path[PAGE];

	return unlink(file_path(worker, path, i, worker->renamed[i])) ? -1 : 1;
}

/* `stat-written` is the first look at a file after a write, `stat` any later one. */
static const struct phase phases[] = {
	{"create", run_create, true}, {"write", run_write, true},     {"stat-written", run_stat_written, true}, {"stat", run_stat, false},
	{"read", run_read, false},    {"readdir", run_readdir, false}, {"rename", run_rename, false},		 {"unlink", run_unlink, true},
};

/* --- running ------------------------------------------------------------------------------------------------------------ */

static unsigned phase_limit(const struct worker *worker)
{
	if (worker->phase->run == run_create)
		return FILES_MAX;
	return worker->phase->run == run_stat_written ? worker->count_written : worker->count_files;
}

static void worker_phase(struct worker *worker)
{
	unsigned limit = phase_limit(worker);
	double begin = now(), end = begin;
	uint64_t count = 0;

	for (unsigned i = 0; end - begin < options.seconds; i++, end = now()) {
		long done;

		if (i == limit && (worker->phase->once || !limit))
			break;
		done = worker->phase->run(worker, i % limit);
		if (done < 0) {
			worker->error = errno;
			return;
		}
		count += (uint64_t)done;
	}
	worker->rate = end > begin ? (double)count / (end - begin) : 0;
}

static void *worker_main(void *arg)
{
	pthread_barrier_wait(&start);
	worker_phase(arg);
	return NULL;
}

static int run_phase(struct worker *workers, const struct phase *phase)
{
	double rate = 0;

	for (unsigned t = 0; t < options.threads; t++) {
		workers[t].phase = phase;
		if (pthread_create(&workers[t].thread, NULL, worker_main, &workers[t]))
			exit(1);
	}
	for (unsigned t = 0; t < options.threads; t++)
		pthread_join(workers[t].thread, NULL);
	for (unsigned t = 0; t < options.threads; t++) {
		if (workers[t].error) {
			fprintf(stderr, "bench-meta: %s: %s\n", phase->name, strerror(workers[t].error));
			return 1;
		}
		rate += workers[t].rate;
	}
	printf("%s=%.1f\n", phase->name, rate);
	return 0;
}

/* What the timed phase left is removed too, so that the next round begins with nothing. */
static void remove_rest(struct worker *workers)
{
	char path[PAGE];

	for (unsigned t = 0; t < options.threads; t++)
		for (unsigned i = 0; i < workers[t].count_files; i++)
			unlink(file_path(&workers[t], path, i, workers[t].renamed[i]));
}

typedef int dir_fn(const char *path);

static int dir_make(const char *path)
{
	return mkdir(path, 0755);
}

static int for_each_dir(dir_fn *fn)
{
	char path[PAGE];
	int error = 0;

	for (unsigned t = 0; t < (options.dirs == 1 ? 1 : options.threads); t++)
		for (unsigned d = 0; d < options.dirs; d++) {
			dir_path(path, t, d);
			error = fn(path) ? 1 : error;
		}
	return error;
}

static int run_all(struct worker *workers)
{
	int error = 0;

	for (unsigned t = 0; t < options.threads; t++)
		workers[t].index = t;
	pthread_barrier_init(&start, NULL, options.threads);
	for (unsigned p = 0; p < sizeof(phases) / sizeof(phases[0]) && !error; p++)
		error = run_phase(workers, &phases[p]);
	remove_rest(workers);
	pthread_barrier_destroy(&start);
	return error;
}

int main(int argc, char **argv)
{
	struct worker *workers;
	int error;

	if (argc != 5) {
		fprintf(stderr, "usage: bench-meta DIRECTORY THREADS DIRECTORIES SECONDS\n");
		return 2;
	}
	options.directory = argv[1];
	options.threads = (unsigned)atoi(argv[2]);
	options.dirs = (unsigned)atoi(argv[3]);
	options.seconds = atof(argv[4]);
	workers = calloc(options.threads ? options.threads : 1, sizeof(*workers));
	if (!workers || !options.threads || !options.dirs)
		return 2;
	if (for_each_dir(dir_make)) {
		fprintf(stderr, "bench-meta: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	error = run_all(workers);
	for_each_dir(rmdir);
	free(workers);
	return error;
}
