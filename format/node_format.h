/*
 * A tree node: header, slots growing up, records growing down from the end. A leaf record is key then value; an inner
 * record is key, child, aggregate (always stored, 0 for trees without one). Keys are key_words little-endian words.
 */
#ifndef FORMAT_NODE_FORMAT_H
#define FORMAT_NODE_FORMAT_H

#include "format/block_format.h"

struct format_node_slot {
	struct le16 offset; /* of the record, from the start of the block */
	struct le16 length; /* bytes, key included */
};
static_assert(sizeof(struct format_node_slot) == 4, "stored layout");

struct format_node {
	struct format_block_header header;
	struct le16 count;	/* records */
	struct le16 heap_start; /* the lowest byte used by a record */
	struct le16 heap_dead;	/* bytes of removed records within the heap */
	uint8_t level;		/* 0 is a leaf */
	uint8_t key_words;
	uint8_t reserved[8];
	struct format_node_slot slots[]; /* count of them, sorted by key */
};
static_assert(sizeof(struct format_node) == 80, "stored layout");

#define NODE_SPACE_BYTES (BLOCK_BYTES - sizeof(struct format_node))
#define NODE_VALUE_MAX 1024u

#endif
