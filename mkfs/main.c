/* mkfs.mendfs */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mkfs/build.h"
#include "mkfs/report.h"
#include "mkfs/target.h"
#include "util/log.h"

/* Look at what is there, without writing, before anything is resized or opened for writing. */
static int make_check(const struct mkfs_options *options, struct why *why)
{
	const struct media_options open_options = {.readonly = true, .claim = true};
	struct poisoned poisoned;
	struct media *media;
	int error = media_open(options->target, &open_options, why, &media);

	if (error)
		return error;
	error = poisoned_load(media, &poisoned, why);
	if (!error) {
		error = target_check(media, why);
		poisoned_fini(&poisoned);
	}
	media_close(media);
	return error;
}

static int make_print(const struct build *build)
{
	if (build->options->json)
		return report_json(build);
	if (!build->options->quiet)
		report_text(build);
	return 0;
}

/* Without a file there is nothing to open: the plan of an empty one. */
static int make_dry(struct build *build, enum target_kind kind, struct why *why)
{
	const struct media_options open_options = {.readonly = true, .claim = true};
	struct media *media = NULL;
	int error = 0;

	if (kind == TARGET_EXISTING)
		error = media_open(build->options->target, &open_options, why, &media);
	if (!error)
		error = build_plan(build, media, why);
	if (!error)
		error = make_print(build);
	if (media)
		media_close(media);
	return error;
}

static int make_close(struct media *media, int error, struct why *why)
{
	int close_error = media_close(media);

	if (close_error && !error)
		return why_set(why, close_error, "writing failed at the end: %s",
			       strerror(-close_error));
	return error;
}

static int make_write(struct build *build, enum target_kind kind, struct why *why)
{
	const struct mkfs_options *options = build->options;
	const struct media_options open_options = {
		.claim = true,
		.create_bytes = options->size_bytes,
		.resize = true,
	};
	struct media *media;
	int error = media_open(options->target, &open_options, why, &media);

	if (error)
		return error;
	error = build_plan(build, media, why);
	if (!error)
		error = build_write(build, media, why);
	if (error && kind == TARGET_NEW)
		unlink(options->target);
	error = make_close(media, error, why);
	return error ? error : make_print(build);
}

/* Before a file is created or resized for nothing. */
static int make_check_size(const struct mkfs_options *options, struct why *why)
{
	struct why reason;
	int error;

	if (options->size_bytes == 0)
		return 0;
	error = layout_check_size(options->size_bytes, &reason);
	return error ? why_set(why, error, "%s: %.900s", options->target, reason.text) : 0;
}

static int make(struct build *build, struct why *why)
{
	const struct mkfs_options *options = build->options;
	enum target_kind kind;
	int error = make_check_size(options, why);

	if (!error)
		error = target_classify(options, &kind, why);
	if (!error && kind == TARGET_EXISTING && !options->force)
		error = make_check(options, why);
	if (error)
		return error;
	return options->dry_run ? make_dry(build, kind, why) : make_write(build, kind, why);
}

int main(int argc, char **argv)
{
	struct mkfs_options options;
	struct build build = {.options = &options};
	struct why why = {"failed"};
	int error;

	switch (options_parse(argc, argv, &options)) {
	case OPTIONS_DONE:
		return 0;
	case OPTIONS_WRONG:
		return 2;
	case OPTIONS_GO:
		break;
	}
	log_set_level(LOG_LEVEL_WARNING);
	error = make(&build, &why);
	build_fini(&build);
	if (error) {
		fprintf(stderr, "mkfs.mendfs: %s\n", why.text);
		return 1;
	}
	return 0;
}
