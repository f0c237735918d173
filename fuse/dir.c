/* Directory listings. The cookie is the offset, so there is no state per open directory and OPENDIR is refused for good. */
#include "fuse/front.h"

#include <errno.h>
#include <string.h>

void front_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();

	if (front_of(req)->no_opendir) {
		fuse_reply_err(req, ENOSYS);
	} else {
		fi->cache_readdir = 1;
		fi->keep_cache = 1;
		fuse_reply_open(req, fi);
	}
	counter_end(OP_OPENDIR, begin);
}

void front_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();

	fuse_reply_err(req, 0);
	counter_end(OP_RELEASEDIR, begin);
}

struct listing {
	fuse_req_t req;
	char *buffer;
	size_t size;
	size_t used;
};

static int add_plain(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next, const struct fs_attr *attr)
{
	struct listing *listing = arg;
	struct stat st = {.st_ino = ino, .st_mode = (mode_t)type << 12};
	size_t room = listing->size - listing->used;
	size_t need = fuse_add_direntry(listing->req, listing->buffer + listing->used, room, name, &st, (off_t)next);

	if (need > room)
		return 1;
	listing->used += need;
	return 0;
}

static int add_plus(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next, const struct fs_attr *attr)
{
	struct listing *listing = arg;
	struct fuse_entry_param entry = {.attr = {.st_ino = ino, .st_mode = (mode_t)type << 12}};
	size_t room = listing->size - listing->used;
	size_t need;

	if (attr)
		front_entry(front_of(listing->req), attr, &entry);
	need = fuse_add_direntry_plus(listing->req, listing->buffer + listing->used, room, name, &entry, (off_t)next);
	if (need > room)
		return 1;
	listing->used += need;
	return 0;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus)
{
	struct listing listing = {.req = req, .buffer = front_thread_buffer(size), .size = size};
	int error = -ENOMEM;

	if (listing.buffer)
		error = fs_readdir(front_of(req)->fs, ino, (uint64_t)offset, plus, plus ? add_plus : add_plain, &listing);
	/* Entries already taken must reach the kernel: with plus they carry references. */
	if (error < 0 && !listing.used)
		fuse_reply_err(req, -error);
	else
		fuse_reply_buf(req, listing.buffer, listing.used);
}

void front_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();

	list(req, ino, size, offset, false);
	counter_end(OP_READDIR, begin);
}

void front_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	uint64_t begin = front_begin();

	list(req, ino, size, offset, true);
	counter_end(OP_READDIRPLUS, begin);
}
