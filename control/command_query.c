#include "control/command_bodies.h"

#include <errno.h>
#include <string.h>

#include "notify/source.h"

struct emit_state {
	struct command_sink *sink;
	struct why *why;
};

static int emit_extent(void *arg, const struct fs_map_extent *extent)
{
	struct emit_state *state = arg;

	return command_emit(state->sink, render_extent(extent), state->why);
}

int command_map(const struct command_context *context, const struct command_args *args,
		struct command_sink *sink, struct why *why)
{
	struct emit_state state = {sink, why};
	struct fs_attr attr;
	int error = command_regular_file(context->fs, args, &attr, why);

	return error ? error : fs_map(context->fs, attr.ino, 0, FS_FILE_MAX, emit_extent, &state);
}

/* --- owners --- */

struct owners_state {
	struct emit_state emit;
	struct fs *fs;
	int kind;
	inum_t ino; /* whose names are held; 0: none */
	struct render_names names;
};

/* -ENOENT: the inode has gone. What cannot be read of its names is said in them: the rest of the
 * answer is worth as much. */
static int names_find(struct fs *fs, inum_t ino, struct render_names *out)
{
	int error = fs_paths(fs, ino, &out->generation, &out->paths, &out->count);

	out->error = NULL;
	if (error == -EUCLEAN || error == -EIO || error == -ELOOP) {
		*out = (struct render_names){.error = command_reason(error)};
		return 0;
	}
	return error;
}

static void names_fini(struct render_names *names)
{
	if (!names->error)
		fs_paths_free(names->paths, names->count);
	*names = (struct render_names){0};
}

/* Ranges of one file often follow each other: its names are found once. */
static int owners_names(struct owners_state *state, inum_t ino)
{
	int error;

	if (state->ino == ino)
		return 0;
	names_fini(&state->names);
	state->ino = 0;
	error = names_find(state->fs, ino, &state->names);
	if (!error)
		state->ino = ino;
	return error;
}

static int emit_owner(void *arg, const struct fs_owner *owner)
{
	struct owners_state *state = arg;
	int error;

	if (state->kind >= 0 && (int)owner->kind != state->kind)
		return 0;
	if (owner->kind != FS_OWNER_DATA)
		return command_emit(state->emit.sink, render_owner(owner, NULL), state->emit.why);
	error = owners_names(state, owner->ino);
	if (error == -ENOENT) /* deleted since the map was read: no owner any more */
		return 0;
	if (error)
		return why_set(state->emit.why, error, "paths of inode %llu: %s",
			       (unsigned long long)owner->ino, command_reason(error));
	return command_emit(state->emit.sink, render_owner(owner, &state->names), state->emit.why);
}

int command_owners(const struct command_context *context, const struct command_args *args,
		   struct command_sink *sink, struct why *why)
{
	struct owners_state state = {.emit = {sink, why}, .fs = context->fs, .kind = args->kind};
	uint64_t offset = args->all ? 0 : args->offset;
	uint64_t length = args->all ? fs_super(context->fs)->size_bytes : args->length_bytes;
	int error;

	if (!args->all && (!args->has_range || !args->length_bytes))
		return why_set(why, -EINVAL,
			       "give an offset and a length of at least 1, or ask for all");
	error = args->all ? 0 : command_device_range(context->fs, args, why);
	if (!error)
		error = fs_owners(context->fs, offset, length, emit_owner, &state);
	names_fini(&state.names);
	return error;
}

/* --- badblocks, damaged --- */

static int emit_badblock(void *arg, const struct badblock_record *record)
{
	struct emit_state *state = arg;

	return command_emit(state->sink, render_badblock(record), state->why);
}

/* An empty answer means clean only where the kernel's list could be had. */
static int add_kernel_list(struct json_object *extra, struct media *media)
{
	struct json_object *object;
	struct source_list list;
	int error = source_badblocks(media, &list);

	if (error || list.state == SOURCE_NONE)
		return error;
	object = json_object_new_object();
	error = object ? json_add_text(object, "state", source_state_name(list.state)) : -ENOMEM;
	if (!error && list.state == SOURCE_UNKNOWN)
		error = json_add_text(object, "reason", list.why.text);
	source_list_fini(&list);
	if (!error)
		return json_add(extra, "kernel_list", object);
	json_object_put(object);
	return -ENOMEM;
}

int command_badblocks(const struct command_context *context, const struct command_args *args,
		      struct command_sink *sink, struct why *why)
{
	struct emit_state state = {sink, why};
	int error = add_kernel_list(sink->extra, fs_media(context->fs));

	return error ? error : fs_badblocks(context->fs, emit_badblock, &state);
}

struct damaged_state {
	struct emit_state emit;
	struct fs *fs;
	inum_t ino;
	struct json_object *file; /* being gathered */
};

static int damaged_flush(struct damaged_state *state)
{
	struct json_object *file = state->file;

	state->file = NULL;
	if (!file)
		return 0;
	if (!render_damage_end(file))
		return command_emit(state->emit.sink, file, state->emit.why);
	json_object_put(file);
	return command_no_memory(state->emit.why);
}

/* Leaves no file where the inode has gone since. */
static int damaged_begin(struct damaged_state *state, inum_t ino)
{
	struct render_names names = {0};
	int error = names_find(state->fs, ino, &names);

	state->ino = ino;
	if (error == -ENOENT)
		return 0;
	if (error)
		return why_set(state->emit.why, error, "paths of inode %llu: %s",
			       (unsigned long long)ino, command_reason(error));
	state->file = render_damaged(ino, &names);
	names_fini(&names);
	return state->file ? 0 : command_no_memory(state->emit.why);
}

static int gather_damage(void *arg, const struct fs_damage *damage)
{
	struct damaged_state *state = arg;
	int error = 0;

	if (damage->ino != state->ino)
		error = damaged_flush(state);
	if (!error && damage->ino != state->ino)
		error = damaged_begin(state, damage->ino);
	if (!error && state->file && render_damage_add(state->file, damage))
		error = command_no_memory(state->emit.why);
	return error;
}

int command_damaged(const struct command_context *context, const struct command_args *args,
		    struct command_sink *sink, struct why *why)
{
	struct damaged_state state = {.emit = {sink, why}, .fs = context->fs};
	int error = fs_damaged(context->fs, gather_damage, &state);

	if (!error)
		error = damaged_flush(&state);
	json_object_put(state.file);
	return error;
}
