/* What a run says to the person or program that started it. */
#ifndef FSCK_OUTPUT_H
#define FSCK_OUTPUT_H

#include "fsck/fsck.h"

struct json_object;

struct output {
	const char *target;
	bool json, verbose, quiet, progress;
	unsigned percent; /* last shown + 1 */
	bool line_is_open; /* a line of progress stands on the terminal */
	struct json_object *lists[4]; /* by enum fsck_grade */
};

void output_begin(struct output *output, const char *target);
/* The callbacks of struct fsck_options; arg is the struct output. */
void output_tell(void *arg, enum fsck_grade grade, const char *line);
bool output_ask(void *arg, const char *question);
void output_progress(void *arg, const char *phase, uint64_t done_units, uint64_t total_units);
/* The summary, and all of --json. report NULL: the run failed, nothing is printed. */
void output_end(struct output *output, const struct fsck_report *report);

#endif
