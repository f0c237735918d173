#include "tests/fuzz/program.h"

void program_parse(const uint8_t *data, size_t size, struct program *out)
{
	struct bytes bytes = {data, size};

	bytes_take(&bytes, out->head, sizeof(out->head));
	for (out->count = 0; out->count < PROGRAM_ORDERS_MAX && bytes.left >= 2; out->count++) {
		struct order *order = &out->orders[out->count];

		order->kind = bytes_u8(&bytes);
		order->length = bytes_u8(&bytes);
		if (bytes.left < order->length)
			break;
		bytes_take(&bytes, order->bytes, order->length);
	}
}

size_t program_print(const struct program *program, uint8_t *data, size_t capacity)
{
	size_t used = PROGRAM_HEAD;

	if (capacity < PROGRAM_HEAD)
		return 0;
	memcpy(data, program->head, PROGRAM_HEAD);
	for (size_t i = 0; i < program->count; i++) {
		const struct order *order = &program->orders[i];

		if (used + 2 + order->length > capacity)
			continue;
		data[used++] = order->kind;
		data[used++] = order->length;
		memcpy(data + used, order->bytes, order->length);
		used += order->length;
	}
	return used;
}
