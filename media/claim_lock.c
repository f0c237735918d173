#include "media/claim_lock.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

pid_t claim_lock_holder(const struct stat *st)
{
	FILE *stream = fopen("/proc/locks", "re");
	char line[256];
	pid_t found = 0;

	if (!stream)
		return 0;
	while (!found && fgets(line, sizeof(line), stream)) {
		unsigned device_major, device_minor;
		unsigned long long ino;
		int pid;

		/* A waiter's line has "->" after the number and does not match. */
		if (sscanf(line, "%*d: FLOCK %*s %*s %d %x:%x:%llu", &pid, &device_major,
			   &device_minor, &ino) == 4 &&
		    device_major == major(st->st_dev) && device_minor == minor(st->st_dev) &&
		    ino == st->st_ino)
			found = pid;
	}
	fclose(stream);
	return found > 0 ? found : 0;
}

/* A line "Key:\tvalue" of /proc/PID/status. */
static bool claim_process_status(pid_t pid, const char *key, char *value, size_t size)
{
	char file[64], line[256];
	size_t length = strlen(key);
	bool found = false;
	FILE *stream;

	snprintf(file, sizeof(file), "/proc/%d/status", (int)pid);
	stream = fopen(file, "re");
	if (!stream)
		return false;
	while (!found && fgets(line, sizeof(line), stream)) {
		found = strncmp(line, key, length) == 0 && line[length] == ':';
		if (found)
			snprintf(value, size, "%.*s", (int)strcspn(line + length + 2, "\n"),
				 line + length + 2);
	}
	fclose(stream);
	return found;
}

bool claim_process_is_ending(pid_t pid)
{
	char value[64];
	unsigned long long pending;

	if (!claim_process_status(pid, "State", value, sizeof(value)))
		return true;
	if (value[0] == 'Z' || value[0] == 'X')
		return true;
	/* Bit 8: SIGKILL is pending, the process just has not come to it. */
	return claim_process_status(pid, "ShdPnd", value, sizeof(value)) &&
	       sscanf(value, "%llx", &pending) == 1 && (pending & 0x100);
}

void claim_process_name(pid_t pid, char *name, size_t size)
{
	name[0] = 0;
	claim_process_status(pid, "Name", name, size);
}

/* mountinfo writes blanks, tabs, newlines and backslashes as three octal digits. */
static void mountinfo_unescape(char *text)
{
	char *out = text;

	while (*text) {
		unsigned value;

		if (text[0] == '\\' && sscanf(text + 1, "%3o", &value) == 1) {
			*out++ = (char)value;
			text += 4;
		} else {
			*out++ = *text++;
		}
	}
	*out = 0;
}

static bool mountinfo_has(FILE *stream, const char *dir)
{
	char line[2 * PATH_MAX], target[2 * PATH_MAX];

	while (fgets(line, sizeof(line), stream)) {
		if (sscanf(line, "%*d %*d %*s %*s %8191s", target) != 1)
			continue;
		mountinfo_unescape(target);
		if (strcmp(target, dir) == 0)
			return true;
	}
	return false;
}

bool claim_mount_is_there(pid_t pid, const char *dir)
{
	/* No stat() of a mount point: its daemon might hang, and we with it. Resolving asks the
	 * daemon nothing. */
	char *resolved = realpath(dir, NULL);
	bool there = true;
	char file[64];
	FILE *stream;

	snprintf(file, sizeof(file), "/proc/%d/mountinfo", (int)pid);
	stream = fopen(file, "re");
	if (stream) {
		there = mountinfo_has(stream, resolved ? resolved : dir);
		fclose(stream);
	}
	free(resolved);
	return there;
}
