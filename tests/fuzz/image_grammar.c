/* Orders that hit: of a structure that is there, where its fields are. */
#include "tests/fuzz/image.h"

/* Where the fields of nodes, root, table, head, record and superblock are: most bytes of a block are payload, and few decide. */
static size_t interesting_offset(struct random *random, unsigned kind)
{
	switch (kind) {
	case PLACE_SUPER:
		return random_below(random, 3) ? 112 + random_below(random, 400) : random_below(random, 248);
	case PLACE_ROOT:
		return 64 + random_below(random, 16 * 16 + 20 * 8);
	case PLACE_TABLE:
		return 64 + random_below(random, 2 * 128);
	case PLACE_JOURNAL_RECORD:
		return random_below(random, 2) ? random_below(random, 64 + 24 * 4) : random_below(random, 4096);
	default:
		return random_below(random, 3) ? 64 + random_below(random, 64) : random_below(random, BLOCK_BYTES);
	}
}

static unsigned add_place(struct random *random, struct order *order)
{
	static const uint8_t plain[] = {PLACE_SUPER, PLACE_ROOT, PLACE_TABLE, PLACE_CHUNK, PLACE_JOURNAL_HEAD, PLACE_JOURNAL_RECORD, PLACE_POISON_LOG};
	unsigned kind = random_below(random, 3) ? PLACE_TREE + 1 + (unsigned)random_below(random, FORMAT_TREE_COUNT - 1)
						: plain[random_below(random, ARRAY_SIZE(plain))];
	uint8_t copies = random_below(random, 4) ? 0 : (uint8_t)(1 + random_below(random, 3));

	if (random_below(random, 12) == 0)
		copies |= IMAGE_RAW;
	order_add(order, kind, 1);
	order_add(order, random_below(random, 2) ? 0 : random_below(random, 64), 2);
	order_add(order, copies, 1);
	return kind;
}

static void add_number(struct random *random, struct order *order)
{
	order_add(order, random_interesting(random), (size_t)1 << random_below(random, 4));
}

static void make_patch(struct random *random, struct order *order)
{
	unsigned kind = add_place(random, order);
	size_t offset = interesting_offset(random, kind);

	order_add(order, random_below(random, 2) ? offset & ~7ull : offset, 2);
	add_number(random, order);
}

static void make_record(struct random *random, struct order *order)
{
	add_place(random, order);
	order_add(order, random_below(random, 2) ? random_below(random, 3) : random_below(random, 256), 1);
	order_add(order, random_below(random, 2) ? 8 * random_below(random, 8) : random_below(random, 300), 2);
	add_number(random, order);
}

static void make_copy(struct random *random, struct order *order)
{
	add_place(random, order);
	add_place(random, order);
	order_add(order, random_below(random, 2) ? 8 : random_below(random, 16), 1); /* 8: the header stays */
}

static void make_fill(struct random *random, struct order *order)
{
	unsigned kind = add_place(random, order);

	order_add(order, interesting_offset(random, kind), 2);
	order_add(order, random_below(random, 2) ? 64 : random_below(random, 4097), 2);
	order_add(order, random_below(random, 2) ? 0 : random_interesting(random), 1);
}

static void make_poison(struct random *random, struct order *order)
{
	add_place(random, order);
	order_add(order, random_below(random, BLOCK_BYTES), 2);
	order_add(order, random_below(random, 2) ? 64 : random_below(random, BLOCK_BYTES), 2);
}

static void make_use(struct random *random, struct order *order)
{
	order_add(order, random_below(random, 23), 1);
	for (unsigned i = 0; i < 7; i++)
		order_add(order, random_below(random, 256), 1);
	order_add(order, random_below(random, 3) ? random_below(random, 1 << 20) : random_interesting(random), 8);
	order_add(order, random_below(random, 3) ? random_below(random, 1 << 17) : random_interesting(random), 8);
}

static void make(struct random *random, struct order *order)
{
	static void (*const makers[])(struct random *random, struct order *order) = {
		[IMAGE_PATCH] = make_patch, [IMAGE_RECORD] = make_record, [IMAGE_COPY] = make_copy,
		[IMAGE_FILL] = make_fill,   [IMAGE_POISON] = make_poison, [IMAGE_USE] = make_use,
	};
	static const uint8_t often[] = {IMAGE_PATCH, IMAGE_PATCH, IMAGE_RECORD, IMAGE_RECORD, IMAGE_RECORD, IMAGE_COPY,
					IMAGE_FILL,  IMAGE_POISON, IMAGE_USE,	IMAGE_USE,    IMAGE_USE};
	uint8_t kind = often[random_below(random, ARRAY_SIZE(often))];

	order_begin(order, kind);
	makers[kind](random, order);
}

static void make_head(struct random *random, uint8_t head[PROGRAM_HEAD])
{
	memset(head, 0, PROGRAM_HEAD);
	head[0] = (uint8_t)random_below(random, random_below(random, 4) ? BASES - 1 : BASES);
	head[1] = (uint8_t)random_next(random);
	/* What is slow is for some. */
	if (random_below(random, 4))
		head[1] &= (uint8_t)~(IMAGE_READONLY | IMAGE_FSCK | IMAGE_AGAIN);
	if (random_below(random, 3))
		head[1] &= (uint8_t)~IMAGE_CHECK;
}

const struct program_grammar fuzz_grammar = {.make = make, .make_head = make_head};
