/* Requests on the content of files. */
#include "fuse/blkdev.h"
#include "fuse/job.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>

struct thread_buffer {
	size_t size;
	void *data;
};

static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;

static void buffer_free(void *arg)
{
	struct thread_buffer *buffer = arg;

	free(buffer->data);
	free(buffer);
}

static void buffer_key_make(void)
{
	pthread_key_create(&buffer_key, buffer_free);
}

void *front_thread_buffer(size_t size)
{
	struct thread_buffer *buffer;
	void *data;

	pthread_once(&buffer_once, buffer_key_make);
	buffer = pthread_getspecific(buffer_key);
	if (buffer && buffer->size >= size)
		return buffer->data;
	if (!buffer) {
		buffer = calloc(1, sizeof(*buffer));
		if (!buffer || pthread_setspecific(buffer_key, buffer)) {
			free(buffer);
			return NULL;
		}
	}
	if (posix_memalign(&data, BLOCK_BYTES, size ? size : 1))
		return NULL;
	free(buffer->data);
	*buffer = (struct thread_buffer){size, data};
	return data;
}

/*
 * Who only writes goes past the page cache too: nothing is copied there, and the kernel asks for no security.capability before. Kernels that allow mappings
 * of such files (6.6) also keep the pages of others true, so it hangs on that.
 */
static bool is_direct_open(const struct front *front, const struct fuse_file_info *fi)
{
	return (fi->flags & O_DIRECT) || (front->direct_writers && (fi->flags & O_ACCMODE) == O_WRONLY);
}

void front_open_flags(const struct front *front, struct fuse_file_info *fi)
{
	fi->fh = FRONT_HANDLE_KNOWN | ((unsigned)fi->flags & O_ACCMODE);
	fi->keep_cache = 1;
	fi->noflush = 1;
	/*
	 * With writeback the kernel alone knows where a file ends that it holds back the end of. Only without direct_io does it go by that; a direct read is
	 * cut short at our end otherwise.
	 */
	if (is_direct_open(front, fi) && !front->writeback) {
		fi->direct_io = 1;
#if LIBFUSE_AT_LEAST(15)
		fi->parallel_direct_writes = 1;
#endif
	}
}

/*
 * Without FUSE_CAP_HANDLE_KILLPRIV_V2 the kernel has mostly cleared them by a SETATTR before; not where it does not go through the page cache, so there it is
 * root that may keep them. What the page cache writes back is nobody's.
 */
bool front_kills_ids(fuse_req_t req, const struct fuse_file_info *fi)
{
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
	if (front_of(req)->killpriv)
		return fi->kill_suidgid;
#endif
	return fuse_req_ctx(req)->uid != 0 && !fi->writepage;
}

/*
 * Where the group may not execute the protocol lets setgid be, and the kernel's own filesystems do not. No privilege goes with the bit there, so it may go after the
 * content has changed.
 */
static bool clear_setgid(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = front_of(req)->fs;
	struct inode_record none = {.mode = 0};
	struct fs_attr attr;
	unsigned set = fs_getattr(fs, ino, &attr) ? 0 : front_set_of_stranger(req, &attr);

	return set && !fs_setattr(fs, ino, set, &none, &attr);
}

/* After a change of content: the rest of what is to go does, and the kernel does not go on with the mode that it knows. */
static void settle_ids(fuse_req_t req, fuse_ino_t ino, unsigned ids, bool has_changed)
{
	bool cleared = has_changed && (ids & FS_IDS_SETGID) && clear_setgid(req, ino);

	if (cleared || (ids & FS_IDS_KILLED))
		session_forget_attr(front_of(req), ino);
}

static void open_work(struct job *job)
{
	if (front_of(job->req)->no_open)
		job->error = -ENOSYS;
	else
		job->error = fs_verify_open(front_of(job->req)->fs, job->ino, job->fi.flags);
	if (!job->error && (job->fi.flags & O_TRUNC))
		job->error = fs_kill_privileges(front_of(job->req)->fs, job->ino, front_kills_ids(job->req, &job->fi), &job->ids);
	if (!job->error && (job->fi.flags & O_TRUNC))
		job->error = fs_setattr(front_of(job->req)->fs, job->ino, FS_SET_SIZE | FS_SET_MTIME_NOW, &job->values, &job->attr);
	settle_ids(job->req, job->ino, job->ids, !job->error);
}

static void open_answer(struct job *job)
{
	if (job->error) {
		fuse_reply_err(job->req, -job->error);
		return;
	}
	front_open_flags(front_of(job->req), &job->fi);
	fuse_reply_open(job->req, &job->fi);
}

bool front_is_long_truncate(fuse_req_t req, fuse_ino_t ino, uint64_t size)
{
	struct fs_attr attr;

	return !fs_getattr(front_of(req)->fs, ino, &attr) && attr.record.size_bytes > size &&
	       attr.record.size_bytes - size >= JOB_LONG_BYTES;
}

void front_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct job job = {.work = open_work, .answer = open_answer, .req = req, .op = OP_OPEN, .begin_ns = front_begin(), .ino = ino, .fi = *fi};

	job_run(&job, (fi->flags & O_TRUNC) && front_is_long_truncate(req, ino, 0));
}

void front_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();

	/* Nothing waits for a close here; the kernel asks once and then no more. */
	fuse_reply_err(req, ENOSYS);
	counter_end(OP_FLUSH, begin);
}

void front_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();

	fuse_reply_err(req, 0);
	counter_end(OP_RELEASE, begin);
}

/* Where the bytes of a reply are put together: the ring's own payload when there is one, which saves a copy. */
static void *reply_buffer(fuse_req_t req, size_t size)
{
#if LIBFUSE_AT_LEAST(18)
	char *payload;
	size_t payload_size;
	void *region;

	if (fuse_req_is_uring(req) && !fuse_req_get_payload(req, &payload, &payload_size, &region) && payload_size >= size)
		return payload;
#endif
	return front_thread_buffer(size);
}

/*
 * A READ that fills the page cache and meets poison must fail as a whole: a short reply is taken for the end of the file. The kernel
 * then retries page by page and only the bad page fails. A direct READ (the only kind with a lock owner) may be short.
 */
static bool read_may_be_short(const struct fuse_file_info *fi)
{
	return fi && fi->lock_owner != 0;
}

void front_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();
	void *buffer = reply_buffer(req, size);
	size_t done = 0;
	int error = -ENOMEM;

	if (buffer && fi && (fi->flags & O_NOATIME))
		error = fs_read_unseen(front_of(req)->fs, ino, (uint64_t)offset, buffer, size, &done);
	else if (buffer)
		error = fs_read(front_of(req)->fs, ino, (uint64_t)offset, buffer, size, &done);

	if (error && !(error == -EIO && done && read_may_be_short(fi)))
		fuse_reply_err(req, -error);
	else
		fuse_reply_buf(req, buffer, done);
	counter_end(OP_READ, begin);
}

static void fsync_work(struct job *job)
{
	job->error = fs_fsync(front_of(job->req)->fs, job->ino);
}

static void written_answer(struct job *job)
{
	if (job->error)
		fuse_reply_err(job->req, -job->error);
	else
		fuse_reply_write(job->req, job->done);
}

static bool durable_means_msync(fuse_req_t req)
{
	return media_granularity(fs_media(front_of(req)->fs)) == MEDIA_PAGE;
}

/* After a WRITE of a file opened with O_DSYNC comes an FSYNC, except where it went past the page cache (only then it has a lock owner). */
static bool write_wants_sync(fuse_req_t req, const struct fuse_file_info *fi)
{
	return (fi->flags & O_DSYNC) && fi->lock_owner && durable_means_msync(req);
}

void front_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();
	size_t done = 0;
	unsigned ids = 0;
	int error = fs_write_as(front_of(req)->fs, ino, front_kills_ids(req, fi), (uint64_t)offset, data, size, &done, &ids);

	settle_ids(req, ino, ids, done > 0);
	if (done && write_wants_sync(req, fi)) {
		struct job job = {.work = fsync_work, .answer = written_answer, .req = req, .op = OP_WRITE, .begin_ns = begin, .ino = ino, .done = done};

		job_run(&job, true);
		return;
	}
	if (error && !done)
		fuse_reply_err(req, -error);
	else
		fuse_reply_write(req, done);
	counter_end(OP_WRITE, begin);
}

static void reply_error(struct job *job)
{
	fuse_reply_err(job->req, -job->error);
}

/* Where durable means msync, it takes as long as the disk below needs. */
static void fsync_run(fuse_req_t req, fuse_ino_t ino, enum counter_op op)
{
	struct job job = {.work = fsync_work, .answer = reply_error, .req = req, .op = op, .begin_ns = front_begin(), .ino = ino};

	job_run(&job, durable_means_msync(req));
}

void front_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	fsync_run(req, ino, OP_FSYNC);
}

static void syncfs_work(struct job *job)
{
	job->error = fs_syncfs(front_of(job->req)->fs);
}

void front_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct job job = {.work = syncfs_work, .answer = reply_error, .req = req, .op = OP_SYNCFS, .begin_ns = front_begin(), .ino = ino};

	if (fi && fi->fh == BLKDEV_SYNCFS_HANDLE)
		job_run(&job, true);
	else
		fsync_run(req, ino, OP_FSYNCDIR);
}

/*
 * The kernel does not say whether the caller may keep the bits of a file that it allocates in or copies to: root may, as far as we can tell. Mostly it has sent
 * the SETATTR that clears them already.
 */
static bool caller_kills_ids(fuse_req_t req)
{
	return fuse_req_ctx(req)->uid != 0;
}

static void fallocate_work(struct job *job)
{
	job->error = fs_fallocate_as(front_of(job->req)->fs, job->ino, caller_kills_ids(job->req), job->mode, job->pos, job->length, &job->ids);
	settle_ids(job->req, job->ino, job->ids, !job->error);
}

void front_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	struct job job = {
		.work = fallocate_work, .answer = reply_error, .req = req, .op = OP_FALLOCATE, .begin_ns = front_begin(),
		.ino = ino, .mode = mode, .pos = (uint64_t)offset, .length = (uint64_t)length,
	};

	job_run(&job, job.length >= JOB_LONG_BYTES);
}

static void copy_work(struct job *job)
{
	job->error = -EINVAL;
	if (!job->mode)
		job->error = fs_copy_range_as(front_of(job->req)->fs, caller_kills_ids(job->req), job->ino, job->pos, job->to_ino, job->to_pos, job->length,
					      &job->done, &job->ids);
	settle_ids(job->req, job->to_ino, job->ids, job->done > 0);
}

static void copy_answer(struct job *job)
{
	if (job->error && !job->done)
		fuse_reply_err(job->req, -job->error);
	else
		fuse_reply_write(job->req, job->done);
}

/* Sharing is quick, but what cannot be shared is copied. */
static bool is_long_copy(const struct job *job)
{
	struct fs_attr attr;

	return job->length >= JOB_LONG_BYTES && !fs_getattr(front_of(job->req)->fs, job->ino, &attr) &&
	       attr.record.size_bytes > job->pos && attr.record.size_bytes - job->pos >= JOB_LONG_BYTES;
}

void front_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, struct fuse_file_info *from_fi, fuse_ino_t to,
			   off_t to_offset, struct fuse_file_info *to_fi, size_t length, int flags)
{
	struct job job = {
		.work = copy_work, .answer = copy_answer, .req = req, .op = OP_COPY_FILE_RANGE, .begin_ns = front_begin(), .mode = flags,
		.ino = from, .pos = (uint64_t)from_offset, .to_ino = to, .to_pos = (uint64_t)to_offset, .length = length,
	};

#if !LIBFUSE_AT_LEAST(18)
	job.length = min_u64(length, 1u << 30); /* the reply has 32 bits */
#endif
	job_run(&job, is_long_copy(&job));
}

void front_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();
	uint64_t found = 0;
	/*
	 * The kernel asks without writing back first, so what it holds back in a hole would be taken for the hole. Where it gathers writes it is told to go
	 * without (it then calls everything data); else only stores through a live mapping are missed, for munmap() writes them back.
	 */
	int error = front_of(req)->writeback ? -ENOSYS : fs_seek(front_of(req)->fs, ino, (uint64_t)offset, whence, &found);

	if (error)
		fuse_reply_err(req, -error);
	else
		fuse_reply_lseek(req, (off_t)found);
	counter_end(OP_LSEEK, begin);
}
