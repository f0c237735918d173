/*
 * The nodes from the root of a tree down to a leaf, held and verified. The level must fall by one
 * at each step and the keys of a child must lie within the bounds that its parent gives, so no walk
 * meets a node twice, whatever the media say.
 */
#ifndef BTREE_PATH_H
#define BTREE_PATH_H

#include "btree/node.h"

struct btree_step {
	struct buf *buf;
	unsigned index;         /* of the record or child that the path goes through */
	bool bounded;           /* keys are < upper */
	struct btree_key upper; /* keys below this node */
};

struct btree_path {
	const struct btree *tree;
	unsigned depth; /* steps held; step[0] is the root */
	struct btree_step step[NODE_LEVELS_MAX];
};

static inline struct format_node *step_node(const struct btree_step *step)
{
	return (struct format_node *)step->buf->data;
}

static inline struct btree_step *path_last(struct btree_path *path)
{
	return &path->step[path->depth - 1];
}

static inline bool path_at_leaf(struct btree_path *path)
{
	return step_node(path_last(path))->level == 0;
}

/* A new path that holds the root alone, at index 0. 0; -ENOENT: the tree is empty; -EIO, -EUCLEAN.
 */
int path_begin(struct btree_path *path, const struct btree *tree);
/* Hold the child at the last step's index too, at index 0. */
int path_down(struct btree_path *path);
/* As path_down() for any child of a step of the path, which does not become part of it: *out holds
 * the node. */
int path_open_child(const struct btree_path *path, const struct btree_step *parent, unsigned index,
		    struct btree_step *out);
/* Let go of the last step. */
void path_up(struct btree_path *path);
void path_end(struct btree_path *path);
/* Begin, then go down to the leaf where key belongs; the leaf's index is that of the first record
 * >= key. */
int path_seek(struct btree_path *path, const struct btree *tree, const struct btree_key *key,
	      bool *found);
/* What path_down() would hold next; for those who want to tell which node it was that failed. */
maddr_t path_child(const struct btree_path *path);

/* One node with everything in it verified, at the level that its parent (NULL: the root block)
 * expects of it. */
int btree_node_get(const struct btree *tree, struct buf *parent, maddr_t address, unsigned level,
		   struct buf **out);
/* What its parent says of a node, the maximum below it being `aggregate`; and with that looked for. */
uint64_t btree_node_rounded(const struct btree *tree, const struct format_node *node, uint64_t aggregate);
uint64_t btree_node_aggregate(const struct btree *tree, const struct format_node *node);
/* A new, empty node. */
int btree_node_create(const struct btree *tree, struct tx *tx, unsigned level, struct buf **out);

#endif
