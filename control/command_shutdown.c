/* The end of use: what FS_IOC_SHUTDOWN does, for whoever may use the control socket. */
#include "control/command_bodies.h"

#include <errno.h>
#include <string.h>

/* As xfs_io(8) and the ioctl name them. */
static const char *const modes[] = {
    [FS_STOP_SYNCED] = "default", [FS_STOP_LOGGED] = "logflush", [FS_STOP_AT_ONCE] = "nologflush"};

int command_stop_mode_parse(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		if (!strcmp(modes[i], name))
			return (int)i;
	return -EINVAL;
}

static int shut_down(const struct command_context *context, enum fs_stop_mode mode)
{
	if (context->hooks && context->hooks->shut_down)
		return context->hooks->shut_down(context->hooks_arg, mode);
	return fs_stop(context->fs, mode);
}

int command_shutdown(const struct command_context *context, const struct command_args *args, struct command_sink *sink, struct why *why)
{
	int mode = args->text ? command_stop_mode_parse(args->text) : FS_STOP_SYNCED;
	int error;

	if (mode < 0)
		return why_set(why, -EINVAL, "%.64s is no mode: it is default, logflush or nologflush", args->text);
	error = shut_down(context, (enum fs_stop_mode)mode);
	if (error)
		return why_set(why, error, "shut down, but not everything could be made durable: %s", strerror(-error));
	return command_list(context, args, sink, why);
}
