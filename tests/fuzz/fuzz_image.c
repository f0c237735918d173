/*
 * Target: an image that lies. Blocks of a good one are changed, swapped, sealed again with a right checksum or not, poisoned; then it is mounted,
 * walked, asked, checked, changed and unmounted, sometimes repaired first. Any answer is right but a crash, a hang, a leak, undefined behaviour, or a
 * filesystem that was found whole and is not any more.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/query.h"
#include "fsck/fsck.h"
#include "tests/fuzz/image.h"
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/target.h"

#define CACHE_BYTES (1u << 20)

/* Where repair is not built in, an input that asks for it goes on without. */
int fsck_run(struct media *media, const struct fsck_options *options, struct fsck_report *report, struct why *why)
	__attribute__((weak));

/* --- checking --- */

struct finding {
	char text[256]; /* the first */
};

static void keep_finding(void *arg, const char *line)
{
	struct finding *finding = arg;

	if (!finding->text[0])
		snprintf(finding->text, sizeof(finding->text), "%s", line);
}

/* Findings, or a negative errno. */
static int64_t check(struct fs *fs, struct finding *finding)
{
	struct fs_check_totals totals;
	int error;

	finding->text[0] = '\0';
	error = fs_check(fs, keep_finding, finding, &totals);
	return error ? error : (int64_t)totals.findings;
}

static struct fs *mount(const struct base *base, bool readonly)
{
	const struct fs_options options = {.tools = true, .readonly = readonly, .cache_bytes = CACHE_BYTES};
	struct why why = {0};
	struct fs *fs = NULL;

	if (!fs_mount_media(medium_media(base->medium), &options, &why, &fs))
		return fs;
	if (!why.text[0])
		target_fail("a mount was refused without a word", "");
	return NULL;
}

static void unmount(struct fs *fs, uint8_t mode)
{
	if (mode & IMAGE_ABANDON)
		fs_abandon(fs);
	else
		fs_unmount(fs);
}

static bool is_poisoned(const struct program *program)
{
	for (size_t i = 0; i < program->count; i++) {
		unsigned kind = program->orders[i].kind % IMAGE_ORDERS;

		if (kind == IMAGE_POISON || (kind == IMAGE_USE && program->orders[i].length && program->orders[i].bytes[0] % 23 == 19))
			return true;
	}
	return false;
}

static void use_mount(const struct base *base, const struct program *program)
{
	uint8_t mode = program->head[1];
	struct fs *fs = mount(base, mode & IMAGE_READONLY);
	struct finding finding;
	bool was_whole = false;

	if (!fs)
		return;
	if (mode & IMAGE_CHECK)
		was_whole = check(fs, &finding) == 0 && !fs_is_readonly(fs) && !is_poisoned(program);
	image_use(fs, base, program);
	if (mode & IMAGE_CHECK && check(fs, &finding) > 0 && was_whole)
		target_fail("a filesystem that was whole is not any more", finding.text);
	unmount(fs, mode);
}

/* --- repair --- */

static void ignore_line(void *arg, enum fsck_grade grade, const char *line)
{
}

/* 1: it says that all is well now; 0: that something is left, or that it could not. */
static bool repair(const struct base *base, uint8_t mode, struct fsck_report *report)
{
	struct fsck_options options = {.write = true, .force = true, .preen = mode & IMAGE_PREEN, .tell = ignore_line};
	struct why why = {0};
	int error;

	*report = (struct fsck_report){0};
	error = fsck_run(medium_media(base->medium), &options, report, &why);
	if (error && !why.text[0])
		target_fail("a repair was refused without a word", "");
	return !error && !report->left;
}

static void check_repaired(const struct base *base, const struct program *program)
{
	struct fsck_report report;
	struct finding finding;
	struct fs *fs;

	if (!fsck_run || !repair(base, program->head[1], &report) || is_poisoned(program) || program->head[1] & IMAGE_PREEN)
		return;
	lab_reset(medium_lab(base->medium));
	fs = mount(base, false);
	if (!fs)
		target_fail("repaired, and cannot be mounted", "");
	if (check(fs, &finding) != 0)
		target_fail("repaired, and not whole", finding.text);
	fs_unmount(fs);
	lab_reset(medium_lab(base->medium));
}

/* --- what libFuzzer calls --- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	target_begin();
	bases_make();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct program program;
	const struct base *base;

	program_parse(data, size, &program);
	base = base_get(program.head[0]);
	image_spoil(base, &program);
	if (program.head[1] & IMAGE_FSCK)
		check_repaired(base, &program);
	use_mount(base, &program);
	if (program.head[1] & IMAGE_AGAIN) {
		lab_reset(medium_lab(base->medium));
		use_mount(base, &program);
	}
	medium_restore(base->medium);
	return 0;
}
