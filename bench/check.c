/* bench-check IMAGE: how long fs_check() takes on an unmounted filesystem, and the memory of the process: one line of key=value. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "fs/query.h"
#include "util/log.h"

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void print_finding(void *arg, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

struct phases {
	const char *phase;
	double since;
};

/* On stderr: what each phase took. */
static bool watch_phase(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct phases *phases = arg;

	if (phases->phase && !strcmp(phases->phase, phase))
		return true;
	if (phases->phase)
		fprintf(stderr, "%s: %.2f s\n", phases->phase, now() - phases->since);
	phases->phase = phase;
	phases->since = now();
	return true;
}

int main(int argc, char **argv)
{
	struct fs_options options = {.readonly = true, .tools = true};
	struct phases phases = {.since = now()};
	struct fs_check_options check = {.tell = print_finding, .progress = watch_phase, .arg = &phases};
	struct fs_check_totals totals;
	struct rusage usage;
	double start = now(), seconds;
	struct why why;
	struct fs *fs;
	int error;

	if (argc != 2) {
		fprintf(stderr, "usage: bench-check IMAGE\n");
		return 2;
	}
	log_set_level(LOG_LEVEL_SILENT);
	if (fs_mount(argv[1], &options, &why, &fs)) {
		fprintf(stderr, "bench-check: %s\n", why.text);
		return 1;
	}
	error = fs_check_with(fs, &check, &totals);
	fs_unmount(fs);
	seconds = now() - start;
	getrusage(RUSAGE_SELF, &usage);
	printf("inodes=%llu extents=%llu rmap_records=%llu metadata_blocks=%llu findings=%llu seconds=%.2f cpu_seconds=%.2f maxrss_mib=%ld\n",
	       (unsigned long long)totals.inodes, (unsigned long long)totals.extents, (unsigned long long)totals.rmap_records,
	       (unsigned long long)totals.metadata_blocks, (unsigned long long)totals.findings, seconds,
	       (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
		       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6,
	       usage.ru_maxrss / 1024);
	return error || totals.findings;
}
