/* Our own libfuse is linked statically: the linker puts these around its two dispatchers (--wrap, fuse/CMakeLists.txt). */
#include "fuse/blkdev.h"

struct fuse_chan;
struct fuse_req;

void __real_fuse_session_process_buf_internal(struct fuse_session *session, const struct fuse_buf *buf, struct fuse_chan *chan);
void __wrap_fuse_session_process_buf_internal(struct fuse_session *session, const struct fuse_buf *buf, struct fuse_chan *chan);
void __real_fuse_session_process_uring_cqe(struct fuse_session *session, struct fuse_req *req, struct fuse_in_header *header, void *argument,
					   void *payload, size_t payload_length);
void __wrap_fuse_session_process_uring_cqe(struct fuse_session *session, struct fuse_req *req, struct fuse_in_header *header, void *argument,
					   void *payload, size_t payload_length);

int blkdev_watch(struct fuse_session *session)
{
	blkdev_watch_now(session);
	return 0;
}

/* Spliced requests (we do not ask for them) are writes. */
void __wrap_fuse_session_process_buf_internal(struct fuse_session *session, const struct fuse_buf *buf, struct fuse_chan *chan)
{
	struct fuse_in_header *header = buf->mem;

	if ((buf->flags & FUSE_BUF_IS_FD) || !blkdev_take(header, header + 1))
		__real_fuse_session_process_buf_internal(session, buf, chan);
}

void __wrap_fuse_session_process_uring_cqe(struct fuse_session *session, struct fuse_req *req, struct fuse_in_header *header, void *argument,
					   void *payload, size_t payload_length)
{
	if (!blkdev_take(header, argument))
		__real_fuse_session_process_uring_cqe(session, req, header, argument, payload, payload_length);
}
