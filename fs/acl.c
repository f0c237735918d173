#include "fs/acl.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define PERMISSION_BITS 0777u

/* --- ACL and mode ---------------------------------------------------------------------------------------------------------------- */

/* The entry that the group's bits of the mode speak of. */
static const struct acl_entry *acl_group(const struct acl *acl)
{
	const struct acl_entry *found = NULL;

	for (unsigned i = 0; i < acl->count; i++)
		if (acl->entries[i].tag == ACL_TAG_MASK || (acl->entries[i].tag == ACL_TAG_GROUP_OBJ && !found))
			found = &acl->entries[i];
	return found;
}

/* How far up its bits are in the mode; negative: not there. */
static int entry_shift(const struct acl *acl, const struct acl_entry *entry)
{
	if (entry->tag == ACL_TAG_USER_OBJ)
		return 6;
	if (entry->tag == ACL_TAG_OTHER)
		return 0;
	return entry == acl_group(acl) ? 3 : -1;
}

uint32_t acl_mode(const struct acl *acl)
{
	uint32_t mode = 0;

	for (unsigned i = 0; i < acl->count; i++) {
		int shift = entry_shift(acl, &acl->entries[i]);

		if (shift >= 0)
			mode |= (uint32_t)acl->entries[i].permissions << shift;
	}
	return mode;
}

bool acl_is_more_than_mode(const struct acl *acl)
{
	return acl->count > 3;
}

void acl_set_mode(struct acl *acl, uint32_t mode)
{
	for (unsigned i = 0; i < acl->count; i++) {
		int shift = entry_shift(acl, &acl->entries[i]);

		if (shift >= 0)
			acl->entries[i].permissions = mode >> shift & 7;
	}
}

/* --- stored ------------------------------------------------------------------------------------------------------------------------ */

static int acl_load(struct inode *inode, struct tx *tx, enum xattr_common which, struct acl *acl)
{
	uint8_t blob[ACL_BLOB_MAX];
	size_t length = 0;
	int error = xattr_load_common(inode, tx, which, blob, sizeof(blob), &length);

	if (error)
		return error == -ERANGE ? -EUCLEAN : error;
	return format_acl_unpack(acl, blob, length) ? -EUCLEAN : 0;
}

static int acl_put(struct inode *inode, struct tx *tx, const char *name, const struct acl *acl, int flags)
{
	uint8_t blob[ACL_BLOB_MAX];

	return xattr_store(inode, tx, name, blob, format_acl_pack(blob, acl), flags);
}

int acl_store(struct inode *inode, struct tx *tx, enum xattr_space space, const void *value, size_t size, int flags, struct inode_record *record)
{
	bool is_access = space == XATTR_ACL_ACCESS;
	enum xattr_common which = is_access ? XATTR_COMMON_ACCESS : XATTR_COMMON_DEFAULT;
	struct acl acl = {.count = 0};
	int error = value ? format_acl_unpack(&acl, value, size) : 0;

	if (error)
		return error;
	if (!acl.count)
		return xattr_drop(inode, tx, which);
	if (!is_access)
		return S_ISDIR(record->mode) ? acl_put(inode, tx, XATTR_NAME_DEFAULT, &acl, flags & FS_XATTR_FLAGS) : -EACCES;
	record->mode = (record->mode & ~PERMISSION_BITS) | acl_mode(&acl);
	if (flags & FS_XATTR_KILL_SGID)
		record->mode &= ~(uint32_t)S_ISGID;
	if (!acl_is_more_than_mode(&acl))
		return xattr_drop(inode, tx, which);
	return acl_put(inode, tx, XATTR_NAME_ACCESS, &acl, flags & FS_XATTR_FLAGS);
}

int acl_follow_mode(struct inode *inode, struct tx *tx, uint32_t mode)
{
	struct acl acl;
	int error = acl_load(inode, tx, XATTR_COMMON_ACCESS, &acl);

	if (error)
		return error == -ENODATA ? 0 : error;
	acl_set_mode(&acl, mode);
	return acl_put(inode, tx, XATTR_NAME_ACCESS, &acl, 0);
}

/* --- inherited ---------------------------------------------------------------------------------------------------------------------- */

int acl_inherit(struct inode *dir, struct tx *tx, uint32_t umask, uint32_t *mode, struct acl_birth *birth)
{
	int error = acl_load(dir, tx, XATTR_COMMON_DEFAULT, &birth->inherited);

	birth->has_access = birth->has_default = false;
	if (error == -ENODATA) {
		*mode &= ~(umask & PERMISSION_BITS);
		return 0;
	}
	if (error)
		return error;
	birth->has_default = S_ISDIR(*mode);
	/* Neither gives more than the other. */
	*mode &= ~PERMISSION_BITS | acl_mode(&birth->inherited);
	birth->has_access = acl_is_more_than_mode(&birth->inherited);
	birth->access = birth->inherited;
	acl_set_mode(&birth->access, *mode);
	return 0;
}

int acl_give(struct inode *inode, struct tx *tx, const struct acl_birth *birth)
{
	int error = birth->has_access ? acl_put(inode, tx, XATTR_NAME_ACCESS, &birth->access, 0) : 0;

	if (!error && birth->has_default)
		error = acl_put(inode, tx, XATTR_NAME_DEFAULT, &birth->inherited, 0);
	return error;
}
