#include "control/render_event.h"

#include "control/render.h"
#include "format/poison_format.h"

enum field {
	CAUSE = 1 << 0,
	DEVICE = 1 << 1, /* device_offset */
	LEN = 1 << 2,
	SECTORS = 1 << 3,
	SOURCE = 1 << 4,
	INODE = 1 << 5,         /* inumber, pos */
	INODE_AS_SEEN = 1 << 6, /* generation, paths */
	DAMAGE = 1 << 7,        /* sharers, bytes_lost, error */
	ACTION = 1 << 8,
	TREE = 1 << 9, /* tree, copy */
	REASONS = 1 << 10,
	COUNT = 1 << 11,
	DIMM = 1 << 12,
	REPORT = 1 << 13, /* what is known of a lost block */
};

static const struct shape {
	const char *name, *domain;
	unsigned fields;
} shapes[] = {
    [EVENT_RUNNING] = {"running", "mount", 0},
    [EVENT_MEDIA_FAILURE] = {"media_failure", "datadev", CAUSE | DEVICE | LEN | SECTORS | SOURCE},
    [EVENT_FILE_DAMAGED] = {"file_damaged", "filerange",
			    CAUSE | DEVICE | LEN | INODE | INODE_AS_SEEN | DAMAGE | ACTION},
    [EVENT_METADATA_REPAIRED] = {"metadata_repaired", "fs", CAUSE | DEVICE | LEN | TREE | ACTION},
    [EVENT_METADATA_LOST] = {"metadata_lost", "fs", CAUSE | DEVICE | LEN | TREE | ACTION | REPORT},
    [EVENT_REPAIRED] = {"repaired", "filerange", LEN | INODE},
    [EVENT_UNINJECTED] = {"uninjected", "datadev", DEVICE | LEN | SECTORS},
    [EVENT_HOST_FULL] = {"host_full", "datadev", DEVICE | LEN},
    [EVENT_DIMM_HEALTH] = {"dimm_health", "datadev", DIMM},
    [EVENT_SHUTDOWN] = {"shutdown", "fs", REASONS},
    [EVENT_LOST] = {"lost", "mount", COUNT},
    [EVENT_UNMOUNT] = {"unmount", "mount", 0},
};

static int add_where(struct json_object *object, const struct event *event, unsigned fields)
{
	uint64_t first = event->device_offset / SECTOR_BYTES;
	uint64_t end = (event->device_offset + event->len + SECTOR_BYTES - 1) / SECTOR_BYTES;
	int error = 0;

	if (fields & CAUSE && event->cause_id)
		error |= json_add_u64(object, "cause_id", event->cause_id);
	if (fields & DEVICE)
		error |= json_add_u64(object, "device_offset", event->device_offset);
	if (fields & INODE) {
		error |= json_add_u64(object, "inumber", event->inumber);
		error |= json_add_u64(object, "pos", event->pos);
	}
	if (fields & LEN)
		error |= json_add_u64(object, "len", event->len);
	if (fields & SECTORS) {
		error |= json_add_u64(object, "sector", first);
		error |= json_add_u64(object, "count", end - first);
	}
	return error;
}

static int add_some_text(struct json_object *object, const char *key, const char *text)
{
	return text && *text ? json_add_text(object, key, text) : 0;
}

static int add_reasons(struct json_object *object, const char *reasons)
{
	struct json_object *array = json_object_new_array();

	if (!array)
		return -1;
	if (reasons && json_object_array_add(array, json_object_new_string(reasons)))
		goto err_put;
	return json_add(object, "reasons", array);

err_put:
	json_object_put(array);
	return -1;
}

static int add_alarms(struct json_object *object, unsigned alarms)
{
	static const char *const names[] = {"spares", "media_temperature", "controller_temperature"};
	struct json_object *array = json_object_new_array();
	int error = array ? 0 : -1;

	for (unsigned i = 0; i < ARRAY_SIZE(names) && !error; i++)
		if (alarms & 1u << i)
			error = json_object_array_add(array, json_object_new_string(names[i]));
	if (!error)
		return json_add(object, "alarms", array);
	json_object_put(array);
	return -1;
}

static int add_celsius(struct json_object *object, const char *key, int sixteenths)
{
	return json_add(object, key, json_object_new_double(sixteenths / 16.0));
}

/* What a DIMM does not tell is absent. */
static int add_dimm(struct json_object *object, const struct dimm_health *dimm)
{
	int error = json_add_text(object, "dimm", dimm->name);

	if (dimm->known & DIMM_STATE)
		error |= json_add_text(object, "health", dimm_state_name(dimm->state));
	if (dimm->known & DIMM_ALARMS)
		error |= add_alarms(object, dimm->alarms);
	if (dimm->known & DIMM_SPARES)
		error |= json_add_u64(object, "spares_percent", dimm->spares_percent);
	if (dimm->known & DIMM_SPARES_THRESHOLD)
		error |= json_add_u64(object, "spares_threshold_percent", dimm->spares_threshold_percent);
	if (dimm->known & DIMM_LIFE_USED)
		error |= json_add_u64(object, "life_used_percent", dimm->life_used_percent);
	if (dimm->known & DIMM_TEMPERATURE)
		error |= add_celsius(object, "temperature_celsius", dimm->temperature_sixteenths);
	if (dimm->known & DIMM_TEMPERATURE_THRESHOLD)
		error |= add_celsius(object, "temperature_threshold_celsius", dimm->temperature_threshold_sixteenths);
	return error;
}

static int add_file(struct json_object *array, const struct loss_file *file)
{
	struct json_object *object = json_object_new_object();
	int error = object ? 0 : -1;

	if (error)
		return error;
	error |= json_add_u64(object, "inumber", file->ino);
	error |= json_add_paths(object, file->paths, file->count_paths);
	if (!error)
		error = json_object_array_add(array, object);
	if (error)
		json_object_put(object);
	return error;
}

static int add_report(struct json_object *object, const struct loss_report *report)
{
	struct json_object *array;
	int error;

	if (!report)
		return 0;
	error = render_loss_add(object, &report->loss);
	if (error || report->count_files == 0)
		return error;
	array = json_object_new_array();
	if (!array)
		return -1;
	for (size_t i = 0; i < report->count_files; i++)
		error |= add_file(array, &report->files[i]);
	return error | json_add(object, "first_files", array);
}

static int add_what(struct json_object *object, const struct event *event, unsigned fields)
{
	int error = 0;

	if (fields & SOURCE) {
		error |= json_add_text(object, "source", failure_source_name(event->source));
		error |= json_add_u64(object, "flags", event->flags);
	}
	if (fields & INODE_AS_SEEN) {
		error |= json_add_u64(object, "generation", event->generation);
		error |= json_add_paths(object, event->paths, event->count_paths);
	}
	if (fields & DAMAGE) {
		error |= json_add_u64(object, "sharers", event->sharers);
		error |= json_add_u64(object, "bytes_lost", event->bytes_lost);
		if (event->error)
			error |= json_add_u64(object, "error", (uint64_t)event->error);
	}
	if (fields & ACTION)
		error |= add_some_text(object, "action", event->action);
	if (fields & TREE) {
		error |= add_some_text(object, "tree", event->tree);
		error |= add_some_text(object, "copy", event->copy);
	}
	if (fields & REPORT)
		error |= add_report(object, event->report);
	if (fields & REASONS)
		error |= add_reasons(object, event->reasons);
	if (fields & DIMM)
		error |= add_dimm(object, &event->dimm);
	if (fields & COUNT)
		error |= json_add_u64(object, "count", event->count);
	return error;
}

struct json_object *render_event(const struct event *event, const uint8_t *uuid,
				 const char *mountpoint)
{
	struct json_object *object;
	const struct shape *shape;
	char text[RENDER_UUID_BYTES];
	int error = 0;

	if ((unsigned)event->type >= ARRAY_SIZE(shapes))
		return NULL;
	object = json_object_new_object();
	if (!object)
		return NULL;
	shape = &shapes[event->type];
	render_uuid(uuid, text);
	error |= json_add_u64(object, "version", JSON_VERSION);
	error |= json_add_text(object, "type", shape->name);
	error |= json_add_u64(object, "time_ns", event->time_ns);
	error |= json_add_text(object, "domain", shape->domain);
	error |= json_add_text(object, "uuid", text);
	error |= add_some_text(object, "mountpoint", mountpoint);
	error |= add_where(object, event, shape->fields);
	error |= add_what(object, event, shape->fields);
	if (!error)
		return object;
	json_object_put(object);
	return NULL;
}
