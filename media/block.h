/*
 * Block devices: what libpmem2 refuses. The mapping is the kernel's page cache of the device, so all that holds for a plain file
 * (MEDIA_PAGE, msync, trapped pages) holds here; size, claim, growth and clearing differ.
 */
#ifndef MEDIA_BLOCK_H
#define MEDIA_BLOCK_H

#include "util/types.h"
#include "util/why.h"

struct media;

struct block {
	int exclusive_fd;      /* O_EXCL: the kernel's own claim, or -1 */
	unsigned sector_bytes; /* what it reads and writes at once */
	bool is_mapped;
};

void block_init(struct block *block);
/* In bytes: 0 of a device that is no longer there. Or -errno. */
int block_size(int fd, uint64_t *size);
/* Size and sector. */
int block_measure(struct media *media, struct why *why, uint64_t *size);
/* Refuse one that a kernel filesystem, swap, LVM ... uses, and keep them from it. -EBUSY says who, where that can be told. */
int block_claim(struct media *media, struct why *why);
int block_map(struct media *media, struct why *why);
void block_unmap(struct media *media);
/* *size, or (0) all that there is: is the device that long by now? */
int block_grow_to(const struct media *media, uint64_t *size, struct why *why);
int block_map_more(struct media *media, uint64_t size, struct why *why);
/* Zeros past the page cache, so that the device can put another sector in a bad one's place. 0; -ENOTSUP; -EIO. */
int block_overwrite(const struct media *media, devoff_t offset, uint64_t length);
#endif
