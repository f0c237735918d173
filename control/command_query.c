#include "control/command_bodies.h"

#include <errno.h>
#include <string.h>

struct emit_state {
	struct command_sink *sink;
	struct why *why;
};

static int emit_extent(void *arg, const struct fs_map_extent *extent)
{
	struct emit_state *state = arg;

	return command_emit(state->sink, render_extent(extent), state->why);
}

int command_map(const struct command_context *context, const struct command_args *args, struct command_sink *sink,
		   struct why *why)
{
	struct emit_state state = {sink, why};
	struct fs_attr attr;
	int error = command_regular_file(context->fs, args, &attr, why);

	return error ? error : fs_map(context->fs, attr.ino, 0, FS_FILE_MAX, emit_extent, &state);
}

/* --- owners ----------------------------------------------------------------------------------------------------------------- */

struct owners_state {
	struct emit_state emit;
	struct fs *fs;
	int kind;
	inum_t ino; /* whose paths are held; 0: none */
	uint32_t generation;
	char **paths;
	size_t count_paths;
};

/* Ranges of one file often follow each other: its paths are found once. */
static int owners_paths(struct owners_state *state, inum_t ino)
{
	int error;

	if (state->ino == ino)
		return 0;
	fs_paths_free(state->paths, state->count_paths);
	state->paths = NULL;
	state->count_paths = 0;
	state->ino = 0;
	error = fs_paths(state->fs, ino, &state->generation, &state->paths, &state->count_paths);
	if (!error)
		state->ino = ino;
	return error;
}

static int emit_owner(void *arg, const struct fs_owner *found)
{
	struct owners_state *state = arg;
	struct fs_owner owner = *found;
	int error;

	if (state->kind >= 0 && (int)owner.kind != state->kind)
		return 0;
	if (owner.kind != FS_OWNER_DATA)
		return command_emit(state->emit.sink, render_owner(&owner, NULL, 0), state->emit.why);
	error = owners_paths(state, owner.ino);
	if (error == -ENOENT) /* deleted since the map was read: no owner any more */
		return 0;
	if (error)
		return why_set(state->emit.why, error, "paths of inode %llu: %s", (unsigned long long)owner.ino,
			       strerror(-error));
	owner.generation = state->generation;
	return command_emit(state->emit.sink, render_owner(&owner, state->paths, state->count_paths), state->emit.why);
}

int command_owners(const struct command_context *context, const struct command_args *args,
		      struct command_sink *sink, struct why *why)
{
	struct owners_state state = {.emit = {sink, why}, .fs = context->fs, .kind = args->kind};
	uint64_t offset = args->all ? 0 : args->offset;
	uint64_t length = args->all ? fs_super(context->fs)->size_bytes : args->length_bytes;
	int error;

	if (!args->all && (!args->has_range || !args->length_bytes))
		return why_set(why, -EINVAL, "give an offset and a length of at least 1, or ask for all");
	error = args->all ? 0 : command_device_range(context->fs, args, why);
	if (!error)
		error = fs_owners(context->fs, offset, length, emit_owner, &state);
	fs_paths_free(state.paths, state.count_paths);
	return error;
}

/* --- badblocks, damaged ------------------------------------------------------------------------------------------------------- */

static int emit_badblock(void *arg, const struct badblock_record *record)
{
	struct emit_state *state = arg;

	return command_emit(state->sink, render_badblock(record), state->why);
}

int command_badblocks(const struct command_context *context, const struct command_args *args,
			 struct command_sink *sink, struct why *why)
{
	struct emit_state state = {sink, why};

	return fs_badblocks(context->fs, emit_badblock, &state);
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
	uint32_t generation;
	char **paths;
	size_t count;
	int error = fs_paths(state->fs, ino, &generation, &paths, &count);

	state->ino = ino;
	if (error == -ENOENT)
		return 0;
	if (error)
		return why_set(state->emit.why, error, "paths of inode %llu: %s", (unsigned long long)ino,
			       strerror(-error));
	state->file = render_damaged(ino, generation, paths, count);
	fs_paths_free(paths, count);
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
