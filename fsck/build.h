/* Inner levels of a tree anew over leaves that stay where they are. */
#ifndef FSCK_BUILD_H
#define FSCK_BUILD_H

#include "fsck/walk.h"

/*
 * The leaves are settled. Transactions of their own; the last one sets the root, so that a run that ends before leaves blocks in use that nothing
 * refers to, and the tree as unknown as it was.
 */
int build_tree(struct forest *forest, const struct tree_state *tree);

#endif
