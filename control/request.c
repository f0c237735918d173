#include "control/request.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUEST_PATH_MAX 32768u

void control_socket_name(dev_t dev, unsigned attempt, char *name, size_t size)
{
	int used = snprintf(name, size, "mendfs/m/%llx", (unsigned long long)dev);

	if (attempt && used >= 0 && (size_t)used < size)
		snprintf(name + used, size - (size_t)used, "/%u", attempt);
}

static int malformed(struct why *why, const char *what)
{
	return why_set(why, -EINVAL,
		       "the request's %s is malformed: use a mendctl of the daemon's version",
		       what);
}

static int parse_kind(struct json_object *object, struct command_args *args)
{
	const char *kind;
	int found = json_get_text(object, "kind", &kind);

	if (found <= 0)
		return found;
	args->kind = command_kind_parse(kind);
	return args->kind < 0 ? -EINVAL : 0;
}

static int parse_path(struct json_object *object, struct request *out)
{
	const char *text;
	int found = json_get_text(object, "path_raw", &text);

	if (found <= 0)
		return found;
	found = json_base64_decode(text, REQUEST_PATH_MAX, &out->path);
	if (found)
		return found;
	out->args.path = out->path;
	out->args.has_file = true;
	return out->path[0] == '/' ? 0 : -EINVAL;
}

static int parse_range(struct json_object *object, struct command_args *args)
{
	int offset = json_get_u64(object, "offset", &args->offset);
	int length = json_get_u64(object, "length", &args->length_bytes);

	if (offset < 0 || length < 0 || offset != length)
		return -EINVAL;
	args->has_range = offset;
	return args->length_bytes > UINT64_MAX - args->offset ? -EINVAL : 0;
}

static int parse_numbers(struct json_object *object, struct command_args *args)
{
	int ino = json_get_u64(object, "inumber", &args->ino);

	if (ino < 0 || (ino && !args->ino))
		return -EINVAL;
	args->has_file = args->has_file || ino;
	return json_get_u64(object, "to_inumber", &args->to_ino) < 0 ? -EINVAL : 0;
}

static int parse_text(struct json_object *object, struct request *out)
{
	const char *text;
	int found = json_get_text(object, "text", &text);

	if (found <= 0)
		return found;
	out->text = strdup(text);
	out->args.text = out->text;
	return out->text ? 0 : -ENOMEM;
}

static int parse_members(struct json_object *object, struct request *out, struct why *why)
{
	const char *command;

	if (json_get_text(object, "command", &command) != 1 ||
	    strlen(command) >= sizeof(out->command))
		return malformed(why, "command");
	strcpy(out->command, command);
	if (parse_path(object, out))
		return malformed(why, "path");
	if (parse_range(object, &out->args))
		return malformed(why, "offset and length");
	if (parse_numbers(object, &out->args))
		return malformed(why, "inode number");
	if (parse_text(object, out))
		return malformed(why, "text");
	if (json_get_u64(object, "size", &out->args.size_bytes) < 0)
		return malformed(why, "size");
	if (parse_kind(object, &out->args))
		return malformed(why, "kind");
	if (json_get_bool(object, "all", &out->args.all) < 0 ||
	    json_get_bool(object, "latent", &out->args.latent) < 0 ||
	    json_get_bool(object, "no_wait", &out->args.no_wait) < 0 ||
	    json_get_bool(object, "progress", &out->args.progress) < 0)
		return malformed(why, "flag");
	return 0;
}

int request_parse(const char *line, size_t length_bytes, struct request *out, struct why *why)
{
	struct json_object *object;
	int error;

	memset(out, 0, sizeof(*out));
	out->args = COMMAND_ARGS_INIT;
	object = json_parse_object(line, length_bytes);
	if (!object)
		return malformed(why, "JSON");
	error = parse_members(object, out, why);
	json_object_put(object);
	return error;
}

void request_fini(struct request *request)
{
	free(request->path);
	free(request->text);
	request->path = request->text = NULL;
	request->args.path = request->args.text = NULL;
}

struct json_object *request_make(const char *command, const struct command_args *args)
{
	struct json_object *object = json_object_new_object();
	int error = 0;

	if (!object)
		return NULL;
	error |= json_add_text(object, "command", command);
	if (args->path)
		error |=
		    json_add(object, "path_raw", json_base64_make(args->path, strlen(args->path)));
	if (args->text)
		error |= json_add_text(object, "text", args->text);
	if (args->size_bytes)
		error |= json_add_u64(object, "size", args->size_bytes);
	if (args->ino)
		error |= json_add_u64(object, "inumber", args->ino);
	if (args->to_ino)
		error |= json_add_u64(object, "to_inumber", args->to_ino);
	if (args->has_range)
		error |= json_add_u64(object, "offset", args->offset) |
			 json_add_u64(object, "length", args->length_bytes);
	if (args->kind >= 0)
		error |= json_add_text(object, "kind",
				       fs_owner_kind_name((enum fs_owner_kind)args->kind));
	if (args->all)
		error |= json_add_bool(object, "all", true);
	if (args->latent)
		error |= json_add_bool(object, "latent", true);
	if (args->no_wait)
		error |= json_add_bool(object, "no_wait", true);
	if (args->progress)
		error |= json_add_bool(object, "progress", true);
	if (!error)
		return object;
	json_object_put(object);
	return NULL;
}
