#include "tests/crash/workloads.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/fsfix.h"
#include "tests/support/lab.h"

#define ROOM_BYTES (1u << 20) /* for a resize */

/* --- which there are ------------------------------------------------------------------------------------------------------ */

const char *group_name(enum workload_group group)
{
	static const char *const names[GROUPS] = {"single", "pairs", "random"};

	return names[group];
}

size_t workloads_count(enum workload_group group)
{
	if (group == GROUP_SINGLE)
		return workloads_single_count;
	return group == GROUP_PAIRS ? pairs_ops_count * pairs_ops_count : workloads_random_count;
}

static int copy_texts(struct workload *workload, const char *setup, const char *run, const char *then)
{
	workload->setup = strdup(setup);
	if (asprintf(&workload->run, "%s%s%s", run, then ? "; " : "", then ? then : "") < 0)
		workload->run = NULL;
	return workload->setup && workload->run ? 0 : -ENOMEM;
}

int workloads_get(enum workload_group group, size_t index, enum media_granularity granularity, uint64_t seed, struct workload *out)
{
	const char *medium = granularity == MEDIA_PAGE ? "page" : "cacheline";
	const char *single = group == GROUP_SINGLE ? workloads_single[index].name : NULL;

	*out = (struct workload){.granularity = granularity};
	if (single)
		snprintf(out->name, sizeof(out->name), "single.%s.%s", single, medium);
	else
		snprintf(out->name, sizeof(out->name), "%s.%zu.%s", group_name(group), index, medium);
	if (group == GROUP_RANDOM)
		return workload_random(seed, index, &out->setup, &out->run);
	if (single)
		return copy_texts(out, workloads_single[index].setup, workloads_single[index].run, NULL);
	return copy_texts(out, pairs_setup, pairs_ops[index / pairs_ops_count], pairs_ops[index % pairs_ops_count]);
}

void workload_fini(struct workload *workload)
{
	free(workload->setup);
	free(workload->run);
	*workload = (struct workload){0};
}

/* --- on the engine -------------------------------------------------------------------------------------------------------- */

struct play {
	const struct workload *workload;
	struct script setup, run;
	struct model *model;
	struct why why;
	uint64_t succeeded; /* bits of enum model_kind, SEEN_NO_SPACE */
};

static void play_fini(struct play *play)
{
	script_fini(&play->setup);
	script_fini(&play->run);
	model_destroy(play->model);
}

static int play_init(struct play *play, const struct workload *workload)
{
	int error;

	*play = (struct play){.workload = workload};
	error = script_parse(&play->setup, workload->setup, &play->why);
	if (!error)
		error = script_parse(&play->run, workload->run, &play->why);
	if (!error && !(play->model = model_create()))
		error = why_set(&play->why, -ENOMEM, "out of memory");
	if (error)
		play_fini(play);
	return error;
}

static int play_script(struct play *play, const struct script *script, struct fs *fs, struct crash_run *run)
{
	int error = 0, answer;

	for (size_t i = 0; i < script->count && !error; i++) {
		error = model_do(play->model, fs, run, &script->ops[i], &answer, &play->why);
		if (!answer && !error)
			play->succeeded |= 1ull << script->ops[i].kind;
		if (answer == -ENOSPC)
			play->succeeded |= SEEN_NO_SPACE;
	}
	return error;
}

static int play_setup(void *arg, struct fs *fs)
{
	struct play *play = arg;
	int error = model_prepare(play->model, fs, &play->why);

	if (!error)
		error = play_script(play, &play->setup, fs, NULL);
	play->succeeded = 0;
	return error ? error : model_prepared(play->model, fs, &play->why);
}

static int play_run(void *arg, struct fs *fs, struct crash_run *run)
{
	struct play *play = arg;

	return play_script(play, &play->run, fs, run);
}

static int play_verify(void *arg, struct fs *fs, const struct crash_point *point, struct why *why)
{
	struct play *play = arg;

	return model_judge(play->model, fs, play->workload->granularity, point, why);
}

int workload_explore(const struct workload *workload, const struct crash_options *options, struct crash_totals *totals, struct why *why)
{
	struct play play;
	struct crash_workload on_engine = {
		.name = workload->name,
		.granularity = workload->granularity,
		.image_bytes = FSFIX_SMALL_BYTES,
		.room_bytes = ROOM_BYTES,
		.setup = play_setup,
		.run = play_run,
		.verify = play_verify,
		.arg = &play,
	};
	int error = play_init(&play, workload);

	if (!error) {
		error = crash_explore(&on_engine, options, totals);
		play_fini(&play);
	}
	return error ? why_set(why, error, "%s: %s", workload->name, play.why.text[0] ? play.why.text : strerror(-error)) : 0;
}

/* --- without crashes ------------------------------------------------------------------------------------------------------ */

static int rehearse_mount(struct lab *lab, struct fs **fs, struct why *why)
{
	static const struct fs_options options = {.tools = true, .cache_bytes = 1u << 20};

	lab_reset(lab);
	return fs_mount_media(lab_media(lab), &options, why, fs);
}

static int rehearse_part(struct play *play, struct lab *lab, int (*part)(struct play *play, struct fs *fs))
{
	struct fs *fs;
	int error = rehearse_mount(lab, &fs, &play->why), ended;

	if (error)
		return error;
	error = part(play, fs);
	ended = fs_unmount(fs);
	return error ? error : ended;
}

static int part_setup(struct play *play, struct fs *fs)
{
	return play_setup(play, fs);
}

static int part_run(struct play *play, struct fs *fs)
{
	return play_run(play, fs, NULL);
}

/* After a clean end it is the last state, whatever the medium. */
static int part_look(struct play *play, struct fs *fs)
{
	unsigned count = model_count(play->model);
	struct crash_point point = {.begun = count, .done = count, .durable = count};

	return model_judge(play->model, fs, play->workload->granularity, &point, &play->why);
}

static int rehearse_on(struct play *play, struct lab *lab)
{
	int error = fsfix_format_part(lab_media(lab), FSFIX_SMALL_BYTES);

	if (!error)
		error = rehearse_part(play, lab, part_setup);
	if (!error)
		error = rehearse_part(play, lab, part_look);
	if (!error)
		error = rehearse_part(play, lab, part_run);
	return error ? error : rehearse_part(play, lab, part_look);
}

int workload_rehearse(const struct workload *workload, uint64_t *seen, struct why *why)
{
	struct lab *lab;
	struct play play;
	int error = play_init(&play, workload);

	if (!error)
		error = lab_create(FSFIX_SMALL_BYTES + ROOM_BYTES, workload->granularity, &lab);
	if (!error) {
		error = rehearse_on(&play, lab);
		lab_destroy(lab);
	}
	if (seen)
		*seen |= play.succeeded;
	if (error)
		why_set(why, error, "%s: %s", workload->name, play.why.text[0] ? play.why.text : strerror(-error));
	play_fini(&play);
	return error;
}
