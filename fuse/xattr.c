/* Requests on extended attributes. */
#include "fuse/front.h"

#include <errno.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "fs/xattr.h"

#define GROUPS_MAX 65536 /* NGROUPS_MAX of Linux */

static void reply_value(fuse_req_t req, int error, const void *buffer, size_t size, size_t length)
{
	if (error)
		fuse_reply_err(req, -error);
	else if (size == 0)
		fuse_reply_xattr(req, length);
	else
		fuse_reply_buf(req, buffer, length);
}

void front_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	uint64_t begin = front_begin();
	struct fs_who who = front_who(req);
	size_t room = min_u64(size, XATTR_VALUE_MAX), length = 0;
	void *buffer = room ? front_thread_buffer(room) : NULL;
	int error = room && !buffer ? -ENOMEM : fs_getxattr(front_of(req)->fs, &who, ino, name, buffer, room, &length);

	reply_value(req, error, buffer, size, length);
	counter_end(OP_GETXATTR, begin);
}

void front_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	uint64_t begin = front_begin();
	struct fs_who who = front_who(req);
	size_t room = min_u64(size, XATTR_LIST_MAX), length = 0;
	void *buffer = room ? front_thread_buffer(room) : NULL;
	int error = room && !buffer ? -ENOMEM : fs_listxattr(front_of(req)->fs, &who, ino, buffer, room, &length);

	reply_value(req, error, buffer, size, length);
	counter_end(OP_LISTXATTR, begin);
}

static bool caller_is_in_group(fuse_req_t req, gid_t gid)
{
	gid_t *groups;
	int count;

	if (fuse_req_ctx(req)->gid == gid)
		return true;
	groups = front_thread_buffer(GROUPS_MAX * sizeof(*groups));
	count = groups ? fuse_req_getgroups(req, GROUPS_MAX, groups) : 0;
	for (int i = 0; i < count && i < GROUPS_MAX; i++)
		if (groups[i] == gid)
			return true;
	return false;
}

/*
 * Who gives a file an access ACL without being in its group loses its setgid bit. The kernel would say so (FUSE_SETXATTR_ACL_KILL_SGID), but libfuse does not
 * pass it on. The value lies in the request's memory, not in this thread's buffer.
 */
static int acl_flags(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct fs_attr attr;

	if (fuse_req_ctx(req)->uid == 0 || strcmp(name, XATTR_NAME_ACCESS) || fs_getattr(front_of(req)->fs, ino, &attr))
		return 0;
	return (attr.record.mode & S_ISGID) && !caller_is_in_group(req, attr.record.gid) ? FS_XATTR_KILL_SGID : 0;
}

void front_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	uint64_t begin = front_begin();
	struct fs_who who = front_who(req);
	int error = flags & ~FS_XATTR_FLAGS ? -EINVAL : 0;

	if (!error)
		error = fs_setxattr(front_of(req)->fs, &who, ino, name, value, size, flags | acl_flags(req, ino, name));
	fuse_reply_err(req, -error);
	counter_end(OP_SETXATTR, begin);
}

void front_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	uint64_t begin = front_begin();
	struct fs_who who = front_who(req);

	fuse_reply_err(req, -fs_removexattr(front_of(req)->fs, &who, ino, name));
	counter_end(OP_REMOVEXATTR, begin);
}
