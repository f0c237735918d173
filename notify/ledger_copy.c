#include "notify/ledger_copy.h"

#include <errno.h>

#include "format/record_format.h"
#include "notify/span.h"

static int damaged_copy_verify(const void *value, size_t length)
{
	struct damaged_record record;

	return format_damaged_unpack(&record, value, length);
}

static int ledger_copy_verify(const struct btree_key *key, const void *value, size_t length)
{
	const struct btree_key own = {{key->word[1], key->word[2]}};

	switch (key->word[0]) {
	case FORMAT_TREE_BADBLOCKS:
		return key->word[2] ? -EUCLEAN : badblocks_ops.verify(&own, value, length);
	case FORMAT_TREE_LOST:
		return key->word[2] ? -EUCLEAN : lost_ops.verify(&own, value, length);
	case FORMAT_TREE_DAMAGED:
		return damaged_copy_verify(value, length);
	default:
		return -EUCLEAN;
	}
}

const struct btree_ops ledger_copy_ops = {
	.tree = FORMAT_TREE_LEDGER_COPY,
	.key_words = 3,
	.verify = ledger_copy_verify,
};

int ledger_copy_put(const struct btree *of, struct tx *tx, const struct btree_key *key, const void *value, size_t length)
{
	const struct btree_key own = ledger_copy_key(of->ops->tree, key);
	struct btree copy;
	int rc;

	btree_init(&copy, of->journal, &ledger_copy_ops);
	rc = btree_update(&copy, tx, &own, value, length);
	return rc == -ENOENT ? btree_insert(&copy, tx, &own, value, length) : rc;
}

int ledger_copy_remove(const struct btree *of, struct tx *tx, const struct btree_key *key)
{
	const struct btree_key own = ledger_copy_key(of->ops->tree, key);
	struct btree copy;
	int rc;

	btree_init(&copy, of->journal, &ledger_copy_ops);
	rc = btree_remove(&copy, tx, &own);
	return rc == -ENOENT ? 0 : rc;
}
