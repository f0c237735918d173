/*
 * ioctl(2). Some are sent on as they are, some (flags, xflags) by the kernel's own code, which has judged them by its rules; the server judges again, since it
 * cannot tell which. Sizes are the kernel's word and verified. What changes anything is a job (fuse/job.h): the ctime that the kernel has cached must go before the
 * caller goes on, and no ring waits for that.
 */
#include "fuse/ioctl.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>

#include "control/mendfs_ioctl.h"
#include "fuse/job.h"
#include "fuse/session.h"
#include "fuse/shutdown.h"
#include "fuse/trim.h"

/* --- flags ---------------------------------------------------------------------------------------------------------------- */

static const struct {
	uint32_t xflag;
	uint64_t flag;
} xflag_map[] = {
	{FS_XFLAG_IMMUTABLE, INODE_IMMUTABLE}, {FS_XFLAG_APPEND, INODE_APPEND}, {FS_XFLAG_SYNC, INODE_SYNC},
	{FS_XFLAG_NOATIME, INODE_NOATIME},     {FS_XFLAG_NODUMP, INODE_NODUMP}, {FS_XFLAG_PROJINHERIT, INODE_PROJINHERIT},
};
/* An extent-size hint is there when it is not 0; these two only say so. HASATTR is read-only. */
#define XFLAGS_OF_HINT (FS_XFLAG_EXTSIZE | FS_XFLAG_EXTSZINHERIT)

void ioctl_reply(struct ioctl_call *call, const void *answer, size_t length)
{
	memcpy(call->out, answer, length);
	call->out_used = length;
}

static void reply_u32(struct ioctl_call *call, uint32_t value)
{
	ioctl_reply(call, &value, sizeof(value));
}

static int get_flags(struct ioctl_call *call)
{
	struct fs_attr attr;
	int error = fs_getattr(call->front->fs, call->ino, &attr);

	if (!error)
		reply_u32(call, (uint32_t)(attr.record.flags & INODE_FS_FLAGS));
	return error;
}

static int get_version(struct ioctl_call *call)
{
	struct fs_attr attr;
	int error = fs_getattr(call->front->fs, call->ino, &attr);

	if (!error)
		reply_u32(call, attr.record.generation);
	return error;
}

static int set_of(struct ioctl_call *call, unsigned set, const struct inode_record *values)
{
	int error = fs_set_flags(call->front->fs, &call->who, call->ino, set, values);

	if (!error)
		session_invalidate(call->front, call->ino, SESSION_ATTRIBUTES, 0);
	return error;
}

static int set_flags(struct ioctl_call *call)
{
	struct inode_record values = {.flags = 0};
	uint32_t flags;

	memcpy(&flags, call->in, sizeof(flags));
	values.flags = flags;
	return set_of(call, FS_SET_FLAGS, &values);
}

static int get_xattr(struct ioctl_call *call)
{
	struct fsxattr x = {.fsx_xflags = 0};
	struct fs_attr attr;
	int error = fs_getattr(call->front->fs, call->ino, &attr);

	if (error)
		return error;
	for (size_t i = 0; i < ARRAY_SIZE(xflag_map); i++)
		x.fsx_xflags |= attr.record.flags & xflag_map[i].flag ? xflag_map[i].xflag : 0;
	if (attr.record.extent_hint)
		x.fsx_xflags |= (attr.record.mode & S_IFMT) == S_IFDIR ? FS_XFLAG_EXTSZINHERIT : FS_XFLAG_EXTSIZE;
	x.fsx_extsize = attr.record.extent_hint * BLOCK_BYTES;
	x.fsx_projid = attr.record.project;
	memcpy(call->out, &x, sizeof(x));
	call->out_used = sizeof(x);
	return 0;
}

static int xflags_to_flags(uint32_t xflags, uint64_t *flags)
{
	xflags &= ~(uint32_t)(XFLAGS_OF_HINT | FS_XFLAG_HASATTR);
	for (size_t i = 0; i < ARRAY_SIZE(xflag_map); i++) {
		*flags |= xflags & xflag_map[i].xflag ? xflag_map[i].flag : 0;
		xflags &= ~xflag_map[i].xflag;
	}
	return xflags ? -EOPNOTSUPP : 0;
}

static int set_xattr(struct ioctl_call *call)
{
	struct inode_record values = {.flags = 0};
	struct fs_attr attr;
	struct fsxattr x;
	int error = fs_getattr(call->front->fs, call->ino, &attr);

	memcpy(&x, call->in, sizeof(x));
	if (!error)
		error = xflags_to_flags(x.fsx_xflags, &values.flags);
	if (!error && (x.fsx_xflags & XFLAGS_OF_HINT) && x.fsx_extsize % BLOCK_BYTES)
		error = -EINVAL;
	if (error)
		return error;
	values.flags |= attr.record.flags & INODE_DIRSYNC; /* which no xflag says */
	values.project = x.fsx_projid;
	values.extent_hint = x.fsx_xflags & XFLAGS_OF_HINT ? x.fsx_extsize / BLOCK_BYTES : 0;
	return set_of(call, FS_SET_FLAGS | FS_SET_PROJECT | FS_SET_EXTENT_HINT, &values);
}

/* --- the filesystem ------------------------------------------------------------------------------------------------------- */

static int get_label(struct ioctl_call *call)
{
	char label[FSLABEL_MAX] = {0};

	strncpy(label, fs_super(call->front->fs)->label, sizeof(label) - 1);
	memcpy(call->out, label, sizeof(label));
	call->out_used = sizeof(label);
	return 0;
}

static int set_label(struct ioctl_call *call)
{
	char label[FSLABEL_MAX + 1] = {0};
	struct why why;

	if (call->who.uid != 0)
		return -EPERM;
	memcpy(label, call->in, FSLABEL_MAX);
	return strlen(label) > SUPER_LABEL_BYTES ? -EINVAL : fs_set_label(call->front->fs, label, &why);
}

/* --- all of them ---------------------------------------------------------------------------------------------------------- */

/* LONG: it changes something, or may take a while. APART: it waits for other requests (fuse/job.h). */
enum ioctl_way { QUICK, LONG, APART };

struct ioctl {
	unsigned command;
	size_t in_least, out_least;
	int (*run)(struct ioctl_call *call);
	enum ioctl_way way;
};

static const struct ioctl ioctls[] = {
	{FS_IOC_GETFLAGS, 0, sizeof(uint32_t), get_flags, QUICK},
	{FS_IOC32_GETFLAGS, 0, sizeof(uint32_t), get_flags, QUICK},
	{FS_IOC_SETFLAGS, sizeof(uint32_t), 0, set_flags, LONG},
	{FS_IOC32_SETFLAGS, sizeof(uint32_t), 0, set_flags, LONG},
	{FS_IOC_GETVERSION, 0, sizeof(uint32_t), get_version, QUICK},
	{FS_IOC32_GETVERSION, 0, sizeof(uint32_t), get_version, QUICK},
	{FS_IOC_FSGETXATTR, 0, sizeof(struct fsxattr), get_xattr, QUICK},
	{FS_IOC_FSSETXATTR, sizeof(struct fsxattr), 0, set_xattr, LONG},
	{FS_IOC_GETFSLABEL, 0, FSLABEL_MAX, get_label, QUICK},
	{FS_IOC_SETFSLABEL, FSLABEL_MAX, 0, set_label, LONG},
	{FITRIM, sizeof(struct fstrim_range), sizeof(struct fstrim_range), trim_ioctl, LONG},
	{FS_IOC_SHUTDOWN, 0, 0, shutdown_ioctl, LONG},
	{MENDFS_IOC_TICKET, 0, sizeof(struct mendfs_ticket), ioctl_ticket, QUICK},
	{MENDFS_IOC_CLONE, sizeof(struct mendfs_clone), 0, ioctl_clone, APART},
	{MENDFS_IOC_DEDUPE, sizeof(struct mendfs_dedupe), sizeof(struct mendfs_dedupe), ioctl_dedupe, LONG},
	{MENDFS_IOC_MAP, sizeof(struct mendfs_map), sizeof(struct mendfs_map), ioctl_map, LONG},
};

static const struct ioctl *ioctl_find(unsigned command)
{
	for (size_t i = 0; i < ARRAY_SIZE(ioctls); i++)
		if (ioctls[i].command == command)
			return &ioctls[i];
	return NULL;
}

static int ioctl_verify(const struct ioctl *ioctl, unsigned flags, size_t in_size, size_t out_size)
{
	if (!ioctl || (flags & FUSE_IOCTL_UNRESTRICTED))
		return -ENOTTY;
	return in_size < ioctl->in_least || in_size > IOCTL_BYTES_MAX || out_size < ioctl->out_least ? -EINVAL : 0;
}

/* Apart from libfuse's buffer, which the reply may overwrite, and from the stack, which a job leaves. */
static struct ioctl_call *ioctl_call_create(fuse_req_t req, fuse_ino_t ino, uint64_t handle, const struct ioctl *ioctl, const void *argument,
					    const void *in, size_t in_size)
{
	struct ioctl_call *call = malloc(sizeof(*call));

	if (!call)
		return NULL;
	call->ioctl = ioctl;
	call->front = front_of(req);
	call->ino = ino;
	call->handle = handle;
	call->who = front_who(req);
	call->req = req;
	call->pid = fuse_req_ctx(req)->pid;
	call->argument = (uintptr_t)argument;
	call->out_used = 0;
	if (in_size)
		memcpy(call->in, in, in_size);
	return call;
}

static void ioctl_work(struct job *job)
{
	job->error = job->ioctl->ioctl->run(job->ioctl);
}

static void ioctl_answer(struct job *job)
{
	struct ioctl_call *call = job->ioctl;

	if (job->error)
		fuse_reply_err(job->req, -job->error);
	else
		fuse_reply_ioctl(job->req, 0, call->out, call->out_used);
	free(call);
}

void front_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, void *argument, struct fuse_file_info *fi, unsigned flags, const void *in,
		 size_t in_size, size_t out_size)
{
	struct job job = {.work = ioctl_work, .answer = ioctl_answer, .req = req, .op = OP_IOCTL, .begin_ns = front_begin(), .ino = ino};
	const struct ioctl *ioctl = ioctl_find(command);
	int error = ioctl_verify(ioctl, flags, in_size, out_size);

	if (!error) {
		job.ioctl = ioctl_call_create(req, ino, fi ? fi->fh : 0, ioctl, argument, in, in_size);
		error = job.ioctl ? 0 : -ENOMEM;
	}
	if (!error) {
		if (ioctl->way == APART)
			job_run_apart(&job);
		else
			job_run(&job, ioctl->way == LONG);
		return;
	}
	fuse_reply_err(req, -error);
	counter_end(OP_IOCTL, job.begin_ns);
}
