/* What recovery calls of salvage.c when journal_options.salvage is set. */
#ifndef JOURNAL_SALVAGE_INTERNAL_H
#define JOURNAL_SALVAGE_INTERNAL_H

#include "journal/internal.h"
#include "journal/salvage.h"

/* After reading the heads, which answered `error`: 0 when there is a tail to begin at. */
int salvage_find_tail(struct journal *journal, int error);
/* The end of the log is known. */
void salvage_judge(struct journal *journal, const struct scan *scan);
/* Between the records to fixed addresses and the others. */
int salvage_mend_fixed(struct journal *journal, struct why *why);

#endif
