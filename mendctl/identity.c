/* label, uuid, resize, shutdown: show, or change, one thing of a filesystem. */
#include <errno.h>
#include <string.h>

#include "mendctl/query.h"
#include "mendctl/subcommand.h"

/* Without a value the filesystem is shown as it is. */
static int identity_ask(const struct subcommand *self, const struct options *options, const char *command,
			const struct command_args *args, struct why *why)
{
	struct json_object *extra = NULL;
	struct output output;
	struct target target;
	int error = target_find(options->words[0], why, &target);

	if (error)
		return error;
	output_begin(&output, options->json, self->array, self->columns, self->nothing);
	error = query_ask(&target, command, args, &output, &extra, why);
	target_fini(&target);
	return query_finish(&output, extra, error, why);
}

int identity_run(const struct subcommand *self, const struct options *options, struct why *why)
{
	struct command_args args = COMMAND_ARGS_INIT;
	bool changes = options->count_words > 1;

	args.text = changes ? options->words[1] : NULL;
	return identity_ask(self, options, changes ? self->name : "list", &args, why);
}

int shutdown_run(const struct subcommand *self, const struct options *options, struct why *why)
{
	struct command_args args = COMMAND_ARGS_INIT;

	args.text = options->mode;
	return identity_ask(self, options, self->name, &args, why);
}

int resize_run(const struct subcommand *self, const struct options *options, struct why *why)
{
	struct command_args args = COMMAND_ARGS_INIT;

	if (options->count_words > 1 && strcmp(options->words[1], "max"))
		options_parse_size(options->words[1], &args.size_bytes);
	return identity_ask(self, options, self->name, &args, why);
}

int resize_check(const struct options *options, struct why *why)
{
	uint64_t size;

	if (options->count_words < 2 || !strcmp(options->words[1], "max"))
		return 0;
	if (options_parse_size(options->words[1], &size) || !size)
		return why_set(why, -EINVAL, "%s: give a size in bytes, plain or with K, M, G or T, or max", options->words[1]);
	return 0;
}
