/* The crash tests: workloads through the crash engine. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/crash/clock.h"
#include "tests/crash/workloads.h"
#include "tests/support/random.h"
#include "util/log.h"

#ifdef __SANITIZE_ADDRESS__
#define SLOWER 4 /* how many times less is tried by default */
#else
#define SLOWER 1
#endif

enum { MEDIA_BOTH = -1 };

struct program {
	struct crash_options options;
	const char *workload, *title;
	int media;
	int group; /* GROUPS: all */
	double budget, until; /* seconds */
	unsigned every; /* one of so many workloads, chosen by the seed */
	bool list, rehearse;
	bool failed;
};

struct tally {
	size_t workloads, chosen; /* run, of so many that should have been */
	struct crash_totals crashes;
	double seconds;
};

static const char usage[] =
	"usage: crash [--list] [--group single|pairs|random] [--workload NAME] [--only ID] [--media cacheline|page] [--schedule linear|exhaustive]\n"
	"             [--seed N] [--every N] [--images N] [--seconds BUDGET] [--poison] [--recovery-depth N] [--rehearse]\n"
	"             [--part K/N] [--count] [--title TEXT] [--verbose] [--help]\n"
	"\n"
	"Runs workloads on a medium in memory, makes the images that a crash at any moment may leave, mounts and checks each, and compares it with a model.\n"
	"\n"
	"  --list             the workloads and what they do\n"
	"  --group            only these\n"
	"  --workload NAME    only this one\n"
	"  --only ID          only the image that a violation named\n"
	"  --media            only this medium: cacheline (a device: drained stores are durable) or page (a plain file: synced pages are)\n"
	"  --schedule         linear (default) or exhaustive\n"
	"  --seed N           of what is sampled and of the random workloads (MENDFS_SEED; else the time)\n"
	"  --every N          one of N workloads, chosen by the seed\n"
	"  --images N         at most so many images of a crash point\n"
	"  --seconds BUDGET   start no further workload after this time\n"
	"  --poison           at each crash also with poison in data, metadata, journal and poison log\n"
	"  --recovery-depth N crash again during recovery: 1, and again during that: 2\n"
	"  --part K/N         only the K-th of N parts of each workload's crash points: N runs, the same seed, are the whole\n"
	"  --count            count the images, try none\n"
	"  --rehearse         run the workloads without crashes\n"
	"\n"
	"Exit status: 0 nothing found, 1 violations, 2 usage or something could not be run. MENDFS_LONG=1 means --schedule exhaustive, all workloads and images, no budget.\n";

/* --- arguments ------------------------------------------------------------------------------------------------------------ */

static const struct option long_options[] = {
	{"list", no_argument, NULL, 'l'},	    {"group", required_argument, NULL, 'g'},	{"workload", required_argument, NULL, 'w'},
	{"only", required_argument, NULL, 'o'},	    {"media", required_argument, NULL, 'm'},	{"schedule", required_argument, NULL, 's'},
	{"seed", required_argument, NULL, 'S'},	    {"every", required_argument, NULL, 'e'},	{"seconds", required_argument, NULL, 'b'},
	{"poison", no_argument, NULL, 'p'},	    {"recovery-depth", required_argument, NULL, 'r'}, {"rehearse", no_argument, NULL, 'R'},
	{"title", required_argument, NULL, 't'},    {"verbose", no_argument, NULL, 'v'},	{"help", no_argument, NULL, 'h'},
	{"images", required_argument, NULL, 'i'},   {"part", required_argument, NULL, 'P'},	{"count", no_argument, NULL, 'c'},
	{0},
};

static int parse_word(const char *text, const char *const words[], int count)
{
	for (int i = 0; i < count; i++)
		if (!strcmp(text, words[i]))
			return i;
	fprintf(stderr, "crash: %s: unknown\n%s", text, usage);
	exit(2);
}

static int parse_media(const char *text)
{
	static const char *const words[] = {"cacheline", "page"};

	return parse_word(text, words, ARRAY_SIZE(words)) ? MEDIA_PAGE : MEDIA_CACHELINE;
}

static int parse_group(const char *text)
{
	static const char *const words[] = {"single", "pairs", "random"};

	return parse_word(text, words, ARRAY_SIZE(words));
}

static enum crash_schedule parse_schedule(const char *text)
{
	static const char *const words[] = {"linear", "exhaustive"};

	return parse_word(text, words, ARRAY_SIZE(words)) ? CRASH_EXHAUSTIVE : CRASH_LINEAR;
}

static void parse_part(struct crash_options *options, const char *text)
{
	char rest;

	if (sscanf(text, "%u/%u%c", &options->part, &options->parts, &rest) == 2 && options->part && options->part <= options->parts) {
		options->part--;
		return;
	}
	fprintf(stderr, "crash: %s: not K/N with 1 <= K <= N\n%s", text, usage);
	exit(2);
}

static void parse_option(struct program *p, int option)
{
	switch (option) {
	case 'l':
		p->list = true;
		return;
	case 'g':
		p->group = parse_group(optarg);
		return;
	case 'w':
		p->workload = optarg;
		return;
	case 'o':
		p->options.only = optarg;
		return;
	case 'm':
		p->media = parse_media(optarg);
		return;
	case 's':
		p->options.schedule = parse_schedule(optarg);
		return;
	case 'S':
		p->options.seed = strtoull(optarg, NULL, 0);
		return;
	case 'e':
		p->every = (unsigned)strtoul(optarg, NULL, 0);
		return;
	case 'b':
		p->budget = strtod(optarg, NULL);
		return;
	case 'i':
		p->options.images_limit = strtoull(optarg, NULL, 0);
		return;
	case 'p':
		p->options.with_poison = true;
		return;
	case 'r':
		p->options.recovery_depth = (unsigned)strtoul(optarg, NULL, 0);
		return;
	case 'P':
		parse_part(&p->options, optarg);
		return;
	case 'c':
		p->options.counts_only = true;
		return;
	case 'R':
		p->rehearse = true;
		return;
	case 't':
		p->title = optarg;
		return;
	case 'v':
		p->options.verbose = true;
		return;
	default:
		fputs(usage, option == 'h' ? stdout : stderr);
		exit(option == 'h' ? 0 : 2);
	}
}

static void parse(struct program *p, int argc, char *argv[])
{
	const char *seed = getenv("MENDFS_SEED");
	int option;

	p->options.seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) >= 0)
		parse_option(p, option);
	if (getenv("MENDFS_LONG")) {
		p->options.schedule = CRASH_EXHAUSTIVE;
		p->options.images_limit = 0;
		p->every = 1;
		p->budget = 0;
	}
}

/* --- running -------------------------------------------------------------------------------------------------------------- */

/* An id is the workload's name, a slash, and which image. */
static bool is_named(const struct program *p, const char *name)
{
	size_t length = strlen(name);

	if (p->options.only)
		return !strncmp(p->options.only, name, length) && p->options.only[length] == '/';
	return !p->workload || !strcmp(p->workload, name);
}

static bool is_chosen(const struct program *p, size_t index)
{
	struct random random = {.state = p->options.seed + index};
	unsigned every = p->every * (p->options.schedule == CRASH_EXHAUSTIVE ? 1 : SLOWER);

	if (p->workload || p->options.only || every < 2)
		return true;
	return random_below(&random, every) == 0;
}

/* The space in powers of two: it may be larger than any number. */
static double log2_add(double a, double b)
{
	double larger = a > b ? a : b, smaller = a > b ? b : a;

	return larger + log2(1 + exp2(smaller - larger));
}

static void totals_add(struct crash_totals *to, const struct crash_totals *more)
{
	if (more->points)
		to->space_log2 = to->points ? log2_add(to->space_log2, more->space_log2) : more->space_log2;
	to->points += more->points;
	to->points_whole += more->points_whole;
	to->images += more->images;
	to->distinct += more->distinct;
	to->mounts += more->mounts;
	to->violations += more->violations;
	to->space_images += more->space_images;
	to->space_tried = to->points == to->points_whole ? 1 : exp2(log2((double)to->space_images) - to->space_log2);
}

static void tally_add(struct tally *to, const struct tally *more)
{
	to->workloads += more->workloads;
	to->chosen += more->chosen;
	to->seconds += more->seconds;
	totals_add(&to->crashes, &more->crashes);
}

static void tally_print(const struct tally *tally, const char *title)
{
	const struct crash_totals *t = &tally->crashes;

	printf("sample: %s: %zu of %zu workloads, %llu crash points (%llu in full), %llu images (%llu distinct), %.0f/s, %.3g %% of the space, %llu violations\n",
	       title, tally->workloads, tally->chosen, (unsigned long long)t->points, (unsigned long long)t->points_whole,
	       (unsigned long long)t->images, (unsigned long long)t->distinct, (double)t->mounts / (tally->seconds > 0 ? tally->seconds : 1),
	       100 * t->space_tried, (unsigned long long)t->violations);
	fflush(stdout);
}

static void run_workload(struct program *p, const struct workload *workload, struct tally *tally)
{
	struct crash_totals totals = {0};
	struct why why = {0};
	int error;

	if (p->list) {
		printf("%s: [%s] %s\n", workload->name, workload->setup, workload->run);
		return;
	}
	error = p->rehearse ? workload_rehearse(workload, NULL, &why) : workload_explore(workload, &p->options, &totals, &why);
	totals_add(&tally->crashes, &totals);
	tally->workloads++;
	if (!error)
		return;
	fprintf(stderr, "%s\n", why.text);
	p->failed = true;
}

static void run_one(struct program *p, enum workload_group group, size_t index, enum media_granularity granularity, struct tally *tally)
{
	struct workload workload;

	if (workloads_get(group, index, granularity, p->options.seed, &workload)) {
		fprintf(stderr, "out of memory\n");
		p->failed = true;
	} else if (is_named(p, workload.name)) {
		tally->chosen++;
		if (!p->budget || crash_clock_seconds() < p->until)
			run_workload(p, &workload, tally);
	}
	workload_fini(&workload);
}

static void run_group(struct program *p, enum workload_group group, struct tally *tally)
{
	double begun = crash_clock_seconds();
	size_t count = workloads_count(group);
	/* A stride through all of them: whatever the budget allows is spread over the whole table. */
	size_t stride = count > 1000 ? 613 : 1;

	for (size_t i = 0; i < count; i++) {
		size_t index = i * stride % count;

		if (!is_chosen(p, index))
			continue;
		if (p->media != MEDIA_PAGE)
			run_one(p, group, index, MEDIA_CACHELINE, tally);
		if (p->media != MEDIA_CACHELINE)
			run_one(p, group, index, MEDIA_PAGE, tally);
	}
	tally->seconds = crash_clock_seconds() - begun;
}

static void run_all(struct program *p, struct tally *all)
{
	char title[128];

	for (int group = 0; group < GROUPS; group++) {
		struct tally tally = {0};

		if (p->group != GROUPS && p->group != group)
			continue;
		run_group(p, (enum workload_group)group, &tally);
		if (tally.workloads && p->group == GROUPS) {
			snprintf(title, sizeof(title), "%s, %s", p->title, group_name((enum workload_group)group));
			tally_print(&tally, title);
		}
		tally_add(all, &tally);
	}
}

int main(int argc, char *argv[])
{
	struct program p = {.media = MEDIA_BOTH, .group = GROUPS, .every = 1, .title = "crash"};
	struct tally all = {0};

	parse(&p, argc, argv);
	log_set_level(LOG_LEVEL_SILENT);
	if (!p.list)
		printf("crash: MENDFS_SEED=%llu\n", (unsigned long long)p.options.seed);
	p.until = crash_clock_seconds() + p.budget;
	run_all(&p, &all);
	if (p.list)
		return 0;
	if (!all.workloads) {
		fprintf(stderr, "crash: no such workload\n");
		return 2;
	}
	tally_print(&all, p.title);
	if (p.failed)
		return 2;
	return all.crashes.violations ? 1 : 0;
}
