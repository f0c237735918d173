/*
 * A set of disjoint half-open byte ranges [start, end) of uint64_t, kept merged and sorted, each with a small tag.
 * Ranges with equal tags that touch are merged; adding over existing ranges overwrites their tag there.
 * Not locked: the owner locks. Lookup is O(log n).
 */
#ifndef UTIL_ISET_H
#define UTIL_ISET_H

#include "util/types.h"

struct iset_range {
	uint64_t start;
	uint64_t end;
	uint32_t tag;
};

struct iset {
	struct iset_range *ranges;
	size_t count;
	size_t capacity;
};

void iset_init(struct iset *set);
void iset_fini(struct iset *set);
/* `to` is uninitialised before it. 0 or -ENOMEM (then it is empty). */
int iset_copy(struct iset *to, const struct iset *from);
/* Room for `count` ranges in all: an add needs at most two more than there are, a remove one. 0, -ENOMEM. */
int iset_reserve(struct iset *set, size_t count);
/* 0, -EINVAL (start >= end), -ENOMEM (nothing changed). */
int iset_add(struct iset *set, uint64_t start, uint64_t end, uint32_t tag);
int iset_remove(struct iset *set, uint64_t start, uint64_t end);
/* The first range that overlaps [start, end), or NULL. Valid until the set changes. */
const struct iset_range *iset_find(const struct iset *set, uint64_t start, uint64_t end);
bool iset_overlaps(const struct iset *set, uint64_t start, uint64_t end);
bool iset_covers(const struct iset *set, uint64_t start, uint64_t end);
uint64_t iset_bytes(const struct iset *set);

#endif
