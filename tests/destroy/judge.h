/* What a destruction may cost, computed before it happens, and whether it has cost more. */
#ifndef TESTS_DESTROY_JUDGE_H
#define TESTS_DESTROY_JUDGE_H

#include "tests/destroy/oracle.h"
#include "tests/destroy/target.h"

struct loss_map {
	inum_t ino;
	uint64_t from, to; /* file blocks */
};
struct loss_name {
	inum_t ino, dir;
	uint64_t cookie;
};
struct loss_attribute {
	inum_t ino;
	uint64_t slot;
};
struct loss {
	struct iset inodes;  /* records that were in a leaf of inodes */
	struct iset stale;   /* those of them that are there as they once were */
	/*
	 * Numbers that a stale leaf of inodes, dirents or parents tells of: where they were deleted since, they may come back, empty. An older leaf in all
	 * copies cannot be told from the truth where no other leaf denies it, and what is doubtful is kept.
	 */
	struct iset revived;
	bool names_are_doubtful; /* a stale leaf of dirents and a lost one of parents, or the other way round: older names may stay beside the present ones */
	struct iset targets; /* symlinks with a part in a leaf of xattrs */
	struct loss_attribute *attributes; /* with a part in such a leaf, or in an older version of it: gone, or as they once were */
	size_t count_attributes, capacity_attributes;
	struct loss_name *names; /* that were in a leaf of dirents and in one of parents */
	size_t count_names, capacity_names;
	struct loss_map *maps; /* that were in a leaf of extents and in one of rmap */
	size_t count_maps, capacity_maps;
	bool ledger;		/* a leaf of it and one of its copy */
	struct iset bad;	/* device ranges that were poisoned: may become known as bad */
};

/* `gone`: indices of the targets of which no copy is left; is_stale: an older version is in their place. */
void loss_compute(const struct targets *targets, const size_t *gone, const bool *is_stale, size_t count_gone, struct loss *out);
/* `bytes` stand in the place of a target now. */
void loss_add_stale(struct loss *loss, const struct target *target, const void *bytes);
void loss_fini(struct loss *loss);

/* 0; -EUCLEAN: more is gone, or something is there that was not, with `why`. */
int judge(const struct oracle *before, const struct oracle *after, const struct loss *loss, struct why *why);
/* The bytes of no file changed, but where its mapping may be lost. */
int judge_data(const struct image *image, const struct oracle *before, const struct loss *loss, struct why *why);

#endif
