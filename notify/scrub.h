/*
 * The scrub that the bus of an NVDIMM does by itself (address range scrub): firmware reads all of the memory, and what it finds bad comes onto the kernel's
 * list (notify/source.h), which wakes who watches it. Twin files: with and without libndctl.
 */
#ifndef NOTIFY_SCRUB_H
#define NOTIFY_SCRUB_H

#include "media/media.h"

struct scrub_state {
	char bus[32]; /* "ndbus0" */
	bool is_running;
	uint64_t count_finished; /* since the bus was found */
};

/* 0; -ENOTSUP: the medium is on no such bus, or its bus cannot scrub: why. */
int scrub_ask(struct media *media, struct scrub_state *out, struct why *why);
/* 0: it runs now; -EBUSY: it was running; -EACCES: only root may; -ENOTSUP. */
int scrub_start(struct media *media, struct why *why);

#endif
