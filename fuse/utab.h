/*
 * umount(8) of util-linux asks statfs() what it unmounts, hears "fuse", and looks for /sbin/umount.fuse, unless /run/mount/utab has a line of the mount
 * point: only then does it read the whole type and run /sbin/umount.fuse.mendfs, which waits for the daemon.
 */
#ifndef FUSE_UTAB_H
#define FUSE_UTAB_H

/*
 * Leave that line, by mount(8) itself, where the helper is installed and we are root. umount(8) takes it away again. After the mount, while it is
 * served: mount(8) looks at the mount point.
 */
void utab_add(const char *source, const char *mountpoint);

#endif
