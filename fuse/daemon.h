/* Going into the background only once the mount is up: the parent waits for the child's word. */
#ifndef FUSE_DAEMON_H
#define FUSE_DAEMON_H

#include <stdbool.h>

/*
 * Fork; the parent does not return: it waits for daemon_ready() or the child's end, passes the child's stderr on as it comes, and exits 0 or with the
 * child's status; when_up(arg) is called there before it exits 0. The child goes on in a session of its own. 0 in the child (or in the foreground,
 * where nothing happens), negative errno.
 */
int daemon_begin(bool foreground, void (*when_up)(void *arg), void *arg);
/* The mount is up: let the parent exit 0, turn stdin, stdout, stderr into /dev/null and the log to syslog. Once; later calls do nothing. */
void daemon_ready(void);

#endif
