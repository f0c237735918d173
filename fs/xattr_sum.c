#include "fs/xattr_sum.h"

#include <string.h>

#include "fs/dir.h"
#include "util/crc.h"

enum xattr_space xattr_sum_space(const struct xattr_sum *sum)
{
	return format_xattr_space(sum->record.name, sum->record.name_length);
}

static bool space_is_acl(enum xattr_space space)
{
	return space == XATTR_ACL_ACCESS || space == XATTR_ACL_DEFAULT;
}

static void sum_take_bytes(struct xattr_sum *sum, const void *value, size_t length)
{
	if (space_is_acl(xattr_sum_space(sum)) && sum->done + length <= sizeof(sum->acl))
		memcpy(sum->acl + sum->done, value, length);
	sum->crc = crc32c(sum->crc, value, length);
	sum->done += (uint32_t)length;
}

static void sum_take_first(struct xattr_sum *sum, const void *value, size_t length)
{
	if (format_xattr_unpack(&sum->record, value, length)) {
		sum->is_broken = true;
		return;
	}
	sum->crc = crc32c(0, sum->record.name, sum->record.name_length);
	sum_take_bytes(sum, (const uint8_t *)value + sum->record.first_at, sum->record.first_bytes);
}

void xattr_sum_add(struct xattr_sum *sum, const struct btree_key *key, const void *value, size_t length)
{
	bool is_first = sum->slot != key->word[1];
	uint32_t part = is_first ? 0 : sum->next_part;

	if (is_first) {
		sum->slot = key->word[1];
		sum->next_part = sum->done = sum->crc = 0;
		sum->is_broken = false;
		memset(&sum->record, 0, sizeof(sum->record));
	}
	sum->is_broken |= key->word[2] != part;
	sum->next_part = part + 1;
	if (sum->is_broken)
		return;
	if (part == 0)
		sum_take_first(sum, value, length);
	else if (part < sum->record.count_parts && length == format_xattr_part_bytes(&sum->record, part))
		sum_take_bytes(sum, value, length);
	else
		sum->is_broken = true;
}

static bool acl_is_sound(const struct xattr_sum *sum)
{
	struct acl acl;

	return sum->done <= sizeof(sum->acl) && !format_acl_unpack(&acl, sum->acl, sum->done) && acl.count;
}

bool xattr_sum_is_sound(const struct fs *fs, const struct xattr_sum *sum)
{
	uint64_t hash = xattr_hash(fs, sum->record.name, sum->record.name_length);

	if (sum->is_broken || sum->done != sum->record.value_length || sum->crc != sum->record.crc || sum->slot - hash >= XATTR_NUMBERS)
		return false;
	return !space_is_acl(xattr_sum_space(sum)) || acl_is_sound(sum);
}

void xattr_sum_acl(const struct xattr_sum *sum, struct acl *acl)
{
	format_acl_unpack(acl, sum->acl, sum->done);
}
