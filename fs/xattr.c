#include "fs/xattr.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "fs/acl.h"
#include "fs/change.h"
#include "fs/data.h"
#include "fs/dir.h"
#include "fs/flags.h"

static const char *const common_names[XATTR_COMMON] = {
	[XATTR_COMMON_CAPABILITY] = XATTR_NAME_CAPABILITY,
	[XATTR_COMMON_ACCESS] = XATTR_NAME_ACCESS,
	[XATTR_COMMON_DEFAULT] = XATTR_NAME_DEFAULT,
};

/* --- finding -------------------------------------------------------------------------------------------------------------- */

struct xattr_place {
	uint64_t slot; /* hash << 8 | number; of one that is not there: where it may be put, 0: nowhere */
	struct xattr_record record;
	struct btree_record part; /* 0 */
};

uint64_t xattr_hash(const struct fs *fs, const char *name, size_t length)
{
	return dir_hash_name(fs, name, length) << 8;
}

/* The first attribute of this hash at or after the key: 1, 0 when there is none. */
static int xattr_next(struct inode *inode, const struct btree_key *key, uint64_t last, struct xattr_place *place)
{
	int error = btree_lookup_ge(&inode->fs->xattrs, key, &place->part);

	if (error == -ENOENT || (!error && (place->part.key.word[0] != inode->ino || place->part.key.word[1] > last)))
		return 0;
	if (!error && place->part.key.word[2])
		return -EUCLEAN; /* its first part is gone */
	if (!error)
		error = format_xattr_unpack(&place->record, place->part.value, place->part.length);
	return error ? error : 1;
}

static int xattr_find(struct inode *inode, const char *name, struct xattr_place *place)
{
	size_t length = strlen(name);
	uint64_t first = xattr_hash(inode->fs, name, length), last = first + XATTR_NUMBERS - 1, free_slot = first;
	struct btree_key key = {{inode->ino, first, 0}};
	int got;

	while ((got = xattr_next(inode, &key, last, place)) > 0) {
		place->slot = place->part.key.word[1];
		if (place->record.name_length == length && !memcmp(place->record.name, name, length))
			return 0;
		free_slot += place->slot == free_slot;
		key.word[1] = place->slot + 1;
	}
	place->slot = free_slot <= last ? free_slot : 0;
	return got ? got : -ENODATA;
}

/* --- what is known to be absent ---------------------------------------------------------------------------------------------- */

static void xattrs_changed(struct inode *inode)
{
	uint32_t known = atomic_load(&inode->xattrs_known);

	while (!atomic_compare_exchange_weak(&inode->xattrs_known, &known, ((known >> XATTR_COMMON) + 1) << XATTR_COMMON))
		;
}

/* Until the change shows, whoever looks finds it as it was. */
static void xattrs_changed_hook(void *arg, bool committed, uint64_t sequence)
{
	if (committed)
		xattrs_changed(arg);
}

static void absent_capability_hook(void *arg, bool committed, uint64_t sequence)
{
	if (committed)
		atomic_fetch_or(&((struct inode *)arg)->xattrs_known, 1u << XATTR_COMMON_CAPABILITY);
}

static void absent_access_hook(void *arg, bool committed, uint64_t sequence)
{
	if (committed)
		atomic_fetch_or(&((struct inode *)arg)->xattrs_known, 1u << XATTR_COMMON_ACCESS);
}

static void absent_default_hook(void *arg, bool committed, uint64_t sequence)
{
	if (committed)
		atomic_fetch_or(&((struct inode *)arg)->xattrs_known, 1u << XATTR_COMMON_DEFAULT);
}

static tx_hook_fn *const absent_hooks[XATTR_COMMON] = {
	[XATTR_COMMON_CAPABILITY] = absent_capability_hook,
	[XATTR_COMMON_ACCESS] = absent_access_hook,
	[XATTR_COMMON_DEFAULT] = absent_default_hook,
};

int xattr_load_common(struct inode *inode, struct tx *tx, enum xattr_common which, void *buffer, size_t size, size_t *length)
{
	uint32_t known = atomic_load(&inode->xattrs_known), more;
	int error;

	if (known >> which & 1)
		return -ENODATA;
	error = xattr_load(inode, common_names[which], buffer, size, length);
	if (error != -ENODATA)
		return error;
	if (tx) /* what that has seen is certain when it commits; until then nobody else changes them */
		return tx_add_hook(tx, absent_hooks[which], inode) ? -ENOMEM : -ENODATA;
	do
		more = known | 1u << which;
	while (!atomic_compare_exchange_weak(&inode->xattrs_known, &known, more) && known >> XATTR_COMMON == more >> XATTR_COMMON);
	return error;
}

static int common_of(const char *name)
{
	int which = 0;

	while (which < XATTR_COMMON && strcmp(name, common_names[which]))
		which++;
	return which;
}

/* --- reading ---------------------------------------------------------------------------------------------------------------- */

struct xattr_read {
	const struct xattr_record *record;
	uint8_t *buffer;
	uint32_t done, next_part;
};

static int xattr_read_part(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct xattr_read *read = arg;

	if (key->word[2] != read->next_part || read->next_part >= read->record->count_parts ||
	    length != format_xattr_part_bytes(read->record, read->next_part))
		return -EUCLEAN;
	memcpy(read->buffer + read->done, value, length);
	read->done += (uint32_t)length;
	read->next_part++;
	return 0;
}

static int xattr_read(struct inode *inode, const struct xattr_place *place, uint8_t *buffer)
{
	const struct btree_key first = {{inode->ino, place->slot, 1}}, last = {{inode->ino, place->slot, UINT64_MAX}};
	struct xattr_read read = {.record = &place->record, .buffer = buffer, .done = place->record.first_bytes, .next_part = 1};
	int error;

	memcpy(buffer, place->part.value + place->record.first_at, place->record.first_bytes);
	error = btree_walk(&inode->fs->xattrs, &first, &last, xattr_read_part, &read);
	if (error)
		return error;
	if (read.done != place->record.value_length || format_xattr_crc(&place->record, buffer) != place->record.crc)
		return -EUCLEAN;
	return 0;
}

int xattr_load(struct inode *inode, const char *name, void *buffer, size_t size, size_t *length)
{
	struct xattr_place place;
	int error = xattr_find(inode, name, &place);

	if (error)
		return error;
	if (buffer && size < place.record.value_length)
		return -ERANGE;
	if (buffer)
		error = xattr_read(inode, &place, buffer);
	if (!error)
		*length = place.record.value_length;
	return error;
}

/* --- changing ---------------------------------------------------------------------------------------------------------------- */

static int part_put(struct inode *inode, struct tx *tx, const struct btree_key *key, bool is_there, const void *value, size_t length)
{
	int error = is_there ? btree_update(&inode->fs->xattrs, tx, key, value, length)
			     : btree_insert(&inode->fs->xattrs, tx, key, value, length);

	/* A part that should be there is not, or the other way round. */
	return error == -ENOENT || error == -EEXIST ? -EUCLEAN : error;
}

/* In place over the `old_parts` that there are, so that a record of the journal holds the largest. */
static int parts_put(struct inode *inode, struct tx *tx, uint64_t slot, uint32_t old_parts, struct xattr_record *record, const uint8_t *value)
{
	uint8_t first[XATTR_PART_BYTES];
	struct btree_key key = {{inode->ino, slot, 0}};
	size_t length = format_xattr_pack(first, record, value), at;
	uint32_t part, parts = format_xattr_parts(record->name_length, record->value_length);
	int error = part_put(inode, tx, &key, old_parts > 0, first, length);

	record->first_bytes = (uint32_t)(length - sizeof(struct format_xattr) - record->name_length);
	at = record->first_bytes;
	for (part = 1; part < parts && !error; part++) {
		key.word[2] = part;
		length = format_xattr_part_bytes(record, part);
		error = part_put(inode, tx, &key, part < old_parts, value + at, length);
		at += length;
	}
	return error;
}

static int parts_drop(struct inode *inode, struct tx *tx, uint64_t slot, uint32_t from, uint32_t parts)
{
	int error = 0;

	for (; from < parts && !error; from++) {
		const struct btree_key key = {{inode->ino, slot, from}};

		error = btree_remove(&inode->fs->xattrs, tx, &key);
	}
	return error == -ENOENT ? -EUCLEAN : error;
}

int xattr_store(struct inode *inode, struct tx *tx, const char *name, const void *value, size_t size, int flags)
{
	struct xattr_record record = {.value_length = (uint32_t)size, .name_length = (uint8_t)strlen(name)};
	uint32_t old_parts = 0, parts = format_xattr_parts(record.name_length, record.value_length);
	struct xattr_place place;
	int error = xattr_find(inode, name, &place);

	if (!error && (flags & XATTR_CREATE))
		return -EEXIST;
	if (error && (error != -ENODATA || (flags & XATTR_REPLACE)))
		return error;
	if (!place.slot)
		return -ENOSPC;
	if (!error)
		old_parts = place.record.count_parts;
	memcpy(record.name, name, record.name_length + 1u);
	error = parts_put(inode, tx, place.slot, old_parts, &record, value);
	if (!error)
		error = parts_drop(inode, tx, place.slot, parts, old_parts);
	xattrs_changed(inode); /* for this transaction */
	return error ? error : tx_add_hook(tx, xattrs_changed_hook, inode);
}

int xattr_remove(struct inode *inode, struct tx *tx, const char *name)
{
	struct xattr_place place;
	int error = xattr_find(inode, name, &place);

	return error ? error : parts_drop(inode, tx, place.slot, 0, place.record.count_parts);
}

int xattr_drop(struct inode *inode, struct tx *tx, enum xattr_common which)
{
	int error = xattr_is_absent(inode, which) ? -ENODATA : xattr_remove(inode, tx, common_names[which]);

	return error == -ENODATA ? 0 : error;
}

/* --- who may ------------------------------------------------------------------------------------------------------------------ */

static int name_verify(const char *name, enum xattr_space *space)
{
	size_t length = strnlen(name, NAME_BYTES_MAX + 1);

	if (length == 0 || length > NAME_BYTES_MAX)
		return -ERANGE;
	*space = format_xattr_space(name, length);
	if (*space != XATTR_NONE)
		return 0;
	return name[length - 1] == '.' ? -EINVAL : -EOPNOTSUPP;
}

static bool mode_has_user_attributes(mode_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode);
}

static int read_verify(const struct fs_who *who, enum xattr_space space, mode_t mode)
{
	if (space == XATTR_TRUSTED && who->uid != 0)
		return -ENODATA;
	return space == XATTR_USER && !mode_has_user_attributes(mode) ? -ENODATA : 0;
}

/* In a directory where everybody may make files nobody but its owner may leave notes. */
static int write_verify(const struct fs_who *who, enum xattr_space space, const struct inode_record *record)
{
	bool is_owner = who->uid == 0 || who->uid == record->uid;

	switch (space) {
	case XATTR_TRUSTED:
		return who->uid == 0 ? 0 : -EPERM;
	case XATTR_USER:
		if (!mode_has_user_attributes(record->mode))
			return -EPERM;
		return S_ISDIR(record->mode) && (record->mode & S_ISVTX) && !is_owner ? -EPERM : 0;
	case XATTR_ACL_ACCESS:
	case XATTR_ACL_DEFAULT:
		if (S_ISLNK(record->mode))
			return -EOPNOTSUPP;
		return is_owner ? 0 : -EPERM;
	default:
		return 0;
	}
}

/* --- calls ---------------------------------------------------------------------------------------------------------------------- */

int fs_getxattr(struct fs *fs, const struct fs_who *who, inum_t ino, const char *name, void *buffer, size_t size, size_t *length)
{
	enum xattr_space space;
	struct inode *inode;
	struct fs_attr attr;
	int which, error = name_verify(name, &space);

	if (!error)
		error = inode_get(fs, ino, &inode);
	if (error)
		return error;
	inode_attr(inode, &attr);
	error = read_verify(who, space, attr.record.mode);
	which = common_of(name);
	if (!error && which < XATTR_COMMON && xattr_is_absent(inode, which))
		error = -ENODATA;
	if (!error) {
		journal_read_begin(fs->journal);
		error = which < XATTR_COMMON ? xattr_load_common(inode, NULL, which, buffer, size, length)
					     : xattr_load(inode, name, buffer, size, length);
		journal_read_end(fs->journal);
	}
	inode_put(inode);
	return error;
}

/* More blocks than a record of the journal holds: one that had to be shortened, because bad places are all over the ring. */
static int outcome(int error)
{
	return error == -EFBIG ? -ENOSPC : error;
}

struct xattr_change {
	struct inode *inode;
	enum xattr_space space;
	const char *name;
	const void *value; /* NULL: it goes */
	size_t size;
	int flags;
};

static int change_tree(struct inode *inode, struct tx *tx, const struct xattr_change *change, struct inode_record *record)
{
	int error;

	if (change->space == XATTR_ACL_ACCESS || change->space == XATTR_ACL_DEFAULT)
		return acl_store(inode, tx, change->space, change->value, change->size, change->flags, record);
	if (change->value)
		error = xattr_store(inode, tx, change->name, change->value, change->size, change->flags & FS_XATTR_FLAGS);
	else
		error = xattr_remove(inode, tx, change->name);
	return error;
}

static int change_store(struct tx *tx, void *arg)
{
	const struct xattr_change *change = arg;
	struct inode_record record;
	int error;

	inode_copy_record(change->inode, &record);
	error = flags_verify_change(&record);
	if (!error)
		error = change_tree(change->inode, tx, change, &record);
	if (error)
		return outcome(error);
	record_stamp_change(&record);
	return outcome(inode_update(change->inode, tx, &record));
}

static int xattr_change(struct fs *fs, const struct fs_who *who, inum_t ino, struct xattr_change *change)
{
	struct inode *inode;
	struct fs_attr attr;
	int error = name_verify(change->name, &change->space);

	if (!error)
		error = inode_get(fs, ino, &inode);
	if (error)
		return error;
	change->inode = inode;
	inode_attr(inode, &attr);
	error = write_verify(who, change->space, &attr.record);
	if (!error)
		error = flags_settle(inode, change_inode(inode, change->value ? TX_NORMAL : TX_RESERVE, change_store, change));
	inode_put(inode);
	return error;
}

int fs_setxattr(struct fs *fs, const struct fs_who *who, inum_t ino, const char *name, const void *value, size_t size, int flags)
{
	struct xattr_change change = {.name = name, .value = value ? value : "", .size = size, .flags = flags};

	if (flags & ~(FS_XATTR_FLAGS | FS_XATTR_KILL_SGID))
		return -EINVAL;
	return size > XATTR_VALUE_MAX ? -E2BIG : xattr_change(fs, who, ino, &change);
}

int fs_removexattr(struct fs *fs, const struct fs_who *who, inum_t ino, const char *name)
{
	struct xattr_change change = {.name = name};

	return xattr_change(fs, who, ino, &change);
}

struct xattr_list {
	char *buffer; /* NULL: only count */
	size_t size, used;
	bool with_trusted;
};

static int list_visit(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct xattr_list *list = arg;
	struct xattr_record record;
	size_t bytes;

	if (key->word[2])
		return 0;
	if (format_xattr_unpack(&record, value, length))
		return -EUCLEAN;
	if (!list->with_trusted && format_xattr_space(record.name, record.name_length) == XATTR_TRUSTED)
		return 0;
	bytes = record.name_length + 1u;
	if (list->buffer && bytes > list->size - list->used)
		return -ERANGE;
	if (list->buffer)
		memcpy(list->buffer + list->used, record.name, bytes);
	list->used += bytes;
	return 0;
}

int fs_listxattr(struct fs *fs, const struct fs_who *who, inum_t ino, char *buffer, size_t size, size_t *length)
{
	struct btree_key first = {{ino, XATTR_NUMBERS, 0}}, last = {{ino, UINT64_MAX, UINT64_MAX}};
	struct xattr_list list = {.buffer = buffer, .size = size, .with_trusted = who->uid == 0};
	struct inode *inode;
	int error = inode_get(fs, ino, &inode);

	if (error)
		return error;
	journal_read_begin(fs->journal);
	error = btree_walk(&fs->xattrs, &first, &last, list_visit, &list);
	journal_read_end(fs->journal);
	if (!error)
		*length = list.used;
	inode_put(inode);
	return error;
}
