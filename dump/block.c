/* One metadata block, and what lies at a place of the device. */
#include "dump/internal.h"

#include <errno.h>
#include <string.h>

#include "control/render.h"

static void chunk_header_fields(struct json_object *element, const struct format_chunk_header *header)
{
	json_add_u64(element, "chunk", le64_get(header->chunk));
	json_add_u64(element, "primary", le64_get(header->copy[0]));
	json_add_u64(element, "replica", le64_get(header->copy[1]));
	json_add_u64(element, "generation", le32_get(header->generation));
	json_add_u64(element, "shift", header->shift);
}

static void node_fields(struct json_object *element, const struct format_node *node)
{
	json_add_u64(element, "level", node->level);
	json_add_u64(element, "count", le16_get(node->count));
	json_add_u64(element, "heap_start", le16_get(node->heap_start));
	json_add_u64(element, "heap_dead", le16_get(node->heap_dead));
}

static const char *role_name(unsigned role)
{
	switch (role) {
	case FORMAT_ROLE_ROOT:
		return "root";
	case FORMAT_ROLE_CHUNK_TABLE:
		return "chunk_table";
	case FORMAT_ROLE_CHUNK_HEADER:
		return "chunk_header";
	case FORMAT_ROLE_NODE:
		return "node";
	}
	return "unknown";
}

struct json_object *dump_render_block(const struct dump_block *block, int error)
{
	const struct format_block_header *header = (const struct format_block_header *)block->bytes;
	struct json_object *element = element_make("block");

	if (!element)
		return NULL;
	json_add_u64(element, "address", block->address);
	element_copies(element, block);
	if (error)
		return element;
	json_add_text(element, "from", block->from);
	json_add_text(element, "role", role_name(header->role));
	if (header->role == FORMAT_ROLE_NODE)
		json_add_text(element, "tree", format_tree_name(header->tree));
	json_add_u64(element, "sequence", le64_get(header->sequence));
	if (header->role == FORMAT_ROLE_NODE)
		node_fields(element, (const struct format_node *)block->bytes);
	if (header->role == FORMAT_ROLE_CHUNK_HEADER)
		chunk_header_fields(element, (const struct format_chunk_header *)block->bytes);
	return element;
}

static int emit_records(const struct dump_request *request, const struct dump_block *block)
{
	const struct format_node *node = (const struct format_node *)block->bytes;
	struct btree_ops ops = {.tree = node->header.tree, .key_words = dump_key_words(node->header.tree)};
	const char *field;
	int error = 0;

	if (node_verify(node, &ops, &field)) {
		struct json_object *element = element_make("damaged_node");

		if (element)
			json_add_text(element, "wrong", field);
		return element_emit(request, element);
	}
	for (unsigned i = 0; i < node_count(node) && !error; i++) {
		struct btree_key key;
		size_t length;
		const void *value = node_value(node, i, &length);

		node_key(node, i, &key);
		error = element_emit(request, dump_render_record(node->header.tree, node->level, &key, value, length, request->raw));
	}
	return error;
}

static int emit_entries(const struct dump_request *request, const struct dump_block *block)
{
	const struct format_chunk_table_block *table = (const struct format_chunk_table_block *)block->bytes;
	uint64_t first = (block->address - MADDR_TABLE) * CHUNK_ENTRIES_PER_BLOCK;
	int error = 0;

	for (unsigned i = 0; i < CHUNK_ENTRIES_PER_BLOCK && !error; i++) {
		struct chunk_entry entry;
		const char *field;

		if (!format_chunk_entry_unpack(&entry, &table->entries[i], &field) && entry.state != FORMAT_CHUNK_FREE)
			error = element_emit(request, dump_render_entry(first + i, &entry));
	}
	return error;
}

/* The block itself, then what is in it. */
static int show_block(const struct dump_request *request, const struct dump_block *block, int unread)
{
	const struct format_block_header *header = (const struct format_block_header *)block->bytes;
	struct json_object *element = dump_render_block(block, unread);
	int error;

	if (element && request->raw)
		element_hex(element, "raw", block->bytes, BLOCK_BYTES);
	error = element_emit(request, element);
	if (error || unread)
		return error;
	if (header->role == FORMAT_ROLE_NODE)
		return emit_records(request, block);
	return header->role == FORMAT_ROLE_CHUNK_TABLE ? emit_entries(request, block) : 0;
}

int dump_block(struct dump *dump, const struct dump_request *request, struct why *why)
{
	struct dump_block block;
	int error = dump_read_block(dump, request->number, &block);

	if (error == -ENOENT)
		return why_set(why, error, "there is no metadata block %llu: mendctl dump SRC chunks says which there are",
			       (unsigned long long)request->number);
	if (!block.copy[0].state)
		return why_set(why, error,
			       "metadata block %llu cannot be found: the chunk table, which says where, cannot be read; try device-offset",
			       (unsigned long long)request->number);
	if (error)
		dump_read_raw(dump, block.copy[0].offset, block.bytes, BLOCK_BYTES);
	return show_block(request, &block, error);
}

/* --- a place of the device ----------------------------------------------------------------------------------------------------- */

static int emit_owner(void *arg, const struct fs_owner *owner)
{
	static const struct render_names none = {.error = "not looked up"};
	struct json_object *element = render_owner(owner, owner->kind == FS_OWNER_DATA ? &none : NULL);

	if (!element)
		return -ENOMEM;
	json_object_object_del(element, "paths");
	json_object_object_del(element, "paths_error");
	json_add_text(element, "type", "owner");
	return element_emit(arg, element);
}

/* What is there by its own header, whoever owns it. */
static int emit_place(struct dump *dump, const struct dump_request *request, devoff_t offset)
{
	struct dump_block block = {0};
	const struct format_block_header *header = (const struct format_block_header *)block.bytes;
	struct json_object *element;

	if (dump_read_raw(dump, offset, block.bytes, BLOCK_BYTES)) {
		element = element_make("poisoned");
		if (element)
			json_add_u64(element, "device_offset", offset);
		return element_emit(request, element);
	}
	if (le32_get(header->magic) == FORMAT_BLOCK_MAGIC &&
	    !memcmp(header->meta_uuid, dump->super.meta_uuid, FORMAT_UUID_BYTES)) {
		struct dump_copy *copy = &block.copy[0];

		block.address = le64_get(header->address);
		block.from = "device";
		copy->offset = offset;
		copy->sequence = le64_get(header->sequence);
		copy->error = format_block_verify(block.bytes, dump->super.meta_uuid, block.address, &copy->field);
		copy->state = copy->error ? "damaged" : "whole";
		return show_block(request, &block, copy->error);
	}
	if (!request->raw)
		return 0;
	element = element_make("bytes");
	if (!element)
		return -ENOMEM;
	json_add_u64(element, "device_offset", offset);
	element_hex(element, "raw", block.bytes, BLOCK_BYTES);
	return element_emit(request, element);
}

int dump_device_offset(struct dump *dump, const struct dump_request *request, struct why *why)
{
	struct json_object *element;
	int error = 0;

	if (request->number >= media_size(dump->media))
		return why_set(why, -ERANGE, "%llu is outside the device, which has %llu bytes", (unsigned long long)request->number,
			       (unsigned long long)media_size(dump->media));
	if (dump->fs)
		error = fs_owners(dump->fs, request->number, 1, emit_owner, (void *)request);
	if (error < 0) {
		element = element_make("owner");
		if (element)
			json_add_text(element, "wrong", "the trees that say whose it is cannot be read");
		error = element_emit(request, element);
	}
	return error ? error : emit_place(dump, request, round_down_u64(request->number, BLOCK_BYTES));
}
