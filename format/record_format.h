/* The values of the trees (keys: enum format_tree_id). Each is packed, unpacked and verified in format/record.c only. */
#ifndef FORMAT_RECORD_FORMAT_H
#define FORMAT_RECORD_FORMAT_H

#include "format/block_format.h"

#define NAME_BYTES_MAX 255

/* Owners in rmap that are no inode: the top bit is set. */
#define OWNER_SPECIAL (1ull << 63)
enum special_owner_kind { /* or'ed with OWNER_SPECIAL */
	OWNER_SUPERBLOCK = 1,  /* offset: slot */
	OWNER_JOURNAL = 2,     /* offset: copy * 2^32 + block within the copy */
	OWNER_POISON_LOG = 3,  /* likewise */
	OWNER_FIXED = 4,       /* root block and chunk table, likewise */
	OWNER_CHUNK = 5,       /* offset: (chunk * 2 + copy) * 512 */
	OWNER_QUARANTINE = 6,  /* offset 0: bad space that must not be allocated */
};
#define OWNER(kind) (OWNER_SPECIAL | (kind))

static inline bool owner_is_inode(uint64_t owner)
{
	return !(owner & OWNER_SPECIAL);
}

#define EXTENT_UNWRITTEN 1u /* allocated, reads as zeros */

struct format_extent {
	struct le64 block;  /* first device block */
	struct le64 length; /* low 56 bits: blocks; high 8: EXTENT_ flags */
};
struct format_rmap {
	struct le64 length; /* as in format_extent */
};
struct format_free {
	struct le64 length; /* blocks */
};

struct format_dirent {
	struct le64 ino;
	struct le32 generation;
	uint8_t type; /* DT_ value of readdir(3) */
	uint8_t name_length;
	uint8_t name[]; /* no terminator */
};
static_assert(offsetof(struct format_dirent, name) == 14, "stored layout");

struct format_inode {
	struct le16 mode16; /* st_mode */
	struct le16 version;
	struct le32 nlink;
	struct le32 uid;
	struct le32 gid;
	struct le64 size;
	struct le64 blocks; /* 4 KiB blocks mapped, shared or not */
	struct le64 atime_sec, mtime_sec, ctime_sec, btime_sec; /* signed */
	struct le32 atime_nsec, mtime_nsec, ctime_nsec, btime_nsec;
	struct le32 generation;
	struct le32 project;
	struct le64 change; /* counter, raised by every change of data or metadata */
	struct le64 flags;  /* INODE_ flags */
	struct le64 rdev;
	struct le64 parent;	    /* of a directory: its one parent */
	struct le64 cause_id;	    /* of the last damage, 0 for none */
	struct le32 extent_hint;    /* blocks */
	uint8_t copies;		    /* 0: default */
	uint8_t reserved0[3];
	struct le64 entries; /* of a directory: names in it */
	uint8_t reserved[112];
};
static_assert(sizeof(struct format_inode) == 256, "stored layout");
static_assert(offsetof(struct format_inode, size) == 16, "stored layout");
static_assert(offsetof(struct format_inode, atime_sec) == 32, "stored layout");
static_assert(offsetof(struct format_inode, generation) == 80, "stored layout");
static_assert(offsetof(struct format_inode, rdev) == 104, "stored layout");
static_assert(offsetof(struct format_inode, reserved) == 144, "stored layout");

/* The low half of inode flags has the values of FS_IOC_SETFLAGS. */
#define INODE_SYNC 0x00000008ull	/* every change is durable when it returns */
#define INODE_IMMUTABLE 0x00000010ull
#define INODE_APPEND 0x00000020ull
#define INODE_NODUMP 0x00000040ull
#define INODE_NOATIME 0x00000080ull
#define INODE_DIRSYNC 0x00010000ull	/* of a directory: changes of its names are durable when they return */
#define INODE_PROJINHERIT 0x20000000ull /* of a directory: what is made in it has its project id */
#define INODE_FS_FLAGS                                                                                                                             \
	(INODE_SYNC | INODE_IMMUTABLE | INODE_APPEND | INODE_NODUMP | INODE_NOATIME | INODE_DIRSYNC | INODE_PROJINHERIT)
#define INODE_MAY_SHARE (1ull << 32) /* some block may have another owner */
#define INODE_CSUM (1ull << 33)	     /* reserved */

struct format_badblock {
	struct le64 length; /* bytes */
	struct le64 since_ns;
	struct le64 cause_id;
	struct le32 count; /* times reported */
	uint8_t state;
	uint8_t source;
	uint8_t reserved[2];
};
static_assert(sizeof(struct format_badblock) == 32, "stored layout");

struct format_lost {
	struct le64 length; /* bytes */
	struct le64 cause_id;
	uint8_t source;
	uint8_t reserved[7];
};
struct format_damaged {
	struct le64 length; /* bytes of the file */
	struct le64 cause_id;
};

/*
 * An extended attribute lies in parts, keyed (inode, hash of the name << 8 | number, part): part 0 begins with this and the name; the value follows, over
 * as many parts as it takes. All but the last have XATTR_PART_BYTES.
 */
struct format_xattr {
	struct le32 value_length;
	struct le32 crc32c; /* of the name and the whole value: parts of different age never pass for one value */
	uint8_t name_length;
	uint8_t reserved[3];
	uint8_t name[]; /* no terminator */
};
static_assert(sizeof(struct format_xattr) == 12, "stored layout");
static_assert(offsetof(struct format_xattr, name) == 12, "stored layout");

#define XATTR_PART_BYTES 976u /* four fill a leaf */
#define XATTR_VALUE_MAX 65536u
#define XATTR_NUMBERS 256u /* attributes of one inode whose names have the same hash */
#define XATTR_PARTS_MAX 68u

enum intent_op {
	INTENT_TRUNCATE = 0x17, /* a = inode, b = first file block to unmap, up to the end of the map */
	INTENT_PUNCH = 0x2b,	/* a = inode, b = first file block, c = end block */
	INTENT_CLONE = 0x4d,	/* a = source, b = its file block, c = destination, d = its file block, e = blocks left, f = size after */
};
struct format_intent {
	struct le64 op;
	struct le64 args[6];
	struct le64 reserved;
};
static_assert(sizeof(struct format_intent) == 64, "stored layout");

struct extent { /* memory twin, key included */
	uint64_t file_block;
	blkno_t block;
	uint64_t count_blocks;
	uint8_t flags;
};
struct inode_record { /* memory twin of format_inode */
	uint32_t mode, nlink, uid, gid;
	uint64_t size_bytes, count_blocks;
	struct { int64_t sec; uint32_t nsec; } atime, mtime, ctime, btime;
	uint32_t generation, project;
	uint64_t change, flags, rdev, parent, cause_id, entries;
	uint32_t extent_hint;
	uint8_t copies;
};
struct dirent_record {
	inum_t ino;
	uint32_t generation;
	uint8_t type;
	uint8_t name_length;
	char name[NAME_BYTES_MAX + 1]; /* terminated */
};
struct xattr_record {
	uint32_t value_length, crc;
	uint8_t name_length;
	char name[NAME_BYTES_MAX + 1]; /* terminated */
	uint32_t first_bytes;	       /* of the value, in part 0: where it lies in that */
	uint32_t first_at;
	uint32_t count_parts;
};
struct badblock_record {
	devoff_t offset;
	uint64_t length_bytes, since_ns, cause_id;
	uint32_t count;
	uint8_t state, source;
};
struct lost_record {
	devoff_t offset;
	uint64_t length_bytes, cause_id;
	uint8_t source;
};
struct damaged_record {
	inum_t ino;
	uint64_t pos, length_bytes, cause_id;
};
struct intent_record {
	uint64_t op;
	uint64_t args[6];
};

/* Every *_unpack takes the bytes found in a leaf and their count and answers 0 or -EUCLEAN; key fields are left alone. */
void format_extent_pack(struct format_extent *to, const struct extent *from);
int format_extent_unpack(struct extent *to, const void *value, size_t length);
void format_rmap_pack(struct format_rmap *to, uint64_t count_blocks, uint8_t flags);
int format_rmap_unpack(uint64_t *count_blocks, uint8_t *flags, const void *value, size_t length);
void format_free_pack(struct format_free *to, uint64_t count_blocks);
int format_free_unpack(uint64_t *count_blocks, const void *value, size_t length);
/* Returns the packed length; `to` has room for sizeof(struct format_dirent) + 255. */
size_t format_dirent_pack(void *to, const struct dirent_record *from);
int format_dirent_unpack(struct dirent_record *to, const void *value, size_t length);
/* The namespace of an attribute's name, or XATTR_NONE. */
enum xattr_space { XATTR_NONE, XATTR_USER, XATTR_TRUSTED, XATTR_SECURITY, XATTR_ACL_ACCESS, XATTR_ACL_DEFAULT };
enum xattr_space format_xattr_space(const char *name, size_t length);
/* Part 0 of it: its length; the others are pieces of the value. `to` has room for XATTR_PART_BYTES; `from` needs name, name_length, value_length. */
size_t format_xattr_pack(void *to, const struct xattr_record *from, const void *value);
int format_xattr_unpack(struct xattr_record *to, const void *part, size_t length);
uint32_t format_xattr_parts(uint32_t name_length, uint32_t value_length);
/* Bytes of the value in part `part` > 0. */
uint32_t format_xattr_part_bytes(const struct xattr_record *record, uint32_t part);
uint32_t format_xattr_crc(const struct xattr_record *record, const void *value);
void format_inode_pack(struct format_inode *to, const struct inode_record *from);
int format_inode_unpack(struct inode_record *to, const void *value, size_t length);
void format_badblock_pack(struct format_badblock *to, const struct badblock_record *from);
int format_badblock_unpack(struct badblock_record *to, const void *value, size_t length);
void format_lost_pack(struct format_lost *to, const struct lost_record *from);
int format_lost_unpack(struct lost_record *to, const void *value, size_t length);
void format_damaged_pack(struct format_damaged *to, const struct damaged_record *from);
int format_damaged_unpack(struct damaged_record *to, const void *value, size_t length);
void format_intent_pack(struct format_intent *to, const struct intent_record *from);
int format_intent_unpack(struct intent_record *to, const void *value, size_t length);

#endif
