/* The address space of a plain file that may grow while it is mapped. */
#ifndef MEDIA_GROW_H
#define MEDIA_GROW_H

#include "media/media_types.h"

struct pmem2_config;

/* How much address space it may want. */
uint64_t grow_room(const struct media *media);
/* Keep address space behind the mapping, as far as there is some; without it the file cannot grow before the next opening. */
void grow_reserve(struct media *media);
void grow_unreserve(struct media *media);
void grow_unmap(struct media *media);
/* Granularity, protection and place of what is mapped at this offset. 0 or libpmem2's error. */
int grow_configure(struct media *media, struct pmem2_config *config, devoff_t offset);

#endif
