#include "alloc/internal.h"
#include "fs/inode.h"
#include "notify/ledger_copy.h"
#include "notify/span.h"
#include "rmap/mapping.h"
#include "tests/fuzz/format.h"

const struct btree_ops *format_ops(unsigned tree)
{
	static const struct btree_ops *const all[] = {
		&inodes_ops, &dirents_ops, &parents_ops, &extents_ops, &xattrs_ops,	 &rmap_ops,	&free_ops,
		&badblocks_ops, &lost_ops, &damaged_ops, &orphans_ops, &intents_ops, &ledger_copy_ops,
	};

	for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
		if (all[i]->tree == tree)
			return all[i];
	return NULL;
}
