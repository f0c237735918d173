/*
 * Ranges that were freed by transactions that are not durable yet. What one transaction frees is a
 * batch; batches end in the order in which they were committed. Not locked: the owner locks. Units
 * are the caller's.
 */
#ifndef ALLOC_BUSY_H
#define ALLOC_BUSY_H

#include "util/iset.h"

struct busy_batch {
	uint64_t sequence;
	uint32_t tag;
};

struct busy {
	struct iset ranges;         /* tagged with their batch */
	struct busy_batch *batches; /* committed, oldest first */
	size_t count, capacity;
	uint32_t tag; /* of the open batch, or the next */
	bool open;
	bool shadowing; /* the open batch hides ranges of an older one */
};

void busy_init(struct busy *busy);
void busy_fini(struct busy *busy);
/* Add to the open batch, or open one. 0, -ENOMEM. */
int busy_add(struct busy *busy, uint64_t start, uint64_t end);
/* Close the open batch, if there is one; neither can fail. */
void busy_commit(struct busy *busy, uint64_t sequence);
void busy_abort(struct busy *busy);
/* Forget the oldest batches whose sequence is durable. */
void busy_expire(struct busy *busy, bool (*is_durable)(void *arg, uint64_t sequence), void *arg);

#endif
