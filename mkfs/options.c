#include "mkfs/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uuid.h>

enum { OPTION_PREALLOC = 256, OPTION_JSON };

static const struct option long_options[] = {
	{"label", required_argument, NULL, 'L'},
	{"uuid", required_argument, NULL, 'U'},
	{"metadata", required_argument, NULL, 'm'},
	{"size", required_argument, NULL, 's'},
	{"prealloc", no_argument, NULL, OPTION_PREALLOC},
	{"force", no_argument, NULL, 'f'},
	{"dry-run", no_argument, NULL, 'n'},
	{"quiet", no_argument, NULL, 'q'},
	{"json", no_argument, NULL, OPTION_JSON},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{0},
};

static void options_help(void)
{
	printf("Usage: mkfs.mendfs [options] TARGET\n"
	       "Make a mendfs filesystem on a device-dax device (/dev/daxX.Y) or in an image file.\n\n"
	       "  -L, --label LABEL        at most 64 bytes\n"
	       "  -U, --uuid UUID          instead of a random one\n"
	       "  -m, --metadata dup|single\n"
	       "                           copies of metadata; dup is the default\n"
	       "  -s, --size SIZE          of the image (created or resized) or of the part of the device to use;\n"
	       "                           suffixes K, M, G, T are powers of 1024\n"
	       "      --prealloc           reserve host space for the whole image, not for metadata only\n"
	       "  -f, --force              even if the target holds a filesystem or a partition table\n"
	       "  -n, --dry-run            show what would be done, write nothing\n"
	       "  -q, --quiet              print nothing but errors\n"
	       "      --json               print the geometry as JSON\n"
	       "  -h, --help\n"
	       "  -V, --version\n");
}

static enum options_verdict options_refuse(const char *format, ...)
	__attribute__((format(printf, 1, 2)));

static enum options_verdict options_refuse(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "mkfs.mendfs: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "; see mkfs.mendfs --help\n");
	return OPTIONS_WRONG;
}

static int suffix_shift(const char *suffix)
{
	static const char letters[] = "KMGT";
	const char *letter;

	if (!*suffix)
		return 0;
	letter = strchr(letters, *suffix >= 'a' ? *suffix - 'a' + 'A' : *suffix);
	if (!letter || !*letter || suffix[1])
		return -EINVAL;
	return (int)(letter - letters + 1) * 10;
}

int options_parse_size(const char *text, uint64_t *out)
{
	unsigned long long number;
	char *end;
	int shift;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	shift = suffix_shift(end);
	if (shift < 0)
		return shift;
	if (number > (uint64_t)INT64_MAX >> shift)
		return -ERANGE;
	*out = (uint64_t)number << shift;
	return 0;
}

static enum options_verdict options_size(struct mkfs_options *options, const char *text)
{
	int error = options_parse_size(text, &options->size_bytes);

	if (error == -ERANGE)
		return options_refuse("size '%s' is too large", text);
	if (error)
		return options_refuse("size '%s' is not a number with an optional suffix K, M, G or T",
				      text);
	if (options->size_bytes == 0)
		return options_refuse("size '%s' is not possible", text);
	return OPTIONS_GO;
}

static enum options_verdict options_label(struct mkfs_options *options, const char *text)
{
	size_t length = strlen(text);

	if (length > SUPER_LABEL_BYTES)
		return options_refuse("label '%s' has %zu bytes, at most %d are possible", text, length,
				      SUPER_LABEL_BYTES);
	if (!format_label_is_valid(text, length))
		return options_refuse("the label is not UTF-8 text without control characters");
	memcpy(options->label, text, length + 1);
	return OPTIONS_GO;
}

static enum options_verdict options_uuid(struct mkfs_options *options, const char *text)
{
	if (uuid_parse(text, options->uuid) || uuid_is_null(options->uuid))
		return options_refuse("'%s' is not a UUID", text);
	options->has_uuid = true;
	return OPTIONS_GO;
}

static enum options_verdict options_mode(struct mkfs_options *options, const char *text)
{
	if (strcmp(text, "dup") == 0)
		options->copies = 2;
	else if (strcmp(text, "single") == 0)
		options->copies = 1;
	else
		return options_refuse("metadata mode '%s' is neither dup nor single", text);
	return OPTIONS_GO;
}

static enum options_verdict options_flag(struct mkfs_options *options, int option)
{
	switch (option) {
	case OPTION_PREALLOC:
		options->prealloc = true;
		break;
	case OPTION_JSON:
		options->json = true;
		break;
	case 'f':
		options->force = true;
		break;
	case 'n':
		options->dry_run = true;
		break;
	case 'q':
		options->quiet = true;
		break;
	}
	return OPTIONS_GO;
}

static enum options_verdict options_one(struct mkfs_options *options, int option, char **argv)
{
	switch (option) {
	case 'L':
		return options_label(options, optarg);
	case 'U':
		return options_uuid(options, optarg);
	case 'm':
		return options_mode(options, optarg);
	case 's':
		return options_size(options, optarg);
	case 'h':
		options_help();
		return OPTIONS_DONE;
	case 'V':
		printf("mkfs.mendfs %s\n", MENDFS_VERSION);
		return OPTIONS_DONE;
	case ':':
		return options_refuse("%s needs a value", argv[optind - 1]);
	case '?':
		if (optopt && optopt < 256)
			return options_refuse("unknown option -%c", optopt);
		return options_refuse("wrong option %s", argv[optind - 1]);
	default:
		return options_flag(options, option);
	}
}

enum options_verdict options_parse(int argc, char **argv, struct mkfs_options *out)
{
	enum options_verdict verdict = OPTIONS_GO;
	int option;

	*out = (struct mkfs_options){.copies = 2};
	opterr = 0;
	while (verdict == OPTIONS_GO &&
	       (option = getopt_long(argc, argv, ":L:U:m:s:fnqhV", long_options, NULL)) != -1)
		verdict = options_one(out, option, argv);
	if (verdict != OPTIONS_GO)
		return verdict;
	if (optind == argc)
		return options_refuse("no target is given");
	if (optind + 1 < argc)
		return options_refuse("more than one target is given ('%s')", argv[optind + 1]);
	out->target = argv[optind];
	return OPTIONS_GO;
}
