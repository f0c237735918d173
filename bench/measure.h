/* What one operation costs: differences of clocks and of the counters that fs/ keeps anyway, divided by the number of operations. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include "fs/fs.h"

enum figure {
	FIGURE_NS,	     /* of the wall clock, until the last call returned */
	FIGURE_CPU_NS,	     /* of the process: what the background did for it included */
	FIGURE_INSTRUCTIONS, /* of the calling thread; negative: this machine does not count them */
	FIGURE_DRAINS,
	FIGURE_STORED_BYTES, /* to the medium, journal and data, both copies */
	FIGURE_JOURNAL_BYTES,
	FIGURE_LOCKS,
	FIGURE_CONTENDED,
	FIGURES
};
extern const char *const figure_names[FIGURES];

struct measure {
	struct fs *fs;
	double at[FIGURES];
	double ns; /* until measure_stop() */
};
void measure_begin(struct measure *measure, struct fs *fs);
/* The clock stops; what follows is only what the background still does. */
void measure_stop(struct measure *measure);
void measure_end(struct measure *measure, uint64_t ops, double figures[FIGURES]);
struct measure_locks {
	uint64_t taken, contended;
};
struct measure_locks measure_locks(void); /* of all threads and classes so far */
double measure_now_ns(void);
double measure_cpu_ns(void); /* that this process has used: what others take of the CPU does not count */
double measure_median(double *values, size_t count); /* sorts them */

#endif
