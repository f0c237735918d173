/*
 * Copies in and out of a mapping under a per-thread SIGBUS guard. They run forward in 64-byte lines
 * behind a cursor, so that the line that failed is the one at the cursor: si_addr is rounded to the
 * mapping's page size (up to 2 MiB) and only classifies.
 */
#ifndef MEDIA_GUARD_H
#define MEDIA_GUARD_H

#include "util/types.h"

struct guard_region {
	unsigned char *base;
	size_t length;
};

struct guard_fault {
	int code;         /* BUS_MCEERR_AR, BUS_MCEERR_AO, BUS_ADRERR */
	uint64_t address; /* si_addr, relative to the region */
	unsigned lsb;     /* si_addr_lsb, where the code has one */
};

/* How whole lines are stored. */
struct guard_how {
	bool nontemporal;
	void (*flush)(const void *ptr,
		      size_t length_bytes); /* for what was stored through the cache, or NULL */
};

/* Install the handler, once for the process; what was there before gets every SIGBUS that is not
 * ours. */
int guard_install(void);

/* Each returns the bytes done: less than asked for after a SIGBUS, which *fault then describes. */
size_t guard_load(const struct guard_region *region, uint64_t offset, void *to, size_t length,
		  struct guard_fault *fault);
size_t guard_store(const struct guard_region *region, uint64_t offset, const void *from,
		   size_t length, const struct guard_how *how, struct guard_fault *fault);
size_t guard_zero(const struct guard_region *region, uint64_t offset, size_t length,
		  const struct guard_how *how, struct guard_fault *fault);
/* One whole line, as one store where the CPU has one that wide. */
size_t guard_store_line(const struct guard_region *region, uint64_t offset, const void *line,
			const struct guard_how *how, struct guard_fault *fault);
/* madvise(MADV_HWPOISON), which raises its SIGBUS in the caller. 0 or a negative errno. */
int guard_hwpoison(const struct guard_region *region, uint64_t offset, size_t length);

#endif
