#include "fuse/mountinfo.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/* Blanks and backslashes of paths are written as \ooo. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		if (from[0] == '\\' && from[1] && from[2] && from[3]) {
			*to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/* 36 35 98:0 /root /mount/point options [fields] - type source options. Without a path: any. */
static bool line_matches(const char *line, const char *mountpoint, struct mountinfo *out)
{
	const char *separator = strstr(line, " - ");
	unsigned high, low;
	char *path = NULL;
	bool matches = false;

	if (!separator || sscanf(separator, " - %63s", out->type) != 1)
		return false;
	if (sscanf(line, "%*d %*d %u:%u %*s %ms", &high, &low, &path) == 3) {
		unescape(path);
		out->device = makedev(high, low);
		matches = !mountpoint || !strcmp(path, mountpoint);
	}
	free(path);
	return matches;
}

int mountinfo_find(const char *mountpoint, struct mountinfo *out)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	struct mountinfo mount;
	char *line = NULL;
	size_t size = 0;
	int error = -ENOENT;

	if (!file)
		return -errno;
	while (getline(&line, &size, file) > 0) {
		if (!line_matches(line, mountpoint, &mount))
			continue;
		*out = mount;
		error = 0;
	}
	free(line);
	fclose(file);
	return error;
}

bool mountinfo_has_device(pid_t pid, dev_t device)
{
	struct mountinfo mount;
	char *line = NULL, name[64] = "/proc/self/mountinfo";
	size_t size = 0;
	bool has = false;
	FILE *file;

	if (pid)
		snprintf(name, sizeof(name), "/proc/%d/mountinfo", (int)pid);
	file = fopen(name, "re");
	if (!file)
		return false;
	while (!has && getline(&line, &size, file) > 0)
		has = line_matches(line, NULL, &mount) && mount.device == device;
	free(line);
	fclose(file);
	return has;
}

bool mountinfo_is_ours(const struct mountinfo *mount)
{
	return !strcmp(mount->type, "fuse.mendfs") || !strcmp(mount->type, "fuseblk.mendfs");
}
