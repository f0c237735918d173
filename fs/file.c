#include "fs/data.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "journal/root.h"

#define MAP_BATCH 16

int file_get(struct fs *fs, inum_t ino, struct inode **out)
{
	struct inode *inode;
	int error = inode_get(fs, ino, &inode);

	if (error)
		return error;
	if (!S_ISREG(inode->type)) {
		error = S_ISDIR(inode->type) ? -EISDIR : -EINVAL;
		inode_put(inode);
		return error;
	}
	*out = inode;
	return 0;
}

void record_stamp_change(struct inode_record *record)
{
	uint64_t now = time_now_ns();

	record->ctime.sec = (int64_t)(now / 1000000000u);
	record->ctime.nsec = (uint32_t)(now % 1000000000u);
	record->change++;
}

void record_touch(struct inode_record *record)
{
	uint64_t now = time_now_ns();

	record->mtime.sec = (int64_t)(now / 1000000000u);
	record->mtime.nsec = (uint32_t)(now % 1000000000u);
	record->ctime.sec = record->mtime.sec;
	record->ctime.nsec = record->mtime.nsec;
	record->change++;
}

void inode_lock_two(struct inode *a, struct inode *b)
{
	struct inode *first = a->ino <= b->ino ? a : b;

	lock_write(&first->data_lock, LOCK_DATA);
	if (a != b)
		lock_write(first == a ? &b->data_lock : &a->data_lock, LOCK_DATA);
}

void inode_lock_two_shared(struct inode *a, struct inode *b)
{
	struct inode *first = a->ino <= b->ino ? a : b;

	lock_read(&first->data_lock, LOCK_DATA);
	if (a != b)
		lock_read(first == a ? &b->data_lock : &a->data_lock, LOCK_DATA);
}

void inode_unlock_two(struct inode *a, struct inode *b)
{
	pthread_rwlock_unlock(&a->data_lock);
	if (a != b)
		pthread_rwlock_unlock(&b->data_lock);
}

struct read_cursor {
	struct inode *inode;
	uint64_t pos, end;
	uint8_t *to; /* the byte at pos goes here */
};

/*
 * Ranges of a file whose map was lost: the first byte of the file in [pos, end) that is one, or
 * end.
 */
static int damage_first(struct fs *fs, inum_t ino, uint64_t pos, uint64_t end, uint64_t *first)
{
	struct btree_key key = {{ino, pos, 0}};
	struct damaged_record damage;
	struct btree_record record;
	int error = btree_lookup_le(&fs->damaged, &key, &record);

	*first = end;
	if (!error && record.key.word[0] == ino) {
		error = format_damaged_unpack(&damage, record.value, record.length);
		if (!error && record.key.word[1] + damage.length_bytes > pos)
			*first = pos;
		if (error || *first == pos)
			return error;
	}
	if (error && error != -ENOENT)
		return error;
	error = btree_lookup_ge(&fs->damaged, &key, &record);
	if (!error && record.key.word[0] == ino)
		*first = min_u64(end, record.key.word[1]);
	return error == -ENOENT ? 0 : error;
}

/* The same, where most have no such range at all. Under the metadata lock. */
static int damage_first_of_any(struct fs *fs, inum_t ino, uint64_t pos, uint64_t end, uint64_t *first)
{
	maddr_t root;
	unsigned level;

	*first = end;
	root_tree_get(fs->journal, FORMAT_TREE_DAMAGED, &root, &level);
	return root ? damage_first(fs, ino, pos, end, first) : 0;
}

int file_verify_whole(struct inode *inode, uint64_t pos, uint64_t length)
{
	struct fs *fs = inode->fs;
	uint64_t first;
	int error;

	journal_read_begin(fs->journal);
	error = damage_first_of_any(fs, inode->ino, pos, pos + length, &first);
	journal_read_end(fs->journal);
	return !error && first < pos + length ? -EIO : error;
}

/* The extents from pos on, and how far (bytes) the file's map is whole. */
static int read_map(const struct read_cursor *c, struct extent *extents, unsigned *count,
		    uint64_t *covered)
{
	struct fs *fs = c->inode->fs;
	uint64_t whole, block;
	int error;

	journal_read_begin(fs->journal);
	error = damage_first_of_any(fs, c->inode->ino, c->pos, c->end, &whole);
	if (!error)
		error = extent_collect(fs, c->inode->ino, c->pos >> BLOCK_SHIFT,
				       file_block_up(c->end), extents, MAP_BATCH, count, &block);
	journal_read_end(fs->journal);
	if (!error)
		*covered = min_u64(round_down_u64(whole, whole == c->end ? 1 : BLOCK_BYTES),
				   block << BLOCK_SHIFT);
	return error;
}

static void read_zeros(struct read_cursor *c, uint64_t to)
{
	if (to <= c->pos)
		return;
	memset(c->to, 0, to - c->pos);
	c->to += to - c->pos;
	c->pos = to;
}

/* Copy from the medium up to the first bad 4 KiB block, known or met. */
static int read_device(struct read_cursor *c, devoff_t offset, uint64_t length)
{
	struct fs *fs = c->inode->fs;
	blkno_t block = offset >> BLOCK_SHIFT;
	uint64_t blocks = file_block_up(offset + length) - block;
	uint64_t good_blocks = extent_good_blocks(fs, block, blocks);
	uint64_t good = length;
	devoff_t bad = 0;
	int error = 0;

	if (good_blocks < blocks)
		good = good_blocks ? block_device_offset(block + good_blocks) - offset : 0;
	if (good)
		error = media_read(fs->media, offset, c->to, good, &bad);
	if (error == -EIO)
		good = max_u64(round_down_u64(bad, BLOCK_BYTES), offset) - offset;
	if (error && error != -EIO)
		return error;
	c->pos += good;
	c->to += good;
	return good < length ? -EIO : 0;
}

static int read_extent(struct read_cursor *c, const struct extent *e, uint64_t until)
{
	uint64_t start = e->file_block << BLOCK_SHIFT;
	uint64_t stop = min_u64(start + (e->count_blocks << BLOCK_SHIFT), until);

	read_zeros(c, min_u64(start, until));
	if (c->pos >= stop)
		return 0;
	if (e->flags & EXTENT_UNWRITTEN) {
		read_zeros(c, stop);
		return 0;
	}
	return read_device(c, block_device_offset(e->block) + (c->pos - start), stop - c->pos);
}

static int read_batch(struct read_cursor *c)
{
	struct extent extents[MAP_BATCH];
	uint64_t covered, until;
	unsigned count, i;
	int error = read_map(c, extents, &count, &covered);

	if (error)
		return error;
	if (covered <= c->pos)
		return -EIO;
	until = min_u64(covered, c->end);
	for (i = 0; i < count && c->pos < until; i++) {
		error = read_extent(c, &extents[i], until);
		if (error)
			return error;
	}
	read_zeros(c, until);
	return 0;
}

int file_read_locked(struct inode *inode, uint64_t pos, void *buffer, size_t size, size_t *done)
{
	struct read_cursor c = {.inode = inode, .pos = pos, .to = buffer};
	uint64_t file_bytes = file_size(inode);
	int error = 0;

	c.end = pos >= file_bytes ? pos : pos + min_u64(size, file_bytes - pos);
	while (!error && c.pos < c.end)
		error = read_batch(&c);
	*done = (size_t)(c.pos - pos);
	return error;
}

static int file_read(struct fs *fs, inum_t ino, uint64_t pos, void *buffer, size_t size, size_t *done, bool is_seen)
{
	struct inode *inode;
	int error = file_get(fs, ino, &inode);

	*done = 0;
	if (error)
		return error;
	lock_read(&inode->data_lock, LOCK_DATA);
	error = file_read_locked(inode, pos, buffer, size, done);
	pthread_rwlock_unlock(&inode->data_lock);
	if (is_seen && !error)
		inode_touch_access(inode);
	inode_put(inode);
	return error;
}

int fs_read(struct fs *fs, inum_t ino, uint64_t pos, void *buffer, size_t size, size_t *done)
{
	return file_read(fs, ino, pos, buffer, size, done, true);
}

int fs_read_unseen(struct fs *fs, inum_t ino, uint64_t pos, void *buffer, size_t size, size_t *done)
{
	return file_read(fs, ino, pos, buffer, size, done, false);
}

int fs_fsync(struct fs *fs, inum_t ino)
{
	struct inode *inode;
	int error = inode_get(fs, ino, &inode);

	if (error)
		return error;
	error = fs_is_readonly(fs) ? 0 : inode_flush_times(inode);
	inode_put(inode);
	if (!error && fs_is_stopped(fs))
		return -EIO; /* since we looked for the inode */
	return error || fs_is_readonly(fs) ? error : journal_sync(fs->journal);
}

struct seek {
	bool data;
	uint64_t block; /* everything before it is the other kind */
	bool found;
};

static void seek_extent(struct seek *s, const struct extent *e)
{
	bool hole = e->file_block > s->block;

	if (hole && !s->data) {
		s->found = true;
		return;
	}
	if (s->data && !(e->flags & EXTENT_UNWRITTEN)) {
		s->block = e->file_block;
		s->found = true;
	} else if (!s->data && (e->flags & EXTENT_UNWRITTEN)) {
		s->found = true;
	} else {
		s->block = e->file_block + e->count_blocks;
	}
}

static int seek_batch(struct inode *inode, struct seek *s, uint64_t end)
{
	struct extent extents[MAP_BATCH];
	uint64_t covered;
	unsigned count, i;
	int error = extent_collect_unlocked(inode->fs, inode->ino, s->block, end, extents,
					    MAP_BATCH, &count, &covered);

	if (error)
		return error;
	for (i = 0; i < count && !s->found; i++)
		seek_extent(s, &extents[i]);
	if (s->found || covered <= s->block)
		return 0;
	if (s->data)
		s->block = covered;
	else
		s->found = true;
	return 0;
}

int file_seek_locked(struct inode *inode, uint64_t pos, int whence, uint64_t *out)
{
	struct seek s = {.data = whence == SEEK_DATA, .block = pos >> BLOCK_SHIFT};
	uint64_t size = file_size(inode), end = file_block_up(size);
	int error = 0;

	if (pos >= size)
		return -ENXIO;
	while (!error && !s.found && s.block < end)
		error = seek_batch(inode, &s, end);
	if (error)
		return error;
	if (s.data && !s.found)
		return -ENXIO;
	*out = min_u64(max_u64(s.block << BLOCK_SHIFT, pos), size);
	return 0;
}

int fs_seek(struct fs *fs, inum_t ino, uint64_t pos, int whence, uint64_t *out)
{
	struct inode *inode;
	int error;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	error = file_get(fs, ino, &inode);
	if (error)
		return error;
	lock_read(&inode->data_lock, LOCK_DATA);
	error = file_seek_locked(inode, pos, whence, out);
	pthread_rwlock_unlock(&inode->data_lock);
	inode_put(inode);
	return error;
}
