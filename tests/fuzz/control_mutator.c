/* Requests that a mendctl could have sent, with arguments that it would not. */
#include <stdio.h>

#include "tests/fuzz/mutator.h"
#include "tests/fuzz/program.h"

#define HEAD_BYTES 2u

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t capacity);

static const char *pick(struct random *random, const char *const *list, size_t count)
{
	return list[random_below(random, count)];
}

static int put_value(struct random *random, char *to, size_t room)
{
	static const char *const values[] = {"true", "false", "null", "-1", "\"\"", "\"all\"", "[]", "{}", "1.5", "\"L2Rpcg==\"", "\"L2Rpci9jbG9uZQ==\"",
					     "\"Lw==\"", "\"data\"", "\"metadata\"", "\"free\"", "\"label\\u0000\"", "18446744073709551616"};

	switch (random_below(random, 3)) {
	case 0:
		return snprintf(to, room, "%s", pick(random, values, ARRAY_SIZE(values)));
	case 1:
		return snprintf(to, room, "%llu", (unsigned long long)random_below(random, 40));
	default:
		return snprintf(to, room, "%llu", (unsigned long long)random_interesting(random));
	}
}

/* The usual value of this key. */
static int put_member(struct random *random, char *to, size_t room)
{
	static const char *const keys[] = {"offset", "length", "inumber", "to_inumber", "kind", "all", "latent", "path_raw", "text", "progress", "size"};
	static const char *const kinds[] = {"data", "metadata", "journal", "superblock", "free", "quarantine"};
	unsigned long long offset = random_below(random, 1 << 24), length = 1 + random_below(random, 1 << 20);
	int used;

	switch (random_below(random, 8)) {
	case 5:
		return snprintf(to, room, ",\"progress\":true");
	case 6:
		return snprintf(to, room, ",\"text\":\"%s\"", random_below(random, 2) ? "name" : "0eabcd02-0239-4c02-8013-827772ca30c0");
	case 0:
		return snprintf(to, room, ",\"offset\":%llu,\"length\":%llu", offset, length);
	case 1:
		return snprintf(to, room, ",\"inumber\":%llu,\"to_inumber\":%llu", offset % 40, length % 40);
	case 2:
		return snprintf(to, room, ",\"kind\":\"%s\",\"all\":true", pick(random, kinds, ARRAY_SIZE(kinds)));
	case 3:
		return snprintf(to, room, ",\"path_raw\":\"L2Rpci9jbG9uZQ==\",\"offset\":%llu,\"length\":%llu", offset % 65536, length);
	default:
		used = snprintf(to, room, ",\"%s\":", pick(random, keys, ARRAY_SIZE(keys)));
		return used + put_value(random, to + used, room - (size_t)used);
	}
}

static size_t put_request(struct random *random, uint8_t *data, size_t capacity)
{
	static const char *const commands[] = {"list", "map", "owners", "badblocks", "damaged", "inject-error", "uninject-error", "monitor", "clone",
					       "label", "uuid", "resize", "stats", "drop-caches", "sync", "check", "version", "none"};
	char text[1024];
	int used = snprintf(text, sizeof(text), "{\"command\":\"%s\"", pick(random, commands, ARRAY_SIZE(commands)));

	for (uint64_t members = random_below(random, 4); members; members--)
		used += put_member(random, text + used, sizeof(text) - (size_t)used);
	used += snprintf(text + used, sizeof(text) - (size_t)used, "}\n");
	if (capacity < HEAD_BYTES + (size_t)used)
		return 0;
	data[0] = (uint8_t)(random_below(random, 3) ? 0 : random_below(random, 32));
	data[1] = (uint8_t)(random_below(random, 2) ? 255 : random_below(random, 255));
	memcpy(data + HEAD_BYTES, text, (size_t)used);
	return HEAD_BYTES + (size_t)used;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t capacity, unsigned seed)
{
	struct random random = {seed};

	if (size < HEAD_BYTES + 4 || random_below(&random, 3) == 0)
		return put_request(&random, data, capacity);
	return HEAD_BYTES + LLVMFuzzerMutate(data + HEAD_BYTES, size - HEAD_BYTES, capacity - HEAD_BYTES);
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out, size_t capacity, unsigned seed)
{
	struct random random = {seed};
	size_t head = a_size ? random_below(&random, a_size) : 0, from = b_size ? random_below(&random, b_size) : 0;

	head = min_u64(head, capacity);
	memcpy(out, a, head);
	b_size = min_u64(b_size - from, capacity - head);
	memcpy(out + head, b + from, b_size);
	return head + b_size;
}
