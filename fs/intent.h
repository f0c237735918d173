/* Operations longer than one transaction: found at mount, finished there. */
#ifndef FS_INTENT_H
#define FS_INTENT_H

#include "fs/inode.h"

/* Finish every intent that is recorded. One that cannot be finished stays and is told on the log. */
void intent_finish_all(struct fs *fs);

#endif
