/*
 * Failures that could not be entered in the trees (read-only, or no space for metadata): kept in DRAM for this mount, sorted, disjoint.
 * Not locked: the owner locks.
 */
#ifndef NOTIFY_OVERLAY_H
#define NOTIFY_OVERLAY_H

#include "format/record_format.h"
#include "util/iset.h"

struct overlay {
	struct badblock_record *records;
	size_t count, capacity;
};

void overlay_fini(struct overlay *overlay);
/* -ENOMEM. What is there already stays as it is. */
int overlay_add(struct overlay *overlay, const struct badblock_record *record);
int overlay_remove(struct overlay *overlay, devoff_t start, devoff_t end);
/* The first record that ends after `start`; NULL: none. Valid until the next change. */
const struct badblock_record *overlay_next(const struct overlay *overlay, devoff_t start);

#endif
