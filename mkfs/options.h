/* What the command line asked for. */
#ifndef MKFS_OPTIONS_H
#define MKFS_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "format/super_format.h"

struct mkfs_options {
	const char *target;
	char label[SUPER_LABEL_BYTES + 1];
	bool has_uuid;
	uint8_t uuid[FORMAT_UUID_BYTES];
	unsigned copies;     /* of metadata */
	uint64_t size_bytes; /* 0: as large as the target is */
	bool prealloc, force, dry_run, quiet, json;
};

enum options_verdict {
	OPTIONS_GO,
	OPTIONS_DONE,  /* help or version was printed */
	OPTIONS_WRONG, /* one line is on stderr */
};
enum options_verdict options_parse(int argc, char **argv, struct mkfs_options *out);

/* "64M" and the like, powers of 1024. 0; -EINVAL; -ERANGE. */
int options_parse_size(const char *text, uint64_t *out);

#endif
