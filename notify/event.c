#include "notify/event.h"

#include <stdlib.h>
#include <string.h>

static const char *const type_names[] = {
    [EVENT_RUNNING] = "running",
    [EVENT_MEDIA_FAILURE] = "media_failure",
    [EVENT_FILE_DAMAGED] = "file_damaged",
    [EVENT_METADATA_REPAIRED] = "metadata_repaired",
    [EVENT_METADATA_LOST] = "metadata_lost",
    [EVENT_REPAIRED] = "repaired",
    [EVENT_UNINJECTED] = "uninjected",
    [EVENT_HOST_FULL] = "host_full",
    [EVENT_DIMM_HEALTH] = "dimm_health",
    [EVENT_SHUTDOWN] = "shutdown",
    [EVENT_LOST] = "lost",
    [EVENT_UNMOUNT] = "unmount",
};

const char *event_type_name(enum event_type type)
{
	return (size_t)type < ARRAY_SIZE(type_names) ? type_names[type] : "unknown";
}

void event_fini(struct event *event)
{
	for (size_t i = 0; i < event->count_paths; i++)
		free(event->paths[i]);
	free(event->paths);
	event->paths = NULL;
	event->count_paths = 0;
	loss_report_free(event->report);
	event->report = NULL;
}

void event_free(struct event *event)
{
	if (!event)
		return;
	event_fini(event);
	free(event);
}

static int event_copy_paths(struct event *to, const struct event *from)
{
	to->paths = NULL;
	to->count_paths = 0;
	if (from->count_paths == 0)
		return 0;
	to->paths = calloc(from->count_paths, sizeof(*to->paths));
	if (!to->paths)
		return -1;
	for (size_t i = 0; i < from->count_paths; i++) {
		to->paths[i] = strdup(from->paths[i]);
		if (!to->paths[i])
			return -1;
		to->count_paths = i + 1;
	}
	return 0;
}

struct event *event_copy(const struct event *event)
{
	struct event *copy = malloc(sizeof(*copy));

	if (!copy)
		return NULL;
	*copy = *event;
	copy->report = event->report ? loss_report_copy(event->report) : NULL;
	if (event_copy_paths(copy, event) == 0 && !copy->report == !event->report)
		return copy;
	event_free(copy);
	return NULL;
}
