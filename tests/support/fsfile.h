/* Copying image files, holes kept. */
#ifndef TESTS_FSFILE_H
#define TESTS_FSFILE_H

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static inline int fsfile_copy_piece(int from, int to, off_t start, off_t end)
{
	char buffer[64 << 10];

	while (start < end) {
		const size_t want =
		    end - start < (off_t)sizeof(buffer) ? (size_t)(end - start) : sizeof(buffer);
		const ssize_t got = pread(from, buffer, want, start);

		if (got <= 0 || pwrite(to, buffer, (size_t)got, start) != got)
			return -EIO;
		start += got;
	}
	return 0;
}

/* 0 or negative errno. */
static inline int fsfile_copy(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC), out, rc = 0;
	off_t start = 0, end;
	struct stat st;

	if (in < 0)
		return -errno;
	out = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (out < 0 || fstat(in, &st) || ftruncate(out, st.st_size))
		rc = -errno;
	while (rc == 0 && (start = lseek(in, start, SEEK_DATA)) >= 0) {
		end = lseek(in, start, SEEK_HOLE);
		rc = fsfile_copy_piece(in, out, start, end);
		start = end;
	}
	if (out >= 0)
		close(out);
	close(in);
	return rc;
}

#endif
