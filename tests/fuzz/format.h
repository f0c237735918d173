/* Inputs of the format target. */
#ifndef TESTS_FUZZ_FORMAT_H
#define TESTS_FUZZ_FORMAT_H

#include "btree/btree.h"

enum format_kind {
	FORMAT_SUPER,
	FORMAT_BLOCK,
	FORMAT_CHUNK_ENTRY,
	FORMAT_HEAD,
	FORMAT_RECORD,
	FORMAT_POISON,
	FORMAT_VALUE, /* + enum format_tree_id */
	FORMAT_KINDS = FORMAT_VALUE + FORMAT_TREE_COUNT,
};

#define FORMAT_RAW 1u	    /* the checksum is left as it is */
#define FORMAT_ELSEWHERE 2u /* not where it says it belongs */

/* NULL: no such tree. */
const struct btree_ops *format_ops(unsigned tree);

#endif
