/*
 * The one background thread: every `commit=` seconds (default 1) lazy times are written, what was acknowledged becomes durable, and a checkpoint
 * is done when the journal wants one; orphans are reclaimed and empty metadata chunks given back as they come up.
 */
#ifndef FS_BACKGROUND_H
#define FS_BACKGROUND_H

#include "fs/inode.h"

int background_start(struct fs *fs);
/* Stops and joins it; what it had left to do is the caller's. NULL-safe. It may be kicked still, for nothing: the notify thread goes on. */
void background_stop(struct fs *fs);
/* After background_stop(), when nobody can kick it any more. NULL-safe. */
void background_destroy(struct fs *fs);
/* There is something to do before the timer. Any thread, any lock. */
void background_kick(struct fs *fs);
/* Where there is no thread (tools): do it now. The caller holds no lock. */
void background_run_inline(struct fs *fs);

#endif
