/* The operations in memory. Internal to the model. */
#ifndef TESTS_CRASH_MODEL_APPLY_H
#define TESTS_CRASH_MODEL_APPLY_H

#include "tests/crash/model_state.h"

/* An operation with its paths followed in the last state. */
struct model_target {
	const struct model_op *op;
	inum_t ino, dir;    /* of path: 0 where there is none */
	inum_t ino2, dir2;  /* of path2 */
	const char *name, *name2;
	unsigned tag;
};

/* 0; -ENOENT, -ENOTDIR: a directory on the way is missing, so the operation cannot even be tried. */
int target_resolve(const struct model *model, const struct model_op *op, struct model_target *target);
/* What the filesystem must answer, but for space. */
int target_expect(const struct model_state *state, const struct model_target *target);
/* Is it durable once it has been acknowledged, on PAGE media too? */
bool target_is_durable(const struct model_state *before, const struct model_target *target);
/* Only when that is 0. `ino` is the number of a new inode, `buffer` as the model's. */
void target_apply(struct model_state *state, const struct model_target *target, inum_t ino, uint8_t *buffer);
/* How it may be found half done. */
void target_change(const struct model_state *before, const struct model_target *target, struct model_change *change);
/* How many bytes a copy is to say that it copied. */
uint64_t target_copy_bytes(const struct model_state *state, const struct model_target *target);
/* Do the ranges of a deduplication, less a last piece that is left out, hold other bytes? `buffer` as the model's. */
bool target_differs(const struct model_state *state, const struct model_target *target, uint8_t *buffer);

#endif
