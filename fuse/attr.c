/* Requests on attributes. */
#include "fuse/caller.h"
#include "fuse/job.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

void front_stat(const struct fs_attr *attr, struct stat *out)
{
	const struct inode_record *record = &attr->record;

	memset(out, 0, sizeof(*out));
	out->st_ino = attr->ino;
	out->st_mode = record->mode;
	out->st_nlink = record->nlink;
	out->st_uid = record->uid;
	out->st_gid = record->gid;
	out->st_rdev = record->rdev;
	out->st_size = (off_t)record->size_bytes;
	out->st_blksize = BLOCK_BYTES;
	out->st_blocks = (blkcnt_t)(record->count_blocks * (BLOCK_BYTES / 512));
	out->st_atim = (struct timespec){record->atime.sec, record->atime.nsec};
	out->st_mtim = (struct timespec){record->mtime.sec, record->mtime.nsec};
	out->st_ctim = (struct timespec){record->ctime.sec, record->ctime.nsec};
}

double front_attr_timeout(const struct front *front, const struct fs_attr *attr)
{
	return front->writeback && S_ISREG(attr->record.mode) ? FRONT_WRITEBACK_SECONDS : FRONT_TIMEOUT_SECONDS;
}

static void reply_attr(fuse_req_t req, int error, const struct fs_attr *attr)
{
	struct stat st;

	if (error) {
		fuse_reply_err(req, -error);
		return;
	}
	front_stat(attr, &st);
	fuse_reply_attr(req, &st, front_attr_timeout(front_of(req), attr));
}

void front_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();
	struct fs_attr attr;
	int error = fs_getattr(front_of(req)->fs, ino, &attr);

	reply_attr(req, error, &attr);
	counter_end(OP_GETATTR, begin);
}

static const struct {
	int fuse;
	unsigned fs;
} set_map[] = {
	{FUSE_SET_ATTR_MODE, FS_SET_MODE},	     {FUSE_SET_ATTR_UID, FS_SET_UID},
	{FUSE_SET_ATTR_GID, FS_SET_GID},	     {FUSE_SET_ATTR_SIZE, FS_SET_SIZE},
	{FUSE_SET_ATTR_ATIME, FS_SET_ATIME},	     {FUSE_SET_ATTR_MTIME, FS_SET_MTIME},
	{FUSE_SET_ATTR_ATIME_NOW, FS_SET_ATIME_NOW}, {FUSE_SET_ATTR_MTIME_NOW, FS_SET_MTIME_NOW},
	{FUSE_SET_ATTR_CTIME, FS_SET_CTIME},	     {FUSE_SET_ATTR_KILL_SUID, FS_SET_KILL_SUIDGID},
};

static unsigned set_of(int fuse_set)
{
	unsigned set = 0;

	for (size_t i = 0; i < ARRAY_SIZE(set_map); i++)
		if (fuse_set & set_map[i].fuse)
			set |= set_map[i].fs;
	/* The kernel sends the time beside the NOW flag; NOW decides. */
	if (set & FS_SET_ATIME_NOW)
		set &= ~(unsigned)FS_SET_ATIME;
	if (set & FS_SET_MTIME_NOW)
		set &= ~(unsigned)FS_SET_MTIME;
	return set;
}

/*
 * Of a file whose group may not execute, setgid goes where one who is neither in that group nor may set it changes the owner or the content, as the kernel has it for its own
 * filesystems. Of ours it says that bits are to be cleared, not for whom.
 */
unsigned front_set_of_stranger(fuse_req_t req, const struct fs_attr *attr)
{
	if (S_ISDIR(attr->record.mode) || (attr->record.mode & (S_ISGID | S_IXGRP)) != S_ISGID)
		return 0;
	return caller_may_keep_setgid(req, attr->record.gid) ? 0 : FS_SET_KILL_SETGID;
}

/*
 * With FUSE_CAP_HANDLE_KILLPRIV_V2 the kernel sends a SETATTR of nothing before a write of one who may not keep setuid bits, or where a capability is to go, and
 * takes the mode from the answer; who wants what it does not say. A chown to nobody else is such, too, and that the kernel refuses to nobody: so strangers clear no
 * bits of a file that only its owner may write to.
 */
static unsigned set_of_nothing(fuse_req_t req, const struct fs_attr *attr)
{
	if (fuse_req_ctx(req)->uid != attr->record.uid && !(attr->record.mode & (S_IWGRP | S_IWOTH)))
		return 0;
	/* What follows may be refused by a flag that the kernel does not know of. If it is not, it says by itself what is to go; only gathered writes do not. */
	if (fuse_req_ctx(req)->uid == 0 || (!front_of(req)->writeback && (attr->record.flags & INODE_APPEND)))
		return 0;
	return FS_SET_KILL_SUIDGID | front_set_of_stranger(req, attr);
}

static unsigned set_of_request(fuse_req_t req, fuse_ino_t ino, int fuse_set)
{
	unsigned set = set_of(fuse_set);
	bool is_chown = (set & (FS_SET_UID | FS_SET_GID)) && !(set & FS_SET_MODE);
	bool is_truncate = (set & FS_SET_SIZE) && (set & FS_SET_KILL_SUIDGID);
	struct fs_attr attr;

	if ((set && !is_chown && !is_truncate) || fs_getattr(front_of(req)->fs, ino, &attr))
		return set;
	return set ? set | front_set_of_stranger(req, &attr) : set_of_nothing(req, &attr);
}

static void setattr_work(struct job *job)
{
	job->error = fs_setattr(front_of(job->req)->fs, job->ino, job->set, &job->values, &job->attr);
}

static void setattr_answer(struct job *job)
{
	reply_attr(job->req, job->error, &job->attr);
}

void front_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *stat, int set, struct fuse_file_info *fi)
{
	struct job job = {
		.work = setattr_work, .answer = setattr_answer, .req = req, .op = OP_SETATTR, .begin_ns = front_begin(),
		.ino = ino, .set = set_of_request(req, ino, set),
	};

	job.values = (struct inode_record){
		.mode = stat->st_mode,
		.uid = stat->st_uid,
		.gid = stat->st_gid,
		.size_bytes = (uint64_t)stat->st_size,
		.atime = {stat->st_atim.tv_sec, (uint32_t)stat->st_atim.tv_nsec},
		.mtime = {stat->st_mtim.tv_sec, (uint32_t)stat->st_mtim.tv_nsec},
		.ctime = {stat->st_ctim.tv_sec, (uint32_t)stat->st_ctim.tv_nsec},
	};
	job_run(&job, (job.set & FS_SET_SIZE) && front_is_long_truncate(req, ino, job.values.size_bytes));
}

void front_statfs(fuse_req_t req, fuse_ino_t ino)
{
	uint64_t begin = front_begin();
	struct fs_statfs from;

	fs_statfs(front_of(req)->fs, &from);
	fuse_reply_statfs(req, &(struct statvfs){
				       .f_bsize = BLOCK_BYTES,
				       .f_frsize = BLOCK_BYTES,
				       .f_blocks = from.total_blocks,
				       .f_bfree = from.free_blocks,
				       .f_bavail = from.available_blocks,
				       .f_files = from.inodes + from.free_inodes,
				       .f_ffree = from.free_inodes,
				       .f_favail = from.free_inodes,
				       .f_namemax = FS_NAME_MAX,
			       });
	counter_end(OP_STATFS, begin);
}

#if LIBFUSE_AT_LEAST(18)
static void fill_statx(const struct fs_attr *attr, struct statx *out)
{
	const struct inode_record *record = &attr->record;

	memset(out, 0, sizeof(*out));
	out->stx_mask = STATX_BASIC_STATS | STATX_BTIME;
	out->stx_blksize = BLOCK_BYTES;
	out->stx_nlink = record->nlink;
	out->stx_uid = record->uid;
	out->stx_gid = record->gid;
	out->stx_mode = (uint16_t)record->mode;
	out->stx_ino = attr->ino;
	out->stx_size = record->size_bytes;
	out->stx_blocks = record->count_blocks * (BLOCK_BYTES / 512);
	out->stx_atime = (struct statx_timestamp){.tv_sec = record->atime.sec, .tv_nsec = record->atime.nsec};
	out->stx_mtime = (struct statx_timestamp){.tv_sec = record->mtime.sec, .tv_nsec = record->mtime.nsec};
	out->stx_ctime = (struct statx_timestamp){.tv_sec = record->ctime.sec, .tv_nsec = record->ctime.nsec};
	out->stx_btime = (struct statx_timestamp){.tv_sec = record->btime.sec, .tv_nsec = record->btime.nsec};
	out->stx_rdev_major = major(record->rdev);
	out->stx_rdev_minor = minor(record->rdev);
}

void front_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();
	struct fs_attr attr;
	struct statx st;
	int error = fs_getattr(front_of(req)->fs, ino, &attr);

	if (error) {
		fuse_reply_err(req, -error);
	} else {
		fill_statx(&attr, &st);
		fuse_reply_statx(req, 0, &st, front_attr_timeout(front_of(req), &attr));
	}
	counter_end(OP_STATX, begin);
}
#endif
