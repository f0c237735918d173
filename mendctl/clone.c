#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/mendfs_ioctl.h"
#include "mendctl/query.h"
#include "mendctl/subcommand.h"

#define COPY_BYTES (1ull << 30) /* what one FUSE request can carry */
#define AGAIN_TIMES 1000
#define AGAIN_US 1000

struct clone {
	const char *from, *to;
	int from_fd, to_fd;
	struct stat from_st, to_st;
	bool created;
};

/* The caller's own rights decide: both files are opened by the caller, in the ordinary way. */
static int open_source(struct clone *clone, struct why *why)
{
	clone->from_fd = open(clone->from, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (clone->from_fd < 0 || fstat(clone->from_fd, &clone->from_st))
		return why_set(why, -errno, "%s: %s", clone->from, strerror(errno));
	if (!S_ISREG(clone->from_st.st_mode))
		return why_set(why, -EINVAL, "%s is not a regular file", clone->from);
	return 0;
}

static int open_destination(struct clone *clone, bool force, struct why *why)
{
	mode_t mode = clone->from_st.st_mode & 0777;

	clone->to_fd = open(clone->to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	clone->created = clone->to_fd >= 0;
	if (!clone->created && errno == EEXIST) {
		if (!force)
			return why_set(why, -EEXIST, "%s exists; give -f to replace its content",
				       clone->to);
		clone->to_fd = open(clone->to, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
	}
	if (clone->to_fd < 0 || fstat(clone->to_fd, &clone->to_st))
		return why_set(why, -errno, "%s: %s", clone->to, strerror(errno));
	if (!S_ISREG(clone->to_st.st_mode))
		return why_set(why, -EINVAL, "%s is not a regular file", clone->to);
	if (clone->to_st.st_dev != clone->from_st.st_dev)
		return why_set(
		    why, -EXDEV,
		    "%s and %s are not in the same filesystem: only cp can copy between them",
		    clone->from, clone->to);
	if (clone->to_st.st_ino == clone->from_st.st_ino)
		return why_set(why, -EINVAL, "%s and %s are the same file", clone->from, clone->to);
	return 0;
}

/* Shares blocks as well, but not in one step. */
static int copy_by_range(const struct clone *clone, struct why *why)
{
	ssize_t copied;

	if (ftruncate(clone->to_fd, 0))
		return why_set(why, -errno, "%s: %s", clone->to, strerror(errno));
	do {
		copied = copy_file_range(clone->from_fd, NULL, clone->to_fd, NULL, COPY_BYTES, 0);
	} while (copied > 0 || (copied < 0 && errno == EINTR));
	return copied < 0 ? why_set(why, -errno, "cloning to %s: %s", clone->to, strerror(errno))
			  : 0;
}

static int emit_clone(const struct clone *clone, struct output *output, struct why *why)
{
	struct json_object *object = json_object_new_object();

	if (object && !json_add_u64(object, "inumber", clone->to_st.st_ino) &&
	    !json_add_u64(object, "len", (uint64_t)clone->from_st.st_size))
		return output_emit(output, object);
	json_object_put(object);
	return why_set(why, -ENOMEM, "out of memory");
}

/* Mounted with -o writeback the kernel goes by its own size of a file, which a change that it has not made leaves as it was. */
static int settle_size(const struct clone *clone, struct why *why)
{
	struct stat st;

	if (fstat(clone->to_fd, &st) ||
	    (st.st_size != clone->from_st.st_size && ftruncate(clone->to_fd, clone->from_st.st_size)))
		return why_set(why, -errno, "%s: %s", clone->to, strerror(errno));
	return 0;
}

/* Anybody may; -EOPNOTSUPP: it must be asked for in another way. */
static int clone_by_ioctl(const struct clone *clone, struct why *why)
{
	struct mendfs_clone order = {.flags = MENDFS_CLONE_WHOLE};
	unsigned times = 0;
	int rc;

	if (ioctl(clone->from_fd, MENDFS_IOC_TICKET, &order.source))
		return -EOPNOTSUPP;
	while ((rc = ioctl(clone->to_fd, MENDFS_IOC_CLONE, &order)) && errno == EAGAIN && times++ < AGAIN_TIMES)
		usleep(AGAIN_US);
	if (!rc)
		return settle_size(clone, why);
	if (errno == EAGAIN || errno == EOPNOTSUPP || errno == EACCES)
		return -EOPNOTSUPP;
	return why_set(why, -errno, "cloning to %s: %s", clone->to, strerror(errno));
}

static int clone_by_daemon(const struct clone *clone, struct target *target, struct output *output,
			   struct why *why)
{
	struct command_args args = COMMAND_ARGS_INIT;
	struct json_object *extra = NULL;
	int error;

	/* The daemon sees what the kernel has given it: pages still dirty are not among that, and those of the destination must not come later. */
	if (fsync(clone->from_fd))
		return why_set(why, -errno, "%s: %s", clone->from, strerror(errno));
	if (fsync(clone->to_fd))
		return why_set(why, -errno, "%s: %s", clone->to, strerror(errno));
	args.ino = clone->from_st.st_ino;
	args.has_file = true;
	args.to_ino = clone->to_st.st_ino;
	error = query_ask(target, "clone", &args, output, &extra, why);
	json_object_put(extra);
	return error ? error : settle_size(clone, why);
}

static int clone_contents(const struct clone *clone, struct output *output, struct why *why)
{
	struct target target;
	int error = clone_by_ioctl(clone, why);

	if (error != -EOPNOTSUPP)
		return error ? error : emit_clone(clone, output, why);
	error = target_find(clone->from, why, &target);
	if (error)
		return error;
	if (target.client)
		error = clone_by_daemon(clone, &target, output, why);
	else
		error = why_set(why, -EINVAL, "%s is not in a mounted mendfs", clone->from);
	target_fini(&target);
	if (error == -EPERM || error == -EACCES) {
		error = copy_by_range(clone, why);
		if (!error)
			error = emit_clone(clone, output, why);
	}
	return error;
}

static int clone_files(struct clone *clone, bool force, struct output *output, struct why *why)
{
	int error = open_source(clone, why);

	if (!error)
		error = open_destination(clone, force, why);
	if (!error)
		error = clone_contents(clone, output, why);
	if (error && clone->created)
		unlink(clone->to);
	if (clone->to_fd >= 0)
		close(clone->to_fd);
	if (clone->from_fd >= 0)
		close(clone->from_fd);
	return error;
}

int clone_run(const struct subcommand *self, const struct options *options, struct why *why)
{
	struct clone clone = {
	    .from = options->words[0], .to = options->words[1], .from_fd = -1, .to_fd = -1};
	struct output output;
	int error;

	output_begin(&output, options->json, self->array, self->columns, self->nothing);
	error = clone_files(&clone, options->given & OPTION_FORCE, &output, why);
	if (!error)
		return output_end(&output, NULL, why);
	output_abandon(&output);
	return error;
}
