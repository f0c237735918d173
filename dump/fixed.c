/* Superblock slots, root block, poison log. */
#include "dump/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "format/poison_format.h"

/* --- superblock ---------------------------------------------------------------------------------------------------------------- */

static void super_areas(struct json_object *element, const struct super *super)
{
	for (unsigned i = 0; i < AREA_COUNT; i++) {
		const struct area *area = &super->areas[i];
		struct json_object *member = area->length_bytes ? json_object_new_object() : NULL;

		if (!member)
			continue;
		json_add_text(member, "area", format_area_name(i));
		json_add_u64(member, "primary", area->copy[0]);
		if (area->copy[1])
			json_add_u64(member, "replica", area->copy[1]);
		json_add_u64(member, "len", area->length_bytes);
		element_list(element, "areas", member);
	}
}

static void super_fields(struct json_object *element, const struct super *super)
{
	element_uuid(element, "meta_uuid", super->meta_uuid);
	element_uuid(element, "uuid", super->uuid);
	if (super->label[0])
		element_bytes(element, "label", super->label, strlen(super->label));
	json_add_u64(element, "update", super->update);
	json_add_u64(element, "size_bytes", super->size_bytes);
	json_add_u64(element, "compat", super->compat);
	json_add_u64(element, "ro_compat", super->ro_compat);
	json_add_u64(element, "incompat", super->incompat);
	json_add_u64(element, "chunk_shift", super->chunk_shift);
	json_add_u64(element, "metadata_copies", super->copies);
	json_add_u64(element, "slots", super->slots);
	element_hex(element, "hash_seed", super->hash_seed, sizeof(super->hash_seed));
	json_add_u64(element, "mkfs_time_ns", super->mkfs_time_ns);
	element_bytes(element, "mkfs_version", super->mkfs_version, strlen(super->mkfs_version));
	json_add_u64(element, "scrub_cursor", super->scrub_cursor);
	super_areas(element, super);
}

static int super_slot(struct dump *dump, const struct dump_request *request, unsigned slot)
{
	struct json_object *element = element_make("superblock");
	struct format_super raw;
	struct super super;
	struct why why = {.text = ""};
	int error;

	if (!element)
		return -ENOMEM;
	json_add_u64(element, "slot", slot);
	json_add_u64(element, "device_offset", super_slot_offset(slot));
	error = media_read(dump->media, super_slot_offset(slot), &raw, sizeof(raw), NULL);
	if (!error)
		error = format_super_unpack(&super, &raw, &why);
	json_add_text(element, "state", !error ? "whole" : error == -EIO ? "poisoned" : "damaged");
	if (error && why.text[0])
		json_add_text(element, "wrong", why.text);
	if (!error) {
		json_add_bool(element, "used", super.slots >> slot & 1);
		super_fields(element, &super);
	}
	if (request->raw && error != -EIO)
		element_hex(element, "raw", &raw, sizeof(raw));
	return element_emit(request, element);
}

int dump_super(struct dump *dump, const struct dump_request *request, struct why *why)
{
	unsigned first = request->has_number ? (unsigned)min_u64(request->number, SUPER_SLOTS) : 0;
	unsigned end = request->has_number ? first + 1 : SUPER_SLOTS;
	int error = 0;

	if (first >= SUPER_SLOTS || super_slot_offset(first) + BLOCK_BYTES > media_size(dump->media))
		return why_set(why, -ERANGE, "there is no superblock slot %llu: they are 0 to %u",
			       (unsigned long long)request->number, SUPER_SLOTS - 1);
	for (unsigned slot = first; slot < end && !error; slot++)
		if (super_slot_offset(slot) + BLOCK_BYTES <= media_size(dump->media))
			error = super_slot(dump, request, slot);
	return error;
}

/* --- root ---------------------------------------------------------------------------------------------------------------------- */

static const char *const counter_names[] = {
	[ROOT_NEXT_INO] = "next_inode",
	[ROOT_INODES] = "inodes",
	[ROOT_FREE_BLOCKS] = "free_blocks",
	[ROOT_QUARANTINED_BLOCKS] = "quarantined_blocks",
	[ROOT_CHUNKS] = "chunks",
	[ROOT_META_BLOCKS] = "metadata_blocks",
	[ROOT_META_FREE] = "free_metadata_blocks",
	[ROOT_CHUNKS_FREEING] = "chunks_freeing",
	[ROOT_ORPHANS] = "orphans",
	[ROOT_INTENTS] = "intents",
	[ROOT_NEXT_INTENT] = "next_intent",
	[ROOT_NEXT_CAUSE] = "next_cause",
	[ROOT_BADBLOCK_BYTES] = "badblock_bytes",
	[ROOT_LOST_BYTES] = "lost_bytes",
	[ROOT_MOUNTS] = "mounts",
	[ROOT_SIGBUS] = "sigbus",
	[ROOT_FLAGS] = "flags",
	[ROOT_POISON_LOG_TAIL] = "poison_log_tail",
	[ROOT_SIZE_BLOCKS] = "size_blocks",
	[ROOT_UNSAFE_SHUTDOWNS] = "unsafe_shutdowns",
};

static void root_fields(struct json_object *element, const struct format_root *root)
{
	for (unsigned tree = 1; tree < FORMAT_TREE_COUNT; tree++) {
		struct json_object *member = le64_get(root->trees[tree].address) ? json_object_new_object() : NULL;

		if (!member)
			continue;
		json_add_text(member, "tree", format_tree_name(tree));
		json_add_u64(member, "address", le64_get(root->trees[tree].address));
		json_add_u64(member, "level", root->trees[tree].level);
		element_list(element, "trees", member);
	}
	for (unsigned i = 0; i < ROOT_COUNTERS; i++) {
		struct json_object *member;

		if (i >= ARRAY_SIZE(counter_names) && !le64_get(root->counters[i]))
			continue;
		member = json_object_new_object();
		json_add_text(member, "counter", i < ARRAY_SIZE(counter_names) ? counter_names[i] : "reserved");
		json_add_u64(member, "value", le64_get(root->counters[i]));
		element_list(element, "counters", member);
	}
}

int dump_root(struct dump *dump, const struct dump_request *request, struct why *why)
{
	struct dump_block block;
	int error = dump_read_block(dump, MADDR_ROOT, &block);
	struct json_object *element = element_make("root");

	if (!element)
		return -ENOMEM;
	element_copies(element, &block);
	if (!error) {
		json_add_text(element, "from", block.from);
		root_fields(element, (const struct format_root *)block.bytes);
	}
	if (request->raw)
		element_hex(element, "raw", block.bytes, BLOCK_BYTES);
	return element_emit(request, element);
}

/* --- poison log ---------------------------------------------------------------------------------------------------------------- */

static int poison_slot(struct dump *dump, const struct dump_request *request, unsigned slot)
{
	struct format_poison_entry raw[2];
	struct poison_entry entry, found = {0};
	struct json_object *element;
	unsigned whole = 0;

	for (unsigned k = 0; k < 2; k++) {
		devoff_t offset = dump->super.areas[AREA_POISON_LOG].copy[k] + slot * sizeof(raw[0]);

		if (media_read(dump->media, offset, &raw[k], sizeof(raw[k]), NULL) ||
		    format_poison_entry_unpack(&entry, &raw[k], dump->super.meta_uuid))
			continue;
		if (!whole || entry.sequence > found.sequence)
			found = entry;
		whole |= 1u << k;
	}
	if (!whole)
		return 0;
	element = element_make("poison_entry");
	if (!element)
		return -ENOMEM;
	json_add_u64(element, "slot", slot);
	json_add_text(element, "copies", whole == 3 ? "both" : whole == 1 ? "primary" : "replica");
	json_add_u64(element, "sequence", found.sequence);
	json_add_u64(element, "device_offset", found.offset);
	json_add_u64(element, "len", found.length_bytes);
	json_add_text(element, "state", badblock_state_name(found.state));
	json_add_text(element, "source", failure_source_name(found.source));
	json_add_u64(element, "time_ns", found.time_ns);
	json_add_u64(element, "cause_id", found.cause_id);
	if (request->raw)
		element_hex(element, "raw", &raw[whole == 2], sizeof(raw[0]));
	return element_emit(request, element);
}

int dump_poison_log(struct dump *dump, const struct dump_request *request, struct why *why)
{
	int error = 0;

	for (unsigned slot = 0; slot < POISON_LOG_SLOTS && !error; slot++)
		error = poison_slot(dump, request, slot);
	return error;
}
