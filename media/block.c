#include "media/block.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "media/grow.h"
#include "media/media_types.h"

#define CLAIM_TRIES 50 /* of 20 ms: what was unmounted just now is let go of a moment later */
#define CLAIM_PAUSE_NS 20000000L
#define OVERWRITE_BYTES (64u << 10)

void block_init(struct block *block)
{
	*block = (struct block){.exclusive_fd = -1, .sector_bytes = SECTOR_BYTES};
}

int block_size(int fd, uint64_t *size)
{
	return ioctl(fd, BLKGETSIZE64, size) < 0 ? -errno : 0;
}

int block_measure(struct media *media, struct why *why, uint64_t *size)
{
	int sector = 0, locked = 0, error = block_size(media->fd, size);

	if (!error && ioctl(media->fd, BLKSSZGET, &sector) < 0)
		error = -errno;
	if (error)
		return why_set(why, error, "%s: %s", media->path, strerror(-error));
	/* Some kernels open it for writing nevertheless. */
	if (!media->readonly && ioctl(media->fd, BLKROGET, &locked) == 0 && locked)
		return why_set(why, -EROFS, "%s is write-protected; it can be read: mount it with -o ro", media->path);
	if (sector <= 0 || (unsigned)sector > BLOCK_BYTES)
		return why_set(why, -ENOTSUP, "%s has sectors of %d bytes: at most %u can be used", media->path, sector, BLOCK_BYTES);
	media->block.sector_bytes = (unsigned)sector;
	return 0;
}

/* Where is the device mounted, and as what? */
static bool block_find_mount(dev_t device, char *dir, char *type)
{
	FILE *stream = fopen("/proc/self/mountinfo", "re");
	char line[8192];
	bool found = false;

	if (!stream)
		return false;
	while (!found && fgets(line, sizeof(line), stream)) {
		const char *tail = strstr(line, " - ");
		unsigned high, low;

		found = tail && sscanf(line, "%*d %*d %u:%u %*s %1023s", &high, &low, dir) == 3 &&
			sscanf(tail, " - %63s", type) == 1 && makedev(high, low) == device;
	}
	fclose(stream);
	return found;
}

static int block_refuse(const struct media *media, dev_t device, int error, struct why *why)
{
	char dir[1024], type[64];

	if (error != -EBUSY)
		return why_set(why, error, "%s cannot be claimed: %s", media->path, strerror(-error));
	if (block_find_mount(device, dir, type))
		return why_set(why, error, "%s is mounted on %s (%s); unmount it first: umount %s", media->path, dir, type, dir);
	return why_set(why, error, "%s is in use by the kernel (a mount elsewhere, swap, LVM, RAID ...); see: lsblk %s", media->path,
		       media->path);
}

static int block_open_exclusively(const struct media *media, dev_t device)
{
	const struct timespec pause = {.tv_nsec = CLAIM_PAUSE_NS};
	int fd = -1;

	for (unsigned i = 0; fd < 0 && i < CLAIM_TRIES; i++) {
		struct stat st;

		fd = open(media->path, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0 && errno != EBUSY)
			return -errno;
		if (fd < 0)
			nanosleep(&pause, NULL);
		else if (fstat(fd, &st) < 0 || !S_ISBLK(st.st_mode) || st.st_rdev != device) {
			close(fd);
			return -ESTALE;
		}
	}
	return fd < 0 ? -EBUSY : fd;
}

int block_claim(struct media *media, struct why *why)
{
	int block_bytes = BLOCK_BYTES;
	struct stat st;
	int fd;

	if (fstat(media->fd, &st) < 0)
		return why_set(why, -errno, "%s: %s", media->path, strerror(errno));
	fd = block_open_exclusively(media, st.st_rdev);
	if (fd < 0)
		return block_refuse(media, st.st_rdev, fd, why);
	media->block.exclusive_fd = fd;
	/*
	 * Before it is mapped: a change of this size drops the page cache, and a fuseblk mount would make it otherwise (blksize=). May fail
	 * for want of privilege, which such a mount has.
	 */
	ioctl(fd, BLKBSZSET, &block_bytes);
	return 0;
}

void media_hand_over(struct media *media)
{
	if (media->block.exclusive_fd >= 0)
		close(media->block.exclusive_fd);
	media->block.exclusive_fd = -1;
}

int media_take_back(struct media *media, struct why *why)
{
	struct why mine;
	int error = 0;

	if (media->is_block && media->claim && media->block.exclusive_fd < 0)
		error = block_claim(media, &mine);
	if (error)
		*why = mine;
	return error;
}

static int block_map_piece(struct media *media, devoff_t from, devoff_t end, struct why *why)
{
	int protection = PROT_READ | (media->readonly ? 0 : PROT_WRITE);

	if (mmap(media->map.base + from, end - from, protection, MAP_SHARED | MAP_FIXED, media->fd, (off_t)from) == MAP_FAILED)
		return why_set(why, -errno, "%s cannot be mapped: %s", media->path, strerror(errno));
	return 0;
}

int block_map(struct media *media, struct why *why)
{
	uint64_t wanted = round_up_u64(max_u64(grow_room(media), media->size), HUGE_BYTES);
	void *room = MAP_FAILED;

	media->granularity = MEDIA_PAGE;
	media->alignment = BLOCK_BYTES;
	/* Without room behind it the device cannot be used further when it is made larger; that is all. */
	for (; room == MAP_FAILED && wanted / 4 >= media->size; wanted /= 4) {
		room = mmap(NULL, wanted, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		media->limit = wanted;
	}
	if (room == MAP_FAILED) {
		media->limit = media->size;
		room = mmap(NULL, media->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	}
	if (room == MAP_FAILED)
		return why_set(why, -errno, "%s cannot be mapped: %s", media->path, strerror(errno));
	media->map = (struct guard_region){room, media->limit};
	media->block.is_mapped = true;
	return block_map_piece(media, 0, media->size, why);
}

void block_unmap(struct media *media)
{
	if (media->block.is_mapped)
		munmap(media->map.base, media->map.length);
	media->block.is_mapped = false;
}

int block_grow_to(const struct media *media, uint64_t *size, struct why *why)
{
	uint64_t now;
	int error = block_size(media->fd, &now);

	if (error)
		return why_set(why, error, "%s: %s", media->path, strerror(-error));
	now = round_down_u64(now, BLOCK_BYTES);
	if (*size > now)
		return why_set(why, -ENOTSUP, "%s has %llu bytes: make it larger first (losetup -c, lvextend ...)", media->path,
			       (unsigned long long)now);
	if (*size == 0)
		*size = now;
	return 0;
}

int block_map_more(struct media *media, uint64_t size, struct why *why)
{
	return block_map_piece(media, media->size, size, why);
}

int block_overwrite(const struct media *media, devoff_t offset, uint64_t length)
{
	static const _Alignas(BLOCK_BYTES) unsigned char zeros[OVERWRITE_BYTES];
	devoff_t end = offset + length;
	char name[64];
	int fd;

	if (offset % media->block.sector_bytes || length % media->block.sector_bytes)
		return -ENOTSUP;
	/* A descriptor of its own: a failure here is no failure of what was stored through the mapping. */
	snprintf(name, sizeof(name), "/proc/self/fd/%d", media->fd);
	fd = open(name, O_WRONLY | O_DIRECT | O_DSYNC | O_CLOEXEC);
	if (fd < 0)
		return -EIO;
	while (offset < end) {
		ssize_t n = pwrite(fd, zeros, (size_t)min_u64(end - offset, OVERWRITE_BYTES), (off_t)offset);

		if (n <= 0)
			break;
		offset += (uint64_t)n;
	}
	close(fd);
	return offset < end ? -EIO : 0;
}

uint64_t media_attachment(const struct media *media)
{
	uint64_t number = 0;

	if (!media->is_block)
		return 0;
	/* Linux 5.15; before that it cannot be told, so none is the same as another. */
	if (ioctl(media->fd, BLKGETDISKSEQ, &number) < 0 && getrandom(&number, sizeof(number), 0) < 0)
		return UINT64_MAX;
	return number;
}
