#include "bench/measure.h"

#include <linux/perf_event.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fs/inode.h"
#include "util/lock.h"

const char *const figure_names[FIGURES] = {"ns", "cpu_ns", "instructions", "drains", "stored_bytes", "journal_bytes", "locks", "contended"};

static double clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

double measure_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

double measure_cpu_ns(void)
{
	return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

/* Opened once and kept; -1 where the kernel or the machine refuses. */
static int instructions_fd(void)
{
	static int fd = -2;
	struct perf_event_attr attr = {.type = PERF_TYPE_HARDWARE, .size = sizeof(attr), .config = PERF_COUNT_HW_INSTRUCTIONS,
				       .exclude_kernel = 1, .exclude_hv = 1};

	if (fd == -2)
		fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	return fd;
}

static double count_instructions(void)
{
	uint64_t value;
	int fd = instructions_fd();

	return fd >= 0 && read(fd, &value, sizeof(value)) == sizeof(value) ? (double)value : -1;
}

struct measure_locks measure_locks(void)
{
	struct measure_locks sum = {0};
	struct lock_counts counts;

	lock_counts(&counts);
	for (unsigned i = 0; i < LOCK_CLASSES; i++) {
		sum.taken += counts.taken[i];
		sum.contended += counts.contended[i];
	}
	return sum;
}

static void read_figures(struct fs *fs, double at[FIGURES])
{
	struct measure_locks locks = measure_locks();
	struct journal_counts journal;
	struct media_counts media;

	media_counts(fs->media, &media);
	journal_counts(fs->journal, &journal);
	at[FIGURE_NS] = clock_ns(CLOCK_MONOTONIC);
	at[FIGURE_CPU_NS] = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	at[FIGURE_INSTRUCTIONS] = count_instructions();
	at[FIGURE_DRAINS] = (double)media.drains;
	at[FIGURE_STORED_BYTES] = (double)media.write_bytes;
	at[FIGURE_JOURNAL_BYTES] = (double)journal.record_bytes;
	at[FIGURE_LOCKS] = (double)locks.taken;
	at[FIGURE_CONTENDED] = (double)locks.contended;
}

void measure_begin(struct measure *measure, struct fs *fs)
{
	measure->fs = fs;
	measure->ns = 0;
	read_figures(fs, measure->at);
}

void measure_stop(struct measure *measure)
{
	measure->ns = measure_now_ns() - measure->at[FIGURE_NS];
}

void measure_end(struct measure *measure, uint64_t ops, double figures[FIGURES])
{
	double now[FIGURES];

	read_figures(measure->fs, now);
	for (unsigned i = 0; i < FIGURES; i++)
		figures[i] = (now[i] - measure->at[i]) / (double)ops;
	figures[FIGURE_NS] = (measure->ns > 0 ? measure->ns : now[FIGURE_NS] - measure->at[FIGURE_NS]) / (double)ops;
	if (now[FIGURE_INSTRUCTIONS] < 0)
		figures[FIGURE_INSTRUCTIONS] = -1;
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return left < right ? -1 : left > right;
}

double measure_median(double *values, size_t count)
{
	qsort(values, count, sizeof(*values), compare);
	return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}
