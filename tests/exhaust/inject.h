/*
 * Failures on demand, and the count of what was not given back: malloc() and its kin, the allocation of space, and the calls of media/ are wrapped by the
 * linker in the program under test. Any thread may be hit.
 */
#ifndef TESTS_EXHAUST_INJECT_H
#define TESTS_EXHAUST_INJECT_H

#include <stdbool.h>
#include <stddef.h>

enum inject_kind {
	INJECT_MEMORY,	  /* -ENOMEM from the heap */
	INJECT_SPACE,	  /* -ENOSPC from the allocation of data blocks and of metadata blocks */
	INJECT_LOAD,	  /* a load finds poison, -EIO */
	INJECT_STORE,	  /* a store finds poison, -EIO */
	INJECT_HOST_FULL, /* a store is refused, -ENOSPC */
	INJECT_SYNC,	  /* msync fails, -EIO: plain files only */
	INJECT_KINDS,
};
const char *inject_name(enum inject_kind kind);

/* From now on the nth (from 1) of these fails, and with `persists` all after it; 0: none, only count. */
void inject_arm(enum inject_kind kind, unsigned nth, bool persists);
/* Nothing fails any more. How many there were since, failed ones included. */
unsigned inject_disarm(void);
/* For the lab's listener: is this load or store to fail? */
bool inject_hits(enum inject_kind kind);

/* Pieces of the heap that were taken since the last call of inject_forget_heap() and not given back. Each is told on stderr with who took it. */
void inject_forget_heap(void);
size_t inject_outstanding(bool tell);

#endif
