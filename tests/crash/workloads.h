/*
 * Workloads of the crash tests, written as text: "write a/f 1b+100 5000; fsync a/f". What a workload does can so be printed, and typed.
 *
 *   create mkdir PATH . node PATH MODE RDEV . tmpfile DIR SLOT . symlink PATH TARGET
 *   link OLD NEW . unlink rmdir PATH . rename replace whiteout exchange OLD NEW (rename: RENAME_NOREPLACE)
 *   chmod PATH MODE . chown PATH UID GID . truncate PATH SIZE . utimes PATH NS . settle PATH SIZE MODE (size, mode and mtime at once) . killpriv PATH
 *   write PATH POS LENGTH . append PATH LENGTH . copy FROM POS TO POS LENGTH . clone FROM TO . dedupe FROM POS TO POS LENGTH
 *   alloc keep punch zero zerokeep PATH POS LENGTH . fsync PATH . syncfs . open PATH SLOT . forget SLOT . label TEXT . resize LENGTH
 *   setxattr PATH NAME LENGTH . removexattr PATH NAME . setacl setdefault PATH MODE (ACLs that come to this mode) . kill PATH (privileges)
 *   chattr PATH FLAGS . project PATH NUMBER (both as root)
 *   spread PATH COUNT (that many single blocks with holes between: as many extents) . fill PATH (until there is no space)
 *
 * Numbers: 100, 0644, 3b (blocks), 3b+100, 3b-1. Paths as in model.h; ".": the root; "@255": a name or target of that many bytes.
 */
#ifndef TESTS_CRASH_WORKLOADS_H
#define TESTS_CRASH_WORKLOADS_H

#include "tests/crash/engine.h"
#include "tests/crash/model.h"

struct script {
	char *text;
	struct model_op *ops;
	size_t count, capacity;
};

/* 0; -EINVAL with `why`; -ENOMEM. */
int script_parse(struct script *script, const char *text, struct why *why);
void script_fini(struct script *script);

enum workload_group { GROUP_SINGLE, GROUP_PAIRS, GROUP_RANDOM, GROUPS };
const char *group_name(enum workload_group group);

struct workload {
	char name[128]; /* group.what.medium */
	enum media_granularity granularity;
	char *setup, *run; /* scripts, malloc'ed */
};

/* The same for a seed as often as one asks; only those of GROUP_RANDOM depend on it. */
size_t workloads_count(enum workload_group group);
int workloads_get(enum workload_group group, size_t index, enum media_granularity granularity, uint64_t seed, struct workload *out);
void workload_fini(struct workload *workload);

/* 0 when it could be run and judged, whatever was found. `why` says why not. */
int workload_explore(const struct workload *workload, const struct crash_options *options, struct crash_totals *totals, struct why *why);
/*
 * Without crashes: run it on a medium of its own, comparing after each operation and after a remount. Which kinds of operations succeeded is added to
 * `seen` (bits of enum model_kind, may be NULL).
 */
#define SEEN_NO_SPACE (1ull << 63) /* and something was answered with -ENOSPC */
int workload_rehearse(const struct workload *workload, uint64_t *seen, struct why *why);

/* The tables, for workloads.c: what to do before, and what is recorded. */
struct single {
	const char *name, *setup, *run;
};
extern const struct single workloads_single[];
extern const size_t workloads_single_count;
extern const char *const pairs_setup, *const pairs_ops[];
extern const size_t pairs_ops_count;
/* A setup and a run of random operations, malloc'ed. */
int workload_random(uint64_t seed, size_t index, char **setup, char **run);
extern const size_t workloads_random_count;

#endif
