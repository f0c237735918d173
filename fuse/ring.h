/*
 * What libfuse's io_uring threads do between requests. There is one per CPU, so a handler that takes long holds up everything that this CPU
 * sends. A long request is therefore worked on by another thread, but answered by the ring's own: libfuse 3.18 submits without a lock,
 * and the kernel hands the next request of an entry to the thread that submitted it, however busy that one is by then.
 */
#ifndef FUSE_RING_H
#define FUSE_RING_H

struct ring;

/* Something to be done by a ring's thread. */
struct ring_call {
	struct ring_call *next;
	void (*run)(struct ring_call *call);
};

/* The ring whose thread this is; NULL on any other thread, and where libfuse's rings cannot be had. */
struct ring *ring_current(void);
/* By the ring's thread: one of its requests is being worked on elsewhere. Its end waits for all of them. */
void ring_lend(struct ring *ring);
/* By any thread: such a request is done, `call` answers it. The ring's thread runs it as soon as it has nothing else to do. */
void ring_give_back(struct ring *ring, struct ring_call *call);

#endif
