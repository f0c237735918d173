#include "control/command_bodies.h"

#include <errno.h>
#include <string.h>

#include "util/lock.h"

int command_list(const struct command_context *context, const struct command_args *args,
		 struct command_sink *sink, struct why *why)
{
	struct fs_summary summary;
	int error = fs_summary(context->fs, &summary);

	if (error)
		return error;
	return command_emit(
	    sink, render_filesystem(fs_super(context->fs), &summary, &context->place), why);
}

static struct json_object *render_clone(inum_t ino, uint64_t length_bytes)
{
	struct json_object *object = json_object_new_object();

	if (!object)
		return NULL;
	if (!json_add_u64(object, "inumber", ino) && !json_add_u64(object, "len", length_bytes))
		return object;
	json_object_put(object);
	return NULL;
}

int command_clone(const struct command_context *context, const struct command_args *args,
		  struct command_sink *sink, struct why *why)
{
	struct fs_attr attr;
	int error;

	if (!args->ino || !args->to_ino)
		return why_set(why, -EINVAL, "clone needs a source and a destination");
	error = fs_clone(context->fs, args->ino, args->to_ino);
	if (context->hooks && context->hooks->changed)
		context->hooks->changed(context->hooks_arg, args->to_ino);
	if (!error)
		error = fs_getattr(context->fs, args->to_ino, &attr);
	if (error)
		return error;
	return command_emit(sink, render_clone(args->to_ino, attr.record.size_bytes), why);
}

struct stats_state {
	struct command_sink *sink;
	struct why *why;
};

/* Trailing empty buckets are left out. */
static struct json_object *render_histogram(const uint64_t *histogram)
{
	struct json_object *array = json_object_new_array();
	size_t count = CONTROL_HISTOGRAM_BUCKETS;

	while (count && !histogram[count - 1])
		count--;
	for (size_t i = 0; array && i < count; i++)
		json_object_array_add(array, json_object_new_uint64(histogram[i]));
	return array;
}

static int emit_opcode(void *arg, const struct control_opcode *opcode)
{
	struct stats_state *state = arg;
	struct json_object *object = json_object_new_object();
	int error = 0;

	if (!object)
		return command_no_memory(state->why);
	error |= json_add_text(object, "opcode", opcode->name);
	error |= json_add_u64(object, "count", opcode->count);
	error |= json_add_u64(object, "total_ns", opcode->total_ns);
	error |= json_add(object, "histogram", render_histogram(opcode->histogram));
	if (!error)
		return command_emit(state->sink, object, state->why);
	json_object_put(object);
	return command_no_memory(state->why);
}

static int add_media_counts(struct json_object *extra, struct media *media)
{
	struct json_object *object = json_object_new_object();
	struct media_counts counts;
	int error = 0;

	if (!object)
		return -ENOMEM;
	media_counts(media, &counts);
	error |= json_add_u64(object, "reads", counts.reads);
	error |= json_add_u64(object, "read_bytes", counts.read_bytes);
	error |= json_add_u64(object, "writes", counts.writes);
	error |= json_add_u64(object, "write_bytes", counts.write_bytes);
	error |= json_add_u64(object, "drains", counts.drains);
	error |= json_add_u64(object, "syncs", counts.syncs);
	error |= json_add_u64(object, "sigbus", counts.sigbus);
	if (!error)
		return json_add(extra, "media", object);
	json_object_put(object);
	return -ENOMEM;
}

static int add_journal_counts(struct json_object *extra, struct fs *fs)
{
	struct json_object *object = json_object_new_object();
	struct journal_counts counts;
	int error = 0;

	if (!object)
		return -ENOMEM;
	fs_journal_counts(fs, &counts);
	error |= json_add_u64(object, "transactions", counts.transactions);
	error |= json_add_u64(object, "records", counts.records);
	error |= json_add_u64(object, "record_bytes", counts.record_bytes);
	error |= json_add_u64(object, "checkpoints", counts.checkpoints);
	error |= json_add_u64(object, "written_back_blocks", counts.written_back_blocks);
	error |= json_add_u64(object, "ring_bytes", counts.ring_bytes);
	error |= json_add_u64(object, "ring_used", counts.ring_used);
	error |= json_add_u64(object, "cache_hits", counts.cache_hits);
	error |= json_add_u64(object, "cache_misses", counts.cache_misses);
	error |= json_add_u64(object, "cache_bytes", counts.cache_bytes);
	if (!error)
		return json_add(extra, "journal", object);
	json_object_put(object);
	return -ENOMEM;
}

static struct json_object *render_lock(const struct lock_counts *counts, enum lock_class class)
{
	struct json_object *object = json_object_new_object();
	int error = object ? 0 : -ENOMEM;

	if (!error)
		error |= json_add_u64(object, "taken", counts->taken[class]);
	if (!error)
		error |= json_add_u64(object, "contended", counts->contended[class]);
	if (!error)
		return object;
	json_object_put(object);
	return NULL;
}

static int add_lock_counts(struct json_object *extra)
{
	struct json_object *object = json_object_new_object();
	struct lock_counts counts;
	int error = 0;

	if (!object)
		return -ENOMEM;
	lock_counts(&counts);
	for (unsigned class = 0; class < LOCK_CLASSES && !error; class++)
		error = json_add(object, lock_class_name(class), render_lock(&counts, class));
	if (!error)
		return json_add(extra, "locks", object);
	json_object_put(object);
	return -ENOMEM;
}

int command_stats(const struct command_context *context, const struct command_args *args,
		  struct command_sink *sink, struct why *why)
{
	struct stats_state state = {sink, why};
	int error = add_media_counts(sink->extra, fs_media(context->fs));

	if (!error)
		error = add_journal_counts(sink->extra, context->fs);
	if (!error)
		error = add_lock_counts(sink->extra);
	if (error || !context->hooks || !context->hooks->stats)
		return error;
	return context->hooks->stats(context->hooks_arg, emit_opcode, &state);
}

/* Which filesystem it was done to. */
static int emit_done(const struct command_context *context, struct command_sink *sink,
		     struct why *why)
{
	struct json_object *object = json_object_new_object();
	char uuid[RENDER_UUID_BYTES];
	int error = 0;

	if (!object)
		return command_no_memory(why);
	render_uuid(fs_super(context->fs)->uuid, uuid);
	error |= json_add_text(object, "uuid", uuid);
	if (context->place.mountpoint)
		error |= json_add_text(object, "mountpoint", context->place.mountpoint);
	if (!error)
		return command_emit(sink, object, why);
	json_object_put(object);
	return command_no_memory(why);
}

int command_drop_caches(const struct command_context *context, const struct command_args *args,
			struct command_sink *sink, struct why *why)
{
	fs_drop_caches(context->fs);
	return emit_done(context, sink, why);
}

int command_sync(const struct command_context *context, const struct command_args *args,
		 struct command_sink *sink, struct why *why)
{
	int error = fs_syncfs(context->fs);

	return error ? error : emit_done(context, sink, why);
}

struct check_state {
	struct command_sink *sink;
	struct why *why;
	int error;
};

static void tell_finding(void *arg, const char *line)
{
	struct check_state *state = arg;
	struct json_object *object;

	if (state->error)
		return;
	object = json_object_new_object();
	if (object && json_add_text(object, "message", line)) {
		json_object_put(object);
		object = NULL;
	}
	state->error = command_emit(state->sink, object, state->why);
}

static bool pass_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	const struct check_state *state = arg;

	if (state->error)
		return false;
	return !state->sink->progress || state->sink->progress(state->sink->arg, phase, done, total);
}

static int add_totals(struct json_object *extra, const struct fs_check_totals *totals)
{
	struct json_object *object = json_object_new_object();
	int error = 0;

	if (!object)
		return -ENOMEM;
	error |= json_add_u64(object, "findings", totals->findings);
	error |= json_add_u64(object, "inodes", totals->inodes);
	error |= json_add_u64(object, "extents", totals->extents);
	error |= json_add_u64(object, "rmap_records", totals->rmap_records);
	error |= json_add_u64(object, "blocks_compared", totals->blocks_compared);
	error |= json_add_u64(object, "metadata_blocks", totals->metadata_blocks);
	error |= json_add_u64(object, "not_compared", totals->not_compared);
	if (!error)
		return json_add(extra, "totals", object);
	json_object_put(object);
	return -ENOMEM;
}

int command_check(const struct command_context *context, const struct command_args *args,
		  struct command_sink *sink, struct why *why)
{
	struct check_state state = {sink, why, 0};
	struct fs_check_options options = {.tell = tell_finding, .progress = pass_progress, .arg = &state};
	struct fs_check_totals totals;
	int error = fs_check_with(context->fs, &options, &totals);

	if (state.error)
		return state.error;
	if (error == -ECANCELED)
		return why_set(why, error, "the check was interrupted");
	return error ? error : add_totals(sink->extra, &totals);
}

int command_version(const struct command_context *context, const struct command_args *args,
		    struct command_sink *sink, struct why *why)
{
	struct json_object *object = json_object_new_object();
	int error = 0;

	if (!object)
		return command_no_memory(why);
	error |= json_add_text(object, "program", context->place.mountpoint ? "mendfs" : "mendctl");
	error |= json_add_text(object, "version", MENDFS_VERSION);
	error |= json_add_u64(object, "format_version", FORMAT_VERSION);
	if (!error)
		return command_emit(sink, object, why);
	json_object_put(object);
	return command_no_memory(why);
}
