/* An attribute put together from its records, as check and fsck meet them in order of the key: is it what was set, is it where its name says? */
#ifndef FS_XATTR_SUM_H
#define FS_XATTR_SUM_H

#include "fs/acl.h"

struct xattr_sum {
	uint64_t slot; /* second key word; 0: none has begun */
	struct xattr_record record;
	bool is_broken;
	uint32_t next_part, done, crc;
	uint8_t acl[ACL_BLOB_MAX]; /* the value, of an ACL */
};

/* Every record of the inode but a symlink's target, ascending. The one before must have been ended when the slot changes. */
void xattr_sum_add(struct xattr_sum *sum, const struct btree_key *key, const void *value, size_t length);
/* All parts were added: is it whole, and is its hash right? */
bool xattr_sum_is_sound(const struct fs *fs, const struct xattr_sum *sum);
enum xattr_space xattr_sum_space(const struct xattr_sum *sum);
/* Of a sound ACL. */
void xattr_sum_acl(const struct xattr_sum *sum, struct acl *acl);

#endif
