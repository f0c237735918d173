/* Requests on the content of files. */
#include "fuse/front.h"

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

void front_open_flags(const struct front *front, struct fuse_file_info *fi)
{
	fi->keep_cache = 1;
	fi->noflush = 1;
	if (fi->flags & O_DIRECT) {
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

void front_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();
	struct inode_record empty = {.size_bytes = 0};
	struct fs_attr attr;
	bool killed = false;
	int error = 0;

	if (front_of(req)->no_open)
		error = -ENOSYS;
	else if (fi->flags & O_TRUNC)
		error = fs_kill_privileges(front_of(req)->fs, ino, front_kills_ids(req, fi), &killed);
	if (!error && (fi->flags & O_TRUNC))
		error = fs_setattr(front_of(req)->fs, ino, FS_SET_SIZE | FS_SET_MTIME_NOW, &empty, &attr);
	if (killed)
		session_forget_attr(front_of(req), ino);
	if (error) {
		fuse_reply_err(req, -error);
	} else {
		front_open_flags(front_of(req), fi);
		fuse_reply_open(req, fi);
	}
	counter_end(OP_OPEN, begin);
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

void front_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();
	size_t done = 0;
	bool killed = false;
	int error = fs_write_as(front_of(req)->fs, ino, front_kills_ids(req, fi), (uint64_t)offset, data, size, &done, &killed);

	if (killed)
		session_forget_attr(front_of(req), ino);
	if (error && !done)
		fuse_reply_err(req, -error);
	else
		fuse_reply_write(req, done);
	counter_end(OP_WRITE, begin);
}

void front_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();

	fuse_reply_err(req, -fs_fsync(front_of(req)->fs, ino));
	counter_end(OP_FSYNC, begin);
}

void front_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();

	fuse_reply_err(req, -fs_fsync(front_of(req)->fs, ino));
	counter_end(OP_FSYNCDIR, begin);
}

/*
 * The kernel does not say whether the caller may keep the bits of a file that it allocates in or copies to: root may, as far as we can tell. Mostly it has sent
 * the SETATTR that clears them already.
 */
static int kill_privileges(fuse_req_t req, fuse_ino_t ino)
{
	return fs_kill_privileges(front_of(req)->fs, ino, fuse_req_ctx(req)->uid != 0, NULL);
}

void front_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();

	int error = kill_privileges(req, ino);

	if (!error)
		error = fs_fallocate(front_of(req)->fs, ino, mode, (uint64_t)offset, (uint64_t)length);
	fuse_reply_err(req, -error);
	counter_end(OP_FALLOCATE, begin);
}

void front_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, struct fuse_file_info *from_fi, fuse_ino_t to,
			   off_t to_offset, struct fuse_file_info *to_fi, size_t length, int flags)
{
	uint64_t begin = front_begin();
	uint64_t done = 0;
	int error = flags ? -EINVAL : kill_privileges(req, to);

	if (!error)
		error = fs_copy_range(front_of(req)->fs, from, (uint64_t)from_offset, to, (uint64_t)to_offset, length, &done);
	if (error && !done)
		fuse_reply_err(req, -error);
	else
		fuse_reply_write(req, done);
	counter_end(OP_COPY_FILE_RANGE, begin);
}

void front_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();
	uint64_t found = 0;
	int error = fs_seek(front_of(req)->fs, ino, (uint64_t)offset, whence, &found);

	if (error)
		fuse_reply_err(req, -error);
	else
		fuse_reply_lseek(req, (off_t)found);
	counter_end(OP_LSEEK, begin);
}
