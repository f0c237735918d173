/* One thing is changed on side A behind the program's back: who does not notice compares nothing. */
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/differ/differ.h"

#define SPOILED "spoiled" /* no operation knows this name */

static void make(int dir)
{
	static const struct timespec times[2] = {{1000, 1}, {2000, 2}};
	int fd = openat(dir, SPOILED, O_RDWR | O_CREAT, 0644);

	if (fd < 0 || fchmod(fd, 0644) || pwrite(fd, "spoiled", 7, 0) != 7 || ftruncate(fd, 4 * PAGE) || fsetxattr(fd, "user.spoiled", "1", 1, 0) || futimens(fd, times))
		abort();
	close(fd);
}

static bool spoil_bytes(int fd)
{
	return pwrite(fd, "S", 1, 3) == 1;
}

static bool spoil_map(int fd)
{
	return pwrite(fd, "", 1, 2 * PAGE) == 1;
}

static bool spoil_size(int fd)
{
	return !ftruncate(fd, 4 * PAGE - 1);
}

static bool spoil_mode(int fd)
{
	return !fchmod(fd, 0645);
}

static bool spoil_owner(int fd)
{
	return !fchown(fd, 1, -1);
}

static bool spoil_xattr(int fd)
{
	return !fsetxattr(fd, "user.spoiled", "2", 1, 0);
}

static bool spoil_xattr_name(int fd)
{
	return !fremovexattr(fd, "user.spoiled");
}

/* Everything that is changed leaves the times as they were, but this. */
static bool spoil_time(int fd)
{
	return true;
}

static bool spoil_link(int fd)
{
	return !linkat(fd, "", AT_FDCWD, "spoiled-2", AT_EMPTY_PATH);
}

/* A name that operations use: they notice by themselves. */
static bool spoil_answer(int fd)
{
	return !rename("a", "hidden") || !mkdir("a", 0700);
}

static const struct {
	const char *name;
	bool (*change)(int fd);
} spoils[] = {{"bytes", spoil_bytes}, {"map", spoil_map}, {"size", spoil_size}, {"mode", spoil_mode}, {"owner", spoil_owner}, {"xattr", spoil_xattr},
	      {"xattr-name", spoil_xattr_name}, {"time", spoil_time}, {"link", spoil_link}, {"answer", spoil_answer}};

static void change(struct differ *d, unsigned which)
{
	struct timespec times[2] = {{1000, 1}, {2000, 2}};
	int fd;

	if (fchdir(d->side[0].top) || (fd = open(SPOILED, O_RDWR)) < 0 || !spoils[which].change(fd))
		abort();
	times[1].tv_nsec += spoils[which].change == spoil_time;
	if (futimens(fd, times))
		abort();
	close(fd);
}

bool spoil(struct differ *d, const char *kind)
{
	become(0);
	for (unsigned i = 0; i < sizeof(spoils) / sizeof(spoils[0]); i++)
		if (!strcmp(spoils[i].name, kind)) {
			make(d->side[0].top);
			make(d->side[1].top);
			change(d, i);
			return true;
		}
	return false;
}
