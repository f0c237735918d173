/*
 * What lies on a device or image that nobody has mounted, structure by structure, also where it is damaged: as much as can be read, saying what cannot.
 * Nothing is written. Where the filesystem can be mounted (read-only, in DRAM), blocks are shown as recovery from the journal makes them, else as they are at
 * home. Each structure is one JSON object with "type"; docs/JSON.md has them all.
 */
#ifndef DUMP_DUMP_H
#define DUMP_DUMP_H

#include "btree/btree.h"
#include "control/json.h"
#include "util/why.h"

struct dump;

/* Claims it. 0; -EBUSY: it is mounted or held; -EUCLEAN: no superblock of mendfs; what media_open() answers. */
int dump_open(const char *path, struct why *why, struct dump **out);
void dump_close(struct dump *dump);
/* Empty: the filesystem can be mounted; else why it cannot. */
const char *dump_trouble(const struct dump *dump);

/* Takes the element. Nonzero stops. */
typedef int dump_emit_fn(void *arg, struct json_object *element);

struct dump_request {
	const char *what; /* super, root, journal, poison-log, chunks, chunk, block, device-offset, tree, inode */
	const char *name; /* of a tree */
	bool has_number;
	uint64_t number; /* slot, chunk, address, device byte, inode */
	bool raw;	 /* bytes in hex beside what they mean */
	bool records;	 /* of the journal: the items of each record */
	struct btree_key from;
	uint64_t limit; /* records of a tree; 0: all */
	dump_emit_fn *emit;
	void *arg;
};

/* Does `what` want a word more? 0: none, 1: may have a number, 2: needs a number, 3: needs a name; -1: there is no such thing. */
int dump_wants(const char *what);
/* 0, what emit answered, or a negative errno with `why`. What cannot be read is an element, not an error. */
int dump_run(struct dump *dump, const struct dump_request *request, struct why *why);
/* enum format_tree_id, or -1. */
int dump_tree_parse(const char *name);

#endif
