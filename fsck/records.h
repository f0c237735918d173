/*
 * Trees against each other: what the files fsck/records*.c share.
 *
 * Who is believed. A transaction that changes a fact changes all the leaves that state it, so of two leaves that contradict each other the one with the
 * lower sequence is out of date: the younger wins. What is merely absent says something only where a leaf that is there has records on both sides of
 * the place; elsewhere a leaf may be missing, and absence says nothing. Where two records of different trees say that something exists it is kept. All
 * this is decided before the first change, because changes make leaves younger.
 */
#ifndef FSCK_RECORDS_H
#define FSCK_RECORDS_H

#include "fsck/internal.h"
#include "util/iset.h"

#define RECORDS_TOLD_MAX 20

enum record_kind {
	RECORD_MAP_RESTORED, RECORD_MAP_DROPPED, RECORD_OWNER, RECORD_FREE, RECORD_NAME_RESTORED, RECORD_NAME_DROPPED, RECORD_MARKER, RECORD_INODE_LOST,
	RECORD_INODE_DROPPED, RECORD_INODE, RECORD_ORPHAN, RECORD_LOST_FOUND, RECORD_XATTR, RECORD_ATTRIBUTE, RECORD_ACL, RECORD_TARGET_LOST, RECORD_LEDGER, RECORD_QUARANTINE,
	RECORD_INTENT, RECORD_INTENT_LOST,
	RECORD_KINDS
};

struct records {
	struct repair *repair;
	struct fs *fs;
	struct btree badblocks, lost, ledger_copy;
	uint64_t blocks;     /* of the filesystem */
	struct tx *tx;	     /* open while changes are being made */
	bool is_free_true;   /* the free tree may be allocated from: metadata space may grow */
	bool is_free_whole;  /* as found: it adds up to its counter, so what it does not list is in use */
	bool may_change;     /* asked and allowed */
	uint64_t told[RECORD_KINDS];
	uint64_t next_ino;   /* above every number met */
	inum_t lost_found;   /* 0: not needed so far */
	inum_t *intents;     /* inodes that an operation cut short is at */
	size_t count_intents, capacity_intents;
};

/* --- reading; all of it before, between and within changes ---------------------------------------------------------------------- */

/* Records of a tree in order, pulled; the tree may change meanwhile behind or before the place. */
struct cursor {
	struct records *records;
	const struct btree *tree;
	struct btree_key next;
	bool at_end;
	uint8_t *batch;
	size_t used, at;
};
struct cursor_record {
	struct btree_key key;
	const void *value;
	size_t length;
};
int cursor_begin(struct cursor *cursor, struct records *records, const struct btree *tree);
void cursor_end(struct cursor *cursor);
/* 1 and the record at the cursor, valid until the cursor moves; 0 at the end; negative errno. */
int cursor_peek(struct cursor *cursor, struct cursor_record *out);
void cursor_advance(struct cursor *cursor);
/* Its first key word, or UINT64_MAX at the end. */
int cursor_first_word(struct cursor *cursor, uint64_t *out);

/* What the leaf where this key belongs says of it. */
struct leaf_view {
	bool found;
	bool is_known;	   /* found, or records on both sides of the place are there */
	uint64_t sequence; /* of the leaf; 0 when the tree is empty */
};
int records_view(struct records *records, const struct btree *tree, const struct btree_key *key, struct leaf_view *out);
int records_lookup(struct records *records, const struct btree *tree, const struct btree_key *key, struct btree_record *out);
/* The last record at or before the key. */
int records_lookup_le(struct records *records, const struct btree *tree, const struct btree_key *key, struct btree_record *out);
int records_lookup_ge(struct records *records, const struct btree *tree, const struct btree_key *key, struct btree_record *out);
int records_load_inode(struct records *records, inum_t ino, struct inode_record *out);
/* The metadata lock, shared, unless a transaction holds it already. */
void records_read_begin(struct records *records);
void records_read_end(struct records *records);

/* --- changing: in transactions of bounded size ---------------------------------------------------------------------------------- */

/* -ECANCELED: the user said no. On any other error the run is over and what is in the open transaction undone. */
int records_change(struct records *records);
int records_insert(struct records *records, const struct btree *tree, const struct btree_key *key, const void *value, size_t length);
/* Insert or replace. */
int records_put(struct records *records, const struct btree *tree, const struct btree_key *key, const void *value, size_t length);
/* No error when it is not there. */
int records_remove(struct records *records, const struct btree *tree, const struct btree_key *key);
int records_put_inode(struct records *records, inum_t ino, const struct inode_record *record);
int records_set_counter(struct records *records, unsigned counter, uint64_t value);
int records_commit(struct records *records);

/* The first ones of a kind are told one by one, the others as a sum at the end. */
void records_tell(struct records *records, enum record_kind kind, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Grow a list by one element: its place, or NULL. */
void *records_grow(void **list, size_t *count, size_t *capacity, size_t size);

/* --- extents and rmap: records_maps.c, records_judge.c --------------------------------------------------------------------------- */

struct mapping { /* a record of extents or rmap; special owners have their offset for file_block */
	uint64_t owner, file_block;
	blkno_t block;
	uint64_t count;
	uint8_t flags;
};
struct mappings {
	struct mapping *list;
	size_t count, capacity;
};
int mappings_add(struct mappings *mappings, const struct mapping *mapping);

struct claim { /* part of a mapping that one of the two trees has alone */
	struct mapping map;
	uint64_t sequence; /* of the leaf that has it */
	bool is_from_rmap;
	bool is_contested; /* another claim names the same blocks */
	bool is_dropped;
};
struct claims {
	struct claim *list;
	size_t count, capacity;
};
int claims_add(struct claims *claims, const struct claim *claim);

struct file_sum { /* blocks of a file whose maps differ: agreed about, claimed by one tree, by the other */
	inum_t ino;
	uint64_t both, own, rmap;
};

struct map_plan {
	struct mappings rmap;		     /* of inodes, by owner and file block; while planning */
	struct mappings specials;	     /* as found, by block */
	struct claims claims;		     /* by owner and file block */
	struct file_sum *sums;		     /* of the files with claims, ascending */
	size_t count_sums, capacity_sums;
	struct mappings extents_out, extents_in; /* what to remove and what to insert */
	struct mappings rmap_out, rmap_in;
};
int maps_plan(struct records *records, struct map_plan *plan);
int maps_apply(struct records *records, struct map_plan *plan);
void map_plan_fini(struct map_plan *plan);
/* Decide about every claim. */
int claims_judge(struct records *records, struct map_plan *plan);
int mapping_key_compare(const void *a, const void *b);	 /* owner, file block, block */
int mapping_block_compare(const void *a, const void *b); /* block, owner, file block */
struct mapping mapping_part(const struct mapping *map, uint64_t skip, uint64_t count);

/* --- special owners, free space, quarantine: records_space.c ----------------------------------------------------------------------- */

int space_plan_specials(struct records *records, struct map_plan *plan);
/* Does free space add up to its counter? */
int space_judge_free(struct records *records);
/* The free tree becomes the complement of rmap and of `also`, ordered by block. */
int space_settle_free(struct records *records, const struct mappings *also);
/* What is bad and has no owner is quarantined; what is quarantined is in badblocks. */
int space_settle_quarantine(struct records *records);

/* --- dirents and parents: records_names.c -------------------------------------------------------------------------------------------- */

struct name_fix {
	inum_t ino, dir;
	uint64_t cookie, sequence;
	bool is_from_parents; /* parents has it and dirents not, or the other way round */
	bool is_in_both;      /* with different bytes: those of this tree are right */
	bool is_dropped;
};
struct name_plan {
	struct name_fix *list;
	size_t count, capacity;
	inum_t *doomed; /* inodes that were deleted after their stale record was written, ascending */
	size_t count_doomed, capacity_doomed;
};
int names_plan(struct records *records, struct name_plan *plan);
int names_apply(struct records *records, const struct name_plan *plan);
void name_plan_fini(struct name_plan *plan);
bool name_plan_dooms(const struct name_plan *plan, inum_t ino);
/* Markers between a name's hash and its cookie. */
int names_settle_markers(struct records *records);
/* Take one name out of both trees. */
int names_remove(struct records *records, inum_t ino, inum_t dir, uint64_t cookie);

/* --- badblocks, lost, damaged and their copy: records_ledger.c ---------------------------------------------------------------------- */

struct ledger_item {
	unsigned tree;
	struct btree_key key;
	uint8_t value[32];
	size_t length;
	uint64_t sequence;
	bool is_in_tree, is_in_copy; /* with these bytes */
	bool is_dropped;
};
struct ledger_plan {
	struct ledger_item *list;
	size_t count, capacity;
};
int ledger_plan(struct records *records, struct ledger_plan *plan);
int ledger_apply(struct records *records, const struct ledger_plan *plan);
void ledger_plan_fini(struct ledger_plan *plan);

/* --- inodes: records_inodes.c, records_xattrs.c, records_counts.c, lost_found.c, records_intents.c ------------------------------------------------------ */

/* Every inode that something tells of exists, is what its names say, and has a name unless it is an orphan. */
int inodes_settle(struct records *records, const struct name_plan *names);
/* A symlink's target goes. */
int purge_target(struct records *records, inum_t ino);
/* Links, entries, sizes, blocks, flags, orphans, from what is there now. */
int counts_settle(struct records *records);
/* Every directory is below the root: lost_found.c. */
int dirs_connect(struct records *records);
/* Another name for it, in /lost+found, which is made if need be. */
int lost_found_add(struct records *records, inum_t ino, const struct inode_record *record);
/* Attributes are whole, of their inodes' type, and say what the modes say: records_xattrs.c. */
int xattrs_settle(struct records *records);
int intents_settle(struct records *records);
bool records_has_intent(const struct records *records, inum_t ino);

#endif
