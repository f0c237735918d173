#include "fuse/session.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include "fuse/blkdev.h"
#include "fuse/job.h"
#include "fuse/sched.h"
#include "fuse/terminate.h"
#include "util/log.h"

#define NOTIFYING_SECONDS 2
#define CLASSIC_THREADS 10 /* docs/PERFORMANCE.md, "Transport" */
#define MOST_WAITING 4 /* less than the 8 of a ring by default */

static void front_init(void *userdata, struct fuse_conn_info *conn)
{
	struct front *front = userdata;
	struct fs_attr root;

	conn->max_write = FRONT_MAX_WRITE;
	conn->max_readahead = FRONT_MAX_WRITE;
	conn->time_gran = 1;
#if LIBFUSE_AT_LEAST(18)
	/*
	 * libfuse keeps a FUSE_INTERRUPT until its request comes through /dev/fuse; over io_uring none does, so a client that is signalled often would fill
	 * our memory. The first is answered ENOSYS, which ends them. What takes long asks the caller's signals (caller.h).
	 */
	conn->no_interrupt = 1;
#endif
	front->no_open = front->no_open && fuse_want(conn, FUSE_CAP_NO_OPEN_SUPPORT);
	/* Truncating at OPEN saves a SETATTR; where there is no OPEN it would not happen at all. */
	if (front->no_open)
		fuse_refuse(conn, FUSE_CAP_ATOMIC_O_TRUNC);
	else
		fuse_want(conn, FUSE_CAP_ATOMIC_O_TRUNC);
	fuse_want(conn, FUSE_CAP_ASYNC_DIO);
	fuse_want(conn, FUSE_CAP_CACHE_SYMLINKS);
	fuse_want(conn, FUSE_CAP_EXPORT_SUPPORT);
	fuse_want(conn, FUSE_CAP_PARALLEL_DIROPS);
	fuse_want(conn, FUSE_CAP_EXPLICIT_INVAL_DATA);
	fuse_want(conn, FUSE_CAP_IOCTL_DIR);
	fuse_refuse(conn, FUSE_CAP_AUTO_INVAL_DATA);
	fuse_want(conn, FUSE_CAP_POSIX_ACL);
	fuse_want(conn, FUSE_CAP_DONT_MASK);
	/* Requests that change content say whether setuid bits must go; a libfuse that does not pass that on leaves it to the kernel's SETATTR. */
	fuse_refuse(conn, FUSE_CAP_HANDLE_KILLPRIV);
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
	front->killpriv = fuse_want(conn, FUSE_CAP_HANDLE_KILLPRIV_V2);
#endif
#ifdef FUSE_CAP_DIRECT_IO_ALLOW_MMAP
	front->direct_writers = fuse_want(conn, FUSE_CAP_DIRECT_IO_ALLOW_MMAP);
#endif
	/* The region's memory is never spliced (a machine check in the kernel's copy is an oops), and replies are built in DRAM anyway. */
	fuse_refuse(conn, FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	front->no_opendir = fuse_want(conn, FUSE_CAP_NO_OPENDIR_SUPPORT);
	if (front->writeback)
		front->writeback = fuse_want(conn, FUSE_CAP_WRITEBACK_CACHE);
#if LIBFUSE_AT_LEAST(18)
	front->uring = front->uring && fuse_get_feature_flag(conn, FUSE_CAP_OVER_IO_URING);
#endif
	/* The kernel has the root without looking it up. */
	fs_lookup(front->fs, FS_ROOT_INO, ".", &root);
	if (front->on_init)
		front->on_init(front->on_init_arg);
}

const struct fuse_lowlevel_ops front_ops = {
	.init = front_init,
	.lookup = front_lookup,
	.forget = front_forget,
	.forget_multi = front_forget_multi,
	.getattr = front_getattr,
	.setattr = front_setattr,
	.readlink = front_readlink,
	.mknod = front_mknod,
	.mkdir = front_mkdir,
	.unlink = front_unlink,
	.rmdir = front_rmdir,
	.symlink = front_symlink,
	.rename = front_rename,
	.link = front_link,
	.create = front_create,
	.open = front_open,
	.flush = front_flush,
	.release = front_release,
	.read = front_read,
	.write = front_write,
	.fsync = front_fsync,
	.fsyncdir = front_fsyncdir,
	.opendir = front_opendir,
	.releasedir = front_releasedir,
	.readdir = front_readdir,
	.readdirplus = front_readdirplus,
	.statfs = front_statfs,
	.fallocate = front_fallocate,
	.copy_file_range = front_copy_file_range,
	.lseek = front_lseek,
	.getxattr = front_getxattr,
	.setxattr = front_setxattr,
	.listxattr = front_listxattr,
	.removexattr = front_removexattr,
	.ioctl = front_ioctl,
#if LIBFUSE_AT_LEAST(17)
	.tmpfile = front_tmpfile,
#endif
#if LIBFUSE_AT_LEAST(18)
	.statx = front_statx,
#endif
};

#if LIBFUSE_AT_LEAST(18)
bool session_uring_available(const char **hint)
{
	FILE *file = fopen("/sys/module/fuse/parameters/enable_uring", "re");
	int value = file ? fgetc(file) : EOF;

	if (file)
		fclose(file);
	*hint = NULL;
	if (value == 'Y')
		return true;
	*hint = value == EOF ? "FUSE over io_uring needs Linux 6.14 or later; without it small requests are 3 to 5 times slower"
			     : "FUSE over io_uring is off; to make small requests 3 to 5 times faster, before mounting: echo Y > "
			       "/sys/module/fuse/parameters/enable_uring";
	return false;
}
#else
bool session_uring_available(const char **hint)
{
	*hint = "built with a libfuse older than 3.18: without FUSE over io_uring small requests are 3 to 5 times slower "
		"(scripts/get-libfuse fetches a newer one for the build)";
	return false;
}
#endif

const char *session_transport(const struct front *front)
{
	return front->uring ? "io_uring" : "dev_fuse";
}

/* May a notification be sent, from now until notification_end()? */
static bool notification_begin(struct front *front)
{
	bool is_open;

	pthread_mutex_lock(&front->lock);
	is_open = front->is_notifying;
	front->count_notifying += is_open;
	pthread_mutex_unlock(&front->lock);
	return is_open;
}

static void notification_end(struct front *front)
{
	pthread_mutex_lock(&front->lock);
	if (--front->count_notifying == 0)
		pthread_cond_broadcast(&front->idle);
	pthread_mutex_unlock(&front->lock);
}

static void notification_send(struct front *front, inum_t ino, off_t pos, off_t length)
{
	int error = fuse_lowlevel_notify_inval_inode(front->session, ino, pos, length);

	if (error && error != -ENOENT)
		log_debug("invalidating inode %llu: %s", (unsigned long long)ino, strerror(-error));
}

void session_invalidate(struct front *front, inum_t ino, uint64_t pos, uint64_t length)
{
	if (!notification_begin(front))
		return;
	notification_send(front, ino, (off_t)pos, (off_t)length);
	notification_end(front);
}

struct forgotten {
	struct front *front;
	inum_t ino;
};

static void *forget_attr(void *arg)
{
	struct forgotten *forgotten = arg;

	notification_send(forgotten->front, forgotten->ino, -1, 0);
	notification_end(forgotten->front);
	free(forgotten);
	return NULL;
}

/* Seldom enough for a thread of its own; where there is none to be had the kernel goes on with what it knows. */
void session_forget_attr(struct front *front, inum_t ino)
{
	struct forgotten *forgotten = malloc(sizeof(*forgotten));
	pthread_t thread;

	if (!forgotten || !notification_begin(front)) {
		free(forgotten);
		return;
	}
	*forgotten = (struct forgotten){front, ino};
	if (!pthread_create(&thread, NULL, forget_attr, forgotten)) {
		pthread_detach(thread);
		return;
	}
	notification_end(front);
	free(forgotten);
}

/* --- everything ------------------------------------------------------------------------------------------------------------- */

struct forgotten_all {
	struct front *front;
	size_t count, capacity;
	inum_t *inos;
};

static int forget_all_add(void *arg, inum_t ino)
{
	struct forgotten_all *all = arg;
	size_t capacity = all->capacity ? 2 * all->capacity : 256;
	inum_t *inos;

	notification_send(all->front, ino, -1, 0);
	if (all->count == all->capacity) {
		inos = reallocarray(all->inos, capacity, sizeof(*inos));
		if (!inos)
			return 0; /* its attributes are gone; its pages stay */
		all->inos = inos;
		all->capacity = capacity;
	}
	all->inos[all->count++] = ino;
	return 0;
}

static void forget_all_end(struct forgotten_all *all)
{
	notification_end(all->front);
	free(all->inos);
	free(all);
}

static void *forget_all_pages(void *arg)
{
	struct forgotten_all *all = arg;

	for (size_t i = 0; i < all->count && notification_begin(all->front); i++) {
		notification_send(all->front, all->inos[i], 0, 0);
		notification_end(all->front);
	}
	forget_all_end(all);
	return NULL;
}

void session_forget_all(struct front *front)
{
	struct forgotten_all *all = calloc(1, sizeof(*all));
	pthread_t thread;

	if (!all || !notification_begin(front)) {
		free(all);
		return;
	}
	all->front = front;
	fs_known(front->fs, forget_all_add, all);
	if (!pthread_create(&thread, NULL, forget_all_pages, all))
		pthread_detach(thread);
	else
		forget_all_end(all);
}

/* The notify thread. */
static void invalidate(void *arg, inum_t ino, uint64_t pos, uint64_t length)
{
	session_invalidate(arg, ino, pos, length);
}

static void notifying_begin(struct front *front)
{
	pthread_mutex_lock(&front->lock);
	front->is_notifying = true;
	pthread_mutex_unlock(&front->lock);
	fs_set_invalidate(front->fs, invalidate, front);
}

/* No notification begins any more. Have those under way ended, within this time? */
static bool notifying_end(struct front *front, unsigned seconds)
{
	struct timespec until;
	bool is_idle;
	int rc = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += seconds;
	pthread_mutex_lock(&front->lock);
	front->is_notifying = false;
	while (front->count_notifying && !rc)
		rc = pthread_cond_timedwait(&front->idle, &front->lock, &until);
	is_idle = front->count_notifying == 0;
	pthread_mutex_unlock(&front->lock);
	return is_idle;
}

static int session_mount(struct front *front, const struct options *options, struct why *why)
{
	int error;

	if (fuse_set_signal_handlers(front->session))
		return why_set(why, -errno, "cannot set signal handlers");
	error = -EPERM;
	if (fuse_session_mount(front->session, options->mountpoint)) {
		why_set(why, error, "cannot mount on %s (see the line above)", options->mountpoint);
		goto err_handlers;
	}
	error = vfs_options_finish(&options->vfs, options->mountpoint);
	if (error) {
		why_set(why, error, "%s: the option nosymfollow cannot be had: %s", options->mountpoint, strerror(-error));
		goto err_unmount;
	}
	return 0;

err_unmount:
	fuse_session_unmount(front->session);
err_handlers:
	fuse_remove_signal_handlers(front->session);
	return error;
}

/* libfuse takes out of the arguments what it knows, and a second attempt needs them again. */
static int args_copy(const struct fuse_args *from, struct fuse_args *to)
{
	for (int i = 0; i < from->argc; i++)
		if (fuse_opt_add_arg(to, from->argv[i]))
			return -ENOMEM;
	return 0;
}

static int session_create(struct front *front, const struct fuse_args *common, struct why *why)
{
	struct fuse_args args = {0};
	int error = args_copy(common, &args);

	if (!error && front->uring)
		error = fuse_opt_add_arg(&args, "-oio_uring");
	/* With another size of blocks than the device has now, the mount would drop its page cache (media/block.c). */
	if (!error && front->is_blkdev)
		error = fuse_opt_add_arg(&args, "-oblkdev,blksize=4096");
	front->session = error ? NULL : fuse_session_new(&args, &front_ops, sizeof(front_ops), front);
	fuse_opt_free_args(&args);
	if (error)
		return why_set(why, -ENOMEM, "out of memory");
	if (!front->session)
		return why_set(why, -EINVAL, "a mount option is wrong (see the line above); mendfs --help lists them");
	return 0;
}

static int session_begin(struct front *front, const struct options *options, struct why *why)
{
	int error = session_create(front, &options->args, why);

	if (error)
		return error;
	if (front->is_blkdev) {
		error = blkdev_watch(front->session);
		if (error)
			why_set(why, error, "this libfuse does not let its requests be looked at");
		else
			media_hand_over(fs_media(front->fs));
	}
	if (!error)
		error = session_mount(front, options, why);
	if (error) {
		blkdev_unwatch();
		fuse_session_destroy(front->session);
	}
	return error;
}

/* A kernel that does not let a mounted device be open for writing as well (CONFIG_BLK_DEV_WRITE_MOUNTED) refuses fuseblk. */
static int session_begin_plainly(struct front *front, const struct options *options, struct why *why)
{
	int error = media_take_back(fs_media(front->fs), why);

	if (error)
		return error;
	log_warning("%s cannot be mounted as fuseblk (%s): umount(8) will not wait for the daemon, nor sync(1) reach it", options->source, why->text);
	front->is_blkdev = false;
	return session_begin(front, options, why);
}

int session_open(struct front *front, struct options *options, struct why *why)
{
	const char *hint = NULL;
	int error;

	front->is_blkdev = media_is_block(fs_media(front->fs)) && geteuid() == 0 && !options->no_fuseblk;
	front->writeback = options->writeback;
	front->no_open = options->no_open;
	front->may_idle = !options->no_sched_idle;
	front->uring = !options->no_uring && session_uring_available(&hint);
	if (hint)
		log_info("%s", hint);
	front->most_waiting = MOST_WAITING;
	if (front->uring && options->ring_depth)
		front->most_waiting = (unsigned)min_u64(MOST_WAITING, options->ring_depth - 1);
	error = session_begin(front, options, why);
	if (error && front->is_blkdev)
		error = session_begin_plainly(front, options, why);
	if (error)
		return error;
	front->mountpoint = options->mountpoint;
	notifying_begin(front);
	return 0;
}

/*
 * After a signal clients may wait for answers that nobody will give, and a notification for their pages, without end: fail them all.
 * Once unmounted (POLLERR) there is nothing to fail, and the mount point may be another filesystem's.
 */
static void connection_cut(const struct front *front)
{
	struct pollfd item = {.fd = fuse_session_fd(front->session)};

	if (poll(&item, 1, 0) == 1 && (item.revents & POLLERR))
		return;
	if (umount2(front->mountpoint, MNT_FORCE | UMOUNT_NOFOLLOW))
		umount2(front->mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW);
}

/*
 * A signal is about to end it, and requests are still served: let notifications about pages end, which wait for requests themselves, and those who wait for them. Once nobody serves
 * any more it is too late.
 */
static void notifying_settle(void *arg)
{
	struct front *front = arg;

	if (!notifying_end(front, NOTIFYING_SECONDS))
		connection_cut(front);
}

int session_loop(struct front *front)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int rc;

	if (!config)
		return -ENOMEM;
	/* A request ends with the descriptor that it was read from; that of an unmount (fuse/blkdev.h) must be the session's, which is closed last. */
	fuse_loop_cfg_set_clone_fd(config, !front->is_blkdev);
	fuse_loop_cfg_set_max_threads(config, CLASSIC_THREADS);
	rc = terminate_start(front->session, front->mountpoint, notifying_settle, front);
	if (!rc) {
		/* After the signals are blocked, which threads inherit. */
		if (front->uring && front->may_idle)
			sched_start();
		rc = fuse_session_loop_mt(front->session, config);
		terminate_stop();
	}
	sched_stop();
	job_stop();
	fuse_loop_cfg_destroy(config);
	/* Positive: the signal that ended it, which is an orderly end. */
	return rc < 0 ? rc : 0;
}

void session_close(struct front *front)
{
	bool is_idle = notifying_end(front, NOTIFYING_SECONDS);

	if (!is_idle && !blkdev_is_destroyed())
		connection_cut(front);
	fs_set_invalidate(front->fs, NULL, NULL);
	fuse_remove_signal_handlers(front->session);
	if (blkdev_is_destroyed())
		return;
	fuse_session_unmount(front->session);
	if (!is_idle && !notifying_end(front, NOTIFYING_SECONDS)) {
		log_warning("a notification to the kernel does not end; its session is left behind");
		return;
	}
	fuse_session_destroy(front->session);
	front->session = NULL;
}

void session_release(struct front *front)
{
	/* Where a notification does not end, the end of the process closes the descriptors. */
	if (!blkdev_is_destroyed() || !front->session || !notifying_end(front, 0))
		return;
	blkdev_unwatch();
	fuse_session_destroy(front->session);
	front->session = NULL;
}
