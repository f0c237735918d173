/* Extended attributes without their meaning: other names of the same length (those of security. stay), random values of the same length. ACLs stay: they are numbers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dump/scramble.h"
#include "fs/xattr.h"

struct attribute {
	uint8_t name_length;
	uint32_t value_length;
	char name[NAME_BYTES_MAX + 1];
};

struct attributes {
	inum_t ino; /* whose; 0: nobody's so far */
	struct attribute *list;
	size_t count, capacity;
	uint64_t next[NAME_BYTES_MAX + 1]; /* number of the next name, by length */
};

static int attribute_collect(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct attributes *attributes = arg;
	struct attribute *attribute;
	struct xattr_record record;
	enum xattr_space space;

	if (!key->word[1] || key->word[2])
		return 0;
	if (attributes->ino && attributes->ino != key->word[0])
		return 1;
	if (format_xattr_unpack(&record, value, length))
		return -EUCLEAN;
	attributes->ino = key->word[0];
	space = format_xattr_space(record.name, record.name_length);
	if (space == XATTR_ACL_ACCESS || space == XATTR_ACL_DEFAULT)
		return 0;
	if (attributes->count == attributes->capacity) {
		size_t capacity = attributes->capacity ? 2 * attributes->capacity : 64;
		struct attribute *list = realloc(attributes->list, capacity * sizeof(*list));

		if (!list)
			return -ENOMEM;
		attributes->list = list;
		attributes->capacity = capacity;
	}
	attribute = &attributes->list[attributes->count++];
	attribute->name_length = record.name_length;
	attribute->value_length = record.value_length;
	memcpy(attribute->name, record.name, record.name_length + 1u);
	return 0;
}

static int attribute_rename(struct attributes *attributes, struct attribute *attribute)
{
	size_t prefix = (size_t)(strchr(attribute->name, '.') - attribute->name) + 1, length = attribute->name_length - prefix;

	if (format_xattr_space(attribute->name, attribute->name_length) == XATTR_SECURITY)
		return 0;
	/* Of user. and trusted. one after the other, so that they differ in either. */
	return scramble_make_name(attributes->next[length]++, length, attribute->name + prefix);
}

static int attribute_remove(struct inode *inode, const struct attribute *attribute)
{
	struct tx *tx;
	int error = fs_tx_begin(inode->fs, TX_RESERVE, &tx);

	return error ? error : scramble_end(tx, xattr_remove(inode, tx, attribute->name));
}

static int attribute_insert(struct inode *inode, const struct attribute *attribute, uint8_t *value)
{
	struct tx *tx;
	int error = scramble_random(value, attribute->value_length);

	if (!error)
		error = fs_tx_begin(inode->fs, TX_RESERVE, &tx);
	return error ? error : scramble_end(tx, xattr_store(inode, tx, attribute->name, value, attribute->value_length, 0));
}

/* All old ones go before the first new one comes: it may have the name of an old one. The inode is not stamped. */
static int attributes_replace(struct inode *inode, struct attributes *attributes)
{
	uint8_t *value = malloc(XATTR_VALUE_MAX);
	int error = value ? 0 : -ENOMEM;

	for (size_t i = 0; i < attributes->count && !error; i++)
		error = attribute_remove(inode, &attributes->list[i]);
	for (size_t i = 0; i < attributes->count && !error; i++) {
		error = attribute_rename(attributes, &attributes->list[i]);
		if (!error)
			error = attribute_insert(inode, &attributes->list[i], value);
	}
	free(value);
	return error;
}

/* Those of the first inode at or after *from that has any: 1, and *from is behind it; 0: none is left. */
static int attributes_next(struct fs *fs, inum_t *from, struct image_report *report)
{
	struct btree_key first = {{*from}}, last = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}};
	struct attributes attributes = {.count = 0};
	struct inode *inode;
	int error;

	journal_read_begin(fs->journal);
	error = btree_walk(&fs->xattrs, &first, &last, attribute_collect, &attributes);
	journal_read_end(fs->journal);
	*from = attributes.ino + 1;
	if (error >= 0 && attributes.ino) {
		error = inode_get(fs, attributes.ino, &inode);
		if (!error) {
			error = attributes_replace(inode, &attributes);
			inode_put(inode);
		}
		report->attributes += attributes.count;
	}
	free(attributes.list);
	return error < 0 ? error : attributes.ino != 0;
}

int scramble_attributes(struct fs *fs, struct image_report *report)
{
	inum_t from = 0;
	int got;

	do
		got = attributes_next(fs, &from, report);
	while (got > 0);
	return got;
}
