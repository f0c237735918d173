/* All single destructions, a sample of them, and groups. */
#ifndef TESTS_DESTROY_PLAN_H
#define TESTS_DESTROY_PLAN_H

#include "tests/destroy/trial.h"
#include "tests/support/random.h"

/* A row of the table: blocks of one tree and level. */
struct row {
	const char *name;
	unsigned level;
	size_t targets;
	uint64_t of[DESTROY_KINDS][2], tried[DESTROY_KINDS][2]; /* [1]: all copies at once */
	uint64_t violations;
};
struct plan {
	struct destruction *singles;
	size_t count_singles;
	size_t *row_of; /* by target */
	struct row *rows;
	size_t count_rows;
	bool *chosen; /* by single */
	size_t count_chosen;
};

void plan_make(const struct bench *bench, struct plan *out);
void plan_fini(struct plan *plan);
/* Half of them evenly over trees, levels, kinds and numbers of copies, the rest anyhow; `wanted` 0: all. */
void plan_choose(struct plan *plan, struct random *random, size_t wanted);
/* 2 to 8 blocks of anything, every copy or some; no superblock is left without a copy. */
void plan_group(const struct bench *bench, struct random *random, struct trial *out);
void plan_count(const struct bench *bench, struct plan *plan, const struct destruction *destruction, bool violation);
void plan_print(const struct plan *plan);

#endif
