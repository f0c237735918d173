#include "fuse/utab.h"

#include <errno.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/log.h"

#define MOUNT_PROGRAM "/bin/mount"
#define UMOUNT_HELPER "/sbin/umount.fuse.mendfs"

extern char **environ;

void utab_add(const char *source, const char *mountpoint)
{
	/* Internal only, and only as if: nothing is mounted. The source stays as it was given. */
	char *const arguments[] = {"mount", "-i", "-f", "--no-canonicalize", "-t", "fuse.mendfs", "-o", "x-mendfs.umount", (char *)source,
				   (char *)mountpoint, NULL};
	int error, status;
	pid_t child;

	if (geteuid() || access(UMOUNT_HELPER, X_OK))
		return;
	error = posix_spawn(&child, MOUNT_PROGRAM, NULL, NULL, arguments, environ);
	if (error) {
		log_debug("%s: error %d; umount(8) will not wait for the daemon", MOUNT_PROGRAM, error);
		return;
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
}
