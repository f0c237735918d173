#include "notify/event.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define SUBSCRIBERS_MAX 256
#define EARLY_EVENTS_MAX 1024

struct event_subscriber {
	struct event_bus *bus;
	struct event_subscriber *next;
	struct event **ring; /* room for limit events, and one LOST more */
	size_t limit, head, count;
	uint64_t lost; /* published since the ring was full, not yet told */
	int fd;
};

struct event_bus {
	pthread_mutex_t lock; /* a leaf: nothing is called under it but malloc */
	struct event_subscriber *subscribers;
	size_t count_subscribers;
	/* Before the first subscriber: */
	struct event **early;
	size_t count_early;
	uint64_t early_lost;
	bool is_settled;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int event_bus_create(struct event_bus **out)
{
	struct event_bus *bus = calloc(1, sizeof(*bus));

	if (!bus)
		return -ENOMEM;
	pthread_mutex_init(&bus->lock, NULL);
	*out = bus;
	return 0;
}

static void bus_drop_early(struct event_bus *bus)
{
	for (size_t i = 0; i < bus->count_early; i++)
		event_free(bus->early[i]);
	free(bus->early);
	bus->early = NULL;
	bus->count_early = 0;
	bus->early_lost = 0;
}

void event_bus_destroy(struct event_bus *bus)
{
	if (!bus)
		return;
	bus_drop_early(bus);
	pthread_mutex_destroy(&bus->lock);
	free(bus);
}

static void ring_push(struct event_subscriber *sub, struct event *event)
{
	sub->ring[(sub->head + sub->count) % (sub->limit + 1)] = event;
	sub->count++;
}

/* The LOST event takes its place in the order: after what was queued before the loss, before what
 * comes after. */
static struct event *lost_event(struct event_subscriber *sub)
{
	struct event lost = {.type = EVENT_LOST, .time_ns = now_ns(), .count = sub->lost};
	struct event *event = event_copy(&lost);

	if (event)
		sub->lost = 0;
	return event;
}

static bool subscriber_note_loss(struct event_subscriber *sub)
{
	struct event *lost;

	if (sub->lost == 0)
		return true;
	lost = lost_event(sub);
	if (!lost)
		return false;
	ring_push(sub, lost);
	return true;
}

static void subscriber_deliver(struct event_subscriber *sub, const struct event *event)
{
	struct event *copy = NULL;
	const uint64_t one = 1;

	if (sub->count < sub->limit)
		copy = event_copy(event);
	if (!copy || !subscriber_note_loss(sub)) {
		event_free(copy);
		sub->lost++;
	} else {
		ring_push(sub, copy);
	}
	/* A full counter of the eventfd means that it is readable, which is all that is wanted. */
	(void)!write(sub->fd, &one, sizeof(one));
}

static void bus_keep_early(struct event_bus *bus, const struct event *event)
{
	struct event *copy = NULL;

	if (!bus->early)
		bus->early = calloc(EARLY_EVENTS_MAX, sizeof(struct event *));
	if (bus->early && bus->count_early < EARLY_EVENTS_MAX)
		copy = event_copy(event);
	if (copy)
		bus->early[bus->count_early++] = copy;
	else
		bus->early_lost++;
}

void event_publish(struct event_bus *bus, const struct event *event)
{
	struct event stamped = *event;

	if (stamped.time_ns == 0)
		stamped.time_ns = now_ns();
	pthread_mutex_lock(&bus->lock);
	for (struct event_subscriber *sub = bus->subscribers; sub; sub = sub->next)
		subscriber_deliver(sub, &stamped);
	if (!bus->subscribers && !bus->is_settled)
		bus_keep_early(bus, &stamped);
	pthread_mutex_unlock(&bus->lock);
}

void event_bus_settle(struct event_bus *bus)
{
	pthread_mutex_lock(&bus->lock);
	bus->is_settled = true;
	pthread_mutex_unlock(&bus->lock);
}

/* The first subscriber gets what nobody could have seen. */
static void bus_deliver_early(struct event_bus *bus, struct event_subscriber *sub)
{
	for (size_t i = 0; i < bus->count_early; i++)
		subscriber_deliver(sub, bus->early[i]);
	sub->lost += bus->early_lost;
	bus_drop_early(bus);
}

static int bus_add(struct event_bus *bus, struct event_subscriber *sub)
{
	int rc = -EMFILE;

	pthread_mutex_lock(&bus->lock);
	if (bus->count_subscribers < SUBSCRIBERS_MAX) {
		sub->next = bus->subscribers;
		bus->subscribers = sub;
		bus->count_subscribers++;
		bus_deliver_early(bus, sub);
		rc = 0;
	}
	pthread_mutex_unlock(&bus->lock);
	return rc;
}

int event_subscribe(struct event_bus *bus, size_t limit, struct event_subscriber **out)
{
	struct event_subscriber *sub;
	int rc;

	if (limit == 0 || limit > SIZE_MAX / sizeof(struct event *) / 2)
		return -EINVAL;
	sub = calloc(1, sizeof(*sub));
	if (!sub)
		return -ENOMEM;
	sub->bus = bus;
	sub->limit = limit;
	rc = -ENOMEM;
	sub->ring = calloc(limit + 1, sizeof(struct event *));
	if (!sub->ring)
		goto err_free;
	sub->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = -errno;
	if (sub->fd < 0)
		goto err_ring;
	rc = bus_add(bus, sub);
	if (rc)
		goto err_fd;
	*out = sub;
	return 0;
err_fd:
	close(sub->fd);
err_ring:
	free(sub->ring);
err_free:
	free(sub);
	return rc;
}

int event_subscriber_fd(const struct event_subscriber *subscriber)
{
	return subscriber->fd;
}

/* Caller holds the bus. */
static struct event *subscriber_pop(struct event_subscriber *sub)
{
	struct event *event;

	if (sub->count == 0)
		return sub->lost ? lost_event(sub) : NULL;
	event = sub->ring[sub->head];
	sub->head = (sub->head + 1) % (sub->limit + 1);
	sub->count--;
	return event;
}

struct event *event_take(struct event_subscriber *sub)
{
	struct event *event;
	uint64_t drained;

	pthread_mutex_lock(&sub->bus->lock);
	event = subscriber_pop(sub);
	if (sub->count == 0 && sub->lost == 0)
		(void)!read(sub->fd, &drained, sizeof(drained));
	pthread_mutex_unlock(&sub->bus->lock);
	return event;
}

static void bus_remove(struct event_bus *bus, struct event_subscriber *sub)
{
	struct event_subscriber **link = &bus->subscribers;

	pthread_mutex_lock(&bus->lock);
	while (*link != sub)
		link = &(*link)->next;
	*link = sub->next;
	bus->count_subscribers--;
	pthread_mutex_unlock(&bus->lock);
}

void event_unsubscribe(struct event_subscriber *sub)
{
	struct event *event;

	if (!sub)
		return;
	bus_remove(sub->bus, sub);
	while (sub->count > 0 && (event = subscriber_pop(sub)))
		event_free(event);
	close(sub->fd);
	free(sub->ring);
	free(sub);
}
