/* Structures taken from images that are whole, then spoiled in few places. */
#include "format/chunk_format.h"
#include "format/node_format.h"
#include "tests/fuzz/bases.h"
#include "tests/fuzz/format.h"
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/program.h"

#define HEAD_BYTES 2u

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t capacity);

static const struct base *any_base(struct random *random)
{
	static bool made;

	if (!made)
		bases_make();
	made = true;
	return base_get((unsigned)random_below(random, BASES));
}

static size_t put(uint8_t *data, size_t capacity, unsigned kind, const uint8_t *from, size_t length)
{
	if (capacity < HEAD_BYTES + length)
		length = capacity - HEAD_BYTES;
	data[0] = (uint8_t)kind;
	data[1] = 0;
	memcpy(data + HEAD_BYTES, from, length);
	return HEAD_BYTES + length;
}

/* The value of some record of a leaf. */
static size_t put_value(struct random *random, uint8_t *data, size_t capacity, const struct format_node *node)
{
	unsigned index = (unsigned)random_below(random, le16_get(node->count));
	size_t key = 8u * node->key_words, length = le16_get(node->slots[index].length);

	return put(data, capacity, FORMAT_VALUE + node->header.tree,
		   (const uint8_t *)node + le16_get(node->slots[index].offset) + key, length - key);
}

/* Values that the base images have none of, or few. */
static size_t put_rare_value(struct random *random, uint8_t *data, size_t capacity)
{
	static const struct {
		uint8_t tree, length;
	} rare[] = {{FORMAT_TREE_BADBLOCKS, 32}, {FORMAT_TREE_LOST, 24}, {FORMAT_TREE_DAMAGED, 16}, {FORMAT_TREE_INTENTS, 64}};
	static const uint8_t ops[] = {0x17, 0x2b, 0x4d, 0};
	unsigned which = (unsigned)random_below(random, ARRAY_SIZE(rare));
	uint8_t value[64] = {0};

	value[1] = (uint8_t)(2 * (1 + random_below(random, 100))); /* a length in whole sectors */
	if (rare[which].tree == FORMAT_TREE_INTENTS)
		memcpy(value, (uint8_t[8]){ops[random_below(random, sizeof(ops))]}, 8);
	if (rare[which].tree == FORMAT_TREE_BADBLOCKS)
		memcpy(value + 28, (uint8_t[2]){0x33, 1}, 2);
	value[16] = (uint8_t)random_below(random, 8);
	return put(data, capacity, FORMAT_VALUE + rare[which].tree, value, rare[which].length);
}

static size_t put_structure(struct random *random, uint8_t *data, size_t capacity)
{
	static const uint8_t kinds[PLACE_TREE] = {[PLACE_SUPER] = FORMAT_SUPER,	       [PLACE_ROOT] = FORMAT_BLOCK,
						  [PLACE_TABLE] = FORMAT_BLOCK,	       [PLACE_CHUNK] = FORMAT_BLOCK,
						  [PLACE_JOURNAL_HEAD] = FORMAT_HEAD,  [PLACE_JOURNAL_RECORD] = FORMAT_RECORD,
						  [PLACE_POISON_LOG] = FORMAT_POISON,  [PLACE_RAW] = FORMAT_BLOCK};
	const struct base *base = any_base(random);
	unsigned kind = random_below(random, 2) ? PLACE_TREE + (unsigned)random_below(random, FORMAT_TREE_COUNT)
						: (unsigned)random_below(random, PLACE_TREE);
	struct place place = places_get(base->places, kind, random_below(random, 2) ? 0 : random_below(random, 64));
	const uint8_t *from = medium_kept(base->medium) + place.offset[0];

	if (random_below(random, 6) == 0)
		return put_rare_value(random, data, capacity);
	if (place.kind == PLACE_TABLE && random_below(random, 2))
		return put(data, capacity, FORMAT_CHUNK_ENTRY, from + sizeof(struct format_block_header), sizeof(struct format_chunk_entry));
	if (place.kind < PLACE_TREE)
		return put(data, capacity, kinds[place.kind], from, place.length);
	if (((const struct format_node *)from)->level == 0 && random_below(random, 2))
		return put_value(random, data, capacity, (const struct format_node *)from);
	return put(data, capacity, FORMAT_BLOCK, from, place.length);
}

/* Headers, slots and small structures decide more than the rest of a block. */
static void set_number(struct random *random, uint8_t *bytes, size_t size)
{
	size_t width = (size_t)1 << random_below(random, 4), reach = random_below(random, 3) ? min_u64(size, 160) : size;
	uint64_t value = 0;
	size_t at;

	if (reach < width)
		return;
	at = random_below(random, reach - width + 1);
	if (random_below(random, 2))
		at -= at % width;
	memcpy(&value, bytes + at, width);
	value = random_below(random, 3) ? random_interesting(random) : value + random_below(random, 33) - 16;
	memcpy(bytes + at, &value, width);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t capacity, unsigned seed)
{
	struct random random = {seed};

	if (capacity < HEAD_BYTES)
		return 0;
	if (size < HEAD_BYTES + 8 || random_below(&random, 8) == 0)
		size = put_structure(&random, data, capacity);
	if (random_below(&random, 16) == 0)
		data[1] = (uint8_t)random_below(&random, 4);
	if (random_below(&random, 4) == 0)
		return HEAD_BYTES + LLVMFuzzerMutate(data + HEAD_BYTES, size - HEAD_BYTES, capacity - HEAD_BYTES);
	for (uint64_t changes = random_below(&random, 4); changes; changes--)
		set_number(&random, data + HEAD_BYTES, size - HEAD_BYTES);
	return size;
}

/* The end of one in the other. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out, size_t capacity, unsigned seed)
{
	struct random random = {seed};
	size_t size = min_u64(a_size, capacity), from;

	memcpy(out, a, size);
	from = size ? random_below(&random, size) : 0;
	if (from < b_size)
		memcpy(out + from, b + from, min_u64(size, b_size) - from);
	return size;
}
