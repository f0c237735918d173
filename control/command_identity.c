/* What may be changed of a filesystem's identity and size. Each answers with the filesystem as `list` shows it afterwards. */
#include "control/command_bodies.h"

#include <errno.h>
#include <string.h>
#include <uuid/uuid.h>

int command_label(const struct command_context *context, const struct command_args *args, struct command_sink *sink,
		  struct why *why)
{
	int error = args->text ? fs_set_label(context->fs, args->text, why) : why_set(why, -EINVAL, "label needs a label");

	return error ? error : command_list(context, args, sink, why);
}

int command_uuid(const struct command_context *context, const struct command_args *args, struct command_sink *sink,
		 struct why *why)
{
	uuid_t uuid;
	int error;

	if (!args->text)
		return why_set(why, -EINVAL, "uuid needs a uuid, or random");
	if (!strcmp(args->text, "random"))
		uuid_generate_random(uuid);
	else if (uuid_parse(args->text, uuid))
		return why_set(why, -EINVAL, "%.64s is no uuid; give one, or random", args->text);
	error = fs_set_uuid(context->fs, uuid, why);
	return error ? error : command_list(context, args, sink, why);
}

int command_resize(const struct command_context *context, const struct command_args *args, struct command_sink *sink,
		   struct why *why)
{
	int error = fs_resize(context->fs, args->size_bytes, why);

	return error ? error : command_list(context, args, sink, why);
}
