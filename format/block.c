#include "format/block_format.h"

#include <errno.h>
#include <string.h>

#include "format/chunk_format.h"
#include "format/root_format.h"
#include "format/zero.h"
#include "util/crc.h"

static const char *const tree_names[FORMAT_TREE_COUNT] = {
	[FORMAT_TREE_INODES] = "inodes",       [FORMAT_TREE_DIRENTS] = "dirents",
	[FORMAT_TREE_PARENTS] = "parents",     [FORMAT_TREE_EXTENTS] = "extents",
	[FORMAT_TREE_XATTRS] = "xattrs",       [FORMAT_TREE_RMAP] = "rmap",
	[FORMAT_TREE_FREE] = "free",	       [FORMAT_TREE_BADBLOCKS] = "badblocks",
	[FORMAT_TREE_LOST] = "lost",	       [FORMAT_TREE_DAMAGED] = "damaged",
	[FORMAT_TREE_ORPHANS] = "orphans",     [FORMAT_TREE_INTENTS] = "intents",
	[FORMAT_TREE_CSUMS] = "csums",	       [FORMAT_TREE_LEDGER_COPY] = "ledger_copy",
};

const char *format_tree_name(unsigned tree)
{
	if (tree >= FORMAT_TREE_COUNT || !tree_names[tree])
		return "unknown";
	return tree_names[tree];
}

const char *format_block_name(unsigned role, unsigned tree)
{
	switch (role) {
	case FORMAT_ROLE_ROOT:
		return "root";
	case FORMAT_ROLE_CHUNK_TABLE:
	case FORMAT_ROLE_CHUNK_HEADER:
		return "chunks";
	case FORMAT_ROLE_NODE:
		return format_tree_name(tree);
	default:
		return "unknown";
	}
}

void format_block_header_init(struct format_block_header *header,
			      const uint8_t meta_uuid[FORMAT_UUID_BYTES], maddr_t address,
			      enum format_block_role role, unsigned tree)
{
	memset(header, 0, sizeof(*header));
	header->magic = le32_make(FORMAT_BLOCK_MAGIC);
	memcpy(header->meta_uuid, meta_uuid, FORMAT_UUID_BYTES);
	header->address = le64_make(address);
	header->version = le16_make(FORMAT_BLOCK_VERSION);
	header->role = (uint8_t)role;
	header->tree = (uint8_t)tree;
}

static uint32_t block_crc(const void *block)
{
	static const uint8_t zeros[4];
	const uint8_t *bytes = block;
	const size_t at = offsetof(struct format_block_header, crc32c);
	uint32_t crc = crc32c(0, bytes, at);

	crc = crc32c(crc, zeros, sizeof(zeros));
	return crc32c(crc, bytes + at + 4, BLOCK_BYTES - at - 4);
}

void format_block_seal(void *block, uint64_t sequence)
{
	struct format_block_header *header = block;

	header->sequence = le64_make(sequence);
	header->crc32c = le32_make(block_crc(block));
}

static bool role_is_known(unsigned role, unsigned tree)
{
	switch (role) {
	case FORMAT_ROLE_NODE:
		return tree > FORMAT_TREE_NONE && tree < FORMAT_TREE_COUNT;
	case FORMAT_ROLE_ROOT:
	case FORMAT_ROLE_CHUNK_TABLE:
	case FORMAT_ROLE_CHUNK_HEADER:
		return tree == FORMAT_TREE_NONE;
	default:
		return false;
	}
}

static const char *header_fault(const struct format_block_header *header, const uint8_t *meta_uuid,
				maddr_t address)
{
	if (le32_get(header->magic) != FORMAT_BLOCK_MAGIC)
		return "magic";
	if (le16_get(header->version) != FORMAT_BLOCK_VERSION)
		return "version";
	if (memcmp(header->meta_uuid, meta_uuid, FORMAT_UUID_BYTES))
		return "meta_uuid";
	if (le64_get(header->address) != address)
		return "address";
	if (le64_get(header->owner) != 0)
		return "owner";
	if (!role_is_known(header->role, header->tree))
		return "role";
	if (!format_is_zero(header->reserved, sizeof(header->reserved)))
		return "reserved";
	return NULL;
}

int format_block_header_verify(const struct format_block_header *header,
			       const uint8_t meta_uuid[FORMAT_UUID_BYTES], maddr_t address,
			       const char **field)
{
	const char *fault = header_fault(header, meta_uuid, address);

	if (!fault)
		return 0;
	*field = fault;
	return -EUCLEAN;
}

static bool root_is_sane(const struct format_root *root)
{
	for (unsigned tree = 0; tree < ARRAY_SIZE(root->trees); tree++) {
		const struct format_tree_root *at = &root->trees[tree];

		if (!format_is_zero(at->reserved, sizeof(at->reserved)))
			return false;
		if (tree >= FORMAT_TREE_COUNT || tree == FORMAT_TREE_NONE || !le64_get(at->address))
			if (le64_get(at->address) || at->level)
				return false;
	}
	return format_is_zero(root->reserved, sizeof(root->reserved));
}

/* What a block of this role must have besides its header; entries and nodes are verified by who unpacks them. */
static bool body_is_sane(const void *block)
{
	const struct format_chunk_table_block *table = block;
	const struct format_chunk_header *chunk = block;

	switch (((const struct format_block_header *)block)->role) {
	case FORMAT_ROLE_ROOT:
		return root_is_sane(block);
	case FORMAT_ROLE_CHUNK_TABLE:
		return format_is_zero(table->reserved, sizeof(table->reserved));
	case FORMAT_ROLE_CHUNK_HEADER:
		return format_is_zero(chunk->reserved, sizeof(chunk->reserved));
	default:
		return true;
	}
}

int format_block_verify(const void *block, const uint8_t meta_uuid[FORMAT_UUID_BYTES],
			maddr_t address, const char **field)
{
	const struct format_block_header *header = block;
	int error = format_block_header_verify(header, meta_uuid, address, field);

	if (error)
		return error;
	if (le32_get(header->crc32c) != block_crc(block)) {
		*field = "crc32c";
		return -EUCLEAN;
	}
	if (!body_is_sane(block)) {
		*field = "reserved";
		return -EUCLEAN;
	}
	return 0;
}
