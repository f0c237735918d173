#include "control/render.h"

#include <stdio.h>
#include <string.h>

#include "format/poison_format.h"

/* Builders add with |=: any failure leaves a nonzero sum and no object. */
static struct json_object *render_end(struct json_object *object, int error)
{
	if (!error)
		return object;
	json_object_put(object);
	return NULL;
}

void render_uuid(const uint8_t *uuid, char text[RENDER_UUID_BYTES])
{
	char *to = text;

	for (int i = 0; i < FORMAT_UUID_BYTES; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*to++ = '-';
		to += sprintf(to, "%02x", uuid[i]);
	}
}

static int add_uuid(struct json_object *object, const uint8_t *uuid)
{
	char text[RENDER_UUID_BYTES];

	render_uuid(uuid, text);
	return json_add_text(object, "uuid", text);
}

static int add_some_text(struct json_object *object, const char *key, const char *text)
{
	return text && *text ? json_add_text(object, key, text) : 0;
}

/* 512-byte units beside the bytes; what is stored is rounded to them already. */
static int add_sectors(struct json_object *object, devoff_t offset, uint64_t length_bytes)
{
	uint64_t first = offset / SECTOR_BYTES;
	uint64_t end = offset + length_bytes;

	return json_add_u64(object, "sector", first) |
	       json_add_u64(object, "count", (end + SECTOR_BYTES - 1) / SECTOR_BYTES - first);
}

int render_loss_add(struct json_object *object, const struct meta_loss *loss)
{
	int error = 0;

	if (loss->is_node)
		error |= json_add_u64(object, "level", loss->level);
	if (loss->has_inodes) {
		error |= json_add_u64(object, "first_inumber", loss->first_ino);
		error |= json_add_u64(object, "last_inumber", loss->last_ino);
	}
	if (loss->covers_bytes) {
		error |= json_add_u64(object, "covers_offset", loss->covers_offset);
		error |= json_add_u64(object, "covers_len", loss->covers_bytes);
	}
	if (loss->has_files)
		error |= json_add_u64(object, "files", loss->count_files);
	if (loss->has_more_files)
		error |= json_add_bool(object, "files_more", true);
	return error | add_some_text(object, "advice", loss->advice);
}

static int add_loss(struct json_object *array, const struct meta_loss *loss)
{
	struct json_object *object = json_object_new_object();
	int error = object ? 0 : -1;

	if (error)
		return error;
	error |= json_add_u64(object, "device_offset", loss->device_offset);
	error |= json_add_text(object, "tree", loss->tree);
	error |= render_loss_add(object, loss);
	if (!error)
		error = json_object_array_add(array, object);
	if (error)
		json_object_put(object);
	return error;
}

/* Only where something is lost. */
static int add_losses(struct json_object *object, const struct fs_summary *summary)
{
	struct json_object *array;
	int error = 0;

	if (!summary->lost_blocks)
		return 0;
	array = json_object_new_array();
	if (!array)
		return -1;
	for (size_t i = 0; i < summary->count_losses; i++)
		error |= add_loss(array, &summary->losses[i]);
	error |= json_add(object, "lost_metadata", array);
	return error | json_add_u64(object, "lost_metadata_blocks", summary->lost_blocks);
}

struct json_object *render_filesystem(const struct super *super, const struct fs_summary *summary,
				      const struct render_place *place)
{
	struct json_object *object = json_object_new_object();
	int error = object ? 0 : -1;

	if (error)
		return NULL;
	error |= add_uuid(object, super->uuid);
	error |= add_some_text(object, "label", super->label);
	error |= add_some_text(object, "device", place->device);
	error |= add_some_text(object, "mountpoint", place->mountpoint);
	error |= json_add_text(object, "state", summary->state);
	error |= add_some_text(object, "state_reason", summary->state_reason);
	error |= add_losses(object, summary);
	error |= json_add_u64(object, "size_bytes", summary->size_bytes);
	error |= json_add_u64(object, "free_bytes", summary->free_bytes);
	error |= json_add_u64(object, "badblock_bytes", summary->badblock_bytes);
	error |= json_add_u64(object, "quarantined_bytes", summary->quarantined_bytes);
	error |= json_add_u64(object, "damaged_files", summary->damaged_files);
	error |= json_add_u64(object, "sigbus_count", summary->sigbus_count);
	error |= add_some_text(object, "kernel_badblocks", summary->kernel_badblocks);
	error |= add_some_text(object, "kernel_badblocks_reason", summary->kernel_badblocks_why.text);
	error |= add_some_text(object, "hardware_scrub", summary->hardware_scrub);
	error |= add_some_text(object, "transport", place->transport);
	return render_end(object, error);
}

struct json_object *render_extent(const struct fs_map_extent *extent)
{
	struct json_object *object = json_object_new_object();
	int error = 0;

	if (!object)
		return NULL;
	error |= json_add_u64(object, "pos", extent->pos);
	error |= json_add_u64(object, "len", extent->length_bytes);
	error |= json_add_u64(object, "device_offset", extent->device_offset);
	error |= json_add_bool(object, "shared", extent->shared);
	error |= json_add_bool(object, "written", extent->written);
	return render_end(object, error);
}

static int add_copy(struct json_object *object, const struct fs_owner *owner)
{
	int error = 0;

	if (owner->copy == 0 || owner->copy == 1)
		error |= json_add_text(object, "copy", owner->copy ? "replica" : "primary");
	if (owner->has_peer)
		error |= json_add_u64(object, "peer_offset", owner->peer_offset);
	error |= add_some_text(object, "tree", owner->tree);
	return error | json_add_bool(object, "live", owner->live);
}

static bool kind_has_copies(enum fs_owner_kind kind)
{
	return kind == FS_OWNER_METADATA || kind == FS_OWNER_JOURNAL || kind == FS_OWNER_SUPERBLOCK;
}

static int add_names(struct json_object *object, const struct render_names *names)
{
	if (names->error)
		return json_add_paths(object, NULL, 0) |
		       json_add_text(object, "paths_error", names->error);
	return json_add_u64(object, "generation", names->generation) |
	       json_add_paths(object, names->paths, names->count);
}

struct json_object *render_owner(const struct fs_owner *owner, const struct render_names *names)
{
	struct json_object *object = json_object_new_object();
	int error = 0;

	if (!object)
		return NULL;
	error |= json_add_text(object, "kind", fs_owner_kind_name(owner->kind));
	error |= json_add_u64(object, "device_offset", owner->device_offset);
	error |= json_add_u64(object, "len", owner->length_bytes);
	if (owner->kind == FS_OWNER_DATA) {
		error |= json_add_u64(object, "inumber", owner->ino);
		error |= json_add_u64(object, "pos", owner->pos);
		error |= add_names(object, names);
	}
	if (kind_has_copies(owner->kind))
		error |= add_copy(object, owner);
	return render_end(object, error);
}

struct json_object *render_badblock(const struct badblock_record *record)
{
	struct json_object *object = json_object_new_object();
	int error = 0;

	if (!object)
		return NULL;
	error |= json_add_u64(object, "device_offset", record->offset);
	error |= json_add_u64(object, "len", record->length_bytes);
	error |= add_sectors(object, record->offset, record->length_bytes);
	error |= json_add_text(object, "state", badblock_state_name(record->state));
	error |= json_add_text(object, "source", failure_source_name(record->source));
	if (record->since_ns)
		error |= json_add_u64(object, "since_ns", record->since_ns);
	if (record->cause_id)
		error |= json_add_u64(object, "cause_id", record->cause_id);
	if (record->count)
		error |= json_add_u64(object, "reports", record->count);
	return render_end(object, error);
}

struct json_object *render_range(devoff_t device_offset, uint64_t length_bytes)
{
	struct json_object *object = json_object_new_object();

	if (!object)
		return NULL;
	return render_end(object, json_add_u64(object, "device_offset", device_offset) |
				      json_add_u64(object, "len", length_bytes));
}

struct json_object *render_damaged(inum_t ino, const struct render_names *names)
{
	struct json_object *object = json_object_new_object();
	int error = 0;

	if (!object)
		return NULL;
	error |= json_add_u64(object, "inumber", ino);
	error |= add_names(object, names);
	error |= json_add(object, "ranges", json_object_new_array());
	error |= json_add(object, "cause_ids", json_object_new_array());
	return render_end(object, error);
}

static int append(struct json_object *array, struct json_object *value)
{
	if (value && !json_object_array_add(array, value))
		return 0;
	json_object_put(value);
	return -1;
}

int render_damage_add(struct json_object *damaged, const struct fs_damage *damage)
{
	struct json_object *causes = json_object_object_get(damaged, "cause_ids");
	struct json_object *range = json_object_new_object();
	size_t count = json_object_array_length(causes);
	int error = 0;

	if (!range)
		return -1;
	error |= json_add_u64(range, "pos", damage->pos);
	error |= json_add_u64(range, "len", damage->length_bytes);
	error |= append(json_object_object_get(damaged, "ranges"), range);
	if (!damage->cause_id)
		return error;
	if (!count || json_object_get_uint64(json_object_array_get_idx(causes, count - 1)) !=
			  damage->cause_id)
		error |= append(causes, json_object_new_uint64(damage->cause_id));
	return error;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = json_object_get_uint64(*(struct json_object *const *)a);
	uint64_t y = json_object_get_uint64(*(struct json_object *const *)b);

	return (x > y) - (x < y);
}

int render_damage_end(struct json_object *damaged)
{
	struct json_object *causes = json_object_object_get(damaged, "cause_ids");
	struct json_object *unique = json_object_new_array();
	uint64_t last = 0; /* never a cause */
	int error = 0;

	if (!unique)
		return -1;
	json_object_array_sort(causes, compare_u64);
	for (size_t i = 0; i < json_object_array_length(causes); i++) {
		struct json_object *cause = json_object_array_get_idx(causes, i);

		if (json_object_get_uint64(cause) != last)
			error |= append(unique, json_object_get(cause));
		last = json_object_get_uint64(cause);
	}
	return error | json_object_object_add(damaged, "cause_ids", unique);
}
