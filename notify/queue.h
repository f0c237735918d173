/*
 * What was reported and is not in the ledger yet: device ranges, each with the newest word on it. Ranges that touch and say the same
 * are one, so a storm of single pages is a few ranges. Bounded: beyond the limit only the fact that something was left out is
 * kept (the known set of media/ has the ranges). Not locked: the owner locks.
 */
#ifndef NOTIFY_QUEUE_H
#define NOTIFY_QUEUE_H

#include "format/poison_format.h"
#include "util/iset.h"

struct queue {
	struct iset ranges; /* tags: queue_tag() */
	size_t limit;
	bool overflowed;	/* some failed range was left out */
	uint8_t overflow_source; /* of the last one */
};

static inline uint32_t queue_tag(enum badblock_state state, enum failure_source source)
{
	return (uint32_t)state << 8 | (uint32_t)source;
}

static inline enum badblock_state queue_tag_state(uint32_t tag)
{
	return (enum badblock_state)(tag >> 8);
}

static inline enum failure_source queue_tag_source(uint32_t tag)
{
	return (enum failure_source)(tag & 0xff);
}

void queue_init(struct queue *queue, size_t limit);
void queue_fini(struct queue *queue);
/*
 * The newest word on [start, end) replaces older ones. 0; failures never fail (see overflowed); BADBLOCK_CLEARED: -ENOMEM or -ENOSPC, nothing
 * queued.
 */
int queue_push(struct queue *queue, uint64_t start, uint64_t end, enum badblock_state state, enum failure_source source);
bool queue_is_empty(const struct queue *queue);
/* Does some of [start, end) count as failed (not as cleared) in these ranges? The first such piece in *out. */
bool queue_find_failed(const struct iset *ranges, uint64_t start, uint64_t end, struct iset_range *out);
/* Move everything into *batch (iset_fini() it) and be empty; *overflow_source: 0, or the source of what was left out. */
void queue_take(struct queue *queue, struct iset *batch, uint8_t *overflow_source);

#endif
