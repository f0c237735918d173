/*
 * The time of day that a crash run sees: fixed steps from a fixed start, so that a run stores the same bytes whenever it is repeated. Programs that link the
 * engine have clock_gettime() wrapped by the linker; other clocks, and all of them while this one stands still, are the real ones.
 */
#ifndef TESTS_CRASH_CLOCK_H
#define TESTS_CRASH_CLOCK_H

#include "util/types.h"

/* From now on the time is `start_ns`, and a microsecond later each time somebody looks. 0: the real time again. */
void crash_clock_set(uint64_t start_ns);
double crash_clock_seconds(void); /* real, monotonic */
double crash_clock_cpu_seconds(void);

#endif
