#include "tests/crash/record.h"

#include <stdlib.h>
#include <string.h>

void record_init(struct record *record, struct lab *lab)
{
	memset(record, 0, sizeof(*record));
	record->lab = lab;
	pthread_mutex_init(&record->lock, NULL);
}

void record_fini(struct record *record)
{
	free(record->steps);
	free(record->arena);
	pthread_mutex_destroy(&record->lock);
}

/* Small numbers in order of first appearance in this process. */
static uint32_t thread_number(void)
{
	static _Atomic uint32_t next;
	static _Thread_local uint32_t mine;

	if (!mine)
		mine = ++next;
	return mine;
}

static struct step *record_add(struct record *record, enum step_kind kind)
{
	size_t capacity = record->capacity ? 2 * record->capacity : 1024;
	struct step *steps;

	if (record->count == record->capacity) {
		steps = realloc(record->steps, capacity * sizeof(*steps));
		if (!steps) {
			record->is_full = true;
			return NULL;
		}
		record->steps = steps;
		record->capacity = capacity;
	}
	steps = &record->steps[record->count++];
	*steps = (struct step){.kind = kind, .thread = thread_number()};
	return steps;
}

/* `from` NULL: zeros. */
static size_t record_keep(struct record *record, const void *from, uint64_t length)
{
	size_t at = record->arena_used, size = record->arena_size ? record->arena_size : 1u << 20;
	uint8_t *arena;

	while (size < at + length)
		size *= 2;
	if (size != record->arena_size) {
		arena = realloc(record->arena, size);
		if (!arena) {
			record->is_full = true;
			return 0;
		}
		record->arena = arena;
		record->arena_size = size;
	}
	if (from)
		memcpy(record->arena + at, from, length);
	else
		memset(record->arena + at, 0, length);
	record->arena_used += length;
	return at;
}

static void record_store(void *arg, devoff_t offset, const void *from, size_t length)
{
	struct record *record = arg;
	struct step *step;

	pthread_mutex_lock(&record->lock);
	step = record_add(record, STEP_STORE);
	if (step) {
		step->offset = offset;
		step->length = length;
		step->before = record_keep(record, lab_bytes(record->lab) + offset, length);
		if (!record->only_undo)
			step->after = record_keep(record, from, length);
	}
	pthread_mutex_unlock(&record->lock);
}

static void record_barrier(struct record *record, enum step_kind kind, devoff_t start, devoff_t end)
{
	struct step *step = NULL;
	unsigned number;

	if (record->only_undo)
		return;
	pthread_mutex_lock(&record->lock);
	number = record->count_barriers++;
	if (!record->drops || !record->drops(record->drops_arg, record->depth, number, kind == STEP_SYNC))
		step = record_add(record, kind);
	if (step) {
		step->offset = start;
		step->length = end - start;
	}
	pthread_mutex_unlock(&record->lock);
}

static void record_drain(void *arg)
{
	record_barrier(arg, STEP_DRAIN, 0, 0);
}

static void record_sync(void *arg, devoff_t start, devoff_t end)
{
	record_barrier(arg, STEP_SYNC, start, end);
}

void record_start(struct record *record)
{
	struct lab_listener listener = {.store = record_store, .drain = record_drain, .sync = record_sync, .arg = record};

	record->count = 0;
	record->arena_used = 0;
	record->count_barriers = 0;
	lab_listen(record->lab, &listener);
}

void record_stop(struct record *record)
{
	lab_listen(record->lab, NULL);
}

void record_mark(struct record *record, enum step_kind kind, int error)
{
	struct step *step;

	pthread_mutex_lock(&record->lock);
	step = record_add(record, kind);
	if (step)
		step->error = error;
	pthread_mutex_unlock(&record->lock);
}

void record_rewind(struct record *record)
{
	for (size_t i = record->count; i-- > 0;) {
		const struct step *step = &record->steps[i];

		if (step->kind == STEP_STORE)
			memcpy(lab_bytes(record->lab) + step->offset, record->arena + step->before, step->length);
	}
}
