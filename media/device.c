#include "media/device.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The last component of a symbolic link's target, "" when there is none. */
static void device_link_name(const char *link, char *name, size_t size)
{
	char target[4096];
	ssize_t n = readlink(link, target, sizeof(target) - 1);
	const char *slash;

	name[0] = 0;
	if (n < 0)
		return;
	target[n] = 0;
	slash = strrchr(target, '/');
	snprintf(name, size, "%.250s", slash ? slash + 1 : target);
}

static bool device_is_system_ram(const char *sysfs, const char *name)
{
	char link[4352], driver[256];

	snprintf(link, sizeof(link), "%s/bus/dax/devices/%s/driver", sysfs, name);
	device_link_name(link, driver, sizeof(driver));
	return strcmp(driver, "kmem") == 0;
}

static int device_refuse_system_ram(const char *path, const char *name, struct why *why)
{
	return why_set(
	    why, -ENOTSUP,
	    "%s is in system-ram mode, where the kernel uses its memory; take it back with: "
	    "daxctl reconfigure-device --mode=devdax %s",
	    path, name);
}

static int device_check_character(const char *sysfs, const char *path, const struct stat *st,
				  struct why *why)
{
	char link[4352], subsystem[256], name[256];

	snprintf(link, sizeof(link), "%s/dev/char/%u:%u", sysfs, major(st->st_rdev),
		 minor(st->st_rdev));
	device_link_name(link, name, sizeof(name));
	if (name[0] && device_is_system_ram(sysfs, name))
		return device_refuse_system_ram(path, name, why);
	snprintf(link, sizeof(link), "%s/dev/char/%u:%u/subsystem", sysfs, major(st->st_rdev),
		 minor(st->st_rdev));
	device_link_name(link, subsystem, sizeof(subsystem));
	if (strcmp(subsystem, "dax") != 0)
		return why_set(
		    why, -ENOTSUP,
		    "%s is a character device, but no device-dax device; give a /dev/daxX.Y "
		    "or an image file",
		    path);
	return 0;
}

int device_check(const char *sysfs, const char *path, const struct stat *st, struct why *why,
		 enum device_kind *kind)
{
	*kind = S_ISBLK(st->st_mode) ? DEVICE_BLOCK : S_ISCHR(st->st_mode) ? DEVICE_DAX : DEVICE_FILE;
	if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode))
		return 0;
	if (S_ISCHR(st->st_mode))
		return device_check_character(sysfs, path, st, why);
	if (S_ISDIR(st->st_mode))
		return why_set(why, -ENOTSUP,
			       "%s is a directory; give an image file or a /dev/daxX.Y", path);
	return why_set(why, -ENOTSUP, "%s is neither a regular file nor a /dev/daxX.Y or a block device", path);
}

int device_explain_missing(const char *sysfs, const char *path, int error, struct why *why)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	unsigned region, instance;

	if (sscanf(name, "dax%u.%u", &region, &instance) == 2 && device_is_system_ram(sysfs, name))
		return device_refuse_system_ram(path, name, why);
	return why_set(why, error, "%s: %s", path, strerror(-error));
}

int device_size(const char *sysfs, const struct stat *st, struct why *why, uint64_t *size)
{
	char file[4352], text[64], *end;
	unsigned long long value;
	ssize_t n;
	int fd;

	snprintf(file, sizeof(file), "%s/dev/char/%u:%u/size", sysfs, major(st->st_rdev),
		 minor(st->st_rdev));
	fd = open(file, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return why_set(why, -errno, "%s: %s", file, strerror(errno));
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return why_set(why, -EIO, "%s cannot be read", file);
	text[n] = 0;
	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno || end == text || (*end && *end != '\n'))
		return why_set(why, -EIO, "%s says \"%.40s\", which is no size", file, text);
	*size = value;
	return 0;
}

bool device_is_gone(int fd, uint64_t alignment)
{
	/* The mapping stays, but its device refuses a new one. */
	void *probe = mmap(NULL, alignment, PROT_READ, MAP_SHARED, fd, 0);

	if (probe == MAP_FAILED)
		return errno == ENXIO || errno == ENODEV;
	munmap(probe, alignment);
	return false;
}
