#include "tests/exercise/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct range {
	size_t pos, length;
};

static size_t pick(struct exercise *x, size_t below)
{
	return below ? (size_t)random_below(&x->random, below) : 0;
}

static struct file *any_file(struct exercise *x)
{
	return &x->files[pick(x, FILES)];
}

/* Mostly small, sometimes large; half of them on pages. Within `end`. */
static struct range any_range(struct exercise *x, size_t end)
{
	static const size_t most[] = {64, PAGE, 4 * PAGE, 40 * PAGE, 300 * PAGE};
	size_t limit = most[pick(x, sizeof(most) / sizeof(most[0]))];
	struct range r = {pick(x, end), 0};

	r.length = 1 + pick(x, limit < end ? limit : end);
	if (pick(x, 2)) {
		r.pos -= r.pos % PAGE;
		r.length = (r.length + PAGE - 1) / PAGE * PAGE;
	}
	if (r.length > end - r.pos)
		r.length = end - r.pos;
	return r;
}

static struct range page_range(struct exercise *x, size_t end)
{
	struct range r = any_range(x, end);

	r.pos -= r.pos % PAGE;
	r.length = (r.length + PAGE - 1) / PAGE * PAGE;
	if (r.length > end - r.pos)
		r.length = (end - r.pos) / PAGE * PAGE;
	return r;
}

/* What only this operation can have written there. */
static void fill(struct exercise *x, uint8_t *to, size_t length)
{
	uint64_t word = random_next(&x->random) | 0x0101010101010101ull;

	for (size_t i = 0; i < length; i++)
		to[i] = (uint8_t)((word >> (8 * (i % 8))) + i / PAGE);
}

static void model_write(struct file *f, size_t pos, const uint8_t *bytes, size_t length)
{
	if (length && pos + length > f->size)
		f->size = pos + length;
	memcpy(f->model + pos, bytes, length);
}

static void model_zero(struct file *f, size_t pos, size_t end)
{
	if (end > f->size)
		end = f->size;
	if (pos < end)
		memset(f->model + pos, 0, end - pos);
}

static size_t expected_read(const struct file *f, struct range r)
{
	if (r.pos >= f->size)
		return 0;
	return r.length < f->size - r.pos ? r.length : f->size - r.pos;
}

/* --- operations ------------------------------------------------------------------------------------------------------------- */

static void read_by(struct exercise *x, struct file *f, int fd, struct range r, const char *how)
{
	ssize_t got;

	say(x, "%c %s %zu+%zu", f->name, how, r.pos, r.length);
	got = pread(fd, x->buffer, r.length, (off_t)r.pos);
	if (got < 0)
		fail(x, "%s: %s", how, strerror(errno));
	if ((size_t)got != expected_read(f, r))
		fail(x, "%s: %zd bytes, not %zu (size %zu)", how, got, expected_read(f, r), f->size);
	file_compare(x, f, x->buffer, r.pos, (size_t)got, how);
}

static void op_read(struct exercise *x)
{
	struct file *f = any_file(x);

	read_by(x, f, f->fd, any_range(x, x->max), "read");
}

static void op_read_direct(struct exercise *x)
{
	struct file *f = any_file(x);

	read_by(x, f, f->direct, page_range(x, x->max), "read by O_DIRECT");
}

static void write_by(struct exercise *x, struct file *f, int fd, struct range r, const char *how)
{
	size_t done = 0;
	ssize_t put = 0;

	say(x, "%c %s %zu+%zu (size %zu)", f->name, how, r.pos, r.length, f->size);
	fill(x, x->buffer, r.length);
	while (done < r.length && (put = pwrite(fd, x->buffer + done, r.length - done, (off_t)(r.pos + done))) > 0)
		done += (size_t)put;
	if (put < 0)
		answer(x, how);
	model_write(f, r.pos, x->buffer, done);
}

static void op_write(struct exercise *x)
{
	struct file *f = any_file(x);

	write_by(x, f, f->fd, any_range(x, x->max), "write");
}

static void op_write_direct(struct exercise *x)
{
	struct file *f = any_file(x);

	write_by(x, f, f->direct, page_range(x, x->max), "write by O_DIRECT");
}

static void op_append(struct exercise *x)
{
	struct file *f = any_file(x);
	struct range r = {f->size, 1 + pick(x, 3 * PAGE)};

	if (r.length <= x->max - r.pos)
		write_by(x, f, f->append, r, "append");
}

static void op_map_read(struct exercise *x)
{
	struct file *f = any_file(x);
	struct range r = any_range(x, f->size);

	say(x, "%c read by mmap %zu+%zu", f->name, r.pos, r.length);
	if (f->size)
		file_compare(x, f, f->map + r.pos, r.pos, r.length, "read by mmap");
}

static void sync_map(struct exercise *x, struct file *f)
{
	if (f->map_is_dirty && msync(f->map, x->max, MS_SYNC))
		fail(x, "msync: %s", strerror(errno));
	f->map_is_dirty = false;
}

static void op_map_write(struct exercise *x)
{
	struct file *f = any_file(x);
	struct range r = any_range(x, f->size);

	say(x, "%c write by mmap %zu+%zu", f->name, r.pos, r.length);
	if (!f->size || x->no_space_is_fine) /* a store without space is a signal */
		return;
	fill(x, f->map + r.pos, r.length);
	memcpy(f->model + r.pos, f->map + r.pos, r.length);
	f->map_is_dirty = true;
	if (pick(x, 2))
		sync_map(x, f);
}

static void op_truncate(struct exercise *x)
{
	struct file *f = any_file(x);
	size_t size = pick(x, 4) ? pick(x, x->max) : pick(x, f->size + 2 * PAGE) % x->max;

	say(x, "%c truncate to %zu (size %zu)", f->name, size, f->size);
	if (pick(x, 2) ? ftruncate(f->fd, (off_t)size) : truncate(f->path, (off_t)size))
		return answer(x, "truncate");
	model_resize(f, size);
}

static void op_fallocate(struct exercise *x)
{
	static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
				    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	struct file *f = any_file(x);
	struct range r = any_range(x, x->max);
	int mode = modes[pick(x, sizeof(modes) / sizeof(modes[0]))];

	say(x, "%c fallocate mode %x %zu+%zu (size %zu)", f->name, (unsigned)mode, r.pos, r.length, f->size);
	if (fallocate(f->fd, mode, (off_t)r.pos, (off_t)r.length)) {
		if (errno == EOPNOTSUPP)
			return; /* tmpfs has no ZERO_RANGE */
		return answer(x, "fallocate");
	}
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		model_zero(f, r.pos, r.pos + r.length);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && r.pos + r.length > f->size)
		model_resize(f, r.pos + r.length);
}

static void copy(struct exercise *x, struct file *from, struct file *to, struct range r, size_t at)
{
	size_t length = expected_read(from, r), done = 0;
	ssize_t got = 1;

	say(x, "%c copy %zu+%zu to %c at %zu (sizes %zu, %zu)", from->name, r.pos, r.length, to->name, at, from->size, to->size);
	while (done < length && got > 0) {
		loff_t in = (loff_t)(r.pos + done), out = (loff_t)(at + done);

		got = copy_file_range(from->fd, &in, to->fd, &out, length - done, 0);
		done += got > 0 ? (size_t)got : 0;
	}
	if (got < 0 && errno == EINVAL && from == to)
		return;
	if (got < 0)
		answer(x, "copy_file_range");
	if (!got)
		fail(x, "copy_file_range: %zu bytes, not %zu", done, length);
	memmove(x->buffer, from->model + r.pos, done);
	model_write(to, at, x->buffer, done);
}

static void op_copy(struct exercise *x)
{
	struct file *from = any_file(x), *to = any_file(x);
	struct range r = any_range(x, x->max);
	size_t at = pick(x, x->max - r.length + 1);
	bool overlaps;

	if (pick(x, 3))
		at = (at & ~(size_t)(PAGE - 1)) + r.pos % PAGE;
	if (at > x->max - r.length)
		at -= PAGE;
	overlaps = from == to && (at > r.pos ? at - r.pos : r.pos - at) < r.length;
	if (at <= x->max - r.length && !overlaps)
		copy(x, from, to, r, at);
}

/* A copy of all of one file, as cp makes one. */
static void op_clone(struct exercise *x)
{
	unsigned which = (unsigned)pick(x, FILES);
	struct file *from = &x->files[which], *to = &x->files[(which + 1) % FILES];

	say(x, "%c truncate to 0", to->name);
	if (ftruncate(to->fd, 0))
		return answer(x, "truncate");
	model_resize(to, 0);
	copy(x, from, to, (struct range){0, from->size}, 0);
}

static size_t model_data(const struct file *f, size_t pos)
{
	while (pos < f->size && !f->model[pos])
		pos++;
	return pos;
}

/* A hole may be told as data, never the other way round. */
static void op_seek(struct exercise *x)
{
	struct file *f = any_file(x);
	size_t pos = pick(x, x->max), data = model_data(f, pos);
	off_t found, hole;

	say(x, "%c seek from %zu (size %zu)", f->name, pos, f->size);
	sync_map(x, f); /* the kernel asks a FUSE server without doing that */
	found = lseek(f->fd, (off_t)pos, SEEK_DATA);
	if (found < 0 && (errno != ENXIO || data < f->size))
		fail(x, "SEEK_DATA: %s, but byte %zu is not 0", strerror(errno), data);
	if (found >= 0 && ((size_t)found > data || (size_t)found < pos || (size_t)found >= f->size))
		fail(x, "SEEK_DATA: %lld, but byte %zu is not 0", (long long)found, data);
	hole = lseek(f->fd, (off_t)pos, SEEK_HOLE);
	if (hole < 0 ? errno != ENXIO || pos < f->size : (size_t)hole < pos || (size_t)hole > f->size)
		fail(x, "SEEK_HOLE: %lld", (long long)hole);
	if (hole >= 0 && found == (off_t)pos && hole == found)
		fail(x, "%zu is data and a hole", pos);
	if (hole >= 0 && (size_t)hole < f->size && f->model[hole])
		fail(x, "SEEK_HOLE: %lld is not 0", (long long)hole);
}

static void op_fsync(struct exercise *x)
{
	struct file *f = any_file(x);

	say(x, "%c fsync", f->name);
	if (pick(x, 2) ? fsync(f->fd) : fdatasync(f->fd))
		fail(x, "fsync: %s", strerror(errno));
}

static void op_drop_cache(struct exercise *x)
{
	struct file *f = any_file(x);

	say(x, "%c drop pages", f->name);
	posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static void op_reopen(struct exercise *x)
{
	struct file *f = any_file(x);

	say(x, "%c close, open", f->name);
	file_close(x, f);
	file_open(x, f, false);
}

static void op_compare(struct exercise *x)
{
	struct file *f = any_file(x);

	say(x, "%c compare", f->name);
	file_compare_all(x, f);
}

static const struct {
	const char *name;
	unsigned weight;
	void (*run)(struct exercise *x);
} ops[] = {
	{"read", 10, op_read},	       {"read by O_DIRECT", 10, op_read_direct}, {"write", 14, op_write},
	{"write by O_DIRECT", 8, op_write_direct}, {"append", 4, op_append},	 {"mmap read", 8, op_map_read},
	{"mmap write", 8, op_map_write}, {"truncate", 6, op_truncate},		 {"fallocate", 14, op_fallocate},
	{"copy", 10, op_copy},	       {"clone", 1, op_clone},			 {"seek", 5, op_seek},
	{"fsync", 2, op_fsync},	       {"drop pages", 3, op_drop_cache},	 {"reopen", 2, op_reopen},
	{"compare", 2, op_compare},
};

const char *exercise_op_name(unsigned op)
{
	return op < sizeof(ops) / sizeof(ops[0]) ? ops[op].name : NULL;
}

void exercise_step(struct exercise *x)
{
	unsigned all = 0, i;
	size_t chosen;

	for (i = 0; exercise_op_name(i); i++)
		all += ops[i].weight;
	chosen = pick(x, all);
	for (i = 0; chosen >= ops[i].weight; i++)
		chosen -= ops[i].weight;
	x->count[i]++;
	ops[i].run(x);
}
