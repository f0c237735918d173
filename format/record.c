#include "format/record_format.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "format/poison_format.h"
#include "format/zero.h"
#include "util/crc.h"

#define INODE_VERSION 1
#define INODE_FLAGS_KNOWN (INODE_FS_FLAGS | INODE_MAY_SHARE)
#define LENGTH_BITS 56
#define NSEC_PER_SEC 1000000000u

/* Values lie unaligned in a node: they are copied out before a field is looked at. */
static bool value_load(void *to, size_t size, const void *value, size_t length)
{
	if (length != size)
		return false;
	memcpy(to, value, size);
	return true;
}

static struct le64 length_pack(uint64_t count_blocks, uint8_t flags)
{
	return le64_make(count_blocks | (uint64_t)flags << LENGTH_BITS);
}

static int length_unpack(uint64_t *count_blocks, uint8_t *flags, struct le64 from)
{
	uint64_t count = le64_get(from) & ((1ull << LENGTH_BITS) - 1);
	uint8_t bits = (uint8_t)(le64_get(from) >> LENGTH_BITS);

	if (count == 0 || count > DEVICE_BLOCKS_MAX || (bits & ~EXTENT_UNWRITTEN))
		return -EUCLEAN;
	*count_blocks = count;
	*flags = bits;
	return 0;
}

void format_extent_pack(struct format_extent *to, const struct extent *from)
{
	to->block = le64_make(from->block);
	to->length = length_pack(from->count_blocks, from->flags);
}

int format_extent_unpack(struct extent *to, const void *value, size_t length)
{
	struct format_extent from;
	uint64_t count;
	uint8_t flags;

	if (!value_load(&from, sizeof(from), value, length) ||
	    length_unpack(&count, &flags, from.length))
		return -EUCLEAN;
	if (le64_get(from.block) > DEVICE_BLOCKS_MAX - count)
		return -EUCLEAN;
	to->block = le64_get(from.block);
	to->count_blocks = count;
	to->flags = flags;
	return 0;
}

void format_rmap_pack(struct format_rmap *to, uint64_t count_blocks, uint8_t flags)
{
	to->length = length_pack(count_blocks, flags);
}

int format_rmap_unpack(uint64_t *count_blocks, uint8_t *flags, const void *value, size_t length)
{
	struct format_rmap from;

	if (!value_load(&from, sizeof(from), value, length))
		return -EUCLEAN;
	return length_unpack(count_blocks, flags, from.length);
}

void format_free_pack(struct format_free *to, uint64_t count_blocks)
{
	to->length = le64_make(count_blocks);
}

int format_free_unpack(uint64_t *count_blocks, const void *value, size_t length)
{
	struct format_free from;
	uint64_t count;

	if (!value_load(&from, sizeof(from), value, length))
		return -EUCLEAN;
	count = le64_get(from.length);
	if (count == 0 || count > DEVICE_BLOCKS_MAX)
		return -EUCLEAN;
	*count_blocks = count;
	return 0;
}

/* --- directory entries -------------------------------------------------------------------------------------------- */

#define DIRENT_HEAD offsetof(struct format_dirent, name)

size_t format_dirent_pack(void *to, const struct dirent_record *from)
{
	struct format_dirent head = {
		.ino = le64_make(from->ino),
		.generation = le32_make(from->generation),
		.type = from->type,
		.name_length = from->name_length,
	};

	memcpy(to, &head, DIRENT_HEAD);
	memcpy((uint8_t *)to + DIRENT_HEAD, from->name, from->name_length);
	return DIRENT_HEAD + from->name_length;
}

static bool type_is_known(unsigned type)
{
	return type == DT_REG || type == DT_DIR || type == DT_LNK || type == DT_FIFO ||
	       type == DT_SOCK || type == DT_CHR || type == DT_BLK;
}

static bool name_is_sane(const uint8_t *name, size_t length)
{
	if (length == 0 || memchr(name, '/', length) || memchr(name, 0, length))
		return false;
	return !(name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')));
}

/* The record that says "this hash value is full, look at the next": no inode, no type, no name. */
static bool dirent_is_marker(const struct format_dirent *head)
{
	return le64_get(head->ino) == 0 && le32_get(head->generation) == 0 && head->type == 0 &&
	       head->name_length == 0;
}

int format_dirent_unpack(struct dirent_record *to, const void *value, size_t length)
{
	const uint8_t *name = (const uint8_t *)value + DIRENT_HEAD;
	struct format_dirent head = {0};

	if (length < DIRENT_HEAD)
		return -EUCLEAN;
	memcpy(&head, value, DIRENT_HEAD);
	if (length != DIRENT_HEAD + head.name_length)
		return -EUCLEAN;
	if (!dirent_is_marker(&head) &&
	    (le64_get(head.ino) == 0 || owner_is_inode(le64_get(head.ino)) == false ||
	     !type_is_known(head.type) || !name_is_sane(name, head.name_length)))
		return -EUCLEAN;
	to->ino = le64_get(head.ino);
	to->generation = le32_get(head.generation);
	to->type = head.type;
	to->name_length = head.name_length;
	memcpy(to->name, name, head.name_length);
	to->name[head.name_length] = 0;
	return 0;
}

/* --- extended attributes ------------------------------------------------------------------------------------------ */

#define XATTR_HEAD sizeof(struct format_xattr)

enum xattr_space format_xattr_space(const char *name, size_t length)
{
	static const struct {
		const char *prefix;
		enum xattr_space space;
		bool is_whole;
	} spaces[] = {
		{"user.", XATTR_USER, false},
		{"trusted.", XATTR_TRUSTED, false},
		{"security.", XATTR_SECURITY, false},
		{"system.posix_acl_access", XATTR_ACL_ACCESS, true},
		{"system.posix_acl_default", XATTR_ACL_DEFAULT, true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(spaces); i++) {
		size_t prefix = strlen(spaces[i].prefix);

		if ((spaces[i].is_whole ? length == prefix : length > prefix) && !memcmp(name, spaces[i].prefix, prefix))
			return spaces[i].space;
	}
	return XATTR_NONE;
}

uint32_t format_xattr_parts(uint32_t name_length, uint32_t value_length)
{
	return (uint32_t)(XATTR_HEAD + name_length + value_length + XATTR_PART_BYTES - 1) / XATTR_PART_BYTES;
}

uint32_t format_xattr_part_bytes(const struct xattr_record *record, uint32_t part)
{
	uint32_t before = record->first_bytes + (part - 1) * XATTR_PART_BYTES;

	return min_u64(XATTR_PART_BYTES, record->value_length - before);
}

uint32_t format_xattr_crc(const struct xattr_record *record, const void *value)
{
	return crc32c(crc32c(0, record->name, record->name_length), value, record->value_length);
}

size_t format_xattr_pack(void *to, const struct xattr_record *from, const void *value)
{
	size_t at = XATTR_HEAD + from->name_length, first = min_u64(from->value_length, XATTR_PART_BYTES - at);
	struct format_xattr head = {
		.value_length = le32_make(from->value_length),
		.crc32c = le32_make(format_xattr_crc(from, value)),
		.name_length = from->name_length,
	};

	memcpy(to, &head, XATTR_HEAD);
	memcpy((uint8_t *)to + XATTR_HEAD, from->name, from->name_length);
	if (first)
		memcpy((uint8_t *)to + at, value, first);
	return at + first;
}

static bool xattr_is_sane(const struct format_xattr *head, const uint8_t *name, size_t length)
{
	uint32_t value_length = le32_get(head->value_length);

	if (value_length > XATTR_VALUE_MAX || !format_is_zero(head->reserved, sizeof(head->reserved)))
		return false;
	if (length != min_u64(XATTR_PART_BYTES, XATTR_HEAD + head->name_length + value_length))
		return false;
	return !memchr(name, 0, head->name_length) && format_xattr_space((const char *)name, head->name_length) != XATTR_NONE;
}

int format_xattr_unpack(struct xattr_record *to, const void *part, size_t length)
{
	const uint8_t *name = (const uint8_t *)part + XATTR_HEAD;
	struct format_xattr head;

	if (length < XATTR_HEAD)
		return -EUCLEAN;
	memcpy(&head, part, XATTR_HEAD);
	if (length < XATTR_HEAD + head.name_length || !xattr_is_sane(&head, name, length))
		return -EUCLEAN;
	to->value_length = le32_get(head.value_length);
	to->crc = le32_get(head.crc32c);
	to->name_length = head.name_length;
	memcpy(to->name, name, head.name_length);
	to->name[head.name_length] = 0;
	to->first_at = (uint32_t)XATTR_HEAD + head.name_length;
	to->first_bytes = (uint32_t)length - to->first_at;
	to->count_parts = format_xattr_parts(head.name_length, to->value_length);
	return 0;
}

/* --- inodes ------------------------------------------------------------------------------------------------------- */

static void inode_times_pack(struct format_inode *to, const struct inode_record *from)
{
	to->atime_sec = le64_make((uint64_t)from->atime.sec);
	to->mtime_sec = le64_make((uint64_t)from->mtime.sec);
	to->ctime_sec = le64_make((uint64_t)from->ctime.sec);
	to->btime_sec = le64_make((uint64_t)from->btime.sec);
	to->atime_nsec = le32_make(from->atime.nsec);
	to->mtime_nsec = le32_make(from->mtime.nsec);
	to->ctime_nsec = le32_make(from->ctime.nsec);
	to->btime_nsec = le32_make(from->btime.nsec);
}

void format_inode_pack(struct format_inode *to, const struct inode_record *from)
{
	memset(to, 0, sizeof(*to));
	to->mode16 = le16_make((uint16_t)from->mode);
	to->version = le16_make(INODE_VERSION);
	to->nlink = le32_make(from->nlink);
	to->uid = le32_make(from->uid);
	to->gid = le32_make(from->gid);
	to->size = le64_make(from->size_bytes);
	to->blocks = le64_make(from->count_blocks);
	inode_times_pack(to, from);
	to->generation = le32_make(from->generation);
	to->project = le32_make(from->project);
	to->change = le64_make(from->change);
	to->flags = le64_make(from->flags);
	to->rdev = le64_make(from->rdev);
	to->parent = le64_make(from->parent);
	to->cause_id = le64_make(from->cause_id);
	to->extent_hint = le32_make(from->extent_hint);
	to->copies = from->copies;
	to->entries = le64_make(from->entries);
}

static bool mode_is_sane(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		return true;
	default:
		return false;
	}
}

static bool inode_is_sane(const struct format_inode *from)
{
	if (le16_get(from->version) != INODE_VERSION || !mode_is_sane(le16_get(from->mode16)))
		return false;
	if (le64_get(from->size) > INT64_MAX || le64_get(from->blocks) > INT64_MAX >> BLOCK_SHIFT)
		return false;
	if (le32_get(from->atime_nsec) >= NSEC_PER_SEC || le32_get(from->mtime_nsec) >= NSEC_PER_SEC ||
	    le32_get(from->ctime_nsec) >= NSEC_PER_SEC || le32_get(from->btime_nsec) >= NSEC_PER_SEC)
		return false;
	if ((le64_get(from->flags) & ~INODE_FLAGS_KNOWN) || from->copies > 2)
		return false;
	if (!owner_is_inode(le64_get(from->parent)))
		return false;
	return format_is_zero(from->reserved0, sizeof(from->reserved0)) &&
	       format_is_zero(from->reserved, sizeof(from->reserved));
}

static void inode_times_load(struct inode_record *to, const struct format_inode *from)
{
	to->atime.sec = (int64_t)le64_get(from->atime_sec);
	to->mtime.sec = (int64_t)le64_get(from->mtime_sec);
	to->ctime.sec = (int64_t)le64_get(from->ctime_sec);
	to->btime.sec = (int64_t)le64_get(from->btime_sec);
	to->atime.nsec = le32_get(from->atime_nsec);
	to->mtime.nsec = le32_get(from->mtime_nsec);
	to->ctime.nsec = le32_get(from->ctime_nsec);
	to->btime.nsec = le32_get(from->btime_nsec);
}

int format_inode_unpack(struct inode_record *to, const void *value, size_t length)
{
	struct format_inode from;

	if (!value_load(&from, sizeof(from), value, length) || !inode_is_sane(&from))
		return -EUCLEAN;
	to->mode = le16_get(from.mode16);
	to->nlink = le32_get(from.nlink);
	to->uid = le32_get(from.uid);
	to->gid = le32_get(from.gid);
	to->size_bytes = le64_get(from.size);
	to->count_blocks = le64_get(from.blocks);
	inode_times_load(to, &from);
	to->generation = le32_get(from.generation);
	to->project = le32_get(from.project);
	to->change = le64_get(from.change);
	to->flags = le64_get(from.flags);
	to->rdev = le64_get(from.rdev);
	to->parent = le64_get(from.parent);
	to->cause_id = le64_get(from.cause_id);
	to->extent_hint = le32_get(from.extent_hint);
	to->copies = from.copies;
	to->entries = le64_get(from.entries);
	return 0;
}

/* --- the ledger --------------------------------------------------------------------------------------------------- */

void format_badblock_pack(struct format_badblock *to, const struct badblock_record *from)
{
	memset(to, 0, sizeof(*to));
	to->length = le64_make(from->length_bytes);
	to->since_ns = le64_make(from->since_ns);
	to->cause_id = le64_make(from->cause_id);
	to->count = le32_make(from->count);
	to->state = from->state;
	to->source = from->source;
}

static bool bytes_are_sane(uint64_t length)
{
	return length != 0 && length <= DEVICE_BYTES_MAX;
}

int format_badblock_unpack(struct badblock_record *to, const void *value, size_t length)
{
	struct format_badblock from;

	if (!value_load(&from, sizeof(from), value, length))
		return -EUCLEAN;
	if (!bytes_are_sane(le64_get(from.length)) || le64_get(from.length) % SECTOR_BYTES ||
	    !badblock_state_is_known(from.state) || !failure_source_is_known(from.source) ||
	    !format_is_zero(from.reserved, sizeof(from.reserved)))
		return -EUCLEAN;
	to->length_bytes = le64_get(from.length);
	to->since_ns = le64_get(from.since_ns);
	to->cause_id = le64_get(from.cause_id);
	to->count = le32_get(from.count);
	to->state = from.state;
	to->source = from.source;
	return 0;
}

void format_lost_pack(struct format_lost *to, const struct lost_record *from)
{
	memset(to, 0, sizeof(*to));
	to->length = le64_make(from->length_bytes);
	to->cause_id = le64_make(from->cause_id);
	to->source = from->source;
}

int format_lost_unpack(struct lost_record *to, const void *value, size_t length)
{
	struct format_lost from;

	if (!value_load(&from, sizeof(from), value, length))
		return -EUCLEAN;
	if (!bytes_are_sane(le64_get(from.length)) || !failure_source_is_known(from.source) ||
	    !format_is_zero(from.reserved, sizeof(from.reserved)))
		return -EUCLEAN;
	to->length_bytes = le64_get(from.length);
	to->cause_id = le64_get(from.cause_id);
	to->source = from.source;
	return 0;
}

void format_damaged_pack(struct format_damaged *to, const struct damaged_record *from)
{
	to->length = le64_make(from->length_bytes);
	to->cause_id = le64_make(from->cause_id);
}

int format_damaged_unpack(struct damaged_record *to, const void *value, size_t length)
{
	struct format_damaged from;

	if (!value_load(&from, sizeof(from), value, length))
		return -EUCLEAN;
	if (le64_get(from.length) == 0 || le64_get(from.length) > INT64_MAX)
		return -EUCLEAN;
	to->length_bytes = le64_get(from.length);
	to->cause_id = le64_get(from.cause_id);
	return 0;
}

/* --- intents ------------------------------------------------------------------------------------------------------ */

void format_intent_pack(struct format_intent *to, const struct intent_record *from)
{
	memset(to, 0, sizeof(*to));
	to->op = le64_make(from->op);
	for (int i = 0; i < 6; i++)
		to->args[i] = le64_make(from->args[i]);
}

/* How many arguments an operation has; 0: no such operation. The others are verified zero. */
static unsigned intent_args(uint64_t op)
{
	switch (op) {
	case INTENT_TRUNCATE:
		return 2;
	case INTENT_PUNCH:
		return 3;
	case INTENT_CLONE:
		return 6;
	default:
		return 0;
	}
}

int format_intent_unpack(struct intent_record *to, const void *value, size_t length)
{
	struct format_intent from;
	unsigned args;

	if (!value_load(&from, sizeof(from), value, length))
		return -EUCLEAN;
	args = intent_args(le64_get(from.op));
	if (args == 0 || le64_get(from.reserved) ||
	    !format_is_zero(&from.args[args], (6 - args) * sizeof(from.args[0])))
		return -EUCLEAN;
	to->op = le64_get(from.op);
	for (int i = 0; i < 6; i++)
		to->args[i] = le64_get(from.args[i]);
	return 0;
}
