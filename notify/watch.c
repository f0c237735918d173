/*
 * Memory that failed without being touched. Two sources, one thread: the kernel's list of bad blocks, which wakes whoever polls it, and SIGBUS with
 * BUS_MCEERR_AO, which the kernel sends to a thread that asked for early notice (PR_MCE_KILL) and to no other. The signal is blocked here and
 * read from a descriptor, so nobody is disturbed; for the same reason this thread touches no medium and leaves the work to the notify thread.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "notify/internal.h"
#include "util/log.h"

struct watch {
	struct notify *notify;
	pthread_t thread;
	int stop_fd, signal_fd;
	int list_fd; /* or -1 */
	int dimm_fds[HEALTH_DIMMS_MAX];
	size_t count_dimms;
};

enum { WATCH_STOP, WATCH_SIGNAL, WATCH_LIST, WATCH_DIMMS };

static void watch_take_signal(struct watch *watch)
{
	struct signalfd_siginfo info;
	devoff_t offset;
	uint64_t length;

	if (read(watch->signal_fd, &info, sizeof(info)) != sizeof(info) || info.ssi_code != BUS_MCEERR_AO)
		return;
	if (media_locate(watch->notify->media, info.ssi_addr, info.ssi_addr_lsb, &offset, &length))
		notify_suspect(watch->notify, offset, length);
}

/* A list, or a DIMM's flags, counts as seen when it was read to its end. An error: its region has lost its driver, and the descriptor is dead. */
static bool watch_see_list(int fd)
{
	char text[4096];
	off_t at = 0;
	ssize_t got;

	while ((got = pread(fd, text, sizeof(text), at)) > 0)
		at += got;
	return got == 0;
}

static void watch_take_list(struct watch *watch)
{
	if (watch_see_list(watch->list_fd)) {
		notify_enter_list(watch->notify);
		return;
	}
	log_warning("%s: the kernel no longer says which of its blocks are bad", media_path(watch->notify->media));
	close(watch->list_fd);
	watch->list_fd = -1;
}

/* What a DIMM tells is asked by the notify thread: firmware may take its time. One that is gone is not asked again: its descriptor would wake us for ever. */
static void watch_take_dimm(struct watch *watch, struct pollfd *item)
{
	if (watch_see_list(item->fd))
		notify_enter_health(watch->notify);
	else
		item->fd = -1;
}

static void watch_serve(struct watch *watch, struct pollfd *fds)
{
	while (!fds[WATCH_STOP].revents) {
		fds[WATCH_LIST].fd = watch->list_fd;
		if (poll(fds, WATCH_DIMMS + watch->count_dimms, -1) < 0)
			continue;
		if (fds[WATCH_SIGNAL].revents)
			watch_take_signal(watch);
		if (fds[WATCH_LIST].revents)
			watch_take_list(watch);
		for (size_t i = 0; i < watch->count_dimms; i++)
			if (fds[WATCH_DIMMS + i].revents)
				watch_take_dimm(watch, &fds[WATCH_DIMMS + i]);
	}
}

static void *watch_main(void *arg)
{
	struct watch *watch = arg;
	struct pollfd fds[WATCH_DIMMS + HEALTH_DIMMS_MAX] = {
	    [WATCH_STOP] = {.fd = watch->stop_fd, .events = POLLIN},
	    [WATCH_SIGNAL] = {.fd = watch->signal_fd, .events = POLLIN},
	    [WATCH_LIST] = {.events = POLLPRI},
	};

	if (prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0))
		log_info("no early notice of memory errors: %s", strerror(errno));
	/* What has changed since the mount read it is found by this first reading. */
	if (watch->list_fd >= 0)
		watch_take_list(watch);
	watch->count_dimms = health_watch(watch->notify->media, watch->dimm_fds, HEALTH_DIMMS_MAX);
	for (size_t i = 0; i < watch->count_dimms; i++) {
		fds[WATCH_DIMMS + i] = (struct pollfd){.fd = watch->dimm_fds[i], .events = POLLPRI};
		watch_take_dimm(watch, &fds[WATCH_DIMMS + i]);
	}
	watch_serve(watch, fds);
	return NULL;
}

static void watch_free(struct watch *watch)
{
	const int fds[] = {watch->stop_fd, watch->signal_fd, watch->list_fd};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	for (size_t i = 0; i < watch->count_dimms; i++)
		close(watch->dimm_fds[i]);
	free(watch);
}

static int watch_start(struct watch *watch)
{
	sigset_t all, old;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&watch->thread, NULL, watch_main, watch);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -rc;
}

int watch_open(struct notify *notify, int signal_fd, int list_fd)
{
	struct watch *watch = malloc(sizeof(*watch));
	int rc;

	if (!watch) {
		close(signal_fd);
		if (list_fd >= 0)
			close(list_fd);
		return -ENOMEM;
	}
	*watch = (struct watch){.notify = notify, .stop_fd = eventfd(0, EFD_CLOEXEC), .signal_fd = signal_fd, .list_fd = list_fd};
	rc = watch->stop_fd < 0 ? -errno : watch_start(watch);
	if (rc)
		watch_free(watch);
	else
		notify->watch = watch;
	return rc;
}

int notify_watch(struct notify *notify)
{
	const int list_fd = source_watch(notify->media);
	sigset_t bus;
	int fd;

	/* Memory under the page cache is the kernel's to mend. */
	if (list_fd < 0 && !media_is_device(notify->media))
		return 0;
	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	fd = signalfd(-1, &bus, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd >= 0)
		return watch_open(notify, fd, list_fd);
	if (list_fd >= 0)
		close(list_fd);
	return -errno;
}

void watch_stop(struct watch *watch)
{
	const uint64_t one = 1;

	if (!watch)
		return;
	if (write(watch->stop_fd, &one, sizeof(one)) == sizeof(one))
		pthread_join(watch->thread, NULL);
	watch_free(watch);
}

void notify_read_list(struct notify *notify)
{
	struct source_list list;
	int rc = source_badblocks(notify->media, &list);

	if (rc) {
		log_warning("the kernel's bad blocks cannot be asked for: error %d", -rc);
		return;
	}
	for (size_t i = 0; i < list.count && rc == 0; i++)
		rc = notify_report(notify, list.blocks[i].offset, list.blocks[i].length, FAILURE_KERNEL);
	if (list.state == SOURCE_UNKNOWN)
		log_warning("%s: its bad blocks are unknown: %s", media_path(notify->media), list.why.text);
	if (list.state == SOURCE_KNOWN && rc == 0)
		notify_take_back(notify, &list);
	source_list_fini(&list);
}

/* What was told of this DIMM; when it was never spoken of, as if it were well. */
static struct dimm_health *health_told(struct notify *notify, const struct dimm_health *dimm)
{
	struct dimm_health *told;

	for (size_t i = 0; i < notify->count_told; i++)
		if (!strcmp(notify->told[i].name, dimm->name))
			return &notify->told[i];
	if (notify->count_told == HEALTH_DIMMS_MAX)
		return NULL;
	told = &notify->told[notify->count_told++];
	memcpy(told->name, dimm->name, sizeof(told->name));
	return told;
}

static void health_tell(struct notify *notify, const struct dimm_health *dimm)
{
	const struct event event = {.type = EVENT_DIMM_HEALTH, .dimm = *dimm};

	if (dimm_is_ailing(dimm))
		log_warning("%s: DIMM %s is %s%s%s%s; ndctl list -DH tells more", media_path(notify->media), dimm->name, dimm_state_name(dimm->state),
			    dimm->alarms & DIMM_ALARM_SPARES ? ", has few spares left" : "", dimm->alarms & DIMM_ALARM_TEMPERATURE ? ", is too hot" : "",
			    dimm->alarms & DIMM_ALARM_CONTROLLER ? ", has too hot a controller" : "");
	else
		log_info("%s: DIMM %s is well again", media_path(notify->media), dimm->name);
	event_publish(notify->setup.events, &event);
}

void notify_read_health(struct notify *notify)
{
	struct dimm_health dimms[HEALTH_DIMMS_MAX];
	int count = health_read(notify->media, dimms, HEALTH_DIMMS_MAX);

	for (int i = 0; i < count; i++) {
		struct dimm_health *told = health_told(notify, &dimms[i]);

		if (!told || !dimm_differs(told, &dimms[i]))
			continue;
		*told = dimms[i];
		health_tell(notify, &dimms[i]);
	}
}
