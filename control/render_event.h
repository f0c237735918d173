/* Each event as a JSON object (docs/JSON.md). */
#ifndef CONTROL_RENDER_EVENT_H
#define CONTROL_RENDER_EVENT_H

#include "control/json.h"
#include "notify/event.h"

/* The caller puts the object. mountpoint NULL: not mounted. NULL: out of memory, or an event that
 * has no name. */
struct json_object *render_event(const struct event *event, const uint8_t *uuid,
				 const char *mountpoint);

#endif
