/* What the handlers of ioctls share. Each takes a verified call and answers 0 or negative errno; what it puts into `out` goes back to the caller. */
#ifndef FUSE_IOCTL_H
#define FUSE_IOCTL_H

#include "fuse/front.h"

#define IOCTL_BYTES_MAX 4096 /* in either direction */

struct ioctl_call {
	const struct ioctl *ioctl;
	struct front *front;
	fuse_ino_t ino;
	uint64_t handle; /* how it is open: fuse/front.h */
	struct fs_who who;
	fuse_req_t req;	   /* not to be answered */
	pid_t pid;	   /* of the thread that waits; 0: not known here */
	uint64_t argument; /* as the caller gave it: an address of its own, mostly */
	size_t out_used;	     /* the handler's answer: what the table says at most */
	uint8_t in[IOCTL_BYTES_MAX]; /* as many as the table says at least */
	uint8_t out[IOCTL_BYTES_MAX];
};

void ioctl_reply(struct ioctl_call *call, const void *answer, size_t length);

/* ioctl_share.c */
int ioctl_ticket(struct ioctl_call *call);
int ioctl_clone(struct ioctl_call *call); /* waits for requests of the kernel's */
int ioctl_dedupe(struct ioctl_call *call);
int ioctl_map(struct ioctl_call *call);

#endif
