/*
 * Extended attributes: records in the tree xattrs under the hash of their names, in parts (format/record_format.h). The value's checksum is in part 0, so that
 * a value is read as it was set or not at all. Every change is one transaction and stamps the inode.
 */
#ifndef FS_XATTR_H
#define FS_XATTR_H

#include "fs/inode.h"

#define XATTR_NAME_CAPABILITY "security.capability"
#define XATTR_NAME_ACCESS "system.posix_acl_access"
#define XATTR_NAME_DEFAULT "system.posix_acl_default"

/*
 * What writes, chmod and create ask for again and again; that an inode has none is remembered. xattrs_known of an inode: a bit for each that is known to be
 * absent, and above them a count of changes, so that who looked before a change does not say so after it.
 */
enum xattr_common { XATTR_COMMON_CAPABILITY, XATTR_COMMON_ACCESS, XATTR_COMMON_DEFAULT, XATTR_COMMON };
#define XATTRS_ABSENT_ALL ((1u << XATTR_COMMON) - 1)

static inline bool xattr_is_absent(struct inode *inode, enum xattr_common which)
{
	return atomic_load(&inode->xattrs_known) >> which & 1;
}

/* The value, under the metadata lock: -ENODATA, -ERANGE (it has more than size bytes), -EUCLEAN. Without a buffer its length alone. */
int xattr_load(struct inode *inode, const char *name, void *buffer, size_t size, size_t *length);
/* -ENODATA at once where it is known to be absent. tx: within a transaction that nobody else changes the attributes beside; NULL: by a reader. */
int xattr_load_common(struct inode *inode, struct tx *tx, enum xattr_common which, void *buffer, size_t size, size_t *length);
/* Only the attribute; the caller stamps the inode, and has a reference of it until the transaction has ended. flags: XATTR_CREATE (-EEXIST), XATTR_REPLACE (-ENODATA). */
int xattr_store(struct inode *inode, struct tx *tx, const char *name, const void *value, size_t size, int flags);
int xattr_remove(struct inode *inode, struct tx *tx, const char *name); /* -ENODATA */
/* A common one, without an error where it is not there. */
int xattr_drop(struct inode *inode, struct tx *tx, enum xattr_common which);
/* The first key word after the inode under which a name is looked for; numbers follow. */
uint64_t xattr_hash(const struct fs *fs, const char *name, size_t length);

#endif
