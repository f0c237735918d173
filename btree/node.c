#include "btree/node.h"

#include <errno.h>
#include <string.h>

static struct format_node_slot *slot_of(struct format_node *node, unsigned index)
{
	return &node->slots[index];
}

static const uint8_t *record_of(const struct format_node *node, unsigned index)
{
	return (const uint8_t *)node + le16_get(node->slots[index].offset);
}

static uint64_t word_load(const uint8_t *from)
{
	struct le64 word;

	memcpy(&word, from, sizeof(word));
	return le64_get(word);
}

static void word_store(uint8_t *to, uint64_t value)
{
	struct le64 word = le64_make(value);

	memcpy(to, &word, sizeof(word));
}

static size_t key_bytes(const struct format_node *node)
{
	return node->key_words * sizeof(struct le64);
}

static size_t heap_gap(const struct format_node *node)
{
	return le16_get(node->heap_start) - sizeof(*node) -
	       node_count(node) * sizeof(struct format_node_slot);
}

void node_init(struct format_node *node, unsigned level, unsigned key_words)
{
	node->count = le16_make(0);
	node->heap_start = le16_make(BLOCK_BYTES);
	node->heap_dead = le16_make(0);
	node->level = (uint8_t)level;
	node->key_words = (uint8_t)key_words;
	memset(node->reserved, 0, sizeof(node->reserved));
}

void node_key(const struct format_node *node, unsigned index, struct btree_key *out)
{
	const uint8_t *from = record_of(node, index);

	for (unsigned i = 0; i < 3; i++)
		out->word[i] = i < node->key_words ? word_load(from + 8 * i) : 0;
}

void node_set_key(struct format_node *node, unsigned index, const struct btree_key *key)
{
	uint8_t *to = (uint8_t *)record_of(node, index);

	for (unsigned i = 0; i < node->key_words; i++)
		word_store(to + 8 * i, key->word[i]);
}

bool node_is_alike(const struct format_node *node)
{
	return node_count(node) > 1 && word_load(record_of(node, 0)) == word_load(record_of(node, node_count(node) - 1));
}

const void *node_value(const struct format_node *node, unsigned index, size_t *length)
{
	*length = le16_get(node->slots[index].length) - key_bytes(node);
	return record_of(node, index) + key_bytes(node);
}

void node_set_value(struct format_node *node, unsigned index, const void *value, size_t length)
{
	memcpy((uint8_t *)record_of(node, index) + key_bytes(node), value, length);
}

void node_child(const struct format_node *node, unsigned index, struct node_child *out)
{
	const uint8_t *from = record_of(node, index) + key_bytes(node);

	out->address = word_load(from);
	out->aggregate = word_load(from + 8);
}

void node_set_aggregate(struct format_node *node, unsigned index, uint64_t aggregate)
{
	word_store((uint8_t *)record_of(node, index) + key_bytes(node) + 8, aggregate);
}

void node_child_pack(uint8_t to[NODE_CHILD_BYTES], const struct node_child *from)
{
	word_store(to, from->address);
	word_store(to + 8, from->aggregate);
}

uint64_t node_record_aggregate(const struct format_node *node, const struct btree_ops *ops,
			       unsigned index)
{
	struct node_child child;
	struct btree_key key;
	const void *value;
	size_t length;

	if (!ops->aggregate)
		return 0;
	if (node->level > 0) {
		node_child(node, index, &child);
		return child.aggregate;
	}
	node_key(node, index, &key);
	value = node_value(node, index, &length);
	return ops->aggregate(&key, value, length);
}

uint64_t node_aggregate(const struct format_node *node, const struct btree_ops *ops)
{
	uint64_t most = 0;

	if (!ops->aggregate)
		return 0;
	for (unsigned i = 0; i < node_count(node); i++)
		most = max_u64(most, node_record_aggregate(node, ops, i));
	return most;
}

/* Inner nodes have theirs at one place: a look for an overlap goes through all of them. */
static unsigned find_child_aggregate(const struct format_node *node, unsigned index, uint64_t least)
{
	size_t at = key_bytes(node) + 8;

	while (index < node_count(node) && word_load(record_of(node, index) + at) < least)
		index++;
	return index;
}

unsigned node_find_aggregate(const struct format_node *node, const struct btree_ops *ops, unsigned index, uint64_t least)
{
	if (node->level > 0 && ops->aggregate)
		return find_child_aggregate(node, index, least);
	while (index < node_count(node) && node_record_aggregate(node, ops, index) < least)
		index++;
	return index;
}

static int compare_at(const struct format_node *node, unsigned index, const struct btree_key *key)
{
	const uint8_t *from = record_of(node, index);

	for (unsigned i = 0; i < node->key_words; i++) {
		uint64_t word = word_load(from + 8 * i);

		if (word != key->word[i])
			return word < key->word[i] ? -1 : 1;
	}
	return 0;
}

unsigned node_search(const struct format_node *node, const struct btree_key *key, bool *found)
{
	unsigned low = 0, high = node_count(node);

	*found = false;
	while (low < high) {
		unsigned middle = (low + high) / 2;
		int order = compare_at(node, middle, key);

		if (order == 0) {
			*found = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

unsigned node_search_child(const struct format_node *node, const struct btree_key *key)
{
	bool found;
	unsigned index = node_search(node, key, &found);

	return found || index == 0 ? index : index - 1;
}

size_t node_used_bytes(const struct format_node *node)
{
	size_t heap = BLOCK_BYTES - le16_get(node->heap_start) - le16_get(node->heap_dead);

	return heap + node_count(node) * sizeof(struct format_node_slot);
}

size_t node_record_bytes(const struct format_node *node, size_t value_bytes)
{
	return sizeof(struct format_node_slot) + key_bytes(node) + value_bytes;
}

bool node_fits(const struct format_node *node, size_t value_bytes)
{
	return node_used_bytes(node) + node_record_bytes(node, value_bytes) <= NODE_SPACE_BYTES;
}

/* Close the holes of the heap. */
static void node_compact(struct format_node *node)
{
	uint8_t old[BLOCK_BYTES];
	unsigned top = BLOCK_BYTES;

	memcpy(old, node, sizeof(old));
	for (unsigned i = 0; i < node_count(node); i++) {
		struct format_node_slot *slot = slot_of(node, i);
		unsigned length = le16_get(slot->length);

		top -= length;
		memcpy((uint8_t *)node + top, old + le16_get(slot->offset), length);
		slot->offset = le16_make((uint16_t)top);
	}
	node->heap_start = le16_make((uint16_t)top);
	node->heap_dead = le16_make(0);
}

void node_insert(struct format_node *node, unsigned index, const struct btree_key *key,
		 const void *value, size_t length)
{
	unsigned count = node_count(node);
	size_t bytes = key_bytes(node) + length;
	struct format_node_slot *slot = slot_of(node, index);
	unsigned top;

	if (heap_gap(node) < node_record_bytes(node, length))
		node_compact(node);
	top = le16_get(node->heap_start) - (unsigned)bytes;
	memmove(slot + 1, slot, (count - index) * sizeof(*slot));
	slot->offset = le16_make((uint16_t)top);
	slot->length = le16_make((uint16_t)bytes);
	node->heap_start = le16_make((uint16_t)top);
	node->count = le16_make((uint16_t)(count + 1));
	node_set_key(node, index, key);
	if (length > 0)
		node_set_value(node, index, value, length);
}

/* The heap loses the record of this slot; the slot itself stays. */
static void heap_release(struct format_node *node, const struct format_node_slot *slot)
{
	unsigned length = le16_get(slot->length);

	if (le16_get(slot->offset) == le16_get(node->heap_start))
		node->heap_start = le16_make((uint16_t)(le16_get(node->heap_start) + length));
	else
		node->heap_dead = le16_make((uint16_t)(le16_get(node->heap_dead) + length));
}

static void heap_reset_if_empty(struct format_node *node)
{
	if (node_count(node) > 0)
		return;
	node->heap_start = le16_make(BLOCK_BYTES);
	node->heap_dead = le16_make(0);
}

void node_remove(struct format_node *node, unsigned index)
{
	unsigned count = node_count(node);
	struct format_node_slot *slot = slot_of(node, index);

	heap_release(node, slot);
	memmove(slot, slot + 1, (count - index - 1) * sizeof(*slot));
	node->count = le16_make((uint16_t)(count - 1));
	heap_reset_if_empty(node);
}

/* Bytes of record i of the node as it would be with a record of `bytes` inserted before `index`. */
static size_t virtual_bytes(const struct format_node *node, unsigned i, unsigned index,
			    size_t bytes)
{
	if (i == index)
		return bytes;
	return sizeof(struct format_node_slot) +
	       le16_get(node->slots[i < index ? i : i - 1].length);
}

unsigned node_split_point(const struct format_node *node, unsigned index, size_t value_bytes)
{
	size_t bytes = node_record_bytes(node, value_bytes);
	size_t half = (node_used_bytes(node) + bytes) / 2, left = 0;
	unsigned count = node_count(node), point = 0;

	if (index == count)
		return count;
	while (point < count && left < half)
		left += virtual_bytes(node, point++, index, bytes);
	return point;
}

void node_move_tail(struct format_node *from, unsigned index, struct format_node *to)
{
	unsigned count = node_count(from);

	for (unsigned i = index; i < count; i++) {
		struct btree_key key;
		size_t length;
		const void *value = node_value(from, i, &length);

		node_key(from, i, &key);
		node_insert(to, node_count(to), &key, value, length);
		heap_release(from, slot_of(from, i));
	}
	from->count = le16_make((uint16_t)index);
	heap_reset_if_empty(from);
}

/* --- verification --- */

struct heap_map {
	uint64_t used[BLOCK_BYTES / 64]; /* a bit per byte of the block */
};

/* Mark [start, start + length): false when a byte of it is marked already. */
static bool heap_map_mark(struct heap_map *map, unsigned start, unsigned length)
{
	unsigned end = start + length;

	for (unsigned word = start / 64; word * 64 < end; word++) {
		unsigned first = word * 64 < start ? start % 64 : 0;
		unsigned last = end - word * 64 < 64 ? end - word * 64 : 64;
		uint64_t bits = (last == 64 ? 0 : 1ull << last) - (1ull << first);

		if (map->used[word] & bits)
			return false;
		map->used[word] |= bits;
	}
	return true;
}

static const char *header_fault(const struct format_node *node, const struct btree_ops *ops)
{
	static const uint8_t zero[sizeof(node->reserved)];
	size_t slots = node_count(node) * sizeof(struct format_node_slot);
	size_t start = le16_get(node->heap_start);

	if (node->key_words != ops->key_words)
		return "key_words";
	if (node->level >= NODE_LEVELS_MAX)
		return "level";
	if (memcmp(node->reserved, zero, sizeof(zero)) != 0)
		return "reserved";
	if (node_count(node) == 0 || slots > NODE_SPACE_BYTES)
		return "count";
	if (start > BLOCK_BYTES || start < sizeof(*node) + slots)
		return "heap_start";
	if (le16_get(node->heap_dead) > BLOCK_BYTES - start)
		return "heap_dead";
	return NULL;
}

static bool slot_is_sane(const struct format_node *node, unsigned index)
{
	unsigned offset = le16_get(node->slots[index].offset),
		 length = le16_get(node->slots[index].length);
	size_t most = node->level > 0 ? NODE_CHILD_BYTES : NODE_VALUE_MAX;
	size_t least = node->level > 0 ? NODE_CHILD_BYTES : 0;

	return offset >= le16_get(node->heap_start) && offset + length <= BLOCK_BYTES &&
	       length >= key_bytes(node) + least && length <= key_bytes(node) + most;
}

static const char *slots_fault(const struct format_node *node)
{
	struct heap_map map = {0};
	size_t bytes = 0;

	for (unsigned i = 0; i < node_count(node); i++) {
		unsigned length = le16_get(node->slots[i].length);

		if (!slot_is_sane(node, i))
			return "slot";
		if (!heap_map_mark(&map, le16_get(node->slots[i].offset), length))
			return "slot overlap";
		bytes += length;
	}
	if (bytes + le16_get(node->heap_dead) + le16_get(node->heap_start) != BLOCK_BYTES)
		return "heap_dead";
	return NULL;
}

static const char *order_fault(const struct format_node *node)
{
	struct btree_key key;

	for (unsigned i = 1; i < node_count(node); i++) {
		node_key(node, i, &key);
		if (compare_at(node, i - 1, &key) >= 0)
			return "key order";
	}
	return NULL;
}

static const char *records_fault(const struct format_node *node, const struct btree_ops *ops)
{
	struct btree_key key;
	const void *value;
	size_t length;

	if (node->level > 0 || !ops->verify)
		return NULL;
	for (unsigned i = 0; i < node_count(node); i++) {
		node_key(node, i, &key);
		value = node_value(node, i, &length);
		if (ops->verify(&key, value, length) != 0)
			return "record";
	}
	return NULL;
}

int node_verify(const struct format_node *node, const struct btree_ops *ops, const char **field)
{
	const char *fault = header_fault(node, ops);

	if (!fault)
		fault = slots_fault(node);
	if (!fault)
		fault = order_fault(node);
	if (!fault)
		fault = records_fault(node, ops);
	if (!fault)
		return 0;
	*field = fault;
	return -EUCLEAN;
}
