#include "media/claim_lock.h"

#include <stdio.h>
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
