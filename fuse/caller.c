#include "fuse/caller.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CAPABILITY_FSETID 4
#define CAPABILITY_SYS_ADMIN 21

static bool caller_shares_users(pid_t pid)
{
	struct stat his, ours;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
	return !stat(path, &his) && !stat("/proc/self/ns/user", &ours) && his.st_dev == ours.st_dev && his.st_ino == ours.st_ino;
}

struct caller_status {
	unsigned long long capabilities, pending, pending_shared, blocked, ignored;
};

/* What cannot be read is 0. */
static void caller_read(pid_t pid, struct caller_status *status)
{
	char path[64], line[256];
	FILE *file;

	memset(status, 0, sizeof(*status));
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "CapEff: %llx", &status->capabilities) != 1 && sscanf(line, "SigPnd: %llx", &status->pending) != 1 &&
		    sscanf(line, "ShdPnd: %llx", &status->pending_shared) != 1 && sscanf(line, "SigBlk: %llx", &status->blocked) != 1)
			sscanf(line, "SigIgn: %llx", &status->ignored);
	fclose(file);
}

static bool caller_is_capable(pid_t pid, unsigned capability)
{
	struct caller_status status;

	if (pid <= 0)
		return false;
	caller_read(pid, &status);
	return (status.capabilities >> capability & 1) && caller_shares_users(pid);
}

bool caller_is_admin(pid_t pid)
{
	return caller_is_capable(pid, CAPABILITY_SYS_ADMIN);
}

static bool caller_has_group(fuse_req_t req, gid_t group)
{
	int count = fuse_req_getgroups(req, 0, NULL);
	gid_t *groups = count > 0 ? calloc((size_t)count, sizeof(*groups)) : NULL;
	bool found = false;

	if (groups)
		fuse_req_getgroups(req, count, groups);
	for (int i = 0; groups && i < count && !found; i++)
		found = groups[i] == group;
	free(groups);
	return found;
}

bool caller_may_keep_setgid(fuse_req_t req, gid_t group)
{
	const struct fuse_ctx *caller = fuse_req_ctx(req);

	if (caller->gid == group || caller_has_group(req, group))
		return true;
	return caller->pid > 0 ? caller_is_capable(caller->pid, CAPABILITY_FSETID) : caller->uid == 0;
}

bool caller_is_signalled(pid_t pid)
{
	struct caller_status status;

	if (pid <= 0)
		return false;
	caller_read(pid, &status);
	return (status.pending | status.pending_shared) & ~status.blocked & ~status.ignored;
}
