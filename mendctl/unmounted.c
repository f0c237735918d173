#include "mendctl/unmounted.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- in the filesystem --- */

static int run_in_fs(const char *path, bool writable, const struct command *command,
		     const struct command_args *args, struct command_sink *sink, struct why *why)
{
	struct fs_options options = {.readonly = !writable, .tools = true, .claim = writable};
	struct command_context context = {.place = {.device = path}};
	int error = fs_mount(path, &options, why, &context.fs);
	int end;

	if (error)
		return error;
	error = command_run(command, &context, args, sink, why);
	end = fs_unmount(context.fs);
	if (end && !error)
		error = why_set(why, end, "%s: %s; run fsck.mendfs on it", path, strerror(-end));
	return error;
}

/* --- on the medium: poison is kept beside the image, and the next mount finds it
 * ----------------------------------------------- */

struct arm_state {
	struct media *media;
	const struct command_args *args;
	struct command_sink *sink;
	struct why *why;
};

static int emit_range(struct arm_state *state, devoff_t offset, uint64_t length_bytes)
{
	struct json_object *range = render_range(offset, length_bytes);

	return range ? state->sink->emit(state->sink->arg, range)
		     : why_set(state->why, -ENOMEM, "out of memory");
}

static int arm_range(void *arg, devoff_t offset, uint64_t length_bytes)
{
	struct arm_state *state = arg;
	int error = media_poison_arm(state->media, offset, length_bytes, state->args->latent);

	if (error)
		return why_set(state->why, error, "injecting at %llu+%llu: %s",
			       (unsigned long long)offset, (unsigned long long)length_bytes,
			       strerror(-error));
	return emit_range(state, offset, length_bytes);
}

static int disarm(struct arm_state *state)
{
	devoff_t offset = state->args->all ? 0 : state->args->offset;
	devoff_t end = state->args->all ? UINT64_MAX : offset + state->args->length_bytes;
	struct media_poison *armed = NULL;
	uint64_t removed_bytes;
	size_t count;
	int error = media_poison_list(state->media, &armed, &count);

	for (size_t i = 0; !error && i < count; i++) {
		devoff_t from = max_u64(offset, armed[i].offset);
		devoff_t to = min_u64(end, armed[i].offset + armed[i].length);

		if (from >= to)
			continue;
		error = media_poison_disarm(state->media, from, to - from, &removed_bytes);
		if (!error)
			error = emit_range(state, from, to - from);
	}
	free(armed);
	return error;
}

/* What is armed belongs to the filesystem that is there, if there is one. */
static int load_poison(struct media *media, struct why *why)
{
	struct super super;
	struct why none;
	bool bare = fs_read_super(media, &super, &none) != 0;

	return media_poison_load(media, bare ? NULL : super.uuid, why);
}

static int check_range(struct media *media, const struct command_args *args, struct why *why)
{
	uint64_t size = media_size(media);

	if (!args->has_range || !args->length_bytes)
		return why_set(why, -EINVAL, "give an offset and a length of at least 1");
	if (args->offset >= size || args->length_bytes > size - args->offset)
		return why_set(why, -ERANGE,
			       "%llu+%llu is outside the device, which has %llu bytes",
			       (unsigned long long)args->offset,
			       (unsigned long long)args->length_bytes, (unsigned long long)size);
	return 0;
}

/* Nothing is kept beside a device node, so what is armed lasts as long as its mapping: here, no longer than this program. */
static int refuse_block(const char *path, struct why *why)
{
	return why_set(why, -EOPNOTSUPP, "%s is a block device, where injected errors last until unmount: mount it first", path);
}

static int poison_medium(const char *path, bool arm, const struct command_args *args,
			 struct command_sink *sink, struct why *why)
{
	struct media_options options = {.readonly = true, .claim = true};
	struct arm_state state = {.args = args, .sink = sink, .why = why};
	int error = media_open(path, &options, why, &state.media);

	if (error)
		return error;
	error = args->all ? 0 : check_range(state.media, args, why);
	if (!error && arm && media_is_block(state.media))
		error = refuse_block(path, why);
	if (!error)
		error = load_poison(state.media, why);
	if (!error)
		error = arm ? arm_range(&state, args->offset, args->length_bytes) : disarm(&state);
	media_close(state.media);
	return error;
}

static int inject_into_file(const char *path, const struct command_args *args,
			    struct command_sink *sink, struct why *why)
{
	struct fs_options options = {.readonly = true, .tools = true, .claim = true};
	struct arm_state state = {.args = args, .sink = sink, .why = why};
	struct fs *fs;
	int error = fs_mount(path, &options, why, &fs);

	if (error)
		return error;
	state.media = fs_media(fs);
	error = media_is_block(state.media) ? refuse_block(path, why) : command_ranges(fs, args, arm_range, &state, why);
	fs_unmount(fs);
	return error;
}

/* With the filesystem, so that its ledger forgets the range too; on the medium alone where there is
 * none to be had. */
static int uninject(const char *path, const struct command *command,
		    const struct command_args *args, struct command_sink *sink, struct why *why)
{
	struct fs_options options = {.readonly = true, .tools = true};
	struct why none;
	struct fs *fs;

	if (!args->has_file && fs_mount(path, &options, &none, &fs))
		return poison_medium(path, false, args, sink, why);
	if (!args->has_file)
		fs_unmount(fs);
	return run_in_fs(path, true, command, args, sink, why);
}

int unmounted_run(const char *path, const struct command *command, const struct command_args *args,
		  struct command_sink *sink, struct why *why)
{
	if (!command->on_unmounted)
		return why_set(
		    why, -EOPNOTSUPP,
		    "%s is not mounted, and %s needs it to be; mount it with: mendfs %s DIR", path,
		    command->name, path);
	if (!command->changes)
		return run_in_fs(path, false, command, args, sink, why);
	if (!strcmp(command->name, "uninject-error"))
		return uninject(path, command, args, sink, why);
	if (strcmp(command->name, "inject-error"))
		return run_in_fs(path, true, command, args, sink, why);
	return args->has_file ? inject_into_file(path, args, sink, why)
			      : poison_medium(path, true, args, sink, why);
}
