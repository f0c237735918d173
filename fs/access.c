/* Access times. They live in DRAM until the inode's record is stored anyhow, or the lazy times are flushed: a read is never a transaction. */
#include <sys/stat.h>
#include <time.h>

#include "fs/table.h"

#define DAY_SECONDS 86400
#define SECOND_NS 1000000000u

static bool is_not_after(int64_t sec, uint32_t nsec, int64_t other_sec, uint32_t other_nsec)
{
	return sec < other_sec || (sec == other_sec && nsec <= other_nsec);
}

/* relatime: only when it tells something, namely "read since it was last changed", or is a day old. */
static bool access_is_due(const struct inode_record *record, int64_t now_sec)
{
	return is_not_after(record->atime.sec, record->atime.nsec, record->mtime.sec, record->mtime.nsec) ||
	       is_not_after(record->atime.sec, record->atime.nsec, record->ctime.sec, record->ctime.nsec) ||
	       record->atime.sec <= now_sec - DAY_SECONDS;
}

/* Under attr_lock. */
static bool access_counts(const struct inode *inode, int64_t now_sec)
{
	const struct fs_options *options = &inode->fs->options;

	if ((inode->record.flags & INODE_NOATIME) || (options->no_diratime && S_ISDIR(inode->record.mode)))
		return false;
	return options->atime == FS_ATIME_ALWAYS || access_is_due(&inode->record, now_sec);
}

/* Under attr_lock. True: it has become dirty. */
static bool access_set(struct inode *inode, uint64_t now_ns)
{
	bool was_dirty = inode->times_dirty || inode->atime_dirty;
	struct inode_record *record = &inode->record;
	int64_t now_sec = (int64_t)(now_ns / SECOND_NS);
	bool counts = access_counts(inode, now_sec);

	if (counts) {
		record->atime.sec = now_sec;
		record->atime.nsec = (uint32_t)(now_ns % SECOND_NS);
		inode->access_ns = now_ns;
		inode->atime_dirty = true;
	}
	/* A time set by hand may be anything. */
	if (inode->fs->options.atime == FS_ATIME_RELATIVE && !access_is_due(record, now_sec) && record->atime.sec <= now_sec)
		atomic_store_explicit(&inode->access_fresh_ns, (uint64_t)(record->atime.sec + DAY_SECONDS) * SECOND_NS, memory_order_relaxed);
	return counts && !was_dirty;
}

void inode_touch_access(struct inode *inode)
{
	struct timespec coarse;
	bool becomes_dirty;
	uint64_t now_ns;

	if (inode->fs->options.atime == FS_ATIME_NEVER)
		return;
	clock_gettime(CLOCK_REALTIME_COARSE, &coarse);
	now_ns = (uint64_t)coarse.tv_sec * SECOND_NS + (uint64_t)coarse.tv_nsec;
	if (now_ns < atomic_load_explicit(&inode->access_fresh_ns, memory_order_relaxed) || fs_is_readonly(inode->fs))
		return;
	lock_mutex(&inode->attr_lock, LOCK_OBJECT);
	becomes_dirty = access_set(inode, time_now_ns());
	pthread_mutex_unlock(&inode->attr_lock);
	if (becomes_dirty)
		inode_mark_dirty(inode);
}
