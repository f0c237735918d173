/* What subscribers are told (CONTRACT: docs/JSON.md), as structs; control/ turns them into JSON. */
#ifndef NOTIFY_EVENT_H
#define NOTIFY_EVENT_H

#include "format/record_format.h"
#include "notify/health.h"
#include "notify/loss.h"
#include "util/types.h"

enum event_type {
	EVENT_RUNNING,
	EVENT_MEDIA_FAILURE,
	EVENT_FILE_DAMAGED,
	EVENT_METADATA_REPAIRED,
	EVENT_METADATA_LOST,
	EVENT_REPAIRED,
	EVENT_UNINJECTED,
	EVENT_HOST_FULL,
	EVENT_DIMM_HEALTH,
	EVENT_SHUTDOWN,
	EVENT_LOST,
	EVENT_UNMOUNT,
};

struct event { /* which fields apply: docs/JSON.md; has_* for those whose 0 is a value */
	enum event_type type;
	uint64_t time_ns;
	uint64_t cause_id;
	devoff_t device_offset;
	uint64_t len;
	unsigned source; /* enum failure_source */
	uint32_t flags;
	inum_t inumber;
	uint32_t generation;
	uint64_t pos;
	char **paths; /* count_paths strings, any bytes but NUL, each begins with '/' */
	size_t count_paths;
	uint64_t sharers;
	const char *action; /* static: "eio", "none", "rewritten", ... */
	uint64_t bytes_lost;
	int error; /* positive errno */
	const char *tree;
	const char *copy; /* "primary", "replica" */
	const char *reasons; /* "device_removed", "metadata_lost", "log_error", ... */
	uint64_t count; /* of EVENT_LOST */
	struct dimm_health dimm; /* of EVENT_DIMM_HEALTH */
	struct loss_report *report; /* of EVENT_METADATA_LOST; may be NULL */
};

/* A set of subscribers, each with a bounded queue that ends in a LOST event with a count; publishing never blocks. Thread-safe. */
struct event_bus;
struct event_subscriber;

int event_bus_create(struct event_bus **out);
/* Every subscriber has unsubscribed. */
void event_bus_destroy(struct event_bus *bus);
/* Copies the event (paths and report included). Fills time_ns when 0. */
void event_publish(struct event_bus *bus, const struct event *event);
/*
 * What mount found and did before anybody could subscribe is kept (bounded) for the first subscriber; called when that is over, after which events
 * without a subscriber are gone.
 */
void event_bus_settle(struct event_bus *bus);
/* eventfd becomes readable when there is something to take. -EMFILE beyond 256 subscribers. */
int event_subscribe(struct event_bus *bus, size_t limit, struct event_subscriber **out);
int event_subscriber_fd(const struct event_subscriber *subscriber);
/* The next event (owned by the caller, event_free()), or NULL. */
struct event *event_take(struct event_subscriber *subscriber);
void event_unsubscribe(struct event_subscriber *subscriber);
void event_free(struct event *event);
/* A deep copy, or NULL. */
struct event *event_copy(const struct event *event);
void event_fini(struct event *event); /* of an event on the stack: its paths and report */
const char *event_type_name(enum event_type type); /* "media_failure", ... as in the contract */

#endif
