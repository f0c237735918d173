/* Names, symlink targets and attributes without their meaning, in a copy that nobody else has. */
#ifndef DUMP_SCRAMBLE_H
#define DUMP_SCRAMBLE_H

#include "dump/image.h"
#include "fs/fs.h"
#include "journal/tx.h"

/* By transactions over the image at `path`; afterwards it is unmounted cleanly, but old names are still in places that nothing refers to. */
int scramble_names(const char *path, struct image_report *report, struct why *why);
/* The part of scramble_names() that is about attributes, in a filesystem that is mounted. */
int scramble_attributes(struct fs *fs, struct image_report *report);
/* Zero those: journal rings, unused metadata blocks, dead bytes in nodes, whatever is no metadata. */
int scramble_wipe(const char *path, int fd, struct why *why);
/* Number `index` of the names with this length, all different; -EOVERFLOW: there are no more. */
int scramble_make_name(uint64_t index, size_t length, char *to);
/* What the bytes were must not be guessed from what they become. 0 or a negative errno. */
int scramble_random(uint8_t *to, size_t length);
/* Commit, or on an error abort and return it. */
int scramble_end(struct tx *tx, int error);

#endif
