/* Extended attributes of the model: names and hashes of values; what ACLs do to modes. Internal to the model. */
#ifndef TESTS_CRASH_MODEL_XATTR_H
#define TESTS_CRASH_MODEL_XATTR_H

#include "tests/crash/model_state.h"

#define MODEL_VALUE_MAX 65536u

/* One attribute's share of the sum that tells sets of them apart. */
uint64_t xattr_share(const char *name, const void *value, size_t size);
uint64_t inode_xattrs_sum(const struct model_inode *inode);
struct model_xattr *inode_find_xattr(const struct model_inode *inode, const char *name);
void inode_remove_xattr(struct model_inode *inode, const char *name);
/* The value that the operation sets: an ACL for these mode bits, or bytes of the tag. Its size. */
size_t xattr_value(const struct model_op *op, unsigned tag, void *buffer);
void inode_set_xattr(struct model_inode *inode, const struct model_op *op, unsigned tag, uint8_t *buffer);
/* Its mode was set: the access ACL, if there is one, says the same. */
void inode_follow_mode(struct model_inode *inode);
/* A new file: what the directory's default ACL makes of its mode, and the ACLs that it gets. */
void inode_inherit(struct model_inode *inode, const struct model_inode *dir);
/* setuid, setgid with execution by the group, security.capability. */
void inode_lose_privileges(struct model_inode *inode);

#endif
