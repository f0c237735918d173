/* What a SIGBUS in a copy means, and what is done about it. In ordinary context, after the jump. */
#ifndef MEDIA_FAULT_H
#define MEDIA_FAULT_H

#include "media/access.h"

/*
 * 0: go on with the copy at access->done (which may have moved: bytes were carried by other means);
 * -EIO with *bad set; -ENOSPC.
 */
int fault_resolve(struct media *media, struct access *access, const struct guard_fault *fault,
		  devoff_t *bad);
/* An armed byte of a device, where injection raises only one signal, is as good as touched. -EIO.
 */
int fault_injected(struct media *media, devoff_t first, devoff_t *bad);
/* Add to the known set (rounded to sectors) and tell the handler, unless all of it was known and, if it is poison, run into before. Returns whether this is poison
 * that nobody had run into. */
bool fault_report(struct media *media, enum media_fault_kind kind, devoff_t start, devoff_t end);
/* A store went through: the next refusal by a full host is news again, once the host really has
 * room. */
void fault_note_store(struct media *media);

#endif
