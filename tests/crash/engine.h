/*
 * The crash engine. A workload runs once on a medium in memory (tests/support/lab.h) while every store, drain and sync is written down together with where each
 * operation began and ended. Then the record is played back: at every drain (sync), and between them, the stores that are not durable yet may or may
 * not have reached the medium, in any combination of 8-byte words (CACHELINE) or of whole pages (PAGE). Each such image is made by applying and undoing words
 * in place, mounted through the real recovery path, checked by fs_check() and compared by the workload.
 */
#ifndef TESTS_CRASH_ENGINE_H
#define TESTS_CRASH_ENGINE_H

#include "fs/fs.h"
#include "media/media.h"
#include "util/why.h"

struct crash_run;

/* Where the crash happened, for the workload's judgement. */
struct crash_point {
	/*
	 * Operations are numbered 0, 1, 2 ... in order. All below `done` had returned, `begun` - `done` (0 or 1) was in flight.
	 * All below `durable` had been acknowledged as durable: CACHELINE: `done`; PAGE: those before the last fsync, syncfs or unmount that returned.
	 */
	unsigned begun, done, durable;
	bool same_boot;	    /* PAGE: only the daemon died, the host's page cache is whole (then durable == done) */
	bool poisoned;	    /* poison was added between crash and recovery, in one copy of something: nothing may be lost by it */
	bool data_poisoned; /* and it lies in one 4 KiB device block of file data: reads of that block alone may be -EIO, all else as ever */
};

struct crash_workload {
	const char *name; /* unique; part of the id that reruns a failure */
	enum media_granularity granularity;
	uint64_t image_bytes; /* of the filesystem: at most 16 MiB */
	uint64_t room_bytes;  /* of the medium, behind it */
	/* Before the recording; 0 or negative errno. The filesystem is unmounted cleanly after it. */
	int (*setup)(void *arg, struct fs *fs);
	/* The operations, each between crash_begin() and crash_end(). */
	int (*run)(void *arg, struct fs *fs, struct crash_run *run);
	/*
	 * The recovered filesystem must be what the workload allows at this point: 0, or -EUCLEAN with `why`. Called many thousand times: no allocation that
	 * stays. Reading is all it does.
	 */
	int (*verify)(void *arg, struct fs *fs, const struct crash_point *point, struct why *why);
	void *arg;
};

/* Around each operation of run(). `error` is what it answered. */
void crash_begin(struct crash_run *run);
void crash_end(struct crash_run *run, int error);
/* All operations so far were acknowledged as durable (PAGE: after fsync, syncfs). */
void crash_durable(struct crash_run *run);

enum crash_schedule { CRASH_LINEAR, CRASH_EXHAUSTIVE };

struct crash_options {
	enum crash_schedule schedule;
	uint64_t seed;		  /* of what is sampled */
	uint64_t images_limit;	  /* per crash point; 0: the schedule's own */
	bool with_poison;	  /* each point also with poison in data, metadata, its replica, journal, poison log, in turn */
	unsigned recovery_depth;  /* crash again during recovery, that deep: 0, 1, 2 */
	const char *only;	  /* an id as a failure prints it: that image alone */
	unsigned part, parts;	  /* of the crash points only every parts-th, from the part-th on; parts 0: all */
	bool counts_only;	  /* images are counted as `images` and not tried */
	bool verbose;
	uint64_t violations_limit; /* stop after so many; 0: never (a broken twin needs one) */
	/*
	 * Broken twins: is this drain (sync) to have no effect? They are numbered from 0 within the recorded run (depth 0) or one recovery (depth 1 ...). Called
	 * from within media_drain() and media_sync().
	 */
	bool (*drops)(void *arg, unsigned depth, unsigned number, bool is_sync);
	void *drops_arg;
};

struct crash_totals {
	uint64_t points, images, distinct, mounts, violations;
	uint64_t points_whole; /* of which no image was left out */
	double space_log2;     /* how many images all points have, as a power of two */
	uint64_t space_images; /* of these that were tried */
	double space_tried;    /* share of them that were tried; 1 when none was left out */
	double seconds, cpu_seconds;
	char first_violation[512]; /* its id; "" when there was none */
};

/*
 * 0 when the workload could be run, whatever was found; violations are printed on stderr, one line each with the id that reruns it, at most `10` of
 * a workload. Totals are added to.
 */
int crash_explore(const struct crash_workload *workload, const struct crash_options *options, struct crash_totals *totals);

#endif
