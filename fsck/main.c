/*
 * fsck.mendfs: check and repair a filesystem that nobody has mounted. Exit codes of fsck(8).
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fsck/fsck.h"
#include "fsck/output.h"
#include "util/log.h"

enum { EXIT_CLEAN = 0, EXIT_CORRECTED = 1, EXIT_UNCORRECTED = 4, EXIT_OPERATIONAL = 8, EXIT_USAGE = 16, EXIT_CANCELLED = 32 };
enum mode { MODE_DEFAULT, MODE_NO, MODE_YES, MODE_PREEN };

struct options {
	enum mode mode;
	bool force, json, verbose, quiet, progress, help, version;
	const char *target;
};

static void usage(void)
{
	printf("usage: fsck.mendfs [-n|-p|-y] [-f] [-v|-q] [-C] [--json] TARGET\n"
	       "\n"
	       "Check the mendfs filesystem on TARGET, an unmounted device or image, and repair it. What one record says that another has\n"
	       "lost is put back; data without a name goes to lost+found. Without -n, -p or -y it asks on a terminal, and writes nothing elsewhere.\n"
	       "\n"
	       "  -n             write nothing\n"
	       "  -p, -a         repair what loses nothing and needs no judgement; after a clean unmount only a brief look\n"
	       "  -y             repair everything\n"
	       "  -f             with -p: check in full in any case\n"
	       "  -v, --verbose  show what was counted\n"
	       "  -q, --quiet    only errors\n"
	       "  -C             show progress, also where standard error is no terminal\n"
	       "  --json         one JSON object: findings, what was repaired and lost, totals\n"
	       "  -h, --help     this text\n"
	       "  -V, --version  the version\n"
	       "\n"
	       "Exit status: 0 clean, 1 errors corrected, 4 errors left, 8 cannot be checked, 16 usage, 32 cancelled.\n");
}

static int parse_flag(struct options *options, int flag)
{
	switch (flag) {
	case 'n': options->mode = MODE_NO; return 0;
	case 'y': options->mode = MODE_YES; return 0;
	case 'a':
	case 'p': options->mode = MODE_PREEN; return 0;
	case 'f': options->force = true; return 0;
	case 'v': options->verbose = true; return 0;
	case 'q': options->quiet = true; return 0;
	case 'C': options->progress = true; return 0;
	case 'T': return 0; /* fsck(8): no title; there is none */
	case 'j': options->json = true; return 0;
	case 'h': options->help = true; return 0;
	case 'V': options->version = true; return 0;
	}
	return -EINVAL;
}

static int parse(int argc, char **argv, struct options *options)
{
	static const struct option longs[] = {
		{"json", no_argument, NULL, 'j'}, {"verbose", no_argument, NULL, 'v'}, {"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {NULL, 0, NULL, 0},
	};
	enum mode before;
	int flag;

	while ((flag = getopt_long(argc, argv, "napyfvqhVTC::", longs, NULL)) != -1) {
		before = options->mode;
		if (parse_flag(options, flag))
			return -EINVAL;
		if (before != MODE_DEFAULT && before != options->mode) {
			fprintf(stderr, "fsck.mendfs: only one of -n, -p and -y\n");
			return -EINVAL;
		}
	}
	if (options->help || options->version)
		return 0;
	if (argc - optind != 1) {
		fprintf(stderr, "fsck.mendfs: name one device or image; see fsck.mendfs --help\n");
		return -EINVAL;
	}
	options->target = argv[optind];
	return 0;
}

/* --- one run ----------------------------------------------------------------------------------------------------------------- */

/* Every step of a repair is a transaction: whatever the moment, the next run goes on. */
static void cancel(int number)
{
	static const char line[] = "\nfsck.mendfs: cancelled\n";
	ssize_t ignored = write(STDERR_FILENO, line, sizeof(line) - 1);

	(void)ignored;
	_exit(EXIT_CANCELLED);
}

static bool may_ask(const struct options *options)
{
	return options->mode == MODE_DEFAULT && !options->json && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
}

static int exit_status(const struct fsck_report *report)
{
	if (report->left)
		return EXIT_UNCORRECTED;
	return report->fixed || report->losses ? EXIT_CORRECTED : EXIT_CLEAN;
}

static int run_media(const struct options *options, struct media *media, struct output *output)
{
	struct fsck_options run = {
		.write = !media_is_readonly(media),
		.preen = options->mode == MODE_PREEN,
		.force = options->force,
		.tell = output_tell,
		.ask = may_ask(options) ? output_ask : NULL,
		.progress = output_progress,
		.arg = output,
	};
	struct fsck_report report;
	struct why why;
	int error = fsck_run(media, &run, &report, &why);

	output_end(output, error ? NULL : &report);
	if (!error)
		return exit_status(&report);
	fprintf(stderr, "fsck.mendfs: %s\n", why.text);
	return EXIT_OPERATIONAL;
}

static int run(const struct options *options)
{
	struct media_options media_options = {.readonly = options->mode == MODE_NO, .claim = true};
	struct output output;
	struct media *media;
	struct why why;
	int status;

	if (options->mode == MODE_DEFAULT && !may_ask(options))
		media_options.readonly = true;
	if (media_open(options->target, &media_options, &why, &media)) {
		fprintf(stderr, "fsck.mendfs: %s\n", why.text);
		return EXIT_OPERATIONAL;
	}
	output_begin(&output, options->target);
	output.json = options->json;
	output.verbose = options->verbose;
	output.quiet = options->quiet;
	output.progress = options->progress || (isatty(STDERR_FILENO) && !options->json && !options->quiet);
	status = run_media(options, media, &output);
	if (media_close(media) && status < EXIT_OPERATIONAL) {
		fprintf(stderr, "fsck.mendfs: %s: cannot be written\n", options->target);
		status = EXIT_OPERATIONAL;
	}
	return status;
}

int main(int argc, char **argv)
{
	struct options options = {0};

	log_set_level(LOG_LEVEL_SILENT);
	signal(SIGINT, cancel);
	if (parse(argc, argv, &options))
		return EXIT_USAGE;
	if (options.help)
		usage();
	if (options.version)
		printf("fsck.mendfs %s\n", MENDFS_VERSION);
	return options.target ? run(&options) : EXIT_CLEAN;
}
