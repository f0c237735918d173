/*
 * What reached the medium, in order: a backend between media/ and the mapping writes down every
 * store, drain and sync. For tests of rules that are about order. One trace at a time; stores of
 * several threads may come side by side.
 */
#ifndef TESTS_SUPPORT_TRACE_H
#define TESTS_SUPPORT_TRACE_H

#include <pthread.h>

#include "media/media_types.h"
#include "tests/support/expect.h"

#define TRACE_STEPS 65536

enum trace_kind { TRACE_STORE, TRACE_DRAIN, TRACE_SYNC };

struct trace_step {
	enum trace_kind kind;
	devoff_t offset;
	uint64_t length;
};

static struct {
	pthread_mutex_t lock;
	bool is_on;
	unsigned count;
	struct trace_step steps[TRACE_STEPS];
} trace = {.lock = PTHREAD_MUTEX_INITIALIZER};

static inline void trace_add(enum trace_kind kind, devoff_t offset, uint64_t length)
{
	pthread_mutex_lock(&trace.lock);
	if (trace.is_on && trace.count == TRACE_STEPS)
		ck_abort_msg("the trace is full");
	if (trace.is_on)
		trace.steps[trace.count++] = (struct trace_step){kind, offset, length};
	pthread_mutex_unlock(&trace.lock);
}

static inline size_t trace_store(struct media *media, devoff_t offset, const void *from,
				 size_t length, struct guard_fault *fault)
{
	trace_add(TRACE_STORE, offset, length);
	return media_backend_mapped.store(media, offset, from, length, fault);
}

static inline size_t trace_zero(struct media *media, devoff_t offset, size_t length,
				struct guard_fault *fault)
{
	trace_add(TRACE_STORE, offset, length);
	return media_backend_mapped.zero(media, offset, length, fault);
}

static inline size_t trace_store_line(struct media *media, devoff_t offset, const void *line,
				      struct guard_fault *fault)
{
	trace_add(TRACE_STORE, offset, LINE_BYTES);
	return media_backend_mapped.store_line(media, offset, line, fault);
}

static inline void trace_drain(struct media *media)
{
	media_backend_mapped.drain(media);
	trace_add(TRACE_DRAIN, 0, 0);
}

static inline int trace_sync(struct media *media)
{
	int error = media_backend_mapped.sync(media);

	trace_add(TRACE_SYNC, 0, 0);
	return error;
}

static inline size_t trace_load(struct media *media, devoff_t offset, void *to, size_t length,
				struct guard_fault *fault)
{
	return media_backend_mapped.load(media, offset, to, length, fault);
}

static const struct media_backend trace_backend = {
    .load = trace_load,
    .store = trace_store,
    .zero = trace_zero,
    .store_line = trace_store_line,
    .drain = trace_drain,
    .sync = trace_sync,
    .clear = clear_mapped,
};

int __real_media_open(const char *path, const struct media_options *options, struct why *why,
		      struct media **out);
int __wrap_media_open(const char *path, const struct media_options *options, struct why *why,
		      struct media **out);

int __wrap_media_open(const char *path, const struct media_options *options, struct why *why,
		      struct media **out)
{
	int error = __real_media_open(path, options, why, out);

	if (!error)
		(*out)->backend = &trace_backend;
	return error;
}

static inline void trace_begin(void)
{
	pthread_mutex_lock(&trace.lock);
	trace.count = 0;
	trace.is_on = true;
	pthread_mutex_unlock(&trace.lock);
}

/* What is asked of the trace is asked after this. */
static inline void trace_end(void)
{
	pthread_mutex_lock(&trace.lock);
	trace.is_on = false;
	pthread_mutex_unlock(&trace.lock);
}

static inline bool trace_touches(unsigned i, devoff_t offset, uint64_t length)
{
	const struct trace_step *step = &trace.steps[i];

	return step->kind == TRACE_STORE && step->offset < offset + length &&
	       offset < step->offset + step->length;
}

/* The first step from `from` on that is a store into the range; trace.count: none. */
static inline unsigned trace_first_store(unsigned from, devoff_t offset, uint64_t length)
{
	while (from < trace.count && !trace_touches(from, offset, length))
		from++;
	return from;
}

/* The last one of all; trace.count: none. */
static inline unsigned trace_last_store(devoff_t offset, uint64_t length)
{
	unsigned last = trace.count;

	for (unsigned i = 0; i < trace.count; i++)
		if (trace_touches(i, offset, length))
			last = i;
	return last;
}

static inline unsigned trace_first_kind(unsigned from, enum trace_kind kind)
{
	while (from < trace.count && trace.steps[from].kind != kind)
		from++;
	return from;
}

#endif
