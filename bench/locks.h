/* How often locks were taken, and how often somebody else had them: the linker sends the calls of this program here (--wrap). */
#ifndef BENCH_LOCKS_H
#define BENCH_LOCKS_H

#include <stdint.h>

struct locks {
	uint64_t taken, contended;
};
/* Of all threads so far. */
struct locks locks_counted(void);

#endif
