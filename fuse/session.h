/* One FUSE session over a mounted filesystem: capabilities, transport, invalidation, the loop. */
#ifndef FUSE_SESSION_H
#define FUSE_SESSION_H

#include "fuse/front.h"
#include "fuse/options.h"

/* Create the session and mount it. 0 or a negative errno with `why`; libfuse's own message goes to the log. */
int session_open(struct front *front, struct options *options, struct why *why);
/* Serve until unmount or a signal. Returns when no request is in flight. */
int session_loop(struct front *front);
/* Unmount if it still is. Other threads may call session_invalidate() all the while. */
void session_close(struct front *front);
/* After everything else, the medium included, is released: whoever unmounts a block device waits for this. */
void session_release(struct front *front);
/*
 * Drop the kernel's attributes of an inode, and its pages in [pos, pos + length) (length 0: to the end). Waits for the kernel's own reads and
 * writes of these pages: never from a request thread, nor under a lock that one takes. Of a directory nobody reads pages while a request changes its names: there it may
 * be done before the answer. Does nothing without an open session. With pos = SESSION_ATTRIBUTES no page is dropped, and nothing waited for: that may be done on any thread.
 */
#define SESSION_ATTRIBUTES UINT64_MAX
void session_invalidate(struct front *front, inum_t ino, uint64_t pos, uint64_t length);
/* The same for all that the kernel knows: attributes before it returns, pages on a thread of their own. */
void session_forget_all(struct front *front);
/* "io_uring" or "dev_fuse". */
const char *session_transport(const struct front *front);
/* Whether io_uring can be used; with a one-line hint when not, or NULL. */
bool session_uring_available(const char **hint);

#endif
