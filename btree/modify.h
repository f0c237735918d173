/* What changing a tree is made of, for the files that do. */
#ifndef BTREE_MODIFY_H
#define BTREE_MODIFY_H

#include "btree/path.h"

/* As path_seek(), by who will change something there: a crowded node on the way is cut first. */
int path_seek_change(struct tx *tx, struct btree_path *path, const struct btree *tree, const struct btree_key *key, bool *found);
/* Compute the aggregates of the nodes above step d anew, as far up as they change. */
int aggregate_settle(struct tx *tx, struct btree_path *path, unsigned d);
/* Does record `index` belong to the same unit as key? */
bool unit_is_same(const struct btree *tree, const struct format_node *node, unsigned index, const struct btree_key *key);

#endif
