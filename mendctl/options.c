#include "mendctl/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "control/commands.h"

static const struct option long_options[] = {
    {"offset", required_argument, NULL, OPTION_OFFSET},
    {"length", required_argument, NULL, OPTION_LENGTH},
    {"sector", required_argument, NULL, OPTION_SECTOR},
    {"count", required_argument, NULL, OPTION_COUNT},
    {"all", no_argument, NULL, OPTION_ALL},
    {"kind", required_argument, NULL, OPTION_KIND},
    {"file", required_argument, NULL, OPTION_FILE},
    {"device-offset", required_argument, NULL, OPTION_DEVICE_OFFSET},
    {"latent", no_argument, NULL, OPTION_LATENT},
    {"force", no_argument, NULL, OPTION_FORCE},
    {"hardware", no_argument, NULL, OPTION_HARDWARE},
    {"no-wait", no_argument, NULL, OPTION_NO_WAIT},
    {"mode", required_argument, NULL, OPTION_MODE},
    {"raw", no_argument, NULL, OPTION_RAW},
    {"records", no_argument, NULL, OPTION_RECORDS},
    {"from", required_argument, NULL, OPTION_FROM},
    {"limit", required_argument, NULL, OPTION_LIMIT},
    {"scramble-names", no_argument, NULL, OPTION_SCRAMBLE_NAMES},
    {"recursive", no_argument, NULL, OPTION_RECURSIVE},
    {"dry-run", no_argument, NULL, OPTION_DRY_RUN},
    {"block-size", required_argument, NULL, OPTION_BLOCK_SIZE},
    {"memory", required_argument, NULL, OPTION_MEMORY},
    {"dst-offset", required_argument, NULL, OPTION_DST_OFFSET},
    {"json", no_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

int options_parse_size(const char *text, uint64_t *out)
{
	static const char units[] = "KMGT";
	const char *unit;
	unsigned shift = 0;
	uint64_t value;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	unit = *end ? strchr(units, *end >= 'a' ? *end - 'a' + 'A' : *end) : NULL;
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
		if (!strcasecmp(end, "b") || !strcasecmp(end, "ib"))
			end += strlen(end);
	}
	if (*end)
		return -EINVAL;
	if (value > UINT64_MAX >> shift)
		return -ERANGE;
	*out = value << shift;
	return 0;
}

static int take_number(const char *name, const char *text, uint64_t *out, struct why *why)
{
	int error = options_parse_size(text, out);

	if (error)
		return why_set(why, -EINVAL, "--%s %s: %s", name, text,
			       error == -ERANGE ? "this number is too large"
						: "give a number, plain or with K, M, G or T");
	return 0;
}

static int take_kind(struct options *out, const char *text, struct why *why)
{
	out->kind = command_kind_parse(text);
	if (out->kind < 0)
		return why_set(
		    why, -EINVAL,
		    "--kind %s: it is data, metadata, journal, superblock, free or quarantine",
		    text);
	return 0;
}

/* Up to three numbers with commas between. */
static int take_key(struct options *out, const char *text, struct why *why)
{
	const char *at = text;
	char *end;

	for (unsigned i = 0; i < ARRAY_SIZE(out->from); i++, at = end + 1) {
		errno = 0;
		out->from[i] = strtoull(at, &end, 0);
		if (end == at || errno || *at < '0' || *at > '9')
			break;
		if (!*end)
			return 0;
		if (*end != ',')
			break;
	}
	return why_set(why, -EINVAL, "--from %s: give the numbers of a key with commas between, as in 12 or 12,0", text);
}

static int take_mode(struct options *out, const char *text, struct why *why)
{
	out->mode = text;
	return command_stop_mode_parse(text) < 0
		   ? why_set(why, -EINVAL, "--mode %s: it is default, logflush or nologflush", text)
		   : 0;
}

static int take_option(struct options *out, int option, struct why *why)
{
	switch (option) {
	case OPTION_OFFSET:
		return take_number("offset", optarg, &out->offset, why);
	case OPTION_LENGTH:
		return take_number("length", optarg, &out->length, why);
	case OPTION_SECTOR:
		return take_number("sector", optarg, &out->sector, why);
	case OPTION_COUNT:
		return take_number("count", optarg, &out->count, why);
	case OPTION_DEVICE_OFFSET:
		return take_number("device-offset", optarg, &out->device_offset, why);
	case OPTION_KIND:
		return take_kind(out, optarg, why);
	case OPTION_MODE:
		return take_mode(out, optarg, why);
	case OPTION_FROM:
		return take_key(out, optarg, why);
	case OPTION_LIMIT:
		return take_number("limit", optarg, &out->limit, why);
	case OPTION_BLOCK_SIZE:
		return take_number("block-size", optarg, &out->block_size, why);
	case OPTION_MEMORY:
		return take_number("memory", optarg, &out->memory, why);
	case OPTION_DST_OFFSET:
		return take_number("dst-offset", optarg, &out->dst_offset, why);
	case OPTION_FILE:
		out->file = optarg;
		return 0;
	default:
		return 0;
	}
}

static int take_letter(struct options *out, int letter, char **argv, struct why *why)
{
	switch (letter) {
	case 'j':
		out->json = true;
		return 0;
	case 'h':
		out->help = true;
		return 0;
	case 'V':
		out->version = true;
		return 0;
	case 'f':
		out->given |= OPTION_FORCE;
		return 0;
	case 'r':
		out->given |= OPTION_RECURSIVE;
		return 0;
	case 'n':
		out->given |= OPTION_DRY_RUN;
		return 0;
	case ':':
		return why_set(why, -EINVAL, "%s needs a value", argv[optind - 1]);
	default:
		return why_set(why, -EINVAL, "no option %s; see mendctl --help", argv[optind - 1]);
	}
}

/* No bit has the value of a letter: they are powers of two, and '@' and the like are none of ours.
 */
static bool is_bit(int option)
{
	return (option & (option - 1)) == 0;
}

int options_parse(int argc, char **argv, struct options *out, struct why *why)
{
	int error = 0, option;

	memset(out, 0, sizeof(*out));
	out->kind = -1;
	opterr = 0;
	while (!error && (option = getopt_long(argc, argv, ":fjhnrV", long_options, NULL)) != -1) {
		if (!is_bit(option)) {
			error = take_letter(out, option, argv, why);
			continue;
		}
		error = take_option(out, option, why);
		out->given |= (unsigned)option;
	}
	if (error)
		return error;
	out->command = optind < argc ? argv[optind++] : NULL;
	out->words = argv + optind;
	out->count_words = argc - optind;
	return 0;
}
