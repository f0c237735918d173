/* Space that a chunk of metadata cannot have: the superblock's, that of its areas, that of other chunks. A set of device bytes. */
#ifndef FSCK_TAKEN_H
#define FSCK_TAKEN_H

#include "fsck/internal.h"
#include "util/iset.h"

#define TAKEN_FIXED UINT32_MAX /* tag of superblock and areas; others have the number of their chunk */

/* 0, -ENOMEM, as the others. */
int taken_begin(struct iset *taken, const struct super *super);
int taken_add(struct iset *taken, uint64_t chunk, const struct chunk_entry *entry);
int taken_remove(struct iset *taken, const struct chunk_entry *entry);
/* What has some of the entry's space already, or NULL. */
const struct iset_range *taken_meets(const struct iset *taken, const struct chunk_entry *entry);

#endif
