#include "fuse/blkdev.h"

#include <stdatomic.h>
#include <string.h>

static struct {
	_Atomic(struct fuse_session *) session;
	atomic_bool is_destroyed;
} watched;

void blkdev_watch_now(struct fuse_session *session)
{
	atomic_store(&watched.session, session);
}

void blkdev_unwatch(void)
{
	atomic_store(&watched.session, NULL);
}

bool blkdev_is_destroyed(void)
{
	return atomic_load(&watched.is_destroyed);
}

static void become_fsyncdir(struct fuse_in_header *header, void *argument)
{
	struct fuse_fsync_in fsync = {.fh = BLKDEV_SYNCFS_HANDLE};

	/* Longer than what came; every buffer that libfuse reads requests into has room for far more. */
	memcpy(argument, &fsync, sizeof(fsync));
	header->len = sizeof(*header) + sizeof(fsync);
	header->opcode = FUSE_FSYNCDIR;
	header->nodeid = FUSE_ROOT_ID;
}

bool blkdev_take(struct fuse_in_header *header, void *argument)
{
	struct fuse_session *session = atomic_load_explicit(&watched.session, memory_order_relaxed);

	if (!session)
		return false;
	if (header->opcode == FUSE_SYNCFS)
		become_fsyncdir(header, argument);
	if (header->opcode != FUSE_DESTROY)
		return false;
	atomic_store(&watched.is_destroyed, true);
	fuse_session_exit(session);
	return true;
}
