/* The system's libfuse lets reads and writes of its device be replaced, where it was built with that. */
#include "fuse/blkdev.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

static ssize_t io_read(int fd, void *buffer, size_t size, void *userdata)
{
	struct fuse_in_header *header = buffer;
	ssize_t n = read(fd, buffer, size);

	if (n < (ssize_t)sizeof(*header) || !blkdev_take(header, header + 1))
		return n;
	/* As after the unmount of any other type. */
	errno = ENODEV;
	return -1;
}

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	return writev(fd, iov, count);
}

int blkdev_watch(struct fuse_session *session)
{
	static const struct fuse_custom_io io = {.read = io_read, .writev = io_writev};
	/* It wants a descriptor, which the mount then replaces. */
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (fuse_session_custom_io(session, &io, fd)) {
		close(fd);
		return -ENOTSUP;
	}
	blkdev_watch_now(session);
	return 0;
}
