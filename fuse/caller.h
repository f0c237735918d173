/* Who waits for an answer, as /proc has it: what a request does not say. It waits, so its number is its own. 0: in a pid namespace that we do not see. */
#ifndef FUSE_CALLER_H
#define FUSE_CALLER_H

#include <sys/types.h>

#include "fuse/fuse_api.h"

/* Has it CAP_SYS_ADMIN, in our user namespace: in another one anybody may have made himself root. */
bool caller_is_admin(pid_t pid);
/* Has a signal come that would end a wait? The kernel's own word for that, FUSE_INTERRUPT, is not sent for requests over io_uring. */
bool caller_is_signalled(pid_t pid);

/* Is it in this group, or has it CAP_FSETID? Of root that we do not see: yes. */
bool caller_may_keep_setgid(fuse_req_t req, gid_t group);

#endif
