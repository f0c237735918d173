#include "tests/crash/model_xattr.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "format/acl_format.h"
#include "fs/xattr.h"
#include "util/crc.h"

static bool name_is_acl(const char *name)
{
	return !strcmp(name, XATTR_NAME_ACCESS) || !strcmp(name, XATTR_NAME_DEFAULT);
}

uint64_t xattr_share(const char *name, const void *value, size_t size)
{
	uint64_t low = crc32c(crc32c(0, name, strlen(name)), value, size), high = crc32c(crc32c(size + 1, value, size), name, strlen(name));

	return high << 32 | low;
}

uint64_t inode_xattrs_sum(const struct model_inode *inode)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < inode->count_xattrs; i++)
		sum += inode->xattrs[i].share;
	return sum;
}

struct model_xattr *inode_find_xattr(const struct model_inode *inode, const char *name)
{
	for (unsigned i = 0; i < inode->count_xattrs; i++)
		if (!strcmp(inode->xattrs[i].name, name))
			return (struct model_xattr *)&inode->xattrs[i];
	return NULL;
}

void inode_remove_xattr(struct model_inode *inode, const char *name)
{
	struct model_xattr *found = inode_find_xattr(inode, name);

	if (found)
		*found = inode->xattrs[--inode->count_xattrs];
}

/* Owner, user 1, the group behind the mask, the mask, others. */
static size_t acl_value(uint32_t mode, void *buffer)
{
	const struct acl acl = {
		.count = 5,
		.entries = {{ACL_TAG_USER_OBJ, mode >> 6 & 7, 0},
			    {ACL_TAG_USER, 7, 1},
			    {ACL_TAG_GROUP_OBJ, 5, 0},
			    {ACL_TAG_MASK, mode >> 3 & 7, 0},
			    {ACL_TAG_OTHER, mode & 7, 0}},
	};

	return format_acl_pack(buffer, &acl);
}

size_t xattr_value(const struct model_op *op, unsigned tag, void *buffer)
{
	if (name_is_acl(op->path2))
		return acl_value(op->mode, buffer);
	assert(op->length <= MODEL_VALUE_MAX);
	model_fill(buffer, tag, 0, op->length);
	return op->length;
}

static void inode_put_xattr(struct model_inode *inode, const char *name, uint32_t mode, const void *value, size_t size)
{
	struct model_xattr *xattr = inode_find_xattr(inode, name);

	if (!xattr) {
		assert(inode->count_xattrs < INODE_XATTRS_MAX);
		xattr = &inode->xattrs[inode->count_xattrs++];
		snprintf(xattr->name, sizeof(xattr->name), "%s", name);
	}
	xattr->mode = mode;
	xattr->share = xattr_share(name, value, size);
}

static void inode_put_acl(struct model_inode *inode, const char *name, uint32_t mode)
{
	uint8_t value[ACL_BLOB_MAX];

	inode_put_xattr(inode, name, mode & 0777, value, acl_value(mode, value));
}

void inode_set_xattr(struct model_inode *inode, const struct model_op *op, unsigned tag, uint8_t *buffer)
{
	inode_put_xattr(inode, op->path2, op->mode & 0777, buffer, xattr_value(op, tag, buffer));
	if (!strcmp(op->path2, XATTR_NAME_ACCESS))
		inode->record.mode = (inode->record.mode & ~0777u) | (op->mode & 0777);
}

void inode_follow_mode(struct model_inode *inode)
{
	if (inode_find_xattr(inode, XATTR_NAME_ACCESS))
		inode_put_acl(inode, XATTR_NAME_ACCESS, inode->record.mode);
}

void inode_inherit(struct model_inode *inode, const struct model_inode *dir)
{
	const struct model_xattr *acl = inode_find_xattr(dir, XATTR_NAME_DEFAULT);

	if (!acl || S_ISLNK(inode->record.mode))
		return;
	inode->record.mode &= ~0777u | acl->mode;
	inode_put_acl(inode, XATTR_NAME_ACCESS, inode->record.mode);
	if (S_ISDIR(inode->record.mode))
		inode_put_acl(inode, XATTR_NAME_DEFAULT, acl->mode);
}

void inode_lose_privileges(struct model_inode *inode)
{
	struct inode_record *record = &inode->record;

	inode_remove_xattr(inode, XATTR_NAME_CAPABILITY);
	if (S_ISDIR(record->mode))
		return;
	record->mode &= ~(uint32_t)S_ISUID;
	if (record->mode & S_IXGRP)
		record->mode &= ~(uint32_t)S_ISGID;
}
