/* A small reproducible generator (splitmix64), and the seed that a run of a test uses. */
#ifndef TESTS_SUPPORT_RANDOM_H
#define TESTS_SUPPORT_RANDOM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct random {
	uint64_t state;
};

static inline uint64_t random_next(struct random *random)
{
	uint64_t z = random->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* 0 .. below - 1 */
static inline uint64_t random_below(struct random *random, uint64_t below)
{
	return random_next(random) % below;
}

/* MENDFS_SEED or the time; printed, so that a failure can be run again. */
static inline struct random random_start(const char *test)
{
	const char *given = getenv("MENDFS_SEED");
	struct timespec now;
	struct random random;

	clock_gettime(CLOCK_REALTIME, &now);
	random.state = given ? strtoull(given, NULL, 0)
			     : (uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec;
	printf("%s: MENDFS_SEED=%llu\n", test, (unsigned long long)random.state);
	fflush(stdout);
	return random;
}

#endif
