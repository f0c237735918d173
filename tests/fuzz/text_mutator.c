/* Lines as mendfs writes them, with numbers that it would not. */
#include <stdio.h>

#include "tests/fuzz/mutator.h"
#include "tests/fuzz/program.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t capacity);

static unsigned long long some_number(struct random *random)
{
	return random_below(random, 3) ? random_below(random, 16u << 20) : random_interesting(random);
}

static int put_poison(struct random *random, char *to, size_t room)
{
	int used = snprintf(to, room, "# mendfs poison for %s\n", random_below(random, 2) ? "none" : "0eabcd02-0239-4c02-8013-827772ca30c0");

	for (uint64_t lines = random_below(random, 6); lines; lines--)
		used += snprintf(to + used, room - (size_t)used, "%llu%s%llu%s\n", some_number(random), random_below(random, 9) ? " " : " \t ",
				 some_number(random), random_below(random, 3) ? "" : " latent");
	return used;
}

static int put_answer(struct random *random, char *to, size_t room)
{
	static const char *const lines[] = {
		"{\"done\":true,\"totals\":{}}\n", "{\"done\":false,\"error\":\"no\",\"errno\":5}\n", "{\"done\":1}\n", "{\"done\":false,\"errno\":4096}\n",
		"{\"offset\":0}\n", "[]\n", "{\"progress\":{}}\n", "{\"done\":false}\n",
	};
	int used = snprintf(to, room, "{\"version\":1,\"pid\":%llu,\"mountpoint\":\"/mnt\",\"state\":\"%s\",\"protocol\":%llu}\n",
			    some_number(random), random_below(random, 4) ? "serving" : "finishing", random_below(random, 4) ? 1 : some_number(random));

	for (uint64_t count = random_below(random, 5); count; count--)
		used += snprintf(to + used, room - (size_t)used, "%s", lines[random_below(random, ARRAY_SIZE(lines))]);
	return used;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t capacity, unsigned seed)
{
	struct random random = {seed};
	char text[1024];
	int used;

	if (size >= 2 && random_below(&random, 3))
		return 1 + LLVMFuzzerMutate(data + 1, size - 1, capacity - 1);
	data[0] = (uint8_t)random_below(&random, 4);
	used = data[0] & 1 ? put_answer(&random, text, sizeof(text)) : put_poison(&random, text, sizeof(text));
	if (capacity < 1 + (size_t)used)
		return size;
	memcpy(data + 1, text, (size_t)used);
	return 1 + (size_t)used;
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out, size_t capacity, unsigned seed)
{
	struct random random = {seed};
	size_t head = a_size ? min_u64(random_below(&random, a_size) + 1, capacity) : 0;
	size_t tail = b_size ? random_below(&random, b_size) : 0, length = min_u64(b_size - tail, capacity - head);

	memcpy(out, a, head);
	memcpy(out + head, b + tail, length);
	return head + length;
}
