/*
 * POSIX ACLs: attributes that the kernel enforces and we keep true. The access ACL and the mode say the same of owner, mask (the group where there is none)
 * and others; an ACL that says no more than the mode is not stored. All within the caller's transaction.
 */
#ifndef FS_ACL_H
#define FS_ACL_H

#include "format/acl_format.h"
#include "fs/xattr.h"

/* Set (value NULL: remove) the ACL of a file; the mode in *record follows. -EINVAL: not an ACL; -EACCES: a default one of what is no directory. */
int acl_store(struct inode *inode, struct tx *tx, enum xattr_space space, const void *value, size_t size, int flags, struct inode_record *record);
/* The mode was set: the access ACL, if there is one, follows. */
int acl_follow_mode(struct inode *inode, struct tx *tx, uint32_t mode);
/* The owner's, mask's (or group's) and others' permissions as mode bits. */
uint32_t acl_mode(const struct acl *acl);
/* Says it anything beyond a mode? */
bool acl_is_more_than_mode(const struct acl *acl);
/* Make it agree with these mode bits. */
void acl_set_mode(struct acl *acl, uint32_t mode);

struct acl_birth { /* what a new file gets from its directory */
	bool has_access, has_default;
	struct acl access, inherited;
};
/* *mode is what was asked for; what it comes to after the directory's default ACL or, where there is none, the umask. */
int acl_inherit(struct inode *dir, struct tx *tx, uint32_t umask, uint32_t *mode, struct acl_birth *birth);
int acl_give(struct inode *inode, struct tx *tx, const struct acl_birth *birth);

#endif
