/* FITRIM: fstrim(8). Not from within a slice of it: each asks whether it is still wanted. */
#include "fuse/trim.h"

#include <errno.h>
#include <string.h>

#include "fuse/caller.h"

/* Between two looks at the caller, which cost some system calls. */
#define STEPS_PER_LOOK 16u

struct trim_request {
	const struct ioctl_call *call;
	unsigned steps;
};

static bool trim_goes_on(void *arg)
{
	struct trim_request *request = arg;
	const struct ioctl_call *call = request->call;

	if (fuse_req_interrupted(call->req) || fuse_session_exited(call->front->session))
		return false;
	return request->steps++ % STEPS_PER_LOOK || !caller_is_signalled(call->pid);
}

int trim_ioctl(struct ioctl_call *call)
{
	struct trim_request request = {.call = call};
	struct fstrim_range range;
	uint64_t trimmed;
	int error;

	if (!caller_is_admin(call->pid))
		return -EPERM;
	memcpy(&range, call->in, sizeof(range));
	error = fs_trim(call->front->fs, &(struct fs_trim_range){range.start, range.len, range.minlen}, trim_goes_on, &request, &trimmed);
	if (error)
		return error;
	range.len = trimmed;
	memcpy(call->out, &range, sizeof(range));
	call->out_used = sizeof(range);
	return 0;
}
