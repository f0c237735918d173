#include "tests/crash/trial.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/inode.h"
#include "journal/journal.h"
#include "tests/crash/clock.h"

#define MOUNT_SECONDS_MAX 5.0
#define SETTLE_MS 5000
#define CLOCK_MOUNT_NS 1760000000000000000ull

static const struct fs_options trial_options = {.tools = true, .cache_bytes = 4u << 20};

static void trial_violation(struct trial *trial, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void trial_violation(struct trial *trial, const char *format, ...)
{
	char text[sizeof(trial->text)];
	va_list list;

	va_start(list, format);
	vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	if (!trial->violations++)
		memcpy(trial->text, text, sizeof(text));
	if (trial->verbose)
		fprintf(stderr, "  %s\n", text);
}

static void trial_finding(void *arg, const char *line)
{
	trial_violation(arg, "check: %s", line);
}

static void trial_judge_mount(struct trial *trial, struct fs *fs)
{
	const struct journal_recovery *recovery = journal_recovery(fs->journal);

	if (recovery->hole)
		trial_violation(trial, "the journal has a hole");
	if (recovery->lost)
		trial_violation(trial, "%llu metadata blocks have no whole copy", (unsigned long long)recovery->lost);
	if (fs_is_readonly(fs))
		trial_violation(trial, "mounted read-only");
}

/* What poison the mount has met is repaired by another thread. */
static void trial_settle(struct trial *trial, struct fs *fs)
{
	if (trial->point.poisoned && fs_notify_wait(fs, SETTLE_MS))
		trial_violation(trial, "failures are not handled within %d ms", SETTLE_MS);
}

static void trial_judge(struct trial *trial, struct fs *fs)
{
	struct fs_check_totals totals;
	struct why why = {0};
	int error;

	trial_judge_mount(trial, fs);
	trial_settle(trial, fs);
	error = fs_check(fs, trial_finding, trial, &totals);
	if (error)
		trial_violation(trial, "check: %s", strerror(-error));
	error = trial->workload->verify(trial->workload->arg, fs, &trial->point, &why);
	if (error)
		trial_violation(trial, "%s", why.text[0] ? why.text : strerror(-error));
	trial_settle(trial, fs);
	if (fs_is_readonly(fs) && !trial->violations)
		trial_violation(trial, "read-only after it was read");
}

static void trial_mount(struct trial *trial)
{
	struct why why = {0};
	double start = crash_clock_seconds();
	struct fs *fs;
	int error = fs_mount_media(lab_media(trial->lab), &trial_options, &why, &fs);
	double seconds = crash_clock_seconds() - start;

	if (seconds > MOUNT_SECONDS_MAX)
		trial_violation(trial, "the mount took %.1f s", seconds);
	if (error) {
		trial_violation(trial, "cannot be mounted: %s", why.text[0] ? why.text : strerror(-error));
		return;
	}
	if (trial->look)
		trial->look(trial->look_arg, fs);
	trial_judge(trial, fs);
	if (!trial->unmounts) {
		fs_abandon(fs);
		return;
	}
	error = fs_unmount(fs);
	if (error)
		trial_violation(trial, "cannot be unmounted: %s", strerror(-error));
}

void trial_run(struct trial *trial)
{
	char boot[32];

	trial->violations = 0;
	snprintf(boot, sizeof(boot), "boot %u", trial->boot);
	setenv("MENDFS_BOOT_ID", boot, 1);
	crash_clock_set(CLOCK_MOUNT_NS);
	lab_reset(trial->lab);
	record_start(trial->record);
	trial_mount(trial);
	record_stop(trial->record);
	record_rewind(trial->record);
}
