/*
 * fsck.mendfs: check an unmounted filesystem, writing nothing: the journal is replayed in memory. Exit codes of fsck(8). It does not repair;
 * what it finds is left as it is and said so (4).
 */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "fs/query.h"
#include "util/log.h"

enum { EXIT_CLEAN = 0, EXIT_UNCORRECTED = 4, EXIT_OPERATIONAL = 8, EXIT_USAGE = 16 };

struct options {
	bool json, verbose, help, version;
	const char *target;
};

static void usage(void)
{
	printf("usage: fsck.mendfs [-n|-p|-y] [-f] [-v] [--json] TARGET\n"
	       "\n"
	       "Check the mendfs filesystem on TARGET, an unmounted device or image, without writing to it: every tree, extents against\n"
	       "the reverse map, the reverse map against free space, names, links and counters. It does not repair.\n"
	       "\n"
	       "  -n, -p, -y     accepted as fsck(8) passes them; none of them writes anything\n"
	       "  -f             accepted: the check is always a full one\n"
	       "  -v, --verbose  show what was counted\n"
	       "  --json         one JSON object: findings and totals\n"
	       "  -h, --help     this text\n"
	       "  -V, --version  the version\n"
	       "\n"
	       "Exit status: 0 clean, 4 errors found, 8 cannot be checked, 16 usage.\n");
}

static int parse(int argc, char **argv, struct options *options)
{
	static const struct option longs[] = {
		{"json", no_argument, NULL, 'j'},    {"verbose", no_argument, NULL, 'v'}, {"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'}, {NULL, 0, NULL, 0},
	};
	int flag;

	while ((flag = getopt_long(argc, argv, "napyfvhVTC:", longs, NULL)) != -1) {
		options->json |= flag == 'j';
		options->verbose |= flag == 'v';
		options->help |= flag == 'h';
		options->version |= flag == 'V';
		if (flag == '?')
			return -EINVAL;
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

static void print_finding(void *arg, const char *line)
{
	printf("%s\n", line);
}

static void collect_finding(void *arg, const char *line)
{
	struct json_object *finding = json_object_new_object();

	json_object_object_add(finding, "message", json_object_new_string(line));
	json_object_array_add(arg, finding);
}

static struct json_object *totals_object(const struct fs_check_totals *totals)
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "findings", json_object_new_uint64(totals->findings));
	json_object_object_add(object, "inodes", json_object_new_uint64(totals->inodes));
	json_object_object_add(object, "extents", json_object_new_uint64(totals->extents));
	json_object_object_add(object, "rmap_records", json_object_new_uint64(totals->rmap_records));
	json_object_object_add(object, "blocks_compared", json_object_new_uint64(totals->blocks_compared));
	return object;
}

static int check_json(struct fs *fs, struct fs_check_totals *totals)
{
	struct json_object *answer = json_object_new_object(), *findings = json_object_new_array();
	int error;

	json_object_object_add(answer, "version", json_object_new_int(1));
	json_object_object_add(answer, "findings", findings);
	error = fs_check(fs, collect_finding, findings, totals);
	if (!error) {
		json_object_object_add(answer, "totals", totals_object(totals));
		puts(json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN));
	}
	json_object_put(answer);
	return error;
}

static int check_text(struct fs *fs, const struct options *options, struct fs_check_totals *totals)
{
	int error = fs_check(fs, print_finding, NULL, totals);

	if (error)
		return error;
	if (options->verbose)
		printf("%s: %llu inodes, %llu extents, %llu reverse map records, %llu blocks compared\n", options->target,
		       (unsigned long long)totals->inodes, (unsigned long long)totals->extents,
		       (unsigned long long)totals->rmap_records, (unsigned long long)totals->blocks_compared);
	if (totals->findings)
		printf("%s: %llu errors, left as they are\n", options->target, (unsigned long long)totals->findings);
	else
		printf("%s: clean\n", options->target);
	return 0;
}

static int check_target(const struct options *options)
{
	struct fs_options mount = {.readonly = true, .tools = true, .claim = true};
	struct fs_check_totals totals = {0};
	struct why why;
	struct fs *fs;
	int error = fs_mount(options->target, &mount, &why, &fs);

	if (error) {
		fprintf(stderr, "fsck.mendfs: %s\n", why.text);
		return EXIT_OPERATIONAL;
	}
	error = options->json ? check_json(fs, &totals) : check_text(fs, options, &totals);
	fs_unmount(fs);
	if (error) {
		fprintf(stderr, "fsck.mendfs: %s: the check could not be finished: %s\n", options->target, strerror(-error));
		return EXIT_OPERATIONAL;
	}
	return totals.findings ? EXIT_UNCORRECTED : EXIT_CLEAN;
}

int main(int argc, char **argv)
{
	struct options options = {0};

	log_set_level(LOG_LEVEL_SILENT);
	if (parse(argc, argv, &options))
		return EXIT_USAGE;
	if (options.help)
		usage();
	if (options.version)
		printf("fsck.mendfs %s\n", MENDFS_VERSION);
	return options.target ? check_target(&options) : EXIT_CLEAN;
}
