#include "mendctl/query.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mendctl/progress.h"
#include "mendctl/subcommand.h"
#include "mendctl/unmounted.h"

#define ANSWER_SECONDS 5

static int ask_daemon(struct target *target, const char *command, const struct command_args *args,
		      struct output *output, struct json_object **extra, struct why *why)
{
	struct command_args asked = *args;
	struct json_object *object;
	int result;

	asked.progress = progress_is_wanted();
	result = client_request(target->client, command, &asked, why);
	if (result)
		return result;
	while ((result = client_next(target->client, &object, why)) > 0)
		if (!progress_take(object) && output_emit(output, object))
			return why_set(why, output->error, "writing to stdout: %s",
				       strerror(-output->error));
	progress_end();
	if (!result) {
		json_object_put(*extra);
		*extra = object;
	}
	return result;
}

int query_ask(struct target *target, const char *command, const struct command_args *args,
	      struct output *output, struct json_object **extra, struct why *why)
{
	struct command_sink sink = {output_emit, progress_show, output, NULL};
	int error;

	if (target->client)
		return ask_daemon(target, command, args, output, extra, why);
	if (!*extra)
		*extra = json_object_new_object();
	sink.extra = *extra;
	if (!sink.extra)
		return why_set(why, -ENOMEM, "out of memory");
	error = unmounted_run(target->source, command_find(command), args, &sink, why);
	progress_end();
	return error;
}

/* 1: found in the mount; 0: not there. */
static int find_in_mount(const struct target *target, const char *file, struct command_args *args)
{
	struct stat st;
	int fd = open(file, O_PATH | O_CLOEXEC);
	bool inside = fd >= 0 && !fstat(fd, &st) && target->dev && st.st_dev == target->dev;

	if (fd >= 0)
		close(fd);
	if (inside)
		args->ino = st.st_ino;
	return inside;
}

int query_file(const struct target *target, const char *file, struct command_args *args,
	       struct why *why)
{
	args->has_file = true;
	if (target->client && find_in_mount(target, file, args))
		return 0;
	if (file[0] != '/')
		return why_set(why, -ENOENT,
			       "%s: no such file in %s; name one inside the mount, or from the "
			       "filesystem's root with a leading /",
			       file, target->mountpoint ? target->mountpoint : target->source);
	args->path = file;
	return 0;
}

static int take_range(const struct options *options, struct command_args *args, struct why *why)
{
	uint64_t sectors = UINT64_MAX / SECTOR_BYTES;

	args->all = options->given & OPTION_ALL;
	args->latent = options->given & OPTION_LATENT;
	args->kind = options->kind;
	args->no_wait = options->given & OPTION_NO_WAIT;
	args->text = options->given & OPTION_HARDWARE ? "hardware" : NULL;
	if (options->given & OPTION_SECTOR) {
		if (options->sector > sectors || options->count > sectors)
			return why_set(why, -ERANGE, "--sector and --count are too large");
		args->offset = options->sector * SECTOR_BYTES;
		args->length_bytes = options->count * SECTOR_BYTES;
	} else {
		args->offset = options->given & OPTION_DEVICE_OFFSET ? options->device_offset
								     : options->offset;
		args->length_bytes = options->length;
	}
	args->has_range = !args->all && options->given & (OPTION_LENGTH | OPTION_COUNT);
	if (args->length_bytes > UINT64_MAX - args->offset)
		return why_set(why, -ERANGE, "the range ends beyond 2^64");
	return 0;
}

int query_finish(struct output *output, struct json_object *extra, int error, struct why *why)
{
	if (error)
		output_abandon(output);
	else
		error = output_end(output, extra, why);
	json_object_put(extra);
	return error;
}

int query_run(const struct subcommand *self, const struct options *options, struct why *why)
{
	struct command_args args = COMMAND_ARGS_INIT;
	struct json_object *extra = NULL;
	struct output output;
	struct target target;
	int error = take_range(options, &args, why);

	if (!error)
		error = target_find(options->words[0], why, &target);
	if (error)
		return error;
	output_begin(&output, options->json, self->array, self->columns, self->nothing);
	if (options->file)
		error = query_file(&target, options->file, &args, why);
	if (!error)
		error = query_ask(&target, self->name, &args, &output, &extra, why);
	target_fini(&target);
	return query_finish(&output, extra, error, why);
}

/* --- map --- */

static int find_mapped(const struct options *options, struct target *target,
		       struct command_args *args, struct why *why)
{
	const char *name = options->words[0];
	const char *file = options->count_words > 1 ? options->words[1]
			   : options->file          ? options->file
						    : name;
	int error = target_find(name, why, target);

	if (error)
		return error;
	if (file == name && !target->client)
		error = why_set(
		    why, -EINVAL,
		    "%s is not mounted: name the file in it too, as in: mendctl map %s /PATH", name,
		    name);
	else
		error = query_file(target, file, args, why);
	if (error)
		target_fini(target);
	return error;
}

int query_map(const struct subcommand *self, const struct options *options, struct why *why)
{
	struct command_args args = COMMAND_ARGS_INIT;
	struct json_object *extra = NULL;
	struct output output;
	struct target target;
	int error = find_mapped(options, &target, &args, why);

	if (error)
		return error;
	output_begin(&output, options->json, self->array, self->columns, self->nothing);
	error = query_ask(&target, self->name, &args, &output, &extra, why);
	target_fini(&target);
	return query_finish(&output, extra, error, why);
}

/* --- list --- */

/* One element is all we want: whoever sends more, or nothing, holds nobody up. */
static int ask_one(struct client *client, const char *command, struct output *output,
		   struct why *why)
{
	struct command_args args = COMMAND_ARGS_INIT;
	struct json_object *object;
	int result = client_request(client, command, &args, why);

	client_limit(client, ANSWER_SECONDS);
	if (!result)
		result = client_next(client, &object, why);
	if (result < 0)
		return result;
	if (result)
		return output_emit(output, object);
	json_object_put(object);
	return why_set(why, -EPROTO, "the daemon has no answer; use the mendctl of its version");
}

static int ask_and_end(struct target *target, const char *command, struct output *output,
		       struct why *why)
{
	struct command_args args = COMMAND_ARGS_INIT;
	struct json_object *extra = NULL;
	int error;

	if (target->client)
		error = ask_one(target->client, command, output, why);
	else
		error = query_ask(target, command, &args, output, &extra, why);
	json_object_put(extra);
	target_fini(target);
	return error;
}

/* What the mount table alone says of a filesystem whose daemon does not tell us more. */
static int list_bare(const struct mount_entry *mount, struct output *output)
{
	struct json_object *object = json_object_new_object();

	if (object && !json_add_text(object, "device", mount->source) &&
	    !json_add_text(object, "mountpoint", mount->mountpoint))
		return output_emit(output, object);
	json_object_put(object);
	return -ENOMEM;
}

static bool seen_before(const struct mount_entry *entries, const struct mount_entry *mount)
{
	while (entries != mount && entries->dev != mount->dev)
		entries = entries->next;
	return entries != mount;
}

static int list_mount(const struct mount_entry *mount, struct output *output, struct why *why)
{
	struct target target = {.client = NULL};
	struct why reason;
	int error = target_connect(mount, why, &target);

	if (error)
		return error;
	error = ask_and_end(&target, "list", output, &reason);
	return error ? why_set(why, error, "%s: %s", mount->mountpoint, reason.text) : 0;
}

static int list_mounts(struct output *output, struct why *why)
{
	struct mount_entry *entries;
	int error = mounts_read(&entries, why);

	if (error)
		return error;
	for (const struct mount_entry *mount = entries; !error && mount; mount = mount->next) {
		struct why reason;

		if (seen_before(entries, mount)) /* bind mounts */
			continue;
		error = list_mount(mount, output, &reason);
		if (!error)
			continue;
		fprintf(stderr, "mendctl: %s\n", reason.text);
		error = list_bare(mount, output);
	}
	mounts_free(entries);
	return error ? why_set(why, error, "writing to stdout: %s", strerror(-error)) : 0;
}

static int list_targets(const struct options *options, struct output *output, struct why *why)
{
	int error = 0;

	for (int i = 0; !error && i < options->count_words; i++) {
		struct target target;

		error = target_find(options->words[i], why, &target);
		if (!error)
			error = ask_and_end(&target, "list", output, why);
	}
	return error;
}

int query_list(const struct subcommand *self, const struct options *options, struct why *why)
{
	struct output output;
	int error;

	output_begin(&output, options->json, self->array, self->columns, self->nothing);
	error =
	    options->count_words ? list_targets(options, &output, why) : list_mounts(&output, why);
	return query_finish(&output, NULL, error, why);
}

/* --- version --- */

static int emit_own_version(struct output *output)
{
	struct json_object *object = json_object_new_object();

	if (object && !json_add_text(object, "program", "mendctl") &&
	    !json_add_text(object, "version", MENDFS_VERSION) &&
	    !json_add_u64(object, "format_version", FORMAT_VERSION))
		return output_emit(output, object);
	json_object_put(object);
	return -ENOMEM;
}

int query_version(const struct subcommand *self, const struct options *options, struct why *why)
{
	struct output output;
	struct target target;
	int error = 0;

	output_begin(&output, options->json, self->array, self->columns, self->nothing);
	if (emit_own_version(&output))
		return why_set(why, -ENOMEM, "out of memory");
	if (options->count_words)
		error = target_find(options->words[0], why, &target);
	if (options->count_words && !error) {
		if (target.client)
			error = ask_and_end(&target, "version", &output, why);
		else
			target_fini(&target);
	}
	return query_finish(&output, NULL, error, why);
}
