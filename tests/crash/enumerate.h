/*
 * Which images of a crash point are tried, and their names. A name says what the image is without regard to the options it was found with:
 *   none, all        of what is pending
 *   u=N, w=N         every combination: N in mixed radix over the units' versions; u: lines (PAGE: pages), w: words
 *   u#N              N's bits say which unit is there
 *   u<N              the first N stores alone
 *   u+N, u-N, w...   unit N alone; all but unit N
 *   u%N              all, of unit N only the words up to some word
 *   u~N, w~N         at random, N is the seed
 */
#ifndef TESTS_CRASH_ENUMERATE_H
#define TESTS_CRASH_ENUMERATE_H

#include "tests/crash/engine.h"
#include "tests/crash/pending.h"

struct image {
	enum level level;
	char kind; /* = # < + - % ~ */
	uint64_t number;
};

struct images {
	struct image *list;
	size_t count, capacity;
	bool is_whole; /* none was left out */
	double space_log2;
};

#define IMAGE_NAME_BYTES 32
void image_name(const struct image *image, char name[IMAGE_NAME_BYTES]);
/* Behind the name: the first character that is no more of it; NULL: no such name. */
const char *image_parse(const char *name, struct image *image);
static inline bool image_is_none(const struct image *image)
{
	return image->kind == '<' && !image->number;
}
static inline bool image_is_all(const struct image *image)
{
	return image->kind == '<' && image->number == CUT_ALL;
}

/* The images of this point: at most `limit` (at least "none" and "all"). 0 or -ENOMEM; free list. */
int images_make(const struct pending *pending, uint64_t limit, uint64_t seed, struct images *images);
/* Set pending->choices; -ENOENT: there is no such image here. */
int image_choose(const struct image *image, struct pending *pending);

#endif
