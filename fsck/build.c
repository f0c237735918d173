#include "fsck/build.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "btree/path.h"
#include "fsck/vector.h"
#include "journal/root.h"

#define NODES_PER_TX 16u
/* Not to the brim: the next insert would split every level. */
#define FILL_BYTES (NODE_SPACE_BYTES * 7 / 8)

struct item { /* a child to be */
	struct btree_key key;
	struct node_child child;
};
struct items {
	struct item *list;
	size_t count, capacity;
};

struct build {
	const struct tree_state *tree;
	struct btree btree;
	struct tx *tx;
	unsigned nodes_in_tx;
	struct items below, above;
	unsigned level; /* of the nodes that `above` will be children of, less one */
};

static int items_add(struct items *items, const struct item *item)
{
	if (!vector_reserve((void **)&items->list, items->count, &items->capacity, sizeof(*item)))
		return -ENOMEM;
	items->list[items->count++] = *item;
	return 0;
}

static int build_take_leaves(struct build *build)
{
	int error = 0;

	for (size_t i = 0; i < build->tree->count_leaves && !error; i++) {
		const struct leaf *leaf = &build->tree->leaves[i];
		struct item item = {leaf->first, {leaf->address, leaf->aggregate}};

		error = items_add(&build->below, &item);
	}
	return error;
}

/* A new node over the items from *next on; *next moves behind them. */
static int build_node(struct build *build, size_t *next)
{
	struct item above = {.key = build->below.list[*next].key};
	uint8_t packed[NODE_CHILD_BYTES];
	struct format_node *node;
	struct buf *buf;
	int error = btree_node_create(&build->btree, build->tx, build->level, &buf);

	if (error)
		return error;
	node = (struct format_node *)buf->data;
	while (*next < build->below.count && node_used_bytes(node) < FILL_BYTES && node_fits(node, sizeof(packed))) {
		const struct item *item = &build->below.list[(*next)++];

		node_child_pack(packed, &item->child);
		node_insert(node, node_count(node), &item->key, packed, sizeof(packed));
	}
	above.child = (struct node_child){buf->address, btree_node_aggregate(&build->btree, node)};
	buf_put(buf);
	return items_add(&build->above, &above);
}

static int build_begin(struct build *build)
{
	build->nodes_in_tx = 0;
	return tx_begin(build->btree.journal, TX_RESERVE, &build->tx);
}

static int build_end(struct build *build, int error)
{
	struct tx *tx = build->tx;

	build->tx = NULL;
	return tx_end(tx, error, NULL);
}

static int build_some(struct build *build, size_t *next)
{
	int error = build_begin(build);

	if (error)
		return error;
	while (!error && *next < build->below.count && build->nodes_in_tx++ < NODES_PER_TX && tx_room(build->tx) > 4)
		error = build_node(build, next);
	return build_end(build, error);
}

static int build_level(struct build *build)
{
	struct items swap;
	size_t next = 0;
	int error = 0;

	build->level++;
	while (!error && next < build->below.count)
		error = build_some(build, &next);
	swap = build->below;
	build->below = build->above;
	build->above = swap;
	build->above.count = 0;
	return error;
}

static int build_root(struct build *build)
{
	maddr_t address = build->below.count ? build->below.list[0].child.address : 0;
	int error = build_begin(build);

	if (error)
		return error;
	return build_end(build, root_tree_set(build->tx, build->tree->number, address, address ? build->level : 0));
}

int build_tree(struct forest *forest, const struct tree_state *tree)
{
	struct build build = {.tree = tree};
	int error;

	btree_init(&build.btree, forest->journal, tree->ops);
	error = build_take_leaves(&build);
	while (!error && build.below.count > 1)
		error = build_level(&build);
	if (!error)
		error = build_root(&build);
	free(build.below.list);
	free(build.above.list);
	return error;
}
