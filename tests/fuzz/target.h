/* What every target begins with, and how it fails. */
#ifndef TESTS_FUZZ_TARGET_H
#define TESTS_FUZZ_TARGET_H

/* Quiet, and the same on every host. */
void target_begin(void);
/* A promise was broken though nothing crashed. */
_Noreturn void target_fail(const char *what, const char *detail);

#endif
