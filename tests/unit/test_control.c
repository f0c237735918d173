/* The control server on a filesystem in this process, spoken to through its second socket. */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/request.h"
#include "control/server.h"
#include "fs/inode.h"
#include "journal/internal.h"
#include "tests/support/fsfix.h"

#define IMAGE_BYTES FSFIX_USUAL_BYTES /* 256 MiB */
#define ANSWER_MS 20000
#define LINE_BYTES_MAX (1 << 20)
#define CLIENTS_MAX 320 /* CONNECTIONS_MAX of the server */

static struct fsfix fix;
static struct control *control;
static dev_t device;

static int visit_stats(void *arg, control_opcode_fn *visit, void *visit_arg)
{
	struct control_opcode opcode = {
	    .name = "READ", .count = 3, .total_ns = 21, .histogram = {[2] = 3}};

	return visit(visit_arg, &opcode);
}

static const struct control_hooks hooks = {.stats = visit_stats};

static void setup(void)
{
	struct control_options options = {
	    .device = "image", .mountpoint = "/nowhere", .transport = "none", .hooks = &hooks};

	device = (dev_t)getpid() << 20;
	ck_assert_int_eq(fsfix_create_mounted(&fix, IMAGE_BYTES), 0);
	ck_assert_int_eq(control_start(fix.fs, NULL, &options, &control), 0);
	ck_assert_int_eq(control_mounted(control, device), 0);
}

static void stop(void)
{
	control_stop(control);
	control = NULL;
}

static void teardown(void)
{
	stop();
	fsfix_destroy(&fix);
}

/* --- a client --- */

struct asker {
	int fd;
	char *line; /* LINE_BYTES_MAX */
	size_t used;
	bool ended;
};

static int dial(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t length;

	control_socket_name(device, 0, address.sun_path + 1, sizeof(address.sun_path) - 1);
	length =
	    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address.sun_path + 1));
	return connect(fd, (struct sockaddr *)&address, length) ? -1 : fd;
}

/* The next line, parsed; NULL at the end or after ANSWER_MS. */
static struct json_object *next(struct asker *asker)
{
	for (;;) {
		char *newline = memchr(asker->line, '\n', asker->used);
		struct pollfd item = {.fd = asker->fd, .events = POLLIN};
		ssize_t got;

		if (newline) {
			size_t length = (size_t)(newline - asker->line);
			struct json_object *object = json_parse_object(asker->line, length);

			ck_assert_msg(object != NULL, "%.*s", (int)length, asker->line);
			asker->used -= length + 1;
			memmove(asker->line, newline + 1, asker->used);
			return object;
		}
		if (poll(&item, 1, ANSWER_MS) <= 0)
			return NULL;
		got = recv(asker->fd, asker->line + asker->used, LINE_BYTES_MAX - asker->used, 0);
		if (got <= 0) {
			asker->ended = true;
			return NULL;
		}
		asker->used += (size_t)got;
	}
}

static void hang_up(struct asker *asker)
{
	close(asker->fd);
	free(asker->line);
}

/* Connected, the greeting read. */
static struct asker come(void)
{
	struct asker asker = {.fd = dial(), .line = malloc(LINE_BYTES_MAX)};
	struct json_object *greeting;
	const char *text;
	uint64_t number;

	ck_assert_int_ge(asker.fd, 0);
	greeting = next(&asker);
	ck_assert_ptr_nonnull(greeting);
	ck_assert_int_eq(json_get_u64(greeting, "version", &number), 1);
	ck_assert_int_eq(json_get_u64(greeting, "protocol", &number), 1);
	ck_assert_int_eq(json_get_u64(greeting, "pid", &number), 1);
	ck_assert_uint_eq(number, (uint64_t)getpid());
	ck_assert_int_eq(json_get_text(greeting, "mountpoint", &text), 1);
	ck_assert_str_eq(text, "/nowhere");
	json_object_put(greeting);
	return asker;
}

static void say(struct asker *asker, const char *line)
{
	ck_assert_int_eq(send(asker->fd, line, strlen(line), MSG_NOSIGNAL), (ssize_t)strlen(line));
}

static struct asker ask(const char *line)
{
	struct asker asker = come();

	say(&asker, line);
	say(&asker, "\n");
	return asker;
}

static void expect_refusal(struct asker *asker, int number)
{
	struct json_object *object = next(asker);
	const char *text;
	bool done = true;
	uint64_t got;

	ck_assert_ptr_nonnull(object);
	ck_assert_int_eq(json_get_bool(object, "done", &done), 1);
	ck_assert(!done);
	ck_assert_int_eq(json_get_text(object, "error", &text), 1);
	ck_assert_str_ne(text, "");
	ck_assert_int_eq(json_get_u64(object, "errno", &got), 1);
	ck_assert_int_eq((int)got, number);
	json_object_put(object);
}

static bool is_done(struct json_object *object)
{
	bool done = false;

	return json_get_bool(object, "done", &done) == 1 && done;
}

static uint64_t number_of(struct json_object *object, const char *key)
{
	uint64_t value = 0;

	ck_assert_msg(json_get_u64(object, key, &value) == 1, "%s: %s", key,
		      json_line(object, NULL));
	return value;
}

static const char *text_of(struct json_object *object, const char *key)
{
	const char *value = NULL;

	ck_assert_msg(json_get_text(object, key, &value) == 1, "%s: %s", key,
		      json_line(object, NULL));
	return value;
}

/* The whole answer as an array; fails on an error. */
static struct json_object *answer(const char *line)
{
	struct asker asker = ask(line);
	struct json_object *array = json_object_new_array(), *object;

	while ((object = next(&asker)) && !is_done(object)) {
		ck_assert_msg(!json_object_object_get_ex(object, "done", NULL), "%s",
			      json_line(object, NULL));
		json_object_array_add(array, object);
	}
	ck_assert_ptr_nonnull(object);
	json_object_put(object);
	hang_up(&asker);
	return array;
}

static inum_t make_file(const char *name, size_t length)
{
	char *bytes = malloc(length);
	inum_t ino;
	size_t done;

	memset(bytes, 'x', length);
	ck_assert_int_eq(fsfix_mkfile(&fix, FS_ROOT_INO, name, &ino), 0);
	ck_assert_int_eq(fs_write(fix.fs, ino, 0, bytes, length, &done), 0);
	free(bytes);
	return ino;
}

/* --- commands --- */

START_TEST(list_answers_with_one_filesystem)
{
	struct json_object *array = answer("{\"command\":\"list\"}");
	struct json_object *element = json_object_array_get_idx(array, 0);

	ck_assert_uint_eq(json_object_array_length(array), 1);
	ck_assert_str_eq(text_of(element, "state"), "ok");
	ck_assert_str_eq(text_of(element, "mountpoint"), "/nowhere");
	ck_assert_str_eq(text_of(element, "transport"), "none");
	ck_assert_uint_eq(number_of(element, "size_bytes"), IMAGE_BYTES);
	json_object_put(array);
	control_set_transport(control, "io_uring");
	array = answer("{\"command\":\"list\"}");
	ck_assert_str_eq(text_of(json_object_array_get_idx(array, 0), "transport"), "io_uring");
	json_object_put(array);
}
END_TEST

START_TEST(owners_cover_the_device_without_gaps)
{
	struct json_object *array;
	uint64_t reached = 0;
	bool named = false;

	make_file("f", 3 * BLOCK_BYTES);
	array = answer("{\"command\":\"owners\",\"all\":true}");
	for (size_t i = 0; i < json_object_array_length(array); i++) {
		struct json_object *owner = json_object_array_get_idx(array, i);
		uint64_t offset = number_of(owner, "device_offset");

		ck_assert_uint_le(offset, reached);
		reached = max_u64(reached, offset + number_of(owner, "len"));
		named = named || (!strcmp(text_of(owner, "kind"), "data") &&
				  strstr(json_line(owner, NULL), "\"paths\":[\"/f\"]"));
	}
	ck_assert_uint_eq(reached, IMAGE_BYTES);
	ck_assert(named);
	json_object_put(array);
}
END_TEST

START_TEST(owners_of_one_kind_are_only_that_kind)
{
	struct json_object *array =
	    answer("{\"command\":\"owners\",\"all\":true,\"kind\":\"metadata\"}");
	size_t count = json_object_array_length(array);

	ck_assert_uint_gt(count, 0);
	for (size_t i = 0; i < count; i++)
		ck_assert_str_eq(text_of(json_object_array_get_idx(array, i), "kind"), "metadata");
	json_object_put(array);
}
END_TEST

START_TEST(map_names_files_by_path_and_by_inode)
{
	inum_t ino = make_file("f", 2 * BLOCK_BYTES);
	struct json_object *by_path = answer("{\"command\":\"map\",\"path_raw\":\"L2Y=\"}"),
			   *by_inode;
	char line[64];

	snprintf(line, sizeof(line), "{\"command\":\"map\",\"inumber\":%llu}",
		 (unsigned long long)ino);
	by_inode = answer(line);
	ck_assert_uint_ge(json_object_array_length(by_path), 1);
	ck_assert_str_eq(json_line(by_path, NULL), json_line(by_inode, NULL));
	json_object_put(by_path);
	json_object_put(by_inode);
}
END_TEST

START_TEST(stats_come_from_the_front_and_the_medium)
{
	struct asker asker = ask("{\"command\":\"stats\"}");
	struct json_object *opcode = next(&asker), *end;

	ck_assert_str_eq(json_line(opcode, NULL),
			 "{\"opcode\":\"READ\",\"count\":3,\"total_ns\":21,\"histogram\":[0,0,3]}");
	end = next(&asker);
	ck_assert(is_done(end));
	ck_assert(json_object_object_get_ex(end, "media", NULL));
	ck_assert(json_object_object_get_ex(end, "journal", NULL));
	ck_assert(json_object_object_get_ex(end, "locks", NULL));
	json_object_put(opcode);
	json_object_put(end);
	hang_up(&asker);
}
END_TEST

START_TEST(check_of_a_sound_filesystem_finds_nothing)
{
	struct json_object *array = answer("{\"command\":\"check\"}");

	ck_assert_msg(json_object_array_length(array) == 0, "%s", json_line(array, NULL));
	json_object_put(array);
}
END_TEST

START_TEST(check_tells_how_far_it_is_when_asked)
{
	struct asker asker = ask("{\"command\":\"check\",\"progress\":true}");
	struct json_object *line = next(&asker), *progress, *totals;

	ck_assert_ptr_nonnull(line);
	ck_assert(json_object_object_get_ex(line, "progress", &progress));
	ck_assert(*text_of(progress, "phase"));
	ck_assert_uint_le(number_of(progress, "done"), number_of(progress, "total"));
	json_object_put(line);
	line = next(&asker);
	ck_assert_ptr_nonnull(line);
	ck_assert(is_done(line));
	ck_assert(json_object_object_get_ex(line, "totals", &totals));
	ck_assert_uint_gt(number_of(totals, "metadata_blocks"), 0);
	ck_assert_uint_eq(number_of(totals, "findings"), 0);
	json_object_put(line);
	hang_up(&asker);
}
END_TEST

/* Nobody reads a tree until the client has hung up. */
START_TEST(check_ends_when_its_client_has_gone)
{
	struct asker asker;

	journal_lock(fix.fs->journal);
	asker = ask("{\"command\":\"check\"}");
	shutdown(asker.fd, SHUT_WR);
	journal_unlock(fix.fs->journal);
	expect_refusal(&asker, ECANCELED);
	hang_up(&asker);
}
END_TEST

static void expect_refused(const char *line, int number)
{
	struct asker asker = ask(line);

	expect_refusal(&asker, number);
	hang_up(&asker);
}

START_TEST(mistakes_are_answered_with_a_reason)
{
	expect_refused("{\"command\":\"nothing\"}", ENOSYS);
	expect_refused("rubbish", EINVAL);
	expect_refused("", EINVAL);
	expect_refused("{\"command\":\"owners\"}", EINVAL);
	expect_refused("{\"command\":\"owners\",\"offset\":268435456,\"length\":1}", ERANGE);
	expect_refused("{\"command\":\"owners\",\"offset\":0,\"length\":268435457}", ERANGE);
	expect_refused("{\"command\":\"map\",\"path_raw\":\"L25vbmU=\"}", ENOENT);
	expect_refused("{\"command\":\"map\",\"inumber\":1}", EINVAL);
	expect_refused("{\"command\":\"map\",\"inumber\":4000000000}", ENOENT);
	expect_refused("{\"command\":\"inject-error\",\"offset\":268435455,\"length\":2}", ERANGE);
	expect_refused("{\"command\":\"inject-error\",\"all\":true}", EINVAL);
	expect_refused("{\"command\":\"clone\",\"inumber\":5}", EINVAL);
}
END_TEST

START_TEST(injecting_past_the_end_or_into_a_hole_is_refused)
{
	inum_t ino = make_file("f", 100);
	struct json_object *array;
	char line[128];
	size_t done;

	ck_assert_int_eq(fs_write(fix.fs, ino, 4 * BLOCK_BYTES, "x", 1, &done), 0);
	snprintf(line, sizeof(line),
		 "{\"command\":\"inject-error\",\"inumber\":%llu,\"offset\":16384,\"length\":2}",
		 (unsigned long long)ino);
	expect_refused(line, ENXIO);
	snprintf(line, sizeof(line),
		 "{\"command\":\"inject-error\",\"inumber\":%llu,\"offset\":4000,\"length\":200}",
		 (unsigned long long)ino);
	expect_refused(line, ENXIO);
	array = answer("{\"command\":\"badblocks\"}");
	ck_assert_uint_eq(json_object_array_length(array), 0);
	json_object_put(array);
}
END_TEST

START_TEST(injected_errors_are_in_the_ledger_on_return_and_can_be_taken_back)
{
	inum_t ino = make_file("f", 3 * BLOCK_BYTES);
	struct json_object *array;
	char line[128];

	snprintf(line, sizeof(line),
		 "{\"command\":\"inject-error\",\"inumber\":%llu,\"offset\":5000,\"length\":3}",
		 (unsigned long long)ino);
	array = answer(line);
	ck_assert_uint_eq(number_of(json_object_array_get_idx(array, 0), "len"), 3);
	json_object_put(array);
	array = answer("{\"command\":\"damaged\"}");
	ck_assert_uint_eq(json_object_array_length(array), 1);
	ck_assert_uint_eq(number_of(json_object_array_get_idx(array, 0), "inumber"), ino);
	json_object_put(array);
	array = answer("{\"command\":\"uninject-error\",\"all\":true}");
	ck_assert_uint_eq(json_object_array_length(array), 1);
	ck_assert_uint_eq(number_of(json_object_array_get_idx(array, 0), "len"), 3);
	json_object_put(array);
	array = answer("{\"command\":\"badblocks\"}");
	ck_assert_uint_eq(json_object_array_length(array), 0);
	json_object_put(array);
}
END_TEST

START_TEST(a_clone_has_the_length_of_its_source)
{
	inum_t from = make_file("a", 5000), to = make_file("b", 1);
	struct fs_attr attr;
	struct json_object *array;
	char line[128];

	snprintf(line, sizeof(line), "{\"command\":\"clone\",\"inumber\":%llu,\"to_inumber\":%llu}",
		 (unsigned long long)from, (unsigned long long)to);
	array = answer(line);
	ck_assert_uint_eq(number_of(json_object_array_get_idx(array, 0), "len"), 5000);
	json_object_put(array);
	ck_assert_int_eq(fs_getattr(fix.fs, to, &attr), 0);
	ck_assert_uint_eq(attr.record.size_bytes, 5000);
}
END_TEST

/* --- monitor --- */

static void expect_event(struct asker *asker, const char *type)
{
	struct json_object *event = next(asker);

	ck_assert_msg(event != NULL, "no %s", type);
	ck_assert_str_eq(text_of(event, "type"), type);
	ck_assert_uint_eq(number_of(event, "version"), 1);
	json_object_put(event);
}

START_TEST(every_monitor_sees_running_first_and_unmount_last)
{
	struct asker monitors[8];

	for (size_t i = 0; i < ARRAY_SIZE(monitors); i++) {
		monitors[i] = ask("{\"command\":\"monitor\"}");
		expect_event(&monitors[i], "running");
	}
	make_file("f", BLOCK_BYTES);
	json_object_put(answer(
	    "{\"command\":\"inject-error\",\"path_raw\":\"L2Y=\",\"offset\":0,\"length\":1}"));
	stop();
	for (size_t i = 0; i < ARRAY_SIZE(monitors); i++) {
		expect_event(&monitors[i], "media_failure");
		expect_event(&monitors[i], "file_damaged");
		expect_event(&monitors[i], "unmount");
		ck_assert_ptr_null(next(&monitors[i]));
		ck_assert(monitors[i].ended);
		hang_up(&monitors[i]);
	}
}
END_TEST

START_TEST(a_monitor_that_does_not_read_is_told_how_many_it_lost)
{
	struct asker monitor = ask("{\"command\":\"monitor\"}");
	struct event event = {.type = EVENT_HOST_FULL, .len = BLOCK_BYTES};
	struct json_object *object;
	uint64_t seen = 0, lost = 0, sent = 30000;

	expect_event(&monitor, "running");
	for (uint64_t i = 0; i < sent; i++)
		event_publish(fs_events(fix.fs), &event);
	json_object_put(answer("{\"command\":\"list\"}"));
	while (seen + lost < sent && (object = next(&monitor))) {
		if (!strcmp(text_of(object, "type"), "lost"))
			lost += number_of(object, "count");
		else
			seen++;
		json_object_put(object);
	}
	ck_assert_uint_gt(lost, 0);
	ck_assert_uint_eq(seen + lost, sent);
	hang_up(&monitor);
}
END_TEST

/* --- bad company --- */

START_TEST(clients_that_say_nothing_or_half_a_line_block_nobody)
{
	struct asker silent = come(), half = come();

	say(&half, "{\"command\":");
	json_object_put(answer("{\"command\":\"list\"}"));
	hang_up(&silent);
	hang_up(&half);
	json_object_put(answer("{\"command\":\"list\"}"));
}
END_TEST

START_TEST(a_request_without_end_is_refused_at_64_kib)
{
	struct asker asker = come();
	char part[1024];

	memset(part, ' ', sizeof(part));
	for (int i = 0; i < 200; i++)
		if (send(asker.fd, part, sizeof(part), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
	expect_refusal(&asker, EMSGSIZE);
	hang_up(&asker);
	json_object_put(answer("{\"command\":\"list\"}"));
}
END_TEST

START_TEST(beyond_the_limit_clients_are_greeted_and_turned_away)
{
	static struct asker askers[CLIENTS_MAX];
	struct asker extra;

	for (int i = 0; i < CLIENTS_MAX; i++)
		askers[i] = come();
	extra = come();
	expect_refusal(&extra, EBUSY);
	hang_up(&extra);
	for (int i = 0; i < CLIENTS_MAX; i++)
		hang_up(&askers[i]);
	for (int i = 0; i < 100; i++) { /* their threads end in their own time */
		struct json_object *first;
		bool served;

		extra = ask("{\"command\":\"list\"}");
		first = next(&extra);
		served = first && !json_object_object_get_ex(first, "done", NULL);
		json_object_put(first);
		hang_up(&extra);
		if (served)
			return;
		usleep(50000);
	}
	ck_abort_msg("nobody is served any more");
}
END_TEST

START_TEST(stopping_does_not_wait_for_clients_that_idle)
{
	struct asker silent = come(), monitor = ask("{\"command\":\"monitor\"}");

	expect_event(&monitor, "running");
	stop();
	ck_assert_ptr_null(next(&silent));
	ck_assert(silent.ended);
	hang_up(&silent);
	hang_up(&monitor);
}
END_TEST

/* As another user: the greeting, then the refusal. */
static int stranger(void)
{
	char text[8192];
	size_t used = 0;
	ssize_t got;
	int fd;

	if (setgid(65534) || setuid(65534))
		return 2;
	fd = dial();
	while (fd >= 0 && used < sizeof(text) - 1 &&
	       (got = recv(fd, text + used, sizeof(text) - 1 - used, 0)) > 0)
		used += (size_t)got;
	text[used] = '\0';
	return strstr(text, "\"protocol\":1}\n") && strstr(text, "not permitted") ? 0 : 1;
}

START_TEST(strangers_get_the_greeting_and_no_more)
{
	int status;
	pid_t pid;

	if (geteuid() != 0) {
		fprintf(stderr, "not tested here: becoming another user needs root\n");
		return;
	}
	pid = fork();
	if (pid == 0)
		_exit(stranger());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
END_TEST

START_TEST(a_taken_name_is_stepped_over)
{
	struct control_options options = {.device = "x", .mountpoint = "/x"};
	struct control *second;

	ck_assert_int_eq(control_start(fix.fs, NULL, &options, &second), 0);
	ck_assert_int_eq(control_mounted(second, device), 0);
	control_stop(second);
}
END_TEST

static void add_tests(TCase *tcase)
{
	tcase_add_test(tcase, list_answers_with_one_filesystem);
	tcase_add_test(tcase, owners_cover_the_device_without_gaps);
	tcase_add_test(tcase, owners_of_one_kind_are_only_that_kind);
	tcase_add_test(tcase, map_names_files_by_path_and_by_inode);
	tcase_add_test(tcase, stats_come_from_the_front_and_the_medium);
	tcase_add_test(tcase, check_of_a_sound_filesystem_finds_nothing);
	tcase_add_test(tcase, check_tells_how_far_it_is_when_asked);
	tcase_add_test(tcase, check_ends_when_its_client_has_gone);
	tcase_add_test(tcase, mistakes_are_answered_with_a_reason);
	tcase_add_test(tcase, injecting_past_the_end_or_into_a_hole_is_refused);
	tcase_add_test(tcase, injected_errors_are_in_the_ledger_on_return_and_can_be_taken_back);
	tcase_add_test(tcase, a_clone_has_the_length_of_its_source);
	tcase_add_test(tcase, every_monitor_sees_running_first_and_unmount_last);
	tcase_add_test(tcase, a_monitor_that_does_not_read_is_told_how_many_it_lost);
	tcase_add_test(tcase, clients_that_say_nothing_or_half_a_line_block_nobody);
	tcase_add_test(tcase, a_request_without_end_is_refused_at_64_kib);
	tcase_add_test(tcase, beyond_the_limit_clients_are_greeted_and_turned_away);
	tcase_add_test(tcase, stopping_does_not_wait_for_clients_that_idle);
	tcase_add_test(tcase, strangers_get_the_greeting_and_no_more);
	tcase_add_test(tcase, a_taken_name_is_stepped_over);
}

int main(void)
{
	Suite *suite = suite_create("control");
	TCase *tcase = tcase_create("control");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 120);
	add_tests(tcase);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
