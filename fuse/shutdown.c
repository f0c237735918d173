/* FS_IOC_SHUTDOWN, and `mendctl shutdown`, which does the same. */
#include "fuse/shutdown.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fuse/caller.h"
#include "fuse/sched.h"
#include "fuse/session.h"
#include "util/log.h"

/*
 * The code says that the kernel writes the word, so it is not sent along; it is where the caller said it is. Who may not read there does what is right
 * for a medium that can no longer be trusted.
 */
static int caller_flags(pid_t pid, uint64_t address, uint32_t *flags)
{
	struct iovec here = {flags, sizeof(*flags)}, there = {(void *)(uintptr_t)address, sizeof(*flags)};

	if (process_vm_readv(pid, &here, 1, &there, 1, 0) == sizeof(*flags))
		return 0;
	if (errno == EFAULT)
		return -EFAULT;
	*flags = SHUTDOWN_NOLOGFLUSH;
	return 0;
}

int shutdown_ioctl(struct ioctl_call *call)
{
	static const enum fs_stop_mode modes[] = {
		[SHUTDOWN_DEFAULT] = FS_STOP_SYNCED, [SHUTDOWN_LOGFLUSH] = FS_STOP_LOGGED, [SHUTDOWN_NOLOGFLUSH] = FS_STOP_AT_ONCE};
	uint32_t flags;
	int error;

	if (!caller_is_admin(call->pid))
		return -EPERM;
	error = caller_flags(call->pid, call->argument, &flags);
	if (error)
		return error;
	return flags < ARRAY_SIZE(modes) ? front_shut_down(call->front, modes[flags]) : -EINVAL;
}

/* --- doing it --------------------------------------------------------------------------------------------------------------- */

/* What processes wrote and the kernel holds back is handed over while it still can be. */
static void shutdown_gather(const struct front *front)
{
	int fd = open(front->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (syncfs(fd))
		log_warning("%s: not everything that was written through mappings could be saved", front->mountpoint);
	close(fd);
	/* syncfs(2) begins the writes, and does not wait for a FUSE server. */
	sched_settle();
}

int front_shut_down(struct front *front, enum fs_stop_mode mode)
{
	int error;

	if (mode == FS_STOP_SYNCED)
		shutdown_gather(front);
	error = fs_stop(front->fs, mode);
	session_forget_all(front);
	return error;
}
