/*
 * The exclusive claim on a device or image. flock(LOCK_EX | LOCK_NB) on the inode itself decides (so aliases count, and
 * kill -9 frees it at once); a listening abstract Unix socket named after that inode tells who holds it and in which state:
 * each connection is answered with one JSON line {"version":1,"pid":N,"mountpoint":"...","state":"serving"|"finishing"}
 * unless the daemon above has taken the socket over for its control protocol (claim_socket_fd), whose greeting begins with
 * the same keys.
 */
#ifndef MEDIA_CLAIM_H
#define MEDIA_CLAIM_H

#include <sys/stat.h>
#include <sys/types.h>

#include "util/types.h"
#include "util/why.h"

/*
 * The abstract socket name of the inode behind `st` ("mendfs/i/<dev>/<ino>", "mendfs/c/<rdev>" or "mendfs/b/<rdev>", hex, with "/<attempt>" appended
 * when attempt > 0, so that a squatter on the first name blocks nothing). Without the leading NUL.
 */
void claim_socket_name(const struct stat *st, unsigned attempt, char *name, size_t size);
#define CLAIM_ATTEMPTS 4

enum claim_state { CLAIM_NONE, CLAIM_SERVING, CLAIM_FINISHING, CLAIM_SILENT /* holds, but does not answer in 300 ms */ };

struct claim_holder {
	enum claim_state state;
	pid_t pid; /* from SO_PEERCRED */
	uid_t uid;
	char mountpoint[4096]; /* "" where the holder is no mount: mkfs, fsck */
};

/* Ask the holder of this inode, at most 300 ms. Only peers that are root or our own user are believed. */
void claim_query(const struct stat *st, struct claim_holder *out);

struct claim;
/*
 * Call it after the last fork(), or go on only in the child: the thread that answers stays behind, the lock is shared, and a parent must
 * leave by _exit() without dropping it. Take it. fd is an open descriptor of the inode and stays the caller's. -EBUSY in under 1 s when it is being served, with a line that names
 * the daemon's pid and mount point (and, for a dead mount point, the fusermount3 -u line that clears it); waits up to 30 s for a finishing
 * or silent holder that is finishing (also one whose mount is gone but which has not noticed yet), with a log line after 1 s.
 */
int claim_take(int fd, const char *path, struct why *why, struct claim **out);
void claim_drop(struct claim *claim);
/* The listening socket, non-blocking, to accept from (the daemon's control server), or -1; claim answers by itself until taken. */
int claim_socket_fd(struct claim *claim);
void claim_set_mountpoint(struct claim *claim, const char *mountpoint);
/* From here on the claim answers by itself again, also where the socket was taken over (accept() there may find EAGAIN). */
void claim_set_finishing(struct claim *claim);
/* {"version":1,"pid":..,"mountpoint":..,"state":..} as one line without newline, for the server that took the socket over. */
void claim_greeting(struct claim *claim, char *line, size_t size);

struct media;
struct claim *media_claim(struct media *media); /* NULL without options.claim */

/*
 * A lookup in the mount failed with this -errno because its daemon is gone: -ENOTCONN for good; -ECONNABORTED and -ECONNREFUSED in the moment in which the
 * kernel ends the requests of a daemon that died (over io_uring; before its INIT was answered).
 */
bool claim_mount_is_dead(int error);

/*
 * "DIR is a dead mount point (its daemon is gone); clear it with: fusermount3 -u DIR" when stat(DIR) fails so: -ENOTCONN; else 0.
 */
int claim_check_mountpoint(const char *dir, struct why *why);

#endif
