/*
 * Directory entries: a record (dir, cookie) in dirents and one (ino, dir, cookie) in parents for each name.
 * The cookie is assigned once: 55 bits of the name's hash << 8 | collision number. Number 255 marks that names of this hash go on
 * under the next hash value; it is never removed while the directory lives.
 * The caller holds the metadata lock; changes are part of its transaction.
 */
#ifndef FS_DIR_H
#define FS_DIR_H

#include "fs/inode.h"

#define DIR_HASH_BITS 55
#define DIR_COLLISION_MARKER 255
#define DIR_COOKIE_DOT 1
#define DIR_COOKIE_DOTDOT 2

struct dir_entry {
	uint64_t cookie;
	struct dirent_record record;
};

/* 1 .. 2^55 - 1. SipHash-2-4 of the name under the superblock's seed; see docs/SPEC.md. */
uint64_t dir_hash_name(const struct fs *fs, const char *name, size_t length_bytes);
bool dir_entry_is_marker(const struct dirent_record *record);

/* 0; -ENAMETOOLONG; -EINVAL: empty or with a slash; -EEXIST: "." or "..". */
int dir_verify_name(const char *name);
int dir_lookup_entry(struct fs *fs, inum_t dir, const char *name, struct dir_entry *out);
/* The name must not be there yet. Fills entry->cookie. */
int dir_insert_entry(struct fs *fs, struct tx *tx, inum_t dir, struct dir_entry *entry);
int dir_remove_entry(struct fs *fs, struct tx *tx, inum_t dir, const struct dir_entry *entry);
/* Same name, same cookie, another inode. */
int dir_replace_entry(struct fs *fs, struct tx *tx, inum_t dir, const struct dir_entry *entry, const struct inode *inode);
/* An empty directory goes: its markers too. */
int dir_remove_markers(struct fs *fs, struct tx *tx, inum_t dir);
uint8_t dir_type_of_mode(uint32_t mode);

#endif
