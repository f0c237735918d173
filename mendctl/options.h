/* The command line of mendctl: one getopt pass, the first word is the subcommand. */
#ifndef MENDCTL_OPTIONS_H
#define MENDCTL_OPTIONS_H

#include "util/types.h"
#include "util/why.h"

/* Options beside --json, --help and --version, which every subcommand takes. */
enum option_bit {
	OPTION_OFFSET = 1 << 0,
	OPTION_LENGTH = 1 << 1,
	OPTION_SECTOR = 1 << 2,
	OPTION_COUNT = 1 << 3,
	OPTION_ALL = 1 << 4,
	OPTION_KIND = 1 << 5,
	OPTION_FILE = 1 << 6,
	OPTION_DEVICE_OFFSET = 1 << 7,
	OPTION_LATENT = 1 << 8,
	OPTION_FORCE = 1 << 9,
	OPTION_RECURSIVE = 1 << 10,
	OPTION_DRY_RUN = 1 << 11,
	OPTION_BLOCK_SIZE = 1 << 12,
	OPTION_MEMORY = 1 << 13,
	OPTION_DST_OFFSET = 1 << 14,
	OPTION_HARDWARE = 1 << 15,
	OPTION_NO_WAIT = 1 << 16,
	OPTION_MODE = 1 << 19,
	OPTION_RAW = 1 << 20,
	OPTION_RECORDS = 1 << 21,
	OPTION_FROM = 1 << 22,
	OPTION_LIMIT = 1 << 23,
	OPTION_SCRAMBLE_NAMES = 1 << 24,
};

struct options {
	bool json, help, version;
	unsigned given; /* enum option_bit */
	uint64_t offset, length, sector, count, device_offset;
	int kind; /* enum fs_owner_kind, or -1 */
	uint64_t limit;
	uint64_t block_size, memory, dst_offset;
	uint64_t from[3]; /* of a key; what was not given is 0 */
	const char *file;
	const char *mode; /* shutdown: one that command_stop_mode_parse() knows */
	const char *command; /* NULL: no word at all */
	char **words;        /* those after the command */
	int count_words;
};

/* 0; -EINVAL with *why: a usage error. */
int options_parse(int argc, char **argv, struct options *out, struct why *why);
/* Bytes: digits with K, M, G or T (powers of 1024; "KiB" and "KB" forms too). 0, -EINVAL, -ERANGE.
 */
int options_parse_size(const char *text, uint64_t *out);

#endif
