/* What the files of this folder share. Nobody else includes it. */
#ifndef DUMP_INTERNAL_H
#define DUMP_INTERNAL_H

#include "btree/node.h"
#include "dump/dump.h"
#include "format/root_format.h"
#include "fs/inode.h"

struct dump {
	struct media *media;
	struct super super;
	struct fs *fs; /* NULL: it cannot be mounted */
	struct why trouble;
};

/* --- source.c ------------------------------------------------------------------------------------------------------------------ */

/* One copy of a metadata block as it lies at home. */
struct dump_copy {
	devoff_t offset; /* 0: there is none */
	int error;	 /* 0, -EIO, -EUCLEAN */
	const char *state; /* "whole", "poisoned", "damaged", "absent" */
	const char *field; /* of a damaged one: what is wrong first */
	uint64_t sequence; /* of a whole one */
};
struct dump_block {
	maddr_t address;
	struct dump_copy copy[2];
	const char *from; /* "primary", "replica", or "journal": recovery makes it differ from both */
	uint8_t bytes[BLOCK_BYTES] __attribute__((aligned(64)));
};
/* 0; -ENOENT: no such address; -EIO, -EUCLEAN: no whole copy, both are described. */
int dump_read_block(struct dump *dump, maddr_t address, struct dump_block *out);
/* -ENOENT: beyond the table, or free. Its state is live or freeing. */
int dump_read_entry(struct dump *dump, uint64_t chunk, struct chunk_entry *out);
/* Entries that the root block says were ever used, or all that the table has room for when it cannot say. */
uint64_t dump_count_chunks(struct dump *dump);
/* Whole or not; 0 with zeros in place of what cannot be read, or -EIO when nothing could. */
int dump_read_raw(struct dump *dump, devoff_t offset, void *buffer, size_t length);

/* --- element.c: building ------------------------------------------------------------------------------------------------------- */

struct json_object *element_make(const char *type);
void element_hex(struct json_object *element, const char *key, const void *bytes, size_t length);
void element_uuid(struct json_object *element, const char *key, const uint8_t *uuid);
/* Bytes that are meant to be text; `key`_raw in base64 beside it where they are not UTF-8. */
void element_bytes(struct json_object *element, const char *key, const char *bytes, size_t length);
/* Each adds to an array of the element, made on first use. */
void element_list(struct json_object *element, const char *key, struct json_object *member);
void element_copies(struct json_object *element, const struct dump_block *block);
/* To request->emit; what could not be built is -ENOMEM. */
int element_emit(const struct dump_request *request, struct json_object *element);

/* --- what can be dumped; each as dump_run() ------------------------------------------------------------------------------------ */

typedef int dump_fn(struct dump *dump, const struct dump_request *request, struct why *why);
dump_fn dump_super, dump_root, dump_poison_log;	    /* fixed.c */
dump_fn dump_journal;				    /* journal.c */
dump_fn dump_chunks, dump_chunk;		    /* chunk.c */
dump_fn dump_block, dump_device_offset;		    /* block.c */
dump_fn dump_tree;				    /* tree.c */
dump_fn dump_inode;				    /* inode.c */

struct json_object *dump_render_block(const struct dump_block *block, int error);
struct json_object *dump_render_entry(uint64_t chunk, const struct chunk_entry *entry);

/* --- record.c ------------------------------------------------------------------------------------------------------------------ */

unsigned dump_key_words(unsigned tree);
/* A record of a leaf, or of an inner node (level > 0). */
struct json_object *dump_render_record(unsigned tree, unsigned level, const struct btree_key *key, const void *value, size_t length,
				       bool raw);

/* --- tree.c -------------------------------------------------------------------------------------------------------------------- */

/* Visit the records with from <= key <= to of what can be read of a tree; nodes that cannot be are told through `broken`. */
struct dump_walk {
	unsigned tree;
	struct btree_key from, to;
	/* Nonzero stops with that value. */
	int (*visit)(void *arg, maddr_t address, const struct btree_key *key, const void *value, size_t length);
	int (*broken)(void *arg, const struct dump_block *block, int error, const char *what);
	void *arg;
};
int dump_walk(struct dump *dump, const struct dump_walk *walk);

#endif
