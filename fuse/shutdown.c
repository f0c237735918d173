/* FS_IOC_SHUTDOWN, and `mendctl shutdown`, which does the same. */
#include "fuse/shutdown.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fuse/sched.h"
#include "fuse/session.h"
#include "util/log.h"

#define CAPABILITY_SYS_ADMIN 21

/* --- who asks --------------------------------------------------------------------------------------------------------------- */

/* A capability counts in its user namespace: in another one than ours anybody may have made himself root. */
static bool caller_shares_users(pid_t pid)
{
	struct stat his, ours;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
	return !stat(path, &his) && !stat("/proc/self/ns/user", &ours) && his.st_dev == ours.st_dev && his.st_ino == ours.st_ino;
}

static uint64_t caller_capabilities(pid_t pid)
{
	unsigned long long capabilities = 0;
	char path[64], line[256];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "CapEff: %llx", &capabilities) == 1)
			break;
	if (file)
		fclose(file);
	return capabilities;
}

/* The caller waits for our answer, so its number is still its own. 0: in a pid namespace that we do not see. */
static bool caller_is_admin(pid_t pid)
{
	return pid > 0 && (caller_capabilities(pid) >> CAPABILITY_SYS_ADMIN & 1) && caller_shares_users(pid);
}

/* --- what for --------------------------------------------------------------------------------------------------------------- */

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
