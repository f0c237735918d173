/* ioctls of our own: clone, deduplicate, map (control/mendfs_ioctl.h). */
#include "fuse/ioctl.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "fuse/session.h"
#include "fuse/ticket.h"

static_assert(sizeof(struct mendfs_dedupe) <= IOCTL_BYTES_MAX && sizeof(struct mendfs_map) <= IOCTL_BYTES_MAX, "they come and go whole");

/* --- what the caller may do ---------------------------------------------------------------------------------------------- */

enum { MAY_READ = 1, MAY_WRITE = 2, OWNS = 4 };

/* As the file is open; where that is not known (-o no_open) it is only the owner and root of whom we know that they could have opened it so. */
static int rights_of(const struct ioctl_call *call, struct fs_attr *attr, unsigned *rights)
{
	int error = fs_getattr(call->front->fs, call->ino, attr), how = (int)(call->handle & O_ACCMODE);
	bool owns;

	if (error)
		return error;
	if (!S_ISREG(attr->record.mode))
		return S_ISDIR(attr->record.mode) ? -EISDIR : -EINVAL;
	owns = call->who.uid == 0 || call->who.uid == attr->record.uid;
	if (!(call->handle & FRONT_HANDLE_KNOWN) && !owns)
		return -EACCES;
	*rights = owns ? OWNS : 0;
	if (!(call->handle & FRONT_HANDLE_KNOWN))
		how = O_RDWR;
	if (how == O_RDONLY || how == O_RDWR)
		*rights |= MAY_READ;
	if (how == O_WRONLY || how == O_RDWR)
		*rights |= MAY_WRITE;
	return 0;
}

int ioctl_ticket(struct ioctl_call *call)
{
	struct mendfs_ticket sealed;
	struct ticket ticket;
	struct fs_attr attr;
	unsigned rights;
	int error = rights_of(call, &attr, &rights);

	if (error)
		return error;
	ticket = (struct ticket){.ino = call->ino, .generation = attr.record.generation};
	ticket.rights = (rights & MAY_READ ? TICKET_READ : 0) | (rights & (MAY_WRITE | OWNS) ? TICKET_TARGET : 0);
	error = ticket_seal(&ticket, &sealed);
	if (!error)
		ioctl_reply(call, &sealed, sizeof(sealed));
	return error;
}

/* The file that a ticket names, if it allows that. */
static int ticket_use(struct ioctl_call *call, const struct mendfs_ticket *sealed, enum ticket_right right, int refusal, struct fs_attr *attr)
{
	struct ticket ticket;
	int error = ticket_open(sealed, &ticket);

	if (!error && !(ticket.rights & right))
		error = refusal;
	if (error)
		return error;
	error = fs_getattr(call->front->fs, ticket.ino, attr);
	if (error == -ENOENT || (!error && attr->record.generation != ticket.generation))
		return -ESTALE;
	return error;
}

/* --- clone --------------------------------------------------------------------------------------------------------------- */

struct cloning {
	struct ioctl_call *call;
	struct mendfs_clone order;
	struct fs_attr from, to;
};

/* The sizes are of now, after what the kernel held back has come. */
static int clone_verify_range(struct cloning *c)
{
	const struct mendfs_clone *o = &c->order;
	uint64_t size = c->from.record.size_bytes, length = o->length;

	if ((o->source_offset | o->offset) % BLOCK_BYTES || o->source_offset > size)
		return -EINVAL;
	if (!length)
		length = size - o->source_offset;
	if (length > size - o->source_offset)
		return -EINVAL;
	if (length % BLOCK_BYTES && o->source_offset + length != size)
		return -EINVAL;
	if (length > FS_FILE_MAX - min_u64(o->offset, FS_FILE_MAX))
		return -EFBIG;
	if (length % BLOCK_BYTES && o->offset + length < c->to.record.size_bytes)
		return -EINVAL;
	c->order.length = length;
	return 0;
}

/* One call of fs_copy_range() may end short. */
static int clone_range(struct cloning *c)
{
	uint64_t at, done = 0;
	int error = clone_verify_range(c);

	for (at = 0; !error && at < c->order.length; at += done) {
		error = fs_copy_range(c->call->front->fs, c->from.ino, c->order.source_offset + at, c->to.ino, c->order.offset + at, c->order.length - at, &done);
		if (!error && !done)
			error = -EINVAL; /* the source has become shorter */
	}
	return error;
}

static void drop_pages(struct cloning *c, inum_t ino, uint64_t pos)
{
	session_invalidate(c->call->front, ino, pos, c->order.length);
}

static int clone_verify(struct cloning *c)
{
	const struct mendfs_clone *o = &c->order;
	unsigned rights;
	int error = rights_of(c->call, &c->to, &rights);

	if (error)
		return error;
	if (!(rights & MAY_WRITE))
		return -EBADF;
	if (o->reserved || (o->flags & ~(unsigned)MENDFS_CLONE_WHOLE) ||
	    ((o->flags & MENDFS_CLONE_WHOLE) && (o->source_offset || o->length || o->offset)) || o->source_offset > FS_FILE_MAX ||
	    o->offset > FS_FILE_MAX || o->length > FS_FILE_MAX)
		return -EINVAL;
	return ticket_use(c->call, &o->source, TICKET_READ, -EBADF, &c->from);
}

static int clone_perform(struct cloning *c)
{
	struct fs *fs = c->call->front->fs;
	int error = fs_kill_privileges(fs, c->to.ino, c->call->who.uid != 0, NULL);

	if (!error)
		error = fs_getattr(fs, c->from.ino, &c->from);
	if (!error)
		error = fs_getattr(fs, c->to.ino, &c->to);
	if (error)
		return error;
	return c->order.flags & MENDFS_CLONE_WHOLE ? fs_clone(fs, c->from.ino, c->to.ino) : clone_range(c);
}

/* Dirty pages of the destination must not come after the clone, those of the source not be missing in it. */
static int clone_with_pages(struct cloning *c)
{
	int error;

	drop_pages(c, c->from.ino, c->order.source_offset);
	drop_pages(c, c->to.ino, c->order.offset);
	error = clone_perform(c);
	drop_pages(c, c->to.ino, c->order.offset);
	return error;
}

int ioctl_clone(struct ioctl_call *call)
{
	struct front *front = call->front;
	struct cloning c = {.call = call};
	int error;

	memcpy(&c.order, call->in, sizeof(c.order));
	error = clone_verify(&c);
	if (error)
		return error;
	if (!front->most_waiting)
		return -EOPNOTSUPP;
	error = -EAGAIN;
	if (atomic_fetch_add(&front->count_waiting, 1) < front->most_waiting)
		error = clone_with_pages(&c);
	atomic_fetch_sub(&front->count_waiting, 1);
	return error;
}

/* --- deduplicate --------------------------------------------------------------------------------------------------------- */

static int dedupe_target(struct ioctl_call *call, const struct mendfs_dedupe *order, struct mendfs_dedupe_target *target)
{
	struct fs_dedupe dedupe = {.from = call->ino, .from_pos = order->offset, .to_pos = target->offset, .length = order->length};
	struct fs_attr attr;
	int error = target->reserved ? -EINVAL : ticket_use(call, &target->ticket, TICKET_TARGET, -EPERM, &attr);

	if (error)
		return error;
	dedupe.to = attr.ino;
	error = fs_dedupe(call->front->fs, &dedupe);
	target->bytes_deduped = dedupe.done;
	target->bytes_gained = dedupe.gained;
	if (dedupe.gained)
		session_invalidate(call->front, attr.ino, SESSION_ATTRIBUTES, 0);
	return !error && dedupe.differs ? MENDFS_DEDUPE_DIFFERS : error;
}

int ioctl_dedupe(struct ioctl_call *call)
{
	struct mendfs_dedupe order;
	struct fs_attr attr;
	unsigned rights;
	int error = rights_of(call, &attr, &rights);

	memcpy(&order, call->in, sizeof(order));
	if (!error && !(rights & MAY_READ))
		error = -EBADF;
	if (!error && (order.reserved || !order.count || order.count > MENDFS_DEDUPE_TARGETS))
		error = -EINVAL;
	if (error)
		return error;
	for (unsigned i = 0; i < order.count; i++) {
		order.targets[i].bytes_deduped = order.targets[i].bytes_gained = 0;
		order.targets[i].status = dedupe_target(call, &order, &order.targets[i]);
	}
	ioctl_reply(call, &order, sizeof(order));
	return 0;
}

/* --- map ----------------------------------------------------------------------------------------------------------------- */

struct mapping {
	struct media *media;
	struct mendfs_map map;
};

/* How far is it alike: in blocks that are known to be bad, or not? */
static uint64_t bad_run(struct media *media, devoff_t offset, uint64_t length, bool *is_bad)
{
	devoff_t start = round_down_u64(offset, BLOCK_BYTES), bad;
	uint64_t bad_length;

	*is_bad = false;
	if (!media_bad_any(media) || !media_bad_find(media, start, offset - start + length, &bad, &bad_length))
		return length;
	*is_bad = bad - start < BLOCK_BYTES;
	if (!*is_bad)
		return round_down_u64(bad, BLOCK_BYTES) - offset;
	return min_u64(length, round_up_u64(bad + bad_length, BLOCK_BYTES) - offset);
}

static int map_add(void *arg, const struct fs_map_extent *extent)
{
	struct mapping *m = arg;
	uint64_t run;
	bool is_bad;

	for (uint64_t at = 0; at < extent->length_bytes; at += run) {
		if (m->map.count == m->map.room)
			return 1;
		run = bad_run(m->media, extent->device_offset + at, extent->length_bytes - at, &is_bad);
		m->map.extents[m->map.count++] = (struct mendfs_extent){
			.offset = extent->pos + at,
			.length = run,
			.device_offset = extent->device_offset + at,
			.flags = (extent->written ? 0 : MENDFS_EXTENT_UNWRITTEN) | (extent->shared ? MENDFS_EXTENT_SHARED : 0) |
				 (is_bad ? MENDFS_EXTENT_BAD : 0),
		};
	}
	return 0;
}

int ioctl_map(struct ioctl_call *call)
{
	struct mapping m = {.media = fs_media(call->front->fs)};
	int stopped;

	memcpy(&m.map, call->in, sizeof(m.map));
	if (m.map.reserved || !m.map.room || m.map.room > MENDFS_MAP_EXTENTS)
		return -EINVAL;
	m.map.count = 0;
	memset(m.map.extents, 0, sizeof(m.map.extents));
	stopped = fs_map(call->front->fs, call->ino, m.map.start, m.map.length, map_add, &m);
	if (stopped < 0)
		return stopped;
	if (!stopped && m.map.count)
		m.map.extents[m.map.count - 1].flags |= MENDFS_EXTENT_LAST;
	ioctl_reply(call, &m.map, sizeof(m.map));
	return 0;
}
