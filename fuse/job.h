/*
 * Requests that may take long. They are worked on where they come in, unless that would hold up all requests of a CPU (fuse/ring.h); then by
 * one of a few threads that are started when first needed.
 */
#ifndef FUSE_JOB_H
#define FUSE_JOB_H

#include "fuse/front.h"
#include "fuse/ring.h"

/* From here on changing that much of a file may take long. */
#define JOB_LONG_BYTES (64ull << 20)

struct job {
	/* Sets error and what else is the result. On any thread. */
	void (*work)(struct job *job);
	/* Replies, and nothing that takes time. On the thread that got the request. */
	void (*answer)(struct job *job);
	fuse_req_t req;
	enum counter_op op;
	uint64_t begin_ns;
	fuse_ino_t ino, to_ino;
	uint64_t pos, to_pos, length; /* what of it means something is the operation's own */
	unsigned set;
	int mode;
	struct inode_record values;
	struct fuse_file_info fi;
	int error;
	unsigned ids; /* what became of setuid bits that the kernel believes in: FS_IDS_ */
	uint64_t done;
	struct fs_attr attr;
	struct ioctl_call *ioctl; /* fuse/ioctl.c: what came with it and goes back; answer() frees it */
	/* Private to job.c */
	struct ring *ring;
	struct ring_call call;
	struct job *next;
};

/* Work, answer, count. The caller's job is copied where it goes elsewhere; without memory or threads it does not. */
void job_run(struct job *job, bool is_long);
/*
 * For work that waits for other requests, as a notification about pages does: never on a thread that serves any, whatever the transport. -ENOMEM is answered where it cannot be.
 * `answer` may then run on any thread.
 */
void job_run_apart(struct job *job);
/* No request comes in any more: end the threads. */
void job_stop(void);

#endif
