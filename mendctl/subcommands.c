#include <errno.h>
#include <limits.h>
#include <string.h>

#include "mendctl/subcommand.h"

#define TARGET_HELP "TARGET is a mount point, any path inside one, or the device or image.\n"
#define RANGE_HELP "Numbers are bytes, plain or with K, M, G or T (powers of 1024).\n"

#define RANGE_OPTIONS_HELP                                                                         \
	"      --file F --offset B    a range of a file; F as your shell sees it, or from\n"        \
	"                             the filesystem's root\n"                                      \
	"      --device-offset B      a range of the device\n"                                      \
	"      --length B             at least 1, any alignment\n"
#define RANGE_OPTIONS (OPTION_FILE | OPTION_OFFSET | OPTION_DEVICE_OFFSET | OPTION_LENGTH)

static const struct column list_columns[] = {
    {"device", "DEVICE", -20},
    {"mountpoint", "MOUNTPOINT", -20},
    {"state", "STATE", -8},
    {"size_bytes", "SIZE", 14},
    {"free_bytes", "FREE", 14},
    {"badblock_bytes", "BAD", 10},
    {"kernel_badblocks", "KERNEL_LIST", -11},
    {"quarantined_bytes", "QUARANTINED", 11},
    {"damaged_files", "DAMAGED", 7},
    {"sigbus_count", "SIGBUS", 6},
    {"transport", "TRANSPORT", -9},
    {"label", "LABEL", -8},
    {"uuid", "UUID", 0},
    {NULL, NULL, 0},
};
static const struct column map_columns[] = {
    {"pos", "POS", 14},       {"len", "LEN", 12},        {"device_offset", "DEVICE_OFFSET", 16},
    {"shared", "SHARED", -6}, {"written", "WRITTEN", 0}, {NULL, NULL, 0},
};
static const struct column dedupe_columns[] = {
    {"gained_bytes", "GAINED", 14}, {"len", "LEN", 14},       {"same", "SAME", -4},
    {"pos", "POS", 14},             {"source_pos", "SOURCE_POS", 14}, {"path", "PATH", -30}, {"source", "SOURCE", 0}, {NULL, NULL, 0},
};
static const struct column label_columns[] = {{"label", "LABEL", 0}, {NULL, NULL, 0}};
static const struct column uuid_columns[] = {{"uuid", "UUID", 0}, {NULL, NULL, 0}};
static const struct column resize_columns[] = {{"size_bytes", "SIZE", 14}, {"free_bytes", "FREE", 14}, {NULL, NULL, 0}};
static const struct column owners_columns[] = {
    {"device_offset", "DEVICE_OFFSET", 16},
    {"len", "LEN", 12},
    {"kind", "KIND", -10},
    {"inumber", "INODE", 10},
    {"pos", "POS", 14},
    {"tree", "TREE", -10},
    {"copy", "COPY", -7},
    {"live", "LIVE", -4},
    {"peer_offset", "PEER_OFFSET", 16},
    {"paths", "PATHS", 0},
    {NULL, NULL, 0},
};
static const struct column badblocks_columns[] = {
    {"device_offset", "DEVICE_OFFSET", 16},
    {"len", "LEN", 10},
    {"sector", "SECTOR", 12},
    {"count", "COUNT", 8},
    {"state", "STATE", -11},
    {"source", "SOURCE", -8},
    {"cause_id", "CAUSE", 8},
    {"since_ns", "SINCE_NS", 0},
    {NULL, NULL, 0},
};
static const struct column damaged_columns[] = {
    {"inumber", "INODE", 10}, {"cause_ids", "CAUSES", -8},
    {"paths", "PATHS", -30},  {"ranges", "POS+LEN", 0},
    {NULL, NULL, 0},
};
static const struct column range_columns[] = {
    {"device_offset", "DEVICE_OFFSET", 16},
    {"len", "LEN", 10},
    {NULL, NULL, 0},
};
static const struct column stats_columns[] = {
    {"opcode", "OPCODE", -16},
    {"count", "COUNT", 12},
    {"total_ns", "TOTAL_NS", 16},
    {"histogram", "HISTOGRAM (requests of at least 1, 2, 4, ... ns)", 0},
    {NULL, NULL, 0},
};
static const struct column scrub_columns[] = {
    {"kind", "KIND", -8},		{"bus", "BUS", -8},		     {"state", "STATE", -8}, {"found_bytes", "FOUND", 12},
    {"listed_bytes", "LISTED", 12}, {"duration_ns", "DURATION_NS", 0}, {NULL, NULL, 0},
};
static const struct column check_columns[] = {{"message", "FINDING", 0}, {NULL, NULL, 0}};
static const struct column version_columns[] = {
    {"program", "PROGRAM", -8},
    {"version", "VERSION", -10},
    {"format_version", "FORMAT", 0},
    {NULL, NULL, 0},
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
		return usage(
		    why, "give --file F --offset B --length B, or --device-offset B --length B");
	return options->length ? 0 : usage(why, "--length 0: give at least 1");
}

static int check_uninject(const struct options *options, struct why *why)
{
	if (!(options->given & OPTION_ALL))
		return check_range(options, why);
	return options->given & RANGE_OPTIONS ? usage(why, "--all goes alone") : 0;
}

static int check_scrub(const struct options *options, struct why *why)
{
	return options->given & OPTION_HARDWARE ? 0 : usage(why, "which scrub? give --hardware, the one that the bus of the memory does by itself");
}

static int check_map(const struct options *options, struct why *why)
{
	return options->file && options->count_words > 1 ? usage(why, "name one file") : 0;
}

/* clang-format off: one line per fact */
const struct subcommand subcommands[] = {
	{
		.name = "list",
		.synopsis = "[TARGET...]",
		.summary = "show filesystems: state, space, bad and quarantined bytes, damaged files",
		.details = "Without TARGET: all that are mounted. " TARGET_HELP,
		.words_max = INT32_MAX,
		.columns = list_columns,
		.array = "filesystems",
		.nothing = "no mendfs is mounted",
		.run = query_list,
	},
	{
		.name = "map",
		.synopsis = "FILE | TARGET FILE | TARGET --file FILE",
		.summary = "show where a file lies on the device",
		.details = 
			"FILE is a path inside a mount; with a TARGET that is not mounted, a path from its "
			"root.\n"
			"      --file FILE            the same, as an option\n",
		.options = OPTION_FILE,
		.words_min = 1,
		.words_max = 2,
		.columns = map_columns,
		.array = "extents",
		.nothing = "no extents",
		.check = check_map,
		.run = query_map,
	},
	{
		.name = "owners",
		.synopsis = "TARGET (--offset B --length B | --sector N --count N | --all [--kind KIND])",
		.summary = "say what a range of the device belongs to: files with offsets, or metadata",
		.details = 
			"      --offset B --length B  a range of the device, in bytes\n"
			"      --sector N --count N   the same in 512-byte sectors\n"
			"      --all                  the whole device\n"
			"      --kind KIND            only data, metadata, journal, superblock, free or "
			"quarantine\n" TARGET_HELP RANGE_HELP,
		.options = OPTION_OFFSET | OPTION_LENGTH | OPTION_SECTOR | OPTION_COUNT | OPTION_ALL |
			   OPTION_KIND,
		.words_min = 1,
		.words_max = 1,
		.columns = owners_columns,
		.array = "owners",
		.nothing = "nothing",
		.check = check_owners,
		.run = query_run,
	},
	{
		.name = "badblocks",
		.synopsis = "TARGET",
		.summary = "list what is known to be bad",
		.details = TARGET_HELP,
		.words_min = 1,
		.words_max = 1,
		.columns = badblocks_columns,
		.array = "badblocks",
		.nothing = "no bad blocks are known",
		.run = query_run,
	},
	{
		.name = "damaged",
		.synopsis = "TARGET",
		.summary = "list the damaged files and their ranges",
		.details = TARGET_HELP,
		.words_min = 1,
		.words_max = 1,
		.columns = damaged_columns,
		.array = "damaged",
		.nothing = "no file is damaged",
		.run = query_run,
	},
	{
		.name = "inject-error",
		.synopsis = "TARGET (--file F --offset B | --device-offset B) --length B [--latent]",
		.summary = "make a range fail as if its memory had",
		.details = 
			RANGE_OPTIONS_HELP "      --latent               tell nobody until it is touched\n"
			TARGET_HELP RANGE_HELP,
		.options = RANGE_OPTIONS | OPTION_LATENT,
		.words_min = 1,
		.words_max = 1,
		.columns = range_columns,
		.array = "injected",
		.check = check_range,
		.run = query_run,
	},
	{
		.name = "uninject-error",
		.synopsis = 
			"TARGET (--file F --offset B | --device-offset B) --length B | TARGET --all",
		.summary = "take injected failures back",
		.details = 
			RANGE_OPTIONS_HELP "      --all                  everything that was injected\n"
			TARGET_HELP RANGE_HELP,
		.options = RANGE_OPTIONS | OPTION_ALL,
		.words_min = 1,
		.words_max = 1,
		.columns = range_columns,
		.array = "removed",
		.nothing = "nothing was injected there",
		.check = check_uninject,
		.run = query_run,
	},
	{
		.name = "monitor",
		.synopsis = "TARGET",
		.summary = "print events as they happen, one JSON object per line",
		.details = "The first event is `running`, the last `unmount`. " TARGET_HELP,
		.words_min = 1,
		.words_max = 1,
		.run = monitor_run,
	},
	{
		.name = "clone",
		.synopsis = "SRC DST",
		.summary = "make DST share all blocks of SRC (reflink)",
		.details = 
			"Both are in the same mounted filesystem.\n"
			"  -f, --force                replace the content of DST if it exists\n",
		.options = OPTION_FORCE,
		.words_min = 2,
		.words_max = 2,
		.array = "cloned",
		.run = clone_run,
	},
	{
		.name = "dedupe",
		.synopsis = "SRC DST... | -r DIR...",
		.summary = "share the blocks of what is the same",
		.details =
			"SRC and each DST: where they hold the same bytes DST gets the blocks of SRC. Files that differ stay as they are.\n"
			"      --offset B             from here on, in SRC\n"
			"      --dst-offset B         and in DST; without it as in SRC\n"
			"      --length B             that much; without it to the end of the shorter\n"
			"  -r, --recursive            look for what is the same in all files below DIR (or in files)\n"
			"      --block-size B         in pieces of this size; default 128K, at least 4K, a power of two\n"
			"      --memory B             remember pieces in at most so much memory; default 128M\n"
			"  -n, --dry-run              change nothing, say what would be\n" RANGE_HELP,
		.options = OPTION_OFFSET | OPTION_LENGTH | OPTION_DST_OFFSET | OPTION_RECURSIVE | OPTION_BLOCK_SIZE | OPTION_MEMORY | OPTION_DRY_RUN,
		.words_min = 1,
		.words_max = INT_MAX,
		.columns = dedupe_columns,
		.array = "deduped",
		.nothing = "nothing",
		.check = dedupe_check,
		.run = dedupe_run,
	},
	{
		.name = "label",
		.synopsis = "TARGET [LABEL]",
		.summary = "show or set the label",
		.details = "LABEL is UTF-8 of at most 64 bytes; \"\" takes it away. " TARGET_HELP,
		.words_min = 1,
		.words_max = 2,
		.columns = label_columns,
		.array = "filesystems",
		.run = identity_run,
	},
	{
		.name = "uuid",
		.synopsis = "TARGET [UUID|random]",
		.summary = "show or set the uuid",
		.details = TARGET_HELP,
		.words_min = 1,
		.words_max = 2,
		.columns = uuid_columns,
		.array = "filesystems",
		.run = identity_run,
	},
	{
		.name = "resize",
		.synopsis = "TARGET [SIZE|max]",
		.summary = "grow a filesystem, mounted or not, to SIZE or to all that its device or file has",
		.details = "A file that is shorter than SIZE is made longer; a device is not: enlarge its namespace first.\n" TARGET_HELP
			   RANGE_HELP,
		.words_min = 1,
		.words_max = 2,
		.columns = resize_columns,
		.array = "filesystems",
		.check = resize_check,
		.run = resize_run,
	},
	{
		.name = "shutdown",
		.synopsis = "TARGET [--mode default|logflush|nologflush]",
		.summary = "stop all use of a mounted filesystem: every call fails until it is unmounted and mounted again",
		.details =
			"      --mode default         write everything out first, what programs have only mapped too\n"
			"      --mode logflush        make what the journal has durable first\n"
			"      --mode nologflush      at once: nothing is written any more\n" TARGET_HELP,
		.options = OPTION_MODE,
		.words_min = 1,
		.words_max = 1,
		.columns = list_columns,
		.array = "filesystems",
		.run = shutdown_run,
	},
	{
		.name = "scrub",
		.synopsis = "--hardware TARGET [--no-wait]",
		.summary = "have all memory read for errors, before somebody needs what is there",
		.details =
			"      --hardware             by the NVDIMM bus itself (address range scrub); what it finds comes as from any other source\n"
			"      --no-wait              start it, do not wait for its end\n" TARGET_HELP,
		.options = OPTION_HARDWARE | OPTION_NO_WAIT,
		.words_min = 1,
		.words_max = 1,
		.columns = scrub_columns,
		.array = "scrubs",
		.check = check_scrub,
		.run = query_run,
	},
	{
		.name = "stats",
		.synopsis = "TARGET",
		.summary = "show how many requests were served, and how long they took",
		.details = TARGET_HELP,
		.words_min = 1,
		.words_max = 1,
		.columns = stats_columns,
		.array = "requests",
		.nothing = "no requests yet",
		.run = query_run,
	},
	{
		.name = "check",
		.synopsis = "TARGET",
		.summary = "check everything that can be checked without writing",
		.details = TARGET_HELP,
		.words_min = 1,
		.words_max = 1,
		.columns = check_columns,
		.array = "findings",
		.nothing = "no findings",
		.run = query_run,
	},
	{
		.name = "dump",
		.synopsis = "SRC super [SLOT] | root | journal | poison-log | chunks | chunk N | block ADDRESS |\n"
			    "                        device-offset B | tree NAME | inode N",
		.summary = "print a structure of an unmounted device or image, damaged or not",
		.details =
			"SRC is a device or image that is not mounted. Nothing is written.\n"
			"      --raw                  the bytes in hex too\n"
			"      --records              journal: what each record changes\n"
			"      --from KEY             tree: start here; numbers with commas between\n"
			"      --limit N              tree: at most so many records\n" RANGE_HELP,
		.options = OPTION_RAW | OPTION_RECORDS | OPTION_FROM | OPTION_LIMIT,
		.words_min = 2,
		.words_max = 3,
		.array = "structures",
		.nothing = "nothing there",
		.check = dump_command_check,
		.run = dump_command_run,
	},
	{
		.name = "image",
		.synopsis = "SRC FILE",
		.summary = "copy the metadata alone to a sparse file, for a bug report",
		.details =
			"SRC is a device or image that is not mounted. File data are zeros in FILE.\n"
			"      --scramble-names       names, symlink targets and attributes lose their meaning\n"
			"  -f, --force                replace FILE if it exists\n",
		.options = OPTION_SCRAMBLE_NAMES | OPTION_FORCE,
		.words_min = 2,
		.words_max = 2,
		.columns = range_columns,
		.array = "skipped",
		.nothing = "all metadata could be read",
		.run = image_run,
	},
	{
		.name = "sync",
		.synopsis = "TARGET",
		.summary = "make everything durable now",
		.details = TARGET_HELP,
		.words_min = 1,
		.words_max = 1,
		.array = "synced",
		.run = query_run,
	},
	{
		.name = "drop-caches",
		.synopsis = "TARGET",
		.summary = "forget what the daemon has cached and could read again",
		.details = TARGET_HELP,
		.words_min = 1,
		.words_max = 1,
		.array = "dropped",
		.run = query_run,
	},
	{
		.name = "version",
		.synopsis = "[TARGET]",
		.summary = "show the version of mendctl, and of the daemon that serves TARGET",
		.details = TARGET_HELP,
		.words_max = 1,
		.columns = version_columns,
		.array = "programs",
		.run = query_version,
	},
};
/* clang-format on */
const size_t count_subcommands = ARRAY_SIZE(subcommands);

const struct subcommand *subcommand_find(const char *name)
{
	for (size_t i = 0; i < count_subcommands; i++)
		if (!strcmp(subcommands[i].name, name))
			return &subcommands[i];
	return NULL;
}
