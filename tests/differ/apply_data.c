/* What is done with descriptors and contents. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/differ/differ.h"

int slot_fd(const struct side *s, unsigned slot)
{
	return s->fd[slot];
}

/* What only this operation can have written there. */
static const uint8_t *content(const struct op *op)
{
	static uint8_t bytes[MOST_LENGTH];

	for (size_t i = 0; i < op->length; i++)
		bytes[i] = (uint8_t)((op->fill >> (8 * (i % 8))) + i / PAGE);
	return bytes;
}

static long close_slot(struct side *s, unsigned slot)
{
	int fd = s->fd[slot];

	s->fd[slot] = -1;
	return close(fd);
}

/* What fails leaves the slot as it was. Never waits for the other end of a fifo. */
APPLY(open)
{
	int fd = open(op->path[0], (int)op->flags | O_CLOEXEC | O_NONBLOCK, op->mode);

	if (fd < 0)
		return -1;
	close_slot(s, op->slot[0]);
	s->fd[op->slot[0]] = fd;
	return 0;
}

APPLY(close)
{
	return close_slot(s, op->slot[0]);
}

static long keep_read(struct answer *a, ssize_t got)
{
	a->count = got > 0 ? (size_t)got : 0;
	return got;
}

APPLY(read)
{
	return keep_read(a, read(slot_fd(s, op->slot[0]), a->bytes, op->length));
}

APPLY(pread)
{
	return keep_read(a, pread(slot_fd(s, op->slot[0]), a->bytes, op->length, op->pos[0]));
}

APPLY(write)
{
	return write(slot_fd(s, op->slot[0]), content(op), op->length);
}

APPLY(pwrite)
{
	return pwrite(slot_fd(s, op->slot[0]), content(op), op->length, op->pos[0]);
}

APPLY(pwritev)
{
	uint8_t *bytes = (uint8_t *)(uintptr_t)content(op);
	size_t first = op->length ? op->fill % op->length : 0;
	struct iovec parts[2] = {{bytes, first}, {bytes + first, op->length - first}};

	return pwritev(slot_fd(s, op->slot[0]), parts, 2, op->pos[0]);
}

/* Positions in directories are the filesystem's own (allowed.c): back to the beginning. */
APPLY(lseek)
{
	int fd = slot_fd(s, op->slot[0]), error;
	off_t found = lseek(fd, op->pos[0], (int)op->flags);
	struct stat st;

	error = errno;
	if (!fstat(fd, &st) && S_ISDIR(st.st_mode))
		lseek(fd, 0, SEEK_SET);
	errno = error;
	return found;
}

void forget_pages(int fd)
{
	sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* The position stays, for where the next hole is may differ (allowed.c) and what follows may not. */
APPLY(seek_data)
{
	int fd = slot_fd(s, op->slot[0]);
	off_t before = lseek(fd, 0, SEEK_CUR), found;
	int error;

	if (before < 0)
		return -1;
	forget_pages(fd);
	errno = 0;
	found = lseek(fd, op->pos[0], (int)op->flags);
	error = errno;
	lseek(fd, before, SEEK_SET);
	errno = error;
	return found;
}

APPLY(ftruncate)
{
	return ftruncate(slot_fd(s, op->slot[0]), op->pos[0]);
}

APPLY(truncate)
{
	static const struct timespec times[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
	struct stat st;
	long done;

	if (s->differ->is_xfs && !op->pos[0] && !stat(op->path[0], &st) && S_ISREG(st.st_mode) && !st.st_size)
		return 0; /* allowed.c */
	done = truncate(op->path[0], op->pos[0]);
	if (!done && s->differ->is_writeback) { /* allowed.c */
		become(0);
		utimensat(AT_FDCWD, op->path[0], times, 0);
		become(op->user);
	}
	return done;
}

APPLY(fallocate)
{
	return fallocate(slot_fd(s, op->slot[0]), (int)op->flags, op->pos[0], (off_t)op->length);
}

APPLY(copy_file_range)
{
	off_t from = op->pos[0], to = op->pos[1];
	size_t done = 0;
	ssize_t got;

	do { /* XFS shares what it can first, and says how much that was */
		got = copy_file_range(slot_fd(s, op->slot[0]), &from, slot_fd(s, op->slot[1]), &to, op->length - done, 0);
		done += got > 0 ? (size_t)got : 0;
	} while (got > 0 && done < op->length);
	return got < 0 && !done ? -1 : (long)done;
}

/* Of the page at pos: how many bytes the file has in it. Nothing else may be touched. */
static size_t page_count(int fd, off_t page)
{
	struct stat st;

	if (fstat(fd, &st) || st.st_size <= page)
		return 0;
	return st.st_size - page < PAGE ? (size_t)(st.st_size - page) : PAGE;
}

/* The whole page: past the end of the file there are zeros. */
APPLY(map_read)
{
	int fd = slot_fd(s, op->slot[0]);
	off_t page = op->pos[0] & ~(off_t)(PAGE - 1);
	void *map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, page);

	if (map == MAP_FAILED)
		return -1;
	if (page_count(fd, page)) {
		memcpy(a->bytes, map, PAGE);
		a->count = PAGE;
	}
	munmap(map, PAGE);
	return (long)a->count;
}

APPLY(map_write)
{
	int fd = slot_fd(s, op->slot[0]);
	off_t page = op->pos[0] & ~(off_t)(PAGE - 1);
	uint8_t *map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, page);
	size_t from = (size_t)(op->pos[0] - page), room;
	long done = 0;

	if (map == MAP_FAILED)
		return -1;
	room = page_count(fd, page);
	if (from < room) {
		done = (long)(op->length < room - from ? op->length : room - from);
		memcpy(map + from, content(op), (size_t)done);
	}
	if (op->flags && msync(map, PAGE, MS_SYNC))
		done = -1;
	munmap(map, PAGE);
	return done;
}

APPLY(fsync)
{
	return fsync(slot_fd(s, op->slot[0]));
}

APPLY(fdatasync)
{
	return fdatasync(slot_fd(s, op->slot[0]));
}
