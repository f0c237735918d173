#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "notify/event.h"

static struct event_bus *bus;

static void setup(void)
{
	ck_assert_int_eq(event_bus_create(&bus), 0);
}

static void teardown(void)
{
	event_bus_destroy(bus);
}

static struct event_subscriber *subscribe(size_t limit)
{
	struct event_subscriber *sub = NULL;

	ck_assert_int_eq(event_subscribe(bus, limit, &sub), 0);
	return sub;
}

static void publish(uint64_t cause_id)
{
	const struct event event = {.type = EVENT_MEDIA_FAILURE, .cause_id = cause_id};

	event_publish(bus, &event);
}

static bool is_readable(const struct event_subscriber *sub)
{
	struct pollfd fd = {.fd = event_subscriber_fd(sub), .events = POLLIN};

	return poll(&fd, 1, 0) == 1;
}

static void expect_cause(struct event_subscriber *sub, uint64_t cause_id)
{
	struct event *event = event_take(sub);

	ck_assert_ptr_nonnull(event);
	ck_assert_int_eq(event->type, EVENT_MEDIA_FAILURE);
	ck_assert_uint_eq(event->cause_id, cause_id);
	event_free(event);
}

static void expect_lost(struct event_subscriber *sub, uint64_t count)
{
	struct event *event = event_take(sub);

	ck_assert_ptr_nonnull(event);
	ck_assert_int_eq(event->type, EVENT_LOST);
	ck_assert_uint_eq(event->count, count);
	ck_assert_uint_ne(event->time_ns, 0);
	event_free(event);
}

START_TEST(every_subscriber_gets_every_event_in_order)
{
	struct event_subscriber *a = subscribe(8), *b = subscribe(8);

	for (uint64_t i = 1; i <= 5; i++)
		publish(i);
	for (uint64_t i = 1; i <= 5; i++) {
		expect_cause(a, i);
		expect_cause(b, i);
	}
	ck_assert_ptr_null(event_take(a));
	event_unsubscribe(a);
	event_unsubscribe(b);
}
END_TEST

START_TEST(an_event_is_copied_with_its_paths)
{
	char name[] = "/a", *paths[] = {name, name};
	struct event event = {.type = EVENT_FILE_DAMAGED, .paths = paths, .count_paths = 2};
	struct event_subscriber *sub = subscribe(4);
	struct event *got;

	event_publish(bus, &event);
	name[1] = 'z';
	got = event_take(sub);
	ck_assert_uint_eq(got->count_paths, 2);
	ck_assert_str_eq(got->paths[1], "/a");
	ck_assert_uint_ne(got->time_ns, 0);
	event_free(got);
	event_unsubscribe(sub);
}
END_TEST

START_TEST(an_event_is_copied_with_its_report)
{
	char first[] = "/a", second[] = "/b";
	char *paths[] = {first, second};
	struct loss_report report = {
	    .loss = {.tree = "inodes", .has_inodes = true, .first_ino = 5, .last_ino = 9, .count_files = 2},
	    .files = {{.ino = 5, .paths = paths, .count_paths = 2}, {.ino = 7}},
	    .count_files = 2,
	};
	const struct event lost = {.type = EVENT_METADATA_LOST, .tree = "inodes", .report = &report};
	struct event_subscriber *sub = subscribe(2);
	struct event *event;

	event_publish(bus, &lost);
	first[1] = 'x';
	report.count_files = 0;
	event = event_take(sub);
	ck_assert_ptr_nonnull(event);
	ck_assert_ptr_ne(event->report, &report);
	ck_assert_uint_eq(event->report->loss.last_ino, 9);
	ck_assert_uint_eq(event->report->count_files, 2);
	ck_assert_uint_eq(event->report->files[0].count_paths, 2);
	ck_assert_str_eq(event->report->files[0].paths[0], "/a");
	ck_assert_str_eq(event->report->files[0].paths[1], "/b");
	ck_assert_uint_eq(event->report->files[1].ino, 7);
	ck_assert_uint_eq(event->report->files[1].count_paths, 0);
	event_free(event);
	event_unsubscribe(sub);
}
END_TEST

START_TEST(the_descriptor_is_readable_exactly_while_there_is_something_to_take)
{
	struct event_subscriber *sub = subscribe(4);

	ck_assert(!is_readable(sub));
	publish(1);
	publish(2);
	ck_assert(is_readable(sub));
	expect_cause(sub, 1);
	ck_assert(is_readable(sub));
	expect_cause(sub, 2);
	ck_assert(!is_readable(sub));
	event_unsubscribe(sub);
}
END_TEST

START_TEST(a_full_queue_ends_in_lost_with_the_count)
{
	struct event_subscriber *sub = subscribe(3);

	for (uint64_t i = 1; i <= 10; i++)
		publish(i);
	for (uint64_t i = 1; i <= 3; i++)
		expect_cause(sub, i);
	ck_assert(is_readable(sub));
	expect_lost(sub, 7);
	ck_assert(!is_readable(sub));
	ck_assert_ptr_null(event_take(sub));
	event_unsubscribe(sub);
}
END_TEST

START_TEST(lost_stands_between_what_was_before_and_what_came_after)
{
	struct event_subscriber *sub = subscribe(2);

	for (uint64_t i = 1; i <= 4; i++)
		publish(i);
	expect_cause(sub, 1);
	publish(5);
	expect_cause(sub, 2);
	expect_lost(sub, 2);
	expect_cause(sub, 5);
	ck_assert_ptr_null(event_take(sub));
	event_unsubscribe(sub);
}
END_TEST

START_TEST(one_slow_subscriber_costs_the_others_nothing)
{
	struct event_subscriber *slow = subscribe(1), *quick = subscribe(4);

	for (uint64_t i = 1; i <= 100; i++) {
		publish(i);
		expect_cause(quick, i);
	}
	expect_cause(slow, 1);
	expect_lost(slow, 99);
	event_unsubscribe(slow);
	event_unsubscribe(quick);
}
END_TEST

START_TEST(subscribers_are_limited_in_number_and_their_places_come_back)
{
	struct event_subscriber *subs[256], *one_more;

	for (size_t i = 0; i < 256; i++)
		subs[i] = subscribe(1);
	ck_assert_int_eq(event_subscribe(bus, 1, &one_more), -EMFILE);
	ck_assert_int_eq(event_subscribe(bus, 0, &one_more), -EINVAL);
	event_unsubscribe(subs[100]);
	subs[100] = subscribe(1);
	for (size_t i = 0; i < 256; i++)
		event_unsubscribe(subs[i]);
}
END_TEST

#define PUBLISHERS 3
#define PER_PUBLISHER 2000
static atomic_int publishers_left;

static void *publish_many(void *arg)
{
	(void)arg;
	for (uint64_t i = 0; i < PER_PUBLISHER; i++)
		publish(i);
	atomic_fetch_sub(&publishers_left, 1);
	return NULL;
}

static uint64_t count_taken(struct event_subscriber *sub)
{
	struct event *event;
	uint64_t count = 0;

	while ((event = event_take(sub))) {
		count += event->type == EVENT_LOST ? event->count : 1;
		event_free(event);
	}
	return count;
}

START_TEST(under_threads_taken_and_lost_add_up_to_published)
{
	struct event_subscriber *sub = subscribe(16);
	pthread_t threads[PUBLISHERS];
	uint64_t count = 0;

	atomic_store(&publishers_left, PUBLISHERS);
	for (int i = 0; i < PUBLISHERS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, publish_many, NULL), 0);
	while (atomic_load(&publishers_left) > 0) {
		struct pollfd fd = {.fd = event_subscriber_fd(sub), .events = POLLIN};

		poll(&fd, 1, 10);
		count += count_taken(sub);
		event_unsubscribe(subscribe(1));
	}
	for (int i = 0; i < PUBLISHERS; i++)
		pthread_join(threads[i], NULL);
	count += count_taken(sub);
	ck_assert_uint_eq(count, PUBLISHERS * PER_PUBLISHER);
	event_unsubscribe(sub);
}
END_TEST

START_TEST(what_mount_did_is_kept_for_the_first_subscriber_only)
{
	struct event_subscriber *first, *second;

	publish(1);
	publish(2);
	event_bus_settle(bus);
	publish(3);
	first = subscribe(8);
	second = subscribe(8);
	ck_assert(is_readable(first));
	expect_cause(first, 1);
	expect_cause(first, 2);
	ck_assert_ptr_null(event_take(first));
	ck_assert_ptr_null(event_take(second));
	event_unsubscribe(first);
	event_unsubscribe(second);
}
END_TEST

START_TEST(what_is_kept_for_the_first_subscriber_is_bounded)
{
	struct event_subscriber *sub;
	uint64_t count = 0;

	for (uint64_t i = 0; i < 5000; i++)
		publish(i);
	sub = subscribe(100);
	for (uint64_t i = 0; i < 100; i++)
		expect_cause(sub, i);
	for (struct event *event; (event = event_take(sub)); event_free(event))
		count += event->count;
	ck_assert_uint_eq(count, 4900);
	event_unsubscribe(sub);
}
END_TEST

START_TEST(every_type_has_its_name)
{
	for (int type = EVENT_RUNNING; type <= EVENT_UNMOUNT; type++)
		ck_assert_str_ne(event_type_name((enum event_type)type), "unknown");
	ck_assert_str_eq(event_type_name(EVENT_FILE_DAMAGED), "file_damaged");
	ck_assert_str_eq(event_type_name((enum event_type)99), "unknown");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("event");
	TCase *tcase = tcase_create("bus");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, every_subscriber_gets_every_event_in_order);
	tcase_add_test(tcase, an_event_is_copied_with_its_paths);
	tcase_add_test(tcase, an_event_is_copied_with_its_report);
	tcase_add_test(tcase, the_descriptor_is_readable_exactly_while_there_is_something_to_take);
	tcase_add_test(tcase, a_full_queue_ends_in_lost_with_the_count);
	tcase_add_test(tcase, lost_stands_between_what_was_before_and_what_came_after);
	tcase_add_test(tcase, one_slow_subscriber_costs_the_others_nothing);
	tcase_add_test(tcase, subscribers_are_limited_in_number_and_their_places_come_back);
	tcase_add_test(tcase, under_threads_taken_and_lost_add_up_to_published);
	tcase_add_test(tcase, what_mount_did_is_kept_for_the_first_subscriber_only);
	tcase_add_test(tcase, what_is_kept_for_the_first_subscriber_is_bounded);
	tcase_add_test(tcase, every_type_has_its_name);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
