#include "tests/crash/engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/query.h"
#include "tests/crash/clock.h"
#include "tests/crash/record.h"
#include "tests/support/fsfix.h"
#include "util/log.h"

#define CLOCK_START_NS 1750000000000000000ull

struct crash_run {
	struct record record;
};

void crash_begin(struct crash_run *run)
{
	record_mark(&run->record, STEP_BEGIN, 0);
}

void crash_end(struct crash_run *run, int error)
{
	record_mark(&run->record, STEP_END, error);
}

void crash_durable(struct crash_run *run)
{
	record_mark(&run->record, STEP_DURABLE, 0);
}

struct explore {
	const struct crash_workload *workload;
	const struct crash_options *options;
	struct crash_totals *totals;
	struct lab *lab;
	struct crash_run run;
	struct record undo;
	struct crash_point point;
	size_t step;
};

static const struct fs_options mount_options = {.tools = true, .cache_bytes = 4u << 20};

static void violation(struct explore *explore, const char *image, const char *text)
{
	if (explore->totals->violations++ < 10)
		fprintf(stderr, "violation: %s/%zu/%s: %s\n", explore->workload->name, explore->step, image, text);
}

struct findings {
	struct explore *explore;
	const char *image;
};

static void tell(void *arg, const char *line)
{
	struct findings *findings = arg;

	violation(findings->explore, findings->image, line);
}

static void judge(struct explore *explore, struct fs *fs, const char *image)
{
	struct findings findings = {explore, image};
	struct fs_check_totals totals;
	struct why why = {0};

	if (fs_is_readonly(fs))
		violation(explore, image, "mounted read-only");
	fs_check(fs, tell, &findings, &totals);
	if (explore->workload->verify(explore->workload->arg, fs, &explore->point, &why))
		violation(explore, image, why.text);
}

static void try_image(struct explore *explore, const char *image)
{
	struct why why = {0};
	struct fs *fs;

	explore->totals->images++;
	explore->totals->distinct++;
	explore->totals->mounts++;
	lab_reset(explore->lab);
	record_start(&explore->undo);
	if (fs_mount_media(lab_media(explore->lab), &mount_options, &why, &fs)) {
		violation(explore, image, why.text);
	} else {
		judge(explore, fs, image);
		fs_abandon(fs);
	}
	record_stop(&explore->undo);
	record_rewind(&explore->undo);
}

static void apply(struct explore *explore, size_t from, size_t to, bool forward)
{
	const struct record *record = &explore->run.record;

	for (size_t n = 0; n < to - from; n++) {
		size_t i = forward ? from + n : to - 1 - n;
		const struct step *step = &record->steps[i];

		if (step->kind == STEP_STORE)
			memcpy(lab_bytes(explore->lab) + step->offset, record->arena + (forward ? step->after : step->before),
			       step->length);
	}
}

static void explore_points(struct explore *explore)
{
	const struct record *record = &explore->run.record;
	size_t pending = 0;

	for (size_t i = 0; i < record->count; i++) {
		const struct step *step = &record->steps[i];

		explore->step = i;
		if (step->kind == STEP_DRAIN || step->kind == STEP_SYNC) {
			explore->totals->points++;
			if (step->kind == STEP_SYNC || explore->workload->granularity == MEDIA_CACHELINE) {
				setenv("MENDFS_BOOT_ID", "after", 1);
				try_image(explore, "none");
				apply(explore, pending, i, true);
				try_image(explore, "all");
				pending = i + 1;
			}
		}
		explore->point.begun += step->kind == STEP_BEGIN;
		explore->point.done += step->kind == STEP_END;
		if (explore->workload->granularity == MEDIA_CACHELINE || step->kind == STEP_DURABLE)
			explore->point.durable = explore->point.done;
	}
	apply(explore, pending, record->count, true);
}

static int explore_record(struct explore *explore)
{
	const struct crash_workload *workload = explore->workload;
	struct why why = {0};
	struct fs *fs;
	int error = fs_mount_media(lab_media(explore->lab), &mount_options, &why, &fs), ended;

	if (!error) {
		error = workload->setup ? workload->setup(workload->arg, fs) : 0;
		ended = fs_unmount(fs);
		error = error ? error : ended;
	}
	lab_reset(explore->lab);
	record_start(&explore->run.record);
	if (!error)
		error = fs_mount_media(lab_media(explore->lab), &mount_options, &why, &fs);
	if (!error) {
		error = workload->run(workload->arg, fs, &explore->run);
		ended = fs_unmount(fs);
		record_mark(&explore->run.record, STEP_DURABLE, 0);
		error = error ? error : ended;
	}
	record_stop(&explore->run.record);
	if (error)
		fprintf(stderr, "%s: cannot be run: %s %s\n", workload->name, strerror(-error), why.text);
	record_rewind(&explore->run.record);
	return error;
}

int crash_explore(const struct crash_workload *workload, const struct crash_options *options, struct crash_totals *totals)
{
	struct explore explore = {.workload = workload, .options = options, .totals = totals};
	double start = crash_clock_seconds();
	int error = lab_create(workload->image_bytes, workload->granularity, &explore.lab);

	if (error)
		return error;
	log_set_level(LOG_LEVEL_SILENT);
	crash_clock_set(CLOCK_START_NS);
	setenv("MENDFS_BOOT_ID", "before", 1);
	record_init(&explore.run.record, explore.lab);
	record_init(&explore.undo, explore.lab);
	explore.undo.only_undo = true;
	explore.run.record.drops = options->drops;
	explore.run.record.drops_arg = options->drops_arg;
	error = fsfix_format_media(lab_media(explore.lab));
	if (!error)
		error = explore_record(&explore);
	if (!error)
		explore_points(&explore);
	record_fini(&explore.run.record);
	record_fini(&explore.undo);
	lab_destroy(explore.lab);
	unsetenv("MENDFS_BOOT_ID");
	crash_clock_set(0);
	totals->seconds += crash_clock_seconds() - start;
	return error;
}
