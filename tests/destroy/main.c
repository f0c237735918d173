/*
 * The destruction test: metadata blocks of a populated image are destroyed, fsck_run() must repair them, and may lose nothing but what was computed before.
 * `destroy` tries a seeded sample of at least 2,000, the same one each time unless MENDFS_SEED says another; `--long` all; `--only ID` one, and says
 * what fsck did.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/destroy/plan.h"
#include "tests/destroy/spoil.h"
#include "util/log.h"

#define SEED "20261121" /* of the sample */
#define SAMPLE 2000
#define GROUPS 400
#define GROUPS_LONG 5000
#define SHOWN_MAX 40
#define HANG_SECONDS 120

struct run {
	struct bench bench;
	struct plan plan;
	uint64_t tried, violations, lost;
};

static char current_id[TRIAL_ID_BYTES] = "none";

/* A crash or a hang of what is tested must say which destruction it was. */
static void on_fatal(int number)
{
	static const char text[] = "destroy: died or hung at --only ";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0 || write(STDERR_FILENO, current_id, strlen(current_id)) < 0 ||
	    write(STDERR_FILENO, "\n", 1) < 0)
		_exit(3);
	signal(number, SIG_DFL);
	raise(number);
	_exit(3);
}

static void watch_for_death(void)
{
	static const int numbers[] = {SIGSEGV, SIGABRT, SIGFPE, SIGALRM};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		signal(numbers[i], on_fatal);
}

static bool try_one(struct run *run, const struct trial *trial)
{
	struct why why = {.text = ""};
	uint64_t lost = 0;
	int error;

	trial_name(trial, current_id);
	alarm(HANG_SECONDS);
	error = trial_run(&run->bench, trial, &lost, &why);
	alarm(0);
	run->tried++;
	run->lost += lost;
	if (!error)
		return true;
	if (run->violations++ < SHOWN_MAX) {
		const struct target *target = &run->bench.targets.list[trial->list[0].target];

		printf("violation %s (%s level %u%s): %s\n", current_id, target->name, target->level, trial->count > 1 ? ", ..." : "", why.text);
	}
	return false;
}

static void try_singles(struct run *run)
{
	for (size_t i = 0; i < run->plan.count_singles; i++) {
		struct trial trial = {.list = {run->plan.singles[i]}, .count = 1};

		if (run->plan.chosen[i])
			plan_count(&run->bench, &run->plan, &trial.list[0], !try_one(run, &trial));
	}
}

static void try_groups(struct run *run, struct random *random, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct trial trial;

		plan_group(&run->bench, random, &trial);
		try_one(run, &trial);
	}
}

static int run_only(struct run *run, const char *id)
{
	struct trial trial;

	if (trial_parse(id, &run->bench.targets, &trial)) {
		fprintf(stderr, "destroy: %s is no id of this image\n", id);
		return EXIT_FAILURE;
	}
	for (unsigned i = 0; i < trial.count; i++) {
		const struct target *target = &run->bench.targets.list[trial.list[i].target];

		printf("%s level %u address %llu at %llu: %s, copies %x\n", target->name, target->level, (unsigned long long)target->address,
		       (unsigned long long)target->copy[0], destroy_kind_names[trial.list[i].kind], trial.list[i].copies);
	}
	run->bench.verbose = true;
	printf("%s\n", try_one(run, &trial) ? "repaired" : "violated");
	return run->violations ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int run_all(struct run *run, size_t sample, size_t groups)
{
	struct random random = random_start("destroy");
	struct timespec begin, end;
	unsigned spoilers, missed = spoil_all(&run->bench, &spoilers);
	double seconds;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	plan_choose(&run->plan, &random, sample > groups ? sample - groups : sample);
	try_singles(run);
	try_groups(run, &random, groups);
	clock_gettime(CLOCK_MONOTONIC, &end);
	seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
	plan_print(&run->plan);
	printf("sample: destruction: %llu tried (%zu of %zu single ones, %zu groups of 2 to 8 blocks), %llu violations, %.0f per second\n",
	       (unsigned long long)run->tried, run->plan.count_chosen, run->plan.count_singles, groups, (unsigned long long)run->violations,
	       (double)run->tried / seconds);
	printf("sample: destruction: %llu records of inodes and targets could be lost, nothing else was; %u of %u spoiled repairs noticed\n",
	       (unsigned long long)run->lost, spoilers - missed, spoilers);
	printf("%llu%%: Checks: %llu, Failures: %llu, Errors: 0\n", (unsigned long long)(run->violations || missed ? 0 : 100),
	       (unsigned long long)run->tried + spoilers, (unsigned long long)run->violations + missed);
	return run->violations || missed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int usage(void)
{
	fprintf(stderr, "usage: destroy [--sample N] [--long] [--only ID]; MENDFS_SEED is the seed of the image and of the sample\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"long", no_argument, NULL, 'l'}, {"only", required_argument, NULL, 'o'}, {"sample", required_argument, NULL, 's'}, {NULL, 0, NULL, 0},
	};
	const char *only = NULL, *is_long = getenv("MENDFS_LONG");
	size_t sample = SAMPLE, groups = GROUPS;
	static struct run run;
	int option, result;

	while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (option == 'o')
			only = optarg;
		else if (option == 's')
			sample = strtoull(optarg, NULL, 10);
		else if (option == 'l')
			is_long = "1";
		else
			return usage();
	}
	if (is_long && *is_long && strcmp(is_long, "0") != 0) {
		sample = 0;
		groups = GROUPS_LONG;
	} else {
		setenv("MENDFS_SEED", SEED, 0);
	}
	groups = sample && sample < SAMPLE ? sample / 5 : groups;
	log_set_level(LOG_LEVEL_SILENT);
	setvbuf(stdout, NULL, _IOLBF, 0);
	watch_for_death();
	if (bench_create(&run.bench))
		return EXIT_FAILURE;
	plan_make(&run.bench, &run.plan);
	result = only ? run_only(&run, only) : run_all(&run, sample, groups);
	plan_fini(&run.plan);
	bench_destroy(&run.bench);
	return result;
}
