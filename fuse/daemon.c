#include "fuse/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/log.h"

static int ready_fd = -1;

static _Noreturn void wait_for_child(pid_t child, int fd, void (*when_up)(void *arg), void *arg)
{
	char byte;
	ssize_t n;
	int status;

	do
		n = read(fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1) {
		when_up(arg);
		_exit(0);
	}
	/* The child ended (or closed the pipe) without a word: its status is ours, its message is on our stderr already. */
	if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status))
		_exit(WEXITSTATUS(status));
	_exit(1);
}

int daemon_begin(bool foreground, void (*when_up)(void *arg), void *arg)
{
	int fds[2];
	pid_t child;

	if (foreground)
		return 0;
	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	child = fork();
	if (child < 0)
		return -errno;
	if (child > 0) {
		close(fds[1]);
		wait_for_child(child, fds[0], when_up, arg);
	}
	close(fds[0]);
	log_errors_to_syslog("mendfs");
	ready_fd = fds[1];
	setsid();
	return 0;
}

void daemon_ready(void)
{
	int null;

	if (ready_fd < 0)
		return;
	log_to_syslog("mendfs");
	if (chdir("/"))
		log_warning("cannot change to /: the current directory stays busy");
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		for (int fd = 0; fd < 3; fd++)
			dup2(null, fd);
		if (null > 2)
			close(null);
	}
	if (write(ready_fd, "1", 1) != 1)
		log_warning("nobody waits for the mount");
	close(ready_fd);
	ready_fd = -1;
}
