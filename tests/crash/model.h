/*
 * What a filesystem must be: a tree in memory with the operations of fs/fs.h. model_do() does each operation on a real filesystem and on the model, and keeps the
 * state after each. States share what did not change, so keeping them all is cheap. model_judge() then says whether a filesystem that was
 * recovered after a crash is one of the states that are allowed at that point:
 *
 * - an operation is wholly there or not at all. Those of several transactions without an intent (long writes, copies, allocation) may be there as a prefix;
 *   those with one (truncate, punch, clone) are finished by mount, hence whole;
 * - bytes under an overwrite in place that was not acknowledged as durable may be any mix of old and new words of 8 bytes (PAGE: of bytes, as a daemon
 *   that is killed leaves them);
 * - PAGE media after the host's crash: any prefix of the operations not older than the last one that was made durable, with bytes of later overwrites in place;
 * - mtime and ctime of overwrites in place are stored by the next transaction on the inode, or by fsync: old or new until then;
 * - inodes without a name cannot be seen;
 * - what flags (chattr) forbid is refused, and where they ask for it an operation is as durable as after fsync;
 * - label and size are the old or the new one while they are being changed, on every medium;
 * - with poison in file data, blocks that are known bad cannot be read.
 */
#ifndef TESTS_CRASH_MODEL_H
#define TESTS_CRASH_MODEL_H

#include "tests/crash/engine.h"

#define MODEL_OPERATIONS_MAX 128
#define MODEL_SLOTS 8
#define MODEL_FILE_BYTES_MAX (8ull << 20)

enum model_kind {
	MODEL_NONE,
	MODEL_CREATE, /* path, mode with the type, rdev */
	MODEL_TMPFILE, /* path: the directory; slot */
	MODEL_SYMLINK, /* path, path2: the target */
	MODEL_LINK,    /* path: what, path2: the new name */
	MODEL_UNLINK,
	MODEL_RMDIR,
	MODEL_RENAME,	 /* path to path2, flags of renameat2 */
	MODEL_SETATTR,	 /* path, flags: FS_SET_ bits, mode, uid, gid, length: the size, pos: the time */
	MODEL_WRITE,	 /* path, pos, length, tag */
	MODEL_APPEND,	 /* path, length, tag */
	MODEL_COPY,	 /* path, pos to path2, pos2, length */
	MODEL_CLONE,	 /* path over path2 */
	MODEL_DEDUPE,	 /* path, pos, with path2, pos2, length */
	MODEL_FALLOCATE, /* path, flags, pos, length */
	MODEL_FSYNC,	 /* path */
	MODEL_SYNCFS,
	MODEL_OPEN,   /* path: keep a lookup reference in slot */
	MODEL_FORGET, /* slot */
	MODEL_LABEL,  /* path: the filesystem's new label */
	MODEL_RESIZE, /* length: the filesystem grows by it */
	MODEL_SETXATTR,	   /* path, path2: the name, length, tag; of an ACL: mode */
	MODEL_REMOVEXATTR, /* path, path2 */
	MODEL_KILL,	   /* path: setuid, setgid, security.capability */
	MODEL_FLAGS,  /* path, flags: FS_SET_FLAGS (mode: the flags) or FS_SET_PROJECT (mode: the project); by root */
	MODEL_TRIM,   /* pos, length; flags: the least length: nothing that can be seen */
	MODEL_KINDS,
};

/* Paths: "a/b" from the root; "" is the root; "%3" is what slot 3 holds, as a last step only. */
struct model_op {
	enum model_kind kind;
	const char *path, *path2;
	uint64_t pos, length, pos2;
	unsigned flags, mode;
	uid_t uid;
	gid_t gid;
	dev_t rdev;
	unsigned slot;
	unsigned tag; /* of the bytes written; 0: the operation's own number */
};

struct model;

struct model *model_create(void);
void model_destroy(struct model *model);
/*
 * Start over with this filesystem, which must be fresh: only its root directory is taken over. Any number of operations may follow, which are compared when the
 * preparation ends, with all that they come to as state 0. The filesystem must be unmounted and mounted again then.
 */
int model_prepare(struct model *model, struct fs *fs, struct why *why);
int model_prepared(struct model *model, struct fs *fs, struct why *why);

/*
 * Do it on both; `run` may be NULL. 0 whatever the operation answers (*error, may be NULL) as long as both agree, -EUCLEAN with `why` when they do not. `why` begins with
 * what was tried.
 */
int model_do(struct model *model, struct fs *fs, struct crash_run *run, const struct model_op *op, int *error, struct why *why);
/* States are numbered from 0, before the first operation. */
unsigned model_count(const struct model *model);
/* Is it the last state, byte for byte? Times are not compared. */
int model_agree(struct model *model, struct fs *fs, struct why *why);
/* Is this what a crash at this point may leave? -EUCLEAN: no. */
int model_judge(struct model *model, struct fs *fs, enum media_granularity granularity, const struct crash_point *point, struct why *why);

/* Bytes that tell where they belong: byte `pos` of the stream `tag`. */
void model_fill(void *buffer, unsigned tag, uint64_t pos, size_t size);
/* "write a/b 4096+100": for messages; answers `text`. */
const char *model_op_text(const struct model_op *op, char *text, size_t size);
const char *model_kind_name(enum model_kind kind);

/* For workloads made of what is there: paths of inodes, the last state. 0: no such name. */
inum_t model_resolve(const struct model *model, const char *path);

#endif
