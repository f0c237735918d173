/* What a caller sees of a filesystem: every name, attribute (but times) and byte, to be compared before and after. */
#ifndef TESTS_EXHAUST_STATE_H
#define TESTS_EXHAUST_STATE_H

#include "fs/fs.h"

#define STATE_FILES 64
#define STATE_PATH 300

struct state_file {
	char path[STATE_PATH];
	inum_t ino;
	uint32_t mode, links, uid;
	uint64_t size;
	uint8_t *data; /* of a regular file or symlink; NULL: none */
	bool unreadable; /* some of the data answered -EIO */
};
struct state {
	struct state_file files[STATE_FILES];
	unsigned count;
};

/* 0 or negative errno. An -EIO of data is no error. */
int state_read(struct fs *fs, struct state *out);
void state_free(struct state *state);
/* NULL: equal; else what differs. Data that could not be read are not compared, nor the data and size of the file `partial` (NULL: none)
 * under any of its names. */
const char *state_differs(const struct state *now, const struct state *other, const char *partial);
/* Is each byte of the file `path` one of before or after, and it no longer than they were? */
bool state_is_mix(const struct state *now, const struct state *before, const struct state *after, const char *path);

#endif
