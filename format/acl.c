#include "format/acl_format.h"

#include <errno.h>
#include <string.h>

static bool tag_has_id(unsigned tag)
{
	return tag == ACL_TAG_USER || tag == ACL_TAG_GROUP;
}

size_t format_acl_pack(void *to, const struct acl *from)
{
	const struct format_acl head = {.version = le32_make(ACL_BLOB_VERSION)};
	uint8_t *at = memcpy(to, &head, sizeof(head));

	at += sizeof(head);
	for (unsigned i = 0; i < from->count; i++, at += sizeof(struct format_acl_entry)) {
		const struct format_acl_entry entry = {
			.tag = le16_make(from->entries[i].tag),
			.permissions = le16_make(from->entries[i].permissions),
			.id = le32_make(tag_has_id(from->entries[i].tag) ? from->entries[i].id : ACL_ID_NONE),
		};

		memcpy(at, &entry, sizeof(entry));
	}
	return (size_t)(at - (uint8_t *)to);
}

/* May this tag follow that one? Tags ascend; users and groups may be many. */
static bool tag_may_follow(unsigned before, unsigned tag)
{
	switch (tag) {
	case ACL_TAG_USER_OBJ:
		return before == 0;
	case ACL_TAG_USER:
		return before == ACL_TAG_USER_OBJ || before == ACL_TAG_USER;
	case ACL_TAG_GROUP_OBJ:
		return before == ACL_TAG_USER_OBJ || before == ACL_TAG_USER;
	case ACL_TAG_GROUP:
		return before == ACL_TAG_GROUP_OBJ || before == ACL_TAG_GROUP;
	case ACL_TAG_MASK:
		return before == ACL_TAG_GROUP_OBJ || before == ACL_TAG_GROUP;
	case ACL_TAG_OTHER:
		return before == ACL_TAG_GROUP_OBJ || before == ACL_TAG_MASK;
	default:
		return false;
	}
}

static bool acl_is_sane(const struct acl *acl)
{
	bool needs_mask = false, has_mask = false;
	unsigned before = 0;

	for (unsigned i = 0; i < acl->count; i++) {
		const struct acl_entry *entry = &acl->entries[i];

		if (entry->permissions > 7 || !tag_may_follow(before, entry->tag))
			return false;
		if (tag_has_id(entry->tag) && entry->id == ACL_ID_NONE)
			return false;
		needs_mask |= tag_has_id(entry->tag);
		has_mask |= entry->tag == ACL_TAG_MASK;
		before = entry->tag;
	}
	return acl->count == 0 || (before == ACL_TAG_OTHER && (has_mask || !needs_mask));
}

int format_acl_unpack(struct acl *to, const void *blob, size_t length)
{
	const uint8_t *at = blob;
	struct format_acl head;

	if (length < sizeof(head) || (length - sizeof(head)) % sizeof(struct format_acl_entry))
		return -EINVAL;
	if (length > ACL_BLOB_MAX)
		return -E2BIG;
	memcpy(&head, at, sizeof(head));
	if (le32_get(head.version) != ACL_BLOB_VERSION)
		return -EINVAL;
	at += sizeof(head);
	to->count = (unsigned)((length - sizeof(head)) / sizeof(struct format_acl_entry));
	for (unsigned i = 0; i < to->count; i++, at += sizeof(struct format_acl_entry)) {
		struct format_acl_entry entry;

		memcpy(&entry, at, sizeof(entry));
		to->entries[i] = (struct acl_entry){le16_get(entry.tag), le16_get(entry.permissions), le32_get(entry.id)};
	}
	return acl_is_sane(to) ? 0 : -EINVAL;
}
