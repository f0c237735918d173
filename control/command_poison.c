#include "control/command_bodies.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NOTIFY_WAIT_MS 5000

struct range_state {
	command_range_fn *visit;
	void *arg;
	uint64_t next_pos; /* of the file: where the next extent must begin */
	devoff_t start;    /* gathered device range, not told yet */
	uint64_t length_bytes;
	bool hole;
};

static int range_flush(struct range_state *state)
{
	int error =
	    state->length_bytes ? state->visit(state->arg, state->start, state->length_bytes) : 0;

	state->length_bytes = 0;
	return error;
}

static int gather_extent(void *arg, const struct fs_map_extent *extent)
{
	struct range_state *state = arg;
	int error = 0;

	if (extent->pos != state->next_pos) {
		state->hole = true;
		return 1;
	}
	if (state->length_bytes && state->start + state->length_bytes != extent->device_offset)
		error = range_flush(state);
	if (!state->length_bytes)
		state->start = extent->device_offset;
	state->length_bytes += extent->length_bytes;
	state->next_pos += extent->length_bytes;
	return error;
}

static int no_visit(void *arg, devoff_t offset, uint64_t length_bytes)
{
	return 0;
}

static int walk_file(struct fs *fs, inum_t ino, const struct command_args *args,
		     struct range_state *state)
{
	int error;

	state->next_pos = args->offset;
	error = fs_map(fs, ino, args->offset, args->length_bytes, gather_extent, state);
	if (state->hole || error == -ENXIO ||
	    (!error && state->next_pos != args->offset + args->length_bytes))
		return -ENXIO;
	return error ? error : range_flush(state);
}

static int file_ranges(struct fs *fs, const struct command_args *args, command_range_fn *visit,
		       void *arg, struct why *why)
{
	struct range_state probe = {.visit = no_visit}, state = {.visit = visit, .arg = arg};
	struct fs_attr attr;
	int error = command_regular_file(fs, args, &attr, why);

	if (error)
		return error;
	if (args->offset > attr.record.size_bytes ||
	    args->length_bytes > attr.record.size_bytes - args->offset)
		return why_set(
		    why, -ENXIO, "%llu+%llu is past the end of the file, which has %llu bytes",
		    (unsigned long long)args->offset, (unsigned long long)args->length_bytes,
		    (unsigned long long)attr.record.size_bytes);
	/* All of it is looked at before any of it is acted on. */
	error = walk_file(fs, attr.ino, args, &probe);
	if (error == -ENXIO)
		return why_set(why, error,
			       "the file has a hole at %llu: nothing of the device is there",
			       (unsigned long long)probe.next_pos);
	if (!error)
		error = walk_file(fs, attr.ino, args, &state);
	return error ? why_set(why, error, "mapping the file: %s", command_reason(error)) : 0;
}

int command_ranges(struct fs *fs, const struct command_args *args, command_range_fn *visit,
		   void *arg, struct why *why)
{
	int error;

	if (args->all && !args->has_file)
		return visit(arg, 0, fs_super(fs)->size_bytes);
	if (!args->has_range || !args->length_bytes)
		return why_set(why, -EINVAL, "give an offset and a length of at least 1");
	if (args->has_file)
		return file_ranges(fs, args, visit, arg, why);
	error = command_device_range(fs, args, why);
	return error ? error : visit(arg, args->offset, args->length_bytes);
}

/* --- inject, uninject --- */

struct poison_state {
	struct fs *fs;
	const struct command_args *args;
	struct command_sink *sink;
	struct why *why;
	const struct media_poison *armed; /* uninject: before it */
	size_t count_armed;
};

static int inject_range(void *arg, devoff_t offset, uint64_t length_bytes)
{
	struct poison_state *state = arg;
	int error = fs_inject(state->fs, offset, length_bytes, state->args->latent);

	if (error)
		return why_set(state->why, error, "injecting at %llu+%llu: %s",
			       (unsigned long long)offset, (unsigned long long)length_bytes,
			       command_reason(error));
	return command_emit(state->sink, render_range(offset, length_bytes), state->why);
}

int command_inject(const struct command_context *context, const struct command_args *args,
		   struct command_sink *sink, struct why *why)
{
	struct poison_state state = {.fs = context->fs, .args = args, .sink = sink, .why = why};
	int error;

	if (args->all)
		return why_set(why, -EINVAL, "give an offset and a length of at least 1");
	error = command_ranges(context->fs, args, inject_range, &state, why);
	if (error || args->latent)
		return error;
	/* The ledger knows when we return, so that whoever asks next is told. */
	error = fs_notify_wait(context->fs, NOTIFY_WAIT_MS);
	return error
		   ? why_set(why, error,
			     "injected, but not handled within %d s: look at monitor and badblocks",
			     NOTIFY_WAIT_MS / 1000)
		   : 0;
}

static int emit_removed(struct poison_state *state, devoff_t offset, devoff_t end)
{
	for (size_t i = 0; i < state->count_armed; i++) {
		const struct media_poison *armed = &state->armed[i];
		devoff_t from = max_u64(offset, armed->offset);
		devoff_t to = min_u64(end, armed->offset + armed->length);
		int error =
		    from < to ? command_emit(state->sink, render_range(from, to - from), state->why)
			      : 0;

		if (error)
			return error;
	}
	return 0;
}

static int uninject_range(void *arg, devoff_t offset, uint64_t length_bytes)
{
	struct poison_state *state = arg;
	uint64_t removed_bytes;
	int error = fs_uninject(state->fs, offset, length_bytes, &removed_bytes);

	if (error)
		return why_set(state->why, error, "taking back %llu+%llu: %s",
			       (unsigned long long)offset, (unsigned long long)length_bytes,
			       command_reason(error));
	return emit_removed(state, offset, offset + length_bytes);
}

int command_uninject(const struct command_context *context, const struct command_args *args,
		     struct command_sink *sink, struct why *why)
{
	struct poison_state state = {.fs = context->fs, .args = args, .sink = sink, .why = why};
	struct media_poison *armed = NULL;
	int error = media_poison_list(fs_media(context->fs), &armed, &state.count_armed);

	if (error)
		return why_set(why, error, "listing what is injected: %s", command_reason(error));
	state.armed = armed;
	error = command_ranges(context->fs, args, uninject_range, &state, why);
	free(armed);
	if (!error)
		fs_notify_wait(context->fs, NOTIFY_WAIT_MS);
	return error;
}
