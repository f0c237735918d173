/* One destruction: which blocks, how, which copies; what came of it. */
#ifndef TESTS_DESTROY_TRIAL_H
#define TESTS_DESTROY_TRIAL_H

#include "tests/destroy/judge.h"

enum destroy_kind { DESTROY_ZEROS, DESTROY_RANDOM, DESTROY_STALE, DESTROY_ELSEWHERE, DESTROY_POISON, DESTROY_KINDS };
extern const char *const destroy_kind_names[DESTROY_KINDS];

#define TRIAL_BLOCKS_MAX 8
struct destruction {
	size_t target;
	enum destroy_kind kind;
	unsigned copies; /* bit k: copy k */
};
struct trial {
	struct destruction list[TRIAL_BLOCKS_MAX];
	unsigned count;
};
#define TRIAL_ID_BYTES 160
/* "12z3+40s1": target, first letter of the kind, copies in hexadecimal. */
void trial_name(const struct trial *trial, char id[TRIAL_ID_BYTES]);
int trial_parse(const char *id, const struct targets *targets, struct trial *out);

struct bench {
	struct image image;
	struct targets targets;
	struct oracle before;
	bool verbose;
	/* Of a self test: spoil what fsck left. NULL: nothing. */
	int (*spoil)(struct image *image, const struct bench *bench);
	bool judged; /* the last trial came as far as the judge */
};
int bench_create(struct bench *bench);
void bench_destroy(struct bench *bench);

unsigned copies_all(const struct target *target);
/* Is there anything to put there? (A stale version that differs.) */
bool destruction_is_possible(const struct bench *bench, const struct destruction *destruction);
/* 0: repaired, and no more lost than may be; -EUCLEAN with `why`. *lost: inodes and targets that may be lost. */
int trial_run(struct bench *bench, const struct trial *trial, uint64_t *lost, struct why *why);

#endif
