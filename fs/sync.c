/* The whole filesystem at once: make it durable, or forget what is only cached. */
#include <errno.h>

#include "fs/table.h"

int fs_syncfs(struct fs *fs)
{
	int error;

	if (fs_is_stopped(fs))
		return -EIO;
	if (fs_is_readonly(fs))
		return 0;
	error = inode_flush_all(fs);
	return error ? error : journal_sync(fs->journal);
}

/* Dirty blocks are written home first, so that what is read next comes from the medium. */
void fs_drop_caches(struct fs *fs)
{
	if (!fs_is_readonly(fs))
		journal_checkpoint(fs->journal);
	buf_drop_clean(fs->journal);
}
