/* Records that recovery takes for its own, and some that it should not. */
#include "tests/fuzz/journal.h"

static uint64_t some_copies(struct random *random)
{
	return random_below(random, 3) ? 0 : 1 + random_below(random, 2);
}

/* Mostly 0, sometimes a little off, sometimes far. */
static uint64_t some_delta(struct random *random)
{
	if (random_below(random, 6))
		return 0;
	return random_below(random, 4) ? random_below(random, 5) - 2 : random_interesting(random);
}

static uint64_t some_block(struct random *random)
{
	return random_below(random, 8) ? random_below(random, 16) : random_below(random, 256);
}

static uint64_t some_lines(struct random *random)
{
	switch (random_below(random, 4)) {
	case 0:
		return 1ull << random_below(random, 64);
	case 1:
		return 3ull << random_below(random, 63);
	case 2:
		return 1 + random_below(random, 255);
	default:
		return random_interesting(random);
	}
}

static void make_record(struct random *random, struct order *order)
{
	unsigned items = random_below(random, 8) ? 1 + (unsigned)random_below(random, 3) : (unsigned)random_below(random, 12);

	order_add(order, random_below(random, 5) ? 0 : random_below(random, 8), 1);
	order_add(order, random_below(random, 3) ? 0 : 1u << random_below(random, 6), 1);
	order_add(order, some_copies(random), 1);
	order_add(order, some_delta(random), 1);
	order_add(order, random_below(random, 12) ? 0 : some_delta(random), 1);
	order_add(order, some_delta(random), 1);
	order_add(order, random_below(random, 3) ? 0 : some_delta(random), 2);
	order_add(order, items, 1);
	for (unsigned i = 0; i < items; i++) {
		order_add(order, some_block(random), 2);
		order_add(order, some_lines(random), 8);
		order_add(order, random_below(random, 3) ? 0 : random_below(random, 10) ? 1 : random_below(random, 256), 1);
		order_add(order, random_below(random, 256), 1);
	}
}

static void make_head_order(struct random *random, struct order *order)
{
	order_add(order, random_below(random, 2) ? 0 : 1u << random_below(random, 6), 1);
	order_add(order, some_copies(random), 1);
	order_add(order, random_below(random, 7), 1);
	order_add(order, random_below(random, 2) ? 64 * random_below(random, 1024) : random_interesting(random), 8);
}

static void make_home(struct random *random, struct order *order)
{
	order_add(order, some_block(random), 2);
	order_add(order, random_below(random, 4) == 0, 1);
	order_add(order, some_copies(random), 1);
	order_add(order, some_delta(random), 1);
	order_add(order, random_below(random, 2) ? random_below(random, 256) : random_below(random, 4096), 2);
	order_add(order, random_interesting(random), (size_t)1 << random_below(random, 4));
}

static void make_poison(struct random *random, struct order *order)
{
	order_add(order, random_below(random, JOURNAL_AREAS), 1);
	order_add(order, random_below(random, 2) ? random_below(random, 65536) : random_below(random, 4096), 4);
	order_add(order, random_below(random, 2) ? 64 : random_below(random, 4096), 2);
}

static void make_tear(struct random *random, struct order *order)
{
	order_add(order, some_copies(random), 1);
	order_add(order, random_below(random, 64), 2);
	order_add(order, random_below(random, 4), 1);
}

static void make_entry(struct random *random, struct order *order)
{
	static const uint8_t states[] = {0x0f, 0x33, 0x55, 0x69, 0xaa};

	order_add(order, random_below(random, 8) == 0, 1);
	order_add(order, some_copies(random), 1);
	order_add(order, random_below(random, 3) ? random_below(random, 2048) : random_interesting(random), 2);
	order_add(order, random_below(random, 3) ? 512 * random_below(random, 4096) : random_interesting(random), 8);
	order_add(order, random_below(random, 3) ? 512 * (1 + random_below(random, 8)) : random_interesting(random), 8);
	order_add(order, random_below(random, 8) ? states[random_below(random, sizeof(states))] : random_below(random, 256), 1);
	order_add(order, random_below(random, 8), 1);
	order_add(order, random_below(random, 8) == 0, 1);
}

static void make_patch(struct random *random, struct order *order)
{
	order_add(order, random_below(random, JOURNAL_AREAS), 1);
	order_add(order, random_below(random, 65536), 4);
	order_add(order, random_interesting(random), 8);
}

static void make_use(struct random *random, struct order *order)
{
	order_add(order, random_below(random, 8), 1);
	order_add(order, random_below(random, 48), 2);
	order_add(order, random_below(random, 256), 1);
}

static void make(struct random *random, struct order *order)
{
	static void (*const makers[])(struct random *random, struct order *order) = {
		[JOURNAL_RECORD] = make_record, [JOURNAL_HEAD] = make_head_order, [JOURNAL_HOME] = make_home,	[JOURNAL_POISON] = make_poison,
		[JOURNAL_TEAR] = make_tear,	[JOURNAL_ENTRY] = make_entry,	  [JOURNAL_PATCH] = make_patch, [JOURNAL_USE] = make_use,
	};
	static const uint8_t often[] = {JOURNAL_RECORD, JOURNAL_RECORD, JOURNAL_RECORD, JOURNAL_HEAD,  JOURNAL_HOME, JOURNAL_HOME, JOURNAL_POISON,
					JOURNAL_TEAR,	JOURNAL_ENTRY,	JOURNAL_PATCH,	JOURNAL_USE,   JOURNAL_USE};
	uint8_t kind = often[random_below(random, ARRAY_SIZE(often))];

	order_begin(order, kind);
	makers[kind](random, order);
}

static void make_head(struct random *random, uint8_t head[PROGRAM_HEAD])
{
	memset(head, 0, PROGRAM_HEAD);
	head[0] = (uint8_t)random_next(random);
}

const struct program_grammar fuzz_grammar = {.make = make, .make_head = make_head};
