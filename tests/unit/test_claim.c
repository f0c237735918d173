#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "media/claim.h"
#include "media/claim_lock.h"
#include "media/claim_socket.h"
#include "media/media.h"
#include "util/log.h"

static char directory[256];
static char image[300];
static struct why why;

static void setup(void)
{
	const char *base = getenv("TMPDIR");
	struct media_options options = {.create_bytes = 1 << 20};
	struct media *media;

	if (!base)
		base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	snprintf(directory, sizeof(directory), "%s/mendfs-claim-XXXXXX", base);
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(image, sizeof(image), "%s/image", directory);
	ck_assert_int_eq(media_open(image, &options, &why, &media), 0);
	media_close(media);
}

static void teardown(void)
{
	char command[300];

	snprintf(command, sizeof(command), "rm -rf %s", directory);
	ck_assert_int_eq(system(command), 0);
}

static int open_claimed(const char *path, struct media **media)
{
	struct media_options options = {.claim = true};

	return media_open(path, &options, &why, media);
}

/* A process that holds the image in some way and says when it does. */
struct holder {
	pid_t pid;
	int ready; /* one byte arrives */
	int go;    /* closing it lets the holder go on */
};

typedef void holder_fn(int ready, int go);

static void holder_say(int ready)
{
	if (write(ready, "r", 1) != 1)
		_exit(3);
}

static void holder_wait(int go)
{
	char byte;

	if (read(go, &byte, 1) < 0)
		_exit(4);
}

static struct holder holder_start(holder_fn *run)
{
	struct holder holder;
	int ready[2], go[2];
	char byte;

	ck_assert_int_eq(pipe(ready), 0);
	ck_assert_int_eq(pipe(go), 0);
	holder.pid = fork();
	if (holder.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(go[1]);
		run(ready[1], go[0]);
		_exit(0);
	}
	close(ready[1]);
	close(go[0]);
	holder.ready = ready[0];
	holder.go = go[1];
	ck_assert_int_eq(read(holder.ready, &byte, 1), 1);
	return holder;
}

static void holder_end(struct holder *holder, int signal_number)
{
	int status;

	if (signal_number)
		kill(holder->pid, signal_number);
	close(holder->go);
	ck_assert_int_eq(waitpid(holder->pid, &status, 0), holder->pid);
	if (!signal_number)
		ck_assert_int_eq(WEXITSTATUS(status), 0);
	close(holder->ready);
}

static const char *held_mountpoint = "/proc"; /* something that is mounted everywhere */

static struct media *hold_claimed(void)
{
	struct media *media;

	if (open_claimed(image, &media) < 0)
		_exit(5);
	claim_set_mountpoint(media_claim(media), held_mountpoint);
	return media;
}

static void serve(int ready, int go)
{
	struct media *media = hold_claimed();

	holder_say(ready);
	holder_wait(go);
	media_close(media);
}

static void expect_busy(const char *path, pid_t pid, const char *word)
{
	int64_t began = claim_now_ms();
	struct media *media = NULL;
	char number[32];

	ck_assert_int_eq(open_claimed(path, &media), -EBUSY);
	ck_assert_int_lt(claim_now_ms() - began, 1000);
	ck_assert_ptr_null(media);
	snprintf(number, sizeof(number), "process %d", (int)pid);
	ck_assert_msg(strstr(why.text, number) != NULL, "\"%s\" lacks \"%s\"", why.text, number);
	ck_assert_msg(strstr(why.text, word) != NULL, "\"%s\" lacks \"%s\"", why.text, word);
}

START_TEST(a_second_claim_is_refused_with_pid_and_mount_point)
{
	struct holder holder = holder_start(serve);
	struct media *media;

	expect_busy(image, holder.pid, "on /proc");
	holder_end(&holder, 0);
	ck_assert_int_eq(open_claimed(image, &media), 0);
	ck_assert_int_eq(media_close(media), 0);
}
END_TEST

START_TEST(aliases_of_the_image_are_refused_as_well)
{
	struct holder holder = holder_start(serve);
	char alias[320];

	snprintf(alias, sizeof(alias), "%s/symlink", directory);
	ck_assert_int_eq(symlink(image, alias), 0);
	expect_busy(alias, holder.pid, "on /proc");
	snprintf(alias, sizeof(alias), "%s/hardlink", directory);
	ck_assert_int_eq(link(image, alias), 0);
	expect_busy(alias, holder.pid, "on /proc");
	snprintf(alias, sizeof(alias), "%s/../%s/image", directory, strrchr(directory, '/') + 1);
	expect_busy(alias, holder.pid, "on /proc");
	holder_end(&holder, 0);
}
END_TEST

START_TEST(the_claim_is_free_at_once_after_kill_9)
{
	struct holder holder = holder_start(serve);
	int64_t began;
	struct media *media;

	kill(holder.pid, SIGKILL);
	began = claim_now_ms();
	ck_assert_int_eq(open_claimed(image, &media), 0);
	ck_assert_int_lt(claim_now_ms() - began, 1000);
	media_close(media);
	holder_end(&holder, SIGKILL);
}
END_TEST

START_TEST(without_a_claim_anybody_may_look)
{
	struct holder holder = holder_start(serve);
	struct media_options options = {.readonly = true};
	struct media *media;

	ck_assert_int_eq(media_open(image, &options, &why, &media), 0);
	ck_assert_ptr_null(media_claim(media));
	media_close(media);
	holder_end(&holder, 0);
}
END_TEST

static void finish_slowly(int ready, int go)
{
	const struct timespec pause = {.tv_sec = 1, .tv_nsec = 500000000};
	struct media *media = hold_claimed();

	claim_set_finishing(media_claim(media));
	holder_say(ready);
	nanosleep(&pause, NULL);
	media_close(media);
}

START_TEST(a_finishing_holder_is_waited_for_with_a_word)
{
	int64_t began = claim_now_ms();
	struct holder holder;
	struct media *media;
	char said[1024];
	int lines[2];
	int error;
	ssize_t n;

	/* The log goes to stderr: look at what it gets. */
	ck_assert_int_eq(pipe(lines), 0);
	holder = holder_start(finish_slowly);
	ck_assert_int_eq(dup2(lines[1], STDERR_FILENO), STDERR_FILENO);
	error = open_claimed(image, &media);
	ck_assert_int_eq(error, 0);
	ck_assert_int_ge(claim_now_ms() - began, 1000);
	media_close(media);
	n = read(lines[0], said, sizeof(said) - 1);
	ck_assert_int_gt(n, 0);
	said[n] = 0;
	ck_assert_ptr_nonnull(strstr(said, "waiting for process"));
	ck_assert_ptr_eq(strchr(said, '\n'), said + n - 1);
	holder_end(&holder, 0);
}
END_TEST

static void serve_nothing_for_a_moment(int ready, int go)
{
	const struct timespec pause = {.tv_nsec = 300000000};
	struct media *media;

	held_mountpoint = directory;
	media = hold_claimed();
	holder_say(ready);
	nanosleep(&pause, NULL);
	media_close(media);
}

START_TEST(a_holder_that_has_not_noticed_its_unmount_is_waited_for)
{
	struct holder holder = holder_start(serve_nothing_for_a_moment);
	struct media *media;

	ck_assert_int_eq(open_claimed(image, &media), 0);
	media_close(media);
	holder_end(&holder, 0);
}
END_TEST

START_TEST(mounts_are_found_by_their_resolved_names)
{
	ck_assert(claim_mount_is_there(getpid(), "/proc"));
	ck_assert(claim_mount_is_there(getpid(), "/usr/../proc/"));
	ck_assert(!claim_mount_is_there(getpid(), directory));
}
END_TEST

static void lock_without_a_socket(int ready, int go)
{
	int fd = open(image, O_RDWR);

	if (flock(fd, LOCK_EX) < 0)
		_exit(6);
	holder_say(ready);
	holder_wait(go);
}

START_TEST(a_holder_that_does_not_answer_is_named_from_the_lock_list)
{
	struct holder holder = holder_start(lock_without_a_socket);
	struct stat st;

	ck_assert_int_eq(stat(image, &st), 0);
	if (claim_lock_holder(&st) == holder.pid) {
		expect_busy(image, holder.pid, "locked by");
	} else {
		struct media *media;

		printf("note: /proc/locks does not name the holder here\n");
		ck_assert_int_eq(open_claimed(image, &media), -EBUSY);
	}
	holder_end(&holder, 0);
}
END_TEST

static void hold_silently(int ready, int go)
{
	struct media *media = hold_claimed();

	claim_socket_fd(media_claim(media)); /* taken over by a server that never accepts */
	holder_say(ready);
	holder_wait(go);
	media_close(media);
}

START_TEST(a_silent_holder_is_refused_in_under_a_second)
{
	struct holder holder = holder_start(hold_silently);
	struct claim_holder answer;
	struct stat st;

	ck_assert_int_eq(stat(image, &st), 0);
	claim_query(&st, &answer);
	ck_assert_int_eq(answer.state, CLAIM_SILENT);
	ck_assert_int_eq(answer.pid, holder.pid);
	expect_busy(image, holder.pid, "locked by");
	holder_end(&holder, 0);
}
END_TEST

static void finish_after_the_server_has_gone(int ready, int go)
{
	struct media *media = hold_claimed();
	struct claim *claim = media_claim(media);

	claim_socket_fd(claim);
	claim_set_finishing(claim);
	holder_say(ready);
	holder_wait(go);
	media_close(media);
}

START_TEST(the_claim_answers_again_once_it_is_finishing)
{
	struct holder holder = holder_start(finish_after_the_server_has_gone);
	struct claim_holder answer;
	struct stat st;

	ck_assert_int_eq(stat(image, &st), 0);
	claim_query(&st, &answer);
	ck_assert_int_eq(answer.state, CLAIM_FINISHING);
	ck_assert_str_eq(answer.mountpoint, "/proc");
	holder_end(&holder, 0);
	claim_query(&st, &answer);
	ck_assert_int_eq(answer.state, CLAIM_NONE);
}
END_TEST

static int squat(const struct stat *st, unsigned attempt)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un address;
	socklen_t length = claim_socket_address(st, attempt, &address);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, length), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	return fd;
}

START_TEST(a_squatter_on_the_first_name_blocks_nothing)
{
	struct claim_holder answer;
	struct holder holder;
	struct stat st;
	int squatter;

	ck_assert_int_eq(stat(image, &st), 0);
	squatter = squat(&st, 0);
	holder = holder_start(serve);
	/* Ours by uid, hence believed, but it never answers. */
	claim_query(&st, &answer);
	ck_assert_int_eq(answer.state, CLAIM_SERVING);
	ck_assert_int_eq(answer.pid, holder.pid);
	expect_busy(image, holder.pid, "on /proc");
	close(squatter);
	holder_end(&holder, 0);
}
END_TEST

/* A process of another uid that answers as if it held the image. */
static void pretend(int ready, int go)
{
	static const char line[] =
	    "{\"version\":1,\"pid\":1,\"mountpoint\":\"/lie\",\"state\":\"serving\"}\n";
	struct stat st;
	int fd, peer;

	if (stat(image, &st) < 0)
		_exit(7);
	if (setresuid(65534, 65534, 65534) < 0)
		_exit(8);
	fd = squat(&st, 0);
	holder_say(ready);
	peer = accept(fd, NULL, NULL);
	if (peer >= 0 && send(peer, line, sizeof(line) - 1, MSG_NOSIGNAL) < 0)
		_exit(0);
	holder_wait(go);
}

START_TEST(a_peer_of_another_user_is_not_believed)
{
	struct claim_holder answer;
	struct holder holder, server;
	struct stat st;

	ck_assert_int_eq(stat(image, &st), 0);
	holder = holder_start(pretend);
	claim_query(&st, &answer);
	ck_assert_int_eq(answer.state, CLAIM_NONE);
	server = holder_start(serve);
	claim_query(&st, &answer);
	ck_assert_int_eq(answer.state, CLAIM_SERVING);
	ck_assert_int_eq(answer.pid, server.pid);
	holder_end(&server, 0);
	holder_end(&holder, SIGKILL);
}
END_TEST

static void answer_garbage(int ready, int go)
{
	int lock = open(image, O_RDWR), fd, peer;
	struct stat st;
	char junk[20000];

	if (flock(lock, LOCK_EX) < 0 || fstat(lock, &st) < 0)
		_exit(9);
	fd = squat(&st, 0);
	holder_say(ready);
	memset(junk, '{', sizeof(junk));
	while ((peer = accept(fd, NULL, NULL)) >= 0) {
		if (send(peer, junk, sizeof(junk), MSG_NOSIGNAL) < 0)
			_exit(0);
		close(peer);
	}
}

START_TEST(garbage_from_a_socket_is_no_answer)
{
	struct holder holder = holder_start(answer_garbage);
	struct claim_holder answer;
	struct stat st;

	ck_assert_int_eq(stat(image, &st), 0);
	claim_query(&st, &answer);
	ck_assert_int_eq(answer.state, CLAIM_SILENT);
	ck_assert_str_eq(answer.mountpoint, "");
	expect_busy(image, holder.pid, "locked by");
	holder_end(&holder, SIGKILL);
}
END_TEST

START_TEST(a_server_that_took_the_socket_over_greets_with_the_same_keys)
{
	struct media *media;
	struct claim *claim;
	char line[8192];

	ck_assert_int_eq(open_claimed(image, &media), 0);
	claim = media_claim(media);
	ck_assert_ptr_nonnull(claim);
	ck_assert_int_ge(claim_socket_fd(claim), 0);
	ck_assert_int_ne(fcntl(claim_socket_fd(claim), F_GETFL) & O_NONBLOCK, 0);
	claim_set_mountpoint(claim, "/mnt\n\"x\"");
	claim_greeting(claim, line, sizeof(line));
	ck_assert_ptr_null(strchr(line, '\n'));
	ck_assert_ptr_nonnull(strstr(line, "\"version\":1"));
	ck_assert_ptr_nonnull(strstr(line, "\"mountpoint\":\"/mnt\\n\\\"x\\\"\""));
	ck_assert_ptr_nonnull(strstr(line, "\"state\":\"serving\""));
	claim_set_finishing(claim);
	claim_greeting(claim, line, sizeof(line));
	ck_assert_ptr_nonnull(strstr(line, "\"state\":\"finishing\""));
	media_close(media);
}
END_TEST

START_TEST(a_failed_open_leaves_no_claim_behind)
{
	struct media_options options = {.claim = true, .create_bytes = 100, .resize = true};
	struct media *media;

	ck_assert_int_eq(media_open(image, &options, &why, &media), -EINVAL);
	ck_assert_int_eq(open_claimed(image, &media), 0);
	media_close(media);
}
END_TEST

/* Seen after kill -9 of a daemon that had just mounted over io_uring: all three, the last for good. */
START_TEST(a_mount_that_lost_its_daemon_is_dead_whatever_the_kernel_calls_it)
{
	ck_assert(claim_mount_is_dead(-ECONNREFUSED));
	ck_assert(claim_mount_is_dead(-ECONNABORTED));
	ck_assert(claim_mount_is_dead(-ENOTCONN));
	ck_assert(!claim_mount_is_dead(-EACCES));
	ck_assert(!claim_mount_is_dead(-ENOENT));
	ck_assert(!claim_mount_is_dead(-EIO));
}
END_TEST

START_TEST(a_living_mount_point_is_not_called_dead)
{
	ck_assert_int_eq(claim_check_mountpoint(directory, &why), 0);
	ck_assert_int_eq(claim_check_mountpoint("/none/such", &why), 0);
}
END_TEST

static void add_tests(TCase *tc)
{
	tcase_add_test(tc, a_second_claim_is_refused_with_pid_and_mount_point);
	tcase_add_test(tc, aliases_of_the_image_are_refused_as_well);
	tcase_add_test(tc, the_claim_is_free_at_once_after_kill_9);
	tcase_add_test(tc, without_a_claim_anybody_may_look);
	tcase_add_test(tc, a_finishing_holder_is_waited_for_with_a_word);
	tcase_add_test(tc, a_holder_that_has_not_noticed_its_unmount_is_waited_for);
	tcase_add_test(tc, mounts_are_found_by_their_resolved_names);
	tcase_add_test(tc, a_holder_that_does_not_answer_is_named_from_the_lock_list);
	tcase_add_test(tc, a_silent_holder_is_refused_in_under_a_second);
	tcase_add_test(tc, the_claim_answers_again_once_it_is_finishing);
	tcase_add_test(tc, a_squatter_on_the_first_name_blocks_nothing);
	tcase_add_test(tc, garbage_from_a_socket_is_no_answer);
	tcase_add_test(tc, a_server_that_took_the_socket_over_greets_with_the_same_keys);
	tcase_add_test(tc, a_failed_open_leaves_no_claim_behind);
	tcase_add_test(tc, a_living_mount_point_is_not_called_dead);
	tcase_add_test(tc, a_mount_that_lost_its_daemon_is_dead_whatever_the_kernel_calls_it);
}

int main(void)
{
	Suite *suite = suite_create("claim");
	TCase *tc = tcase_create("claim");
	bool root = geteuid() == 0;
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	add_tests(tc);
	if (root)
		tcase_add_test(tc, a_peer_of_another_user_is_not_believed);
	else
		printf("SKIP: a peer of another user: changing the user needs root\n");
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	if (failed)
		return 1;
	return root ? 0 : 77;
}
