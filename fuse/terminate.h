/*
 * An orderly end on SIGTERM, SIGINT and SIGHUP. The kernel first hands over what processes wrote through mappings, while requests are still
 * served (at most TERMINATE_FLUSH_SECONDS, or until a second signal); only then does the session's loop end. One per process.
 */
#ifndef FUSE_TERMINATE_H
#define FUSE_TERMINATE_H

#include "fuse/fuse_api.h"

#define TERMINATE_FLUSH_SECONDS 10

/* From the thread that is about to run the loop; it and all threads it starts have the signals blocked from here on. 0 or negative errno. */
int terminate_start(struct fuse_session *session, const char *mountpoint, void (*settle)(void *arg), void *settle_arg);
/* The loop has ended, for whatever reason. */
void terminate_stop(void);

#endif
