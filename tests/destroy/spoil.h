/* Repairs that are wrong in one thing: the judge must see each. */
#ifndef TESTS_DESTROY_SPOIL_H
#define TESTS_DESTROY_SPOIL_H

#include "tests/destroy/trial.h"

/* How many were not noticed, each said on stderr; *count: of how many. */
unsigned spoil_all(struct bench *bench, unsigned *count);

#endif
