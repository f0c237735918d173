#include "mendctl/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define SHOW_NS 200000000

static bool is_shown;
static uint64_t shown_ns;

bool progress_is_wanted(void)
{
	return isatty(STDERR_FILENO);
}

bool progress_show(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct timespec now;
	uint64_t ns;

	(void)arg;
	clock_gettime(CLOCK_MONOTONIC, &now);
	ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	if (!progress_is_wanted() || (is_shown && ns - shown_ns < SHOW_NS))
		return true;
	is_shown = true;
	shown_ns = ns;
	if (total)
		fprintf(stderr, "\r%s: %llu%%\033[K", phase, (unsigned long long)((double)min_u64(done, total) * 100 / (double)total));
	else
		fprintf(stderr, "\r%s: %llu\033[K", phase, (unsigned long long)done);
	fflush(stderr);
	return true;
}

bool progress_take(struct json_object *line)
{
	struct json_object *progress;
	uint64_t done = 0, total = 0;
	const char *phase = "";

	if (!json_object_object_get_ex(line, "progress", &progress) || !json_object_is_type(progress, json_type_object))
		return false;
	json_get_text(progress, "phase", &phase);
	json_get_u64(progress, "done", &done);
	json_get_u64(progress, "total", &total);
	progress_show(NULL, phase, done, total);
	json_object_put(line);
	return true;
}

void progress_end(void)
{
	if (is_shown)
		fputs("\r\033[K", stderr);
	is_shown = false;
}
