/*
 * One stream of random operations, done in step in a directory of either filesystem (side A, then side B), and what each must have in common with the other: the value
 * returned, errno, what was read, and every so often the whole tree. The stream depends on the seed only, never on what was answered. Each side is the root directory
 * of the process while an operation is done there, so that symbolic links, absolute ones too, lead nowhere else.
 */
#ifndef TESTS_DIFFER_DIFFER_H
#define TESTS_DIFFER_DIFFER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "tests/support/random.h"

#define PAGE 4096
#define SIDES 2
#define SLOTS 12
#define HISTORY 20
#define MOST_SIZE (3 << 20)    /* positions and sizes that are asked for are below */
#define MOST_LENGTH (256 << 10) /* of one read or write */
#define BYTES_ROOM (4 << 20)

enum uses {
	USES_PATH = 1,
	USES_PATH2 = 2,
	USES_TARGET = 4, /* path[1] is what a symbolic link says */
	USES_SLOT = 8,
	USES_SLOT2 = 16,
	USES_FLAGS = 32,
	USES_MODE = 64,
	USES_POS = 128,
	USES_POS2 = 256,
	USES_LENGTH = 512,
	USES_TIMES = 1024,
	USES_OWNER = 2048,
	USES_XATTR = 4096,
	USES_DEVICE = 8192,
	USES_ACL = 16384,
	USES_DIRECTORY = 32768, /* most paths are of directories */
};

struct side;
struct op;
struct answer;

/* A kind of operation: which arguments are picked for it and printed, and how often it comes. */
struct kind {
	const char *name;
	unsigned weight;
	unsigned uses;
	const unsigned *flags; /* one of these is picked; ends with ~0u */
	long (*apply)(struct side *, const struct op *, struct answer *);
};

struct op {
	const struct kind *kind;
	unsigned user;
	mode_t umask;
	char path[2][4200];
	unsigned slot[2];
	unsigned flags;
	mode_t mode;
	dev_t device;
	int64_t pos[2];
	size_t length;
	uint64_t fill; /* of what is written */
	struct timespec times[2];
	uid_t uid;
	gid_t gid;
	const char *xattr;
	uint32_t acl[16]; /* as the kernel takes it; [15]: how many bytes */
};

/* What one side answered. */
struct answer {
	long value;
	int error;
	char facts[256]; /* of an inode */
	uint8_t *bytes;	 /* what was read, BYTES_ROOM of room */
	size_t count;
};

struct side {
	char name; /* 'A' or 'B' */
	int top;
	int fd[SLOTS];
	struct answer answer;
	struct differ *differ;
};

struct differ {
	struct random random;
	uint64_t seed;
	unsigned long op; /* number of the one that is being done */
	struct side side[SIDES];
	struct op done[HISTORY];
	struct answer answers[HISTORY][SIDES]; /* without bytes */
	time_t began;
	bool is_writeback; /* A is mounted so: holes are not compared */
	bool no_tmpfile, no_setid; /* what libfuse before 3.18 cannot do */
	bool is_xfs;		   /* B is */
	bool is_traced;
	unsigned long count_walks, count_good; /* comparisons of trees; operations that succeeded */
	uint64_t bytes_seen; /* by the walk: sizes of files */
};

/* pick.c */
void op_pick(struct differ *d, struct op *op);
extern const struct kind kinds[];

/* apply_*.c; each is named after its call and answers like it */
#define APPLY(call) long apply_##call(struct side *s, const struct op *op, struct answer *a)
APPLY(open); APPLY(close); APPLY(read); APPLY(pread); APPLY(write); APPLY(pwrite); APPLY(pwritev); APPLY(lseek); APPLY(seek_data); APPLY(ftruncate);
APPLY(truncate); APPLY(fallocate); APPLY(copy_file_range); APPLY(map_read); APPLY(map_write); APPLY(fsync); APPLY(fdatasync);
APPLY(mkdir); APPLY(rmdir); APPLY(unlink); APPLY(link); APPLY(link_slot); APPLY(symlink); APPLY(readlink); APPLY(rename); APPLY(mknod); APPLY(list); APPLY(list_slot);
APPLY(stat); APPLY(fstat); APPLY(chmod); APPLY(fchmod); APPLY(chown); APPLY(fchown); APPLY(utimens); APPLY(futimens); APPLY(access);
APPLY(setxattr); APPLY(fsetxattr); APPLY(getxattr); APPLY(fgetxattr); APPLY(listxattr); APPLY(removexattr); APPLY(setacl);
int slot_fd(const struct side *s, unsigned slot);
/* The names and types in an open directory, sorted, as text; how many, or a negative errno. */
int list_directory(int fd, uint8_t *to, size_t room, size_t *count);
/* A list of names that each end with 0, sorted, as text; its length. */
size_t sort_names(const char *list, size_t size, uint8_t *to, size_t room);
/* What is dirty is written and what is clean forgotten: from here on holes are what the filesystem has. */
void forget_pages(int fd);

/* answer.c */
void facts_of(struct differ *d, const struct stat *st, char *to, size_t room);
bool answers_agree(const struct answer *a, const struct answer *b);
void op_print(FILE *to, const struct op *op);
void answer_print(FILE *to, const struct answer *a);
/* Print the seed, the last operations and what differs; exit 1. */
void fail_op(struct differ *d) __attribute__((noreturn));
void fail_tree(struct differ *d, const char *path, const char *format, ...) __attribute__((format(printf, 3, 4), noreturn));
void print_first_difference(FILE *to, const uint8_t *a, const uint8_t *b, size_t count_a, size_t count_b);

/* allowed.c */
bool difference_is_allowed(struct differ *d, const struct op *op);
void differences_print(void);

/* walk.c: both trees, in step; exits where they differ. */
void walk(struct differ *d);
void wipe(struct differ *d);

/* user.c */
void become(unsigned user);
unsigned count_users(void);

/* spoil.c: change one thing on side A. false: there is no such kind */
bool spoil(struct differ *d, const char *kind);

#endif
