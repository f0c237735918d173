/* What the kernel itself tells about a holder: who took the flock, is it ending, is it still
 * mounted. */
#ifndef MEDIA_CLAIM_LOCK_H
#define MEDIA_CLAIM_LOCK_H

#include <sys/stat.h>
#include <sys/types.h>

#include "util/types.h"

/* The pid that took the flock on this inode, or 0 where the kernel does not tell us. */
pid_t claim_lock_holder(const struct stat *st);
/* Gone, a zombie, or on its way there: its lock frees itself as soon as its mappings are torn down.
 */
bool claim_process_is_ending(pid_t pid);
/* Its command name, "" when unknown. */
void claim_process_name(pid_t pid, char *name, size_t size);

/* Does the process see a mount on `dir`? true also when that cannot be found out. */
bool claim_mount_is_there(pid_t pid, const char *dir);

#endif
