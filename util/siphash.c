#include "util/siphash.h"

struct state {
	uint64_t a, b, c, d;
};

static uint64_t rotate(uint64_t x, unsigned bits)
{
	return x << bits | x >> (64 - bits);
}

static void rounds(struct state *s, unsigned count)
{
	while (count--) {
		s->a += s->b;
		s->c += s->d;
		s->b = rotate(s->b, 13) ^ s->a;
		s->d = rotate(s->d, 16) ^ s->c;
		s->a = rotate(s->a, 32);
		s->c += s->b;
		s->a += s->d;
		s->b = rotate(s->b, 17) ^ s->c;
		s->d = rotate(s->d, 21) ^ s->a;
		s->c = rotate(s->c, 32);
	}
}

static void absorb(struct state *s, uint64_t word)
{
	s->d ^= word;
	rounds(s, 2);
	s->a ^= word;
}

uint64_t siphash(const struct siphash_key *key, const uint64_t *words, size_t count_words)
{
	/* "somepseudorandomlygeneratedbytes" */
	struct state s = {
		.a = key->word[0] ^ 0x736f6d6570736575ull,
		.b = key->word[1] ^ 0x646f72616e646f6dull,
		.c = key->word[0] ^ 0x6c7967656e657261ull,
		.d = key->word[1] ^ 0x7465646279746573ull,
	};

	for (size_t i = 0; i < count_words; i++)
		absorb(&s, words[i]);
	absorb(&s, (uint64_t)count_words * 8 << 56); /* the last, incomplete word: the length alone */
	s.c ^= 0xff;
	rounds(&s, 4);
	return s.a ^ s.b ^ s.c ^ s.d;
}
