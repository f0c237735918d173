/*
 * The durable record of failures: the trees badblocks (the medium) and lost (the content), and the space that is quarantined. What notify/
 * itself does to it, in bounded transactions; what fs/ asks of it is in notify/notify.h.
 */
#ifndef NOTIFY_LEDGER_H
#define NOTIFY_LEDGER_H

#include "alloc/alloc.h"
#include "notify/span.h"
#include "rmap/rmap.h"

/*
 * A step is begun when this many blocks may still be joined, or when it is the first of its transaction (the smallest journals never have as many).
 * It joins leaves of badblocks, lost, ledger_copy, rmap and free next to each other, their splits, and the root block.
 */
#define LEDGER_ROOM 40
#define LEDGER_STEPS_MAX UINT32_MAX

struct ledger {
	struct media *media;
	const struct rmap *rmap;
	struct alloc *alloc;
	struct span_tree badblocks, lost;
};

void ledger_init(struct ledger *ledger, struct journal *journal, const struct rmap *rmap, struct alloc *alloc);

/*
 * Enter failure->start .. end, none of which is in badblocks: the record, `lost` where files have written content, quarantine for
 * whole blocks of free space. At least one step, at most `steps`, while there is room: *next is where to go on (end: finished).
 */
int ledger_record(const struct ledger *ledger, struct tx *tx, const struct span *failure,
		  unsigned steps, devoff_t *next);
/* The range is good again: out of badblocks and lost; quarantined blocks without anything bad left become free. Steps as above. */
int ledger_forget(const struct ledger *ledger, struct tx *tx, devoff_t start, devoff_t end,
		  unsigned steps, devoff_t *next);
/* Blocks that held data are being freed: the good ones to alloc, the bad ones to quarantine; `lost` ends. -EFBIG: too many pieces. */
int ledger_give(const struct ledger *ledger, struct tx *tx, blkno_t start, uint64_t count);
/* mkfs: enter a range that is bad from the start; its space is the caller's. */
int ledger_format(struct journal *journal, struct tx *tx, const struct badblock_record *record);

#endif
