#include <errno.h>
#include <string.h>

#include "mendctl/subcommand.h"

#define TARGET_HELP \
	"TARGET is a mount point, any path inside one, or the device or image.\n"
#define RANGE_HELP "Numbers are bytes, plain or with K, M, G or T (powers of 1024).\n"

static const struct column list_columns[] = {
	{"device", "DEVICE", -20},	 {"mountpoint", "MOUNTPOINT", -20}, {"state", "STATE", -8},
	{"size_bytes", "SIZE", 14},	 {"free_bytes", "FREE", 14},	    {"badblock_bytes", "BAD", 10},
	{"quarantined_bytes", "QUARANTINED", 11}, {"damaged_files", "DAMAGED", 7}, {"sigbus_count", "SIGBUS", 6},
	{"transport", "TRANSPORT", -9},	 {"label", "LABEL", -8},	    {"uuid", "UUID", 0},
	{NULL, NULL, 0},
};
static const struct column map_columns[] = {
	{"pos", "POS", 14}, {"len", "LEN", 12}, {"device_offset", "DEVICE_OFFSET", 16},
	{"shared", "SHARED", -6}, {"written", "WRITTEN", 0}, {NULL, NULL, 0},
};
static const struct column owners_columns[] = {
	{"device_offset", "DEVICE_OFFSET", 16}, {"len", "LEN", 12}, {"kind", "KIND", -10},
	{"inumber", "INODE", 10}, {"pos", "POS", 14}, {"tree", "TREE", -10}, {"copy", "COPY", -7},
	{"live", "LIVE", -4}, {"peer_offset", "PEER_OFFSET", 16}, {"paths", "PATHS", 0}, {NULL, NULL, 0},
};
static const struct column badblocks_columns[] = {
	{"device_offset", "DEVICE_OFFSET", 16}, {"len", "LEN", 10}, {"sector", "SECTOR", 12}, {"count", "COUNT", 8},
	{"state", "STATE", -11}, {"source", "SOURCE", -8}, {"cause_id", "CAUSE", 8}, {"since_ns", "SINCE_NS", 0},
	{NULL, NULL, 0},
};
static const struct column damaged_columns[] = {
	{"inumber", "INODE", 10}, {"cause_ids", "CAUSES", -8}, {"paths", "PATHS", -30}, {"ranges", "POS+LEN", 0},
	{NULL, NULL, 0},
};
static const struct column range_columns[] = {
	{"device_offset", "DEVICE_OFFSET", 16}, {"len", "LEN", 10}, {NULL, NULL, 0},
};
static const struct column stats_columns[] = {
	{"opcode", "OPCODE", -16}, {"count", "COUNT", 12}, {"total_ns", "TOTAL_NS", 16},
	{"histogram", "HISTOGRAM (requests of at least 1, 2, 4, ... ns)", 0}, {NULL, NULL, 0},
};
static const struct column check_columns[] = {{"message", "FINDING", 0}, {NULL, NULL, 0}};
static const struct column version_columns[] = {
	{"program", "PROGRAM", -8}, {"version", "VERSION", -10}, {"format_version", "FORMAT", 0}, {NULL, NULL, 0},
};

static int usage(struct why *why, const char *text)
{
	return why_set(why, -EINVAL, "%s", text);
}

static int check_owners(const struct options *options, struct why *why)
{
	unsigned bytes = options->given & (OPTION_OFFSET | OPTION_LENGTH);
	unsigned sectors = options->given & (OPTION_SECTOR | OPTION_COUNT);
	bool all = options->given & OPTION_ALL;

	if (!!bytes + !!sectors + all != 1 || (bytes && bytes != (OPTION_OFFSET | OPTION_LENGTH)) ||
	    (sectors && sectors != (OPTION_SECTOR | OPTION_COUNT)))
		return usage(why, "give --offset and --length, or --sector and --count, or --all");
	if ((bytes && !options->length) || (sectors && !options->count))
		return usage(why, "the length is 0: ask for at least 1");
	return 0;
}

static int check_range(const struct options *options, struct why *why)
{
	bool file = options->given & OPTION_FILE, offset = options->given & OPTION_OFFSET;
	bool device = options->given & OPTION_DEVICE_OFFSET;

	if (file + device != 1 || file != offset || !(options->given & OPTION_LENGTH))
		return usage(why, "give --file F --offset B --length B, or --device-offset B --length B");
	return options->length ? 0 : usage(why, "--length 0: give at least 1");
}

static int check_uninject(const struct options *options, struct why *why)
{
	unsigned others = OPTION_FILE | OPTION_OFFSET | OPTION_DEVICE_OFFSET | OPTION_LENGTH;

	if (!(options->given & OPTION_ALL))
		return check_range(options, why);
	return options->given & others ? usage(why, "--all goes alone") : 0;
}

static int check_map(const struct options *options, struct why *why)
{
	return options->file && options->count_words > 1 ? usage(why, "name one file") : 0;
}

const struct subcommand subcommands[] = {
	{"list", "[TARGET...]", "show filesystems: state, space, bad and quarantined bytes, damaged files",
	 "Without TARGET: all that are mounted. " TARGET_HELP, 0, 0, INT32_MAX, list_columns, "filesystems",
	 "no mendfs is mounted", NULL, query_list},
	{"map", "FILE | TARGET FILE | TARGET --file FILE", "show where a file lies on the device",
	 "FILE is a path inside a mount; with a TARGET that is not mounted, a path from its root.\n"
	 "      --file FILE            the same, as an option\n",
	 OPTION_FILE, 1, 2, map_columns, "extents", "no extents", check_map, query_map},
	{"owners", "TARGET (--offset B --length B | --sector N --count N | --all [--kind KIND])",
	 "say what a range of the device belongs to: which files, at which offsets, or which metadata",
	 "      --offset B --length B  a range of the device, in bytes\n"
	 "      --sector N --count N   the same in 512-byte sectors\n"
	 "      --all                  the whole device\n"
	 "      --kind KIND            only data, metadata, journal, superblock, free or quarantine\n" TARGET_HELP RANGE_HELP,
	 OPTION_OFFSET | OPTION_LENGTH | OPTION_SECTOR | OPTION_COUNT | OPTION_ALL | OPTION_KIND, 1, 1, owners_columns,
	 "owners", "nothing", check_owners, query_run},
	{"badblocks", "TARGET", "list what is known to be bad", TARGET_HELP, 0, 1, 1, badblocks_columns, "badblocks",
	 "no bad blocks are known", NULL, query_run},
	{"damaged", "TARGET", "list the damaged files and their ranges", TARGET_HELP, 0, 1, 1, damaged_columns, "damaged",
	 "no file is damaged", NULL, query_run},
	{"inject-error", "TARGET (--file F --offset B | --device-offset B) --length B [--latent]",
	 "make a range fail as if its memory had",
	 "      --file F --offset B    a range of a file; F as your shell sees it, or from the filesystem's root\n"
	 "      --device-offset B      a range of the device\n"
	 "      --length B             at least 1, any alignment\n"
	 "      --latent               tell nobody until it is touched\n" TARGET_HELP RANGE_HELP,
	 OPTION_FILE | OPTION_OFFSET | OPTION_DEVICE_OFFSET | OPTION_LENGTH | OPTION_LATENT, 1, 1, range_columns, "injected",
	 NULL, check_range, query_run},
	{"uninject-error", "TARGET (--file F --offset B | --device-offset B) --length B | TARGET --all",
	 "take injected failures back",
	 "      --file F --offset B    a range of a file; F as your shell sees it, or from the filesystem's root\n"
	 "      --device-offset B      a range of the device\n"
	 "      --length B             at least 1, any alignment\n"
	 "      --all                  everything that was injected\n" TARGET_HELP RANGE_HELP,
	 OPTION_FILE | OPTION_OFFSET | OPTION_DEVICE_OFFSET | OPTION_LENGTH | OPTION_ALL, 1, 1, range_columns, "removed",
	 "nothing was injected there", check_uninject, query_run},
	{"monitor", "TARGET", "print events as they happen, one JSON object per line",
	 "The first event is `running`, the last `unmount`. " TARGET_HELP, 0, 1, 1, NULL, NULL, NULL, NULL, monitor_run},
	{"clone", "SRC DST", "make DST share all blocks of SRC (reflink)",
	 "Both are in the same mounted filesystem.\n"
	 "  -f, --force                replace the content of DST if it exists\n",
	 OPTION_FORCE, 2, 2, NULL, "cloned", NULL, NULL, clone_run},
	{"stats", "TARGET", "show how many requests were served, and how long they took", TARGET_HELP, 0, 1, 1,
	 stats_columns, "requests", "no requests yet", NULL, query_run},
	{"check", "TARGET", "check everything that can be checked without writing", TARGET_HELP, 0, 1, 1, check_columns,
	 "findings", "no findings", NULL, query_run},
	{"sync", "TARGET", "make everything durable now", TARGET_HELP, 0, 1, 1, NULL, "synced", NULL, NULL, query_run},
	{"drop-caches", "TARGET", "forget what the daemon has cached and could read again", TARGET_HELP, 0, 1, 1, NULL,
	 "dropped", NULL, NULL, query_run},
	{"version", "[TARGET]", "show the version of mendctl, and of the daemon that serves TARGET", TARGET_HELP, 0, 0, 1,
	 version_columns, "programs", NULL, NULL, query_version},
};
const size_t count_subcommands = ARRAY_SIZE(subcommands);

const struct subcommand *subcommand_find(const char *name)
{
	for (size_t i = 0; i < count_subcommands; i++)
		if (!strcmp(subcommands[i].name, name))
			return &subcommands[i];
	return NULL;
}
