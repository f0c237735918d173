#include "fsck/fsck.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fsck/internal.h"

/* --- telling ----------------------------------------------------------------------------------------------------------------- */

void repair_tell(struct repair *repair, enum fsck_grade grade, const char *format, ...)
{
	char line[512];
	va_list list;

	va_start(list, format);
	vsnprintf(line, sizeof(line), format, list);
	va_end(list);
	repair->report->errors += grade == FSCK_ERROR;
	repair->report->fixed += grade == FSCK_FIXED;
	repair->report->losses += grade == FSCK_LOSS;
	repair->options->tell(repair->options->arg, grade, line);
}

bool repair_ask_safe(struct repair *repair, const char *question)
{
	const struct fsck_options *options = repair->options;
	bool may = options->write && (!options->ask || options->ask(options->arg, question));

	repair->was_left |= !may;
	repair->report->changed |= may;
	return may;
}

bool repair_ask(struct repair *repair, const char *question)
{
	if (!repair->options->write || !repair->options->preen)
		return repair_ask_safe(repair, question);
	repair->was_left = true;
	return false;
}

void repair_progress(struct repair *repair, const char *phase, uint64_t done_units, uint64_t total_units)
{
	if (repair->options->progress)
		repair->options->progress(repair->options->arg, phase, done_units, total_units);
}

/* --- what is bad before anything is read ------------------------------------------------------------------------------------- */

static int know_listed(struct media *media)
{
	struct source_list list;
	int error = source_badblocks(media, &list);

	if (error)
		return error;
	for (size_t i = 0; i < list.count && !error; i++)
		error = media_bad_add(media, list.blocks[i].offset, list.blocks[i].length);
	source_list_fini(&list);
	return error;
}

static int know_emulated(struct media *media, struct why *why)
{
	struct media_poison *list = NULL;
	size_t count = 0;
	int error = media_poison_load(media, NULL, why);

	if (!error)
		error = media_poison_list(media, &list, &count);
	for (size_t i = 0; i < count && !error; i++)
		if (!list[i].latent)
			error = media_bad_add(media, list[i].offset, list[i].length);
	free(list);
	return error;
}

static int know_bad(struct media *media, struct why *why)
{
	int error = media_is_device(media) ? 0 : know_emulated(media, why);

	return error ? error : know_listed(media);
}

/* --- the phases -------------------------------------------------------------------------------------------------------------- */

typedef int phase_fn(struct repair *repair, struct why *why);

static int run_phases(struct repair *repair, phase_fn *const *phases, size_t count, struct why *why)
{
	int error = 0;

	for (size_t i = 0; i < count && !error; i++)
		error = phases[i](repair, why);
	return error;
}

static int run_structure(struct repair *repair, struct why *why)
{
	static phase_fn *const phases[] = {repair_journal, repair_table, repair_trees};
	int error = run_phases(repair, phases, ARRAY_SIZE(phases), why), closed;

	if (!repair->journal)
		return error;
	closed = journal_close(repair->journal);
	repair->journal = NULL;
	if (!error && closed)
		return why_set(why, closed, "%s: cannot be written: %s", media_path(repair->media), strerror(-closed));
	return error;
}

static int run_mount(struct repair *repair, bool readonly, struct why *why)
{
	struct fs_options mount = {.readonly = readonly, .tools = true, .repair = true};

	return fs_mount_media(repair->media, &mount, why, &repair->fs);
}

static void tell_left(void *arg, const char *line)
{
	struct repair *repair = arg;

	repair->report->left++;
	if (repair->options->write)
		repair->options->tell(repair->options->arg, FSCK_ERROR, line);
	else
		repair_tell(repair, FSCK_ERROR, "%s", line);
}

static int run_check(struct repair *repair, struct why *why)
{
	int error = fs_check(repair->fs, tell_left, repair, &repair->report->totals);

	return error ? why_set(why, error, "%s: the check could not be finished: %s", media_path(repair->media),
			       strerror(-error))
		     : 0;
}

static int run_mounted(struct repair *repair, bool readonly, struct why *why)
{
	/* Twice: what is made anew takes new numbers. */
	static phase_fn *const phases[] = {repair_upgrade, repair_counters, repair_records, repair_replicas, repair_counters, repair_copies};
	int error = run_mount(repair, readonly, why), closed;

	if (error)
		return error;
	if (!journal_is_readonly(repair->fs->journal))
		error = run_phases(repair, phases, ARRAY_SIZE(phases), why);
	if (!error)
		error = run_check(repair, why);
	closed = fs_unmount(repair->fs);
	repair->fs = NULL;
	if (!error && closed && !readonly)
		return why_set(why, closed, "%s: cannot be written: %s", media_path(repair->media), strerror(-closed));
	return error;
}

/* What was declined or may not be written hides the rest, or not: a look at it costs nothing. */
static int run_look(struct repair *repair)
{
	struct why ignored;
	uint64_t left = max_u64(repair->report->errors - min_u64(repair->report->errors, repair->report->fixed), repair->was_left);
	int error = run_mounted(repair, true, &ignored);

	repair->report->left = repair->report->left + left;
	return error == -ENOMEM ? error : 0;
}

/* What is read before anything else. *enough: there is no sign of anything, and nobody wants more than that. */
static int run_first(struct repair *repair, bool *enough, struct why *why)
{
	static phase_fn *const phases[] = {repair_find, repair_know, repair_super, repair_poison_log, repair_say_cleared};
	int error = run_phases(repair, phases, ARRAY_SIZE(phases), why);

	*enough = !error && repair->options->preen && !repair->options->force && repair_is_clean(repair);
	return error;
}

int fsck_run(struct media *media, const struct fsck_options *options, struct fsck_report *report, struct why *why)
{
	struct repair repair = {.media = media, .options = options, .report = report};
	bool enough = false;
	int error;

	*report = (struct fsck_report){0};
	iset_init(&repair.recorded);
	iset_init(&repair.cleared);
	why->text[0] = 0;
	error = know_bad(media, why);
	if (!error) {
		why->text[0] = 0; /* that an image has no .poison beside it is no reason for anything */
		error = run_first(&repair, &enough, why);
	}
	if (!error && !enough)
		error = run_structure(&repair, why);
	if (!error && !enough)
		error = repair.was_left || !options->write ? run_look(&repair) : run_mounted(&repair, false, why);
	iset_fini(&repair.recorded);
	iset_fini(&repair.cleared);
	if (error && !why->text[0])
		why_set(why, error, "%s: %s", media_path(media), strerror(-error));
	return error;
}
