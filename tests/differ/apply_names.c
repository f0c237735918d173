/* What is done with names. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/differ/differ.h"

APPLY(mkdir)
{
	return mkdir(op->path[0], op->mode);
}

APPLY(rmdir)
{
	return rmdir(op->path[0]);
}

APPLY(unlink)
{
	return unlink(op->path[0]);
}

APPLY(link)
{
	return linkat(AT_FDCWD, op->path[0], AT_FDCWD, op->path[1], (int)op->flags);
}

APPLY(link_slot)
{
	return linkat(slot_fd(s, op->slot[0]), "", AT_FDCWD, op->path[0], AT_EMPTY_PATH);
}

APPLY(symlink)
{
	return symlink(op->path[1], op->path[0]);
}

APPLY(readlink)
{
	ssize_t got = readlink(op->path[0], (char *)a->bytes, op->length);

	a->count = got > 0 ? (size_t)got : 0;
	return got;
}

/* What ext4 and XFS do beside it (allowed.c). */
static void settle_whiteout(const struct side *s, const struct op *op, long done)
{
	static const struct timespec times[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
	char path[sizeof(op->path[0])];
	int error = errno;

	become(0);
	strcpy(path, op->path[0]);
	for (size_t end = strlen(path); end > 1 && path[end - 1] == '/'; end--)
		path[end - 1] = 0;
	if (done)
		utimensat(AT_FDCWD, dirname(path), times, 0);
	else
		lremovexattr(path, "system.posix_acl_access");
	if (!done && s->differ->is_xfs && lchown(path, 0, 0))
		abort();
	become(op->user);
	errno = error;
}

/* What XFS does to a directory that moves (allowed.c); with RENAME_EXCHANGE two may. */
static void settle_moved(const struct op *op)
{
	static const struct timespec times[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
	struct stat st;

	become(0);
	for (unsigned i = 0; i < 2; i++)
		if (!lstat(op->path[i], &st) && S_ISDIR(st.st_mode))
			utimensat(AT_FDCWD, op->path[i], times, AT_SYMLINK_NOFOLLOW);
	become(op->user);
}

APPLY(rename)
{
	long done = renameat2(AT_FDCWD, op->path[0], AT_FDCWD, op->path[1], op->flags);

	if (!done && s->differ->is_xfs)
		settle_moved(op);
	if (op->flags & RENAME_WHITEOUT)
		settle_whiteout(s, op, done);
	return done;
}

APPLY(mknod)
{
	return mknod(op->path[0], op->mode | op->flags, op->flags == S_IFCHR || op->flags == S_IFBLK ? op->device : 0);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

int list_directory(int fd, uint8_t *to, size_t room, size_t *count)
{
	struct dirent **names = NULL;
	int found = scandirat(fd, ".", &names, NULL, by_name);
	size_t used = 0;

	if (found < 0)
		return -errno;
	for (int i = 0; i < found; i++) {
		used += (size_t)snprintf((char *)to + used, room - used, "%s:%u\n", names[i]->d_name, names[i]->d_type);
		free(names[i]);
	}
	free(names);
	*count = used;
	return found;
}

APPLY(list)
{
	int fd = open(op->path[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int found;

	if (fd < 0)
		return -1;
	found = list_directory(fd, a->bytes, BYTES_ROOM, &a->count);
	close(fd);
	if (found < 0)
		errno = -found;
	return found < 0 ? -1 : found;
}

/* By the descriptor itself, from the beginning, and back: positions in directories are the filesystem's own. */
APPLY(list_slot)
{
	int fd = dup(slot_fd(s, op->slot[0]));
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	char names[64][260];
	size_t count = 0;
	struct dirent *entry;

	if (!dir) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	rewinddir(dir);
	errno = 0;
	while (count < 64 && (entry = readdir(dir)))
		snprintf(names[count++], sizeof(names[0]), "%s:%u", entry->d_name, entry->d_type);
	qsort(names, count, sizeof(names[0]), (int (*)(const void *, const void *))strcmp);
	for (size_t i = 0; i < count; i++)
		a->count += (size_t)sprintf((char *)a->bytes + a->count, "%s\n", names[i]);
	rewinddir(dir);
	closedir(dir);
	return errno ? -1 : (long)count;
}
