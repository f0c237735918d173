/* What users and tools see of a filesystem: all names with their cookies, inodes, targets, places and content of data, the ledger. */
#ifndef TESTS_DESTROY_ORACLE_H
#define TESTS_DESTROY_ORACLE_H

#include "fs/query.h"

struct oracle_name { /* ordered by dir, cookie */
	inum_t dir, ino;
	uint64_t cookie;
	uint8_t type;
	char name[NAME_BYTES_MAX + 1];
};
struct oracle_map {
	uint64_t pos, length_bytes;
	devoff_t device_offset;
	bool shared, written;
};
struct oracle_attribute {
	uint64_t slot; /* second key word, of a name that shares its hash with none */
	char name[64];
	size_t length;
	uint32_t crc;
};
struct oracle_inode { /* ordered by number; those that a name leads to */
	inum_t ino;
	struct inode_record record;
	struct oracle_map *maps;
	size_t count_maps;
	char *target; /* of a symlink */
	struct oracle_attribute *attributes;
	size_t count_attributes, capacity_attributes;
	uint32_t crc; /* of its mapped, written blocks and of which of them cannot be read */
};
struct oracle_damage {
	inum_t ino;
	uint64_t pos, length_bytes, cause_id;
};

struct oracle {
	struct oracle_name *names;
	size_t count_names, capacity_names;
	struct oracle_inode *inodes;
	size_t count_inodes, capacity_inodes;
	struct oracle_damage *damage;
	size_t count_damage, capacity_damage;
	struct badblock_record *bad;
	size_t count_bad, capacity_bad;
	uint64_t quarantined_bytes;
};

/* 0, or the error of what could not be read, said in `why`. */
int oracle_take(struct fs *fs, struct oracle *out, struct why *why);
void oracle_fini(struct oracle *oracle);
const struct oracle_inode *oracle_inode(const struct oracle *oracle, inum_t ino);
/* NULL: there is none. */
const struct oracle_name *oracle_name(const struct oracle *oracle, inum_t dir, uint64_t cookie);
const struct oracle_name *oracle_lookup(const struct oracle *oracle, inum_t dir, const char *name);

#endif
