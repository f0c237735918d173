/*
 * Inputs of the targets that act: PROGRAM_HEAD bytes of choices, then orders: kind (1), length (1), that many bytes. Whatever the bytes are they
 * are a program; an order that the end of the input cuts off is left out. The mutator works on whole orders, and knows what makes a good one from
 * the target's grammar.
 */
#ifndef TESTS_FUZZ_PROGRAM_H
#define TESTS_FUZZ_PROGRAM_H

#include "tests/fuzz/bytes.h"
#include "tests/support/random.h"

#define PROGRAM_HEAD 16u
#define PROGRAM_ORDERS_MAX 64u
#define PROGRAM_BYTES_MAX 4096u
#define ORDER_BYTES_MAX 255u

struct order {
	uint8_t kind;
	uint8_t length;
	uint8_t bytes[ORDER_BYTES_MAX];
};

struct program {
	uint8_t head[PROGRAM_HEAD];
	size_t count;
	struct order orders[PROGRAM_ORDERS_MAX];
};

struct program_grammar {
	/* Fill an order that means something. */
	void (*make)(struct random *random, struct order *order);
	/* Fill the head. */
	void (*make_head)(struct random *random, uint8_t head[PROGRAM_HEAD]);
};

void program_parse(const uint8_t *data, size_t size, struct program *out);
/* Its bytes; orders that do not fit are left out. */
size_t program_print(const struct program *program, uint8_t *data, size_t capacity);

static inline struct bytes order_bytes(const struct order *order)
{
	return (struct bytes){order->bytes, order->length};
}

/* --- mutator.c, linked with libFuzzer only --- */

size_t program_mutate(uint8_t *data, size_t size, size_t capacity, unsigned seed, const struct program_grammar *grammar);
size_t program_cross(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out, size_t capacity, unsigned seed);
/* A number that breaks things: 0, 1, limits, powers of two and their neighbours, or any. */
uint64_t random_interesting(struct random *random);

/* The target's, for mutator.c to hand to libFuzzer. */
extern const struct program_grammar fuzz_grammar;

/* --- making orders --- */

static inline void order_begin(struct order *order, uint8_t kind)
{
	order->kind = kind;
	order->length = 0;
}

static inline void order_add(struct order *order, uint64_t value, size_t length)
{
	if (order->length + length > ORDER_BYTES_MAX)
		return;
	memcpy(order->bytes + order->length, &value, length);
	order->length = (uint8_t)(order->length + length);
}

#endif
