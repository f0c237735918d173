/* FS_IOC_SHUTDOWN: the end of use, with the medium as a crash at this moment would leave it. */
#include <errno.h>
#include <stdlib.h>

#include "fs/table.h"
#include "util/log.h"

#define REASON "force_umount" /* as XFS says it */

int fs_refuses_changes(struct fs *fs)
{
	bool readonly = fs_is_readonly(fs);

	if (fs_is_stopped(fs)) /* asked second: a stop says so before it makes anything read-only */
		return -EIO;
	return readonly ? -EROFS : 0;
}

/* What comes in from now on is refused; what is on its way ends with its next store, or its next look for an inode. */
static void stop_entry(struct fs *fs)
{
	pthread_mutex_lock(&fs->state_lock);
	atomic_store(&fs->stopped, true);
	fs->shutdown = true;
	if (!fs->shutdown_reason)
		fs->shutdown_reason = REASON;
	pthread_mutex_unlock(&fs->state_lock);
}

/*
 * Whatever anybody was told before other threads are kept from storing was stored before, so it is durable with this sync; what would be told after that is not told.
 */
static int stop_settle(struct fs *fs, enum fs_stop_mode mode)
{
	int error = 0, synced;

	if (fs->options.readonly)
		return 0;
	if (mode == FS_STOP_SYNCED)
		error = inode_flush_all(fs);
	journal_stop(fs->journal);
	media_hold(fs->media);
	synced = journal_sync(fs->journal);
	return error ? error : synced;
}

static int stop_run(struct fs *fs, enum fs_stop_mode mode)
{
	const struct event event = {.type = EVENT_SHUTDOWN, .reasons = REASON};
	int error = 0;

	stop_entry(fs);
	if (mode != FS_STOP_AT_ONCE)
		error = stop_settle(fs, mode);
	media_stop(fs->media);
	journal_stop(fs->journal);
	log_error("%s: shut down on request; unmount it, and mount it again to use it", media_path(fs->media));
	event_publish(fs->events, &event);
	return error;
}

int fs_stop(struct fs *fs, enum fs_stop_mode mode)
{
	int error = 0;

	pthread_mutex_lock(&fs->stop_lock);
	if (!fs_is_stopped(fs))
		error = stop_run(fs, mode);
	pthread_mutex_unlock(&fs->stop_lock);
	return error;
}
