/* Scrubs: so far the one that the bus of the memory does by itself. */
#include "control/command_bodies.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "notify/scrub.h"
#include "notify/source.h"

#define LOOK_US 200000u
#define SETTLE_MS 10000u

struct scrubbing {
	const struct command_context *context;
	struct command_sink *sink;
	struct why *why;
	struct scrub_state state;
	bool was_running;	/* somebody else's: it is waited for */
	uint64_t begin_ns, listed_before;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Bytes of the medium on the kernel's list. */
static int listed_bytes(struct media *media, uint64_t *out)
{
	struct source_list list;
	int error = source_badblocks(media, &list);

	if (error)
		return error;
	*out = 0;
	for (size_t i = 0; i < list.count; i++)
		*out += list.blocks[i].length;
	source_list_fini(&list);
	return 0;
}

static int scrub_begin(struct scrubbing *scrubbing)
{
	struct media *media = fs_media(scrubbing->context->fs);
	int error = scrub_ask(media, &scrubbing->state, scrubbing->why);

	if (!error)
		error = listed_bytes(media, &scrubbing->listed_before);
	if (error)
		return error;
	scrubbing->begin_ns = now_ns();
	scrubbing->was_running = scrubbing->state.is_running;
	if (!scrubbing->was_running)
		error = scrub_start(media, scrubbing->why);
	/* Another one came first. */
	if (error == -EBUSY) {
		scrubbing->was_running = true;
		error = 0;
	}
	return error;
}

static bool scrub_may_go_on(struct scrubbing *scrubbing)
{
	struct command_sink *sink = scrubbing->sink;
	uint64_t seconds = (now_ns() - scrubbing->begin_ns) / 1000000000;

	return !sink->progress || sink->progress(sink->arg, "scrubbing, seconds", seconds, 0);
}

static int scrub_wait(struct scrubbing *scrubbing)
{
	int error;

	do {
		if (!scrub_may_go_on(scrubbing))
			return why_set(scrubbing->why, -ECANCELED, "nobody waits any more; the scrub goes on");
		usleep(LOOK_US);
		error = scrub_ask(fs_media(scrubbing->context->fs), &scrubbing->state, scrubbing->why);
	} while (!error && scrubbing->state.is_running);
	/* The kernel's list wakes the daemon by itself: who asked for the scrub wants to see it handled. */
	return error ? error : fs_refresh_badblocks(scrubbing->context->fs, SETTLE_MS);
}

static int scrub_render(const struct scrubbing *scrubbing, struct json_object *object, bool waits)
{
	uint64_t listed = 0;
	int error = json_add_text(object, "kind", "hardware") | json_add_text(object, "bus", scrubbing->state.bus) |
		    json_add_text(object, "state", waits ? "finished" : "running") | json_add_bool(object, "started", !scrubbing->was_running);

	if (!waits)
		return error;
	error |= listed_bytes(fs_media(scrubbing->context->fs), &listed);
	error |= json_add_u64(object, "duration_ns", now_ns() - scrubbing->begin_ns);
	error |= json_add_u64(object, "listed_bytes", listed);
	return error | json_add_u64(object, "found_bytes", listed > scrubbing->listed_before ? listed - scrubbing->listed_before : 0);
}

int command_scrub(const struct command_context *context, const struct command_args *args, struct command_sink *sink, struct why *why)
{
	struct scrubbing scrubbing = {.context = context, .sink = sink, .why = why};
	struct json_object *object;
	int error;

	if (!args->text || strcmp(args->text, "hardware") != 0)
		return why_set(why, -EINVAL, "scrub needs a kind: hardware");
	error = scrub_begin(&scrubbing);
	if (!error && !args->no_wait)
		error = scrub_wait(&scrubbing);
	if (error)
		return error;
	object = json_object_new_object();
	if (object && scrub_render(&scrubbing, object, !args->no_wait)) {
		json_object_put(object);
		object = NULL;
	}
	return command_emit(sink, object, why);
}
