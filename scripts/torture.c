/* Preloaded (LD_PRELOAD) into a program: at the n-th call that changes a file below a
 * folder, the call fails or the program is killed. So every moment between two writes
 * can be tried, not only those that a clock hits. `torture` says where and when.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;
static long at, number;
static char below[PATH_MAX];
static int stays;

/* From now on the n-th call below `folder` fails with `error`, and all after it if it
 * `persists`; error 0 kills the program, n 0 only counts.
 */
void torture(const char *folder, long n, long error, int persists) {
  snprintf(below, sizeof below, "%s", folder);
  at = n, number = error, stays = persists, calls = 0;
}
long torture_calls(void) { return calls; }

static int inside(const char *path) {
  return below[0] && path && !strncmp(path, below, strlen(below));
}

/* The path of an open file, or of a name beside an open folder. */
static const char *path_of(int fd, const char *name, char *out) {
  char link[40];
  if (name && (name[0] == '/' || fd == AT_FDCWD)) return name;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
  if (size < 0) return NULL;
  out[size] = 0;
  if (name) snprintf(out + size, PATH_MAX - size, "/%s", name);
  return out;
}

/* Whether this call is to fail, with errno set; perhaps it never comes back. */
static int fails(const char *path) {
  if (!inside(path)) return 0;
  long n = atomic_fetch_add(&calls, 1) + 1;
  if (!at || n < at || (n > at && !(stays && number))) return 0;
  if (!number) for (;;) syscall(SYS_kill, getpid(), SIGKILL);
  errno = number;
  return 1;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define CHANGES(flags) ((flags) & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR))
#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

#define OPEN(name) int name(const char *path, int flags, ...) { REAL(name); MODE(flags) \
  return CHANGES(flags) && fails(path) ? -1 : real(path, flags, mode); }
#define OPENAT(name) int name(int fd, const char *path, int flags, ...) { REAL(name); MODE(flags) char full[2 * PATH_MAX]; \
  return CHANGES(flags) && fails(path_of(fd, path, full)) ? -1 : real(fd, path, flags, mode); }
#define ON_FD(type, name, args, pass) type name args { REAL(name); char full[2 * PATH_MAX]; \
  return fails(path_of(fd, NULL, full)) ? -1 : real pass; }
#define ON_PATH(name, args, pass, path) int name args { REAL(name); return fails(path) ? -1 : real pass; }

OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)
ON_FD(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
ON_FD(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t to), (fd, data, size, to))
ON_FD(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t to), (fd, data, size, to))
ON_FD(ssize_t, writev, (int fd, const struct iovec *parts, int many), (fd, parts, many))
ON_FD(ssize_t, pwritev, (int fd, const struct iovec *parts, int many, off_t to), (fd, parts, many, to))
ON_FD(int, fsync, (int fd), (fd))
ON_FD(int, fdatasync, (int fd), (fd))
ON_FD(int, ftruncate, (int fd, off_t size), (fd, size))
ON_FD(int, ftruncate64, (int fd, off64_t size), (fd, size))
ON_PATH(rename, (const char *from, const char *to), (from, to), to)
ON_PATH(link, (const char *from, const char *to), (from, to), to)
ON_PATH(unlink, (const char *path), (path), path)
ON_PATH(rmdir, (const char *path), (path), path)
ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode), path)

int unlinkat(int fd, const char *path, int flags) {
  REAL(unlinkat); char full[2 * PATH_MAX];
  return fails(path_of(fd, path, full)) ? -1 : real(fd, path, flags);
}
int mkdirat(int fd, const char *path, mode_t mode) {
  REAL(mkdirat); char full[2 * PATH_MAX];
  return fails(path_of(fd, path, full)) ? -1 : real(fd, path, mode);
}
int renameat(int from_fd, const char *from, int to_fd, const char *to) {
  REAL(renameat); char full[2 * PATH_MAX];
  return fails(path_of(to_fd, to, full)) ? -1 : real(from_fd, from, to_fd, to);
}
int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
  REAL(renameat2); char full[2 * PATH_MAX];
  return fails(path_of(to_fd, to, full)) ? -1 : real(from_fd, from, to_fd, to, flags);
}

/* Reads below another folder: from the n-th on they fail with an error; with error 0
 * there is no more to read, as of a file that was cut.
 */
static atomic_long reads;
static long read_at, read_error;
static char read_below[PATH_MAX];
void torture_reads(const char *folder, long n, long error) {
  snprintf(read_below, sizeof read_below, "%s", folder);
  read_at = n, read_error = error, reads = 0;
}
long torture_reads_seen(void) { return reads; }

static int no_more(int fd) {
  char full[2 * PATH_MAX];
  if (!read_below[0]) return 0;
  const char *path = path_of(fd, NULL, full);
  if (!path || strncmp(path, read_below, strlen(read_below))) return 0;
  long n = atomic_fetch_add(&reads, 1) + 1;
  errno = read_error;
  return read_at && n >= read_at;
}

#define READS(name, args, pass) ssize_t name args { REAL(name); \
  return no_more(fd) ? (read_error ? -1 : 0) : real pass; }
READS(read, (int fd, void *data, size_t size), (fd, data, size))
READS(pread, (int fd, void *data, size_t size, off_t from), (fd, data, size, from))
READS(pread64, (int fd, void *data, size_t size, off64_t from), (fd, data, size, from))
READS(readv, (int fd, const struct iovec *parts, int many), (fd, parts, many))
