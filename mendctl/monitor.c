#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "mendctl/query.h"
#include "mendctl/subcommand.h"

static int print_event(struct json_object *event, struct why *why)
{
	if (puts(json_line(event, NULL)) >= 0 && !fflush(stdout))
		return 0;
	return why_set(why, -errno, "writing to stdout: %s", strerror(errno));
}

static bool is_unmount(struct json_object *event)
{
	const char *type;

	return json_get_text(event, "type", &type) == 1 && !strcmp(type, "unmount");
}

static int follow(struct client *client, struct why *why)
{
	struct json_object *event;
	bool last = false;
	int result;

	while (!last && (result = client_next(client, &event, why)) > 0) {
		last = is_unmount(event);
		result = print_event(event, why);
		json_object_put(event);
		if (result)
			return result;
	}
	if (last)
		return 0;
	if (!result) /* an end without a last event: no daemon of ours does that */
		json_object_put(event);
	return result ? result
		      : why_set(why, -EPROTO,
				"the daemon ended the stream without unmounting; see its log");
}

int monitor_run(const struct subcommand *self, const struct options *options, struct why *why)
{
	struct command_args args = COMMAND_ARGS_INIT;
	struct target target;
	int error = target_find(options->words[0], why, &target);

	if (error)
		return error;
	if (!target.client)
		error = why_set(
		    why, -EOPNOTSUPP,
		    "%s is not mounted, so nothing happens to it; mount it with: mendfs %s DIR",
		    options->words[0], options->words[0]);
	if (!error)
		error = client_request(target.client, self->name, &args, why);
	if (!error)
		error = follow(target.client, why);
	target_fini(&target);
	return error;
}
