/*
 * Ranges that were freed by transactions that have committed and are not durable yet. They are collected in generations, and a
 * generation ends as a whole, when its last transaction is durable: so what is freed piece by piece
 * merges, and ending costs nothing. Not locked: the owner locks. Units are the caller's.
 */
#ifndef ALLOC_BUSY_H
#define ALLOC_BUSY_H

#include "util/iset.h"

struct busy_generation {
	struct iset ranges;
	uint64_t sequence; /* the highest of a transaction in it */
};

struct busy {
	struct busy_generation collecting; /* takes what is committed now */
	struct busy_generation closing;    /* waits to be durable */
};

void busy_init(struct busy *busy);
void busy_fini(struct busy *busy);
/* Room for `count` ranges that the open transaction may commit. 0, -ENOMEM. */
int busy_reserve(struct busy *busy, size_t count);
/* A transaction has freed these. Room was made for them. */
void busy_commit(struct busy *busy, const struct iset *ranges, uint64_t sequence);
/* Forget what is durable by now. */
void busy_expire(struct busy *busy, bool (*is_durable)(void *arg, uint64_t sequence), void *arg);
/* The range of the set that overlaps [start, end) and begins first, or NULL. Valid until the set
 * changes. */
const struct iset_range *busy_find(const struct busy *busy, uint64_t start, uint64_t end);
bool busy_is_empty(const struct busy *busy);

/* Whichever of two ranges, either of which may be NULL, begins first. */
static inline const struct iset_range *range_first(const struct iset_range *a,
						   const struct iset_range *b)
{
	if (!a || !b)
		return a ? a : b;
	return a->start <= b->start ? a : b;
}

#endif
