/* Requests on names. */
#include "fuse/front.h"
#include "fuse/session.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define FORGETS_GATHER_NS 1000000

struct fs_who front_who(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct fs_who){.uid = ctx->uid, .gid = ctx->gid, .umask = ctx->umask};
}

void front_entry(const struct front *front, const struct fs_attr *attr, struct fuse_entry_param *out)
{
	memset(out, 0, sizeof(*out));
	out->ino = attr->ino;
	/* The kernel made the root's inode itself, with generation 0, and complains when ".." tells it otherwise. */
	out->generation = attr->ino == FS_ROOT_INO ? 0 : attr->record.generation;
	out->attr_timeout = front_attr_timeout(front, attr);
	out->entry_timeout = FRONT_TIMEOUT_SECONDS;
	front_stat(attr, &out->attr);
}

void front_reply_entry(fuse_req_t req, int error, const struct fs_attr *attr)
{
	struct front *front = front_of(req);
	struct fuse_entry_param entry;

	if (error) {
		fuse_reply_err(req, -error);
		return;
	}
	front_entry(front, attr, &entry);
	if (fuse_reply_entry(req, &entry) == -ENOENT)
		fs_forget(front->fs, attr->ino, 1);
}

void front_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	uint64_t begin = front_begin();
	struct fuse_entry_param negative = {.entry_timeout = FRONT_TIMEOUT_SECONDS};
	struct fs_attr attr;
	int error = fs_lookup(front_of(req)->fs, parent, name, &attr);

	if (error == -ENOENT)
		fuse_reply_entry(req, &negative);
	else
		front_reply_entry(req, error, &attr);
	counter_end(OP_LOOKUP, begin);
}

/*
 * Over io_uring only these still come through /dev/fuse, to a thread that has nothing else to do. Nobody waits for them, but each one that finds it reading
 * wakes it; those that come while it sleeps arrive together.
 */
static void forget_gather(const struct front *front)
{
	if (front->uring)
		nanosleep(&(struct timespec){.tv_nsec = FORGETS_GATHER_NS}, NULL);
}

void front_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	struct front *front = front_of(req);
	uint64_t begin = front_begin();

	fs_forget(front->fs, ino, count);
	fuse_reply_none(req);
	counter_end(OP_FORGET, begin);
	forget_gather(front);
}

void front_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct front *front = front_of(req);
	uint64_t begin = front_begin();

	for (size_t i = 0; i < count; i++)
		fs_forget(front->fs, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
	counter_end(OP_BATCH_FORGET, begin);
	forget_gather(front);
}

/*
 * Before the answer to whoever changed the names of a directory: what the kernel has of a listing that is under way goes, or it would end the next one
 * with the rest of this one (docs/DESIGN.md). Who changes names has the directory to itself, so the notification meets nobody and waits for nobody.
 */
static void names_changed(struct front *front, inum_t dir)
{
	if (fs_listing_ends(front->fs, dir))
		session_invalidate(front, dir, 0, 0);
}

static void make(fuse_req_t req, enum counter_op op, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	uint64_t begin = front_begin();
	struct fs_who who = front_who(req);
	struct fs_attr attr;
	int error = fs_create(front_of(req)->fs, &who, parent, name, mode, rdev, &attr);

	names_changed(front_of(req), parent);
	front_reply_entry(req, error, &attr);
	counter_end(op, begin);
}

void front_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	make(req, OP_MKNOD, parent, name, mode, rdev);
}

void front_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make(req, OP_MKDIR, parent, name, (mode & ~(mode_t)S_IFMT) | S_IFDIR, 0);
}

void front_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	uint64_t begin = front_begin();
	struct fs_who who = front_who(req);
	struct fs_attr attr;
	int error = fs_symlink(front_of(req)->fs, &who, parent, name, target, &attr);

	names_changed(front_of(req), parent);
	front_reply_entry(req, error, &attr);
	counter_end(OP_SYMLINK, begin);
}

void front_readlink(fuse_req_t req, fuse_ino_t ino)
{
	uint64_t begin = front_begin();
	char target[FS_SYMLINK_MAX + 1];
	int error = fs_readlink(front_of(req)->fs, ino, target, sizeof(target));

	if (error)
		fuse_reply_err(req, -error);
	else
		fuse_reply_readlink(req, target);
	counter_end(OP_READLINK, begin);
}

void front_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	uint64_t begin = front_begin();
	int error = fs_unlink(front_of(req)->fs, parent, name);

	names_changed(front_of(req), parent);
	fuse_reply_err(req, -error);
	counter_end(OP_UNLINK, begin);
}

void front_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	uint64_t begin = front_begin();
	int error = fs_rmdir(front_of(req)->fs, parent, name);

	names_changed(front_of(req), parent);
	fuse_reply_err(req, -error);
	counter_end(OP_RMDIR, begin);
}

void front_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
		  unsigned flags)
{
	uint64_t begin = front_begin();
	struct fs_who who = front_who(req);
	int error = fs_rename(front_of(req)->fs, &who, parent, name, new_parent, new_name, flags);

	names_changed(front_of(req), parent);
	if (new_parent != parent)
		names_changed(front_of(req), new_parent);
	fuse_reply_err(req, -error);
	counter_end(OP_RENAME, begin);
}

void front_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	uint64_t begin = front_begin();
	struct fs_attr attr;
	int error = fs_link(front_of(req)->fs, ino, new_parent, new_name, &attr);

	names_changed(front_of(req), new_parent);
	front_reply_entry(req, error, &attr);
	counter_end(OP_LINK, begin);
}

static void reply_create(fuse_req_t req, int error, const struct fs_attr *attr, struct fuse_file_info *fi)
{
	struct front *front = front_of(req);
	struct fuse_entry_param entry;

	if (error) {
		fuse_reply_err(req, -error);
		return;
	}
	front_entry(front, attr, &entry);
	front_open_flags(front, fi);
	if (fuse_reply_create(req, &entry, fi) == -ENOENT)
		fs_forget(front->fs, attr->ino, 1);
}

void front_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();
	struct fs_who who = front_who(req);
	struct fs_attr attr;
	int error = fs_create(front_of(req)->fs, &who, parent, name, (mode & ~(mode_t)S_IFMT) | S_IFREG, 0, &attr);

	names_changed(front_of(req), parent);
	reply_create(req, error, &attr, fi);
	counter_end(OP_CREATE, begin);
}

void front_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();
	struct fs_who who = front_who(req);
	struct fs_attr attr;
	int error = fs_tmpfile(front_of(req)->fs, &who, parent, (mode & ~(mode_t)S_IFMT) | S_IFREG, &attr);

	reply_create(req, error, &attr, fi);
	counter_end(OP_TMPFILE, begin);
}
