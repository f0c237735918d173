/*
 * The FUSE front: one struct per mount, the request handlers, what they share. Handlers turn the sign of errors and reply exactly once,
 * at their end. Request threads never wait for a kernel notification; those are sent by the notify thread (fuse/session.c). What the kernel keeps of a
 * directory's names goes before the answer to who changes them, which waits for nobody (fuse/names.c).
 */
#ifndef FUSE_FRONT_H
#define FUSE_FRONT_H

#include <pthread.h>
#include <stdatomic.h>

#include "fs/fs.h"
#include "fs/query.h"
#include "fuse/counters.h"
#include "fuse/fuse_api.h"

/* The daemon is the only writer and tells the kernel what changes by itself, so what the kernel knows stays true. */
#define FRONT_TIMEOUT_SECONDS 86400.0
/* With writeback the kernel never learns that what it handed over takes space: st_blocks of a file would stay 0, which some take for one hole. */
#define FRONT_WRITEBACK_SECONDS 1.0
#define FRONT_MAX_WRITE (1u << 20) /* the kernel's default limit of max_pages */

/* fi->fh of an open file: this and how it is open (O_ACCMODE). With no_open it is 0: nobody knows. */
#define FRONT_HANDLE_KNOWN 4u

struct front {
	struct fs *fs;
	struct fuse_session *session;
	const char *mountpoint;
	pthread_mutex_t lock; /* of the two below: the session outlives every notification that is on its way to the kernel */
	pthread_cond_t idle;
	unsigned count_notifying;
	bool is_notifying; /* the session may be used for notifications */
	bool writeback;
	bool no_opendir; /* the kernel caches directories by itself after ENOSYS */
	bool no_open;	 /* ENOSYS to OPEN: the kernel opens and closes without asking, for good */
	bool direct_writers; /* opens that only write are direct */
	bool killpriv;	 /* requests say whether setuid bits must go */
	bool may_idle;	 /* its threads may be SCHED_IDLE */
	bool uring;	 /* the kernel took FUSE over io_uring */
	bool is_blkdev;	 /* mounted as fuseblk */
	/*
	 * How many requests may wait for others of the kernel's at a time, and do. A ring holds few requests (io_uring_q_depth of libfuse), and when all of them wait for one that finds no
	 * place in it, they wait for ever.
	 */
	unsigned most_waiting;
	atomic_uint count_waiting;
	void (*on_init)(void *arg);
	void *on_init_arg;
};

extern const struct fuse_lowlevel_ops front_ops;

/*
 * Each handler's first call: the time, for counter_end(). libfuse cancels the threads of its io_uring queues at the end of the session, also
 * in the middle of a handler, which holds locks and references: no cancellation on a thread that has served a request (they end by their
 * eventfd as well).
 */
static inline uint64_t front_begin(void)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	return counter_begin();
}

static inline struct front *front_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

void front_stat(const struct fs_attr *attr, struct stat *out);
double front_attr_timeout(const struct front *front, const struct fs_attr *attr);
void front_entry(const struct front *front, const struct fs_attr *attr, struct fuse_entry_param *out);
struct fs_who front_who(fuse_req_t req);
/* Reply with an entry, giving the lookup reference back if the kernel did not get it. */
void front_reply_entry(fuse_req_t req, int error, const struct fs_attr *attr);

/* The kernel learns, a moment later and not on this thread, that the attributes are others: where the answer cannot say so. fuse/session.c. */
void session_forget_attr(struct front *front, inum_t ino);

/* Handlers by file: names.c */
void front_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void front_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void front_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void front_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void front_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void front_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void front_readlink(fuse_req_t req, fuse_ino_t ino);
void front_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void front_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void front_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
		  unsigned flags);
void front_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name);
void front_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void front_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi);
/* attr.c */
void front_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void front_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *stat, int set, struct fuse_file_info *fi);
void front_statfs(fuse_req_t req, fuse_ino_t ino);
#if LIBFUSE_AT_LEAST(18)
void front_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi);
#endif
/* xattr.c */
void front_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void front_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void front_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void front_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
/* dir.c */
void front_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void front_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void front_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void front_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
/* file.c */
/* Did the kernel say that the setuid and setgid bits must go? */
bool front_kills_ids(fuse_req_t req, const struct fuse_file_info *fi);
void front_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void front_open_flags(const struct front *front, struct fuse_file_info *fi);
/* FS_SET_KILL_SETGID, if this caller's changes clear setgid though the group may not execute (attr.c). */
unsigned front_set_of_stranger(fuse_req_t req, const struct fs_attr *attr);
/* Will making the file that short take long? */
bool front_is_long_truncate(fuse_req_t req, fuse_ino_t ino, uint64_t size);
/* Nothing is kept per open file: these are counted, and no more. */
void front_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void front_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void front_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void front_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset, struct fuse_file_info *fi);
void front_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void front_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void front_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi);
void front_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, struct fuse_file_info *from_fi, fuse_ino_t to,
			   off_t to_offset, struct fuse_file_info *to_fi, size_t length, int flags);
void front_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi);
/* ioctl.c */
void front_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, void *argument, struct fuse_file_info *fi, unsigned flags, const void *in,
		 size_t in_size, size_t out_size);
/* The buffer of this thread: size bytes, aligned to 4096, or NULL. Freed when the thread ends. */
void *front_thread_buffer(size_t size);

#endif
