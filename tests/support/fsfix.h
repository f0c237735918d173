/*
 * A filesystem in an image file for unit tests of fs/: formatted by the in-process pieces of mkfs over a simple fixed layout, mounted in this
 * process. Everything answers 0 or negative errno and says on stderr what went wrong.
 */
#ifndef TESTS_FSFIX_H
#define TESTS_FSFIX_H

#include "fs/fs.h"
#include "fs/query.h"

struct fsfix {
	char path[256];
	struct fs_options options; /* of the next mount; set by fsfix_create(), changed by tests */
	struct fs *fs;		   /* NULL while unmounted */
};

#define FSFIX_SMALL_BYTES (16ull << 20)
#define FSFIX_USUAL_BYTES (256ull << 20)

/* A new image of this size (at least 16 MiB, sparse), not mounted. */
int fsfix_create(struct fsfix *fix, uint64_t size_bytes);
/* mkfs of a small fixed layout over a medium that is open. */
int fsfix_format_media(struct media *media);
/* Over the first size_bytes of it only: there is room to grow. */
int fsfix_format_part(struct media *media, uint64_t size_bytes);
/* The same as fsfix_create(), mounted with the default options. */
int fsfix_create_mounted(struct fsfix *fix, uint64_t size_bytes);
int fsfix_mount(struct fsfix *fix);
int fsfix_unmount(struct fsfix *fix);
int fsfix_remount(struct fsfix *fix);
/*
 * What a kill -9 leaves: the image as it is now is copied aside, the mount of the old one ends, the copy takes its place. Not mounted afterwards.
 */
int fsfix_crash(struct fsfix *fix);
/* Findings of fs_check(), each on stderr; negative errno when it cannot run. */
int fsfix_check(struct fsfix *fix);
/* Unmount if mounted, remove the files. */
void fsfix_destroy(struct fsfix *fix);

/* A copy of the file's bytes, holes kept. For tests that compare or damage images. */
int fsfix_copy_file(const char *from, const char *to);

/* As user 1000, without keeping the lookup reference. */
int fsfix_mkfile(struct fsfix *fix, inum_t dir, const char *name, inum_t *ino);
int fsfix_mkdir(struct fsfix *fix, inum_t dir, const char *name, inum_t *ino);
int fsfix_lookup(struct fsfix *fix, inum_t dir, const char *name, struct fs_attr *attr);

#endif
