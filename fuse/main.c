/* mendfs: the daemon. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "control/server.h"
#include "fuse/daemon.h"
#include "fuse/mountinfo.h"
#include "fuse/session.h"
#include "fuse/shutdown.h"
#include "fuse/utab.h"
#include "util/log.h"

struct server {
	struct options options;
	struct front front;
	struct control *control;
};

static int stats(void *arg, control_opcode_fn *visit, void *visit_arg)
{
	static_assert(COUNTER_BUCKETS == CONTROL_HISTOGRAM_BUCKETS, "one histogram");

	for (unsigned op = 0; op < OP_COUNT; op++) {
		struct control_opcode opcode = {.name = counter_name(op)};
		struct counter counter;
		int rc;

		counter_get(op, &counter);
		if (!counter.count)
			continue;
		opcode.count = counter.count;
		opcode.total_ns = counter.total_ns;
		memcpy(opcode.histogram, counter.histogram, sizeof(counter.histogram));
		rc = visit(visit_arg, &opcode);
		if (rc)
			return rc;
	}
	return 0;
}

static void changed(void *arg, inum_t ino)
{
	struct server *server = arg;

	session_invalidate(&server->front, ino, 0, 0);
}

static int shut_down(void *arg, enum fs_stop_mode mode)
{
	struct server *server = arg;

	return front_shut_down(&server->front, mode);
}

static const struct control_hooks hooks = {.stats = stats, .changed = changed, .shut_down = shut_down};

/* INIT was answered: requests are served from here on. Runs once, on a request thread. */
static void mounted(void *arg)
{
	struct server *server = arg;
	struct mountinfo mount;
	int error = mountinfo_find(server->options.mountpoint, &mount);

	if (!error)
		error = control_mounted(server->control, mount.device);
	if (error)
		log_warning("mendctl will not find %s by its mount point, only by %s: %s", server->options.mountpoint,
			    server->options.source, strerror(-error));
	control_set_transport(server->control, session_transport(&server->front));
	daemon_ready();
	log_info("%s is mounted on %s (%s)", server->options.source, server->options.mountpoint,
		 session_transport(&server->front));
}

static int serve(struct server *server, struct why *why)
{
	struct control_options control = {
		.device = server->options.source,
		.mountpoint = server->options.mountpoint,
		.transport = "dev_fuse",
		.hooks = &hooks,
		.hooks_arg = server,
	};
	struct claim *claim = media_claim(fs_media(server->front.fs));
	int error;

	claim_set_mountpoint(claim, server->options.mountpoint);
	error = control_start(server->front.fs, claim, &control, &server->control);
	if (error)
		return why_set(why, error, "cannot start the control server: %s", strerror(-error));
	server->front.on_init = mounted;
	server->front.on_init_arg = server;
	error = session_open(&server->front, &server->options, why);
	if (!error) {
		error = session_loop(&server->front);
		if (error)
			why_set(why, error, "serving %s failed: %s", server->options.mountpoint, strerror(-error));
		claim_set_finishing(claim);
		session_close(&server->front);
	}
	control_stop(server->control);
	return error;
}

static int run(struct server *server, struct why *why)
{
	struct fs_options options = {
		.readonly = server->options.vfs.flags & MS_RDONLY,
		.cache_bytes = server->options.cache_bytes,
		.atime = vfs_options_atime(&server->options.vfs),
		.no_diratime = server->options.vfs.flags & MS_NODIRATIME,
		.commit_seconds = server->options.commit_seconds,
		.claim = true,
	};
	int error = fs_mount(server->options.source, &options, why, &server->front.fs);
	int end;

	if (error)
		return error;
	if (server->options.fake) {
		fs_unmount(server->front.fs);
		return 0;
	}
	error = serve(server, why);
	end = fs_unmount(server->front.fs);
	session_release(&server->front);
	if (end && !error)
		error = why_set(why, end, "%s: the last changes could not be written home (%s); the next mount replays the journal",
				server->options.source, strerror(-end));
	return error;
}

/* The process that mount(8) or the shell waits for. */
static void in_parent(void *arg)
{
	const struct server *server = arg;
	struct mountinfo mount;

	/* The unmount of a block device waits by itself. */
	if (!mountinfo_find(server->options.mountpoint, &mount) && !strcmp(mount.type, "fuse.mendfs"))
		utab_add(server->options.source, server->options.mountpoint);
}

static int serve_or_remount(struct server *server, struct why *why)
{
	int error;

	if (server->options.vfs.remount)
		return vfs_options_remount(&server->options.vfs, server->options.mountpoint, why);
	error = daemon_begin(server->options.foreground || server->options.fake, in_parent, server);
	if (error)
		return why_set(why, error, "cannot go into the background: %s", strerror(-error));
	return run(server, why);
}

int main(int argc, char **argv)
{
	struct server server = {.front = {.lock = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER}};
	struct why why = {.text = "out of memory"};
	int usage = options_parse(argc, argv, &server.options, &why);
	int error = usage;

	if (server.options.help)
		options_usage("mendfs");
	if (server.options.version)
		printf("mendfs %s (libfuse %s)\n", MENDFS_VERSION, fuse_pkgversion());
	if (usage == 0)
		error = serve_or_remount(&server, &why);
	options_free(&server.options);
	if (error >= 0)
		return 0;
	fprintf(stderr, "mendfs: %s\n", why.text);
	return usage == -EINVAL ? 2 : 1;
}
