/*
 * umount.fuse.mendfs: what umount(8) runs for our mounts. Unmounts, then waits until the daemon has finished and its region is released; a plain
 * FUSE unmount returns before that. Every error of the unmount is told before anything is waited for.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/request.h"
#include "fuse/mountinfo.h"
#include "media/claim.h"

#define EXIT_USAGE 1 /* as umount(8) */
#define EXIT_FAIL 32
#define POLL_MS 500
#define SERVING_ROUNDS 10 /* that often found serving although nothing is mounted: it is mounted where we cannot look */

struct unmounting {
	const char *target;
	dev_t device;
	pid_t daemon;
	int daemon_fd; /* pidfd, or -1: nobody to wait for */
	bool lazy, force, verbose;
	bool stays; /* in use: detached only */
};

/*
 * Who serves this device: 0 when nobody answers, or somebody who need not be believed. Device numbers are reused at once: a daemon that is finishing may
 * still listen on the first name, so the last name that is answered counts.
 */
static pid_t who_serves(dev_t device)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ucred peer = {.pid = 0};
	socklen_t size = sizeof(peer);
	pid_t pid = 0;

	for (unsigned attempt = 0; attempt < CLAIM_ATTEMPTS; attempt++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		size_t length;

		if (fd < 0)
			break;
		control_socket_name(device, attempt, address.sun_path + 1, sizeof(address.sun_path) - 1);
		length = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address.sun_path + 1);
		if (!connect(fd, (struct sockaddr *)&address, (socklen_t)length) && !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) &&
		    (peer.uid == 0 || peer.uid == getuid()))
			pid = peer.pid;
		close(fd);
	}
	return pid;
}

static int unmount_as_user(const struct unmounting *unmounting)
{
	const char *flags = unmounting->lazy ? "-uz" : "-u";
	pid_t child = fork();
	int status;

	if (child < 0)
		return -errno;
	if (!child) {
		execlp("fusermount3", "fusermount3", flags, "--", unmounting->target, (char *)NULL);
		fprintf(stderr, "umount.fuse.mendfs: fusermount3: %s\n", strerror(errno));
		_exit(127);
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	/* It has said why. */
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -ECHILD;
}

/* Lazily only when it cannot be had at once: whoever waits must know whether the daemon is going to end. */
static int unmount_as_root(struct unmounting *unmounting)
{
	int flags = UMOUNT_NOFOLLOW | (unmounting->force ? MNT_FORCE : 0);

	if (!umount2(unmounting->target, flags))
		return 0;
	if (errno != EBUSY || !unmounting->lazy)
		return -errno;
	unmounting->stays = true;
	return umount2(unmounting->target, flags | MNT_DETACH) ? -errno : 0;
}

/* /sys/fs/fuse/connections has one folder per living filesystem, wherever it is mounted. */
static bool is_mounted_elsewhere(const struct unmounting *unmounting)
{
	char name[64];
	struct stat st;

	/* The kernel's own way to write both numbers as one; of all but block devices the major number is 0. */
	snprintf(name, sizeof(name), "/sys/fs/fuse/connections/%u", major(unmounting->device) << 20 | minor(unmounting->device));
	return !stat(name, &st) || mountinfo_has_device(0, unmounting->device) || mountinfo_has_device(unmounting->daemon, unmounting->device);
}

static void wait_for_daemon(const struct unmounting *unmounting)
{
	struct pollfd item = {.fd = unmounting->daemon_fd, .events = POLLIN};
	unsigned serving = 0;

	while (poll(&item, 1, POLL_MS) <= 0) {
		/* One that finishes no longer listens; it is given all the time that it takes. */
		if (who_serves(unmounting->device) != unmounting->daemon)
			continue;
		if (is_mounted_elsewhere(unmounting))
			return;
		if (++serving < SERVING_ROUNDS)
			continue;
		fprintf(stderr, "umount: %s: unmounted, but process %d still serves it, maybe in another mount namespace\n", unmounting->target,
			(int)unmounting->daemon);
		return;
	}
}

static void say_error(const struct unmounting *unmounting, int error)
{
	if (error == -EBUSY)
		fprintf(stderr, "umount: %s: target is busy.\n", unmounting->target);
	else if (error == -EINVAL)
		fprintf(stderr, "umount: %s: not mounted.\n", unmounting->target);
	else if (error != -ECHILD)
		fprintf(stderr, "umount: %s: %s.\n", unmounting->target, strerror(-error));
}

static int unmount(struct unmounting *unmounting)
{
	struct mountinfo mount;
	int error = mountinfo_find(unmounting->target, &mount);

	if (!error && !mountinfo_is_ours(&mount))
		error = -EINVAL;
	if (error) {
		fprintf(stderr, "umount.fuse.mendfs: %s is no mendfs mount\n", unmounting->target);
		return EXIT_FAIL;
	}
	unmounting->device = mount.device;
	unmounting->daemon = who_serves(mount.device);
	unmounting->daemon_fd = unmounting->daemon > 0 ? pidfd_open(unmounting->daemon, 0) : -1;
	error = geteuid() ? unmount_as_user(unmounting) : unmount_as_root(unmounting);
	if (error) {
		say_error(unmounting, error);
		return EXIT_FAIL;
	}
	if (unmounting->verbose)
		printf("umount: %s unmounted\n", unmounting->target);
	if (unmounting->daemon_fd >= 0 && !unmounting->stays && !is_mounted_elsewhere(unmounting))
		wait_for_daemon(unmounting);
	return 0;
}

static int usage(FILE *stream)
{
	fprintf(stream, "usage: umount.fuse.mendfs DIR [-flnv]\n\nUnmount, and wait until the daemon has finished. umount(8) runs this; see "
			"umount.fuse.mendfs(8).\n");
	return stream == stdout ? 0 : EXIT_USAGE;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {NULL, 0, NULL, 0}};
	struct unmounting unmounting = {.daemon_fd = -1};
	char *real;
	int flag, status;

	while ((flag = getopt_long(argc, argv, "flnvhVt:N:", longs, NULL)) != -1) {
		if (flag == 'h')
			return usage(stdout);
		if (flag == 'V')
			return printf("umount.fuse.mendfs %s\n", MENDFS_VERSION) < 0;
		if (flag == '?')
			return usage(stderr);
		unmounting.lazy |= flag == 'l';
		unmounting.force |= flag == 'f';
		unmounting.verbose |= flag == 'v';
	}
	if (argc - optind != 1)
		return usage(stderr);
	/* NULL where the daemon is dead: the path is then taken as it is. */
	real = realpath(argv[optind], NULL);
	unmounting.target = real ? real : argv[optind];
	status = unmount(&unmounting);
	free(real);
	return status;
}
