/* Counters and tree roots in the root block. Caller holds the metadata lock; changes are part of the transaction. */
#ifndef JOURNAL_ROOT_H
#define JOURNAL_ROOT_H

#include "format/root_format.h"
#include "journal/tx.h"

uint64_t root_get(struct journal *journal, enum root_counter counter);
int root_add(struct tx *tx, enum root_counter counter, int64_t delta); /* -EUCLEAN when it would go below 0 */
int root_set(struct tx *tx, enum root_counter counter, uint64_t value);
void root_tree_get(struct journal *journal, unsigned tree, maddr_t *address, unsigned *level);
int root_tree_set(struct tx *tx, unsigned tree, maddr_t address, unsigned level);

#endif
