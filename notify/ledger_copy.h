/*
 * The second place where every record of badblocks, lost and damaged stands, so that losing all copies of a leaf loses none of them: the tree
 * ledger_copy, keyed by (tree, the record's own key), with the same value. Written in the transaction that writes the record.
 */
#ifndef NOTIFY_LEDGER_COPY_H
#define NOTIFY_LEDGER_COPY_H

#include "btree/btree.h"

extern const struct btree_ops ledger_copy_ops;

static inline struct btree_key ledger_copy_key(unsigned tree, const struct btree_key *key)
{
	return (struct btree_key){{tree, key->word[0], key->word[1]}};
}

/* Write the record, whether or not it is there. */
int ledger_copy_put(const struct btree *of, struct tx *tx, const struct btree_key *key, const void *value, size_t length);
/* Take it out, if it is there. */
int ledger_copy_remove(const struct btree *of, struct tx *tx, const struct btree_key *key);

#endif
