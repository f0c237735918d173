/* One image: mounted through the real recovery, checked, compared, and everything undone. */
#ifndef TESTS_CRASH_TRIAL_H
#define TESTS_CRASH_TRIAL_H

#include "tests/crash/engine.h"
#include "tests/crash/record.h"

enum poison_kind {
	POISON_DATA,
	POISON_PRIMARY,
	POISON_REPLICA,
	POISON_ROOT,
	POISON_HEAD,
	POISON_RECORD,
	POISON_LOG,
	POISON_SUPER,
	POISON_KINDS
};

struct poison_target {
	enum poison_kind kind;
	devoff_t offset;
	uint64_t length;
};

const char *poison_name(enum poison_kind kind);
bool poison_parse(const char *name, struct poison_target *target);
/* One place of this kind, as the mounted filesystem has it now; -ENOENT: it has none. */
int poison_choose(struct fs *fs, enum poison_kind kind, uint64_t seed, struct poison_target *target);

struct trial {
	const struct crash_workload *workload;
	struct lab *lab;
	struct crash_point point;
	unsigned boot;		/* which boot of the host this mount is of */
	struct record *record;	/* what the trial does to the medium */
	bool unmounts;		/* ends cleanly, not as a kill does */
	bool verbose;
	/* Called on the mounted filesystem before it is judged; may be NULL. */
	void (*look)(void *arg, struct fs *fs);
	void *look_arg;
	unsigned violations;
	char text[512]; /* the first of them */
};

void trial_run(struct trial *trial);

#endif
