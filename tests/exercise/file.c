#include "tests/exercise/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void say(struct exercise *x, const char *format, ...)
{
	char *line = x->log[x->op % LOG_LINES];
	int used = snprintf(line, sizeof(x->log[0]), "%lu: ", x->op);
	va_list list;

	va_start(list, format);
	vsnprintf(line + used, sizeof(x->log[0]) - (size_t)used, format, list);
	va_end(list);
}

void fail(struct exercise *x, const char *format, ...)
{
	unsigned long first = x->op >= LOG_LINES ? x->op - LOG_LINES + 1 : 0;
	va_list list;

	for (unsigned long i = first; i <= x->op; i++)
		printf("%s\n", x->log[i % LOG_LINES]);
	va_start(list, format);
	vprintf(format, list);
	va_end(list);
	printf("\n");
	fflush(stdout);
	_exit(1);
}

void answer(struct exercise *x, const char *call)
{
	if (errno != ENOSPC || !x->no_space_is_fine)
		fail(x, "%s: %s", call, strerror(errno));
}

static int file_open_with(struct exercise *x, struct file *f, int flags)
{
	int fd = open(f->path, flags | O_CLOEXEC, 0600);

	if (fd < 0)
		fail(x, "%s: open with %x: %s", f->path, (unsigned)flags, strerror(errno));
	return fd;
}

void file_open(struct exercise *x, struct file *f, bool create)
{
	f->fd = file_open_with(x, f, O_RDWR | (create ? O_CREAT : 0));
	f->direct = file_open_with(x, f, O_RDWR | O_DIRECT);
	f->append = file_open_with(x, f, O_WRONLY | O_APPEND);
	f->map = mmap(NULL, x->max, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	if (f->map == MAP_FAILED)
		fail(x, "mmap: %s", strerror(errno));
}

void file_close(struct exercise *x, struct file *f)
{
	if (munmap(f->map, x->max) || close(f->direct) || close(f->append) || close(f->fd))
		fail(x, "close: %s", strerror(errno));
}

void file_compare(struct exercise *x, struct file *f, const uint8_t *bytes, size_t pos, size_t length, const char *how)
{
	size_t first = 0, last = length, wrong = 0;

	if (!memcmp(bytes, f->model + pos, length))
		return;
	while (bytes[first] == f->model[pos + first])
		first++;
	while (bytes[last - 1] == f->model[pos + last - 1])
		last--;
	for (size_t i = first; i < last; i++)
		wrong += bytes[i] != f->model[pos + i];
	fail(x, "%c, %s: %zu bytes from %zu to %zu are wrong; at %zu is %02x, not %02x (size %zu)", f->name, how, wrong, pos + first, pos + last,
	     pos + first, bytes[first], f->model[pos + first], f->size);
}

static void read_all(struct exercise *x, struct file *f, int fd, const char *how)
{
	size_t done = 0;
	ssize_t got;

	while ((got = pread(fd, x->buffer + done, x->max - done, (off_t)done)) > 0)
		done += (size_t)got;
	if (got < 0)
		fail(x, "%c, %s: %s", f->name, how, strerror(errno));
	if (done != f->size)
		fail(x, "%c, %s: %zu bytes, not %zu", f->name, how, done, f->size);
	file_compare(x, f, x->buffer, 0, done, how);
}

void file_compare_all(struct exercise *x, struct file *f)
{
	struct stat st;

	if (fstat(f->fd, &st))
		fail(x, "fstat: %s", strerror(errno));
	if ((size_t)st.st_size != f->size)
		fail(x, "%c: fstat tells %lld bytes, not %zu", f->name, (long long)st.st_size, f->size);
	if (random_below(&x->random, 2))
		read_all(x, f, f->direct, "all by O_DIRECT");
	else
		read_all(x, f, f->fd, "all by read");
	if (f->size)
		file_compare(x, f, f->map, 0, f->size, "all by mmap");
}

void model_resize(struct file *f, size_t size)
{
	if (size < f->size)
		memset(f->model + size, 0, f->size - size);
	f->size = size;
}
