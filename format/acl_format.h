/*
 * POSIX ACLs, as they pass through getxattr(2) and as they are stored: the value of system.posix_acl_access and system.posix_acl_default. Packed, unpacked
 * and verified in format/acl.c only.
 */
#ifndef FORMAT_ACL_FORMAT_H
#define FORMAT_ACL_FORMAT_H

#include "format/block_format.h"

#define ACL_BLOB_VERSION 2u
#define ACL_ENTRIES_MAX 511u /* the kernel takes no more than a page from a FUSE server */
#define ACL_ID_NONE UINT32_MAX

enum acl_tag {
	ACL_TAG_USER_OBJ = 0x01,
	ACL_TAG_USER = 0x02,
	ACL_TAG_GROUP_OBJ = 0x04,
	ACL_TAG_GROUP = 0x08,
	ACL_TAG_MASK = 0x10,
	ACL_TAG_OTHER = 0x20,
};

struct format_acl_entry {
	struct le16 tag;
	struct le16 permissions;
	struct le32 id; /* of user and group; else ACL_ID_NONE */
};
static_assert(sizeof(struct format_acl_entry) == 8, "stored layout");
struct format_acl {
	struct le32 version;
	struct format_acl_entry entries[];
};
static_assert(sizeof(struct format_acl) == 4, "stored layout");

#define ACL_BLOB_MAX (sizeof(struct format_acl) + ACL_ENTRIES_MAX * sizeof(struct format_acl_entry))

struct acl { /* memory twin */
	unsigned count;
	struct acl_entry {
		uint16_t tag;
		uint16_t permissions; /* rwx */
		uint32_t id;
	} entries[ACL_ENTRIES_MAX];
};

size_t format_acl_pack(void *to, const struct acl *from);
/*
 * 0; -EINVAL: owner, users, group, groups, mask, other, in this order, the three without an id and other exactly once, a mask where there is a user or group;
 * -E2BIG. No entries at all are an ACL too (count 0).
 */
int format_acl_unpack(struct acl *to, const void *blob, size_t length);

#endif
