/* The mutator of programs: orders are added, taken out, doubled, moved, rewritten and changed inside; never torn. */
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/program.h"

/* libFuzzer's own mutations, for the inside of an order. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t capacity);

uint64_t random_interesting(struct random *random)
{
	static const uint64_t limits[] = {0, 1, 2, 3, 4095, 4096, 4097, UINT8_MAX, UINT16_MAX, UINT32_MAX, UINT64_MAX, INT64_MAX,
					  1ull << 56, 1ull << 44, 1ull << 32, 1ull << 63, (1ull << 56) - 1, (1ull << 44) - 1};
	uint64_t one = 1ull << random_below(random, 64);

	switch (random_below(random, 5)) {
	case 0:
		return limits[random_below(random, ARRAY_SIZE(limits))];
	case 1:
		return one + random_below(random, 3) - 1;
	case 2:
		return random_below(random, 16);
	case 3:
		return random_next(random) & (one - 1);
	default:
		return random_next(random);
	}
}

static void orders_remove(struct program *program, size_t at)
{
	program->count--;
	memmove(&program->orders[at], &program->orders[at + 1], (program->count - at) * sizeof(program->orders[0]));
}

static void orders_insert(struct program *program, size_t at, const struct order *order)
{
	if (program->count == PROGRAM_ORDERS_MAX)
		return;
	memmove(&program->orders[at + 1], &program->orders[at], (program->count - at) * sizeof(program->orders[0]));
	program->orders[at] = *order;
	program->count++;
}

/* A number somewhere in the order becomes an interesting one, or a little more or less than it was. */
static void order_set_number(struct random *random, struct order *order)
{
	size_t width = (size_t)1 << random_below(random, 4), at;
	uint64_t value = 0;

	if (order->length < width)
		return;
	at = random_below(random, order->length - width + 1);
	memcpy(&value, order->bytes + at, width);
	if (random_below(random, 2))
		value = random_interesting(random);
	else
		value += random_below(random, 9) - 4;
	memcpy(order->bytes + at, &value, width);
}

static void order_change(struct random *random, struct order *order)
{
	switch (random_below(random, 3)) {
	case 0:
		order->length = (uint8_t)LLVMFuzzerMutate(order->bytes, order->length, ORDER_BYTES_MAX);
		break;
	default:
		order_set_number(random, order);
		break;
	}
}

static void program_change(struct random *random, struct program *program, const struct program_grammar *grammar)
{
	size_t at = program->count ? random_below(random, program->count) : 0;
	struct order order;

	switch (random_below(random, program->count ? 10 : 2)) {
	case 0:
		grammar->make_head(random, program->head);
		break;
	case 1:
	case 2:
	case 3:
		grammar->make(random, &order);
		orders_insert(program, random_below(random, program->count + 1), &order);
		break;
	case 4:
		orders_remove(program, at);
		break;
	case 5:
		order = program->orders[at];
		orders_insert(program, random_below(random, program->count + 1), &order);
		break;
	case 6:
		grammar->make(random, &program->orders[at]);
		break;
	default:
		order_change(random, &program->orders[at]);
		break;
	}
}

size_t program_mutate(uint8_t *data, size_t size, size_t capacity, unsigned seed, const struct program_grammar *grammar)
{
	static struct program program;
	struct random random = {seed};

	program_parse(data, size, &program);
	for (uint64_t changes = 1 + random_below(&random, 4); changes; changes--)
		program_change(&random, &program, grammar);
	return program_print(&program, data, capacity);
}

/* Some of the orders of one input, then some of the other's. */
size_t program_cross(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out, size_t capacity, unsigned seed)
{
	static struct program one, other;
	struct random random = {seed};
	size_t from;

	program_parse(a, a_size, &one);
	program_parse(b, b_size, &other);
	one.count = random_below(&random, one.count + 1);
	for (from = random_below(&random, other.count + 1); from < other.count && one.count < PROGRAM_ORDERS_MAX; from++)
		one.orders[one.count++] = other.orders[from];
	return program_print(&one, out, capacity);
}
