/*
 * The header that every metadata block begins with: root block, chunk headers, chunk table blocks, tree nodes.
 * The two copies of a block are equal byte for byte; which copy one looks at is told by where it lies.
 */
#ifndef FORMAT_BLOCK_FORMAT_H
#define FORMAT_BLOCK_FORMAT_H

#include <assert.h>

#include "format/le.h"
#include "util/types.h"

#define FORMAT_BLOCK_MAGIC 0x4b4c424du /* "MBLK" */
#define FORMAT_BLOCK_VERSION 1
#define FORMAT_UUID_BYTES 16

/* The top 8 bits of a stored device byte are the device number, 0 now; a device ends below this. */
#define DEVICE_BYTES_MAX (1ull << 56)
#define DEVICE_BLOCKS_MAX (DEVICE_BYTES_MAX >> BLOCK_SHIFT)

/* What a block is; bits far apart, so that no single flip turns one into another. */
enum format_block_role {
	FORMAT_ROLE_ROOT = 0x1e,
	FORMAT_ROLE_CHUNK_TABLE = 0x2d,
	FORMAT_ROLE_CHUNK_HEADER = 0x4b,
	FORMAT_ROLE_NODE = 0x87,
};

struct format_block_header {
	struct le32 magic;
	struct le32 crc32c; /* of the whole block with this field zero; set at write-back */
	uint8_t meta_uuid[FORMAT_UUID_BYTES];
	struct le64 address;  /* own logical address */
	struct le64 owner;    /* what it belongs to: 0 now */
	struct le64 sequence; /* of the last journal record it contains; set at write-back; equal on both copies */
	struct le16 version;
	uint8_t role; /* enum format_block_role */
	uint8_t tree; /* enum format_tree_id for a node, else 0 */
	uint8_t reserved[12];
};
static_assert(sizeof(struct format_block_header) == 64, "one line");
static_assert(offsetof(struct format_block_header, crc32c) == 4, "stored layout");
static_assert(offsetof(struct format_block_header, meta_uuid) == 8, "stored layout");
static_assert(offsetof(struct format_block_header, address) == 24, "stored layout");
static_assert(offsetof(struct format_block_header, sequence) == 40, "stored layout");
static_assert(offsetof(struct format_block_header, version) == 48, "stored layout");

/* The trees. Numbers are stored; names are what owners, events and messages show. */
enum format_tree_id {
	FORMAT_TREE_NONE = 0,
	FORMAT_TREE_INODES = 1,	   /* (ino) -> struct format_inode */
	FORMAT_TREE_DIRENTS = 2,   /* (dir, cookie) -> struct format_dirent */
	FORMAT_TREE_PARENTS = 3,   /* (ino, dir, cookie) -> the very struct format_dirent of (dir, cookie); empty in version 1 */
	FORMAT_TREE_EXTENTS = 4,   /* (ino, file block) -> struct format_extent */
	FORMAT_TREE_XATTRS = 5,	   /* (ino, hash, part) -> bytes; symlink targets live at hash 0 */
	FORMAT_TREE_RMAP = 6,	   /* (block, ino or special owner, file block) -> struct format_rmap */
	FORMAT_TREE_FREE = 7,	   /* (block) -> struct format_free */
	FORMAT_TREE_BADBLOCKS = 8, /* (device byte) -> struct format_badblock */
	FORMAT_TREE_LOST = 9,	   /* (device byte) -> struct format_lost */
	FORMAT_TREE_DAMAGED = 10,  /* (ino, pos) -> struct format_damaged */
	FORMAT_TREE_ORPHANS = 11,  /* (ino) -> empty */
	FORMAT_TREE_INTENTS = 12,  /* (id) -> struct format_intent */
	FORMAT_TREE_CSUMS = 13,	   /* reserved */
	FORMAT_TREE_LEDGER_COPY = 14, /* (tree, key, key) -> the record of badblocks, lost or damaged; from version 2 on */
	FORMAT_TREE_COUNT = 15,
};

/* "inodes", "dirents", ...; "unknown" for any other number. */
const char *format_tree_name(unsigned tree);
/* What a block is called in events and by `owners`: its tree's name, "root", "chunks" (table and chunk headers), "unknown". */
const char *format_block_name(unsigned role, unsigned tree);

/* Fill a header; the rest of the block is untouched. */
void format_block_header_init(struct format_block_header *header, const uint8_t meta_uuid[FORMAT_UUID_BYTES],
			      maddr_t address, enum format_block_role role, unsigned tree);
/* Set sequence and checksum of a complete 4 KiB block, just before it is written home. */
void format_block_seal(void *block, uint64_t sequence);
/*
 * Is this 4 KiB block whole, ours, and the one that lives at `address`, its reserved bytes zero? Role and tree are the caller's to compare.
 * 0, -EUCLEAN. Names the first field that is wrong in *field (a static string).
 */
int format_block_verify(const void *block, const uint8_t meta_uuid[FORMAT_UUID_BYTES], maddr_t address,
			const char **field);
/* Header alone (64 bytes): magic, version, uuid, address, reserved; not the checksum. 0, -EUCLEAN. */
int format_block_header_verify(const struct format_block_header *header, const uint8_t meta_uuid[FORMAT_UUID_BYTES],
			       maddr_t address, const char **field);

#endif
