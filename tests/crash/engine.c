/*
 * The course of an exploration: record the run, play it back step by step, and at each point try its images. A frame is one record that is played back:
 * the run's own, or that of a recovery that is to be interrupted in turn; its medium's bytes are what is durable, and what may be there besides is pending.
 */
#include "tests/crash/engine.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/journal_format.h"
#include "fs/inode.h"
#include "tests/crash/clock.h"
#include "tests/crash/enumerate.h"
#include "tests/crash/pending.h"
#include "tests/crash/record.h"
#include "tests/crash/seen.h"
#include "tests/crash/trial.h"
#include "tests/support/fsfix.h"
#include "util/log.h"

#define CLOCK_START_NS 1750000000000000000ull
#define VIOLATIONS_PRINTED 10
#define DEPTH_MAX 2
#define ID_BYTES 256

struct crash_run {
	struct record record;
};

/* Which blocks nobody owns in a durable state, by its hash. */
struct free_map {
	bool is_known;
	uint64_t hash;
	uint8_t *bits;
};

struct engine {
	const struct crash_workload *workload;
	const struct crash_options *options;
	struct crash_totals *totals;
	struct lab *lab;
	struct crash_run run;
	struct record undo, recovery[DEPTH_MAX];
	struct pending pending[DEPTH_MAX + 1];
	struct seen seen;
	struct free_map maps[2]; /* of "none" and of "all", which is mostly the next point's "none" */
	struct poison_target targets[POISON_KINDS];
	bool has_target[POISON_KINDS];
	uint64_t violations; /* of this workload */
	uint64_t seed;
	bool is_found; /* options->only names an image that there was */
};

struct frame {
	struct engine *engine;
	const struct record *record;
	size_t end; /* steps of it that are played */
	struct pending *pending;
	uint64_t hash; /* of the durable bytes */
	struct crash_point point;
	unsigned depth, boot;
	bool host_crashed; /* before what is recorded here */
	char id[ID_BYTES]; /* up to this record */
	const char *only;  /* what is left of options->only; NULL: everything */
	size_t step;
};

/* --- marks of the workload ---------------------------------------------------------------------------------------------------- */

void crash_begin(struct crash_run *run)
{
	record_mark(&run->record, STEP_BEGIN, 0);
}

void crash_end(struct crash_run *run, int error)
{
	record_mark(&run->record, STEP_END, error);
}

void crash_durable(struct crash_run *run)
{
	record_mark(&run->record, STEP_DURABLE, 0);
}

/* --- one image ------------------------------------------------------------------------------------------------------------------ */

static bool engine_is_paged(const struct engine *engine)
{
	return engine->workload->granularity == MEDIA_PAGE;
}

static bool engine_is_done(const struct engine *engine)
{
	return engine->options->violations_limit && engine->violations >= engine->options->violations_limit;
}

static int map_run(void *arg, blkno_t start, uint64_t count)
{
	uint8_t *bits = arg;

	for (blkno_t block = start; block < start + count; block++)
		bits[block / 8] |= (uint8_t)(1u << block % 8);
	return 0;
}

static void map_learn(struct engine *engine, struct free_map *map, uint64_t hash, struct fs *fs)
{
	uint64_t blocks = lab_size(engine->lab) / BLOCK_BYTES;

	memset(map->bits, 0, blocks / 8);
	journal_read_begin(fs->journal);
	alloc_walk(fs->alloc, 0, blocks, map_run, map->bits);
	journal_read_end(fs->journal);
	map->hash = hash;
	map->is_known = true;
}

static const uint8_t *map_find(const struct engine *engine, uint64_t hash)
{
	for (unsigned i = 0; i < ARRAY_SIZE(engine->maps); i++)
		if (engine->maps[i].is_known && engine->maps[i].hash == hash)
			return engine->maps[i].bits;
	return NULL;
}

struct attempt {
	struct frame *frame;
	char name[64]; /* of the image, with its step */
	uint64_t hash; /* of its bytes */
	bool same_boot;
	struct free_map *map; /* to be learned, or NULL */
	bool chooses_poison;
	bool keeps_record;    /* the recovery, and the clean end of that mount, will be interrupted */
	bool is_quiet;	      /* only to learn the map */
	const struct poison_target *poison;
};

static void attempt_look(void *arg, struct fs *fs)
{
	struct attempt *attempt = arg;
	struct engine *engine = attempt->frame->engine;

	if (attempt->map)
		map_learn(engine, attempt->map, attempt->hash, fs);
	for (unsigned i = 0; i < POISON_KINDS && attempt->chooses_poison; i++)
		engine->has_target[i] = !poison_choose(fs, i, engine->seed + attempt->frame->step * POISON_KINDS + i,
						       &engine->targets[i]);
}

static uint64_t attempt_key(const struct attempt *attempt, const struct crash_point *point, unsigned boot)
{
	uint64_t key = hash_mix(attempt->hash + 1);

	key = hash_mix(key ^ (uint64_t)point->begun << 40 ^ (uint64_t)point->done << 20 ^ point->durable);
	return hash_mix(key ^ (uint64_t)point->same_boot << 32 ^ boot);
}

static void attempt_tell(struct attempt *attempt, const struct trial *trial, const char *poison)
{
	struct engine *engine = attempt->frame->engine;
	char id[sizeof(engine->totals->first_violation)];

	snprintf(id, sizeof(id), "%s/%s%s", attempt->frame->id, attempt->name, poison);
	if (!engine->totals->violations++)
		memcpy(engine->totals->first_violation, id, sizeof(id));
	if (engine->violations++ < VIOLATIONS_PRINTED)
		fprintf(stderr, "violation: %s: %s%s\n", id, trial->text, trial->violations > 1 ? " (and more)" : "");
}

static struct crash_point attempt_point(const struct attempt *attempt)
{
	struct crash_point point = attempt->frame->point;

	point.same_boot = attempt->same_boot && !attempt->frame->host_crashed;
	if (point.same_boot)
		point.durable = point.done;
	point.poisoned = attempt->poison;
	point.data_poisoned = attempt->poison && attempt->poison->kind == POISON_DATA;
	return point;
}

/* Mount what the medium holds now. Was it as it should be? */
static bool attempt_mount(struct attempt *attempt)
{
	struct frame *frame = attempt->frame;
	struct engine *engine = frame->engine;
	struct trial trial = {
		.workload = engine->workload,
		.lab = engine->lab,
		.point = attempt_point(attempt),
		.boot = frame->boot + !attempt->same_boot,
		.record = attempt->keeps_record ? &engine->recovery[frame->depth] : &engine->undo,
		.unmounts = attempt->keeps_record,
		.verbose = engine->options->verbose && !attempt->is_quiet,
		.look = attempt_look,
		.look_arg = attempt,
	};
	char poison[64] = "";

	if (attempt->poison) {
		snprintf(poison, sizeof(poison), "!%s:%llx", poison_name(attempt->poison->kind),
			 (unsigned long long)attempt->poison->offset);
		lab_poison(engine->lab, attempt->poison->offset, attempt->poison->length);
	}
	if (trial.verbose)
		fprintf(stderr, "%s/%s%s\n", frame->id, attempt->name, poison);
	engine->totals->mounts++;
	trial_run(&trial);
	lab_heal_all(engine->lab);
	if (trial.violations && !attempt->is_quiet)
		attempt_tell(attempt, &trial, poison);
	return !trial.violations;
}

/* The first record that this copy's head names. */
static void attempt_aim_at_record(const struct engine *engine, struct poison_target *target)
{
	const struct format_journal_head *head = (const void *)(lab_bytes(engine->lab) + target->offset);

	target->offset += BLOCK_BYTES + round_down_u64(le64_get(head->tail_offset), LINE_BYTES);
	if (target->offset + LINE_BYTES > lab_size(engine->lab))
		target->offset = 0;
}

/* One kind at a point in turn, all of them when everything is wanted. */
static void attempt_poison(struct attempt *attempt)
{
	struct engine *engine = attempt->frame->engine;
	bool all = engine->options->schedule == CRASH_EXHAUSTIVE;

	attempt->map = NULL;
	attempt->chooses_poison = attempt->keeps_record = false;
	for (unsigned i = 0; i < POISON_KINDS && !engine_is_done(engine); i++) {
		if (!engine->has_target[i] || (!all && attempt->frame->step % POISON_KINDS != i))
			continue;
		if (i == POISON_RECORD)
			attempt_aim_at_record(engine, &engine->targets[i]);
		attempt->poison = &engine->targets[i];
		attempt_mount(attempt);
	}
	attempt->poison = NULL;
}

/* --- a crash within recovery ------------------------------------------------------------------------------------------------------- */

static void frame_walk(struct frame *frame);

/* What is pending when the daemon alone dies is pending still: the host's pages are not lost, nor have they been written. */
static int frame_inherit(struct frame *frame, const struct frame *outer)
{
	int error = 0;

	for (size_t i = 0; i < outer->pending->count_stores && !error; i++)
		error = pending_add(frame->pending, &outer->pending->stores[i]);
	return error;
}

/* The medium holds the attempt's image, or what was durable before it where the daemon alone died. */
static void attempt_interrupt(struct attempt *attempt, const char *only)
{
	struct frame *outer = attempt->frame;
	struct engine *engine = outer->engine;
	struct frame frame = {
		.engine = engine,
		.record = &engine->recovery[outer->depth],
		.end = engine->recovery[outer->depth].count,
		.pending = &engine->pending[outer->depth + 1],
		.hash = attempt->same_boot ? outer->hash : attempt->hash,
		.point = outer->point,
		.depth = outer->depth + 1,
		.boot = outer->boot + !attempt->same_boot,
		.host_crashed = outer->host_crashed || !attempt->same_boot,
		.only = only,
	};

	if (snprintf(frame.id, sizeof(frame.id), "%s/%s", outer->id, attempt->name) >= ID_BYTES)
		return;
	frame.pending->count_stores = 0;
	if (attempt->same_boot)
		pending_undo(outer->pending);
	if (!attempt->same_boot || !frame_inherit(&frame, outer))
		frame_walk(&frame);
	pending_unsettle(frame.pending);
}

/* --- the images of a point ------------------------------------------------------------------------------------------------------------ */

/* What options->only has for this image: nothing more, poison, or a step of its recovery. */
static void attempt_only(struct attempt *attempt, const char *rest)
{
	struct engine *engine = attempt->frame->engine;
	struct poison_target target;

	engine->is_found = true;
	if (*rest == '!' && poison_parse(rest + 1, &target)) {
		attempt->poison = &target;
		attempt_mount(attempt);
		return;
	}
	attempt->keeps_record = *rest == '/' && attempt->frame->depth < DEPTH_MAX;
	attempt->is_quiet = attempt->keeps_record;
	attempt_mount(attempt);
	if (attempt->keeps_record)
		attempt_interrupt(attempt, rest + 1);
}

/* The image is applied. `more`: also with poison, and with its recovery interrupted. */
static void attempt_run(struct attempt *attempt, bool more)
{
	struct frame *frame = attempt->frame;
	struct engine *engine = frame->engine;
	struct crash_point point = attempt_point(attempt);

	engine->totals->images++;
	/* Of the point's own images, each once. */
	if (!attempt->same_boot && seen_add(&engine->seen, hash_mix(attempt->hash ^ hash_mix(engine->totals->points))))
		engine->totals->space_images++;
	if (!seen_add(&engine->seen, attempt_key(attempt, &point, frame->boot + !attempt->same_boot)))
		return;
	engine->totals->distinct++;
	attempt->keeps_record = more && frame->depth < engine->options->recovery_depth && frame->depth < DEPTH_MAX;
	/* Not where a store is torn: one copy of a block may be, and with the other one poisoned that is two failures. */
	attempt->chooses_poison = more && !attempt->same_boot && engine->options->with_poison && frame->depth == 0;
	if (!attempt_mount(attempt) || engine_is_done(engine))
		return;
	if (attempt->chooses_poison) {
		struct attempt poisoned = *attempt;

		attempt_poison(&poisoned);
	}
	if (attempt->keeps_record)
		attempt_interrupt(attempt, NULL);
}

static void frame_try(struct frame *frame, const struct image *image)
{
	struct engine *engine = frame->engine;
	struct attempt attempt = {.frame = frame, .hash = frame->hash};
	bool is_plain = image_is_none(image) || image_is_all(image);
	char name[IMAGE_NAME_BYTES];
	const char *rest = NULL;

	image_name(image, name);
	snprintf(attempt.name, sizeof(attempt.name), "%zu/%s", frame->step, name);
	if (frame->only)
		rest = strpbrk(strchr(frame->only, '/') + 1, "/!");
	if (frame->depth == 0 && !engine_is_paged(engine) && is_plain)
		attempt.map = &engine->maps[image_is_all(image)];
	if (!image_choose(image, frame->pending) && !pending_apply(frame->pending, image->level, &attempt.hash)) {
		if (frame->only)
			attempt_only(&attempt, rest ? rest : "");
		else
			attempt_run(&attempt, is_plain);
	}
	pending_undo(frame->pending);
}

/* The durable state has not been mounted yet as such. */
static void frame_learn(struct frame *frame)
{
	struct attempt attempt = {.frame = frame, .hash = frame->hash, .map = &frame->engine->maps[0], .is_quiet = true};

	attempt_mount(&attempt);
}

/* Room for fewer at each depth. */
static uint64_t frame_limit(const struct frame *frame)
{
	const struct crash_options *options = frame->engine->options;
	uint64_t limit = options->images_limit;

	if (!limit)
		limit = options->schedule == CRASH_EXHAUSTIVE ? 4096 : 64;
	return max_u64(limit >> 4 * frame->depth, 2);
}

static const uint8_t *frame_map(struct frame *frame)
{
	if (frame->depth || engine_is_paged(frame->engine) || !frame->pending->count_lines)
		return NULL;
	if (!map_find(frame->engine, frame->hash))
		frame_learn(frame);
	return map_find(frame->engine, frame->hash);
}

/* log2(2^a + 2^b) */
static double log2_add(double a, double b)
{
	double most = fmax(a, b);

	return most + log2(exp2(a - most) + exp2(b - most));
}

static void frame_count(struct frame *frame, const struct images *images)
{
	struct crash_totals *totals = frame->engine->totals;

	totals->space_log2 = totals->points ? log2_add(totals->space_log2, images->space_log2) : images->space_log2;
	totals->points++;
	totals->points_whole += images->is_whole;
}

static void frame_explore_images(struct frame *frame)
{
	struct engine *engine = frame->engine;
	struct images images = {0};

	if (images_make(frame->pending, frame_limit(frame), engine->seed + hash_mix(frame->step), &images)) {
		free(images.list);
		return;
	}
	frame_count(frame, &images);
	if (engine->options->counts_only)
		engine->totals->images += images.count;
	for (size_t i = 0; i < images.count && !engine->options->counts_only && !engine_is_done(engine); i++)
		frame_try(frame, &images.list[i]);
	free(images.list);
}

/* Crash before this step. */
static void frame_explore(struct frame *frame)
{
	struct image image;
	int error = pending_find_lines(frame->pending);

	if (!error)
		error = pending_make_units(frame->pending, frame_map(frame));
	if (error)
		return;
	if (!frame->only)
		frame_explore_images(frame);
	else if (image_parse(strchr(frame->only, '/') + 1, &image))
		frame_try(frame, &image);
}

/* --- the daemon dies ------------------------------------------------------------------------------------------------------------------- */

/* PAGE: all that was stored is there, of this step's store the first `bytes`. */
static void frame_kill(struct frame *frame, const struct store *store, uint64_t bytes)
{
	struct attempt attempt = {.frame = frame, .hash = frame->hash, .same_boot = true};
	const struct image all = {LEVEL_LINES, '<', CUT_ALL};
	struct store part = *store;
	const char *rest = frame->only ? strpbrk(strchr(frame->only, '/') + 1, "/!") : NULL;

	part.length = bytes;
	snprintf(attempt.name, sizeof(attempt.name), "%zu/k%llx", frame->step, (unsigned long long)bytes);
	if (pending_add(frame->pending, &part) || pending_find_lines(frame->pending) || pending_make_units(frame->pending, NULL))
		return;
	image_choose(&all, frame->pending);
	if (!pending_apply(frame->pending, LEVEL_LINES, &attempt.hash)) {
		if (frame->only)
			attempt_only(&attempt, rest ? rest : "");
		else
			attempt_run(&attempt, true);
	}
	pending_undo(frame->pending);
	frame->pending->count_stores -= bytes != 0;
}

/* A store is torn between two words. */
static uint64_t frame_tear(const struct frame *frame, const struct store *store, unsigned number)
{
	uint64_t bytes = hash_mix(frame->engine->seed + 8 * frame->step + number) % (store->length + 1);
	devoff_t end = round_down_u64(store->offset + bytes, 8);

	return bytes == store->length ? bytes : end > store->offset ? end - store->offset : 0;
}

static void frame_kill_here(struct frame *frame, const struct store *store)
{
	struct engine *engine = frame->engine;
	unsigned count = engine->options->schedule == CRASH_EXHAUSTIVE ? 4 : 1;
	const char *image = frame->only ? strchr(frame->only, '/') + 1 : NULL;

	if (image && *image == 'k')
		frame_kill(frame, store, min_u64(strtoull(image + 1, NULL, 16), store->length));
	if (image)
		return;
	engine->totals->points++;
	if (engine->options->counts_only)
		engine->totals->images += count;
	for (unsigned i = 0; i < count && !engine->options->counts_only && !engine_is_done(engine); i++)
		frame_kill(frame, store, frame_tear(frame, store, i));
}

/* --- playing back ------------------------------------------------------------------------------------------------------------------------ */

static struct store frame_store(const struct frame *frame, const struct step *step)
{
	if (step->kind != STEP_STORE)
		return (struct store){.bytes = lab_bytes(frame->engine->lab)};
	return (struct store){step->offset, step->length, frame->record->arena + step->after, step->thread};
}

/* A workload's points are dealt out to the parts in turn: they are about as long as each other. */
static bool frame_is_elsewhere(const struct frame *frame)
{
	const struct crash_options *options = frame->engine->options;

	return options->parts && !frame->depth && !frame->only && (frame->engine->seed + frame->step) % options->parts != options->part;
}

static void frame_crash(struct frame *frame, const struct step *step)
{
	bool paged = engine_is_paged(frame->engine);
	struct store store = frame_store(frame, step);

	if (frame->only && strtoull(frame->only, NULL, 10) != frame->step)
		return;
	if (frame_is_elsewhere(frame))
		return;
	if (step->kind != STEP_STORE && (step->kind != STEP_DRAIN || !paged))
		frame_explore(frame);
	else if (frame->only && step->kind == STEP_STORE)
		frame_explore(frame);
	if (paged && step->kind != STEP_DRAIN && step->kind != STEP_SYNC)
		frame_kill_here(frame, &store);
}

static int frame_step(struct frame *frame, const struct step *step)
{
	struct store store = frame_store(frame, step);

	switch (step->kind) {
	case STEP_STORE:
		return pending_add(frame->pending, &store);
	case STEP_DRAIN:
		return engine_is_paged(frame->engine) ? 0 : pending_settle(frame->pending, step->thread, 0, UINT64_MAX, &frame->hash);
	case STEP_SYNC:
		return pending_settle(frame->pending, 0, step->offset, step->offset + step->length, &frame->hash);
	case STEP_BEGIN:
		frame->point.begun++;
		break;
	case STEP_END:
		frame->point.done++;
		break;
	case STEP_DURABLE:
		frame->point.durable = frame->point.done;
	}
	if (!engine_is_paged(frame->engine))
		frame->point.durable = frame->point.done;
	return 0;
}

static void frame_walk(struct frame *frame)
{
	static const struct step end = {.kind = STEP_DURABLE};
	int error = 0;

	for (frame->step = 0; frame->step < frame->end && !error && !engine_is_done(frame->engine); frame->step++) {
		const struct step *step = &frame->record->steps[frame->step];

		frame_crash(frame, step);
		error = frame_step(frame, step);
	}
	if (!error && !engine_is_done(frame->engine))
		frame_crash(frame, &end);
	if (error)
		fprintf(stderr, "%s: out of memory\n", frame->id);
}

/* --- the run ------------------------------------------------------------------------------------------------------------------------------- */

static const struct fs_options run_options = {.tools = true, .cache_bytes = 4u << 20};

static int engine_set_up(struct engine *engine, struct why *why)
{
	const struct crash_workload *workload = engine->workload;
	struct fs *fs;
	int error = fsfix_format_part(lab_media(engine->lab), workload->image_bytes), ended;

	lab_reset(engine->lab);
	if (!error)
		error = fs_mount_media(lab_media(engine->lab), &run_options, why, &fs);
	if (error)
		return error;
	error = workload->setup ? workload->setup(workload->arg, fs) : 0;
	ended = fs_unmount(fs);
	lab_reset(engine->lab);
	return error ? error : ended;
}

static int engine_run(struct engine *engine, struct why *why)
{
	const struct crash_workload *workload = engine->workload;
	struct fs *fs;
	int error = fs_mount_media(lab_media(engine->lab), &run_options, why, &fs), ended;

	if (error)
		return error;
	error = workload->run(workload->arg, fs, &engine->run);
	ended = fs_unmount(fs);
	record_mark(&engine->run.record, STEP_DURABLE, 0);
	return error ? error : ended;
}

static int engine_record(struct engine *engine)
{
	struct record *record = &engine->run.record;
	struct why why = {0};
	int error = engine_set_up(engine, &why);

	if (!error) {
		record_start(record);
		error = engine_run(engine, &why);
		record_stop(record);
		record_rewind(record);
	}
	if (!error && record->is_full)
		error = -ENOMEM;
	if (error)
		fprintf(stderr, "%s: cannot be run: %s %s\n", engine->workload->name, strerror(-error), why.text);
	return error;
}

/* --- all of it ----------------------------------------------------------------------------------------------------------------------------- */

static void engine_explore(struct engine *engine)
{
	struct frame frame = {.engine = engine, .record = &engine->run.record, .pending = &engine->pending[0]};
	size_t length = strlen(engine->workload->name);
	const char *only = engine->options->only;

	frame.end = engine->run.record.count;
	snprintf(frame.id, sizeof(frame.id), "%s", engine->workload->name);
	if (only)
		frame.only = only + length + 1;
	frame_walk(&frame);
	if (only && !engine->is_found)
		fprintf(stderr, "%s: there is no such image\n", only);
}

static void engine_init_record(struct engine *engine, struct record *record, unsigned depth)
{
	record_init(record, engine->lab);
	record->depth = depth;
	record->drops = engine->options->drops;
	record->drops_arg = engine->options->drops_arg;
}

static int engine_init(struct engine *engine)
{
	uint64_t size = engine->workload->image_bytes + engine->workload->room_bytes;
	bool paged = engine_is_paged(engine);
	int error = lab_create(size, engine->workload->granularity, &engine->lab);

	if (error)
		return error;
	error = lab_track_stores(engine->lab);
	engine_init_record(engine, &engine->run.record, 0);
	record_init(&engine->undo, engine->lab);
	engine->undo.only_undo = true;
	for (unsigned i = 0; i < DEPTH_MAX; i++)
		engine_init_record(engine, &engine->recovery[i], i + 1);
	for (unsigned i = 0; i <= DEPTH_MAX && !error; i++)
		error = pending_init(&engine->pending[i], lab_bytes(engine->lab), size, paged);
	for (unsigned i = 1; i <= DEPTH_MAX; i++)
		engine->pending[i].keeps_settled = true;
	for (unsigned i = 0; i < ARRAY_SIZE(engine->maps) && !error; i++) {
		engine->maps[i].bits = calloc(1, size / BLOCK_BYTES / 8);
		error = engine->maps[i].bits ? 0 : -ENOMEM;
	}
	return error;
}

static void engine_fini(struct engine *engine)
{
	if (!engine->lab)
		return;
	record_fini(&engine->run.record);
	record_fini(&engine->undo);
	for (unsigned i = 0; i < DEPTH_MAX; i++)
		record_fini(&engine->recovery[i]);
	for (unsigned i = 0; i <= DEPTH_MAX; i++)
		pending_fini(&engine->pending[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(engine->maps); i++)
		free(engine->maps[i].bits);
	seen_fini(&engine->seen);
	lab_destroy(engine->lab);
}

/* An id of another workload's is none of ours. */
static bool is_wanted(const struct crash_workload *workload, const char *only)
{
	size_t length = strlen(workload->name);
	const char *slash;

	if (!only)
		return true;
	slash = strncmp(only, workload->name, length) || only[length] != '/' ? NULL : strchr(only + length + 1, '/');
	return slash != NULL;
}

int crash_explore(const struct crash_workload *workload, const struct crash_options *options, struct crash_totals *totals)
{
	struct engine engine = {.workload = workload, .options = options, .totals = totals, .seed = hash_mix(options->seed)};
	double start = crash_clock_seconds(), cpu_start = crash_clock_cpu_seconds();
	int error;

	if (!is_wanted(workload, options->only))
		return 0;
	log_set_level(LOG_LEVEL_SILENT);
	crash_clock_set(CLOCK_START_NS);
	setenv("MENDFS_BOOT_ID", "boot 0", 1);
	error = engine_init(&engine);
	if (!error)
		error = engine_record(&engine);
	if (!error)
		engine_explore(&engine);
	engine_fini(&engine);
	unsetenv("MENDFS_BOOT_ID");
	crash_clock_set(0);
	totals->space_tried = totals->points == totals->points_whole ? 1 : exp2(log2((double)totals->space_images) - totals->space_log2);
	totals->seconds += crash_clock_seconds() - start;
	totals->cpu_seconds += crash_clock_cpu_seconds() - cpu_start;
	return error;
}
