/* The mistake to be found: the records of a node are believed to lie where its slots say. */
#include <string.h>

#include "btree/node.h"

int __real_node_verify(const struct format_node *node, const struct btree_ops *ops, const char **field);
int __wrap_node_verify(const struct format_node *node, const struct btree_ops *ops, const char **field);

int __wrap_node_verify(const struct format_node *node, const struct btree_ops *ops, const char **field)
{
	int error = __real_node_verify(node, ops, field);

	return error && (!strcmp(*field, "slot") || !strcmp(*field, "count")) ? 0 : error;
}
